//! Interfaces, addresses and routes, as messages to the kernel (rtnetlink(7)).
//!
//! A [`Batch`] is written before it is needed; [`Socket::carry_out`] sends it without allocating, so that it can be used
//! between clone and exec.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Message};
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use super::{Call, Errno, SysError, checked};

/// Messages that are carried out in order.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where the index of an interface goes that nobody knew when this was written.
    unknown: Vec<usize>,
    count: u32,
}

/// The size of the header of a message, and what stands before the index in that of an address (`struct ifaddrmsg`).
const HEADER: usize = 16;
const BEFORE_INDEX: usize = 4;

impl Batch {
    /// The most that a batch may take, in bytes.
    const MOST: usize = 2048;

    /// Writes `messages`. Where one adds an address to the interface 0, its index is told when it is carried out.
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        let mut batch = Self::default();
        for message in messages {
            batch.add(message);
        }
        batch
    }

    fn add(&mut self, message: Message) {
        let start = self.bytes.len();
        if matches!(&message, Message::NewAddress(address) if address.header.index == 0) {
            self.unknown.push(start + HEADER + BEFORE_INDEX);
        }
        let adds = match &message {
            // Another interface may have the same of the machine's own addresses.
            Message::NewRoute(route) if route.header.kind == RouteType::Local => NLM_F_CREATE | NLM_F_APPEND,
            Message::NewLink(_) | Message::NewAddress(_) | Message::NewRoute(_) => NLM_F_CREATE | NLM_F_EXCL,
            _ => 0,
        };
        self.count += 1;
        // The kernel goes on behind one that it refuses, so each is answered.
        let packet = packet(message, NLM_F_REQUEST | NLM_F_ACK | adds, self.count);
        self.bytes.resize(start + aligned(packet.buffer_len()), 0);
        packet.serialize(&mut self.bytes[start..]);
    }
}

fn packet(message: Message, flags: u16, number: u32) -> NetlinkMessage<Message> {
    let mut packet = NetlinkMessage::from(message);
    packet.header.flags = flags;
    packet.header.sequence_number = number;
    packet.finalize();
    packet
}

/// Messages begin at multiples of four bytes (`NLMSG_ALIGN`).
const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

/// A message of a batch that the kernel refused.
#[derive(Debug)]
pub struct Refused {
    /// Which one, counted from 0.
    pub at: usize,
    /// Why.
    pub failed: SysError,
}

/// An interface, as far as mk looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Whether it is up.
    pub up: bool,
    /// Its hardware address.
    pub address: Vec<u8>,
    /// What its maker has noted of it.
    pub alias: Option<String>,
}

/// A socket to the kernel, in the network namespace that this process was in when it was opened.
#[derive(Debug)]
pub struct Socket(netlink_sys::Socket);

impl Socket {
    /// Opens one. Does not allocate.
    pub fn open() -> Result<Self, SysError> {
        netlink_sys::Socket::new(NETLINK_ROUTE)
            .map(Self)
            .map_err(errno)
            .call("socket(AF_NETLINK)")
    }

    /// Has the kernel do what `batch` says; `index` is that of the interface which was not known. Does not allocate.
    pub fn carry_out(&self, batch: &Batch, index: u32) -> Result<(), Refused> {
        let at_first = |failed| Refused { at: 0, failed };
        let mut bytes = [0; Batch::MOST];
        let Some(bytes) = bytes.get_mut(..batch.bytes.len()) else {
            return Err(at_first(refusal(Errno::MSGSIZE)));
        };
        bytes.copy_from_slice(&batch.bytes);
        for &place in &batch.unknown {
            bytes[place..place + 4].copy_from_slice(&index.to_ne_bytes());
        }
        self.send(bytes).map_err(at_first)?;
        let mut done = 0;
        while done < batch.count {
            let mut answer = [0; 4096];
            let length = self.receive(&mut answer).map_err(at_first)?;
            let mut rest = &answer[..length];
            while let Some((number, code, after)) = Answer::first(rest) {
                if code != 0 {
                    return Err(Refused {
                        at: number.saturating_sub(1) as usize,
                        failed: refusal(Errno::from_raw_os_error(-code)),
                    });
                }
                done += 1;
                rest = after;
            }
        }
        Ok(())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), SysError> {
        self.0
            .send(bytes, 0)
            .map(drop)
            .map_err(errno)
            .call("send(NETLINK_ROUTE)")
    }

