//! The network namespace of a run that reaches nobody: mk makes it while the child mounts what shows nothing of it. The
//! kernel takes a millisecond for one, about as long as the child for these mounts. In a thread beside them it saved 0.3 of
//! the 5.3 ms of a run; this way, with functions in order (docs/decisions/0028), 6.2 ms became 5.4.

use std::os::fd::{AsFd, OwnedFd};

use crate::sys::namespace::{self, Namespaces};
use crate::sys::{SysError, channel};

/// What makes it.
#[derive(Debug)]
pub(super) struct Maker {
    /// Where the thread is, and is to be again.
    here: OwnedFd,
    sends: OwnedFd,
}

/// Where the child gets it.
#[derive(Debug)]
pub(super) struct Delivery(OwnedFd);

/// Returns what makes one, and where it arrives. `None` where this thread could not come back from there (who is root
/// only in a user namespace cannot go to the network of the machine): then the child is to make its own.
pub(super) fn prepare() -> Result<Option<(Maker, Delivery)>, SysError> {
    let Ok(here) = namespace::own_network() else {
        return Ok(None);
    };
    if namespace::join(here.as_fd(), Namespaces::NET).is_err() {
        return Ok(None);
    }
    let (sends, receives) = channel::pair()?;
    Ok(Some((Maker { here, sends }, Delivery(receives))))
}

impl Maker {
    /// Makes it, with its loopback up, and hands it over. The thread is in it meanwhile.
    pub(super) fn make(self) -> Result<(), SysError> {
        namespace::own_network_namespace()?;
        let handed = namespace::loopback_up()
            .and_then(|()| namespace::own_network())
            .map(|made| {
                // A child that is gone needs none, and says why it is gone.
                let _ = channel::send(&self.sends, [b"n", b""], Some(made.as_fd()));
            });
        namespace::join(self.here.as_fd(), Namespaces::NET)?;
        handed
    }
}

impl Delivery {
    /// Waits for it and goes there; `false` where mk has ended, or could not make it. Keeps to the stack.
    pub(super) fn enter(&self) -> Result<bool, SysError> {
        match channel::receive(&self.0, &mut [0])?.file {
            Some(network) => namespace::join(network.as_fd(), Namespaces::NET).map(|()| true),
            None => Ok(false),
        }
    }
}
