//! The home of a `private` network: a network namespace in which its bridge is, and for ordinary users a user namespace
//! around that, both shared by all mk processes that use the network.
//!
//! No namespace has a name here: it lives as long as a process is in it, and is found through one. Each mk has a seat, a
//! file in `<state>/networks/NAME/members/` that it keeps locked, and that says which process it is:
//!
//! ```text
//! 4711 88231 network     process id, when it was started, and what it is in: `users`, or `network` too
//! ```
//!
//! Whoever comes goes into the namespaces of one who is there, and makes them where nobody is. What is made in them dies
//! with the last of them, in whatever way that ends.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use super::network::Networks;
use super::{Error, Result};
use crate::recipe::NetName;
use crate::sys::dir::Dir;
use crate::sys::file::{self, LockKind};
use crate::sys::namespace::{self, Namespaces};
use crate::sys::{Errno, SysError, pidfd};

type SysResult<T> = std::result::Result<T, SysError>;

/// How long somebody may take to let go of a seat after its end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Far more than a seat says.
const MOST: u64 = 128;

/// The folder of members below that of a network.
const MEMBERS: &str = "members";

/// The members of a private network, as one of them sees them.
#[derive(Debug)]
pub struct Home {
    name: NetName,
    members: Dir,
    stay: bool,
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
    /// Opens the home of the network `name` of the folder `state`, for a process that is going to `stay` in there, or only
    /// has a look: then nothing is made, and there may be none.
    pub fn open(state: &Path, name: &NetName, stay: bool) -> Result<Option<Self>> {
        let members = match (stay, Networks::open(state)?) {
            (true, _) => Some(Networks::open_or_make(state)?.make_folder(name, MEMBERS)?),
            (false, Some(networks)) => networks.folder(name, MEMBERS)?,
            (false, None) => None,
        };
        Ok(members.map(|members| Self {
            name: name.clone(),
            members,
            stay,
            seat: None,
        }))
    }

    /// Returns which network it is.
    pub fn name(&self) -> &NetName {
        &self.name
    }

    /// Waits until nobody else looks or changes anything.
    pub fn alone(&self) -> Result<Alone> {
        // An opening of its own: the lock goes with it.
        let handle = self.members.open_dir(".")?;
        file::lock(&handle, LockKind::Exclusive)?;
        Ok(Alone(handle))
    }

    /// Returns a process in the user namespace of the network, where there is one.
    pub fn users(&self, alone: &Alone) -> Result<Option<OwnedFd>> {
        self.reach(alone, Room::Users, |_, handle| Ok(handle))
    }

    /// Says that this process is in the user namespace of the network, if it stays.
    pub fn sit(&mut self, _alone: &Alone) -> Result<()> {
        if !self.stay {
            return Ok(());
        }
        let seat = Seat::take(&self.members)?;
        seat.say(Room::Users)?;
        self.seat = Some(seat);
        Ok(())
    }

    /// Moves this process, which must have one thread and be root of its user namespace, into the network namespace of
    /// the network, which is made where there is none; returns its seat there, if it stays.
    pub fn enter(mut self) -> Result<Option<Seat>> {
        let alone = self.alone()?;
        // Root of the machine has had no user namespace to find; anybody else has gone into one before, or is in
        // another one now.
        let with_us = match self.seat {
            Some(_) => None,
            None => self.reach(&alone, Room::Users, |member, _| is_with_us(member))?,
        };
        if with_us == Some(false) {
            return Err(Error::OtherUsers {
                name: self.name.to_string(),
            });
        }
        let joined = self.reach(&alone, Room::Network, |_, handle| {
            namespace::join(handle.as_fd(), Namespaces::NET)
        })?;
        if joined.is_none() {
            namespace::own_network_namespace()?;
        }
        let seat = match self.seat.take() {
            None if self.stay => Some(Seat::take(&self.members)?),
            seat => seat,
        };
        seat.as_ref().map(|seat| seat.say(Room::Network)).transpose()?;
        Ok(seat)
    }

    /// Does with a member that is in `room` what is to be done with one, the first that it works with. Seats that nobody
    /// holds are taken away.
    fn reach<T>(
        &self,
        _alone: &Alone,
        room: Room,
        act: impl Fn(Member, OwnedFd) -> SysResult<T>,
    ) -> Result<Option<T>> {
        let begin = Instant::now();
        loop {
            let seats = self.taken()?;
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
                    name: self.name.to_string(),
                    pid: first,
                    failed: refused,
                });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns what the seats say that are held, and takes the others away.
    fn taken(&self) -> SysResult<Vec<Member>> {
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
}

/// Whether a member is in this process's user namespace.
fn is_with_us(member: Member) -> SysResult<bool> {
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
    fn take(members: &Dir) -> SysResult<Self> {
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
    pub fn keep(&self) -> SysResult<()> {
        let alone = self.members.open_dir(".")?;
        file::lock(&alone, LockKind::Exclusive)?;
        self.say(Room::Network)
    }

    /// Takes the seat away, whose process leaves. One that is killed leaves an empty one behind, which the next to come
    /// takes away.
    pub fn leave(&self) {
        let _ = self.members.unlink(&self.name);
    }

    fn say(&self, room: Room) -> SysResult<()> {
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
    fn open(self) -> SysResult<Option<OwnedFd>> {
        let handle = pidfd::open(self.pid)?;
        Ok(handle.filter(|_| pidfd::start_of(self.pid) == Some(self.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(state: &Path) -> Home {
        Home::open(state, &"web".parse().unwrap(), true).unwrap().unwrap()
    }

    #[test]
    fn who_only_looks_makes_nothing() {
        let state = tempfile::tempdir().unwrap();
        let look = || Home::open(state.path(), &"web".parse().unwrap(), false).unwrap();
        assert!(look().is_none());
        assert_eq!(fs_err::read_dir(state.path()).unwrap().count(), 0);
        let member = home(state.path());
        let mut visitor = look().unwrap();
        visitor.sit(&visitor.alone().unwrap()).unwrap();
        assert_eq!(fs_err::read_dir(member.members.path()).unwrap().count(), 0);
    }

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
    fn a_seat_is_found_as_long_as_it_is_held_and_gone_when_it_is_not() {
        let state = tempfile::tempdir().unwrap();
        let (mut first, second) = (home(state.path()), home(state.path()));
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
        let home = home(state.path());
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
