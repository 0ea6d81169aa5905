//! [`Program`]: what the command becomes, once it stands in the container: where it starts, as whom, with what. A run
//! and whoever joins one end in the same calls.
//!
//! [`Program::new`] allocates and fails politely; the methods after it are called in the child, and keep to the stack.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;

use super::Error;
use super::exit::{At, Fault, Step};
use super::rlimit::Rlimits;
use crate::path::shown;
use crate::spec::privileges::Granted;
use crate::spec::streams::Streams;
use crate::spec::user::Identity;
use crate::spec::{RunSpec, Userns};
use crate::sys::process::{self, CStrings, CapabilitySet};
use crate::sys::signal::{self, SignalSet};
use crate::sys::{Errno, SysError, place};

/// A command ready to be executed.
#[derive(Debug)]
pub struct Program {
    pub(super) workdir: CString,
    pub(super) granted: Granted,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// `None` where the user namespace does not let anyone set groups.
    pub(super) groups: Option<Vec<u32>>,
    pub(super) candidates: Vec<CString>,
    pub(super) arguments: CStrings,
    pub(super) environment: CStrings,
    /// What its standard input, output and error are.
    pub(super) streams: Streams,
    /// Signals that mk does not pass on, because whoever started it has them ignored.
    pub(super) ignored: SignalSet,
    pub(super) rlimits: Rlimits,
    pub(super) oom_score: Option<CString>,
    /// Whether its programs lie at the same addresses each time.
    pub(super) same_addresses: bool,
    /// Whether its processes have higher numbers than those of a new PID namespace.
    pub(super) later_pids: bool,
    /// What it reads where its standard input is nothing.
    pub(super) input: Option<Vec<u8>>,
}

impl Program {
    /// Makes what the command of `spec` needs, run by `identity` with what is `granted`. `set_groups` says whether groups
    /// can be set.
    pub fn new(
        spec: &RunSpec,
        identity: &Identity,
        granted: Granted,
        set_groups: bool,
    ) -> Result<Self, Error> {
        let mut environment = spec.env.clone();
        environment
            .entry("HOME".into())
            .or_insert_with(|| identity.home.clone().into());
        let path = environment.get(OsStr::new("PATH")).cloned().unwrap_or_default();
        let command = spec
            .command
            .first()
            .map_or(OsStr::new(""), |name| name.as_os_str());
        let entries = environment.iter().map(|(name, value)| {
            c_string(
                "an environment entry",
                [name.as_bytes(), b"=", value.as_bytes()].concat(),
            )
        });
        let arguments = spec
            .command
            .iter()
            .map(|text| c_string("an argument", text.as_bytes()));
        Ok(Self {
            workdir: c_string("the working directory", spec.workdir.as_bytes())?,
            granted,
            uid: identity.uid,
            gid: identity.gid,
            groups: set_groups.then(|| identity.groups.clone()),
            candidates: candidates(command, &path)?,
            arguments: CStrings::new(arguments.collect::<Result<_, _>>()?),
            environment: CStrings::new(entries.collect::<Result<_, _>>()?),
            streams: spec.streams,
            ignored: signal::ignored(),
            rlimits: Rlimits::decide(&spec.limits.ulimits, spec.userns == Userns::Auto)?,
            oom_score: match &spec.limits.oom_score {
                Some(score) => Some(c_string("an adjustment", score.to_string())?),
                None => None,
            },
            same_addresses: spec.same_addresses,
            later_pids: spec.later_pids,
            input: spec.input.clone(),
        })
    }

    /// Tells the kernel how soon to end this process when memory runs out. Before its memory is hidden: then the file is
    /// not its own any more.
    pub(super) fn take_oom_score(&self) -> Result<(), Fault> {
        match &self.oom_score {
            Some(score) => process::set_oom_score(score).at(Step::OomScore),
            None => Ok(()),
        }
    }

    /// Returns program and arguments.
    pub fn arguments(&self) -> &CStrings {
        &self.arguments
    }

    /// Returns the environment, `NAME=value`.
    pub fn environment(&self) -> &CStrings {
        &self.environment
    }

    /// Returns where it starts.
    pub fn workdir(&self) -> &CStr {
        &self.workdir
    }

    /// Returns its user and its group.
    pub fn ids(&self) -> (u32, u32) {
        (self.uid, self.gid)
    }

    /// Returns its supplementary groups; `None` where nobody can set any.
    pub fn groups(&self) -> Option<&[u32]> {
        self.groups.as_deref()
    }

    /// Returns what it may do.
    pub fn granted(&self) -> &Granted {
        &self.granted
    }

    /// Goes to where the command starts, while that can be anywhere: a folder of root's may be where a user's command
    /// is to start. Files of the host may still be open, so no link in the image may lead through one.
    pub(super) fn go_to_workdir(&self) -> Result<(), Fault> {
        place::go_inside(&self.workdir).at(Step::Workdir)
    }

