use super::*;

/// What a test does to the image's files: one of each kind.
const CHANGE: &str = "
    echo new >/new; mkdir /folder; echo in >/folder/in; ln -s /new /link; mkfifo /pipe
    echo more >>/etc/passwd; chmod 600 /etc/group; touch -d '2001-01-01' /etc/shadow
    rm /etc/nsswitch.conf; rm -r /home/*; touch /etc/fresh
    rm -r /var/spool; mkdir /var/spool; echo x >/var/spool/x
    echo scratch >/tmp/scratch; echo run >/run/run; echo vol >/vol/file
    echo 10.0.0.1 db >>/etc/hosts";

const MORE: &str = "
[[step]]
write = '/etc/nsswitch.conf'
text = 'x'
[[step]]
write = '/etc/group'
text = 'root:x:0:'
[[step]]
write = '/etc/shadow'
text = 'root'
[[step]]
write = '/var/spool/old/a'
text = 'a'
[[step]]
write = '/home/app/b'
text = 'b'
";

const EXPECTED: &str = "\
A /etc/fresh
C /etc/group
C /etc/hosts
D /etc/nsswitch.conf
C /etc/passwd
C /etc/shadow
A /folder
A /folder/in
D /home/app
A /link
A /new
A /pipe
D /var/spool/mail
D /var/spool/old
A /var/spool/x
";

fn changed(options: &[&str]) -> Option<Running> {
    let volume = ["-v", "./vol:/vol"];
    let running = running_with(MORE, &[options, &volume].concat(), STAY);
    running.inspect(|running| {
        running.exec(&[], CHANGE).ok();
    })
}

fn running_with(more: &str, options: &[&str], script: &str) -> Option<Running> {
    // The folder of the volume has to be there before.
    super::running_in(more, options, &["sh", "-c", script], |sandbox| {
        sandbox.write("vol/there", "");
    })
}

#[test]
fn what_a_container_changed_is_told_path_by_path() {
    let Some(running) = changed(&[]) else { return };
    assert_eq!(running.mk(&["diff", "web"]).ok().stdout, EXPECTED);
    let stat = running.mk(&["diff", "--stat", "web"]).ok();
    assert!(
        stat.stdout.starts_with("7 added, 4 changed, 4 removed; "),
        "{stat}"
    );
    let json = running.mk(&["diff", "--json", "web"]).ok();
    let list: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    let of = |path: &str| {
        let list = list.as_array().unwrap();
        list.iter()
            .find(|one| one["path"] == path)
            .unwrap_or_else(|| panic!("{path}: {json}"))
            .clone()
    };
    assert_eq!(of("/etc/group")["fields"], serde_json::json!(["mode"]));
    assert_eq!(of("/etc/shadow")["fields"], serde_json::json!(["time"]));
    assert_eq!(of("/pipe")["type"], "fifo");
    assert_eq!(of("/new")["size"], 4);
}

#[test]
fn a_host_name_of_its_own_is_no_change() {
    let Some(running) = running(&["--hostname", "other"]) else {
        return;
    };
    assert_eq!(running.mk(&["diff", "web"]).ok().stdout, "");
}

#[test]
fn a_file_without_end_is_not_read() {
    let Some(running) = running(&[]) else { return };
    running.says(&[], "truncate -s 4000000000000 /huge; cat /etc/passwd >/dev/null");
    let begin = Instant::now();
    assert_eq!(running.mk(&["diff", "web"]).ok().stdout, "A /huge\n");
    assert!(begin.elapsed() < SOON);
}

#[test]
fn what_a_container_makes_leads_nowhere() {
    let Some(running) = running(&[]) else { return };
    running.says(&[], "rm -r /etc; ln -s /proc/1/root/etc /etc; mkdir /d; ln -s ../../../.. /d/up; mkfifo /d/p; mknod /d/n c 0 0 2>/dev/null; true");
    let diff = running.mk(&["diff", "web"]).ok();
    assert_eq!(diff.stdout, "A /d\nA /d/p\nA /d/up\nC /etc\n");
}

#[test]
fn what_was_written_to_memory_goes_with_the_container() {
    let Some(running) = changed(&[]) else { return };
    running.mk(&["stop", "web"]).ok();
    let output = running.mk(&["diff", "web"]);
    assert_eq!(output.code, Some(1));
    assert!(
        output
            .stderr
            .starts_with("error: container `web` has ended, and what it wrote went with it"),
        "{output}"
    );
    assert!(output.stderr.contains("--scratch"), "{output}");
}

#[test]
fn what_was_written_to_a_disk_is_told_during_and_after() {
    let Some(running) = changed(&["--scratch", "./kept"]) else {
        return;
    };
    assert_eq!(running.mk(&["diff", "web"]).ok().stdout, EXPECTED);
    running.mk(&["stop", "web"]).ok();
    assert_eq!(running.mk(&["diff", "web"]).ok().stdout, EXPECTED);
}
