//! The home of a `private` network: a network namespace in which its bridge is, and for ordinary users a user namespace
//! around that, both shared by all mk processes that use the network.
//!
//! No namespace has a name here: it lives as long as a process is in it, and is found through one. Each mk has a seat, a
//! file in `<state>/networks/private:NAME/members/` that it keeps locked, and that says which process it is:
//!
//! ```text
//! 4711 88231 network     process id, when it was started, and what it is in: `users`, or `network` too
//! ```
//!
//! Whoever comes goes into the namespaces of one who is there, and makes them where nobody is. What is made in them dies
//! with the last of them, in whatever way that ends.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::recipe::NetName;
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};
use crate::sys::namespace::{self, Namespaces};
use crate::sys::{Errno, SysError, pidfd};

/// The namespaces of a private network that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the network cannot be used.
    #[error("cannot use the folder of the private network, `{}`", .path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// Somebody has a seat, and cannot be reached.
    #[error("the private network `{name}` is held by process {pid}, whose namespaces are out of reach")]
    OutOfReach {
        /// The network.
        name: NetName,
        /// The process, as it calls itself.
        pid: i32,
        /// The call that was refused, where one was.
        #[source]
        failed: Option<SysError>,
    },
    /// This process is in another user namespace than those that use the network.
    #[error("others use the private network `{name}` in a user namespace that this run is not in")]
    OtherUsers {
        /// The network.
        name: NetName,
    },
    /// A namespace cannot be made.
    #[error("cannot make the network namespace of the private network")]
    Make(#[source] SysError),
}

/// How long somebody may take to let go of a seat after its end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Far more than a seat says.
const MOST: u64 = 128;

/// Returns the folder of a private network below that of all networks. No other network can be called so.
pub fn folder(name: &NetName) -> String {
    format!("private:{name}")
}

/// The members of a private network, as one of them sees them.
#[derive(Debug)]
pub struct Home {
    name: NetName,
    members: Dir,
    seat: Option<Seat>,
}

/// The members without changes by others, for as long as this is held: for moments.
#[derive(Debug)]
pub struct Alone(#[expect(dead_code, reason = "the lock is dropped with it")] Dir);

/// This process's place among the members, until the last process that inherited it has let go of it.
#[derive(Debug)]
pub struct Seat {
    members: Dir,
    name: String,
    file: File,
}

/// What a member is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// The user namespace.
    Users,
    /// The network namespace too.
    Network,
}

/// What a seat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    pid: i32,
    start: u64,
    room: Room,
}

impl Home {
    /// Opens the home of the network `name`, with its folder below `state`, which is there.
    pub fn open(state: &Path, name: &NetName) -> Result<Self, Error> {
        let mut path = state.to_owned();
        for part in ["networks", &folder(name), "members"] {
            path.push(part);
            match Dir::make(&path, 0o700) {
                Err(failed) if failed.errno != Errno::EXIST => return Err(Error::Folder { path, failed }),
                _ => {}
            }
        }
        match Dir::open_itself(&path) {
            Ok(members) => Ok(Self {
                name: name.clone(),
                members,
                seat: None,
            }),
            Err(failed) => Err(Error::Folder { path, failed }),
        }
    }

    /// Returns which network it is.
    pub fn name(&self) -> &NetName {
        &self.name
    }

    /// Waits until nobody else looks or changes anything.
    pub fn alone(&self) -> Result<Alone, Error> {
        let lock = || {
            // An opening of its own: the lock goes with it.
            let handle = self.members.open_dir(".")?;
            file::lock(&handle, LockKind::Exclusive)?;
            Ok(Alone(handle))
        };
        lock().map_err(|failed| self.failed(failed))
    }

    /// Returns a process in the user namespace of the network, where there is one.
    pub fn users(&self, alone: &Alone) -> Result<Option<OwnedFd>, Error> {
        self.reach(alone, Room::Users, |_, handle| Ok(handle))
    }

    /// Says that this process is in the user namespace of the network.
    pub fn sit(&mut self, _alone: &Alone) -> Result<(), Error> {
        let seat = Seat::take(&self.members).map_err(|failed| self.failed(failed))?;
        seat.say(Room::Users).map_err(|failed| self.failed(failed))?;
        self.seat = Some(seat);
        Ok(())
    }

