//! What was found about networks with a way out, in words.

use mk_core::doctor::Matter;
use mk_core::doctor::network::{Closed, Ipv6, Rules};
use mk_core::sys::netfilter::Family;

use super::{Place, Words};

/// Returns the words for a matter of networks; nothing for another.
pub(super) fn words(matter: &Matter, place: &Place<'_>) -> Option<Words> {
    Some(match matter {
        Matter::PacketRules { failed: None } => Words::of("nf_tables"),
        Matter::PacketRules { failed: Some(failed) } => Words::of(failed)
            .instead("`--network bridge` and `--publish` are refused")
            .enable(match place.contained {
                true => "start the container that mk runs in with CAP_NET_ADMIN",
                false => "sudo modprobe nf_tables   # or a kernel with CONFIG_NF_TABLES_INET, CONFIG_NFT_MASQ, CONFIG_NFT_FIB_INET",
            }),
        Matter::Forwarding { read_only: true, .. } => Words::of("the settings below /proc/sys/net are read-only")
            .instead("`--network bridge` is refused")
            .enable("sudo mount -o remount,rw /proc/sys"),
        Matter::Forwarding { ipv6, .. } => forwarding(*ipv6),
        Matter::ForwardPolicy { closed } => forward_policy(closed),
        _ => return None,
    })
}

fn forwarding(ipv6: Ipv6) -> Words {
    match ipv6 {
        Ipv6::Each => Words::of("IPv4 and IPv6, by each interface as it is told"),
        Ipv6::Already => Words::of("IPv4 by each interface as it is told, IPv6 by all already"),
        Ipv6::None => Words::of("IPv4, by each interface as it is told; there is no IPv6"),
        Ipv6::All => Words::of("IPv4 by each interface as it is told, IPv6 by all or none (Linux 6.17 can tell each)")
            .instead("the first bridge makes all interfaces pass IPv6 packets on, and says so; `mk network rm` of the last one puts that back")
            .enable("a kernel from 6.17 on"),
    }
}

fn forward_policy(closed: &[Closed]) -> Words {
    if closed.is_empty() {
        return Words::of("nobody drops what is passed on");
    }
    let names: Vec<String> = closed.iter().map(name).collect();
    let verb = if names.len() == 1 { "drops" } else { "drop" };
    let words = Words::of(format!("{} {verb} what no rule lets pass", names.join(", ")))
        .instead("containers on a bridge reach each other and the host, and nothing beyond it");
    closed.iter().flat_map(openers).fold(words, Words::enable)
}

/// How one names the rules.
fn name(closed: &Closed) -> String {
    match &closed.rules {
        Rules::Chain { table, chain } => format!("`{} {table} {chain}`", closed.family),
        Rules::Legacy => format!("`{} -P FORWARD`", legacy(closed.family)),
    }
}

/// The commands that let the networks through, to and fro.
fn openers(closed: &Closed) -> Vec<String> {
    let mut commands = Vec::new();
    for network in &closed.networks {
        commands.extend(match &closed.rules {
            Rules::Chain { table, chain } => ["iifname", "oifname"].map(|by| {
                format!(
                    "sudo nft insert rule {} {table} {chain} {by} {network} accept",
                    closed.family
                )
            }),
            Rules::Legacy => ["-i", "-o"].map(|by| {
                format!(
                    "sudo {} -I FORWARD {by} {network} -j ACCEPT",
                    legacy(closed.family)
                )
            }),
        });
    }
    commands
}

fn legacy(family: Family) -> &'static str {
    match family {
        Family::Ip6 => "ip6tables-legacy",
        Family::Ip | Family::Inet => "iptables-legacy",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_commands_name_the_chain_and_the_network() {
        let closed = [
            Closed {
                rules: Rules::Chain {
                    table: "filter".into(),
                    chain: "FORWARD".into(),
                },
                family: Family::Ip,
                networks: vec!["mk0".into()],
            },
            Closed {
                rules: Rules::Legacy,
                family: Family::Ip6,
                networks: vec!["mk0".into()],
            },
        ];
        let place = Place {
            mk: Path::new("/usr/local/bin/mk"),
            os_release: "",
            contained: false,
        };
        let words = words(
            &Matter::ForwardPolicy {
                closed: closed.into(),
            },
            &place,
        )
        .unwrap();
        assert_eq!(
            words.found,
            "`ip filter FORWARD`, `ip6tables-legacy -P FORWARD` drop what no rule lets pass"
        );
        assert_eq!(
            words.enable,
            [
                "sudo nft insert rule ip filter FORWARD iifname mk0 accept",
                "sudo nft insert rule ip filter FORWARD oifname mk0 accept",
                "sudo ip6tables-legacy -I FORWARD -i mk0 -j ACCEPT",
                "sudo ip6tables-legacy -I FORWARD -o mk0 -j ACCEPT",
            ]
        );
    }
}
