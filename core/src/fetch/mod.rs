//! Pinned source → verified bytes.