    /// Moves this process, which must have one thread and be root of its user namespace, into the network namespace of
    /// the network, which is made where there is none. `furnish` is called in there while nobody else can come in;
    /// it is told whether the namespace is new.
    pub fn enter<T, E: From<Error>>(
        mut self,
        furnish: impl FnOnce(bool) -> Result<T, E>,
    ) -> Result<(Seat, T), E> {
        let alone = self.alone()?;
        // Root of the machine has had no user namespace to find; anybody else has gone into one before, or is in
        // another one now.
        if self.seat.is_none()
            && self.reach(&alone, Room::Users, |member, _| is_with_us(member))? == Some(false)
        {
            return Err(Error::OtherUsers { name: self.name }.into());
        }
        let joined = self.reach(&alone, Room::Network, |_, handle| {
            namespace::join(handle.as_fd(), Namespaces::NET)
        })?;
        if joined.is_none() {
            namespace::own_network_namespace().map_err(Error::Make)?;
        }
        let made = furnish(joined.is_none())?;
        let seated = match self.seat.take() {
            Some(seat) => Ok(seat),
            None => Seat::take(&self.members),
        };
        let seat = seated.and_then(|seat| seat.say(Room::Network).map(|()| seat));
        Ok((seat.map_err(|failed| self.failed(failed))?, made))
    }

