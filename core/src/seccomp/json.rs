//! Docker's JSON format of profiles → [`Profile`], for one architecture and the capabilities that a program holds. Podman's
//! is the same with names for error numbers, which are read too.
//!
//! Two things differ on purpose: what Docker passes over unread (a key that does not exist) is an error here, and only
//! the machine's own calls can be made, whatever other architectures a file names.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

use super::calls::{Arch, is_known};
use super::profile::{Action, Condition, Op, Profile, Rule};
use crate::path::shown;
use crate::sys::process::CapabilitySet;

/// The most bytes that a profile may have.
pub const MOST_BYTES: u64 = 1 << 20;

/// A text that is no profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not follow the format.
    #[error("line {line}, column {column}: {why}")]
    Format {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there, as a fragment.
        why: String,
    },
    /// A rule that means nothing, or more than one thing.
    #[error("`syscalls`, entry {entry} (`{call}`): {why}")]
    Rule {
        /// Which one, from 1.
        entry: usize,
        /// The first call that it is for.
        call: String,
        /// What is wrong with it, as a fragment.
        why: String,
    },
    /// Something else that cannot be.
    #[error("{0}")]
    Profile(&'static str),
}

/// What a profile is read for: some of its rules are for certain programs only.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The architecture.
    pub arch: Arch,
    /// What it holds.
    pub kept: CapabilitySet,
    /// The kernel's version.
    pub kernel: (u32, u32),
}

/// A profile, and the names in it that are calls nowhere, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The profile.
    pub profile: Profile,
    /// The names, which are passed over: they may be those of newer calls.
    pub passed_over: BTreeSet<String>,
}

/// Reads `text`.
pub fn read(text: &[u8], program: &Program) -> Result<Read, Error> {
    let raw: RawProfile = serde_json::from_slice(text).map_err(|error| format_error(&error))?;
    if raw.arch_map.is_some() && raw.architectures.is_some() {
        return Err(Error::Profile(
            "`archMap` and `architectures` say the same: expected one of them",
        ));
    }
    if raw.listener_path.is_some() || raw.listener_metadata.is_some() {
        return Err(Error::Profile(
            "`listenerPath` and `listenerMetadata` are for a program that answers each call: mk starts none",
        ));
    }
    let otherwise = errno(raw.default_errno_ret, raw.default_errno.as_deref())
        .and_then(|number| raw.default_action.action(number))
        .map_err(Error::Profile)?;
    let mut read = Read {
        profile: Profile::new(program.arch, otherwise),
        passed_over: BTreeSet::new(),
    };
    let numbers: BTreeMap<&str, u32> = program.arch.calls().collect();
    for (at, rule) in raw.syscalls.unwrap_or_default().into_iter().enumerate() {
        let call = rule.calls().next().unwrap_or_default().to_owned();
        add(&mut read, &numbers, &rule, program).map_err(|why| Error::Rule {
            entry: at + 1,
            call: shown(call.as_bytes()),
            why,
        })?;
    }
    Ok(read)
}

fn format_error(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    Error::Format {
        line: error.line(),
        column: error.column(),
        why: shown(text.strip_suffix(&place).unwrap_or(&text).as_bytes()),
    }
}

fn add(
    read: &mut Read,
    numbers: &BTreeMap<&str, u32>,
    raw: &RawRule,
    program: &Program,
) -> Result<(), String> {
    if raw.name.is_some() && raw.names.is_some() {
        return Err("it has both `name` and `names`: expected one of them".into());
    }
    let rule = Rule {
        when: conditions(raw.args.as_deref().unwrap_or_default())?,
        action: raw.action.action(errno(raw.errno_ret, raw.errno.as_deref())?)?,
    };
    let applies = raw
        .excludes
        .as_ref()
        .map_or(Ok(true), |excludes| excludes.any(program).map(|any| !any))?
        && raw
            .includes
            .as_ref()
            .map_or(Ok(true), |includes| includes.all(program))?;
    for name in raw.calls() {
        let Some(&number) = numbers.get(name) else {
            if !is_known(name) {
                read.passed_over.insert(shown(name.as_bytes()));
            }
            continue;
        };
        // What happens anyway is no rule; it would otherwise stand in the way of one.
        if applies && rule.action != read.profile.otherwise {
            put(read.profile.rules.entry(number).or_default(), rule.clone());
        }
    }
    Ok(())
}

