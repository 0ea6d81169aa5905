//! How much of the machine a run may take, as typed.

use clap::Args;
use mk_core::spec::limits::{CpuSet, Cpus, Limits, Memory, OomScore, Pids};
use mk_core::spec::ulimit::Ulimit;

/// How much of the machine the command may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// End it where it takes more memory, such as 512m or 2g
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<Memory>,
    /// Give it the time of so many CPUs, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Let it have no more processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<Pids>,
    /// Run it on these CPUs only, such as 0-1,3
    #[arg(long, value_name = "LIST")]
    cpuset: Option<CpuSet>,
    /// Limit a resource of each process, such as nofile=1024:4096; may be repeated
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<Ulimit>,
    /// End it sooner (up to 1000) or later (down to -1000) where the machine's memory runs out
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    oom_score_adj: Option<OomScore>,
}

impl From<LimitArgs> for Limits {
    fn from(args: LimitArgs) -> Self {
        Self {
            memory: args.memory,
            cpus: args.cpus,
            pids: args.pids,
            cpuset: args.cpuset,
            ulimits: args.ulimits,
            oom_score: args.oom_score_adj,
        }
    }
}
