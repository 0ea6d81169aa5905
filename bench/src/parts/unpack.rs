//! From an archive to a folder that can be entered: the fixtures, and a Debian, packed in four ways.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Tell, text, words};
use crate::contest::{Contest, Contestant, Metric};
use crate::image::write_recipe;
use crate::input::{self, Packing};
use crate::machine::{BSDTAR, PODMAN, TAR, UMOCI};
use crate::table::Budget;
use crate::{Bench, Error, machine};

/// Measures each archive.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    for name in crate::FIXTURES {
        let folder = bench.folder.join(format!("unpacked-{name}"));
        let contest = contest(bench, &bench.fixtures.join(name), 20, &folder)?;
        tell(contest.hold()?);
    }
    if bench.quick {
        return Ok(());
    }
    for packing in Packing::ALL {
        let archive = input::debian(bench, packing)?;
        let folder = bench.folder.join(format!("unpacked-{packing:?}"));
        let mut contest = contest(bench, &archive, 7, &folder)?;
        if packing == Packing::Gzip {
            contest.contestants[1].budget = Some(Budget::Ratio(0.7));
            let plain = input::debian(bench, Packing::Plain)?;
            contest
                .contestants
                .extend(images(bench, &archive, &plain, &folder)?);
        }
        contest.metrics.push(Metric::Peak);
        tell(contest.hold()?);
    }
    Ok(())
}

fn contest(bench: &Bench, archive: &Path, rounds: usize, folder: &Path) -> Result<Contest, Error> {
    fs_err::create_dir_all(folder)?;
    let recipe = folder.join("image.toml");
    write_recipe(&recipe, archive, "")?;
    let size = fs_err::metadata(archive)?.len() as f64 / 1e6;
    let name = archive.file_name().unwrap_or_default().to_string_lossy();
    Ok(Contest {
        settle: true,
        ..Contest::new(
            format!("unpack {name} ({size:.1} MB), rootfs ready"),
            bench.rounds.unwrap_or(rounds),
            all(bench, &recipe, archive, folder)?,
        )
    })
}

/// Returns mk, both tars, and bsdtar with what it wrote on the disk at the end; none finds anything of an earlier round.
pub(super) fn all(
    bench: &Bench,
    recipe: &Path,
    archive: &Path,
    folder: &Path,
) -> Result<Vec<Contestant>, Error> {
    let lazy = "neither hashes nor keeps apart what it unpacks; what it wrote is on the disk some time later";
    Ok(vec![
        mk(bench, recipe, folder),
        tar("bsdtar -xpf", BSDTAR.find()?, archive, folder, false).differs(lazy),
        tar("tar -xpf", TAR.find()?, archive, folder, false).differs(lazy),
        tar("bsdtar -xpf, sync -f", BSDTAR.find()?, archive, folder, true)
            .differs("neither hashes nor keeps apart what it unpacks; what it wrote is on the disk at the end, as after mk build"),
    ])
}

fn mk(bench: &Bench, recipe: &Path, folder: &Path) -> Contestant {
    let (mk, recipe, folder) = (bench.mk.clone(), recipe.to_owned(), folder.to_owned());
    Contestant::by("mk build", move |round| {
        let mut command = Command::new(&mk);
        command
            .args(["build", "--quiet", "--store"])
            .arg(folder.join(format!("mk-{round}")))
            .arg(&recipe);
        Ok(command)
    })
}

fn tar(name: &str, program: PathBuf, archive: &Path, folder: &Path, sync: bool) -> Contestant {
    let (archive, folder, own) = (archive.to_owned(), folder.to_owned(), name.replace(' ', "-"));
    Contestant::by(name, move |round| {
        let into = folder.join(format!("{own}-{round}"));
        fs_err::create_dir(&into)?;
        let mut command = Command::new("sh");
        let script = match sync {
            true => r#""$0" -xpf "$1" -C "$2" && sync -f "$2""#,
            false => r#"exec "$0" -xpf "$1" -C "$2""#,
        };
        command.args(["-c", script]).arg(&program).arg(&archive).arg(into);
        Ok(command)
    })
}

/// Those that unpack images of the OCI: the archive, which umoci packs itself, is the one layer of such an image.
fn images(bench: &Bench, archive: &Path, plain: &Path, folder: &Path) -> Result<Vec<Contestant>, Error> {
    let layout = folder.join("layout");
    let image = format!("{}:debian", text(&layout));
    let umoci = UMOCI.find()?;
    machine::call(&umoci, ["init", "--layout", &text(&layout)])?;
    machine::call(&umoci, ["new", "--image", &image])?;
    machine::call(&umoci, ["raw", "add-layer", "--image", &image, &text(plain)])?;
    let own = folder.to_owned();
    let unpack = Contestant::by("umoci unpack", move |round| {
        let mut command = Command::new(&umoci);
        command
            .args(["unpack", "--image", &image])
            .arg(own.join(format!("umoci-{round}")));
        Ok(command)
    });
    let podman = PODMAN.find()?;
    let (own, archive) = (folder.to_owned(), text(archive));
    let run = text(&bench.folder.join("podman-run"));
    let import = Contestant::by("podman import", move |round| {
        let root = text(&own.join(format!("podman-{round}")));
        let mut command = Command::new(&podman);
        let options = [
            "--root",
            &root,
            "--runroot",
            &run,
            "--storage-driver",
            "vfs",
            "--events-backend",
            "none",
        ];
        command
            .args(words(&options))
            .args(["import", "--quiet", &archive]);
        Ok(command)
    });
    Ok(vec![
        unpack.differs("an image of the OCI, whose layer it hashes; and writes a list of all files"),
        import.differs("packs and hashes a layer, unpacks it, keeps both (storage driver vfs)"),
    ])
}
