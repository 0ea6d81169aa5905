//! The three files of `/etc` of one run: decided before anything is made, written once the run's place on its network
//! is taken.

use std::path::Path;

use super::partner::Partner;
use crate::net::hosts::Hosts;
use crate::net::resolv::{self, HOST, UPSTREAM};
use crate::net::{self, Live, Member, namespace};
use crate::recipe::Network;
use crate::spec::RunSpec;

/// The texts that do not depend on where the run is on its network.
#[derive(Debug, Default)]
pub(super) struct Texts {
    /// What `/etc/hosts` begins with, where that is not for this run to say.
    hosts: Option<String>,
    resolv: String,
    /// Whether the host asks servers, and only such as the run does not reach.
    pub(super) asks_nobody: bool,
}

impl Texts {
    /// Looks the host's up that `spec` needs, for a run that may share the network of `partner`; nothing where the
    /// store keeps just these files.
    pub(super) fn look(spec: &RunSpec, partner: Option<&Partner>) -> Option<Self> {
        let kind = &spec.network.kind;
        let asked = &spec.network.asked;
        let alone = matches!(kind, Network::None);
        let nothing_asked = asked.dns.is_empty() && asked.dns_search.is_empty() && asked.add_hosts.is_empty();
        if alone && nothing_asked && !spec.renamed {
            return None;
        }
        // Whom a namespace of others asks is theirs to say: nobody else may be within its reach.
        let (hosts, own) = match kind {
            Network::Namespace(name) => (
                namespace::own_text(name, "hosts"),
                namespace::own_text(name, "resolv.conf"),
            ),
            Network::Container(_) => partner.map_or((None, None), |partner| {
                (partner.hosts.clone(), partner.resolv.clone())
            }),
            _ => (None, None),
        };
        let (resolv, all_dropped) = match (own, &spec.conf.nameservers) {
            (Some(own), _) => (own, false),
            (None, Some(_)) => (net::resolv_text(&spec.conf), false),
            (None, None) => host_resolv(kind),
        };
        Some(Self {
            hosts,
            resolv: resolv::overridden(&resolv, &asked.dns, &asked.dns_search),
            asks_nobody: all_dropped && asked.dns.is_empty(),
        })
    }

    /// Returns the files, by their names in `/etc`, of the run of `spec`, which is `member` of its network; and what
    /// keeps `hosts` true, where others come and go on that network.
    pub(super) fn files(
        self,
        spec: &RunSpec,
        member: &Member,
    ) -> (Vec<(&'static str, String)>, Option<Live>) {
        let added = &spec.network.asked.add_hosts;
        let hosts = Hosts {
            before: self.hosts.as_deref(),
            hostname: &spec.hostname,
            names: &member.names,
            addresses: &member.addresses,
            added,
            conf: &spec.conf,
        };
        let base = hosts.text();
        let live = Live::of(member, &base, added);
        let hosts = live.as_ref().map_or(base, |live| live.text().to_owned());
        let files = vec![
            ("hostname", net::hostname_text(&spec.hostname)),
            ("hosts", hosts),
            ("resolv.conf", self.resolv),
        ];
        (files, live)
    }
}

/// Returns what holds of the host's `/etc/resolv.conf` on this kind of network, and whether none of the servers that it
/// names does.
fn host_resolv(kind: &Network) -> (String, bool) {
    let host = || namespace::read(Path::new(HOST)).unwrap_or_default();
    match kind {
        // There is nobody to ask.
        Network::None | Network::Private(_) => (String::new(), false),
        Network::Host => (host(), false),
        Network::Bridge(_) | Network::User | Network::Namespace(_) | Network::Container(_) => {
            let (host, upstream) = (host(), namespace::read(Path::new(UPSTREAM)));
            let kept = resolv::reachable(&host, upstream.as_deref());
            let dropped = resolv::names_a_server(&host) && !resolv::names_a_server(&kept);
            (kept, dropped)
        }
    }
}
