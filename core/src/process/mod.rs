//! Mounts → a running program → an exit status.
