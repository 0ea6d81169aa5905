//! The recipes that mk ships, as text: so that `mk run busybox` works wherever mk is installed.

/// A recipe that mk ships.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Builtin {
    /// What the image is called.
    pub name: &'static str,
    /// The text of its recipe.
    pub recipe: &'static str,
    /// The text of its lock, where the recipe names sources that need one.
    pub lock: Option<&'static str>,
}

/// One line an image, by name.
static IMAGES: [Builtin; 3] = [
    Builtin {
        name: "alpine",
        recipe: include_str!("../alpine.toml"),
        lock: None,
    },
    Builtin {
        name: "busybox",
        recipe: include_str!("../busybox.toml"),
        lock: Some(include_str!("../busybox.lock")),
    },
    Builtin {
        name: "busybox-musl",
        recipe: include_str!("../busybox-musl.toml"),
        lock: None,
    },
];

/// Returns all of them, by name.
pub fn all() -> &'static [Builtin] {
    &IMAGES
}

/// Returns the one called `name`.
pub fn find(name: &str) -> Option<&'static Builtin> {
    IMAGES.iter().find(|image| image.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_found_by_name_and_listed_in_order() {
        assert_eq!(find("busybox").map(|image| image.name), Some("busybox"));
        assert_eq!(find("busybox.toml"), None);
        assert!(all().is_sorted_by(|one, other| one.name < other.name));
    }

    #[test]
    fn every_file_of_the_folder_is_in_the_table() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = 0_usize;
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            let text = match path.extension().and_then(|extension| extension.to_str()) {
                Some("toml") if name != "Cargo" => find(name).map(|image| image.recipe),
                Some("lock") => find(name).and_then(|image| image.lock),
                _ => continue,
            };
            assert_eq!(
                text.map(str::len),
                Some(path.metadata().unwrap().len() as usize),
                "{path:?}"
            );
            found += 1;
        }
        assert_eq!(
            found,
            all()
                .iter()
                .map(|image| 1 + usize::from(image.lock.is_some()))
                .sum::<usize>()
        );
    }
}
