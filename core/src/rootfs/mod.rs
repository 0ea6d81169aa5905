//! Image in the store → a folder ready to be entered.

pub mod checkout;

pub use checkout::checkout;