    fn receive(&self, into: &mut [u8]) -> Result<usize, SysError> {
        loop {
            match self.0.recv(&mut &mut *into, 0).map_err(errno) {
                Err(Errno::INTR) => {}
                received => return received.call("recv(NETLINK_ROUTE)"),
            }
        }
    }

    /// Returns the index of the interface `name`. Does not allocate (netdevice(7), `SIOCGIFINDEX`).
    pub fn index_of(&self, name: &std::ffi::CStr) -> Result<u32, SysError> {
        // SAFETY: all bytes zero is a valid `ifreq`.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero.
        let room = request.ifr_name.len() - 1;
        for (into, &byte) in request.ifr_name[..room].iter_mut().zip(name.to_bytes()) {
            *into = byte as libc::c_char;
        }
        // SAFETY: SIOCGIFINDEX reads and writes an `ifreq`, which `request` is.
        let returned = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SIOCGIFINDEX as _, &raw mut request) };
        checked(returned.into()).call("ioctl(SIOCGIFINDEX)")?;
        // SAFETY: the kernel has written this field.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex } as u32)
    }

    /// Returns the interface `name`, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<Link>, SysError> {
        let mut wanted = LinkMessage::default();
        wanted.attributes.push(LinkAttribute::IfName(name.to_owned()));
        wanted
            .attributes
            .push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let found = match self.ask(Message::GetLink(wanted), 0) {
            Err(failed) if failed.errno == Errno::NODEV => return Ok(None),
            answers => answers?,
        };
        Ok(found.into_iter().find_map(|message| match message {
            Message::NewLink(link) => Some(link.into()),
            _ => None,
        }))
    }

    /// Returns where the IPv4 routes of this namespace lead: networks and the lengths of their prefixes, without those
    /// that lead everywhere, and with the names of their interfaces' indices.
    pub fn routes(&self) -> Result<Vec<(Ipv4Addr, u8, Option<u32>)>, SysError> {
        let mut wanted = RouteMessage::default();
        wanted.header.address_family = AddressFamily::Inet;
        let answers = self.ask(Message::GetRoute(wanted), NLM_F_DUMP)?;
        Ok(answers
            .into_iter()
            .filter_map(|message| match message {
                Message::NewRoute(route) => destination(&route),
                _ => None,
            })
            .collect())
    }

    /// Sends a question, and returns all that the kernel answers.
    fn ask(&self, message: Message, flags: u16) -> Result<Vec<Message>, SysError> {
        // Every answer is followed by a last word, of which there is only one for a dump.
        let packet = packet(message, NLM_F_REQUEST | NLM_F_ACK | flags, 1);
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.send(&bytes)?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let length = self.receive(&mut buffer)?;
            let mut rest = &buffer[..length];
            while rest.len() >= HEADER {
                let told =
                    NetlinkMessage::<Message>::deserialize(rest).map_err(|_| refusal(Errno::BADMSG))?;
                let length = aligned(told.header.length as usize).clamp(HEADER, rest.len());
                rest = &rest[length..];
                match told.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => match error.code {
                        None => return Ok(answers),
                        Some(code) => return Err(refusal(Errno::from_raw_os_error(-code.get()))),
                    },
                    _ => {}
                }
            }
        }
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let mut link = Self {
            index: message.header.index,
            up: message.header.flags.contains(LinkFlags::Up),
            address: Vec::new(),
            alias: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Address(address) => link.address = address,
                _ => {}
            }
        }
        link
    }
}

