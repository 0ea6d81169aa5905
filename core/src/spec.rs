//! [`RunSpec`]: what a run is to be, made of the image's defaults and what was asked. Pure: nothing is looked up here.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::time::Duration;

use crate::path::{TreePath, shown};
use crate::recipe::{Conf, Network, RunDefaults};

/// How much of the machine the container may take.
pub mod limits;
/// `--mount`, in which every mount can be said.
mod mount;
/// Its network, addresses, names and ports.
pub mod network;
/// What the command may do.
pub mod privileges;
/// Where writes go that are to no volume.
pub mod scratch;
/// What standard input, output and error are.
pub mod streams;
/// How much each of its processes may take.
pub mod ulimit;
/// Users and groups, as asked for and as the image's files name them.
pub mod user;
/// Volumes, folders in memory, other images.
pub mod volume;

use limits::Limits;
use privileges::Privileges;
pub use scratch::ScratchKind;
use streams::Streams;
use user::UserName;
pub use volume::{Extra, ImageMount, Tmpfs, Volume};

/// The host name where neither the image nor the command line gives one.
pub const DEFAULT_HOST_NAME: &str = "mk";
/// Where programs are looked for, where neither the image nor the command line says.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long a program may take to end after it was asked to, before it is killed; only with `--as-pid1`.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What the command line asked for; each overrides what the image says.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Program and arguments; empty: the image's.
    pub command: Vec<OsString>,
    /// `NAME=value`; of two with one name, the later counts.
    pub env: Vec<OsString>,
    /// What standard input, output and error are. The default hands on the caller's own, terminals too; see
    /// [`Streams::decide`].
    pub streams: Streams,
    /// What the caller's terminal is (`TERM`); the command is told where it gets a terminal.
    pub term: Option<OsString>,
    /// Host name.
    pub hostname: Option<String>,
    /// Working directory, absolute.
    pub workdir: Option<OsString>,
    /// `name`, `uid`, `name:group` or `uid:gid`.
    pub user: Option<String>,
    /// The kind of network.
    pub network: Option<Network>,
    /// What is asked of the network besides.
    pub on_network: network::Asked,
    /// Whether nothing may be written but to volumes and tmpfs.
    pub read_only: bool,
    /// Whether the program itself is process 1, without a reaper above it.
    pub as_pid1: bool,
    /// Volumes and tmpfs, in the order in which they were asked for.
    pub mounts: Vec<Extra>,
    /// Where writes go that are to no volume.
    pub scratch: ScratchKind,
    /// Whose ids the container has; `None`: the caller's, unless it may make containers of its own and the caller is root
    /// of the machine.
    pub userns: Option<Userns>,
    /// Whether the caller is in a user namespace other than the machine's first, and so no root of the machine.
    pub in_user_namespace: bool,
    /// How long a program may take to end after it was asked to; left out: ten seconds.
    pub stop_timeout: Option<Duration>,
    /// How much of the machine it may take.
    pub limits: Limits,
    /// What it may do.
    pub privileges: privileges::Asked,
    /// Whether its programs lie at the same addresses each time.
    pub same_addresses: bool,
    /// Whether its processes have higher numbers than those of a new PID namespace, as far as that can be had.
    pub later_pids: bool,
    /// What it reads where its standard input is nothing ([`Stdio::Null`](streams::Stdio::Null)); `None`: just that.
    pub input: Option<Vec<u8>>,
}

/// Whose ids a container has: what its root is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Userns {
    /// The caller's: root is who calls mk.
    #[default]
    Host,
    /// A range that nothing else has: root is nobody.
    Auto,
}

