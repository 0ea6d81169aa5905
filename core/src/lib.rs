//! Everything mk does, without a terminal: a recipe becomes an image, an image becomes a running container.
//!
//! Read the modules from top to bottom; that is the order of the data. A module imports only from those above it
//! (`core/tests/layers.rs` reads the `use` lines and fails otherwise).

/// The name of some bytes; a writer and a reader that compute it in passing.
pub mod digest;

/// A path inside an image, which cannot leave it.
pub mod path;

/// Mode, owner, time and extended attributes of one file, and how they are made reproducible.
pub mod meta;

/// One file as an archive, a folder or a layer tells it.
pub mod entry;

/// Patterns: one place where they get their meaning.
pub mod glob;

/// What long work tells whoever is watching.
pub mod watch;

/// The kernel: the only module with `unsafe`, and the only one that makes calls of its own to clone, mount or open.
#[expect(unsafe_code, reason = "kernel calls live here and nowhere else")]
pub mod sys;

/// Text → Recipe. Pure.
pub mod recipe;

/// Recipe + Lock → Plan. Pure.
pub mod plan;

/// Pinned source → verified bytes.
pub mod fetch;

/// Bytes → entries, without touching the disk.
pub mod unpack;

/// Entries → Tree. Pure.
pub mod tree;

/// Tree and objects ↔ disk.
pub mod store;

/// An image as an archive or a folder outside of the store.
pub mod export;

/// Which system calls a program may make. Pure.
pub mod seccomp;

/// The image's defaults plus what was asked. Pure.
pub mod spec;

/// Image in the store → a folder ready to be entered.
pub mod rootfs;

/// Rootfs + RunSpec → what must be in place before the program starts.
pub mod mounts;

/// What a network namespace is given.
pub mod net;

/// Limits → cgroups, which end with the container.
pub mod cgroup;

/// Mounts → a running program → an exit status.
pub mod process;

/// What is known of a container from outside: its folder, its lock, its log.
pub mod container;

/// What a running container uses: its processes, and what they take.
pub mod usage;

/// A container + its image → what the container changed.
pub mod changes;

/// Two things with files in them, to be compared.
pub mod compare;

/// Image + RunSpec → exit status: the second of the two journeys, and a step of the first.
pub mod enter;

/// Recipe → image: the first.
pub mod assemble;

/// What this kernel, this user and this machine can do.
pub mod doctor;

/// A container that runs + a command → exit status.
pub mod join;
