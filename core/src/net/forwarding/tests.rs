use std::collections::BTreeMap;

use super::*;
use crate::sys::namespace::Namespaces;
use crate::sys::probe;

/// The changes, as `sysctl -w` would be given them.
fn changed(settings: &[(&str, &str)], uplinks: &[&str], all: &[&str]) -> Vec<String> {
    let settings: BTreeMap<&str, &str> = settings.iter().copied().collect();
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let changes = needed(
        &owned(uplinks),
        || owned(all),
        |name| settings.get(name).map(|value| (*value).to_owned()),
    );
    changes
        .into_iter()
        .map(|change| format!("{} {}→{}", change.setting, change.was, change.is))
        .collect()
}

#[test]
fn uplinks_pass_on_each_by_itself_where_the_kernel_can_do_that() {
    let settings = [
        ("net/ipv4/conf/eth0/forwarding", "0"),
        ("net/ipv4/conf/eth1/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/all/force_forwarding", "0"),
        ("net/ipv6/conf/eth0/force_forwarding", "0"),
        ("net/ipv6/conf/eth1/force_forwarding", "1"),
    ];
    assert_eq!(
        changed(&settings, &["eth0", "eth1"], &["eth0", "eth1", "lo"]),
        [
            "net/ipv4/conf/eth0/forwarding 0→1",
            "net/ipv6/conf/eth0/force_forwarding 0→1"
        ]
    );
}

#[test]
fn an_older_kernel_passes_on_everywhere_and_goes_on_learning_routes() {
    let settings = [
        ("net/ipv4/conf/eth0/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "0"),
        ("net/ipv6/conf/default/forwarding", "0"),
        ("net/ipv6/conf/eth0/forwarding", "0"),
        ("net/ipv6/conf/eth0/accept_ra", "1"),
        ("net/ipv6/conf/br0/forwarding", "1"),
        ("net/ipv6/conf/br0/accept_ra", "1"),
    ];
    let changes = changed(&settings, &["eth0"], &["br0", "eth0"]);
    assert_eq!(
        changes,
        [
            "net/ipv6/conf/br0/forwarding 1→1",
            "net/ipv6/conf/eth0/accept_ra 1→2",
            "net/ipv6/conf/all/forwarding 0→1"
        ]
    );
    let global = |setting: &str| Change {
        setting: setting.into(),
        was: "0".into(),
        is: "1".into(),
    };
    assert!(global(IPV6_ALL).global());
    assert!(!global("net/ipv4/conf/eth0/forwarding").global());
}

#[test]
fn a_host_that_is_a_router_already_is_left_alone() {
    let settings = [
        ("net/ipv4/conf/eth0/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/eth0/force_forwarding", "0"),
        ("net/ipv6/conf/all/force_forwarding", "0"),
    ];
    assert_eq!(changed(&settings, &["eth0"], &["eth0"]), [""; 0]);
    assert_eq!(guard(&[]), None);
}

#[test]
fn interfaces_are_read_from_routes() {
    let four = "Iface\tDestination\tGateway\neth0\t00000000\t0102\n*\t0000080A\t0\nwg0\t0000000A\t0\n";
    let six = "fe800000000000000000000000000000 40 0 00 0 00 00000100 1 0 00000001    veth1
ff000000000000000000000000000000 08 0 00 0 00 00000100 2 0 00000001    veth2
20010db8000000000000000000000000 40 0 00 0 00 00000100 1 0 00000001    eth1
00000000000000000000000000000000 00 0 00 0 00 ffffffff 1 0 00200200       lo
";
    assert_eq!(routed(four, six), ["eth0", "eth1", "wg0"]);
    assert_eq!(routed("", ""), [""; 0]);
}

#[test]
fn the_guard_closes_what_was_opened_here_only() {
    let change = |setting: &str, was: &str, is: &str| Change {
        setting: setting.into(),
        was: was.into(),
        is: is.into(),
    };
    let table = guard(&[
        change("net/ipv4/conf/eth0.100/forwarding", "0", "1"),
        change("net/ipv6/conf/eth0.100/force_forwarding", "0", "1"),
        change("net/ipv6/conf/br0/forwarding", "1", "1"),
        change("net/ipv6/conf/eth0.100/accept_ra", "1", "2"),
        change(IPV6_ALL, "0", "1"),
    ]);
    assert_eq!(
        table.unwrap().to_string(),
        "table inet mk.forward {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ct status dnat accept
		iifname \"eth0.100\" oifname \"eth0.100\" accept
		iifname \"eth0.100\" drop
	}
}
"
    );
}

/// Runs `work` in a thread with a network namespace of its own; skips where that cannot be.
fn apart(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| match probe::unshare(Namespaces::NET) {
        Ok(()) => work(),
        Err(failed) => eprintln!("skipped: needs root, for a network namespace: {failed}"),
    });
    thread.join().unwrap();
}

