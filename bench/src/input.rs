//! Input that takes long to make: archives of many files, of one large file, and of a distribution.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::machine::{self, GZIP, MMDEBSTRAP, XZ, ZSTD};
use crate::{Bench, Error};

/// Writes a tar archive of `count` files in folders of a thousand, of some bytes each, no two alike. Where `changed` names a file by its
/// number, that one has other bytes.
pub(crate) fn many_files(path: &Path, count: usize, changed: Option<usize>) -> Result<(), Error> {
    let mut archive = tar::Builder::new(io::BufWriter::new(fs_err::File::create(path)?));
    for number in 0..count {
        let word = if changed == Some(number) {
            "changed"
        } else {
            "file"
        };
        let bytes = format!("{word} {number}\n");
        let name = format!("many/{:04}/{number}", number / 1000);
        append(&mut archive, &name, bytes.len() as u64, bytes.as_bytes())?;
    }
    archive.into_inner()?.flush()?;
    Ok(())
}

/// Writes a tar archive of one file of `size` bytes which no program can pack.
pub(crate) fn one_large_file(path: &Path, size: u64) -> Result<(), Error> {
    let mut archive = tar::Builder::new(io::BufWriter::new(fs_err::File::create(path)?));
    append(&mut archive, "large", size, Noise(7).take(size))?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    bytes: impl Read,
) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    Ok(archive.append_data(&mut header, name, bytes)?)
}

/// Bytes without a pattern (xorshift64), always the same.
struct Noise(u64);

impl Read for Noise {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        for chunk in into.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
        Ok(into.len())
    }
}

/// How an archive is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    Plain,
    /// By gzip, as usual.
    Gzip,
    /// By xz, as usual.
    Xz,
    /// By zstd, as usual.
    Zstd,
}

impl Packing {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Gzip, Self::Xz, Self::Zstd, Self::Plain];

    /// What names of such archives end in.
    fn ending(self) -> &'static str {
        match self {
            Self::Plain => "tar",
            Self::Gzip => "tar.gz",
            Self::Xz => "tar.xz",
            Self::Zstd => "tar.zst",
        }
    }
}

/// Returns an archive of a small Debian (about 170 MB, 8,700 files), made by mmdebstrap from the mirror that this machine
/// uses. It stays for the next call, and so do its packed forms.
pub(crate) fn debian(bench: &Bench, packing: Packing) -> Result<PathBuf, Error> {
    let path = bench.kept.join(format!("debian.{}", packing.ending()));
    if path.exists() {
        return Ok(path);
    }
    fs_err::create_dir_all(&bench.kept)?;
    // Whoever is interrupted leaves nothing that looks whole.
    let made = bench.folder.join("debian.made");
    match packing {
        Packing::Plain => mmdebstrap(&made, &[])?,
        Packing::Gzip => pack(GZIP.find()?, &["-9n"], &debian(bench, Packing::Plain)?, &made)?,
        Packing::Xz => pack(XZ.find()?, &["-6"], &debian(bench, Packing::Plain)?, &made)?,
        Packing::Zstd => pack(
            ZSTD.find()?,
            &["-q", "-19"],
            &debian(bench, Packing::Plain)?,
            &made,
        )?,
    }
    fs_err::rename(&made, &path)?;
    Ok(path)
}

/// Returns the release that this machine is of, and the files that say where its packages come from.
pub(crate) fn sources() -> Result<(String, Vec<PathBuf>), Error> {
    let release = fs_err::read_to_string("/etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .unwrap_or("stable")
        .to_owned();
    let folder = Path::new("/etc/apt/sources.list.d");
    let mut files: Vec<PathBuf> = Vec::new();
    if folder.exists() {
        for entry in fs_err::read_dir(folder)? {
            files.push(entry?.path());
        }
    }
    files.push("/etc/apt/sources.list".into());
    files.retain(|file| {
        let text = fs_err::read_to_string(file).unwrap_or_default();
        let named = file
            .extension()
            .is_some_and(|ending| ending == "sources" || ending == "list");
        named && text.contains("debian")
    });
    Ok((suite, files))
}

/// Calls mmdebstrap for the smallest system that has apt, as an archive at `path`.
pub(crate) fn mmdebstrap(path: &Path, options: &[&str]) -> Result<(), Error> {
    let (suite, sources) = sources()?;
    let mut words = vec![
        "--quiet".into(),
        "--mode=root".into(),
        "--variant=minbase".into(),
        "--format=tar".into(),
    ];
    words.extend(options.iter().map(Into::into));
    words.extend([suite.into(), path.as_os_str().to_owned()]);
    words.extend(sources.into_iter().map(Into::into));
    machine::call(&MMDEBSTRAP.find()?, words)?;
    Ok(())
}

fn pack(program: PathBuf, options: &[&str], from: &Path, to: &Path) -> Result<(), Error> {
    let mut command = std::process::Command::new(&program);
    command
        .args(options)
        .arg("-c")
        .stdin(fs_err::File::open(from)?.into_parts().0)
        .stdout(fs_err::File::create(to)?.into_parts().0);
    let status = command.status().map_err(|source| Error::Start {
        program: program.clone(),
        source,
    })?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Contestant {
            name: program.display().to_string(),
            status,
            said: String::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_hold_as_many_files_as_were_asked_for_and_one_that_changed() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        many_files(&one, 1001, None).unwrap();
        many_files(&other, 1001, Some(7)).unwrap();
        let texts = |path: &Path| {
            let mut archive = tar::Archive::new(fs_err::File::open(path).unwrap());
            let texts = archive
                .entries()
                .unwrap()
                .map(|entry| io::read_to_string(entry.unwrap()).unwrap());
            texts.collect::<Vec<_>>()
        };
        let (one, other) = (texts(&one), texts(&other));
        assert_eq!(one.len(), 1001);
        let differ: Vec<usize> = (0..1001).filter(|&at| one[at] != other[at]).collect();
        assert_eq!(differ, [7]);
    }
}
