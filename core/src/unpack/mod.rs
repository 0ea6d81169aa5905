//! Bytes → entries, without touching the disk.
