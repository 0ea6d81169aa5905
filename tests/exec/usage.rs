use super::*;

use serde_json::Value;

fn json(output: Output) -> Vec<Value> {
    let output = output.ok();
    serde_json::from_str::<Value>(&output.stdout)
        .unwrap()
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn top_shows_processes_as_the_container_has_them() {
    let seconds = marker();
    let script = format!("sleep {seconds} & {STAY}");
    let Some(running) = running_with("", &[], &script) else {
        return;
    };
    let list = json(running.mk(&["top", "--json", "web"]));
    let of = |word: &str| {
        let has = |one: &&Value| one["command"].to_string().contains(word);
        list.iter()
            .find(has)
            .unwrap_or_else(|| panic!("{word}: {list:?}"))
            .clone()
    };
    assert_eq!(
        (&of("mk-init")["pid"], &of("mk-init")["user"]),
        (&Value::from(1), &Value::from("root"))
    );
    let sleep = list.iter().find(|one| one["command"][0] == "sleep").unwrap();
    assert_eq!(sleep["command"][1], Value::from(seconds.as_str()));
    let inside = running.says(&[], &format!("pgrep -f '^sleep {seconds}'"));
    assert_eq!(sleep["pid"].to_string(), inside);
    assert!(sleep["rss"].as_u64().unwrap() > 0);
    // What comes in counts, and what is on the host does not.
    assert!(list.len() < 6, "{list:?}");
    let mut child = running.start(&[], "exec sleep 7654");
    eventually("what came in", || running.has_process_with("7654"));
    child.kill().unwrap();
    child.wait().unwrap();
    let table = running.mk(&["top", "web"]).ok();
    assert!(table.stdout.starts_with("PID  USER  TIME"), "{table}");
}

#[test]
fn stats_say_who_counted() {
    let Some(running) = running_with("", &[], &format!("while :; do :; done & {STAY}")) else {
        return;
    };
    let list = json(running.mk(&["stats", "--json"]));
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!(list[0]["name"], "web");
    assert_eq!(list[0]["memory_counted"], "processes");
    assert!(list[0]["cpu_percent"].as_f64().unwrap() > 10.0, "{list:?}");
    assert!(list[0]["memory"].as_u64().unwrap() > 0);
    assert!(list[0]["processes"].as_u64().unwrap() >= 3);
    let table = running.mk(&["stats", "web"]).ok();
    assert!(table.stdout.starts_with("NAME  CPU"), "{table}");
}

#[test]
fn stats_of_a_limited_container_are_the_kernel_s() {
    if !needs::root() {
        return;
    }
    let Some(running) = running(&["-m", "64m"]) else {
        return;
    };
    let list = json(running.mk(&["stats", "--json", "web"]));
    assert_eq!(list[0]["memory_counted"], "cgroup", "{list:?}");
    assert_eq!(list[0]["memory_limit"], 64 << 20, "{list:?}");
}

#[test]
fn a_container_that_has_ended_has_no_processes() {
    let Some(running) = running(&[]) else { return };
    running.mk(&["stop", "web"]).ok();
    for command in ["top", "stats"] {
        let output = running.mk(&[command, "web"]);
        assert_eq!(output.code, Some(1), "{output}");
        assert!(output.stderr.contains("container `web` has ended"), "{output}");
    }
}

#[test]
fn a_process_cannot_write_to_the_terminal_through_its_name() {
    let Some(running) = running(&[]) else { return };
    let name = "$(printf 'evil\\033[2J\\nroot')";
    let mut child = running.start(&[], &format!("exec sh -c 'sleep 8765; true' \"{name}\""));
    eventually("the sleep", || running.has_process_with("8765"));
    let top = running.mk(&["top", "web"]).ok();
    assert!(!top.stdout.contains('\u{1b}'), "{top:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}