/// Puts `rule` to those for the same call: the first without conditions is the only one, else all count in their order.
fn put(rules: &mut Vec<Rule>, rule: Rule) {
    if rules.first().is_some_and(|first| first.when.is_empty()) {
        return;
    }
    if rule.when.is_empty() {
        rules.clear();
    }
    rules.push(rule);
}

fn conditions(raw: &[RawCondition]) -> Result<Vec<Condition>, String> {
    let mut conditions: Vec<Condition> = Vec::new();
    for one in raw {
        let argument = u8::try_from(one.index).ok().filter(|argument| *argument < 6);
        let Some(argument) = argument else {
            return Err(format!("`index` is {}: expected 0 to 5", one.index));
        };
        // Docker takes them for alternatives, which whoever writes `>= 3` and `<= 7` does not mean.
        if conditions.iter().any(|other| other.argument == argument) {
            return Err(format!(
                "two conditions are on argument {argument}: expected one, and further entries for alternatives"
            ));
        }
        let two = one.value_two.unwrap_or_default();
        let (op, value) = match one.op {
            RawOp::Ne => (Op::Ne, one.value),
            RawOp::Lt => (Op::Lt, one.value),
            RawOp::Le => (Op::Le, one.value),
            RawOp::Eq => (Op::Eq, one.value),
            RawOp::Ge => (Op::Ge, one.value),
            RawOp::Gt => (Op::Gt, one.value),
            RawOp::MaskedEq => (Op::MaskedEq(one.value), two),
        };
        conditions.push(Condition {
            argument,
            op,
            value,
            narrow: false,
        });
    }
    Ok(conditions)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawProfile {
    default_action: RawAction,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    arch_map: Option<Vec<RawArch>>,
    architectures: Option<Vec<String>>,
    /// Neither changes anything: a run has one thread when its filter is loaded, and `SPEC_ALLOW` always.
    #[expect(dead_code, reason = "read to be checked")]
    flags: Option<Vec<RawFlag>>,
    listener_path: Option<IgnoredAny>,
    listener_metadata: Option<IgnoredAny>,
    syscalls: Option<Vec<RawRule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "read to be checked")]
