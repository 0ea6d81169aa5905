//! Image + RunSpec → exit status: looks up what the run needs, decides its mounts, and enters.

use std::ffi::CStr;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::cgroup;
use crate::container::Own;
use crate::container::monitor::{self, Start};
use crate::mounts::Table;
use crate::mounts::mapped;
use crate::mounts::table::{Facts, table};
use crate::net::private::Seat;
use crate::net::{self, Member, user};
use crate::process::idmap::Mapped;
use crate::process::pool::{self, Taken};
use crate::process::rlimit::Rlimits;
use crate::process::{self, Foreign, Output, Prepared, prepare};
use crate::recipe::Network;
use crate::rootfs::attach::{self, Which};
use crate::rootfs::capture::Notes;
use crate::rootfs::kept::{Fit, Kept};
use crate::rootfs::scratch::Scratch;
use crate::rootfs::{self, Rootfs};
use crate::spec::limits::{Memory, OomScore};
use crate::spec::streams::Streams;
use crate::spec::user::{Identity, Unknown};
use crate::spec::volume::Source;
use crate::spec::{Extra, RunSpec, ScratchKind, Userns};
use crate::store::{Image, ImageId, Owners, Store};
use crate::sys::namespace::{self, Namespaces};
use crate::sys::process::Ending;
use crate::sys::{SysError, place, probe};

mod etc;
/// What the command may do, and what stands in the way of it.
pub mod grant;
/// The run's network.
pub mod network;
/// A container whose network is shared.
pub mod partner;

pub use grant::Grant;
pub use partner::Partner;

use etc::Texts;

