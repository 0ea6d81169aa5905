//! From an archive to a folder: the fixtures, and a larger archive made of this machine's own files.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mk_core::digest::HashReader;
use walkdir::WalkDir;

use crate::contest::{Contest, Contestant, Table};
use crate::machine::{BSDTAR, TAR};
use crate::{Bench, Error};

/// The archives that every measurement has.
pub(crate) const FIXTURES: [&str; 3] = [
    "busybox-musl-amd64.tar.gz",
    "busybox-glibc-amd64.tar.gz",
    "alpine-minirootfs-3.20.3-x86_64.tar.gz",
];

/// What the files of the large archive come to, in bytes.
const LARGE: u64 = 170_000_000;

/// Measures each archive.
pub(crate) fn measure(bench: &Bench, tell: &mut dyn FnMut(Table)) -> Result<(), Error> {
    let mut archives: Vec<(PathBuf, usize)> = FIXTURES.map(|name| (bench.fixtures.join(name), 20)).to_vec();
    if !bench.quick {
        archives.push((large(&bench.folder)?, 7));
    }
    for (at, (archive, rounds)) in archives.iter().enumerate() {
        let folder = bench.folder.join(format!("unpacked-{at}"));
        fs_err::create_dir(&folder)?;
        tell(contest(bench, archive, *rounds, &folder)?.hold()?);
    }
    Ok(())
}

fn contest(bench: &Bench, archive: &Path, rounds: usize, folder: &Path) -> Result<Contest, Error> {
    let recipe = folder.join("image.toml");
    write_recipe(&recipe, archive)?;
    let size = fs_err::metadata(archive)?.len() as f64 / 1e6;
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    // Of a small archive the start and the sync are most of the time.
    let budget = (size > 20.0).then_some(0.7);
    Ok(Contest {
        title: format!("unpack: {name} ({size:.1} MB), rootfs ready"),
        contestants: vec![
            mk(bench, recipe, folder),
            tar("bsdtar -xpf", budget, BSDTAR.find()?, archive, folder),
            tar("tar -xpf", None, TAR.find()?, archive, folder),
            synced("bsdtar -xpf, then sync -f", BSDTAR.find()?, archive, folder),
        ],
        rounds: bench.rounds.unwrap_or(rounds),
        warm_ups: 1,
        gap: Duration::ZERO,
        settle: true,
    })
}

/// Writes a recipe that does nothing but unpack `archive`, which is pinned, so that nothing is looked up.
pub(crate) fn write_recipe(path: &Path, archive: &Path) -> Result<(), Error> {
    let mut reader = HashReader::new(fs_err::File::open(archive)?);
    std::io::copy(&mut reader, &mut std::io::sink())?;
    let (digest, _) = reader.finish();
    let name = archive.file_name().unwrap_or_default();
    let beside = path.with_file_name(name);
    if beside != archive {
        fs_err::copy(archive, &beside)?;
    }
    let name = name.to_string_lossy();
    fs_err::write(
        path,
        format!("[[step]]\nunpack = \"{name}\"\nsha256 = \"{digest}\"\n"),
    )?;
    Ok(())
}

fn mk(bench: &Bench, recipe: PathBuf, folder: &Path) -> Contestant {
    let (mk, folder) = (bench.mk.clone(), folder.to_owned());
    Contestant {
        name: "mk build".into(),
        budget: None,
        command: Box::new(move |round| {
            let mut command = Command::new(&mk);
            command
                .args(["build", "--quiet", "--store"])
                .arg(folder.join(format!("mk-{round}")))
                .arg(&recipe);
            Ok(command)
        }),
    }
}

fn tar(
    name: &'static str,
    budget: Option<f64>,
    program: PathBuf,
    archive: &Path,
    folder: &Path,
) -> Contestant {
    let (archive, folder) = (archive.to_owned(), folder.to_owned());
    Contestant {
        name: name.into(),
        budget,
        command: Box::new(move |round| {
            let into = folder.join(format!("{}-{round}", &name[..3]));
            fs_err::create_dir(&into)?;
            let mut command = Command::new(&program);
            command.arg("-xpf").arg(&archive).arg("-C").arg(into);
            Ok(command)
        }),
    }
}

/// The same with what was written on the disk at the end, as it is after `mk build`.
fn synced(name: &'static str, program: PathBuf, archive: &Path, folder: &Path) -> Contestant {
    let (archive, folder) = (archive.to_owned(), folder.to_owned());
    Contestant {
        name: name.into(),
        budget: None,
        command: Box::new(move |round| {
            let into = folder.join(format!("synced-{round}"));
            fs_err::create_dir(&into)?;
            let mut command = Command::new("sh");
            command
                .args(["-c", r#""$0" -xpf "$1" -C "$2" && sync -f "$2""#])
                .arg(&program)
                .arg(&archive)
                .arg(into);
            Ok(command)
        }),
    }
}

/// Makes a gzip archive of files of this machine, as many as come to [`LARGE`] bytes.
fn large(folder: &Path) -> Result<PathBuf, Error> {
    let archive = folder.join("large.tar.gz");
    let mut names: Vec<u8> = Vec::new();
    let mut bytes = 0;
    let walks = ["/usr/share", "/usr/lib"].map(|top| WalkDir::new(top).sort_by_file_name());
    // Half of each, so that small and large files are mixed as in a distribution.
    for (at, walk) in walks.into_iter().enumerate() {
        let limit = LARGE / 2 * (at as u64 + 1);
        for entry in walk.into_iter().filter_map(Result::ok) {
            if bytes >= limit {
                break;
            }
            let Ok(meta) = entry.metadata() else { continue };
            bytes += if meta.is_file() { meta.len() } else { 0 };
            names.extend_from_slice(
                entry
                    .path()
                    .as_os_str()
                    .as_encoded_bytes()
                    .get(1..)
                    .unwrap_or_default(),
            );
            names.push(0);
        }
    }
    let list = folder.join("large.list");
    fs_err::write(&list, names)?;
    let status = Command::new(TAR.find()?)
        .args(["--null", "--no-recursion", "-C", "/", "-czf"])
        .arg(&archive)
        .arg("-T")
        .arg(&list)
        .stdin(Stdio::null())
        .status()?;
    if !status.success() {
        return Err(Error::Contestant {
            name: "tar -czf".into(),
            status,
            said: String::new(),
        });
    }
    Ok(archive)
}