/// What cannot be run as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `-v` with something else than `SOURCE:TARGET[:OPTIONS]`.
    #[error("`{text}` is not a volume: {why}")]
    Volume {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// `--mount` with something else than `type=…,target=…,…`.
    #[error("`{text}` is not a mount: {why}")]
    Mount {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// `--scratch` with something else than `disk`, `tmpfs[:SIZE]` or a path.
    #[error("`{text}` is no place for writes (`tmpfs`, `tmpfs:64m`, `disk` or a path): {why}")]
    Scratch {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// `--tmpfs` with something else than `TARGET[:size=…,mode=…]`.
    #[error("`{text}` is not a tmpfs: {why}, expected `TARGET` or `TARGET:size=64m,mode=0755`")]
    Tmpfs {
        /// As written.
        text: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// A volume whose ids are to be mapped, or not, in a run that has those of its caller.
    #[error(
        "the volume at `{target}` asks whose its files are, and they are the caller's inside and outside: `idmap` and `noidmap` go with `--userns auto`"
    )]
    SameIds {
        /// Where.
        target: TreePath,
    },
    /// A volume with set-user-id bits that are to have an effect, in a run where none can.
    #[error(
        "the volume at `{target}` is to have set-user-id bits, which have no effect without `--allow-new-privileges`"
    )]
    NoNewPrivileges {
        /// Where.
        target: TreePath,
    },
    /// Two mounts at one place.
    #[error("two mounts have the same target `{target}`")]
    SameTarget {
        /// Where.
        target: TreePath,
    },
    /// `-e` with something else than `NAME=value`.
    #[error("`{text}` is not an environment entry: expected `NAME=value`")]
    Env {
        /// As written.
        text: String,
    },
    /// A host name that is none.
    #[error(
        "`{name}` is not a host name: expected 1 to 64 letters, digits, dots and hyphens, no hyphen at either end"
    )]
    HostName {
        /// As written.
        name: String,
    },
    /// A working directory that is not absolute.
    #[error("`{path}` is not a working directory: expected an absolute path")]
    Workdir {
        /// As written.
        path: String,
    },
    /// Containers in a container, whose root is root of the machine.
    #[error(
        "`--userns host` does not go with nesting, which is to give no power over the machine: `--privileged` gives that"
    )]
    NestingOfHost,
    /// Privileges that contradict each other.
    #[error(transparent)]
    Privileges(#[from] privileges::Error),
    /// Something is asked of the network that it cannot have.
    #[error(transparent)]
    Network(#[from] network::Pointless),
    /// A user or group that is neither a name nor a number.
    #[error(transparent)]
    User(#[from] user::BadUser),
    /// Text that cannot reach a program.
    #[error("{what} holds a NUL byte: `{text}`")]
    Nul {
        /// What it is, such as `an argument`.
        what: &'static str,
        /// The text.
        text: String,
    },
}

/// What a run is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// Program and arguments; at least one.
    pub command: Vec<OsString>,
    /// Environment by name, without `HOME` where only the image's passwd knows it.
    pub env: BTreeMap<OsString, OsString>,
    /// What standard input, output and error are.
    pub streams: Streams,
    /// Host name.
    pub hostname: String,
    /// What the image says of its three files in `/etc`.
    pub conf: Conf,
    /// Whether `/etc/hosts` and `/etc/hostname` differ from those that the store keeps.
    pub renamed: bool,
    /// Working directory.
    pub workdir: OsString,
    /// Who runs it.
    pub user: UserName,
    /// The network.
    pub network: network::Wanted,
    /// Whether nothing may be written but to volumes and tmpfs.
    pub read_only: bool,
    /// Whether the program itself is process 1.
    pub as_pid1: bool,
    /// Volumes and tmpfs; one that lies below another comes after it.
    pub mounts: Vec<Extra>,
    /// Where writes go that are to no volume.
    pub scratch: ScratchKind,
    /// Whose ids the container has.
    pub userns: Userns,
    /// How long a program at process 1 may take to end after it was asked to.
    pub stop_timeout: Duration,
    /// How much of the machine it may take.
    pub limits: Limits,
    /// What it may do.
    pub privileges: Privileges,
    /// Whether its programs lie at the same addresses each time.
    pub same_addresses: bool,
    /// Whether its processes have higher numbers than those of a new PID namespace, as far as that can be had.
    pub later_pids: bool,
    /// What it reads where its standard input is nothing; `None`: just that.
    pub input: Option<Vec<u8>>,
}

impl RunSpec {
    /// Returns the run that `asked` asks for, of an image with these `defaults` and this `conf`.
    pub fn new(defaults: &RunDefaults, conf: &Conf, asked: Asked) -> Result<Self, Error> {
        let image_name = conf.hostname.as_deref().unwrap_or(DEFAULT_HOST_NAME);
        let hostname = match asked.hostname {
            Some(name) => check_host_name(name)?,
            None => image_name.to_owned(),
        };
        // Whoever gives all that they have is not given less by what the image asks for.
        let image_asks = defaults.nesting && !asked.privileges.privileged;
        let nesting = asked.privileges.nesting.unwrap_or(image_asks);
        let userns = userns(asked.userns, nesting, asked.in_user_namespace)?;
        let privileges = Privileges::new(privileges::Asked {
            nesting: Some(nesting),
            ..asked.privileges
        })?;
        let network = network::Wanted {
            kind: asked
                .network
                .or_else(|| defaults.network.clone())
                .unwrap_or_default(),
            asked: asked.on_network,
        };
        network.asked.check(&network.kind)?;
        let user = asked.user.as_deref().or(defaults.user.as_deref()).unwrap_or("0");
        Ok(Self {
            command: command(defaults, asked.command)?,
            env: environment(
                defaults,
                &hostname,
                asked.term.filter(|_| asked.streams.terminal.is_some()),
                asked.env,
            )?,
            streams: asked.streams,
            renamed: hostname != image_name,
            hostname,
            conf: conf.clone(),
            workdir: workdir(asked.workdir, defaults)?,
            user: UserName::parse(user)?,
            network,
            read_only: asked.read_only,
            as_pid1: asked.as_pid1,
            mounts: in_order(check_powers(asked.mounts, userns, &privileges)?)?,
            scratch: asked.scratch,
            userns,
            stop_timeout: asked.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
            limits: asked.limits,
            privileges,
            same_addresses: asked.same_addresses,
            later_pids: asked.later_pids,
            input: asked.input,
        })
    }
}

/// Whose ids a container has. One in which others are made may mount and change networks, and only ids of its own keep
/// that from being power over the machine; who is not root of the machine has no such power to keep.
fn userns(asked: Option<Userns>, nesting: bool, in_user_namespace: bool) -> Result<Userns, Error> {
    match asked {
        Some(Userns::Host) if nesting && !in_user_namespace => Err(Error::NestingOfHost),
        Some(asked) => Ok(asked),
        None if nesting && !in_user_namespace => Ok(Userns::Auto),
        None => Ok(Userns::Host),
    }
}

fn command(defaults: &RunDefaults, asked: Vec<OsString>) -> Result<Vec<OsString>, Error> {
    let mut command = asked;
    if command.is_empty() {
        command = defaults.command.iter().map(OsString::from).collect();
    }
    if command.is_empty() {
        command = vec!["/bin/sh".into()];
    }
    for text in &command {
        no_nul("an argument", text)?;
    }
    Ok(command)
}

fn workdir(asked: Option<OsString>, defaults: &RunDefaults) -> Result<OsString, Error> {
    let path = asked.unwrap_or_else(|| defaults.workdir.as_deref().unwrap_or("/").into());
    if !path.as_bytes().starts_with(b"/") {
        return Err(Error::Workdir {
            path: shown(path.as_bytes()),
        });
    }
    no_nul("the working directory", &path)?;
    Ok(path)
}

fn no_nul(what: &'static str, text: &OsStr) -> Result<(), Error> {
    match text.as_bytes().contains(&0) {
        true => Err(Error::Nul {
            what,
            text: shown(text.as_bytes()),
        }),
        false => Ok(()),
    }
}

/// Nothing of the caller's environment is in it: the image's, the few that a program may count on, what was asked.
fn environment(
    defaults: &RunDefaults,
    hostname: &str,
    term: Option<OsString>,
    asked: Vec<OsString>,
) -> Result<BTreeMap<OsString, OsString>, Error> {
    let mut env: BTreeMap<OsString, OsString> = BTreeMap::new();
    env.insert("PATH".into(), DEFAULT_PATH.into());
    env.insert("HOSTNAME".into(), hostname.into());
    if let Some(term) = term {
        env.insert("TERM".into(), term);
    }
    env.extend(
        defaults
            .env
            .iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    for entry in asked {
        let bytes = entry.as_bytes();
        let cut = bytes.iter().position(|&byte| byte == b'=').filter(|&cut| cut > 0);
        let Some(cut) = cut else {
            return Err(Error::Env { text: shown(bytes) });
        };
        env.insert(
            OsString::from_vec(bytes[..cut].to_vec()),
            OsString::from_vec(bytes[cut + 1..].to_vec()),
        );
    }
    for (name, value) in &env {
        no_nul("an environment name", name)?;
        no_nul("an environment entry", value)?;
    }
    Ok(env)
}

/// Refuses options of volumes that could have no effect in this run: whose the files are is a question only where the
/// container's ids are not the caller's, and a set-user-id bit gives nothing to a command that can be given nothing.
fn check_powers(mounts: Vec<Extra>, userns: Userns, privileges: &Privileges) -> Result<Vec<Extra>, Error> {
    for extra in &mounts {
        let Extra::Volume(volume) = extra else { continue };
        let target = || volume.target.clone();
        if volume.options.idmap.is_some() && userns == Userns::Host {
            return Err(Error::SameIds { target: target() });
        }
        if volume.options.suid && !privileges.new_privileges {
            return Err(Error::NoNewPrivileges { target: target() });
        }
    }
    Ok(mounts)
}

/// What lies above comes first, whatever the order asked: `-v a:/x/y -v b:/x` would otherwise hide `a`.
fn in_order(mut mounts: Vec<Extra>) -> Result<Vec<Extra>, Error> {
    mounts.sort_by_key(|extra| extra.target().names().count());
    let mut targets: Vec<&TreePath> = mounts.iter().map(Extra::target).collect();
    targets.sort();
    if let Some(pair) = targets.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::SameTarget {
            target: pair[0].clone(),
        });
    }
    Ok(mounts)
}

