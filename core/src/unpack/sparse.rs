//! Sparse files: which stretches of them an archive holds, in the four ways there are to say so. What comes out is
//! checked: in order, apart, within the file, and as many bytes as the archive stores.

use tar::GnuHeader;

use super::body::Stretch;
use super::header::number;
use super::pax::{Sparse, unsigned};
use super::stream::{BLOCK, Stream};
use super::{BadArchive, Limits};

/// What of a file is stored.
pub(super) struct Map {
    /// Size of the file with its holes.
    pub(super) size: u64,
    /// What of it holds data.
    pub(super) stretches: Vec<Stretch>,
}

impl Map {
    /// Returns the map of a file without holes.
    pub(super) fn whole(size: u64) -> Self {
        Self {
            size,
            stretches: vec![Stretch {
                offset: 0,
                length: size,
            }],
        }
    }

    /// Says what is wrong with the map of a file of which `stored` bytes are in the archive.
    fn check(self, stored: u64) -> Result<Self, String> {
        let mut end = 0u64;
        let mut sum = 0u64;
        for stretch in &self.stretches {
            if stretch.offset < end {
                return Err("the stretches of a sparse file overlap or are out of order".into());
            }
            // Readers disagree on whether a stretch begins at a block or right behind the one before; where all but
            // the last fill their blocks, both are right.
            if !sum.is_multiple_of(BLOCK as u64) && stretch.length > 0 {
                return Err("a stretch of a sparse file does not fill its blocks".into());
            }
            end = stretch.offset.saturating_add(stretch.length);
            sum = sum.saturating_add(stretch.length);
        }
        if end > self.size {
            return Err(format!(
                "a sparse file of {} bytes has data at byte {end}",
                self.size
            ));
        }
        if sum != stored {
            return Err(format!(
                "a sparse file has {sum} bytes of data, of which {stored} are stored"
            ));
        }
        Ok(self)
    }
}

/// A complaint about a sparse file: about its map, or from the stream.
pub(super) enum BadMap {
    Why(String),
    Stream(BadArchive),
}

impl From<String> for BadMap {
    fn from(why: String) -> Self {
        Self::Why(why)
    }
}

impl From<BadArchive> for BadMap {
    fn from(bad: BadArchive) -> Self {
        Self::Stream(bad)
    }
}

/// Reads the map that the pax records, or the start of the data (format 1.0), hold. `stored` counts that start too.
pub(super) fn pax(stream: &mut Stream, sparse: Sparse, stored: u64, limits: &Limits) -> Result<Map, BadMap> {
    let size = sparse
        .size
        .ok_or_else(|| "a sparse file says nothing of its size".to_owned())?;
    match sparse.version {
        (None, None) | (Some(0), _) => {
            if sparse.offset.is_some() || sparse.count.is_some_and(|count| count != sparse.map.len() as u64) {
                return Err("the map of a sparse file is incomplete".to_owned().into());
            }
            let stretches = sparse.map;
            Ok(Map { size, stretches }.check(stored)?)
        }
        (Some(1), None | Some(0)) => {
            let start = stream.offset();
            let stretches = map_in_data(stream, start, stored, limits)?;
            let map_size = stream.offset() - start;
            Ok(Map { size, stretches }.check(stored - map_size)?)
        }
        _ => Err("a sparse file of a format later than 1.0".to_owned().into()),
    }
}

/// Reads decimal numbers, a line each, padded to whole blocks: how many stretches, then offset and length of each.
fn map_in_data(
    stream: &mut Stream,
    start: u64,
    stored: u64,
    limits: &Limits,
) -> Result<Vec<Stretch>, BadMap> {
    let mut lines = Lines {
        stream,
        block: [0; BLOCK],
        at: BLOCK,
        end: start.saturating_add(stored),
    };
    let count = lines.number()?;
    if count > limits.stretches {
        return Err(lines
            .stream
            .too_large(limits.stretches, "stretches in a sparse file")
            .into());
    }
    let mut stretches = Vec::new();
    for _ in 0..count {
        let offset = lines.number()?;
        let length = lines.number()?;
        stretches.push(Stretch { offset, length });
    }
    Ok(stretches)
}

struct Lines<'a> {
    stream: &'a mut Stream,
    block: [u8; BLOCK],
    at: usize,
    end: u64,
}

impl Lines<'_> {
    fn number(&mut self) -> Result<u64, BadMap> {
        let mut digits = Vec::new();
        loop {
            if self.at == BLOCK {
                if self.stream.offset().saturating_add(BLOCK as u64) > self.end {
                    return Err("the map of a sparse file is longer than its data"
                        .to_owned()
                        .into());
                }
                self.block = match self.stream.block("the map of a sparse file")? {
                    Some(block) => block,
                    None => return Err(self.stream.truncated("the map of a sparse file").into()),
                };
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return Ok(unsigned(&digits)?);
            }
            // u64 has 20 digits at the most.
            if digits.len() == 20 {
                return Err("the map of a sparse file holds no number".to_owned().into());
            }
            digits.push(byte);
        }
    }
}

/// Reads the map of GNU tar's own format: four stretches in the header, 21 in each block that follows.
pub(super) fn gnu(
    stream: &mut Stream,
    header: &GnuHeader,
    stored: u64,
    limits: &Limits,
) -> Result<Map, BadMap> {
    let size = field(&header.realsize)?;
    let mut stretches = Vec::new();
    for sparse in &header.sparse {
        stretches.extend(stretch(&sparse.offset, &sparse.numbytes)?);
    }
    let mut more = header.isextended[0] != 0;
    while more {
        let Some(block) = stream.block("the map of a sparse file")? else {
            return Err(stream.truncated("the map of a sparse file").into());
        };
        for pair in block[..504].chunks_exact(24) {
            stretches.extend(stretch(&pair[..12], &pair[12..])?);
        }
        if stretches.len() as u64 > limits.stretches {
            return Err(stream
                .too_large(limits.stretches, "stretches in a sparse file")
                .into());
        }
        more = block[504] != 0;
    }
    Ok(Map { size, stretches }.check(stored)?)
}

fn stretch(offset: &[u8], length: &[u8]) -> Result<Option<Stretch>, String> {
    if offset[0] == 0 || length[0] == 0 {
        return Ok(None);
    }
    let (offset, length) = (field(offset)?, field(length)?);
    Ok(Some(Stretch { offset, length }))
}

fn field(field: &[u8]) -> Result<u64, String> {
    match number(field) {
        Some(Ok(value)) if value >= 0 => Ok(value.unsigned_abs()),
        _ => Err("the map of a sparse file holds no number".to_owned()),
    }
}
