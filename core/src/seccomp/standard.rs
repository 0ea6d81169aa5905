//! The profile that runs get unless they ask for another: the calls that Docker's allows, for programs that hold
//! these or those capabilities (docs/decisions/0014-a-filter-of-our-own.md says where it differs).

use std::collections::BTreeMap;

use super::calls::Arch;
use super::profile::{Action, Condition, Op, Profile, Rule};

/// A set of capabilities, as bits (capabilities(7)).
pub type Capabilities = u64;

const DAC_READ_SEARCH: Capabilities = 1 << 2;
const SYS_MODULE: Capabilities = 1 << 16;
const SYS_RAWIO: Capabilities = 1 << 17;
const SYS_CHROOT: Capabilities = 1 << 18;
const SYS_PTRACE: Capabilities = 1 << 19;
const SYS_PACCT: Capabilities = 1 << 20;
const SYS_ADMIN: Capabilities = 1 << 21;
const SYS_BOOT: Capabilities = 1 << 22;
const SYS_NICE: Capabilities = 1 << 23;
const SYS_TIME: Capabilities = 1 << 25;
const SYS_TTY_CONFIG: Capabilities = 1 << 26;
const SYSLOG: Capabilities = 1 << 34;
const PERFMON: Capabilities = 1 << 38;
const BPF: Capabilities = 1 << 39;

/// What the filter that is compiled when mk is built is for, of the capabilities that make a difference.
pub const USUAL: Capabilities = SYS_CHROOT;

/// The capabilities that make a difference.
pub const SWITCHES: Capabilities = {
    let (mut all, mut at) = (0, 0);
    while at < WITH.len() {
        all |= WITH[at].0;
        at += 1;
    }
    all
};

/// What every program may call, by subject.
const ALWAYS: [&str; 11] = [
    // Files: opening, reading, writing.
    "open openat openat2 creat close close_range read readv pread64 preadv preadv2 write writev pwrite64 pwritev \
     pwritev2 lseek dup dup2 dup3 fcntl ioctl flock fsync fdatasync sync syncfs sync_file_range truncate ftruncate \
     fallocate fadvise64 readahead sendfile copy_file_range splice tee vmsplice pipe pipe2 memfd_create memfd_secret \
     cachestat io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents",
    // Names and what is kept about them.
    "access faccessat faccessat2 stat fstat lstat newfstatat statx statfs fstatfs getcwd chdir fchdir getdents \
     getdents64 mkdir mkdirat rmdir link linkat symlink symlinkat readlink readlinkat unlink unlinkat rename renameat \
     renameat2 mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes futimesat \
     utimensat name_to_handle_at statmount listmount",
    "getxattr lgetxattr fgetxattr getxattrat setxattr lsetxattr fsetxattr setxattrat listxattr llistxattr flistxattr \
     listxattrat removexattr lremovexattr fremovexattr removexattrat",
    // Being told of something.
    "select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_wait epoll_wait_old \
     epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 inotify_init inotify_init1 inotify_add_watch \
     inotify_rm_watch fanotify_mark",
    // Memory.
    "brk mmap mprotect munmap mremap msync mincore madvise mlock mlock2 mlockall munlock munlockall remap_file_pages \
     pkey_alloc pkey_free pkey_mprotect mseal map_shadow_stack membarrier process_mrelease",
    // Processes and threads. `clone` has a rule of its own.
    "fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getpgid setpgid getpgrp getsid \
     setsid set_tid_address set_robust_list get_robust_list rseq futex futex_waitv futex_wait futex_wake futex_requeue \
     pidfd_open pidfd_send_signal prctl seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self \
     set_thread_area get_thread_area restart_syscall uretprobe ptrace process_vm_readv process_vm_writev",
    // Signals.
    "kill tkill tgkill pause alarm rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_tgsigqueueinfo \
     rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack getitimer setitimer",
    // Users, and what they may use.
    "getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid \
     setfsuid setfsgid setgroups capget capset getrlimit setrlimit prlimit64 getrusage getpriority setpriority \
     ioprio_get ioprio_set sched_yield sched_getaffinity sched_setaffinity sched_getattr sched_setattr \
     sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_get_priority_max \
     sched_get_priority_min sched_rr_get_interval getcpu uname sysinfo times getrandom",
    // Time. Setting the clock takes a capability, which the kernel looks for by itself.
    "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep adjtimex clock_adjtime timer_create \
     timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime",
    // Sockets. `socket` has a rule of its own.
    "socketpair bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt sendto \
     sendmsg sendmmsg recvfrom recvmsg recvmmsg",
    // System V and POSIX inter-process communication.
    "shmget shmat shmctl shmdt semget semctl semop semtimedop msgget msgctl msgsnd msgrcv mq_open mq_unlink \
     mq_timedsend mq_timedreceive mq_notify mq_getsetattr",
];

