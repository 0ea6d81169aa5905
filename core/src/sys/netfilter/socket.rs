//! The socket over which transactions go to the kernel and answers come back (netlink(7)).

use std::os::fd::OwnedFd;

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, sockopt};

use super::encode::{Batch, Command, NLMSG_DONE, NLMSG_ERROR, NLMSG_HEADER};
use super::{Error, Table};
use crate::sys::{Errno, SysError};

/// A buffer that any one answer fits into: a message that is refused comes back whole.
const ANSWER: usize = 1 << 16;

/// What a socket can send at once without being told to (`net.core.wmem_default` is more than this everywhere).
const SMALL: usize = 1 << 16;

impl Table {
    /// Makes the table, with all that is in it or not at all. One that is not owned takes the place of the table with
    /// its name, if there is one, in the same moment, and stays; what is returned is then of no use. An owned one must
    /// be new, and goes when what is returned is closed by the last who holds it: then also where nobody is left to
    /// clean up.
    pub fn make(&self) -> Result<OwnedFd, Error> {
        let socket = open()?;
        let batch = Batch::make(self);
        carry_out(&socket, &batch, |command| self.in_words(command))?;
        Ok(socket)
    }

    /// Removes the table `name` of the `inet` family; says whether it was there.
    pub fn remove(name: &str) -> Result<bool, Error> {
        let socket = open()?;
        let done = carry_out(&socket, &Batch::remove(name), |_| {
            format!("delete table inet {name}")
        });
        match done {
            Ok(()) => Ok(true),
            Err(refused @ Error::Refused { .. }) if refused.errno() == Errno::NOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns a part of the transaction as the command of nft(8) that does it.
    fn in_words(&self, command: Command) -> String {
        let name = &self.name;
        match command {
            Command::Begin | Command::End => format!("-f {name}.nft"),
            Command::MakeTable => format!("add table inet {name}"),
            Command::RemoveTable => format!("delete table inet {name}"),
            Command::MakeChain(at) => {
                let chain = &self.chains[at];
                format!("add chain inet {name} {} {{ {} }}", chain.name, chain.place())
            }
            Command::MakeRule(at, number) => {
                let chain = &self.chains[at];
                format!("add rule inet {name} {} {}", chain.name, chain.rules[number])
            }
        }
    }
}

/// Opens a socket to the netfilter of the network namespace that this thread is in.
pub(super) fn open() -> Result<OwnedFd, Error> {
    net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    )
    .map_err(|errno| {
        let failed = SysError::new(errno, "socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER)");
        match errno {
            Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT => Error::NotThere(failed),
            _ => Error::Sys(failed),
        }
    })
}

/// Sends messages, as one.
pub(super) fn send(socket: &OwnedFd, bytes: &[u8]) -> Result<(), Error> {
    let sys = |errno| {
        Error::Sys(SysError::new(
            errno,
            format_args!("send(nfnetlink, {} bytes)", bytes.len()),
        ))
    };
    if bytes.len() > SMALL {
        // The kernel counts what it needs around the bytes as well. Where it is not granted, the call below tells.
        let _ = sockopt::set_socket_send_buffer_size_force(socket, bytes.len() * 2);
    }
    net::send(socket, bytes, SendFlags::empty())
        .map(drop)
        .map_err(sys)
}

/// Hands each message that comes to `see`, with its kind, its number and what follows its header, until it has seen
/// enough.
pub(super) fn receive(
    socket: &OwnedFd,
    mut see: impl FnMut(u16, u32, &[u8]) -> Result<Progress, Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; ANSWER];
    loop {
        let length = loop {
            match net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => break length,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::Sys(SysError::new(errno, "recv(nfnetlink)"))),
            }
        };
        let mut rest = &buffer[..length];
        while let Some((kind, number, body, next)) = first_message(rest) {
            if see(kind, number, body)? == Progress::Done {
                return Ok(());
            }
            rest = next;
        }
    }
}

/// Whether more messages are to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Done,
}

/// Splits the first message off: its kind, its number, what follows its header, and the messages after it.
fn first_message(bytes: &[u8]) -> Option<(u16, u32, &[u8], &[u8])> {
    let header = bytes.get(..NLMSG_HEADER)?;
    let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
    let number = u32::from_ne_bytes(header[8..12].try_into().ok()?);
    let body = bytes.get(NLMSG_HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, number, body, next))
}

/// Returns the error that a message tells of; nothing where it says that all went well.
pub(super) fn told(kind: u16, body: &[u8]) -> Option<Errno> {
    if !matches!(kind, NLMSG_ERROR | NLMSG_DONE) {
        return None;
    }
    let code = i32::from_ne_bytes(body.get(..4)?.try_into().ok()?);
    (code < 0).then(|| Errno::from_raw_os_error(code.saturating_neg()))
}

/// Sends a transaction and reads what becomes of it. The kernel goes on looking after the first message that it
/// refuses, and then does nothing of the whole; so the first error is the answer, and the last answer is waited for.
fn carry_out(socket: &OwnedFd, batch: &Batch, in_words: impl Fn(Command) -> String) -> Result<(), Error> {
    const BEGIN: u32 = 0;
    send(socket, batch.bytes())?;
    let mut refused = None;
    receive(socket, |kind, number, body| {
        let errno = told(kind, body);
        if let (Some(errno), None) = (errno, &refused) {
            refused = Some((number, errno));
        }
        let whole = number == BEGIN && errno.is_some();
        Ok(match whole || number == batch.last() {
            true => Progress::Done,
            false => Progress::More,
        })
    })?;
    let Some((number, errno)) = refused else {
        return Ok(());
    };
    let failed = SysError::new(errno, "send(nfnetlink)");
    Err(match batch.command(number) {
        // No such subsystem: nf_tables is neither built in nor a module that could be loaded.
        Some(Command::Begin) if matches!(errno, Errno::OPNOTSUPP | Errno::INVAL) => Error::NotThere(failed),
        Some(command) if command != Command::Begin => Error::Refused {
            command: in_words(command),
            failed,
        },
        _ => Error::Sys(failed),
    })
}