fn sh(script: &str) -> String {
    let output = std::process::Command::new("/bin/sh")
        .args(["-ec", script])
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All settings about passing packets on, with their values.
fn settings() -> String {
    sh(
        "cd /proc/sys/net; grep -r . ipv4/ip_forward ipv4/conf ipv6/conf 2>/dev/null | grep -v stable_secret | sort",
    )
}

#[test]
fn what_is_switched_on_for_two_networks_is_put_back_with_the_last() {
    apart(|| {
        if sh("command -v ip || :").is_empty() {
            return eprintln!("skipped: needs ip");
        }
        sh("ip link add up0 type bridge; ip address add 192.0.2.1/24 dev up0; ip link set up0 up");
        sh("ip link add up1 type bridge; ip address add 2001:db8::1/64 dev up1 nodad; ip link set up1 up");
        let temp = tempfile::tempdir().unwrap();
        let folder = Dir::open(temp.path()).unwrap();
        let before = settings();
        switch_on(&folder, "mk0").unwrap();
        assert_eq!(read("net/ipv4/conf/up0/forwarding").unwrap(), "1");
        assert_eq!(read("net/ipv4/conf/lo/forwarding").unwrap(), "0");
        assert_eq!(read("net/ipv4/ip_forward").unwrap(), "0");
        let switched = settings();
        switch_on(&folder, "mk1").unwrap();
        assert_eq!(
            (settings(), netfilter::tables().unwrap()),
            (switched.clone(), vec![GUARD.to_owned()])
        );
        put_back(&folder, "mk0").unwrap();
        put_back(&folder, "mk0").unwrap();
        assert_eq!(settings(), switched);
        put_back(&folder, "mk1").unwrap();
        assert_eq!(settings(), before);
        assert_eq!(netfilter::tables().unwrap(), [""; 0]);
        assert_eq!(fs_err::read_dir(temp.path()).unwrap().count(), 0);
    });
}

#[test]
fn an_uplink_that_comes_later_is_missed_and_switched_on_then() {
    apart(|| {
        if sh("command -v ip || :").is_empty() {
            return eprintln!("skipped: needs ip");
        }
        sh("ip link add up0 type bridge; ip address add 192.0.2.1/24 dev up0; ip link set up0 up");
        let temp = tempfile::tempdir().unwrap();
        let folder = Dir::open(temp.path()).unwrap();
        switch_on(&folder, "mk0").unwrap();
        assert_eq!(missing(), []);
        sh("ip link add up1 type bridge; ip address add 198.51.100.1/24 dev up1; ip link set up1 up");
        let before = settings();
        assert_eq!(missing()[0].setting, "net/ipv4/conf/up1/forwarding");
        switch_on(&folder, "mk0").unwrap();
        assert_eq!(missing(), []);
        assert_eq!(load(&folder).unwrap().changes.len(), 4);
        put_back(&folder, "mk0").unwrap();
        assert_eq!(
            settings(),
            before
                .replace("up0/forwarding:1", "up0/forwarding:0")
                .replace("up0/force_forwarding:1", "up0/force_forwarding:0")
        );
    });
}

#[test]
fn what_somebody_else_has_changed_since_stays_as_it_is() {
    apart(|| {
        if sh("command -v ip || :").is_empty() {
            return eprintln!("skipped: needs ip");
        }
        sh("ip link add up0 type bridge; ip address add 192.0.2.1/24 dev up0; ip link set up0 up");
        sh("ip link add gone type bridge; ip address add 198.51.100.1/24 dev gone; ip link set gone up");
        let temp = tempfile::tempdir().unwrap();
        let folder = Dir::open(temp.path()).unwrap();
        switch_on(&folder, "mk0").unwrap();
        sh("ip link del gone; echo 0 >/proc/sys/net/ipv4/conf/up0/forwarding");
        let before = settings();
        put_back(&folder, "mk0").unwrap();
        assert_eq!(read("net/ipv4/conf/up0/forwarding").unwrap(), "0");
        assert!(before.contains("ipv4/conf/up0/forwarding:0"));
    });
}

#[test]
fn a_bridge_has_settings_of_its_own() {
    apart(|| {
        if sh("command -v ip || :").is_empty() {
            return eprintln!("skipped: needs ip");
        }
        sh("ip link add mk0 type bridge");
        let before = settings();
        set_bridge("mk0").unwrap();
        for (setting, value) in of_bridge("mk0") {
            if let Some(now) = read(&setting) {
                assert_eq!(now, value, "{setting}");
            }
        }
        let others = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.contains("/mk0/"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(others(&settings()), others(&before));
    });
}