/// What a program may call besides on one architecture.
const ALWAYS_ON: [(Arch, &str); 1] = [(Arch::X86_64, "arch_prctl modify_ldt")];

/// What a program may call besides where it holds one of some capabilities.
const WITH: [(Capabilities, &str); 14] = [
    (DAC_READ_SEARCH, "open_by_handle_at"),
    (
        SYS_ADMIN,
        "clone clone3 unshare setns mount umount2 pivot_root open_tree open_tree_attr move_mount mount_setattr fsopen \
         fsconfig fsmount fspick sethostname setdomainname quotactl quotactl_fd fanotify_init lookup_dcookie \
         lsm_get_self_attr lsm_set_self_attr lsm_list_modules bpf perf_event_open syslog",
    ),
    (SYS_BOOT, "reboot"),
    (SYS_CHROOT, "chroot"),
    (SYS_MODULE, "init_module finit_module delete_module"),
    (SYS_PACCT, "acct"),
    (SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (SYS_RAWIO, "iopl ioperm"),
    (SYS_TIME, "settimeofday clock_settime"),
    (SYS_TTY_CONFIG, "vhangup"),
    (
        SYS_NICE,
        "get_mempolicy set_mempolicy mbind set_mempolicy_home_node",
    ),
    (SYSLOG, "syslog"),
    (BPF, "bpf"),
    (PERFMON, "perf_event_open"),
];

/// What programs know how to do without: newer than Docker's profile, or (`clone3`) with flags that lie in memory, where
/// no filter sees them.
const DONE_WITHOUT: &str = "clone3 file_getattr file_setattr listns rseq_slice_yield uprobe";

/// The flags of `clone` that ask for a new namespace, CLONE_NEWNS to CLONE_NEWNET (clone(2)).
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// The families of sockets (socket(2)): all but those that nobody needs (DECnet, Econet, ATM SVC, IrDA, ISDN, CAIF) and
/// the kernel's cryptography (AF_ALG), each a source of holes, and VSOCK, which reaches the host of a virtual machine.
const FAMILIES: [(u64, u64); 8] = [
    (0, 11),
    (13, 18),
    (21, 22),
    (24, 24),
    (26, 33),
    (35, 36),
    (39, 39),
    (41, 45),
];

/// What may be run as (personality(2)): Linux and Linux of 32 bits, each also with the older name of its version, and the
/// question which it is.
const PERSONALITIES: [u64; 5] = [0, 0x0008, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// Returns the profile for programs on `arch` that hold `kept`.
pub fn standard(arch: Arch, kept: Capabilities) -> Profile {
    let mut profile = Profile::new(arch, Action::EPERM);
    let numbers: BTreeMap<&str, u32> = arch.calls().collect();
    let mut set = |name: &str, rules: Vec<Rule>| {
        // Not every architecture has every call.
        if let Some(&number) = numbers.get(name) {
            profile.rules.insert(number, rules);
        }
    };
    for name in DONE_WITHOUT.split(' ') {
        set(name, always(Action::ENOSYS));
    }
    let flags = condition(Op::MaskedEq(NEW_NAMESPACES), 0);
    set("clone", vec![allow([flags])]);
    let family = |&(first, last)| allow([condition(Op::Ge, first), condition(Op::Le, last)]);
    set("socket", FAMILIES.iter().map(family).collect());
    let persona = |&persona| allow([condition(Op::Eq, persona)]);
    set("personality", PERSONALITIES.iter().map(persona).collect());
    let everyone = ALWAYS.iter().copied();
    let here = ALWAYS_ON
        .iter()
        .filter(|(on, _)| *on == arch)
        .map(|(_, names)| *names);
    let held = WITH
        .iter()
        .filter(|(capability, _)| kept & capability != 0)
        .map(|(_, names)| *names);
    for name in everyone
        .chain(here)
        .chain(held)
        .flat_map(|names| names.split(' '))
    {
        set(name, always(Action::Allow));
    }
    profile
}

/// Returns all names that are allowed to everyone, always or with a condition.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let lists = ALWAYS.into_iter().chain(ALWAYS_ON.map(|(_, names)| names));
    lists
        .flat_map(|names| names.split(' '))
        .chain(["clone", "socket", "personality"])
        .chain(DONE_WITHOUT.split(' '))
}

fn always(action: Action) -> Vec<Rule> {
    vec![Rule {
        when: Vec::new(),
        action,
    }]
}

fn allow<const N: usize>(when: [Condition; N]) -> Rule {
    Rule {
        when: when.into(),
        action: Action::Allow,
    }
}

/// A condition on the first argument, of which the kernel takes 32 bits.
fn condition(op: Op, value: u64) -> Condition {
    Condition {
        argument: 0,
        op,
        value,
        narrow: true,
    }
}
