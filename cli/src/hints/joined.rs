//! What to do about networks of others that cannot be joined.

use mk_core::enter;
use mk_core::net::namespace::Error;

/// Returns advice for a namespace that cannot be joined.
pub(super) fn of_namespace(error: &Error) -> Option<String> {
    Some(match error {
        Error::Missing { name, there } => match crate::command::find::closest(name, there.iter().cloned()) {
            Some(like) => format!("did you mean `--network ns:{like}`?"),
            None => format!("`ip netns add {name}` makes one, as root"),
        },
        Error::Other { path } => {
            format!("a namespace is gone after the machine was started anew, its file may stay: `rm {path}`")
        }
        Error::OutOfReach { .. } => {
            "as an ordinary user: `--network container:NAME` shares the network of a container of yours, `--network \
             private` one among them"
                .into()
        }
        Error::Sys { .. } => return None,
    })
}

/// Returns advice for a network that a run with ids of its own cannot share.
pub(super) fn of_own_ids() -> String {
    "leave one of the two out; `--network bridge` goes with ids of the container's own".into()
}

/// Returns advice for a container whose network cannot be shared.
pub(super) fn of_partner(error: &enter::partner::Error) -> Option<String> {
    match error {
        enter::partner::Error::Container(error) => super::of_container(error),
        _ => None,
    }
}
