//! The recipes that mk ships, as text.
