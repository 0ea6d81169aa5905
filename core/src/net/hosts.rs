//! `/etc/hosts` and `/etc/hostname` as texts (hosts(5), hostname(5)): what an image alone says of them, and what a run
//! on a network finds. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::recipe::Conf;
use crate::spec::DEFAULT_HOST_NAME;
use crate::spec::network::AddHost;

/// Stands above the names that come and go. What is below it is written anew whenever one does.
const OTHERS: &str = "# Others on this network:\n";

const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Where a host without an address of its own finds itself, as Debian has it.
const SELF: &str = "127.0.1.1";

/// Returns the host name that `conf` gives, or the default one.
pub fn host_name(conf: &Conf) -> &str {
    conf.hostname.as_deref().unwrap_or(DEFAULT_HOST_NAME)
}

/// Returns what `/etc/hostname` holds.
pub fn hostname_text(hostname: &str) -> String {
    format!("{hostname}\n")
}

/// Returns what `/etc/hosts` holds where only an image says: loopback, the host's own name, then what the recipe says.
pub fn hosts_text(conf: &Conf, hostname: &str) -> String {
    Hosts {
        before: None,
        hostname,
        names: &[],
        addresses: &[],
        added: &[],
        conf,
    }
    .text()
}

/// All that one container's `/etc/hosts` says for as long as it lives.
#[derive(Debug, Clone, Copy)]
pub struct Hosts<'a> {
    /// What stands in the place of loopback's lines: the text of a namespace that others have made, or of a container.
    pub before: Option<&'a str>,
    /// The container's host name.
    pub hostname: &'a str,
    /// What it is called besides: by its owner, by others on its network.
    pub names: &'a [String],
    /// Its own addresses on its network; none: it finds itself on loopback.
    pub addresses: &'a [IpAddr],
    /// What was asked for; of a name that the recipe has too, this is what counts.
    pub added: &'a [AddHost],
    /// What the recipe says.
    pub conf: &'a Conf,
}

impl Hosts<'_> {
    /// Returns the text.
    pub fn text(&self) -> String {
        let mut text = self.before.map_or(LOOPBACK, without_others).to_owned();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let mut own = vec![self.hostname];
        for name in self.names {
            if !own.contains(&name.as_str()) {
                own.push(name);
            }
        }
        if self.before.is_some() {
            // It may be known already, and is where it was said to be.
            own.retain(|name| !names_in(&text).any(|known| known == *name));
        }
        let own = own.join(" ");
        if !own.is_empty() && self.addresses.is_empty() {
            let _ = writeln!(text, "{SELF}\t{own}");
        }
        for address in self.addresses.iter().filter(|_| !own.is_empty()) {
            let _ = writeln!(text, "{address}\t{own}");
        }
        for line in self.added {
            let _ = writeln!(text, "{}\t{}", line.address, line.name);
        }
        for (address, names) in &self.conf.hosts {
            let asked = |name: &&String| self.added.iter().any(|line| line.name == **name);
            let names: Vec<&str> = names
                .iter()
                .filter(|name| !asked(name))
                .map(String::as_str)
                .collect();
            if !names.is_empty() {
                let _ = writeln!(text, "{address}\t{}", names.join(" "));
            }
        }
        text
    }
}

/// Who else is on a network: where, and by which names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What it is called; nobody learns of one without a name.
    pub names: Vec<String>,
}

/// Returns `own`, what a container's `/etc/hosts` always says, with the lines of the `peers` that have names. Two that
/// go by one name have a line each. A name that was `added` is where that says.
pub fn with_peers(own: &str, peers: &[Peer], added: &[AddHost]) -> String {
    let mut text = own.to_owned();
    let mut lines = String::new();
    for peer in peers {
        let asked = |name: &&str| added.iter().any(|line| line.name == **name);
        let names: Vec<&str> = peer
            .names
            .iter()
            .map(String::as_str)
            .filter(|name| !asked(name))
            .collect();
        for address in peer.addresses.iter().filter(|_| !names.is_empty()) {
            let _ = writeln!(lines, "{address}\t{}", names.join(" "));
        }
    }
    if !lines.is_empty() {
        text.push_str(OTHERS);
        text.push_str(&lines);
    }
    text
}