/// A run that did not come about.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source of a volume is not there.
    #[error("the volume's source `{}` does not exist", .source_path.display())]
    MissingSource {
        /// As written.
        source_path: PathBuf,
    },
    /// The source of a volume cannot be looked at.
    #[error("cannot use `{}` as a volume", .source_path.display())]
    Source {
        /// As written.
        source_path: PathBuf,
        /// Why.
        #[source]
        failed: io::Error,
    },
    /// A missing source could not be made.
    #[error("cannot make the volume's source `{}`", .source_path.display())]
    Create {
        /// As seen from the root.
        source_path: PathBuf,
        /// Why.
        #[source]
        failed: io::Error,
    },
    /// What the store was to give besides the image.
    #[error(transparent)]
    Attach(#[from] attach::Error),
    /// The run shows something of the store that was never looked up.
    #[error("`{called}` was not looked up in the store")]
    Unattached {
        /// What.
        called: String,
    },
    /// Ids of its own for the container of one who is not root of the machine.
    #[error(
        "`--userns auto` is for root of the machine: every other run is in a user namespace already, whose root is the caller"
    )]
    NotRoot,
    /// Ids of its own for a container, where the kernel cannot show the image with them.
    #[error("`--userns auto` takes Linux {}.{} or newer, and this is {release}", OWN_IDS.0, OWN_IDS.1)]
    NoMappedLayers {
        /// What the kernel calls itself.
        release: String,
    },
    /// The network namespace belongs to somebody else.
    #[error("cannot make the network `{kind}`: only root of the machine may change the host's network")]
    HostsNetwork {
        /// Which one.
        kind: Network,
    },
    /// The network cannot be made, or has no place.
    #[error(transparent)]
    Network(#[from] net::Error),
    /// The caller's network cannot be lent.
    #[error(transparent)]
    Uplink(#[from] user::Error),
    /// A namespace of others cannot be joined.
    #[error(transparent)]
    Namespace(#[from] net::namespace::Error),
    /// The network of a container cannot be shared.
    #[error(transparent)]
    Partner(#[from] partner::Error),
    /// Nobody has looked the container up whose network is to be shared.
    #[error("the container `{called}` was not looked up")]
    NoPartner {
        /// What it is called.
        called: String,
    },
    /// Ids of its own for a container on a network of others.
    #[error(
        "`--userns auto` does not go with the network `{kind}`: whose ids are its own has no rights there"
    )]
    OwnIds {
        /// The kind of network.
        kind: Network,
    },
    /// No ids are free.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// Something cannot be shown with its ids mapped.
    #[error(transparent)]
    Mapped(#[from] mapped::Error),
    /// The image does not know the user or the group.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// A file that says who is who cannot be read.
    #[error("cannot read the image's `/{}`", .path.to_string_lossy())]
    Accounts {
        /// Which one.
        path: &'static CStr,
        /// Why.
        #[source]
        failed: SysError,
    },
    /// The user namespace has no such user or group.
    #[error("cannot run as {what} {id}: mk runs with {}", ids(*.single))]
    NotMapped {
        /// `user` or `group`.
        what: &'static str,
        /// The id.
        id: u32,
        /// Whether root is the only one there is.
        single: bool,
    },
    /// The image's folders cannot be looked at.
    #[error("cannot look at the image's files")]
    Image(#[source] SysError),
    /// The folder that the run's scratch is mounted on cannot be made.
    #[error("cannot make the store's folder for writable layers")]
    Scratch(#[source] io::Error),
    /// A limit cannot be set.
    #[error(transparent)]
    Limits(#[from] cgroup::Error),
    /// The command cannot be given what was asked for.
    #[error(transparent)]
    Grant(#[from] grant::Error),
    /// The container was not started.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The container could not be looked after.
    #[error(transparent)]
    Monitor(monitor::Error),
}

/// What fails with a monitor fails as without one, where that can be.
impl From<monitor::Error> for Error {
    fn from(error: monitor::Error) -> Self {
        match error {
            monitor::Error::Run(error) => Self::Process(error),
            monitor::Error::Limits(error) => Self::Limits(error),
            other => Self::Monitor(other),
        }
    }
}

/// The oldest kernel whose overlayfs takes layers with mapped ids.
const OWN_IDS: (u32, u32) = (5, 19);

fn ids(single: bool) -> &'static str {
    match single {
        true => "a single id, root's: this user has no subordinate ids",
        false => "the subordinate ids of this user, and that is not one of them",
    }
}

impl Error {
    /// Returns the exit code of `mk run` that tells of it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Process(error) => error.exit_code(),
            Self::Monitor(error) => error.exit_code(),
            _ => process::exit::MK_FAILED,
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How the command ended.
    pub ending: Ending,
    /// The limit of memory, where the container reached it and the kernel killed it for that.
    pub out_of_memory: Option<Memory>,
}

impl Ended {
    /// Returns the exit code that a shell would show for it.
    pub fn exit_code(self) -> u8 {
        process::exit::code(self.ending)
    }
}

/// A run decided on, and nothing done yet. Its `Display` is what `mk run --dry-run` prints.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces of the container's own.
    pub namespaces: Namespaces,
    /// What is mounted.
    pub table: Table,
    /// Who runs the command.
    pub identity: Identity,
    /// What is limited for the container as a whole.
    pub cgroups: Option<cgroup::Plan>,
    /// What is limited for each of its processes.
    pub rlimits: Rlimits,
    /// What standard input, output and error are.
    pub streams: Streams,
    oom_score: Option<OomScore>,
    /// What the command may do.
    pub grant: Grant,
    set_groups: bool,
    scratch: Scratch,
    /// Folders of the host that are to be made.
    create: Vec<PathBuf>,
    userns: Userns,
    /// The ids that the container has of its own.
    taken: Option<Taken>,
    place: network::Place,
    /// The helper that connects it.
    uplink: Option<user::Uplink>,
    /// The network namespace of others that it goes into, and what that is called.
    joined: Option<(OwnedFd, String)>,
    /// Where the container is whose network it shares.
    member: Member,
    /// Whether the host asks name servers, and only such as the container does not reach.
    pub asks_nobody: bool,
    /// What its own three files of `/etc` say, where it has some.
    texts: Option<Texts>,
    /// This process's place in the namespaces of its private network.
    seat: Option<Seat>,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "namespaces {}", self.namespaces)?;
        if self.userns == Userns::Auto {
            writeln!(f, "ids 0-{} -> as many that nothing else has", pool::IDS - 1)?;
        }
        if let Some(uplink) = &self.uplink {
            writeln!(f, "network {uplink}")?;
        }
        if let Some(cgroups) = &self.cgroups {
            write!(f, "{cgroups}")?;
        }
        for limit in &self.rlimits.settled {
            writeln!(f, "ulimit {limit}")?;
        }
        if let Some(score) = self.oom_score {
            writeln!(f, "oom_score_adj {score}")?;
        }
        if self.streams != Streams::default() {
            writeln!(f, "{}", self.streams)?;
        }
        if let network::Place::Decided(place) = &self.place {
            write!(f, "{place}")?;
        }
        write!(f, "{}{}", self.grant, self.table)
    }
}

/// Makes what a decided run of the image `id` wants of `store` and is not there yet: volumes, and a folder for its
/// writes.
pub fn furnish(
    rootfs: &mut Rootfs,
    store: &Store,
    (id, image): (&ImageId, &Image),
    spec: &RunSpec,
) -> Result<(), Error> {
    rootfs.make_volumes(store, id, &spec.mounts)?;
    if matches!(spec.scratch, ScratchKind::Memory { .. }) {
        return Ok(());
    }
    let outside = Mapped::look().map_err(Error::Image)?;
    let mapped = container_ids(spec)?;
    let fit = Fit {
        tree: image.tree,
        owners: match (outside.first, outside.has_groups()) {
            (true, _) => Owners::Native,
            (false, true) => Owners::Subordinate,
            (false, false) => Owners::Single,
        },
        notes: match mapped.first {
            true => Notes::Trusted,
            false => Notes::User,
        },
    };
    let named = |uid, gid| mapped.has_uid(uid) && mapped.has_gid(gid);
    Ok(rootfs.attach_scratch(store, &spec.scratch, &fit, named)?)
}

/// Decides how `spec` is run on `rootfs`, to which all was attached that it asks for, with the network of `partner` where it
/// shares one; this process must be root of its user namespace.
pub fn plan(rootfs: &Rootfs, spec: &RunSpec, mut partner: Option<Partner>) -> Result<Plan, Error> {
    let uplink = match &spec.network.kind {
        Network::User => Some(user::Uplink::decide(&spec.network.asked)?),
        _ => None,
    };
    let mapped = container_ids(spec)?;
    let own_ids = spec.userns == Userns::Auto;
    let tree = rootfs.tree_path();
    let identity = identity(&tree, spec, &mapped)?;
    let texts = Texts::look(spec, partner.as_ref());
    let joined = joined(spec, &mut partner)?;
    let Sources { found, create } = Sources::look(rootfs, spec)?;
    let facts = Facts {
        in_user_namespace: !mapped.first,
        has_terminal_group: mapped.has_gid(5),
        own_conf: texts.is_some(),
        host_network: joined.is_none() && !spec.network.kind.is_own(),
        sources: found,
        foreign_ids: own_ids,
    };
    let mut scratch = Scratch::for_tree(&tree, texts.is_some().then(Vec::new)).map_err(Error::Image)?;
    scratch.aim(&spec.scratch, own_ids);
    scratch.keep_owners(|uid, gid| mapped.has_uid(uid) && mapped.has_gid(gid));
    Ok(Plan {
        namespaces: match own_ids {
            true => prepare::namespaces(&spec.network.kind).with(Namespaces::USER),
            false => prepare::namespaces(&spec.network.kind),
        },
        table: table(rootfs, spec, &facts),
        cgroups: cgroup::Plan::new(&spec.limits)?,
        rlimits: Rlimits::decide(&spec.limits.ulimits, own_ids).map_err(process::Error::Sys)?,
        streams: spec.streams,
        oom_score: spec.limits.oom_score,
        grant: Grant::decide(&spec.privileges, identity.uid)?,
        identity,
        set_groups: mapped.has_groups(),
        scratch,
        create,
        userns: spec.userns,
        taken: None,
        place: network::Place::of(&spec.network.kind),
        uplink,
        joined,
        member: partner.map(|partner| partner.member).unwrap_or_default(),
        asks_nobody: texts.as_ref().is_some_and(|texts| texts.asks_nobody),
        texts,
        seat: None,
    })
}

/// Returns the network namespace of others that `spec` asks for, where that is not the one that this process is in.
fn joined(spec: &RunSpec, partner: &mut Option<Partner>) -> Result<Option<(OwnedFd, String)>, Error> {
    let kind = &spec.network.kind;
    let file = match kind {
        Network::Namespace(name) => Some(net::namespace::open(name)?),
        Network::Container(called) => match partner {
            Some(partner) => partner.network.take(),
            None => {
                return Err(Error::NoPartner {
                    called: called.clone(),
                });
            }
        },
        _ => None,
    };
    match file {
        Some(_) if spec.userns == Userns::Auto => Err(Error::OwnIds { kind: kind.clone() }),
        file => Ok(file.map(|file| (file, kind.to_string()))),
    }
}

/// Whether this process is in a user namespace other than the machine's first, and so no root of the machine.
pub fn in_user_namespace() -> Result<bool, Error> {
    Ok(!Mapped::look().map_err(Error::Image)?.first)
}

/// Returns the ids that there are in the container: the caller's, or some of its own.
fn container_ids(spec: &RunSpec) -> Result<Mapped, Error> {
    let outside = Mapped::look().map_err(Error::Image)?;
    if spec.userns == Userns::Host {
        return Ok(outside);
    }
    if !outside.first {
        return Err(Error::NotRoot);
    }
    let release = probe::release();
    match probe::version(&release) {
        Some(found) if found < OWN_IDS => Err(Error::NoMappedLayers { release }),
        _ => Ok(Mapped::own(pool::IDS)),
    }
}

impl Plan {
    /// Takes ids that nothing else has, where the container is to have some of its own.
    pub fn take_ids(&mut self) -> Result<(), Error> {
        if self.userns == Userns::Auto {
            self.taken = Some(Taken::new()?);
        }
        Ok(())
    }
}

/// Makes what a container with the ids `taken` mounts, and could not name.
fn foreign(rootfs: &Rootfs, table: &Table, taken: Taken) -> Result<Foreign, Error> {
    let userns = namespace::user_namespace(&taken.map()).map_err(process::Error::Sys)?;
    let store = std::path::absolute(&rootfs.store).map_err(Error::Scratch)?;
    let disk = rootfs.kept.as_ref().map(Kept::path);
    let handles = mapped::open(table, &store, disk, userns.as_fd())?;
    if let (Some(disk), Some(kept)) = (&handles.disk, &rootfs.kept) {
        place::must_be(disk.as_fd(), kept.inode()).map_err(process::Error::Sys)?;
    }
    Ok(Foreign { taken, handles })
}

/// Runs `spec` on `rootfs` and waits for its end; this process must be root of its user namespace, with one thread.
pub fn run(rootfs: Rootfs, spec: &RunSpec) -> Result<Ended, Error> {
    let plan = plan(&rootfs, spec, None)?;
    carry_out(rootfs, spec, plan)
}

/// Carries `plan` out, which was made of the same `rootfs` and `spec`.
pub fn carry_out(rootfs: Rootfs, spec: &RunSpec, plan: Plan) -> Result<Ended, Error> {
    carry_out_telling(rootfs, spec, plan, &mut ())
}

/// Carries `plan` out; `output` gets what the command prints, where that does not go to files of the caller's.
pub fn carry_out_telling(
    rootfs: Rootfs,
    spec: &RunSpec,
    plan: Plan,
    output: &mut dyn Output,
) -> Result<Ended, Error> {
    let Start { ready, cgroups } = prepare(rootfs, spec, plan)?;
    let cgroups = match &cgroups {
        Some(plan) => Some(Rc::new(cgroup::Groups::new(plan)?)),
        None => None,
    };
    let child = process::spawn(ready.within(cgroups.clone()))?;
    let ending = child.wait(output)?;
    let exhausted = cgroups.is_some_and(|groups| groups.out_of_memory());
    Ok(Ended {
        ending,
        out_of_memory: spec.limits.memory.filter(|_| exhausted),
    })
}

/// Makes the container that `start` was made ready for of `spec`, and keeps its folder until it has ended.
pub fn attend(own: Own, spec: &RunSpec, start: Start) -> Result<Ended, Error> {
    let ended = monitor::attend(own, start)?;
    Ok(Ended {
        ending: ended.ending,
        out_of_memory: spec.limits.memory.filter(|_| ended.out_of_memory),
    })
}

/// Makes all ready that `plan` needs, which was made of the same `rootfs` and `spec`.
pub fn prepare(rootfs: Rootfs, spec: &RunSpec, mut plan: Plan) -> Result<Start, Error> {
    let connection = std::mem::take(&mut plan.place).taken()?;
    make_scratch_folder(&rootfs.store).map_err(Error::Scratch)?;
    match (&spec.scratch, &rootfs.kept) {
        (ScratchKind::Memory { .. }, _) => {}
        (_, Some(kept)) => plan.scratch.write_to(kept),
        (kind, None) => {
            return Err(Error::Unattached {
                called: kind.to_string(),
            });
        }
    }
    for source_path in plan.create {
        fs_err::create_dir_all(&source_path).map_err(|failed| Error::Create { source_path, failed })?;
    }
    let foreign = match plan.taken.take() {
        Some(taken) => Some(foreign(&rootfs, &plan.table, taken)?),
        None if plan.userns == Userns::Auto => {
            return Err(Error::Unattached {
                called: "a range of ids".into(),
            });
        }
        None => None,
    };
    let member = match &connection {
        Some(connection) => connection.member(),
        None => plan.member,
    };
    let mut names = None;
    if let Some(texts) = plan.texts.take() {
        let (files, live) = texts.files(spec, &member);
        plan.scratch.fill_conf(files);
        names = live;
    }
    let ready = Prepared::new(
        rootfs,
        spec,
        plan.table,
        plan.scratch,
        &plan.identity,
        plan.grant.granted,
        plan.set_groups,
    )?;
    let ready = match foreign {
        Some(foreign) => ready.with_ids(foreign)?,
        None => ready,
    };
    let ready = ready.joining(plan.joined).known_as(member, names);
    let ready = match connection {
        Some(connection) => ready.on_network(connection),
        None => ready,
    };
    Ok(Start {
        ready: ready.connected(plan.uplink).seated(plan.seat),
        cgroups: plan.cgroups,
    })
}

fn make_scratch_folder(store: &Path) -> io::Result<()> {
    match fs_err::create_dir(rootfs::scratch_path(store)) {
        Err(refused) if refused.kind() != io::ErrorKind::AlreadyExists => Err(refused),
        _ => Ok(()),
    }
}

/// Where the volumes and images of a run are.
#[derive(Debug, Default)]
struct Sources {
    /// Of each in order: its place, and whether that is a folder.
    found: Vec<(PathBuf, bool)>,
    /// Folders of the host that are missing and wanted.
    create: Vec<PathBuf>,
}

impl Sources {
    fn look(rootfs: &Rootfs, spec: &RunSpec) -> Result<Self, Error> {
        let mut sources = Self::default();
        for extra in &spec.mounts {
            let found = match extra {
                Extra::Volume(volume) => match &volume.source {
                    Source::Path(path) => sources.of_host(path, volume.options.create)?,
                    Source::Named { name, .. } => in_store(rootfs, &Which::Volume(name.clone()))?,
                },
                Extra::Image(image) => in_store(rootfs, &Which::Image(image.image.clone()))?,
                Extra::Tmpfs(_) => continue,
            };
            sources.found.push(found);
        }
        Ok(sources)
    }

    fn of_host(&mut self, source: &Path, create: bool) -> Result<(PathBuf, bool), Error> {
        let failed = |failed: io::Error| Error::Source {
            source_path: source.to_owned(),
            failed,
        };
        let path = std::path::absolute(source).map_err(failed)?;
        match fs_err::metadata(source) {
            Ok(found) => Ok((path, found.is_dir())),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound && create => {
                self.create.push(path.clone());
                Ok((path, true))
            }
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Err(Error::MissingSource {
                source_path: source.to_owned(),
            }),
            Err(other) => Err(failed(other)),
        }
    }
}

fn in_store(rootfs: &Rootfs, which: &Which) -> Result<(PathBuf, bool), Error> {
    match rootfs.others.iter().find(|other| other.which == *which) {
        Some(other) => Ok((other.path.clone(), true)),
        None => Err(Error::Unattached {
            called: match which {
                Which::Volume(name) | Which::Image(name) => name.clone(),
            },
        }),
    }
}

/// The most that a file which says who is who may hold, in bytes.
const MOST_ACCOUNTS: usize = 1 << 20;

fn identity(tree: &Path, spec: &RunSpec, mapped: &Mapped) -> Result<Identity, Error> {
    let folder = place::open_folder(tree).map_err(Error::Image)?;
    let read = |path: &'static CStr| {
        place::read_regular(folder.as_fd(), path, MOST_ACCOUNTS)
            .map(Option::unwrap_or_default)
            .map_err(|failed| Error::Accounts { path, failed })
    };
    let mut identity = spec.user.resolve(&read(c"etc/passwd")?, &read(c"etc/group")?)?;
    let refuse = |what, id| Error::NotMapped {
        what,
        id,
        single: !mapped.has_groups(),
    };
    if !mapped.has_uid(identity.uid) {
        return Err(refuse("user", identity.uid));
    }
    if !mapped.has_gid(identity.gid) {
        return Err(refuse("group", identity.gid));
    }
    identity.groups.retain(|&gid| mapped.has_gid(gid));
    Ok(identity)
}