struct RawArch {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
enum RawFlag {
    #[serde(rename = "SECCOMP_FILTER_FLAG_TSYNC")]
    Tsync,
    #[serde(rename = "SECCOMP_FILTER_FLAG_SPEC_ALLOW")]
    SpecAllow,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawRule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: RawAction,
    errno_ret: Option<u32>,
    errno: Option<String>,
    args: Option<Vec<RawCondition>>,
    #[expect(dead_code, reason = "for people")]
    comment: Option<IgnoredAny>,
    includes: Option<RawFilter>,
    excludes: Option<RawFilter>,
}

impl RawRule {
    fn calls(&self) -> impl Iterator<Item = &str> {
        let names = self.names.iter().flatten();
        names.chain(&self.name).map(String::as_str)
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCondition {
    index: u64,
    value: u64,
    value_two: Option<u64>,
    op: RawOp,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum RawOp {
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

/// Which programs a rule is for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawFilter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl RawFilter {
    /// Whether `program` has all that is asked for.
    fn all(&self, program: &Program) -> Result<bool, String> {
        let arches = self.arches.as_deref().unwrap_or_default();
        let held = self.held(program)?;
        Ok(held.iter().all(|held| *held)
            && (arches.is_empty() || names_arch(arches, program.arch))
            && self.is_new_enough(program)?.unwrap_or(true))
    }

    /// Whether `program` has any of it.
    fn any(&self, program: &Program) -> Result<bool, String> {
        let held = self.held(program)?;
        Ok(held.contains(&true)
            || names_arch(self.arches.as_deref().unwrap_or_default(), program.arch)
            || self.is_new_enough(program)?.unwrap_or(false))
    }

    fn held(&self, program: &Program) -> Result<Vec<bool>, String> {
        let one = |name: &String| {
            let capability = name.strip_prefix("CAP_").and_then(CapabilitySet::from_name);
            let capability = capability.ok_or_else(|| {
                format!(
                    "`{}` is not a capability: expected one such as `CAP_SYS_ADMIN`",
                    shown(name.as_bytes())
                )
            })?;
            Ok(program.kept.contains(capability))
        };
        self.caps.iter().flatten().map(one).collect()
    }

    fn is_new_enough(&self, program: &Program) -> Result<Option<bool>, String> {
        let Some(text) = &self.min_kernel else {
            return Ok(None);
        };
        let numbers = text.split_once('.').and_then(|(major, minor)| {
            let digits = |text: &str| text.bytes().all(|digit| digit.is_ascii_digit());
            let (major, minor) = (digits(major).then_some(major)?, digits(minor).then_some(minor)?);
            Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
        });
        match numbers {
            Some(least) => Ok(Some(program.kernel >= least)),
            None => Err(format!(
                "`minKernel` is `{}`: expected a version such as \"5.12\"",
                shown(text.as_bytes())
            )),
        }
    }
}

fn names_arch(arches: &[String], arch: Arch) -> bool {
    let name = match arch {
        Arch::X86_64 => "amd64",
        Arch::Aarch64 => "arm64",
    };
    arches.iter().any(|other| other == name)
}

/// Returns the error number, which may be there as a number, by its name (errno(3)), or as both.
fn errno(number: Option<u32>, name: Option<&str>) -> Result<Option<u32>, &'static str> {
    // An empty name says nothing; some tools write it.
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return Ok(number);
    };
    let has_name = |number: &i32| {
        let errno = Errno::from_raw(*number);
        errno != Errno::UnknownErrno && format!("{errno:?}") == name
    };
    let named = (1..=GREATEST_NAMED).find(has_name);
    match (named, number) {
        (None, _) => Err("the error is not one that the kernel has: expected a name such as `EPERM`"),
        (Some(named), Some(number)) if named as u32 != number => {
            Err("the error's name and its number are those of two errors: expected one of them")
        }
        (Some(named), _) => Ok(Some(named as u32)),
    }
}

/// The greatest error number with a name, EHWPOISON.
const GREATEST_NAMED: i32 = 133;

/// An action, without the number that some take.
#[derive(Debug, Clone, Copy)]
enum RawAction {
    Fixed(Action),
    Errno,
    Trace,
}

impl RawAction {
    fn action(self, number: Option<u32>) -> Result<Action, &'static str> {
        // "Operation not permitted", where nothing is said.
        let number = number.unwrap_or(1);
        match self {
            Self::Fixed(action) => Ok(action),
            Self::Errno if number > 4095 => {
                Err("the error number is greater than 4095, which is the last one")
            }
            Self::Errno => Ok(Action::Errno(number as u16)),
            Self::Trace => match number.try_into() {
                Ok(message) => Ok(Action::Trace(message)),
                Err(_) => Err("the tracer's message is greater than 65535, and has 16 bits"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for RawAction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "SCMP_ACT_ALLOW" => Self::Fixed(Action::Allow),
            "SCMP_ACT_LOG" => Self::Fixed(Action::Log),
            "SCMP_ACT_TRAP" => Self::Fixed(Action::Trap),
            "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Self::Fixed(Action::KillThread),
            "SCMP_ACT_KILL_PROCESS" => Self::Fixed(Action::KillProcess),
            "SCMP_ACT_ERRNO" => Self::Errno,
            "SCMP_ACT_TRACE" => Self::Trace,
            "SCMP_ACT_NOTIFY" => {
                let why = "`SCMP_ACT_NOTIFY` needs a program outside that answers each call: mk starts none";
                return Err(D::Error::custom(why));
            }
            _ => {
                return Err(D::Error::custom(format_args!(
                    "`{text}` is not an action: expected `SCMP_ACT_ALLOW`, `SCMP_ACT_ERRNO`, `SCMP_ACT_LOG`, \
                     `SCMP_ACT_TRAP`, `SCMP_ACT_TRACE`, `SCMP_ACT_KILL_THREAD` or `SCMP_ACT_KILL_PROCESS`"
                )));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seccomp::compile::compile;
    use crate::seccomp::profile::Call;

    const PROGRAM: Program = Program {
        arch: Arch::X86_64,
        kept: CapabilitySet::SYS_CHROOT,
        kernel: (6, 1),
    };

    fn with(syscalls: &str) -> Result<Read, Error> {
        let text = format!("{{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"syscalls\": [{syscalls}]}}");
        read(text.as_bytes(), &PROGRAM)
    }

    fn decide(profile: &Profile, name: &str, first: u64) -> Action {
        let mut calls = profile.arch.calls();
        let number = calls.find(|(known, _)| *known == name).unwrap().1;
        profile.decide(&Call {
            arch: profile.arch.audit(),
            number,
            arguments: [first, 0, 0, 0, 0, 0],
        })
    }

    #[test]
    fn a_profile_is_read_as_docker_reads_it() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
                        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": null}],
            "flags": ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "syscalls": [
                {"names": ["read", "write", "chown32"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "",
                 "includes": {}, "excludes": {}},
                {"name": "clone3", "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
                {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
                {"names": ["sync"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
                {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["kcmp"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
                {"names": ["socket"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
                {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS",
                 "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_GE"}]},
                {"names": ["kill"], "action": "SCMP_ACT_TRACE", "errnoRet": 7},
                {"names": ["opne", "reda"], "action": "SCMP_ACT_LOG"}
            ]
        }"#;
        let Read { profile, passed_over } = read(text.as_bytes(), &PROGRAM).unwrap();
        for (name, first, action) in [
            ("read", 0, Action::Allow),
            ("open", 0, Action::Errno(13)),
            ("clone3", 0, Action::ENOSYS),
            ("clone", 0x11, Action::Allow),
            ("clone", 0x1000_0011, Action::Errno(13)),
            ("mount", 0, Action::Errno(13)),
            ("chroot", 0, Action::Allow),
            ("arch_prctl", 0, Action::Allow),
            ("sync", 0, Action::Errno(13)),
            ("ptrace", 0, Action::Allow),
            ("kcmp", 0, Action::Errno(13)),
            ("socket", 1, Action::Allow),
            ("socket", 2, Action::Errno(13)),
            ("socket", 40, Action::KillProcess),
            ("kill", 0, Action::Trace(7)),
        ] {
            assert_eq!(decide(&profile, name, first), action, "{name} {first}");
        }
        assert_eq!(Vec::from_iter(passed_over), ["opne", "reda"]);
    }

    #[test]
    fn errors_may_have_names() {
        let text = r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS", "defaultErrnoRet": 38, "syscalls": [
            {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errno": "EACCES"},
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "errno": ""}]}"#;
        let profile = read(text.as_bytes(), &PROGRAM).unwrap().profile;
        assert_eq!(decide(&profile, "mount", 0), Action::Errno(13));
        assert_eq!(decide(&profile, "open", 0), Action::ENOSYS);
        for (wrong, why) in [
            (r#""errno": "ESOMETHING""#, "expected a name such as `EPERM`"),
            (r#""errno": "UnknownErrno""#, "expected a name such as `EPERM`"),
            (r#""errno": "EPERM", "errnoRet": 2"#, "of two errors"),
        ] {
            let text = format!(r#"{{"names": ["read"], "action": "SCMP_ACT_ERRNO", {wrong}}}"#);
            assert!(with(&text).unwrap_err().to_string().contains(why), "{wrong}");
        }
    }

    #[test]
    fn a_rule_without_conditions_is_the_only_one() {
        let free = r#"{"names": ["socket"], "action": "SCMP_ACT_ALLOW"}"#;
        let bound = r#"{"names": ["socket"], "action": "SCMP_ACT_TRAP",
            "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}"#;
        let same = r#"{"names": ["socket"], "action": "SCMP_ACT_ERRNO"}"#;
        for text in [
            format!("{free}, {bound}"),
            format!("{bound}, {free}"),
            format!("{same}, {free}"),
        ] {
            assert_eq!(
                decide(&with(&text).unwrap().profile, "socket", 1),
                Action::Allow,
                "{text}"
            );
        }
    }

    #[test]
    fn a_list_of_what_is_refused_leaves_no_way_around_by_other_numbers() {
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO"}]}"#;
        let profile = read(text.as_bytes(), &PROGRAM).unwrap().profile;
        let at = |number| {
            profile.decide(&Call {
                arch: profile.arch.audit(),
                number,
                arguments: [0; 6],
            })
        };
        assert_eq!(at(165), Action::EPERM);
        assert_eq!(at(0x4000_0000 + 165), Action::ENOSYS, "x32");
        assert_eq!((at(0), at(599)), (Action::Allow, Action::Allow));
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let complaint = |text: &str| read(text.as_bytes(), &PROGRAM).unwrap_err().to_string();
        for (text, expected) in [
            ("", "line 1, column 0: EOF while parsing a value"),
            ("{}", "line 1, column 2: missing field `defaultAction`"),
            ("[1]", "line 1, column 2: "),
            (
                "{\"defaultAction\":\n \"SCMP_ACT_ALOW\"}",
                "line 2, column 17: `SCMP_ACT_ALOW` is not an action: expected",
            ),
            ("{\"defaultAction\": \"SCMP_ACT_NOTIFY\"}", "mk starts none"),
            (
                "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"listenerPath\": \"/x\"}",
                "mk starts none",
            ),
            (
                "{\"defaultAktion\": 1}",
                "line 1, column 16: unknown field `defaultAktion`, expected one of `defaultAction`",
            ),
            (
                "{\"defaultAction\": \"SCMP_ACT_ERRNO\", \"defaultErrnoRet\": 4096}",
                "greater than 4095",
            ),
            (
                "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"archMap\": [], \"architectures\": []}",
                "expected one of them",
            ),
            (
                "{\"defaultAction\": \"SCMP_ACT_ALLOW\", \"flags\": [\"SECCOMP_FILTER_FLAG_LOG\"]}",
                "unknown variant",
            ),
        ] {
            assert!(complaint(text).contains(expected), "{text}: {}", complaint(text));
        }
        let rule = |text: &str| with(text).unwrap_err().to_string();
        for (text, expected) in [
            (
                r#"{"name": "read", "names": ["write"], "action": "SCMP_ACT_ALLOW"}"#,
                "`syscalls`, entry 1 (`write`): it has both `name` and `names`: expected one of them",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_LOG", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}"#,
                "`syscalls`, entry 1 (`read`): `index` is 6: expected 0 to 5",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 3, "op": "SCMP_CMP_GE"},
                    {"index": 0, "value": 7, "op": "SCMP_CMP_LE"}]}"#,
                "two conditions are on argument 0",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_LOG", "includes": {"caps": ["SYS_ADMIN"]}}"#,
                "`SYS_ADMIN` is not a capability: expected one such as `CAP_SYS_ADMIN`",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_LOG", "excludes": {"minKernel": "+5.1"}}"#,
                "`minKernel` is `+5.1`: expected a version",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}]}"#,
                "expected u64",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "EQ"}]}"#,
                "unknown variant `EQ`",
            ),
            (
                r#"{"name": "read", "action": "SCMP_ACT_TRACE", "errnoRet": 65536}"#,
                "16 bits",
            ),
        ] {
            assert!(rule(text).contains(expected), "{text}: {}", rule(text));
        }
    }

    /// Texts near to what a profile is.
    fn near() -> impl Strategy<Value = String> {
        let words = [
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            "null",
            "1",
            "-1",
            "18446744073709551616",
            "1e999",
            "\"defaultAction\"",
            "\"SCMP_ACT_ERRNO\"",
            "\"SCMP_ACT_ALLOW\"",
            "\"syscalls\"",
            "\"names\"",
            "\"read\"",
            "\"action\"",
            "\"args\"",
            "\"index\"",
            "\"value\"",
            "\"op\"",
            "\"SCMP_CMP_GT\"",
            "\"includes\"",
            "\"minKernel\"",
            "\"4.\"",
            "{\"defaultAction\":\"SCMP_ACT_ERRNO\",\"syscalls\":[",
            "{\"names\":[\"read\"],\"action\":\"SCMP_ACT_LOG\"",
            "\"args\":[{\"index\":0,\"value\":9,\"op\":\"SCMP_CMP_NE\"}]",
            "\u{202e}",
            "\\",
        ];
        proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..24)
            .prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn whatever_is_read_can_be_compiled_or_is_refused(text in near()) {
            if let Ok(read) = read(text.as_bytes(), &PROGRAM) {
                prop_assert!(compile(&read.profile).is_ok());
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &PROGRAM);
        }
    }
}
