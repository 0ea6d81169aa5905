//! The network namespace of a run that reaches nobody, made by a thread of its own while the container is set up: to make
//! one takes the kernel a millisecond, as long as all that the child does until it needs it.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::{Builder, JoinHandle};

use crate::sys::{SysError, channel, namespace};

/// The thread that makes it.
#[derive(Debug)]
pub(super) struct Maker(JoinHandle<Result<(), SysError>>);

/// Where the child gets it.
#[derive(Debug)]
pub(super) struct Delivery(OwnedFd);

/// Begins to make one, with its loopback up. `None` where no thread can be had: then the child is to make its own.
pub(super) fn start() -> Result<Option<(Maker, Delivery)>, SysError> {
    let (sends, receives) = channel::pair()?;
    let work = move || {
        let made = make();
        // A message in any case: the child has a copy of this end, and would not hear that it is closed.
        let file = made.as_ref().ok().map(OwnedFd::as_fd);
        // A child that is gone needs none.
        let _ = channel::send(&sends, [b"n", b""], file);
        made.map(drop)
    };
    match Builder::new().name("network".into()).spawn(work) {
        Ok(thread) => Ok(Some((Maker(thread), Delivery(receives)))),
        Err(_) => Ok(None),
    }
}

/// Makes it in this thread, which ends in there: not everybody may go back to where mk was started.
fn make() -> Result<OwnedFd, SysError> {
    namespace::own_network_namespace()?;
    namespace::loopback_up()?;
    namespace::network_of_thread()
}

impl Maker {
    /// Waits until it is made, and returns why it could not be.
    pub(super) fn finish(self) -> Result<(), SysError> {
        self.0.join().unwrap_or(Ok(()))
    }
}

impl Delivery {
    /// Waits for it and goes there; `false` where it could not be made. Keeps to the stack.
    pub(super) fn enter(&self) -> Result<bool, SysError> {
        match channel::receive(&self.0, &mut [0])?.file {
            Some(network) => {
                namespace::join(network.as_fd(), namespace::Namespaces::NET)?;
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
