//! What is still reachable; the rest goes.
