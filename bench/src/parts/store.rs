//! What the store does with what it holds: verify and gc of a hundred images, and export of one.

use std::path::Path;
use std::process::Command;

use super::{Tell, text, words};
use crate::contest::{Contest, Contestant, Metric};
use crate::image::{Image, write_recipe};
use crate::machine::TAR;
use crate::{Bench, Error, input, machine};

/// Measures.
pub(super) fn measure(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    hundred(bench, &mut *tell)?;
    export(bench, tell)
}

/// A hundred images with a base in common and some files each.
fn hundred(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let folder = bench.folder.join("hundred");
    fs_err::create_dir_all(&folder)?;
    let count = if bench.quick { 5 } else { 100 };
    let store = folder.join("store");
    let archive = bench.fixtures.join(crate::FIXTURES[2]);
    let recipe = folder.join("image.toml");
    let more = "\n[[step]]\ncopy = \"own/\"\ninto = \"/srv\"\n";
    write_recipe(&recipe, &archive, more)?;
    for number in 0..count {
        let own = folder.join("own");
        fs_err::create_dir_all(&own)?;
        for file in 0..100 {
            fs_err::write(own.join(file.to_string()), format!("{file} of image {number}\n"))?;
        }
        build(bench, &store, &recipe, &format!("image-{number}"))?;
    }
    let store_words = ["--store", &text(&store)];
    let mk = |name: &str, own: &[&str]| {
        Contestant::of(name, bench.mk.clone(), words(&[own, &store_words].concat()))
    };
    let hash = Contestant::of(
        "sha256sum of every object",
        "sh".into(),
        words(&[
            "-c",
            r#"find "$0" -type f -print0 | xargs -0 sha256sum"#,
            &text(&store.join("objects")),
        ]),
    );
    let contest = Contest {
        metrics: vec![Metric::End, Metric::Peak],
        ..Contest::new(
            format!("a store of {count} images, nothing to do"),
            bench.rounds.unwrap_or(10),
            vec![
                mk("mk verify", &["verify"]),
                hash.differs("objects alone: no metadata, trees or folders of images"),
                mk("mk gc", &["gc", "--keep", "0"]).differs("other work: nothing is read again"),
            ],
        )
    };
    tell(contest.hold()?);
    // Once: what was let go is gone.
    for number in 0..count {
        machine::call(
            &bench.mk,
            ["rm", &format!("image-{number}"), "--store", &text(&store)],
        )?;
    }
    let contest = Contest {
        warm_ups: 0,
        settle: true,
        plotted: false,
        ..Contest::new(
            format!("a store of {count} images, none of them named any more"),
            1,
            vec![mk("mk gc", &["gc", "--keep", "0"])],
        )
    };
    tell(contest.hold()?);
    Ok(())
}

fn build(bench: &Bench, store: &Path, recipe: &Path, name: &str) -> Result<(), Error> {
    let words = [
        "build".as_ref(),
        "--quiet".as_ref(),
        "--name".as_ref(),
        name.as_ref(),
        "--store".as_ref(),
    ];
    machine::call(
        &bench.mk,
        words.into_iter().chain([store.as_os_str(), recipe.as_os_str()]),
    )?;
    Ok(())
}

/// An image as an archive, beside tar from the folder that it is in the store.
fn export(bench: &Bench, tell: Tell<'_>) -> Result<(), Error> {
    let folder = bench.folder.join("export");
    fs_err::create_dir_all(&folder)?;
    let archive = match bench.quick {
        true => bench.fixtures.join(crate::FIXTURES[2]),
        false => input::debian(bench, input::Packing::Plain)?,
    };
    let recipe = folder.join("exported.toml");
    write_recipe(&recipe, &archive, "")?;
    let image = Image::build(bench, &folder.join("store"), recipe)?;
    let to = |name: &str,
              ending: &'static str,
              program: std::path::PathBuf,
              own: Vec<String>,
              last: Vec<String>| {
        let folder = folder.clone();
        Contestant::by(name, move |round| {
            let mut command = Command::new(&program);
            command
                .args(&own)
                .arg(folder.join(format!("{round}.{ending}")))
                .args(&last);
            Ok(command)
        })
    };
    let store = text(&image.store);
    let mk = to(
        "mk export",
        "mk",
        bench.mk.clone(),
        words(&["export", "exported", "--store", &store, "-o"]),
        Vec::new(),
    );
    let tar = to(
        "tar -cf",
        "tar",
        TAR.find()?,
        words(&["-C", &text(&image.rootfs), "-cf"]),
        words(&["."]),
    );
    let contest = Contest {
        metrics: vec![Metric::End, Metric::Peak],
        settle: true,
        ..Contest::new(
            "export as an archive",
            bench.rounds.unwrap_or(7),
            vec![
                mk,
                tar.differs("names in the order of the folder; not the same bytes on another machine"),
            ],
        )
    };
    tell(contest.hold()?);
    Ok(())
}