    /// Gives up what the steps before needed.
    pub(super) fn give_up(&self) -> Result<(), Fault> {
        place::set_umask(0o022);
        // Needs a capability too, to raise a hard limit.
        self.rlimits.set().at(Step::Rlimits)?;
        process::own_session_keyring().at(Step::Privileges)?;
        // Needs a capability that the next calls take away.
        process::bound_capabilities(self.granted.keep).at(Step::Privileges)?;
        if let Some(groups) = &self.groups {
            process::set_groups(groups).at(Step::User)?;
        }
        let ambient = self.granted.ambient;
        let mut held = self.granted.of(self.uid);
        if self.granted.new_privileges {
            // Without no_new_privs, loading the filter needs it.
            held |= CapabilitySet::SYS_ADMIN;
        }
        if self.uid != 0 && !held.is_empty() {
            process::keep_capabilities().at(Step::Privileges)?;
        }
        process::become_user(self.uid, self.gid).at(Step::User)?;
        process::set_capabilities(held, ambient).at(Step::Privileges)?;
        process::pass_on_capabilities(ambient).at(Step::Privileges)?;
        if !self.granted.new_privileges {
            process::no_new_privileges().at(Step::Privileges)?;
        }
        if self.same_addresses {
            process::same_addresses().at(Step::Privileges)?;
        }
        process::keep_standard_files_only().at(Step::Standard)?;
        signal::reset(self.ignored).at(Step::Standard)?;
        // The last: a signal that waited for us ends us as it would end the command.
        signal::set_blocked(SignalSet::NONE).map(drop).at(Step::Standard)
    }

    /// Executes the first candidate that can be; the first that is there and cannot be is the one to tell of.
    pub(super) fn execute(&self) -> Result<Infallible, Fault> {
        let mut refused = None;
        let mut restricted = false;
        for (index, path) in self.candidates.iter().enumerate() {
            let found = place::is_inside(path);
            let errno = match found {
                Ok(()) => {
                    if !restricted {
                        self.restrict()?;
                        restricted = true;
                    }
                    process::exec(path, &self.arguments, &self.environment)
                }
                Err(errno) => errno,
            };
            let step = match errno {
                Errno::NOENT if found.is_ok() || place::exists(path) => Step::Interpreter,
                Errno::NOENT | Errno::NOTDIR => continue,
                _ => Step::Exec,
            };
            refused = refused.or(Some((step, index, errno)));
            if errno != Errno::ACCESS {
                break;
            }
        }
        let (step, index, errno) = refused.unwrap_or((Step::Exec, 0, Errno::NOENT));
        Err(Fault {
            step,
            index: index as u32,
            failed: SysError {
                call: std::borrow::Cow::Borrowed("execve"),
                errno,
            },
        })
    }

    /// Loads the filter: the last thing before the command, so that it need not allow what mk calls.
    fn restrict(&self) -> Result<(), Fault> {
        if let Some(filter) = &self.granted.filter {
            process::filter_calls(filter).at(Step::Filter)?;
        }
        match self.granted.new_privileges {
            true => {
                let held = self.granted.of(self.uid);
                process::set_capabilities(held, self.granted.ambient).at(Step::Privileges)
            }
            false => Ok(()),
        }
    }

    /// Returns what a failed step of this program's was about; nothing where the step is not one of its own.
    pub(super) fn object(&self, step: Step, index: usize) -> Option<String> {
        Some(match step {
            Step::Workdir => shown(self.workdir.as_bytes()),
            Step::OomScore => self.oom_score.as_deref().map(|score| shown(score.to_bytes()))?,
            Step::User => format!("{}, group {}", self.uid, self.gid),
            Step::Exec | Step::Interpreter => {
                let command = self.arguments.iter().next().map(|name| shown(name.to_bytes()));
                let found = self.candidates.get(index).map(|path| shown(path.as_bytes()));
                if step == Step::Interpreter {
                    found.or(command)
                } else {
                    command
                }
                .unwrap_or_default()
            }
            _ => return None,
        })
    }
}

pub(super) fn c_string(what: &'static str, bytes: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(bytes).map_err(|nul| Error::Nul {
        what,
        text: shown(&nul.into_vec()),
    })
}

/// Returns where `command` may be: as it is where it holds a slash, else in each folder of `path` (execvp(3)).
fn candidates(command: &OsStr, path: &OsStr) -> Result<Vec<CString>, Error> {
    let command = command.as_bytes();
    if command.contains(&b'/') {
        return Ok(vec![c_string("the command", command)?]);
    }
    if command.is_empty() {
        return Ok(Vec::new());
    }
    let folders = path.as_bytes().split(|&byte| byte == b':');
    folders
        .map(|folder| {
            // An empty folder means the working directory.
            let folder = if folder.is_empty() {
                b".".as_slice()
            } else {
                folder
            };
            c_string("the command", [folder, b"/", command].concat())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(command: &str, path: &str) -> Vec<String> {
        candidates(OsStr::new(command), OsStr::new(path))
            .unwrap()
            .into_iter()
            .map(|path| path.into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_command_is_looked_for_along_the_path() {
        assert_eq!(found("ls", "/usr/bin:/bin"), ["/usr/bin/ls", "/bin/ls"]);
        assert_eq!(found("ls", "/bin:"), ["/bin/ls", "./ls"]);
        assert_eq!(found("/bin/ls", "/usr/bin"), ["/bin/ls"]);
        assert_eq!(found("./ls", "/usr/bin"), ["./ls"]);
        assert_eq!(found("", "/usr/bin"), [""; 0]);
    }
}