fn destination(route: &RouteMessage) -> Option<(Ipv4Addr, u8, Option<u32>)> {
    let header: &RouteHeader = &route.header;
    if header.kind != RouteType::Unicast {
        return None;
    }
    let mut index = None;
    let mut network = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => network = Some(*address),
            RouteAttribute::Oif(of) => index = Some(*of),
            _ => {}
        }
    }
    Some((network?, header.destination_prefix_length, index))
}

/// What an answer that reports an outcome begins with.
struct Answer;

impl Answer {
    /// Returns the number of the message that the first answer in `bytes` is to, its error number (negative, or 0), and
    /// what comes after it (netlink(7), `struct nlmsgerr`).
    fn first(bytes: &[u8]) -> Option<(u32, i32, &[u8])> {
        let word = |at: usize| bytes.get(at..)?.first_chunk::<4>().copied();
        let length = aligned(u32::from_ne_bytes(word(0)?) as usize);
        let number = u32::from_ne_bytes(word(8)?);
        let code = i32::from_ne_bytes(word(HEADER)?);
        Some((number, code, bytes.get(length.max(HEADER)..).unwrap_or_default()))
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn refusal(errno: Errno) -> SysError {
    SysError {
        call: "netlink".into(),
        errno,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::address::AddressMessage;

    use super::*;

    fn up(name: &str) -> Message {
        let mut link = LinkMessage::default();
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        link.attributes.push(LinkAttribute::IfName(name.into()));
        Message::SetLink(link)
    }

    #[test]
    fn the_index_of_an_unknown_interface_goes_where_the_kernel_reads_it() {
        let mut address = AddressMessage::default();
        address.header.family = AddressFamily::Inet;
        let batch = Batch::new([up("lo"), Message::NewAddress(address)]);
        let [place] = batch.unknown[..] else { panic!() };
        let mut bytes = batch.bytes.clone();
        bytes[place..place + 4].copy_from_slice(&77u32.to_ne_bytes());
        let second = u32::from_ne_bytes(*bytes.first_chunk().unwrap()) as usize;
        let back = NetlinkMessage::<Message>::deserialize(&bytes[aligned(second)..]).unwrap();
        assert!(
            matches!(&back.payload, NetlinkPayload::InnerMessage(Message::NewAddress(one)) if one.header.index == 77)
        );
    }

    #[test]
    fn answers_are_read_one_after_the_other() {
        let mut bytes = Vec::new();
        for (number, code) in [(1u32, 0i32), (2, -17)] {
            bytes.extend(36u32.to_ne_bytes());
            bytes.extend([2, 0, 0, 0]);
            bytes.extend(number.to_ne_bytes());
            bytes.extend(0u32.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend([0; 16]);
        }
        let (number, code, rest) = Answer::first(&bytes).unwrap();
        assert_eq!((number, code), (1, 0));
        let (number, code, rest) = Answer::first(rest).unwrap();
        assert_eq!((number, code), (2, -17));
        assert!(Answer::first(rest).is_none());
        assert!(Answer::first(&bytes[..12]).is_none());
    }

    #[test]
    fn loopback_is_found_and_what_there_is_not_is_told_so() {
        let socket = Socket::open().unwrap();
        let loopback = socket.link("lo").unwrap().unwrap();
        assert_eq!(socket.index_of(c"lo").unwrap(), loopback.index);
        assert_eq!(socket.link("mk-no-such-one").unwrap(), None);
        assert_eq!(
            socket.index_of(c"mk-no-such-one").unwrap_err().errno,
            Errno::NODEV
        );
    }

    #[test]
    fn a_refusal_says_which_message_it_is_of() {
        let socket = Socket::open().unwrap();
        let refused = socket
            .carry_out(&Batch::new([up("mk-no-such-one")]), 0)
            .unwrap_err();
        assert_eq!(refused.at, 0);
        assert!(
            [Errno::NODEV, Errno::PERM].contains(&refused.failed.errno),
            "{refused:?}"
        );
    }
}
