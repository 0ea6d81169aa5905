//! What a run may do, as typed.

use std::ffi::OsString;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use mk_core::spec::privileges::{Asked, Capability, Seccomp};

/// What the command may do.
#[derive(Debug, Args)]
#[command(next_help_heading = "Privileges")]
pub(crate) struct PrivilegeArgs {
    /// Give it a capability more, such as SYS_TIME, or ALL; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    cap_add: Vec<Capability>,
    /// Take a capability from it, or ALL; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    cap_drop: Vec<Capability>,
    /// Allow only the system calls of a profile in Docker's JSON format, or all of them (`unconfined`)
    #[arg(long, value_name = "FILE", value_parser = seccomp())]
    seccomp: Option<Seccomp>,
    /// Let set-user-id programs and file capabilities have their effect
    #[arg(long)]
    allow_new_privileges: bool,
    /// Let it make containers of its own; it has no power over the machine by that
    #[arg(long, overrides_with = "no_nesting")]
    nesting: bool,
    /// Do not let it, where the image asks for that
    #[arg(long, overrides_with = "nesting")]
    no_nesting: bool,
    /// Give it all that you have: every capability and system call, all of /proc and /sys
    #[arg(long)]
    privileged: bool,
}

impl From<PrivilegeArgs> for Asked {
    fn from(args: PrivilegeArgs) -> Self {
        Self {
            add: args.cap_add,
            drop: args.cap_drop,
            privileged: args.privileged,
            nesting: (args.nesting || args.no_nesting).then_some(args.nesting),
            new_privileges: args.allow_new_privileges,
            seccomp: args.seccomp,
        }
    }
}

/// Returns the reader of `--seccomp`: one of two words, or any path.
fn seccomp() -> impl TypedValueParser<Value = Seccomp> {
    OsStringValueParser::new().try_map(|text: OsString| match text.to_str() {
        Some("") => Err("expected the path of a profile, `default` or `unconfined`"),
        Some("default") => Ok(Seccomp::Usual),
        Some("unconfined") => Ok(Seccomp::Unconfined),
        _ => Ok(Seccomp::File(text.into())),
    })
}
