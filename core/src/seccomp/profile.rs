//! [`Profile`]: which calls a program may make, as data, and what that means for one call.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::Arch;

/// What happens to a call (seccomp(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made, and the kernel's log tells of it.
    Log,
    /// The tracer is asked, with this message; without one the call fails with ENOSYS.
    Trace(u16),
    /// It fails with this error number.
    Errno(u16),
    /// The thread gets SIGSYS.
    Trap,
    /// The thread ends.
    KillThread,
    /// The process ends with SIGSYS.
    KillProcess,
}

impl Action {
    /// "Operation not permitted": what a call gets that may not be made.
    pub const EPERM: Self = Self::Errno(1);
    /// "Function not implemented": what makes a C library try an older call.
    pub const ENOSYS: Self = Self::Errno(38);

    /// Returns what a filter returns for it.
    pub const fn code(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Log => 0x7ffc_0000,
            Self::Trace(message) => 0x7ff0_0000 | message as u32,
            Self::Errno(number) => 0x0005_0000 | number as u32,
            Self::Trap => 0x0003_0000,
            Self::KillThread => 0,
            Self::KillProcess => 0x8000_0000,
        }
    }

    /// Whether a call that gets it is never made.
    pub const fn refuses(self) -> bool {
        !matches!(self, Self::Allow | Self::Log | Self::Trace(_))
    }
}

/// How an argument is compared with the value of a condition, both as numbers without a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// It differs.
    Ne,
    /// It is less.
    Lt,
    /// It is less, or the same.
    Le,
    /// It is the same.
    Eq,
    /// It is greater, or the same.
    Ge,
    /// It is greater.
    Gt,
    /// Its bits in this mask are those of the value.
    MaskedEq(u64),
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which one: 0 to 5.
    pub argument: u8,
    /// How it is compared.
    pub op: Op,
    /// With what.
    pub value: u64,
    /// Whether the kernel takes no more of it than 32 bits; the others then do not count.
    pub narrow: bool,
}

impl Condition {
    /// Whether a call with these `arguments` meets it.
    pub fn holds(&self, arguments: &[u64; 6]) -> bool {
        let argument = arguments[usize::from(self.argument)];
        let (argument, value) = match self.narrow {
            true => (argument & 0xffff_ffff, self.value & 0xffff_ffff),
            false => (argument, self.value),
        };
        match self.op {
            Op::Ne => argument != value,
            Op::Lt => argument < value,
            Op::Le => argument <= value,
            Op::Eq => argument == value,
            Op::Ge => argument >= value,
            Op::Gt => argument > value,
            Op::MaskedEq(mask) => argument & mask == value & mask,
        }
    }
}

/// What happens to a call where all of some conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The conditions; none: always.
    pub when: Vec<Condition>,
    /// What happens.
    pub action: Action,
}

/// A call as a filter sees it (`struct seccomp_data`).
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// The architecture that it is made for.
    pub arch: u32,
    /// Its number.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What calls of another architecture than the profile's get.
pub const FOREIGN: Action = Action::KillProcess;

/// Where the numbers of x32 begin, a second set of calls that x86-64 kernels may have. Nothing may be called by them.
pub const X32: u32 = 0x4000_0000;

/// The number of no call: a tracer sets it to have one skipped, and the kernel does nothing for it.
pub const SKIPPED: u32 = u32::MAX;

/// Which calls a program may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Whose calls these are; no other architecture's can be made.
    pub arch: Arch,
    /// The numbers of all its calls, as far as is known.
    pub known: BTreeSet<u32>,
    /// By number: the first rule whose conditions hold decides.
    pub rules: BTreeMap<u32, Vec<Rule>>,
    /// What happens to a call that no rule decides.
    pub otherwise: Action,
    /// What happens to a number that is no call, as far as is known.
    pub unknown: Action,
}

impl Profile {
    /// Returns one without rules. Numbers that are no call, as far as is known, fail with ENOSYS where `otherwise`
    /// refuses, so that a C library that knows newer calls than this program falls back on older ones.
    pub fn new(arch: Arch, otherwise: Action) -> Self {
        Self {
            arch,
            known: arch.calls().map(|(_, number)| number).collect(),
            rules: BTreeMap::new(),
            otherwise,
            unknown: match otherwise.refuses() {
                true => Action::ENOSYS,
                false => otherwise,
            },
        }
    }

    /// Returns what happens to `call`: what the compiled filter is held against.
    pub fn decide(&self, call: &Call) -> Action {
        if call.arch != self.arch.audit() {
            return FOREIGN;
        }
        if let Some(rules) = self.rules.get(&call.number) {
            let rule = rules
                .iter()
                .find(|rule| rule.when.iter().all(|condition| condition.holds(&call.arguments)));
            return rule.map_or(self.otherwise, |rule| rule.action);
        }
        match call.number {
            SKIPPED => Action::Allow,
            X32.. => Action::ENOSYS,
            number if self.known.contains(&number) => self.otherwise,
            _ => self.unknown,
        }
    }
}