/// Returns what a container's `/etc/hosts` says without those who come and go.
fn without_others(text: &str) -> &str {
    text.split_once(OTHERS).map_or(text, |(own, _)| own)
}

/// Returns the names that have an address in `text`.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default())
        .flat_map(|line| line.split_ascii_whitespace().skip(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conf() -> Conf {
        Conf {
            hostname: None,
            hosts: [(
                "10.0.0.7".parse().unwrap(),
                vec!["db".into(), "db.example".into()],
            )]
            .into(),
            nameservers: None,
        }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn names(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn on_a_network<'a>(conf: &'a Conf, addresses: &'a [IpAddr], names: &'a [String]) -> Hosts<'a> {
        Hosts {
            before: None,
            hostname: "box",
            names,
            addresses,
            added: &[],
            conf,
        }
    }

    #[test]
    fn the_files_of_an_image_hold_what_the_recipe_says() {
        assert_eq!(host_name(&conf()), "mk");
        assert_eq!(hostname_text("box"), "box\n");
        assert_eq!(
            hosts_text(&conf(), "box"),
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\tbox\n10.0.0.7\tdb db.example\n"
        );
    }

    #[test]
    fn a_container_on_a_network_is_where_its_addresses_are_by_all_its_names() {
        let (addresses, own) = (ips(&["192.168.10.2", "fd00::2"]), names(&["web", "box", "www"]));
        let text = on_a_network(&Conf::default(), &addresses, &own).text();
        assert_eq!(
            text,
            format!("{LOOPBACK}192.168.10.2\tbox web www\nfd00::2\tbox web www\n")
        );
    }

    #[test]
    fn what_was_asked_for_counts_for_its_name_and_no_other() {
        let added = ["db:10.9.9.9".parse().unwrap(), "x:fd00::1".parse().unwrap()];
        let conf = conf();
        let hosts = Hosts {
            added: &added,
            ..on_a_network(&conf, &[], &[])
        };
        assert_eq!(
            hosts.text(),
            format!("{LOOPBACK}127.0.1.1\tbox\n10.9.9.9\tdb\nfd00::1\tx\n10.0.0.7\tdb.example\n")
        );
    }

    #[test]
    fn others_are_below_a_line_of_their_own_and_only_by_name() {
        let peer = |address: &str, called: &[&str]| Peer {
            addresses: ips(&[address]),
            names: names(called),
        };
        let peers = [
            peer("10.0.0.2", &["a", "all"]),
            peer("10.0.0.3", &["b", "all"]),
            peer("10.0.0.4", &[]),
            peer("10.0.0.5", &["asked"]),
        ];
        let added = ["asked:10.9.9.9".parse().unwrap()];
        assert_eq!(
            with_peers("own\n", &peers, &added),
            format!("own\n{OTHERS}10.0.0.2\ta all\n10.0.0.3\tb all\n")
        );
        assert_eq!(with_peers("own\n", &[], &[]), "own\n");
    }

    #[test]
    fn a_text_of_others_stays_and_only_an_unknown_name_is_added() {
        let shared = with_peers("127.0.0.1\tlocalhost\n10.0.0.2\tweb box # a comment", &[], &[]);
        let (conf, addresses) = (Conf::default(), ips(&["10.0.0.2"]));
        let with = |before: &str, hostname: &str| {
            Hosts {
                before: Some(before),
                hostname,
                ..on_a_network(&conf, &addresses, &[])
            }
            .text()
        };
        assert_eq!(with(&shared, "box"), format!("{shared}\n"));
        assert_eq!(with(&shared, "comment"), format!("{shared}\n10.0.0.2\tcomment\n"));
        let peers = [Peer {
            addresses: ips(&["10.0.0.3"]),
            names: names(&["db"]),
        }];
        assert_eq!(
            with(&with_peers("10.0.0.2\tbox\n", &peers, &[]), "box"),
            "10.0.0.2\tbox\n"
        );
        assert_eq!(with("", "box"), "10.0.0.2\tbox\n");
    }
}
