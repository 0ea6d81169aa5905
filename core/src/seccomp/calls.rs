//! [`Arch`]: an architecture, with the names and numbers of its system calls.

/// The table: name, number on x86-64, number on arm64.
const TABLE: &str = include_str!("calls.txt");

/// An architecture whose calls are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// x86-64, called amd64 elsewhere.
    X86_64,
    /// 64-bit ARM, called arm64 elsewhere.
    Aarch64,
}

impl Arch {
    /// Both.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one that this program is compiled for.
    #[cfg(target_arch = "x86_64")]
    pub const HERE: Self = Self::X86_64;
    /// The one that this program is compiled for.
    #[cfg(target_arch = "aarch64")]
    pub const HERE: Self = Self::Aarch64;

    /// Returns how the kernel names it in `seccomp_data.arch` (`AUDIT_ARCH_…` in linux/audit.h).
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Returns its calls: names and numbers, sorted by name.
    pub fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        TABLE.lines().filter_map(move |line| {
            let mut fields = line.split(' ');
            let name = fields.next().filter(|name| *name != "#")?;
            let [x86_64, aarch64] = [fields.next()?, fields.next()?];
            let number = match self {
                Self::X86_64 => x86_64,
                Self::Aarch64 => aarch64,
            };
            Some((name, number.parse().ok()?))
        })
    }
}

/// Whether some architecture, be it none of these, has a call of this name.
pub fn is_known(name: &str) -> bool {
    TABLE.lines().any(|line| line.split(' ').next() == Some(name))
}
