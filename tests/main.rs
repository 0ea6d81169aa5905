//! One binary of tests over the real `mk`. What can be tested lower down is tested there.

/// A home, a store and a folder of their own for each test, and the `mk` to call there.
mod harness;

/// The command line itself: help, version, what goes to which stream, exit codes.
mod cli;

/// Wrong recipes and wrong command lines, each one that a person would write, with the whole answer as a snapshot.
mod mistakes;

/// What README.md and docs/ show in `console` blocks, typed as a newcomer would.
mod docs;

/// What is there to be copied: examples/ and images/.
mod examples;

/// Archives in images: as other programs unpack them, and what those that mean harm achieve.
mod archives;

/// Recipes that become images: what verbs do, what is done again and what is not.
mod build;

/// What lies beside recipes: what is read of it, and what is taken.
mod context;

/// Recipes that start from others, or take something from them.
mod family;

/// Stores on other filesystems, on a full one, and a store that is moved.
mod filesystems;

/// What differs between two things with files in them.
mod diff;

/// What is reproducible, and what only looks so.
mod check;

/// What a build would do.
mod plan;

/// The schema for editors.
mod schema;

/// The examples of docs/recipe.md: whether they are all there, and whether they can be built.
mod reference;

/// What images take.
mod du;

/// What commands are granted besides their tree.
mod granted;

/// Commands that make a part of an image.
mod commands;

/// A store in which something is damaged, made whole again.
mod repair;

/// One recipe, one digest, in whatever surroundings.
mod reproduce;

/// Entering an image: what a command sees and can do, how it ends, and what is left of it.
mod run;

/// Containers on networks: whom they reach, who reaches them, and what is left of it.
mod network;

/// Going into a container that runs, and looking into it from outside.
mod exec;

/// What this machine can do, as `mk doctor` tells it.
mod doctor;

/// Containers that others know of: by name, in the background, with their logs and their ends.
mod life;

/// Pins, locks, mirrors and source folders.
mod sources;

/// Every known way out of a container, each with a control that shows that it is one.
mod security;

/// Builds that are killed or meet, a full disk, damage, and taking out the garbage.
mod store;
