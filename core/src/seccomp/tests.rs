//! The compiled programs against what their profiles say, instruction by instruction.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::calls::Arch;
use super::compile::{self, Instruction, compile};
use super::profile::{Action, Call, Condition, Op, Profile, Rule, SKIPPED, X32};
use super::standard::{SWITCHES, USUAL, standard};
use super::{Filter, usual};

/// What the kernel does with a filter: what `program` returns for `call`, and after how many instructions.
fn run(program: &[u64], call: &Call) -> (u32, usize) {
    let word = |offset: u32| {
        let arguments = |at: u32| call.arguments[at as usize / 2] >> (32 * (at % 2));
        match offset / 4 {
            0 => call.number,
            1 => call.arch,
            at @ 4..16 => arguments(at - 4) as u32,
            _ => panic!("a filter looks at {offset}"),
        }
    };
    let (mut at, mut loaded, mut steps) = (0, 0, 0);
    loop {
        let Instruction { code, yes, no, value } = Instruction::decode(program[at]);
        at += 1;
        steps += 1;
        let holds = match code {
            compile::RETURN => return (value, steps),
            compile::LOAD => {
                loaded = word(value);
                continue;
            }
            compile::AND => {
                loaded &= value;
                continue;
            }
            compile::GO => {
                at += value as usize;
                continue;
            }
            compile::IF_EQUAL => loaded == value,
            compile::IF_GREATER => loaded > value,
            compile::IF_NOT_LESS => loaded >= value,
            compile::IF_ANY => loaded & value != 0,
            other => panic!("instruction {other:#x} is not allowed in a filter"),
        };
        at += usize::from(if holds { yes } else { no });
    }
}

/// Numbers and arguments at which profiles are likely to change their mind, and others.
const ARGUMENTS: [u64; 22] = [
    0,
    1,
    8,
    11,
    12,
    13,
    16,
    38,
    40,
    45,
    46,
    0x11,
    0x0002_0000,
    0x0002_0008,
    0x1000_0000,
    0x4000_0011,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0010,
    0xffff_ffff_0000_0000,
    u64::MAX,
];

fn calls(arch: Arch) -> impl Iterator<Item = Call> {
    let numbers = (0..600).chain([
        X32 - 1,
        X32,
        X32 + 59,
        X32 + 520,
        i32::MAX as u32,
        SKIPPED - 1,
        SKIPPED,
    ]);
    numbers.flat_map(move |number| {
        ARGUMENTS.into_iter().map(move |first| Call {
            arch: arch.audit(),
            number,
            arguments: [first, 0, 1, 0, 0, 0],
        })
    })
}

#[track_caller]
fn check(program: &[u64], profile: &Profile, call: &Call) {
    let (returned, _) = run(program, call);
    assert_eq!(
        returned,
        profile.decide(call).code(),
        "{call:?}\n{:?}",
        profile.rules.get(&call.number)
    );
}

#[test]
fn the_default_filters_say_what_the_profile_says() {
    for arch in Arch::ALL {
        let profile = standard(arch, USUAL);
        let filter = usual(arch, USUAL);
        assert!(
            matches!(filter, Filter::Borrowed(_)),
            "the usual filter is compiled when mk is"
        );
        calls(arch).for_each(|call| check(&filter, &profile, &call));
    }
}

#[test]
fn each_capability_switches_its_calls_on_and_no_others() {
    for arch in Arch::ALL {
        let usual_profile = standard(arch, USUAL);
        for capability in (0..64).map(|bit| 1 << bit) {
            let filter = usual(arch, USUAL | capability);
            let profile = standard(arch, USUAL | capability);
            calls(arch).for_each(|call| check(&filter, &profile, &call));
            // `iopl` and `ioperm`, the calls of CAP_SYS_RAWIO, are x86-64's only.
            let none = arch == Arch::Aarch64 && capability == 1 << 17;
            let switches = SWITCHES & !USUAL & capability != 0 && !none;
            assert_eq!(profile != usual_profile, switches, "{arch:?} {capability:#x}");
        }
    }
}

