//! A pair of sockets that keeps messages apart, and carries open files and the sender's process id (unix(7)).
//!
//! Sending keeps to the stack.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use super::{Call, Errno, SysError};

/// Returns the two ends of a channel. Each message is received as it was sent, never in parts.
pub fn pair() -> Result<(OwnedFd, OwnedFd), SysError> {
    rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .call("socketpair")
}

/// Has the kernel say with each message that `end` receives who sent it.
pub fn name_senders(end: impl AsFd) -> Result<(), SysError> {
    rustix::net::sockopt::set_socket_passcred(end, true).call("setsockopt(SO_PASSCRED)")
}

/// Sends a message made of `parts`, with a copy of `file` where one is given.
pub fn send(end: impl AsFd, parts: [&[u8]; 2], file: Option<BorrowedFd<'_>>) -> Result<(), SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = file.map(|file| [file]);
    if let Some(files) = &files {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    let parts = parts.map(IoSlice::new);
    rustix::net::sendmsg(end, &parts, &mut control, SendFlags::NOSIGNAL)
        .map(drop)
        .call("sendmsg")
}

/// A message that was received.
#[derive(Debug)]
pub struct Received {
    /// How many bytes it has; 0 where the other end is gone.
    pub length: usize,
    /// The file that came with it.
    pub file: Option<OwnedFd>,
    /// Who sent it, where [`name_senders`] was called.
    pub sender: Option<i32>,
}

/// Receives the next message into `into`, and waits for it.
pub fn receive(end: impl AsFd, into: &mut [u8]) -> Result<Received, SysError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut parts = [IoSliceMut::new(into)];
        match rustix::net::recvmsg(&end, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            done => break done.call("recvmsg")?,
        }
    };
    let mut received = Received {
        length: got.bytes,
        file: None,
        sender: None,
    };
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(files) => received.file = files.last(),
            RecvAncillaryMessage::ScmCredentials(sender) => {
                received.sender = Some(sender.pid.as_raw_nonzero().get());
            }
            _ => {}
        }
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_arrives_whole_with_its_file_and_its_sender() {
        let (ours, theirs) = pair().unwrap();
        let mut bytes = [0; 16];
        send(&theirs, [b"plain", b""], None).unwrap();
        let plain = receive(&ours, &mut bytes).unwrap();
        assert_eq!((&bytes[..plain.length], plain.sender), (&b"plain"[..], None));
        name_senders(&ours).unwrap();
        let (reader, writer) = super::super::process::pipe().unwrap();
        send(&theirs, [b"a", b"bc"], Some(writer.as_fd())).unwrap();
        send(&theirs, [b"d", b""], None).unwrap();
        drop((theirs, writer));
        let first = receive(&ours, &mut bytes).unwrap();
        assert_eq!(&bytes[..first.length], b"abc");
        assert_eq!(first.sender, Some(std::process::id() as i32));
        super::super::process::write(first.file.unwrap(), b"through").unwrap();
        assert_eq!(super::super::process::read(&reader, &mut bytes).unwrap(), 7);
        let second = receive(&ours, &mut bytes).unwrap();
        assert_eq!((second.length, second.file.is_none()), (1, true));
        assert_eq!(receive(&ours, &mut bytes).unwrap().length, 0);
    }
}
