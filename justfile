# Every task by name. `just` alone lists them.

_list:
    @just --list

# What a change must pass before anything else: format and lints.
check:
    cargo fmt --all -- --check
    cargo clippy --workspace --all-targets -- -D warnings

# All tests, as whoever calls.
test *ARGS:
    cargo test --workspace {{ ARGS }}

# The tests that enter namespaces, with what they skip shown.
test-userns:
    cargo test --workspace --test integration -- --show-output run store reproduce docs

# Accepts the new wording of messages, after a look at the difference.
bless:
    INSTA_UPDATE=always cargo test --workspace
    git diff --stat -- tests/snapshots

# Licences, banned crates, sources of crates.
deny:
    cargo deny check licenses bans sources

# Feeds TARGET (see fuzz/) with bytes for a minute; needs cargo-fuzz and a nightly toolchain.
fuzz TARGET:
    cargo +nightly fuzz run {{ TARGET }} -- -max_total_time=60

# One static binary, in target/<triple>/release/mk.
release:
    cargo build --release -p mk

# Side-by-side measurements; needs root.
bench *ARGS="all":
    cargo run --release -p mk-bench -- {{ ARGS }}

# All that decides whether a change is taken, as root.
ci:
    bash .ci/run
