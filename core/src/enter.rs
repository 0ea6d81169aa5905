//! Image + RunSpec → exit status.
