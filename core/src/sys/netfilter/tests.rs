use std::process::Command;

use super::*;
use crate::sys::namespace::Namespaces;
use crate::sys::probe;

fn v4(text: &str, prefix: u8) -> Subnet {
    Subnet::of(text.parse().unwrap(), prefix)
}

/// A table with one of everything.
fn everything() -> Table {
    let one = |one: Match| Rule::new([one], Action::Accept);
    let named = |name: &str| name.to_owned();
    let everywhere = Subnet::of("fd00:1:2:3:4::9".parse().unwrap(), 64);
    let dnat = |to: &str, ports| {
        let web = Match::Port(Protocol::Tcp, Ports::one(8080));
        Rule::new(
            [Match::LocalDestination, web],
            Action::Dnat(to.parse().unwrap(), ports),
        )
    };
    let range = Ports {
        first: 9000,
        last: 9010,
    };
    Table {
        name: "mk-all".into(),
        owned: false,
        chains: vec![
            Chain {
                name: "raw",
                kind: Kind::Filter,
                hook: Hook::Prerouting,
                priority: RAW,
                rules: vec![
                    one(Match::Input(named("mk0"))),
                    one(Match::NotInput(named("a-name-of-15-by"))),
                    one(Match::Source(v4("192.168.10.77", 24))),
                    one(Match::NotSource(v4("10.1.2.3", 9))),
                    one(Match::Destination(v4("10.1.2.3", 32))),
                    one(Match::Destination(v4("10.1.2.3", 31))),
                    one(Match::NotDestination(v4("127.0.0.0", 8))),
                    one(Match::Source(everywhere)),
                    one(Match::NotDestination(Subnet::of("fc00::".parse().unwrap(), 7))),
                    one(Match::Destination(Subnet::only("::1".parse().unwrap()))),
                    one(Match::Port(Protocol::Udp, range)),
                    one(Match::Established),
                    Rule::new(
                        [
                            Match::Source(v4("10.0.0.0", 8)),
                            Match::Destination(v4("10.0.0.0", 8)),
                            Match::Port(Protocol::Udp, Ports::one(53)),
                        ],
                        Action::Drop,
                    ),
                ],
            },
            Chain {
                name: "input",
                kind: Kind::Filter,
                hook: Hook::Input,
                priority: FILTER,
                rules: vec![],
            },
            Chain {
                name: "forward",
                kind: Kind::Filter,
                hook: Hook::Forward,
                priority: 133,
                rules: vec![
                    Rule::new([Match::Output(named("mk0")), Match::Translated], Action::Accept),
                    Rule::new([Match::NotOutput(named("mk0"))], Action::Drop),
                    Rule::new([], Action::Drop),
                ],
            },
            Chain {
                name: "prerouting",
                kind: Kind::Nat,
                hook: Hook::Prerouting,
                priority: DSTNAT,
                rules: vec![
                    dnat("192.168.10.2", Some(Ports::one(80))),
                    dnat("192.168.10.2", Some(range)),
                    dnat("192.168.10.2", None),
                    dnat("fd00::2", Some(Ports::one(80))),
                    dnat("fd00::2", None),
                ],
            },
            Chain {
                name: "output",
                kind: Kind::Nat,
                hook: Hook::Output,
                priority: DSTNAT,
                rules: vec![],
            },
            Chain {
                name: "postrouting",
                kind: Kind::Nat,
                hook: Hook::Postrouting,
                priority: SRCNAT,
                rules: vec![Rule::new([Match::Source(v4("10.0.0.0", 8))], Action::Masquerade)],
            },
        ],
    }
}

/// Runs `work` in a thread with a network namespace of its own; skips where that cannot be.
fn apart(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| match probe::unshare(Namespaces::NET) {
        Ok(()) => work(),
        Err(failed) => eprintln!("skipped: needs root, for a network namespace: {failed}"),
    });
    thread.join().unwrap();
}

/// What nft(8) shows, less what it adds about who made an owned table; `None` where there is no nft(8).
fn listed() -> Option<String> {
    let Ok(output) = Command::new("nft").args(["list", "ruleset"]).output() else {
        eprintln!("skipped: needs nft");
        return None;
    };
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.split(" # progname").next().unwrap());
    Some(lines.map(|line| format!("{line}\n")).collect())
}

