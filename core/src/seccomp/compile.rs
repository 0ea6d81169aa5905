//! [`Profile`] → a filter in classic BPF: the architecture first, then a binary search over ranges of numbers.
//!
//! When a filter is loaded, the kernel runs it once for every number that it knows, to remember which calls are always
//! allowed (`seccomp_cache_prepare`, Linux 5.11). A search keeps every way short, for that and for each call after it.
//!
//! Jumps go forward only, so a program is written from its end: whatever is jumped to has its place already.

use std::collections::BTreeMap;

use super::profile::{Action, Condition, FOREIGN, Op, Profile, SKIPPED, X32};

/// One instruction, as `struct sock_filter` lies in the memory of a little-endian machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// What is done.
    pub code: u16,
    /// How many instructions are passed over where a comparison holds.
    pub yes: u8,
    /// And where it does not.
    pub no: u8,
    /// A constant.
    pub value: u32,
}

impl Instruction {
    /// Returns it in one number.
    pub const fn encode(self) -> u64 {
        self.code as u64 | (self.yes as u64) << 16 | (self.no as u64) << 24 | (self.value as u64) << 32
    }

    /// Returns what `encode` made the number of.
    pub const fn decode(number: u64) -> Self {
        Self {
            code: number as u16,
            yes: (number >> 16) as u8,
            no: (number >> 24) as u8,
            value: (number >> 32) as u32,
        }
    }
}

/// `BPF_LD | BPF_W | BPF_ABS`: loads 32 bits of `struct seccomp_data`.
pub const LOAD: u16 = 0x20;
/// `BPF_ALU | BPF_AND | BPF_K`: keeps some bits of what was loaded.
pub const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`: goes on elsewhere.
pub const GO: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`: is it the constant?
pub const IF_EQUAL: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`: is it greater?
pub const IF_GREATER: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`: is it not less?
pub const IF_NOT_LESS: u16 = 0x35;
/// `BPF_JMP | BPF_JSET | BPF_K`: has it one of the bits?
pub const IF_ANY: u16 = 0x45;
/// `BPF_RET | BPF_K`: ends with the constant.
pub const RETURN: u16 = 0x06;

/// Where the number of a call lies in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Where the architecture lies.
const ARCH: u32 = 4;

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
pub const MOST: usize = 4096;

/// A profile with so many conditions that the kernel would refuse its filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TooLong {
    /// How many instructions it takes.
    pub length: usize,
}

/// Compiles `profile`.
pub fn compile(profile: &Profile) -> Result<Vec<u64>, TooLong> {
    let mut writer = Writer::default();
    let numbers = ranges(profile).into_iter();
    let places: Vec<(u32, Place)> = numbers
        .map(|(first, target)| {
            let place = match target {
                Target::Action(action) => writer.action(action),
                Target::Rules(number) => writer.rules(profile, number),
            };
            (first, place)
        })
        .collect();
    let search = writer.search(&places);
    let search = writer.load(NUMBER, search);
    let foreign = writer.action(FOREIGN);
    let native = writer.branch(IF_EQUAL, profile.arch.audit(), search, foreign);
    writer.load(ARCH, native);
    if writer.reversed.len() > MOST {
        return Err(TooLong {
            length: writer.reversed.len(),
        });
    }
    let instructions = writer.reversed.into_iter().rev();
    Ok(instructions.map(Instruction::encode).collect())
}

/// What a range of numbers leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Action(Action),
    /// The conditions of this call.
    Rules(u32),
}

/// Returns all numbers as ranges: the first of each, and what it leads to. Neighbours differ.
fn ranges(profile: &Profile) -> Vec<(u32, Target)> {
    let mut targets: BTreeMap<u32, Target> = BTreeMap::new();
    for &number in &profile.known {
        targets.insert(number, Target::Action(profile.otherwise));
    }
    for (&number, rules) in &profile.rules {
        let target = match rules.first() {
            Some(rule) if rule.when.is_empty() => Target::Action(rule.action),
            Some(_) => Target::Rules(number),
            None => Target::Action(profile.otherwise),
        };
        targets.insert(number, target);
    }
    targets.entry(SKIPPED).or_insert(Target::Action(Action::Allow));
    let mut ranges = Vec::new();
    let mut next = 0;
    for (&number, &target) in &targets {
        if number > next {
            add(&mut ranges, next, number - 1, profile.unknown);
        }
        ranges.push((number, target));
        next = number.saturating_add(1);
    }
    ranges.dedup_by_key(|(_, target)| *target);
    ranges
}

/// Adds the numbers that are no call, from `first` to `last`.
fn add(ranges: &mut Vec<(u32, Target)>, first: u32, last: u32, unknown: Action) {
    if first < X32 {
        ranges.push((first, Target::Action(unknown)));
    }
    if last >= X32 {
        ranges.push((first.max(X32), Target::Action(Action::ENOSYS)));
    }
}

/// An instruction that was written, counted from the end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place(usize);

/// How far a comparison jumps at most; less than the 255 that fit, because what is written in between counts too.
const FAR: usize = 250;

#[derive(Debug, Default)]
struct Writer {
    /// The last instruction first.
    reversed: Vec<Instruction>,
    /// Where each value was last returned.
    returns: BTreeMap<u32, Place>,
}

impl Writer {
    fn push(&mut self, code: u16, value: u32) -> Place {
        self.reversed.push(Instruction {
            code,
            yes: 0,
            no: 0,
            value,
        });
        Place(self.reversed.len() - 1)
    }

    /// How many instructions the next one would have to pass over to get to `place`.
    fn distance(&self, place: Place) -> usize {
        self.reversed.len() - 1 - place.0
    }

