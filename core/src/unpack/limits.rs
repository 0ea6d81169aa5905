//! [`Limits`]: how much an archive may ask for before it is refused.

/// What one archive may hold and cost. The default is generous, 64 GiB in 20 million entries: it stops bombs, not large
/// images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Number of entries.
    pub entries: u64,
    /// Bytes that the archive unpacks to: once counted as the tar stream, once as the content of the files with their
    /// holes. Neither may be more.
    pub bytes: u64,
    /// Bytes of one header that describes the next entry (pax, GNU long name).
    pub header: u64,
    /// Number of stretches of data in one sparse file.
    pub stretches: u64,
    /// Number of names in one path.
    pub depth: usize,
    /// Bytes of memory that a decompressor may take (the window of zstd, the dictionary of xz).
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 20_000_000,
            bytes: 64 << 30,
            header: 1 << 20,
            stretches: 1 << 20,
            depth: 1024,
            memory: 256 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_no_bomb_fills_a_disk_of_today() {
        assert_eq!(Limits::default().bytes, 68_719_476_736);
    }
}
