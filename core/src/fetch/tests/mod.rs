//! Transfers as a whole, against servers and archives made here. What needs neither is tested in its own file.

use std::sync::Mutex;

use super::*;

mod archive;
mod debian;
mod http;
mod local;
#[path = "../../../../tests/harness/server.rs"]
mod server;

mod signer;

use server::{Answer, Server};

/// Returns settings that give up soon.
fn impatient() -> Settings {
    let mut settings = Settings::new(SystemTime::now());
    settings.patience = Patience {
        connect: Duration::from_secs(5),
        read: Duration::from_secs(5),
        tries: 4,
        back_off: Duration::from_millis(1),
        longest_back_off: Duration::from_millis(5),
    };
    settings
}

/// Returns `size` bytes, no two stretches of which are alike.
fn bytes(size: usize) -> Vec<u8> {
    let mut state = 1u64;
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// Returns a pin of `body` at `origin`, its size known.
fn pinned(origin: Origin, body: &[u8]) -> Pinned {
    Pinned {
        name: "thing".into(),
        origin,
        sha256: Digest::of(body),
        size: Some(body.len() as u64),
    }
}

/// Remembers what it was told, one short line each.
#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Watch for Seen {
    fn see(&self, event: Event<'_>) {
        let line = match event {
            Event::FetchStarted { name, size, .. } => format!("started {name} {size:?}"),
            Event::FetchRetried { why, .. } => format!("retried: {why}"),
            Event::FetchFinished { name, size } => format!("finished {name} {size}"),
            Event::Note { text } => format!("note: {text}"),
            _ => return,
        };
        self.0.lock().unwrap().push(line);
    }
}

impl Seen {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// Returns an error with its causes, in one line.
fn whole(error: &Error) -> String {
    held::chain(error)
}
