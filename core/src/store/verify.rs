//! Reads everything again.