#[test]
fn every_way_through_the_default_filter_is_short() {
    for arch in Arch::ALL {
        let filter = usual(arch, USUAL);
        assert!(filter.len() < 200, "{arch:?}: {} instructions", filter.len());
        let profile = standard(arch, USUAL);
        for call in calls(arch) {
            // Those with conditions look at the argument besides, `socket` at eight ranges.
            let rules = profile.rules.get(&call.number).map_or(0, |rules| rules.len());
            let (_, steps) = run(&filter, &call);
            assert!(steps <= 12 + 2 * rules, "{steps} instructions for {call:?}");
        }
        let foreign = Call {
            arch: 0x4000_0003,
            number: 1,
            arguments: [0; 6],
        };
        assert_eq!(run(&filter, &foreign), (Action::KillProcess.code(), 3));
    }
}

fn decide(arch: Arch, kept: u64, name: &str, first: u64) -> Option<Action> {
    let number = arch.calls().find(|(known, _)| *known == name)?.1;
    let call = Call {
        arch: arch.audit(),
        number,
        arguments: [first, 0, 0, 0, 0, 0],
    };
    Some(standard(arch, kept).decide(&call))
}

#[test]
fn calls_that_reach_beyond_the_container_are_refused() {
    let refused = "mount umount2 pivot_root open_tree open_tree_attr move_mount mount_setattr fsopen fsconfig fsmount \
        fspick unshare setns keyctl add_key request_key bpf perf_event_open kexec_load kexec_file_load init_module \
        finit_module delete_module open_by_handle_at reboot swapon swapoff settimeofday clock_settime userfaultfd \
        io_uring_setup io_uring_enter io_uring_register quotactl quotactl_fd syslog acct lookup_dcookie kcmp \
        pidfd_getfd process_madvise nfsservctl vhangup iopl ioperm mbind move_pages migrate_pages set_mempolicy \
        fanotify_init sethostname setdomainname ustat sysfs uselib create_module query_module get_kernel_syms _sysctl";
    for name in refused.split_ascii_whitespace() {
        let actions: Vec<_> = Arch::ALL
            .iter()
            .filter_map(|&arch| decide(arch, USUAL, name, 0))
            .collect();
        assert!(!actions.is_empty(), "{name} is no call");
        assert!(actions.iter().all(|action| *action == Action::EPERM), "{name}");
    }
}

#[test]
fn arguments_decide_where_the_call_alone_does_not() {
    let allowed = |name, first| decide(Arch::X86_64, USUAL, name, first) == Some(Action::Allow);
    // Threads and processes, whatever lies in the bits that the kernel does not look at; no new namespace.
    assert!(
        allowed("clone", 0x003d_0f00) && allowed("clone", 0x11) && allowed("clone", 0x1000_0000_0000_0011)
    );
    for bit in [17, 25, 26, 27, 28, 29, 30] {
        assert!(!allowed("clone", 1 << bit | 0x11), "bit {bit}");
    }
    for family in [1, 2, 10, 16, 17] {
        assert!(allowed("socket", family), "{family}");
    }
    for family in [12, 19, 20, 23, 34, 37, 38, 40, 46, 0xffff_ffff] {
        assert!(!allowed("socket", family), "{family}");
    }
    assert!(!allowed("socket", 0x1_0000_0028), "the kernel takes it for a 40");
    assert!(allowed("personality", u64::MAX) && allowed("personality", 0));
    assert!(
        !allowed("personality", 0x0040_0000),
        "readable means executable, and so on"
    );
}

#[test]
fn what_libraries_try_first_fails_in_the_way_that_makes_them_try_another() {
    for arch in Arch::ALL {
        assert_eq!(decide(arch, USUAL, "clone3", 0), Some(Action::ENOSYS));
        let newer = Call {
            arch: arch.audit(),
            number: 599,
            arguments: [0; 6],
        };
        assert_eq!(standard(arch, USUAL).decide(&newer), Action::ENOSYS);
        assert_eq!(decide(arch, 1 << 21, "clone3", 0), Some(Action::Allow));
    }
}

