//! The functions that commands need, in the order in which they need them: what `cli/build.rs` tells the linker.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use crate::{Error, machine};

/// What is said of the list in its first lines.
const HEAD: &str = "\
# The functions that a run executes, then those that a build does in which nothing changed. The linker puts them
# side by side (build.rs). As they are called for the linker, without the crates' hashes. To make the list anew:
#     cargo run --release -p mk-bench -- guard --order
";

/// The functions of a program.
#[derive(Debug)]
pub(super) struct Functions {
    /// By where they begin. Some have more than one name.
    names: BTreeMap<u64, Vec<String>>,
    needed: Vec<String>,
    known: HashSet<String>,
}

impl Functions {
    /// Reads those of `program`, as nm(1) of binutils tells them.
    pub(super) fn of(program: &Path) -> Result<Self, Error> {
        let listed = machine::call(Path::new("nm"), ["--defined-only".as_ref(), program.as_os_str()])?;
        Ok(Self::parse(&listed))
    }

    fn parse(listed: &str) -> Self {
        let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for line in listed.lines() {
            let mut words = line.split_whitespace();
            if let (Some(at), Some("t" | "T" | "w" | "W" | "i"), Some(name)) =
                (words.next(), words.next(), words.next())
                && let Ok(at) = u64::from_str_radix(at, 16)
            {
                names.entry(at).or_default().push(name.to_owned());
            }
        }
        Self {
            names,
            needed: Vec::new(),
            known: HashSet::new(),
        }
    }

    /// Notes those that are at `places`, by the distance from where the program begins.
    pub(super) fn need(&mut self, places: &[u64]) {
        for place in places {
            let Some((_, names)) = self.names.range(..=place).next_back() else {
                continue;
            };
            for name in names.iter().filter_map(|name| pattern(name)) {
                if self.known.insert(name.clone()) {
                    self.needed.push(name);
                }
            }
        }
    }

    /// Returns the list as it is read by people and by `cli/build.rs`.
    pub(super) fn text(&self) -> String {
        let lines = self.needed.iter().map(|name| format!("{name}\n"));
        std::iter::once(HEAD.to_owned()).chain(lines).collect()
    }
}

/// Returns what matches the name of a Rust function in whichever build: the hash of a crate (`Cs…_`, Rust's RFC 2603) depends
/// on its version and on the compiler. The C library is linked as it is.
fn pattern(name: &str) -> Option<String> {
    let name = name.split('.').next()?;
    if !name.starts_with("_R") {
        return None;
    }
    let mut pattern = String::new();
    let mut rest = name;
    while let Some(at) = rest.find("Cs") {
        let (before, after) = rest.split_at(at + 2);
        pattern.push_str(before);
        let hash = after.find(|letter: char| !letter.is_ascii_alphanumeric());
        match hash {
            Some(end) if after[end..].starts_with('_') => {
                pattern.push('*');
                rest = &after[end..];
            }
            _ => rest = after,
        }
    }
    Some(pattern + rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_noted_once_in_the_order_in_which_they_are_needed_by_all_of_their_names() {
        let mut functions = Functions::parse(
            "0000000000001000 t _RNvCsaB1_2mk4main\n\
             0000000000002000 T _RNvCsaB1_2mk3two.llvm.77\n\
             0000000000002000 t _RNvCsaB1_2mk4twin\n\
             0000000000003000 T printf\n\
             0000000000004000 r _RNvCsaB1_2mk5TABLE\n",
        );
        functions.need(&[0x2004, 0x1000, 0x3001, 0x2fff, 0x10, 0x4001]);
        let text = functions.text();
        let list: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(list, ["_RNvCs*_2mk3two", "_RNvCs*_2mk4twin", "_RNvCs*_2mk4main"]);
    }

    #[test]
    fn only_hashes_are_left_out_of_a_name() {
        let of = |name| pattern(name).unwrap();
        assert_eq!(
            of("_RINvNtCsgEm_4core3ptr13drop_in_placeNtCs5ie_7mk_core3fooEB2_"),
            "_RINvNtCs*_4core3ptr13drop_in_placeNtCs*_7mk_core3fooEB2_"
        );
        assert_eq!(pattern("memcpy"), None);
    }
}