    /// Does with a member that is in `room` what is to be done with one, the first that it works with. Seats that nobody
    /// holds are taken away.
    fn reach<T>(
        &self,
        _alone: &Alone,
        room: Room,
        act: impl Fn(Member, OwnedFd) -> Result<T, SysError>,
    ) -> Result<Option<T>, Error> {
        let begin = Instant::now();
        loop {
            let seats = self.taken().map_err(|failed| self.failed(failed))?;
            let mut members = seats
                .iter()
                .filter(|member| room == Room::Users || member.room == room)
                .peekable();
            let Some(first) = members.peek().map(|first| first.pid) else {
                return Ok(None);
            };
            let mut refused = None;
            for member in members {
                let opened = member.open();
                match opened.and_then(|handle| handle.map(|handle| act(*member, handle)).transpose()) {
                    Ok(Some(done)) => return Ok(Some(done)),
                    Ok(None) => {}
                    Err(failed) if failed.errno == Errno::SRCH => {}
                    Err(failed) => refused = Some(failed),
                }
            }
            // One that ends lets go of its seat a moment later than of all else, and so do those it has started.
            if refused.is_some() || begin.elapsed() > PATIENCE {
                return Err(Error::OutOfReach {
                    name: self.name.clone(),
                    pid: first,
                    failed: refused,
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns what the seats say that are held, and takes the others away.
    fn taken(&self) -> Result<Vec<Member>, SysError> {
        let mut members = Vec::new();
        for (name, _) in self.members.list()? {
            let own = self.seat.as_ref().is_some_and(|seat| name == *seat.name);
            let seat = match self.members.open_file(&name) {
                Err(failed) if failed.errno == Errno::NOENT => continue,
                opened => opened?,
            };
            if own {
                continue;
            }
            if file::try_lock(&seat, LockKind::Shared)? {
                self.members.unlink(&name)?;
            } else if let Some(member) = Member::parse(&file::read(&seat, MOST)?) {
                members.push(member);
            }
        }
        Ok(members)
    }

    fn failed(&self, failed: SysError) -> Error {
        Error::Folder {
            path: self.members.path(),
            failed,
        }
    }
}

/// Whether a member is in this process's user namespace.
fn is_with_us(member: Member) -> Result<bool, SysError> {
    let own = namespace::number(pidfd::own(), "user")?;
    match namespace::number(member.pid, "user") {
        // Who is in another one, beside it, may not even be looked at.
        Err(failed) if matches!(failed.errno, Errno::ACCESS | Errno::PERM) => Ok(false),
        Err(failed) if failed.errno == Errno::NOENT => Err(SysError::new(Errno::SRCH, failed.call)),
        theirs => Ok(theirs? == own),
    }
}

impl Seat {
    /// Takes one that is nobody else's.
    fn take(members: &Dir) -> Result<Self, SysError> {
        loop {
            let name = format!("{:016x}", file::random()?);
            match members.create_file(&name, 0o600) {
                Err(failed) if failed.errno == Errno::EXIST => {}
                created => {
                    let file = created?;
                    file::lock(&file, LockKind::Exclusive)?;
                    let members = members.open_dir(".")?;
                    return Ok(Self { members, name, file });
                }
            }
        }
    }

    /// Says that this process, which has inherited the seat, has it from now on, and is in the network namespace.
    pub fn keep(&self) -> Result<(), SysError> {
        let alone = self.members.open_dir(".")?;
        file::lock(&alone, LockKind::Exclusive)?;
        self.say(Room::Network)
    }

    fn say(&self, room: Room) -> Result<(), SysError> {
        let pid = pidfd::own();
        let start = pidfd::start_of(pid).unwrap_or_default();
        file::overwrite(&self.file, Member { pid, start, room }.text().as_bytes())
    }
}

impl Member {
    fn text(self) -> String {
        let room = match self.room {
            Room::Users => "users",
            Room::Network => "network",
        };
        format!("{} {} {room}\n", self.pid, self.start)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?;
        let mut words = text.split(' ');
        let member = Self {
            pid: words.next()?.parse().ok()?,
            start: words.next()?.parse().ok()?,
            room: match words.next()? {
                "users" => Room::Users,
                "network" => Room::Network,
                _ => return None,
            },
        };
        words.next().is_none().then_some(member)
    }

    /// Opens a handle on the process; `None` where it has ended, also where another has its number by now.
    fn open(self) -> Result<Option<OwnedFd>, SysError> {
        let handle = pidfd::open(self.pid)?;
        Ok(handle.filter(|_| pidfd::start_of(self.pid) == Some(self.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_says_what_is_read_from_it() {
        for room in [Room::Users, Room::Network] {
            let member = Member {
                pid: 4711,
                start: 88_231,
                room,
            };
            assert_eq!(Member::parse(member.text().as_bytes()), Some(member));
        }
        for text in [
            "",
            "4711",
            "4711 1 network",
            "4711 1 users x\n",
            "a 1 users\n",
            "1 1 elsewhere\n",
        ] {
            assert_eq!(Member::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn no_other_network_can_have_the_folder_of_a_private_one() {
        let name: NetName = "web".parse().unwrap();
        assert!(folder(&name).parse::<NetName>().is_err());
    }

    #[test]
    fn a_seat_is_found_as_long_as_it_is_held_and_gone_when_it_is_not() {
        let state = tempfile::tempdir().unwrap();
        let name: NetName = "web".parse().unwrap();
        let mut first = Home::open(state.path(), &name).unwrap();
        let second = Home::open(state.path(), &name).unwrap();
        let alone = first.alone().unwrap();
        assert!(second.users(&alone).unwrap().is_none());
        first.sit(&alone).unwrap();
        assert!(second.users(&alone).unwrap().is_some());
        // Nobody finds itself.
        assert!(first.users(&alone).unwrap().is_none());
        drop(alone);
        drop(first);
        let alone = second.alone().unwrap();
        assert!(second.users(&alone).unwrap().is_none());
        assert_eq!(fs_err::read_dir(second.members.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_seat_of_a_process_that_has_ended_is_waited_for_and_not_taken_for_another() {
        let state = tempfile::tempdir().unwrap();
        let name: NetName = "web".parse().unwrap();
        let home = Home::open(state.path(), &name).unwrap();
        let seat = Seat::take(&home.members).unwrap();
        // This process's number with another's start.
        let other = Member {
            pid: pidfd::own(),
            start: 1,
            room: Room::Users,
        };
        file::overwrite(&seat.file, other.text().as_bytes()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(30));
                drop(seat);
            });
            let alone = home.alone().unwrap();
            assert!(home.users(&alone).unwrap().is_none());
        });
    }
}
