//! Recipe → image.