#[test]
fn names_are_calls_and_each_is_listed_once() {
    let mut seen = BTreeMap::new();
    for arch in Arch::ALL {
        let mut numbers = BTreeMap::new();
        for (name, number) in arch.calls() {
            assert!(number < X32);
            assert_eq!(
                numbers.insert(number, name),
                None,
                "{name} has the number of another"
            );
            seen.insert(name, ());
        }
        assert!(numbers.len() > 300);
    }
    let mut listed = super::standard::names().collect::<Vec<_>>();
    for name in &listed {
        assert!(seen.contains_key(name), "{name} is no call");
    }
    let count = listed.len();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(listed.len(), count, "a call is allowed twice");
}

/// The table, where this machine's C library knows the numbers too.
#[test]
fn numbers_are_those_of_the_c_library() {
    use nix::libc;
    let number = |name| {
        Arch::HERE
            .calls()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| i64::from(number))
    };
    for (name, expected) in [
        ("read", libc::SYS_read),
        ("mount", libc::SYS_mount),
        ("clone", libc::SYS_clone),
        ("keyctl", libc::SYS_keyctl),
        ("unshare", libc::SYS_unshare),
        ("seccomp", libc::SYS_seccomp),
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("mseal", libc::SYS_mseal),
    ] {
        assert_eq!(number(name), Some(expected), "{name}");
    }
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        Just(Action::Log),
        any::<u16>().prop_map(Action::Trace),
        (0..4096u16).prop_map(Action::Errno),
        Just(Action::Trap),
        Just(Action::KillThread),
        Just(Action::KillProcess),
    ]
}

fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![proptest::sample::select(&ARGUMENTS[..]), any::<u64>()]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        any_value().prop_map(Op::MaskedEq),
    ];
    (0..6u8, op, any_value(), any::<bool>()).prop_map(|(argument, op, value, narrow)| Condition {
        argument: argument % 3,
        op,
        value,
        narrow,
    })
}

fn any_profile() -> impl Strategy<Value = Profile> {
    let rule = (proptest::collection::vec(any_condition(), 0..3), any_action())
        .prop_map(|(when, action)| Rule { when, action });
    let rules = proptest::collection::btree_map(0..560u32, proptest::collection::vec(rule, 0..3), 0..300);
    let arch = proptest::sample::select(&Arch::ALL[..]);
    (arch, rules, any_action()).prop_map(|(arch, rules, otherwise)| Profile {
        rules,
        ..Profile::new(arch, otherwise)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_profile_and_its_program_say_the_same(
        profile in any_profile(),
        arguments in proptest::collection::vec(proptest::array::uniform6(any_value()), 4),
        arch in any::<u32>(),
    ) {
        let Ok(program) = compile(&profile) else { return Ok(()) };
        let others = [X32 - 1, X32, X32 + 1, SKIPPED - 1, SKIPPED];
        for number in (0..600).chain(others) {
            for &arguments in &arguments {
                let call = Call { arch: profile.arch.audit(), number, arguments };
                check(&program, &profile, &call);
                check(&program, &profile, &Call { arch, ..call });
            }
        }
    }

    #[test]
    fn an_instruction_is_read_back_as_it_was_written(code: u16, yes: u8, no: u8, value: u32) {
        let instruction = Instruction { code, yes, no, value };
        prop_assert_eq!(Instruction::decode(instruction.encode()), instruction);
    }
}

#[test]
fn a_profile_that_is_too_long_for_the_kernel_is_refused() {
    let condition = |value| Condition {
        argument: 0,
        op: Op::Eq,
        value,
        narrow: false,
    };
    let rules = (0..2000)
        .map(|value| Rule {
            when: vec![condition(value)],
            action: Action::Allow,
        })
        .collect();
    let mut profile = Profile::new(Arch::X86_64, Action::EPERM);
    profile.rules.insert(1, rules);
    assert!(compile(&profile).is_err_and(|too_long| too_long.length > compile::MOST));
}
