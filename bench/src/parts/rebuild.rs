//! Builds in which nothing has changed, or little; and the start of mk alone.

use std::path::PathBuf;
use std::process::Command;

use super::{Tell, text, words};
use crate::contest::{Contest, Contestant};
use crate::image::{Image, write_recipe};
use crate::table::Budget;
use crate::{Bench, Error, input};

/// Measures.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let small = Image::make(bench)?;
    let contestants = vec![
        Contestant::of("mk --version", bench.mk.clone(), words(&["--version"])).budget(Budget::Most(0.002)),
        unchanged(bench, &small, "mk build, nothing changed, 400 files"),
    ];
    let rounds = bench.rounds.unwrap_or(200);
    let contest = Contest::new("mk that has nothing to do", rounds, contestants);
    tell(
        Contest {
            warm_ups: 5,
            plotted: false,
            ..contest
        }
        .hold()?,
    );
    tell(warm(bench)?.hold()?);
    tell(one_changed(bench)?.hold()?);
    Ok(())
}

/// Returns a build of `image` as it is.
pub(super) fn unchanged(bench: &Bench, image: &Image, name: &str) -> Contestant {
    let words = words(&[
        "build",
        "--quiet",
        "--store",
        &text(&image.store),
        &text(&image.recipe),
    ]);
    Contestant::of(name, bench.mk.clone(), words).budget(Budget::Most(0.010))
}

/// Of a recipe with a last step that is another each time: the archive is not unpacked again.
fn warm(bench: &Bench) -> Result<Contest, Error> {
    let folder = bench.folder.join("warm");
    fs_err::create_dir_all(&folder)?;
    let archive = match bench.quick {
        true => bench.fixtures.join(crate::FIXTURES[2]),
        false => input::debian(bench, input::Packing::Gzip)?,
    };
    let recipe = folder.join("warm.toml");
    write_recipe(
        &recipe,
        &archive,
        "\n[[step]]\nwrite = \"/etc/round\"\ntext = \"{round}\\n\"\n\n[args]\nround = \"0\"\n",
    )?;
    let build = |name: &str, store: &'static str| {
        let (mk, recipe, folder) = (bench.mk.clone(), recipe.clone(), folder.clone());
        Contestant::by(name, move |round| {
            let store = match store {
                "new" => folder.join(format!("store-{round}")),
                _ => folder.join("store"),
            };
            let mut command = Command::new(&mk);
            command
                .args(["build", "--quiet", "--arg", &format!("round={round}"), "--store"])
                .arg(store)
                .arg(&recipe);
            Ok(command)
        })
    };
    let name = archive
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok(Contest {
        settle: true,
        ..Contest::new(
            format!("a last step that changed, after unpacking {name}"),
            bench.rounds.unwrap_or(7),
            vec![
                build("mk build, the step before is known", "same"),
                build("mk build, in an empty store", "new").differs("all steps are done"),
            ],
        )
    })
}

/// Of a tree of 100,000 files, in an archive in which another one has changed each time; beside rsync's way, which is to copy
/// the tree as hard links and lay the one file over it.
fn one_changed(bench: &Bench) -> Result<Contest, Error> {
    let count = if bench.quick { 1_000 } else { 100_000 };
    let rounds = bench.rounds.unwrap_or(5);
    let folder = bench.folder.join("changed");
    let tree = folder.join("tree");
    fs_err::create_dir_all(&tree)?;
    let archive = folder.join("first.tar");
    input::many_files(&archive, count, None)?;
    crate::machine::call(
        &PathBuf::from("tar"),
        [
            "-C".as_ref(),
            tree.as_os_str(),
            "-xf".as_ref(),
            archive.as_os_str(),
        ],
    )?;
    let recipe = folder.join("changed.toml");
    fs_err::write(&recipe, "[[step]]\ncopy = \"tree/\"\ninto = \"/srv\"\n")?;
    let (mk, own, from) = (bench.mk.clone(), folder.clone(), tree.clone());
    let build = Contestant::by("mk build, one file changed", move |round| {
        fs_err::write(from.join("many/0000/7"), format!("changed in round {round}\n"))?;
        let mut command = Command::new(&mk);
        command
            .args(["build", "--quiet", "--store"])
            .arg(own.join("store"))
            .arg(&recipe);
        Ok(command)
    });
    let own = folder;
    let copy = Contestant::by("cp -al", move |round| {
        let mut command = Command::new("cp");
        command
            .arg("-al")
            .arg(&tree)
            .arg(own.join(format!("copy-{round}")));
        Ok(command)
    });
    Ok(Contest {
        settle: true,
        ..Contest::new(
            format!("one file changed in a folder of {count}"),
            rounds,
            vec![
                build,
                copy.differs(
                    "the folder again, as hard links; it does not look what changed, and hashes nothing",
                ),
            ],
        )
    })
}
