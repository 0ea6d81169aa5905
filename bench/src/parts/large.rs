//! Images of a million files and of four gigabytes: the time and the memory that they take to build, and whether one of a
//! million files takes longer to start or to build again than one of 400.

use std::time::Duration;

use super::rebuild::unchanged;
use super::{BOTH, Tell, starts, text, unpack, words};
use crate::contest::{Contest, Contestant, Metric};
use crate::image::{Image, write_recipe};
use crate::table::Budget;
use crate::{Bench, Error, image, input};

const MIB: f64 = 1_048_576.0;

/// Measures.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let many = if bench.quick { 2_000 } else { 1_000_000 };
    let size = if bench.quick { 4 << 20 } else { 4 << 30 };
    let folder = bench.folder.join("large");
    for name in ["million", "gigabytes"] {
        fs_err::create_dir_all(folder.join(name))?;
    }
    let archive = folder.join("million/million.tar");
    input::many_files(&archive, many, None)?;
    tell(build(
        bench,
        &archive,
        &format!("an archive of {many} files"),
        600.0,
    )?);
    start(bench, many, &archive, &mut *tell)?;
    let archive = folder.join("gigabytes/gigabytes.tar");
    input::one_large_file(&archive, size)?;
    let title = format!("an archive of one file of {} MiB", size >> 20);
    tell(build(bench, &archive, &title, 64.0)?);
    Ok(())
}

/// Unpacks an archive once with each of two programs, from nothing.
fn build(
    bench: &Bench,
    archive: &std::path::Path,
    title: &str,
    most: f64,
) -> Result<Vec<crate::table::Table>, Error> {
    let recipe = archive.with_extension("toml");
    write_recipe(&recipe, archive, "")?;
    let folder = archive.with_file_name("unpacked");
    fs_err::create_dir_all(&folder)?;
    // Ours and the one of equal work: each leaves as many files, which take minutes to be made and to be deleted.
    let mut contestants = unpack::all(bench, &recipe, archive, &folder)?;
    contestants.drain(1..contestants.len() - 1);
    contestants[0].budget = Some(Budget::Most(most * MIB));
    let contest = Contest {
        metrics: vec![Metric::Peak, Metric::End],
        warm_ups: 0,
        settle: true,
        plotted: false,
        ..Contest::new(format!("unpack {title}"), 1, contestants)
    };
    contest.hold()
}

/// Starts runs and builds of images of all sizes in turns, in one store.
fn start(bench: &Bench, many: usize, archive: &std::path::Path, tell: Tell<'_>) -> Result<(), Error> {
    let small = Image::make(bench)?;
    let recipe = archive.with_file_name("many.toml");
    write_recipe(
        &recipe,
        archive,
        "\n[[step]]\ncopy = \"stamp\"\ninto = \"/bin/stamp\"\n",
    )?;
    fs_err::copy(image::stamp(bench)?, recipe.with_file_name("stamp"))?;
    let large = Image::build(bench, &small.store, recipe)?;
    // What was made is on the disk, and whatever the file system still does with it has its time.
    nix::unistd::sync();
    std::thread::sleep(Duration::from_secs(if bench.quick { 0 } else { 20 }));
    let run = |name: &str, image: &str| {
        let words = words(&["run", "--store", &text(&small.store), image, "stamp"]);
        Contestant::of(name, bench.mk.clone(), words)
    };
    let contestants = || {
        Ok(vec![
            run(&format!("an image of {many} files"), "many"),
            // The same: as far as ten percent can be told apart here.
            run("an image of 400 files", "busybox").budget(Budget::Ratio(1.1)),
        ])
    };
    starts(
        bench,
        "start of a run, by the size of the image",
        BOTH,
        300,
        contestants,
        &mut *tell,
    )?;
    let contestants = vec![
        unchanged(bench, &large, &format!("an image of {many} files")),
        unchanged(bench, &small, "an image of 400 files"),
    ];
    let contest = Contest {
        warm_ups: 3,
        plotted: false,
        ..Contest::new(
            "build in which nothing changed",
            bench.rounds.unwrap_or(50),
            contestants,
        )
    };
    tell(contest.hold()?);
    Ok(())
}
