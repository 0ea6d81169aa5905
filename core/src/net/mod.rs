//! What a network namespace is given.
