//! Bytes → entries, without touching the disk.
//!
//! What an archive is (tar; or a Debian package, of which `data.tar` is laid) and how it is compressed (gzip, xz, zstd
//! or not at all) is told by its content, never by its name. The bytes pass through the files in this order: `packed`
//! (as they come), `deb`, `compress`, `stream` (unpacked, made ahead in a thread of their own), `tar`, `body`. Archives
//! are not trusted: every path is checked, every number is limited by [`Limits`], and no memory is set aside because an
//! archive says so.

use std::io::Read;
use std::thread;

use crate::entry::Entry;

mod bad;
mod body;
mod compress;
mod deb;
mod header;
mod limits;
mod packed;
mod pax;
mod select;
mod sniff;
mod sparse;
mod stream;
mod tar;

pub use bad::BadArchive;
pub use body::Body;
pub use compress::Compression;
pub use limits::Limits;
pub use select::Selector;

use compress::Decoder;
use packed::Packed;
use stream::Stream;

/// What an archive was, all in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Number of entries that were visited.
    pub entries: u64,
    /// Bytes that its files hold, with their holes.
    pub bytes: u64,
    /// The newest modification time in it, in seconds since 1970 UTC.
    pub newest: Option<i64>,
}

/// Hands every entry of the archive in `input` to `visit`, in the order of the archive. `name` is what messages call it.
///
/// A visit need not read the body that it is handed. When a visit fails, its error is returned and nothing more is read,
/// unless it failed because reading the body has met a bad archive: then that is returned.
pub fn entries<E: From<BadArchive>>(
    name: &str,
    input: impl Read + Send,
    limits: &Limits,
    visit: &mut dyn FnMut(Entry<Body<'_>>) -> Result<(), E>,
) -> Result<Summary, E> {
    let decoder = open(name, Packed::new(Box::new(input), 0), limits)?;
    // The stream is dropped before the scope waits for the thread, which then finds nobody listening and ends.
    thread::scope(|scope| {
        let stream = Stream::start(scope, decoder, name, limits)?;
        tar::entries(stream, limits, visit)
    })
}

/// Returns the decoder of the tar in `packed`.
fn open<'a>(name: &str, mut packed: Packed<'a>, limits: &Limits) -> Result<Decoder<'a>, BadArchive> {
    let is_deb = match packed.peek(deb::MAGIC.len()) {
        Ok(start) => start == deb::MAGIC,
        Err(cause) => {
            return Err(BadArchive::Read {
                archive: name.to_owned(),
                packed: 0,
                cause,
            });
        }
    };
    if is_deb {
        packed = deb::data(packed, name)?;
    }
    Decoder::new(packed, name, limits)
}
