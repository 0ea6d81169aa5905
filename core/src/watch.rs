//! [`Watch`]: what long work tells whoever is watching. Core never prints; a terminal, a log or a test listens here.

/// Something that happened in a build. Names are for people; sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of a source are about to arrive; `size` where it is known.
    FetchStarted {
        /// Short name of the source.
        name: &'a str,
        /// From where: a URL or a path.
        from: &'a str,
        /// Expected size in bytes.
        size: Option<u64>,
    },
    /// `done` bytes of a source have arrived so far.
    Fetched {
        /// Short name of the source.
        name: &'a str,
        /// Bytes so far.
        done: u64,
    },
    /// A transfer failed and will be tried again.
    FetchRetried {
        /// Short name of the source.
        name: &'a str,
        /// What went wrong.
        why: &'a str,
        /// Milliseconds until the next try.
        wait_ms: u64,
    },
    /// All bytes of a source are there and are what was promised.
    FetchFinished {
        /// Short name of the source.
        name: &'a str,
        /// Size in bytes.
        size: u64,
    },
    /// A step of the recipe begins. `index` counts from 1.
    StepStarted {
        /// Which one, from 1.
        index: usize,
        /// Out of how many.
        count: usize,
        /// The step in words, such as `unpack alpine.tar.gz`.
        label: &'a str,
    },
    /// How far the current step is.
    StepProgress {
        /// Which one, from 1.
        index: usize,
        /// Files so far.
        files: u64,
        /// Bytes so far.
        bytes: u64,
    },
    /// The command of a `run` step has printed a line.
    StepPrinted {
        /// Which one, from 1.
        index: usize,
        /// The line, without its end; what is no UTF-8 in it is replaced.
        line: &'a str,
    },
    /// A step has its result.
    StepFinished {
        /// Which one, from 1.
        index: usize,
        /// The step in words.
        label: &'a str,
        /// Whether the result was known before.
        cached: bool,
    },
    /// Why a step was done or not, for whoever asked.
    StepExplained {
        /// Which one, from 1.
        index: usize,
        /// The step in words.
        label: &'a str,
        /// Whether its result was known before.
        cached: bool,
        /// Why it was done: each a fragment.
        reasons: &'a [String],
        /// Whether it was done and gave the same tree as the last time.
        same: bool,
    },
    /// The rootfs folder of the image is being laid out.
    Checkout {
        /// Number of files in it.
        files: u64,
    },
    /// Another process holds what this one needs.
    Waiting {
        /// What is waited for and for whom, such as `process 4711, which builds the same step`.
        on: &'a str,
    },
    /// The lock file was written.
    LockWritten {
        /// Its path.
        path: &'a str,
        /// Number of pins that are new or changed.
        changed: usize,
    },
    /// Something that happens to another recipe than the one that everything is for.
    In {
        /// What that recipe is called.
        recipe: &'a str,
        /// What happens.
        event: &'a Event<'a>,
    },
    /// The terminal is somebody else's from now on, until the build ends.
    HandedOver {
        /// A lower-case fragment that says whose.
        text: &'a str,
    },
    /// Something worth knowing that stops nothing.
    Note {
        /// A lower-case fragment.
        text: &'a str,
    },
}

/// Whoever is told of [`Event`]s; called from several threads at once.
pub trait Watch: Sync {
    /// Takes note of `event`.
    fn see(&self, event: Event<'_>);
}

/// Tests and quiet callers pass `&()`.
impl Watch for () {
    fn see(&self, _: Event<'_>) {}
}
