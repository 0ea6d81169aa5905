//! `/etc/resolv.conf` as a text (resolv.conf(5)): whom a container asks for addresses. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::recipe::Conf;

/// Where the host says whom it asks.
pub const HOST: &str = "/etc/resolv.conf";
/// Where systemd-resolved says whom it asks itself; [`HOST`] names only its own socket on loopback (resolved.conf(5)).
pub const UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";

/// Returns what `/etc/resolv.conf` holds where only an image says: a line for each name server of the recipe, else
/// nothing.
pub fn resolv_text(conf: &Conf) -> String {
    let mut text = String::new();
    for server in conf.nameservers.iter().flatten() {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

/// Returns what holds of the host's own text on a network that does not have the host's loopback: `host` as it is
/// where it names a server elsewhere, else `upstream`, each without the servers that only the host itself reaches.
pub fn reachable(host: &str, upstream: Option<&str>) -> String {
    let text = match upstream {
        Some(upstream) if !servers(host).any(is_reachable) => upstream,
        _ => host,
    };
    let dropped = servers(text).any(|server| !is_reachable(server));
    let mut kept = String::new();
    for line in text.lines() {
        match words(line) {
            ("nameserver", server) if !is_reachable(server) => {}
            // What a server on loopback says was checked on the way; what others say comes over a network.
            ("options", options) if dropped => {
                let kept_options = options
                    .split_ascii_whitespace()
                    .filter(|option| *option != "trust-ad");
                let kept_options: Vec<&str> = kept_options.collect();
                if !kept_options.is_empty() {
                    let _ = writeln!(kept, "options {}", kept_options.join(" "));
                }
            }
            ("", _) => {}
            _ => {
                let _ = writeln!(kept, "{line}");
            }
        }
    }
    kept
}

/// Returns `text` with other name `servers` and other domains to `search`, where there are some.
pub fn overridden(text: &str, asked: &[IpAddr], search: &[String]) -> String {
    let mut changed = String::new();
    for server in asked {
        let _ = writeln!(changed, "nameserver {server}");
    }
    if !search.is_empty() {
        let _ = writeln!(changed, "search {}", search.join(" "));
    }
    for line in text.lines() {
        let goes = match words(line).0 {
            "nameserver" => !asked.is_empty(),
            // Of several lines of these, the last one counts.
            "search" | "domain" => !search.is_empty(),
            _ => false,
        };
        if !goes {
            let _ = writeln!(changed, "{line}");
        }
    }
    changed
}

/// Whether `text` names anybody to ask.
pub fn names_a_server(text: &str) -> bool {
    servers(text).next().is_some()
}

/// Returns a line's keyword and what follows it; nothing of a comment.
fn words(line: &str) -> (&str, &str) {
    let line = line.trim();
    if line.starts_with(['#', ';']) {
        return ("", "");
    }
    match line.split_once([' ', '\t']) {
        Some((keyword, rest)) => (keyword, rest.trim_start()),
        None => (line, ""),
    }
}

/// Returns the name servers of `text` as written: an address, behind which a zone may stand (`fe80::1%eth0`).
fn servers(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(words)
        .filter(|(keyword, _)| *keyword == "nameserver")
        .map(|(_, server)| server)
}

/// Whether a server may be reached from another network namespace: it is not on loopback, and its address means the
/// same there. One of a link does not: the zone behind it is an interface of the host's (RFC 4007).
fn is_reachable(server: &str) -> bool {
    let server = server.split_ascii_whitespace().next().unwrap_or_default();
    let (address, zone) = server.split_once('%').unwrap_or((server, ""));
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    match address.to_canonical() {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_unspecified() && !v4.is_link_local(),
        IpAddr::V6(v6) => {
            zone.is_empty() && !v6.is_loopback() && !v6.is_unspecified() && !v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUB: &str = "# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan example.org\n";

    #[test]
    fn an_image_alone_names_the_recipe_s_servers_or_none() {
        let conf = Conf {
            nameservers: Some(vec!["9.9.9.9".parse().unwrap(), "2620:fe::fe".parse().unwrap()]),
            ..Conf::default()
        };
        assert_eq!(resolv_text(&conf), "nameserver 9.9.9.9\nnameserver 2620:fe::fe\n");
        assert_eq!(resolv_text(&Conf::default()), "");
    }

    #[test]
    fn behind_a_resolver_on_loopback_stand_its_own_servers() {
        let upstream = "nameserver 192.0.2.1\nnameserver fe80::1%eth0\nsearch lan\n";
        assert_eq!(
            reachable(STUB, Some(upstream)),
            "nameserver 192.0.2.1\nsearch lan\n"
        );
        assert_eq!(reachable(STUB, None), "options edns0\nsearch lan example.org\n");
    }

    #[test]
    fn servers_elsewhere_stay_as_they_are_with_what_belongs_to_them() {
        let host =
            "nameserver 192.0.2.1\nnameserver\t2001:db8::1\noptions trust-ad ndots:2\nsortlist 10.0.0.0\n";
        assert_eq!(reachable(host, Some("nameserver 10.0.0.1\n")), host);
    }

    #[test]
    fn nobody_is_asked_who_only_the_host_reaches() {
        for server in [
            "127.0.0.1",
            "127.1.2.3",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "fe80::1",
            "fe80::1%eth0",
            "2001:db8::1%eth0",
            "169.254.1.1",
            "nonsense",
            "",
        ] {
            let host = format!("nameserver {server}\nnameserver 192.0.2.9 # ours\n");
            assert_eq!(
                reachable(&host, None),
                "nameserver 192.0.2.9 # ours\n",
                "{server}"
            );
        }
    }

    #[test]
    fn what_was_asked_for_takes_the_place_of_its_kind_only() {
        let dns = ["10.0.0.53".parse().unwrap(), "fd00::53".parse().unwrap()];
        let search = ["a.example".to_owned(), "b.example".to_owned()];
        assert_eq!(
            overridden(STUB, &dns, &[]),
            "nameserver 10.0.0.53\nnameserver fd00::53\n# stub\noptions edns0 trust-ad\nsearch lan example.org\n"
        );
        assert_eq!(
            overridden(STUB, &[], &search),
            "search a.example b.example\n# stub\nnameserver 127.0.0.53\noptions edns0 trust-ad\n"
        );
        assert_eq!(
            overridden("domain lan\n", &dns[..1], &search[..1]),
            "nameserver 10.0.0.53\nsearch a.example\n"
        );
    }

    #[test]
    fn a_text_without_servers_is_told() {
        assert!(names_a_server(STUB));
        assert!(!names_a_server(
            "# nameserver 1.2.3.4\nsearch lan\n;nameserver 1.2.3.4"
        ));
    }
}
