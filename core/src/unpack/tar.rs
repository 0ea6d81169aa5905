//! tar in all its forms (tar(5)): v7, ustar, pax, GNU; with links, devices, sparse files and extended attributes.
//!
//! The crate `tar` knows the fields of a header. The walk from header to header is ours, because its own takes pax
//! values apart at newlines, keeps headers of any size in memory, and does not know the sparse files of pax.
//!
//! Where archives and their readers disagree: an entry of an unknown type is a regular file (POSIX says so); a volume
//! label is passed over; the rest of a file that began in another volume is an error; an archive may end without an end
//! marker, but only between entries; what comes after the marker is ignored.

use std::borrow::Cow;

use ::tar::Header;

use crate::entry::{Entry, Kind};
use crate::meta::Meta;
use crate::path::{LONGEST_PATH, TreePath};

use super::Summary;
use super::bad::BadArchive;
use super::body::Body;
use super::compress::Compression;
use super::header::{is_header, is_zero, number};
use super::limits::Limits;
use super::pax::Pax;
use super::sniff::looks_like;
use super::sparse::{self, BadMap, Map};
use super::stream::{BLOCK, Stream};

/// Hands every entry of the tar in `stream` to `visit`.
pub(super) fn entries<E: From<BadArchive>>(
    mut stream: Stream,
    limits: &Limits,
    visit: &mut dyn FnMut(Entry<Body<'_>>) -> Result<(), E>,
) -> Result<Summary, E> {
    is_tar(&mut stream)?;
    let mut walk = Walk {
        stream,
        limits,
        global: Pax::default(),
        summary: Summary::default(),
    };
    while let Some(member) = walk.next()? {
        walk.lay(member, visit)?;
    }
    let zeros = walk.stream.drain()?;
    // A disk image starts with zeros too.
    if walk.summary.entries == 0 && !zeros {
        return Err(unknown(&walk.stream, "zeros and then something else".into()).into());
    }
    Ok(walk.summary)
}

/// Looks whether the first block is one of a tar.
fn is_tar(stream: &mut Stream) -> Result<(), BadArchive> {
    let start = stream.peek(BLOCK)?;
    match <&[u8; BLOCK]>::try_from(start) {
        Ok(block) if is_header(block) || is_zero(block) => Ok(()),
        // The magic of ustar is in its place, but the end or the checksum is not.
        _ if start.get(257..262) == Some(b"ustar") && start.len() < BLOCK => {
            Err(stream.truncated("the first header"))
        }
        _ if start.get(257..262) == Some(b"ustar") => {
            Err(stream.malformed(0, "the checksum of the header is wrong"))
        }
        _ => {
            let found = looks_like(start);
            Err(unknown(stream, found))
        }
    }
}

fn unknown(stream: &Stream, found: String) -> BadArchive {
    BadArchive::Unknown {
        archive: stream.archive().to_owned(),
        found: match stream.compression() {
            Compression::Plain => found,
            packed => format!("{found} (inside {packed})"),
        },
    }
}

/// A header and all that others have said about it.
struct Member {
    /// Where its own header is.
    offset: u64,
    header: Header,
    /// The path as written.
    path: Vec<u8>,
    /// The link target as written.
    link: Vec<u8>,
    pax: Pax,
    /// Whether a pax header of its own came before.
    has_pax: bool,
    /// Bytes of data that follow, going by the header.
    stored: u64,
}

impl Member {
    fn kind(&self) -> u8 {
        self.header.as_old().linkflag[0]
    }

    /// Whether it is a regular file (not counting GNU's sparse ones).
    fn is_regular(&self) -> bool {
        !matches!(self.kind(), b'1'..=b'6' | b'D' | b'S') && !self.is_folder()
    }

    /// v7 knows no folders but by a closing slash.
    fn is_folder(&self) -> bool {
        matches!(self.kind(), b'5' | b'D') || matches!(self.kind(), 0 | b'0') && self.path.ends_with(b"/")
    }
}

/// What extension headers have said so far about the next member.
#[derive(Default)]
struct Ahead {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<Vec<u8>>,
}

impl Ahead {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.pax.is_none()
    }
}

struct Walk<'l> {
    stream: Stream,
    limits: &'l Limits,
    global: Pax,
    summary: Summary,
}

