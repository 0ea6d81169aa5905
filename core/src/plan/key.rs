//! What a step's cache key is made of: named ingredients, hashed behind their lengths. Never a host path, a host time,
//! a uid map or a job count. Pure.

use super::PlannedStep;
use crate::digest::{Digest, Hasher};
use crate::recipe::{Granted, Owner, Select, Verb, Words};

/// Changes whenever the same ingredients would give another tree than before.
const FORMAT: &str = "1";

/// What one step is made of: name and value, in a fixed order. A digest stands for long values.
pub type Ingredients = Vec<(String, String)>;

/// What a step does and takes in, whatever it starts from.
pub fn ingredients(step: &PlannedStep, arch: &str) -> Ingredients {
    let mut list = List(Vec::new());
    list.add("format", FORMAT);
    list.add("arch", arch);
    match &step.verb {
        Verb::Unpack { .. } => list.add("verb", "unpack"),
        Verb::Deb { .. } => list.add("verb", "deb"),
        Verb::Copy {
            into, mode, owner, ..
        } => {
            list.add("verb", "copy");
            list.add("into", into);
            list.add("mode", mode.map_or_else(|| "from the file".to_owned(), octal));
            list.owner(*owner);
        }
        Verb::Take {
            into, mode, owner, ..
        } => {
            list.add("verb", "take");
            list.add("into", into);
            list.add("mode", mode.map_or_else(|| "its own".to_owned(), octal));
            match owner {
                Some(owner) => list.owner(*owner),
                None => list.add("owner", "its own"),
            }
        }
        Verb::Write {
            path,
            text,
            mode,
            owner,
        } => {
            list.add("verb", "write");
            list.add("path", path);
            list.add("text", Digest::of(text.as_bytes()));
            list.add("mode", octal(*mode));
            list.owner(*owner);
        }
        Verb::Link { paths, to } => {
            list.add("verb", "link");
            paths.iter().for_each(|path| list.add("path", path));
            list.add("to", to);
        }
        Verb::Dir { paths, mode, owner } => {
            list.add("verb", "dir");
            paths.iter().for_each(|path| list.add("path", path));
            list.add("mode", octal(*mode));
            list.owner(*owner);
        }
        Verb::Remove { patterns } => {
            list.add("verb", "remove");
            patterns.iter().for_each(|pattern| list.add("pattern", pattern));
        }
        Verb::User(user) => {
            list.add("verb", "user");
            list.add("name", &user.name);
            list.owner(Owner {
                uid: user.uid,
                gid: user.gid,
            });
            list.add("home", &user.home);
            list.add("shell", &user.shell);
            list.add("gecos", &user.gecos);
            user.groups.iter().for_each(|group| list.add("group", group));
        }
        Verb::Run(script) => {
            list.add("verb", "run");
            match &script.words {
                Words::Shell(text) => list.add("shell", Digest::of(text.as_bytes())),
                Words::Program(words) => words.iter().for_each(|word| list.add("word", word)),
            }
            script
                .env
                .iter()
                .for_each(|(name, value)| list.add("env", format!("{name}={value}")));
            list.add("workdir", script.workdir.as_deref().unwrap_or("/"));
            list.add("user", script.user.as_deref().unwrap_or("0"));
            if let Some(text) = &script.stdin {
                list.add("stdin", Digest::of(text.as_bytes()));
            }
            if script.network {
                list.add("network", "the machine's");
            }
            let mut mounted = step.mounted.iter();
            for mount in &script.mounts {
                // What a cache holds and a secret says counts for nothing; that they are there does.
                let what = match &mount.granted {
                    Granted::Copy(_) => mounted.next().map(Digest::to_string).unwrap_or_default(),
                    Granted::Cache(_) => "cache".to_owned(),
                    Granted::Secret(_) => "secret".to_owned(),
                };
                list.add("mount", format!("{} {what}", mount.at));
            }
        }
    }
    list.select(&step.select);
    step.archives
        .iter()
        .for_each(|archive| list.add("archive", archive.sha256));
    if let Some(copied) = step.copied {
        list.add("copied", copied);
    }
    list.0
}

/// Adds what a step starts from to what it is made of: the tree, and the latest time that it may give a file.
pub fn starting_from(mut ingredients: Ingredients, tree: &Digest, epoch: i64) -> Ingredients {
    ingredients.push(("epoch".to_owned(), epoch.to_string()));
    ingredients.push(("tree".to_owned(), tree.to_string()));
    ingredients
}

/// Returns the key that `ingredients` make.
pub fn key(ingredients: &Ingredients) -> Digest {
    let mut hasher = Hasher::new();
    for (name, value) in ingredients {
        hasher.field(name.as_bytes());
        hasher.field(value.as_bytes());
    }
    hasher.finish()
}

struct List(Ingredients);

impl List {
    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.push((name.to_owned(), value.to_string()));
    }

    fn owner(&mut self, owner: Owner) {
        self.add("owner", format!("{}:{}", owner.uid, owner.gid));
    }

    fn select(&mut self, select: &Select) {
        if let Some(into) = &select.into {
            self.add("into", into);
        }
        if select.strip > 0 {
            self.add("strip", select.strip);
        }
        select
            .include
            .iter()
            .for_each(|pattern| self.add("include", pattern));
        select
            .exclude
            .iter()
            .for_each(|pattern| self.add("exclude", pattern));
    }
}

fn octal(mode: u16) -> String {
    format!("{mode:04o}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::TreePath;

    fn write(text: &str) -> PlannedStep {
        let path = TreePath::parse("etc/issue").unwrap();
        let verb = Verb::Write {
            path,
            text: text.into(),
            mode: 0o644,
            owner: Owner::default(),
        };
        PlannedStep {
            label: "any words".into(),
            verb,
            archives: vec![],
            select: Select::default(),
            copied: None,
            mounted: vec![],
        }
    }

    fn key_of(step: &PlannedStep, arch: &str, tree: &[u8], epoch: i64) -> Digest {
        key(&starting_from(ingredients(step, arch), &Digest::of(tree), epoch))
    }

    #[test]
    fn each_ingredient_counts_and_the_words_for_people_do_not() {
        let base = key_of(&write("a"), "amd64", b"", 0);
        let relabelled = PlannedStep {
            label: "other words".into(),
            ..write("a")
        };
        assert_eq!(base, key_of(&relabelled, "amd64", b"", 0));
        let selected = PlannedStep {
            select: Select {
                strip: 1,
                ..Select::default()
            },
            ..write("a")
        };
        let others = [
            key_of(&write("b"), "amd64", b"", 0),
            key_of(&write("a"), "arm64", b"", 0),
            key_of(&write("a"), "amd64", b"x", 0),
            key_of(&write("a"), "amd64", b"", 1),
            key_of(&selected, "amd64", b"", 0),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn the_format_of_keys_is_this_one() {
        let golden = "3ff17582b235047603db3ebd89f0e9c1fc04f00de091afae89479af06a45440e";
        assert_eq!(key_of(&write("a"), "amd64", b"", 0).to_string(), golden);
    }
}
