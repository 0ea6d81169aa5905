//! [`Order`]: one thing that is done to a network namespace, as a message or a setting, and as somebody would type it.

use std::ffi::{CStr, CString};
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_core::DefaultNla;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkProtoInfoBridge,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};

use crate::spec::network::Mac;
use crate::sys::netlink::{Batch, Refused, Socket};
use crate::sys::{SysError, namespace};

/// One thing to do, and how one would type it.
#[derive(Debug, Clone)]
pub struct Order {
    /// The command of ip(8) or sysctl(8) that does the same.
    pub command: String,
    act: Act,
}

#[derive(Debug, Clone)]
enum Act {
    Message(Message),
    Setting(Setting),
}

/// A setting below `/proc/sys`.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Its path.
    pub path: CString,
    /// What it is set to.
    pub value: CString,
}

/// Which interface an address is for.
#[derive(Debug, Clone, Copy)]
pub enum Interface<'a> {
    /// One whose index is known.
    Known(&'a str, u32),
    /// One whose index is told when the order is carried out.
    Later(&'a str),
}

impl Order {
    fn message(command: String, message: Message) -> Self {
        Self {
            command,
            act: Act::Message(message),
        }
    }

    /// Makes the bridge `name`.
    pub fn add_bridge(name: &str, mac: Mac, mtu: Option<u32>) -> Self {
        let mut link = LinkMessage::default();
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            // Without one it would take that of its lowest port, and change it with each that comes and goes.
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        let command = format!("ip link add {name} address {mac}{} type bridge", with(mtu));
        Self::message(command, Message::NewLink(link))
    }

    /// Makes two ends of a line: `name` on the bridge with the index `bridge.1`, up, and `eth0` in the network namespace
    /// of the process `pid`.
    pub fn add_veth(name: &str, bridge: (&str, u32), mac: Mac, mtu: Option<u32>, pid: Option<u32>) -> Self {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(INSIDE.to_owned()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::NetNsPid(pid.unwrap_or_default()),
        ];
        peer.attributes.extend(mtu.map(LinkAttribute::Mtu));
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::Controller(bridge.1),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        link.attributes.extend(mtu.map(LinkAttribute::Mtu));
        let mtu = with(mtu);
        let pid = pid.map_or("$PID".into(), |pid| pid.to_string());
        let command = format!(
            "ip link add {name}{mtu} master {} up type veth peer name {INSIDE} address {mac}{mtu} netns {pid}",
            bridge.0
        );
        Self::message(command, Message::NewLink(link))
    }

    /// Brings the interface `name` up.
    pub fn up(name: &str) -> Self {
        Self::message(format!("ip link set {name} up"), Message::SetLink(raised(name)))
    }

    /// Notes `mark` of the interface `name`.
    pub fn mark(name: &str, mark: &str) -> Self {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link.attributes.push(LinkAttribute::IfAlias(mark.to_owned()));
        Self::message(
            format!("ip link set {name} alias '{mark}'"),
            Message::SetLink(link),
        )
    }

    /// Lets the bridge send back to its port `name`, which has the interface index `index`, what came from there: where
    /// bridges ask netfilter (`br_netfilter`), a container's way to its own published ports is such a one.
    pub fn send_back(name: &str, index: u32) -> Self {
        /// linux/if_link.h.
        const IFLA_BRPORT_MODE: u16 = 4;
        let mut link = LinkMessage::default();
        link.header.interface_family = AddressFamily::Bridge;
        link.header.index = index;
        let mode = DefaultNla::new(IFLA_BRPORT_MODE, vec![1]);
        link.attributes
            .push(LinkAttribute::ProtoInfoBridge(vec![LinkProtoInfoBridge::Other(
                mode,
            )]));
        Self::message(
            format!("bridge link set dev {name} hairpin on"),
            Message::SetLink(link),
        )
    }

    /// Takes the interface `name` away.
    pub fn remove(name: &str) -> Self {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        Self::message(format!("ip link del {name}"), Message::DelLink(link))
    }

    /// Gives an interface the address `ip`, in a network of `prefix` bits.
    pub fn add_address(ip: IpAddr, prefix: u8, to: Interface<'_>) -> Self {
        let mut address = AddressMessage::default();
        address.header.prefix_len = prefix;
        address.header.scope = AddressScope::Universe;
        address.attributes = vec![AddressAttribute::Address(ip), AddressAttribute::Local(ip)];
        let (name, index) = match to {
            Interface::Known(name, index) => (name, index),
            Interface::Later(name) => (name, 0),
        };
        address.header.index = index;
        let more = match ip {
            IpAddr::V4(_) => {
                address.header.family = AddressFamily::Inet;
                ""
            }
            IpAddr::V6(_) => {
                address.header.family = AddressFamily::Inet6;
                // That nobody else has it is known, and finding that out would take a second (RFC 4862, 5.4).
                address
                    .attributes
                    .push(AddressAttribute::Flags(AddressFlags::Nodad));
                " nodad"
            }
        };
        let command = format!("ip address add {ip}/{prefix} dev {name}{more}");
        Self::message(command, Message::NewAddress(address))
    }

    /// Sends by `gateway` what leads nowhere else.
    pub fn add_default_route(gateway: IpAddr) -> Self {
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: match gateway {
                IpAddr::V4(_) => AddressFamily::Inet,
                IpAddr::V6(_) => AddressFamily::Inet6,
            },
            table: RouteHeader::RT_TABLE_MAIN,
            protocol: RouteProtocol::Boot,
            scope: RouteScope::Universe,
            kind: RouteType::Unicast,
            ..RouteHeader::default()
        };
        let (family, address) = match gateway {
            IpAddr::V4(gateway) => ("", RouteAddress::Inet(gateway)),
            IpAddr::V6(gateway) => (" -6", RouteAddress::Inet6(gateway)),
        };
        route.attributes.push(RouteAttribute::Gateway(address));
        let command = format!("ip{family} route add default via {gateway}");
        Self::message(command, Message::NewRoute(route))
    }

    /// Takes all addresses of `network`, which has `prefix` bits, for this machine's own on the interface `name`, which has
    /// the index `index`; other interfaces may have them, too.
    pub fn add_local_route(network: Ipv6Addr, prefix: u8, name: &str, index: u32) -> Self {
        let mut route = RouteMessage::default();
        route.header = RouteHeader {
            address_family: AddressFamily::Inet6,
            destination_prefix_length: prefix,
            table: RT_TABLE_LOCAL,
            protocol: RouteProtocol::Boot,
            scope: RouteScope::Universe,
            kind: RouteType::Local,
            ..RouteHeader::default()
        };
        route.attributes = vec![
            RouteAttribute::Destination(RouteAddress::Inet6(network)),
            RouteAttribute::Oif(index),
        ];
        let command = format!("ip -6 route append local {network}/{prefix} dev {name}");
        Self::message(command, Message::NewRoute(route))
    }

    /// Sets `net.<family>.conf.<interface>.<name>` to `value`; `None` where the interface's name cannot be one.
    pub fn set(family: &str, interface: &str, name: &str, value: u8) -> Option<Self> {
        let words = ["net", family, "conf", interface, name];
        Some(Self {
            command: sysctl(&words.join("/"), &value.to_string()),
            act: Act::Setting(Setting {
                path: CString::new(format!("/proc/sys/{}", words.join("/"))).ok()?,
                value: CString::new(value.to_string()).ok()?,
            }),
        })
    }

    /// Does it, in the network namespace of this process, in which `socket` was opened.
    pub fn carry_out(self, socket: &Socket) -> Result<(), SysError> {
        match self.act {
            Act::Message(message) => socket
                .carry_out(&Batch::new([message]), 0)
                .map_err(|refused| refused.failed),
            Act::Setting(setting) => namespace::set(&setting.path, &setting.value),
        }
    }
}

