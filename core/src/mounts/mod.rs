//! What must be in place before the program starts.
