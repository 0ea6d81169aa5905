//! [`Compression`]: how bytes are compressed, told by their magic number, and [`Decoder`], which undoes it.

use std::fmt;
use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream as XzStream};

use super::bad::BadArchive;
use super::limits::Limits;
use super::packed::Packed;

/// How the bytes of an archive are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip (RFC 1952), of one or several members.
    Gzip,
    /// xz, of one or several streams.
    Xz,
    /// Zstandard (RFC 8878), of one or several frames.
    Zstd,
}

impl Compression {
    /// Tells by the first bytes; six are enough.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // The second form is a frame that decoders skip; pzstd puts one in front.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "uncompressed",
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

/// Reads what compressed bytes stand for.
pub(super) enum Decoder<'a> {
    Plain(Packed<'a>),
    Gzip(Gzip<'a>),
    Xz(Box<XzDecoder<Packed<'a>>>),
    Zstd(Box<zstd::Decoder<'static, Packed<'a>>>),
}

impl<'a> Decoder<'a> {
    /// Returns the decoder that the first bytes of `packed` call for.
    pub(super) fn new(mut packed: Packed<'a>, archive: &str, limits: &Limits) -> Result<Self, BadArchive> {
        let compression = match packed.peek(6) {
            Ok(start) => Compression::of(start),
            Err(cause) => return Err(Self::Plain(packed).failure(archive, cause)),
        };
        let refused = |cause| BadArchive::Damaged {
            archive: archive.to_owned(),
            compression,
            packed: 0,
            cause,
        };
        Ok(match compression {
            Compression::Plain => Self::Plain(packed),
            Compression::Gzip => Self::Gzip(Gzip::Member(Box::new(GzDecoder::new(packed)))),
            Compression::Xz => {
                let stream = XzStream::new_stream_decoder(limits.memory, CONCATENATED)
                    .map_err(|error| refused(error.into()))?;
                Self::Xz(Box::new(XzDecoder::new_stream(packed, stream)))
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(packed).map_err(refused)?;
                // zstd knows windows from 2^10 to 2^31 bytes (zstd.h, ZSTD_d_windowLogMax).
                let window = limits.memory.max(1).ilog2().clamp(10, 31);
                decoder.window_log_max(window).map_err(refused)?;
                Self::Zstd(Box::new(decoder))
            }
        })
    }

    /// Returns how its input is compressed.
    pub(super) fn compression(&self) -> Compression {
        match self {
            Self::Plain(_) => Compression::Plain,
            Self::Gzip(_) => Compression::Gzip,
            Self::Xz(_) => Compression::Xz,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// Returns what to tell of `cause`, which a read has given.
    pub(super) fn failure(&self, archive: &str, cause: io::Error) -> BadArchive {
        let input = match self {
            Self::Plain(packed) | Self::Gzip(Gzip::Done(packed)) => Some(packed),
            Self::Gzip(Gzip::Member(decoder)) => Some(decoder.get_ref()),
            Self::Gzip(Gzip::Moving) => None,
            Self::Xz(decoder) => Some(decoder.get_ref()),
            Self::Zstd(decoder) => Some(decoder.get_ref()),
        };
        let packed = input.map_or(0, Packed::taken);
        let archive = archive.to_owned();
        if matches!(self, Self::Plain(_)) || input.is_some_and(Packed::failed) {
            return BadArchive::Read {
                archive,
                packed,
                cause,
            };
        }
        BadArchive::Damaged {
            archive,
            compression: self.compression(),
            packed,
            cause,
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(packed) => packed.read(into),
            Self::Gzip(decoder) => decoder.read(into),
            Self::Xz(decoder) => decoder.read(into),
            Self::Zstd(decoder) => decoder.read(into),
        }
    }
}

/// gzip members one after the other. Zeros behind the last one are padding (of tapes), as gzip(1) has it; anything else
/// there is damage.
pub(super) enum Gzip<'a> {
    Member(Box<GzDecoder<Packed<'a>>>),
    Moving,
    Done(Packed<'a>),
}

impl Read for Gzip<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let Self::Member(decoder) = self else { return Ok(0) };
            match decoder.read(into)? {
                0 if !into.is_empty() => {}
                got => return Ok(got),
            }
            let Self::Member(decoder) = std::mem::replace(self, Self::Moving) else {
                return Ok(0);
            };
            let mut packed = decoder.into_inner();
            let next = after_member(&mut packed);
            *self = match next {
                Ok(true) => Self::Member(Box::new(GzDecoder::new(packed))),
                Ok(false) | Err(_) => Self::Done(packed),
            };
            next?;
        }
    }
}

/// Says whether another member follows.
fn after_member(packed: &mut Packed<'_>) -> io::Result<bool> {
    let mut padded = false;
    loop {
        let ready = packed.fill_buf()?;
        if ready.is_empty() {
            return Ok(false);
        }
        let zeros = ready.iter().take_while(|&&byte| byte == 0).count();
        if zeros == 0 {
            break;
        }
        padded = true;
        packed.consume(zeros);
    }
    match packed.peek(2)? {
        [0x1f, 0x8b] if !padded => Ok(true),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "there is garbage behind the last member",
        )),
    }
}