impl Walk<'_> {
    /// Takes headers up to the next one that is a file of its own; `None` at the end.
    fn next(&mut self) -> Result<Option<Member>, BadArchive> {
        let mut ahead = Ahead::default();
        loop {
            let offset = self.stream.offset();
            let block = self.stream.block("a header")?.filter(|block| !is_zero(block));
            let Some(block) = block else {
                return match ahead.is_empty() {
                    true => Ok(None),
                    false => Err(self
                        .stream
                        .malformed(offset, "expected the entry that the header before is about")),
                };
            };
            if !is_header(&block) {
                return Err(self
                    .stream
                    .malformed(offset, "the checksum of the header is wrong"));
            }
            let header = read_header(block);
            let stored = self.field(offset, &header.as_old().size, "size")?.unwrap_or(0);
            let Ok(stored) = u64::try_from(stored) else {
                return Err(self.stream.malformed(offset, "the size of an entry is negative"));
            };
            match header.as_old().linkflag[0] {
                b'x' | b'X' if ahead.pax.is_some() => {
                    return Err(self
                        .stream
                        .malformed(offset, "two pax headers describe one entry"));
                }
                b'x' | b'X' => ahead.pax = Some(self.extension(stored)?),
                b'g' => {
                    let text = self.extension(stored)?;
                    let read = self.global.read(&text, self.limits.stretches);
                    read.map_err(|why| self.stream.malformed(offset, why))?;
                }
                b'L' => ahead.path = Some(until_nul(self.extension(stored)?)),
                b'K' => ahead.link = Some(until_nul(self.extension(stored)?)),
                // A volume label; Solaris' access lists.
                b'V' | b'A' => self.skip_data(stored)?,
                b'M' => {
                    let why = "the rest of a file from another volume: only whole archives can be unpacked";
                    return Err(BadArchive::entry(
                        self.stream.archive(),
                        offset,
                        &header.path_bytes(),
                        why,
                    ));
                }
                _ => return self.member(offset, header, stored, ahead).map(Some),
            }
        }
    }

    /// Puts together what was said about the member at `offset`. pax has the last word.
    fn member(&self, offset: u64, header: Header, stored: u64, ahead: Ahead) -> Result<Member, BadArchive> {
        let has_pax = ahead.pax.is_some();
        let mut pax = self.global.clone();
        if let Some(text) = ahead.pax {
            let read = pax.read(&text, self.limits.stretches);
            read.map_err(|why| self.stream.malformed(offset, why))?;
        }
        let named = pax.sparse.name.take().or(pax.path.take()).or(ahead.path);
        let linked = pax.linkpath.take().or(ahead.link);
        Ok(Member {
            offset,
            path: named.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: linked.unwrap_or_else(|| header.link_name_bytes().map(Cow::into_owned).unwrap_or_default()),
            stored: pax.size.unwrap_or(stored),
            header,
            pax,
            has_pax,
        })
    }

    /// Hands `member` to `visit` and goes on to the next header.
    fn lay<E: From<BadArchive>>(
        &mut self,
        mut member: Member,
        visit: &mut dyn FnMut(Entry<Body<'_>>) -> Result<(), E>,
    ) -> Result<(), E> {
        let path = self.path(&member)?;
        let meta = self.meta(&member)?;
        let data = self.stream.offset();
        let (kind, map) = self.kind(&mut member)?;
        if path.is_root() && !matches!(kind, Kind::Folder) {
            return Err(self
                .entry(&member, "the root of an archive can only be a folder")
                .into());
        }
        // Maps of sparse files lie between the header and the data; only format 1.0 counts them as data.
        let data = if member.kind() == b'S' {
            self.stream.offset()
        } else {
            data
        };
        let Some(end) = data.checked_add(member.stored) else {
            return Err(self.entry(&member, "its size is beyond 64 bits").into());
        };
        self.count(&meta, &map)?;

        let kind = match kind {
            Kind::File(()) => Kind::File(Body::new(&mut self.stream, map.size, &map.stretches)),
            Kind::Folder => Kind::Folder,
            Kind::Symlink(target) => Kind::Symlink(target),
            Kind::HardLink(target) => Kind::HardLink(target),
            Kind::Device { block, major, minor } => Kind::Device { block, major, minor },
            Kind::Fifo => Kind::Fifo,
        };
        let visited = visit(Entry { path, meta, kind });
        if let Some(fault) = self.stream.fault() {
            return Err(fault.into());
        }
        visited?;
        self.stream.skip_to(end, "the content of a file")?;
        Ok(self.pad()?)
    }

    /// Returns what the member is and, for a file, what of it is stored.
    fn kind(&mut self, member: &mut Member) -> Result<(Kind<()>, Map), BadArchive> {
        let nothing = Map {
            size: 0,
            stretches: Vec::new(),
        };
        if member.kind() == b'S' {
            let map = match member.header.as_gnu() {
                Some(header) => sparse::gnu(&mut self.stream, header, member.stored, self.limits),
                None => Err("a sparse file outside of a GNU archive".to_owned().into()),
            };
            return Ok((Kind::File(()), self.map(member, map)?));
        }
        if member.is_regular() {
            let keys = std::mem::take(&mut member.pax.sparse);
            let map = match keys.is_used() {
                true => sparse::pax(&mut self.stream, keys, member.stored, self.limits),
                false => Ok(Map::whole(member.stored)),
            };
            return Ok((Kind::File(()), self.map(member, map)?));
        }
        self.settle_size(member)?;
        let kind = match member.kind() {
            b'1' => Kind::HardLink(self.link(member)?),
            b'2' => Kind::Symlink(self.target(member)?),
            b'3' | b'4' => self.device(member)?,
            b'6' => Kind::Fifo,
            _ => Kind::Folder,
        };
        Ok((kind, nothing))
    }

    /// Decides whether data follows a member that needs none, such as a hard link. Old writers put the size of the
    /// target there without its bytes; pax writers may store them again. pax is believed, others are looked at.
    fn settle_size(&mut self, member: &mut Member) -> Result<(), BadArchive> {
        if member.stored == 0 || member.has_pax || member.kind() == b'D' {
            return Ok(());
        }
        let next = self.stream.peek(BLOCK)?;
        let ends = match <&[u8; BLOCK]>::try_from(next) {
            Ok(block) => is_zero(block) || is_header(block),
            Err(_) => next.is_empty(),
        };
        if ends {
            member.stored = 0;
        }
        Ok(())
    }

    fn map(&self, member: &Member, map: Result<Map, BadMap>) -> Result<Map, BadArchive> {
        map.map_err(|bad| match bad {
            BadMap::Why(why) => self.entry(member, why),
            BadMap::Stream(bad) => bad,
        })
    }

    fn path(&self, member: &Member) -> Result<TreePath, BadArchive> {
        if member.path.is_empty() {
            return Err(self.entry(member, "it has no name"));
        }
        let path = TreePath::normalise(&member.path).map_err(|bad| self.entry(member, bad.why))?;
        if path.names().count() > self.limits.depth {
            return Err(self
                .stream
                .too_large(self.limits.depth as u64, "names in one path"));
        }
        Ok(path)
    }

    fn link(&self, member: &Member) -> Result<TreePath, BadArchive> {
        match TreePath::normalise(&member.link) {
            Ok(target) if target.is_root() => {
                Err(self.entry(member, "a hard link to nothing or to the root"))
            }
            Ok(target) => Ok(target),
            Err(bad) => Err(self.entry(member, format!("a hard link to `{}`: {}", bad.path, bad.why))),
        }
    }

    fn target(&self, member: &Member) -> Result<Box<[u8]>, BadArchive> {
        match member.link.as_slice() {
            [] => Err(self.entry(member, "a symbolic link without a target")),
            target if target.len() > LONGEST_PATH => {
                Err(self.entry(member, "a target longer than 4095 bytes"))
            }
            target if target.contains(&0) => Err(self.entry(member, "a target with a NUL byte")),
            target => Ok(target.into()),
        }
    }

    fn device(&self, member: &Member) -> Result<Kind<()>, BadArchive> {
        // Both fields lie behind the magic of ustar and GNU alike.
        let fields = member.header.as_bytes();
        let number = |given: Option<u32>, field: &[u8], what| match given {
            Some(number) => Ok(number),
            None => {
                let value = self.field(member.offset, field, what)?.unwrap_or(0);
                u32::try_from(value).map_err(|_| self.entry(member, format!("its {what} number is {value}")))
            }
        };
        Ok(Kind::Device {
            block: member.kind() == b'4',
            major: number(member.pax.major, &fields[329..337], "major")?,
            minor: number(member.pax.minor, &fields[337..345], "minor")?,
        })
    }

    fn meta(&self, member: &Member) -> Result<Meta, BadArchive> {
        let header = member.header.as_old();
        let mode = self.field(member.offset, &header.mode, "mode")?.unwrap_or(0);
        let mtime = match member.pax.mtime {
            Some(mtime) => mtime,
            None => self
                .field(member.offset, &header.mtime, "modification time")?
                .unwrap_or(0),
        };
        let mut meta = Meta::new((mode & 0o7777) as u16, mtime);
        meta.uid = self.owner(member, member.pax.uid, &header.uid, "owner")?;
        meta.gid = self.owner(member, member.pax.gid, &header.gid, "group")?;
        for (name, value) in &member.pax.xattrs {
            meta.keep_xattr(name, value);
        }
        Ok(meta)
    }

    fn owner(
        &self,
        member: &Member,
        given: Option<i64>,
        field: &[u8],
        what: &str,
    ) -> Result<u32, BadArchive> {
        let id = match given {
            Some(id) => id,
            None => self.field(member.offset, field, what)?.unwrap_or(0),
        };
        match u32::try_from(id) {
            // chown(2) takes the highest one for "leave it as it is".
            Ok(id) if id != u32::MAX => Ok(id),
            _ => Err(self.entry(member, format!("its {what} is {id}: expected 0 to 4294967294"))),
        }
    }

    /// Counts a member against the limits before anyone sees it.
    fn count(&mut self, meta: &Meta, map: &Map) -> Result<(), BadArchive> {
        self.summary.entries += 1;
        if self.summary.entries > self.limits.entries {
            return Err(self.stream.too_large(self.limits.entries, "entries"));
        }
        self.summary.bytes = self.summary.bytes.saturating_add(map.size);
        if self.summary.bytes > self.limits.bytes {
            return Err(self.stream.too_large(self.limits.bytes, "bytes of content"));
        }
        self.summary.newest = self.summary.newest.max(Some(meta.mtime));
        Ok(())
    }

    /// Takes the data of a header that describes another.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, BadArchive> {
        const INSIDE: &str = "a header that describes an entry";
        if size > self.limits.header {
            return Err(self.stream.too_large(self.limits.header, "bytes in one header"));
        }
        let mut text = Vec::new();
        let mut left = size;
        while left > 0 {
            let ready = self.stream.ready()?;
            if ready.is_empty() {
                return Err(self.stream.truncated(INSIDE));
            }
            let count = usize::try_from(left).map_or(ready.len(), |left| left.min(ready.len()));
            text.extend_from_slice(&ready[..count]);
            self.stream.take(count);
            left -= count as u64;
        }
        self.pad()?;
        Ok(text)
    }

    fn skip_data(&mut self, size: u64) -> Result<(), BadArchive> {
        let end = self.stream.offset().saturating_add(size);
        self.stream.skip_to(end, "an entry")?;
        self.pad()
    }

    /// Takes what fills the last block of some data.
    fn pad(&mut self) -> Result<(), BadArchive> {
        let end = self.stream.offset().next_multiple_of(BLOCK as u64);
        self.stream.skip_to(end, "the last block of an entry")
    }

    fn field(&self, offset: u64, field: &[u8], what: &str) -> Result<Option<i64>, BadArchive> {
        match number(field) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(self
                .stream
                .malformed(offset, format!("the {what} in a header is no number"))),
        }
    }

    fn entry(&self, member: &Member, why: impl Into<String>) -> BadArchive {
        BadArchive::entry(self.stream.archive(), member.offset, &member.path, why)
    }
}

/// Returns the header in `block`. Some writers leave out the version, without which the crate takes no prefix.
fn read_header(block: [u8; BLOCK]) -> Header {
    let mut header = Header::new_old();
    *header.as_mut_bytes() = block;
    if &block[257..263] == b"ustar\0" {
        header.as_mut_bytes()[263..265].copy_from_slice(b"00");
    }
    header
}

/// GNU tar closes its long names with a NUL.
fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    name.truncate(end);
    name
}