/// Returns how one would set `setting`, a path below `/proc/sys`, to `value`.
pub(super) fn sysctl(setting: &str, value: &str) -> String {
    // A dot in the name of an interface would be taken for a new word (sysctl(8)).
    match setting.contains('.') {
        true => format!("sysctl -w {setting}={value}"),
        false => format!("sysctl -w {}={value}", setting.replace('/', ".")),
    }
}

/// The table of routes to this machine itself (`RT_TABLE_LOCAL`).
const RT_TABLE_LOCAL: u8 = 255;

/// The interface of a container.
pub const INSIDE: &str = "eth0";
const INSIDE_C: &CStr = c"eth0";

fn raised(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link
}

fn with(mtu: Option<u32>) -> String {
    mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default()
}

/// What is done in a place where nothing can be made ready any more: settings first, then messages.
#[derive(Debug, Default)]
pub struct Ready {
    /// The settings.
    pub settings: Vec<Setting>,
    /// The messages.
    pub messages: Batch,
    /// How one would type each of both.
    commands: Vec<String>,
}

impl Ready {
    /// Makes `orders` ready, in which settings come before messages.
    pub fn new(orders: Vec<Order>) -> Self {
        let mut ready = Self::default();
        let mut messages = Vec::new();
        for order in orders {
            ready.commands.push(order.command);
            match order.act {
                Act::Message(message) => messages.push(message),
                Act::Setting(setting) => ready.settings.push(setting),
            }
        }
        ready.messages = Batch::new(messages);
        ready
    }

    /// Does it all in the network namespace of this process, where [`INSIDE`] is now. Does not allocate.
    pub fn carry_out(&self) -> Result<(), Refused> {
        for (at, setting) in self.settings.iter().enumerate() {
            namespace::set(&setting.path, &setting.value).map_err(|failed| Refused { at, failed })?;
        }
        let behind = |failed| Refused {
            at: self.settings.len(),
            failed,
        };
        let socket = Socket::open().map_err(behind)?;
        let index = socket.index_of(INSIDE_C).map_err(behind)?;
        socket
            .carry_out(&self.messages, index)
            .map_err(|refused| Refused {
                at: refused.at + self.settings.len(),
                ..refused
            })
    }

    /// Returns the order with the number `index`, as one would type it.
    pub fn command(&self, index: usize) -> &str {
        self.commands.get(index).map_or("", String::as_str)
    }
}
