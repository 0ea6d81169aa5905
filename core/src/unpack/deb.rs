//! A Debian package: an ar archive (ar(5)) with the members `debian-binary`, `control.tar…` and `data.tar…` (deb(5)).
//! Only the last is laid.

use std::io::{self, BufRead, Read};

use crate::path::shown;

use super::bad::BadArchive;
use super::packed::Packed;

/// What every ar archive starts with.
pub(super) const MAGIC: &[u8] = b"!<arch>\n";
/// Size of a member's header.
const HEADER: usize = 60;
/// No package has more members; deb(5) knows three.
const MEMBERS: usize = 64;

/// Returns the bytes of `data.tar…`, packed as they are. `packed` stands at the start of the package.
pub(super) fn data<'a>(mut packed: Packed<'a>, archive: &str) -> Result<Packed<'a>, BadArchive> {
    let mut package = Package {
        packed: &mut packed,
        archive,
    };
    package.skip(MAGIC.len() as u64)?;
    let (name, size) = package.member()?;
    if name != b"debian-binary" {
        return Err(BadArchive::Unknown {
            archive: archive.to_owned(),
            found: "an ar archive that does not start with `debian-binary`".into(),
        });
    }
    package.version(size)?;
    for _ in 0..MEMBERS {
        let (name, size) = package.member()?;
        if name == b"data.tar" || name.starts_with(b"data.tar.") {
            let start = package.packed.taken();
            let member = Member {
                inner: packed,
                left: size,
            };
            return Ok(Packed::new(Box::new(member), start));
        }
        package.skip(size.saturating_add(size % 2))?;
    }
    Err(package.bad("there is no `data.tar` among its first members"))
}

struct Package<'p, 'a> {
    packed: &'p mut Packed<'a>,
    archive: &'p str,
}

impl Package<'_, '_> {
    fn bad(&self, why: impl Into<String>) -> BadArchive {
        BadArchive::Package {
            archive: self.archive.to_owned(),
            packed: self.packed.taken(),
            why: why.into(),
        }
    }

    fn unreadable(&self, cause: io::Error) -> BadArchive {
        BadArchive::Read {
            archive: self.archive.to_owned(),
            packed: self.packed.taken(),
            cause,
        }
    }

    /// Takes the header of the next member: its name and size.
    fn member(&mut self) -> Result<(Vec<u8>, u64), BadArchive> {
        let mut header = [0; HEADER];
        match self.packed.peek(HEADER) {
            Ok(bytes) if bytes.len() == HEADER => header.copy_from_slice(bytes),
            Ok([]) => return Err(self.bad("it ends before `data.tar`")),
            Ok(_) => return Err(self.bad("it breaks off inside the header of a member")),
            Err(cause) => return Err(self.unreadable(cause)),
        }
        if &header[58..] != b"`\n" {
            return Err(self.bad("expected the header of a member"));
        }
        let size = std::str::from_utf8(&header[48..58])
            .unwrap_or_default()
            .trim_end();
        let digits = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit());
        let Some(size) = digits.then(|| size.parse().ok()).flatten() else {
            return Err(self.bad("the size of a member is no number"));
        };
        self.packed.consume(HEADER);
        let name = header[..16].trim_ascii_end();
        // GNU ar closes names with a slash, dpkg-deb does not.
        Ok((name.strip_suffix(b"/").unwrap_or(name).to_vec(), size))
    }

    /// Takes the content of `debian-binary`, which must be of version 2.
    fn version(&mut self, size: u64) -> Result<(), BadArchive> {
        let version = match self.packed.peek(size.min(16) as usize) {
            Ok(version) => version.to_vec(),
            Err(cause) => return Err(self.unreadable(cause)),
        };
        if !version.starts_with(b"2.") {
            return Err(self.bad(format!(
                "expected format version 2.0, found `{}`",
                shown(version.trim_ascii_end())
            )));
        }
        self.skip(size.saturating_add(size % 2))
    }

    fn skip(&mut self, count: u64) -> Result<(), BadArchive> {
        let end = self.packed.taken().saturating_add(count);
        while self.packed.taken() < end {
            let ready = match self.packed.fill_buf() {
                Ok(ready) => ready.len(),
                Err(cause) => return Err(self.unreadable(cause)),
            };
            if ready == 0 {
                return Err(self.bad("it breaks off inside a member"));
            }
            let left = end - self.packed.taken();
            self.packed
                .consume(usize::try_from(left).map_or(ready, |left| left.min(ready)));
        }
        Ok(())
    }
}

/// The content of one member; fewer bytes than its header promises are an error.
struct Member<'a> {
    inner: Packed<'a>,
    left: u64,
}

impl Read for Member<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).map_or(into.len(), |left| left.min(into.len()));
        if most == 0 {
            return Ok(0);
        }
        match self.inner.read(&mut into[..most])? {
            0 => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the package ends {} bytes too early", self.left),
            )),
            got => {
                self.left -= got as u64;
                Ok(got)
            }
        }
    }
}
