//! Recipe + Lock → Plan.
