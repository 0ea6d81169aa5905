//! Tree and objects ↔ disk.
