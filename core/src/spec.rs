//! Image defaults + what was asked. Pure.