#[test]
fn a_table_in_the_kernel_is_what_its_text_says() {
    apart(|| {
        let table = everything();
        table.make().unwrap();
        let Some(listed) = listed() else { return };
        assert_eq!(listed, table.to_string());
    });
}

/// Chains that lead a port of the loopback somewhere else, and the answers back.
fn rewriting() -> Table {
    let face = "100::1f90".parse().unwrap();
    let loopback = Ipv6Addr::LOCALHOST;
    let inside = "fd00::2".parse().unwrap();
    let mut rules = (Vec::new(), Vec::new());
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        rules.0.push(Rule::new(
            [
                Match::Destination(Subnet::only(loopback.into())),
                Match::Port(protocol, Ports::one(8080)),
            ],
            Action::Rewrite {
                source: face,
                destination: inside,
                protocol,
                end: End::Destination,
                port: 80,
            },
        ));
        rules.1.push(Rule::new(
            [
                Match::Destination(Subnet::only(face.into())),
                Match::SourcePort(protocol, 80),
                Match::Answer,
            ],
            Action::Rewrite {
                source: loopback,
                destination: loopback,
                protocol,
                end: End::Source,
                port: 8080,
            },
        ));
    }
    let chain = |name, kind, hook, priority, rules| Chain {
        name,
        kind,
        hook,
        priority,
        rules,
    };
    Table {
        name: "mk-there-and-back".into(),
        owned: false,
        chains: vec![
            chain("there", Kind::Route, Hook::Output, RAW, rules.0),
            chain("back", Kind::Filter, Hook::Input, 200, rules.1),
        ],
    }
}

#[test]
fn rules_that_rewrite_headers_are_what_their_text_says() {
    apart(|| {
        let table = rewriting();
        table.make().unwrap();
        let Some(listed) = listed() else { return };
        assert_eq!(listed, table.to_string());
    });
}

#[test]
fn nft_reads_the_text_of_a_table() {
    apart(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mk.nft");
        fs_err::write(&file, everything().to_string()).unwrap();
        let Ok(status) = Command::new("nft").arg("-f").arg(&file).status() else {
            return eprintln!("skipped: needs nft");
        };
        assert!(status.success());
        assert_eq!(listed(), Some(everything().to_string()));
    });
}

#[test]
fn made_again_a_table_is_the_new_one_and_removed_it_leaves_nothing() {
    apart(|| {
        let mut table = everything();
        table.make().unwrap();
        table.chains.truncate(1);
        table.make().unwrap();
        table.make().unwrap();
        assert_eq!(tables().unwrap(), ["mk-all"]);
        assert_eq!(base_chains().unwrap().len(), 1);
        if let Some(listed) = listed() {
            assert_eq!(listed, table.to_string());
        }
        assert!(Table::remove("mk-all").unwrap());
        assert!(!Table::remove("mk-all").unwrap());
        assert_eq!(tables().unwrap(), [""; 0]);
    });
}

#[test]
fn an_owned_table_goes_with_its_socket_and_is_nobody_else_s() {
    apart(|| {
        let mut table = everything();
        table.owned = true;
        let owner = table.make().unwrap();
        if let Some(listed) = listed() {
            assert_eq!(listed, table.to_string());
        }
        let error = table.make().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel refused `nft add table inet mk-all`",
            "{error:?}"
        );
        assert!(Table::remove("mk-all").is_err());
        drop(owner);
        assert_eq!(tables().unwrap(), [""; 0]);
    });
}

#[test]
fn a_refused_rule_is_named_and_nothing_of_the_table_is_made() {
    apart(|| {
        let mut table = everything();
        // Addresses are not changed in a chain that filters.
        let rule = Rule::new([Match::Established], Action::Masquerade);
        table.chains[2].rules.insert(1, rule);
        let error = table.make().unwrap_err();
        assert_eq!(
            error.to_string(),
            "the kernel refused `nft add rule inet mk-all forward ct state established,related masquerade`"
        );
        assert_eq!(error.errno(), Errno::OPNOTSUPP);
        assert_eq!(tables().unwrap(), [""; 0]);
    });
}

