//! Image in the store → a folder ready to be entered.