    /// Returns a place from which the filter ends with `action`.
    fn action(&mut self, action: Action) -> Place {
        let code = action.code();
        match self.returns.get(&code) {
            Some(&place) if self.distance(place) < FAR => place,
            _ => {
                let place = self.push(RETURN, code);
                self.returns.insert(code, place);
                place
            }
        }
    }

    /// Returns `place`, or one that leads to it and is near enough for a comparison.
    fn near(&mut self, place: Place) -> Place {
        match self.distance(place) {
            0..FAR => place,
            distance => self.push(GO, distance as u32),
        }
    }

    fn branch(&mut self, code: u16, value: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        let (yes, no) = (self.near(yes), self.near(no));
        let (yes, no) = (self.distance(yes) as u8, self.distance(no) as u8);
        self.reversed.push(Instruction { code, yes, no, value });
        Place(self.reversed.len() - 1)
    }

    /// Writes an instruction that is followed by what is at `next`.
    fn before(&mut self, code: u16, value: u32, next: Place) -> Place {
        if let distance @ 1.. = self.distance(next) {
            self.push(GO, distance as u32);
        }
        self.push(code, value)
    }

    fn load(&mut self, offset: u32, next: Place) -> Place {
        self.before(LOAD, offset, next)
    }

    /// Writes a search for the range that the loaded number is in.
    fn search(&mut self, ranges: &[(u32, Place)]) -> Place {
        match ranges {
            [] => self.action(Action::KillProcess),
            [(_, place)] => *place,
            _ => {
                let (below, above) = ranges.split_at(ranges.len() / 2);
                let (pivot, above) = (above[0].0, self.search(above));
                let below = self.search(below);
                self.branch(IF_NOT_LESS, pivot, above, below)
            }
        }
    }

    /// Writes the rules of the call `number`.
    fn rules(&mut self, profile: &Profile, number: u32) -> Place {
        let rules = profile.rules.get(&number).map_or(&[][..], Vec::as_slice);
        let common = common_word(rules.iter().flat_map(|rule| &rule.when));
        let mut place = self.action(profile.otherwise);
        for rule in rules.iter().rev() {
            let no = place;
            place = self.action(rule.action);
            for condition in rule.when.iter().rev() {
                place = self.condition(condition, common.is_some(), place, no);
            }
        }
        match common {
            Some(word) => self.load(word, place),
            None => place,
        }
    }

    /// Writes one condition; `loaded` says that the only word it looks at is loaded.
    fn condition(&mut self, condition: &Condition, loaded: bool, yes: Place, no: Place) -> Place {
        let [low, high] = words(condition.argument);
        let halves = |number: u64| (number as u32, (number >> 32) as u32);
        let (value_low, value_high) = halves(condition.value);
        // Less than the whole is what the high half decides, unless it is the same.
        let (code, yes, no) = match condition.op {
            Op::Eq => return self.masked(condition, u64::MAX, loaded, yes, no),
            Op::Ne => return self.masked(condition, u64::MAX, loaded, no, yes),
            Op::MaskedEq(mask) => return self.masked(condition, mask, loaded, yes, no),
            Op::Ge => (IF_NOT_LESS, yes, no),
            Op::Lt => (IF_NOT_LESS, no, yes),
            Op::Gt => (IF_GREATER, yes, no),
            Op::Le => (IF_GREATER, no, yes),
        };
        let mut place = self.branch(code, value_low, yes, no);
        if !loaded {
            place = self.load(low, place);
        }
        if condition.narrow {
            return place;
        }
        let same = self.branch(IF_EQUAL, value_high, place, no);
        let place = self.branch(IF_GREATER, value_high, yes, same);
        self.load(high, place)
    }

    /// Writes the comparison of some bits of an argument.
    fn masked(&mut self, condition: &Condition, mask: u64, loaded: bool, yes: Place, no: Place) -> Place {
        let [low, high] = words(condition.argument);
        let mut place = self.masked_word(low, mask as u32, condition.value as u32, loaded, yes, no);
        if !condition.narrow {
            let (mask, value) = ((mask >> 32) as u32, (condition.value >> 32) as u32);
            place = self.masked_word(high, mask, value, false, place, no);
        }
        place
    }

    fn masked_word(
        &mut self,
        word: u32,
        mask: u32,
        value: u32,
        loaded: bool,
        yes: Place,
        no: Place,
    ) -> Place {
        let value = value & mask;
        let place = match (mask, value) {
            (0, _) => return yes,
            (u32::MAX, _) => self.branch(IF_EQUAL, value, yes, no),
            (_, 0) => self.branch(IF_ANY, mask, no, yes),
            _ => {
                let equal = self.branch(IF_EQUAL, value, yes, no);
                self.before(AND, mask, equal)
            }
        };
        match loaded {
            true => place,
            false => self.load(word, place),
        }
    }
}

/// Where the low and the high half of an argument lie, on a little-endian machine.
fn words(argument: u8) -> [u32; 2] {
    let low = 16 + 8 * u32::from(argument);
    [low, low + 4]
}

/// Returns the one word that all `conditions` look at and leave as it is, if there is one.
fn common_word<'a>(conditions: impl Iterator<Item = &'a Condition>) -> Option<u32> {
    let mut common = None;
    for condition in conditions {
        let word = words(condition.argument)[0];
        let keeps = !matches!(condition.op, Op::MaskedEq(mask) if condition.value as u32 & mask as u32 != 0);
        if !condition.narrow || !keeps || common.is_some_and(|other| other != word) {
            return None;
        }
        common = Some(word);
    }
    common
}