#[test]
fn a_transaction_of_a_thousand_rules_is_one() {
    apart(|| {
        let mut table = everything();
        let rule = table.chains[3].rules[1].clone();
        table.chains[3].rules = vec![rule; 2000];
        table.make().unwrap();
        assert_eq!(tables().unwrap(), ["mk-all"]);
    });
}

#[test]
fn base_chains_tell_their_place_and_whether_they_drop() {
    apart(|| {
        let rules =
            "table ip old { chain f { type filter hook forward priority 5; policy drop; }; chain g { }; }";
        let Ok(status) = Command::new("nft").arg(rules).status() else {
            return eprintln!("skipped: needs nft");
        };
        assert!(status.success());
        let chain = BaseChain {
            family: Family::Ip,
            table: "old".into(),
            name: "f".into(),
            hook: Hook::Forward,
            priority: 5,
            drops: true,
        };
        assert_eq!(base_chains().unwrap(), [chain]);
    });
}

#[test]
fn rules_tell_which_interfaces_they_let_in() {
    apart(|| {
        let rules = "table ip t { chain f { type filter hook forward priority 0; \
                     iifname \"mk0\" accept; iifname \"wild*\" counter accept; iifname \"bad\" drop; \
                     oifname \"out\" accept; iifname != \"not\" accept; accept; }; }";
        let Ok(status) = Command::new("nft").arg(rules).status() else {
            return eprintln!("skipped: needs nft");
        };
        assert!(status.success());
        assert_eq!(let_in(Family::Ip, "t").unwrap(), ["mk0", "wild*"]);
        assert_eq!(let_in(Family::Ip6, "t").unwrap(), [""; 0]);
        assert_eq!(let_in(Family::Ip, "other").unwrap(), [""; 0]);
    });
}

#[test]
fn the_rules_of_old_are_read_and_not_made() {
    apart(|| {
        for (family, command) in [(Family::Ip, "iptables-legacy"), (Family::Ip6, "ip6tables-legacy")] {
            assert_eq!(legacy::forward(family).unwrap(), None);
            let call = |words: &str| {
                let output = Command::new(command).args(words.split(' ')).output();
                output.is_ok_and(|output| output.status.success())
            };
            if !call("-P FORWARD DROP") {
                return eprintln!("skipped: needs {command} and a kernel that has it");
            }
            let drops = legacy::Forward {
                drops: true,
                let_in: vec![],
            };
            assert_eq!(legacy::forward(family).unwrap(), Some(drops));
            for words in [
                "-A FORWARD -i mk0 -j ACCEPT",
                "-A FORWARD -i wild+ -j ACCEPT",
                "-A FORWARD -i bad -j DROP",
                "-A FORWARD -o out -j ACCEPT",
                "-A FORWARD -p tcp --dport 80 -j REJECT",
                "-N ours",
                "-A ours -i mk1 -p udp --dport 53 -j ACCEPT",
            ] {
                assert!(call(words), "{command} {words}");
            }
            let forward = legacy::forward(family).unwrap().unwrap();
            assert!(forward.drops);
            assert_eq!(forward.let_in, ["mk0", "wild*", "mk1"]);
            assert!(call("-P FORWARD ACCEPT"));
            assert!(!legacy::forward(family).unwrap().unwrap().drops);
        }
    });
}

#[test]
fn a_subnet_begins_where_its_prefix_says() {
    for (address, prefix, text) in [
        ("192.168.10.77", 24, "192.168.10.0/24"),
        ("192.168.10.77", 0, "0.0.0.0/0"),
        ("192.168.10.77", 32, "192.168.10.77"),
        ("192.168.10.77", 99, "192.168.10.77"),
        ("fd00:1:2:3:4:5:6:7", 64, "fd00:1:2:3::/64"),
        ("fd00::1", 0, "::/0"),
        ("fd00::1", 128, "fd00::1"),
    ] {
        assert_eq!(Subnet::of(address.parse().unwrap(), prefix).to_string(), text);
    }
}