/// Accepts what hostname(7) allows; the kernel takes at most 64 bytes.
fn check_host_name(name: String) -> Result<String, Error> {
    let letters = name
        .bytes()
        .all(|letter| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'.');
    let edges = name.starts_with(['-', '.']) || name.ends_with(['-', '.']);
    if name.is_empty() || name.len() > 64 || !letters || edges {
        return Err(Error::HostName {
            name: shown(name.as_bytes()),
        });
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_the_machine_makes_containers_in_containers_with_ids_of_their_own() {
        let image = |nesting| RunDefaults {
            nesting,
            ..RunDefaults::default()
        };
        let spec = |image_asks, asks, userns, in_user_namespace| {
            let asked = Asked {
                userns,
                in_user_namespace,
                privileges: privileges::Asked {
                    nesting: asks,
                    ..privileges::Asked::default()
                },
                ..Asked::default()
            };
            let spec = RunSpec::new(&image(image_asks), &Conf::default(), asked)?;
            Ok((spec.userns, spec.privileges.open_views))
        };
        let (host, auto) = (Some(Userns::Host), Some(Userns::Auto));
        for (asked, found) in [
            // What the image asks for, what the command line does, whose ids, and who calls.
            ((false, None, None, false), Ok((Userns::Host, false))),
            ((true, None, None, false), Ok((Userns::Auto, true))),
            ((true, None, None, true), Ok((Userns::Host, true))),
            ((true, Some(false), None, false), Ok((Userns::Host, false))),
            ((false, Some(true), None, false), Ok((Userns::Auto, true))),
            ((true, None, auto, false), Ok((Userns::Auto, true))),
            ((true, None, host, true), Ok((Userns::Host, true))),
            ((true, None, host, false), Err(Error::NestingOfHost)),
        ] {
            let (image, asks, userns, inside) = asked;
            assert_eq!(spec(image, asks, userns, inside), found, "{asked:?}");
        }
        let privileged = Asked {
            privileges: privileges::Asked {
                privileged: true,
                ..privileges::Asked::default()
            },
            ..Asked::default()
        };
        let spec = RunSpec::new(&image(true), &Conf::default(), privileged).unwrap();
        assert_eq!(spec.userns, Userns::Host);
    }

    fn spec(asked: Asked) -> Result<RunSpec, Error> {
        let defaults = RunDefaults {
            command: vec!["/bin/serve".into()],
            env: BTreeMap::from([("LANG".into(), "C".into())]),
            workdir: Some("/srv".into()),
            user: Some("app".into()),
            network: Some(Network::Host),
            nesting: false,
        };
        let conf = Conf {
            hostname: Some("box".into()),
            ..Conf::default()
        };
        RunSpec::new(&defaults, &conf, asked)
    }

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    #[test]
    fn an_empty_recipe_runs_a_shell_as_root_in_the_root() {
        let spec = RunSpec::new(&RunDefaults::default(), &Conf::default(), Asked::default()).unwrap();
        assert_eq!(spec.command, ["/bin/sh"]);
        assert_eq!((spec.hostname.as_str(), spec.renamed), ("mk", false));
        assert_eq!(spec.workdir, "/");
        assert_eq!(spec.network.kind, Network::None);
        let env: Vec<_> = spec.env.keys().map(|name| name.to_str().unwrap()).collect();
        assert_eq!(env, ["HOSTNAME", "PATH"]);
    }

    #[test]
    fn the_command_line_overrides_the_image() {
        let defaults = spec(Asked::default()).unwrap();
        assert_eq!(defaults.command, ["/bin/serve"]);
        assert_eq!(defaults.network.kind, Network::Host);
        let asked = Asked {
            command: vec!["ls".into()],
            env: vec!["LANG=de".into(), "EMPTY=".into(), "URL=a=b".into()],
            hostname: Some("other".into()),
            workdir: Some("/tmp".into()),
            network: Some(Network::None),
            ..Asked::default()
        };
        let spec = spec(asked).unwrap();
        assert_eq!(spec.command, ["ls"]);
        assert!(spec.renamed);
        assert_eq!(spec.env[OsStr::new("LANG")], "de");
        assert_eq!(spec.env[OsStr::new("EMPTY")], "");
        assert_eq!(spec.env[OsStr::new("URL")], "a=b");
        assert_eq!(spec.env[OsStr::new("HOSTNAME")], "other");
        assert_eq!(spec.network.kind, Network::None);
    }

    #[test]
    fn an_entry_without_a_value_is_no_import_from_the_host() {
        for entry in ["HOME", "=x", ""] {
            let asked = Asked {
                env: vec![entry.into()],
                ..Asked::default()
            };
            assert!(
                matches!(spec(asked), Err(Error::Env { .. })),
                "{entry:?} was accepted"
            );
        }
    }

    #[test]
    fn what_lies_above_is_mounted_first() {
        let volume = |text: &str| Extra::Volume(Volume::parse(OsStr::new(text)).unwrap());
        let asked = Asked {
            mounts: vec![volume("/b:/x/y"), volume("/c:/z"), volume("/a:/x")],
            ..Asked::default()
        };
        let targets: Vec<_> = spec(asked)
            .unwrap()
            .mounts
            .iter()
            .map(|m| m.target().to_string())
            .collect();
        assert_eq!(targets, ["/z", "/x", "/x/y"]);
        let twice = Asked {
            mounts: vec![volume("/a:/x"), volume("/b:/x/")],
            ..Asked::default()
        };
        assert_eq!(spec(twice), Err(Error::SameTarget { target: path("x") }));
    }

    #[test]
    fn an_option_that_could_have_no_effect_is_refused() {
        for (options, userns, fits) in [
            ("ro", Userns::Host, true),
            ("idmap", Userns::Host, false),
            ("noidmap", Userns::Host, false),
            ("idmap", Userns::Auto, true),
            ("noidmap", Userns::Auto, true),
            ("suid", Userns::Host, false),
            ("dev", Userns::Host, true),
        ] {
            let volume = Volume::parse(OsStr::new(&format!("/a:/b:{options}"))).unwrap();
            let asked = Asked {
                mounts: vec![Extra::Volume(volume)],
                userns: Some(userns),
                ..Asked::default()
            };
            assert_eq!(spec(asked).is_ok(), fits, "{options} {userns:?}");
        }
    }

    #[test]
    fn host_names_that_are_none_are_refused() {
        let long = "a".repeat(65);
        for name in ["", "-a", "a-", "a b", "a\nb", "ä", &long, ".a"] {
            let asked = Asked {
                hostname: Some(name.into()),
                ..Asked::default()
            };
            assert!(
                matches!(spec(asked), Err(Error::HostName { .. })),
                "{name:?} was accepted"
            );
        }
    }

    #[test]
    fn a_working_directory_is_absolute() {
        let asked = Asked {
            workdir: Some("srv".into()),
            ..Asked::default()
        };
        assert_eq!(
            spec(asked).unwrap_err().to_string(),
            "`srv` is not a working directory: expected an absolute path"
        );
    }
}
