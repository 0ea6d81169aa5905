//! [`Ignore`]: what a `.mkignore` beside the recipe leaves out of the folders that are copied. Lines mean what they mean in a
//! `.gitignore`.

use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;

use ::ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::*;
use crate::recipe::mistake::{Mistake, Mistakes};
use crate::sys::file::{self, FileKind};

/// What the file is called.
pub const NAME: &str = ".mkignore";

/// Patterns of what is left out, and of what is taken all the same. The last one that matches decides.
#[derive(Debug)]
pub struct Ignore(Gitignore);

impl Ignore {
    /// Returns one that leaves nothing out.
    pub fn nothing() -> Self {
        Self(Gitignore::empty())
    }

    /// Reads the one in `folder`; where there is none, nothing is left out.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(NAME);
        let unread = |source| Error::Read {
            path: path.clone(),
            source,
        };
        match file::stat_now(&path) {
            Err(error) if error.errno == rustix::io::Errno::NOENT => return Ok(Self::nothing()),
            Err(error) => return Err(unread(error.errno.into())),
            Ok(stat) if !matches!(stat.kind, FileKind::File | FileKind::Folder) => {
                return Err(unread(io::Error::other("it is no file")));
            }
            Ok(_) => {}
        }
        let bytes = fs_err::read(&path).map_err(unread)?;
        Self::parse(&bytes).map_err(|mistakes| Error::Ignore {
            text: String::from_utf8_lossy(&bytes).into_owned(),
            path,
            mistakes,
        })
    }

    /// Reads the text of one.
    pub fn parse(bytes: &[u8]) -> Result<Self, Mistakes> {
        let text = std::str::from_utf8(bytes).map_err(|bad| {
            let at = bad.valid_up_to();
            Mistakes(vec![mistake(at..at + 1, "these bytes are no UTF-8".to_owned())])
        })?;
        let mut builder = GitignoreBuilder::new("");
        builder.allow_unclosed_class(false);
        // It is mk's, like a note in the margin: unless it is asked for, no image changes with it.
        _ = builder.add_line(None, &format!("/{NAME}"));
        let (mut mistakes, mut at) = (Vec::new(), 0);
        for line in text.split_inclusive('\n') {
            let start = at;
            at += line.len();
            let line = line.trim_end_matches(['\n', '\r']);
            // Some editors begin a file with a mark of its encoding.
            let line = if start == 0 {
                line.trim_start_matches('\u{feff}')
            } else {
                line
            };
            let shown = start + text[start..].find(line).unwrap_or_default();
            let span = shown..shown + line.trim_end().len();
            let pattern = line.trim_end().trim_start_matches('!');
            if line.trim_end().starts_with("!!") {
                mistakes.push(mistake(
                    span,
                    format!("`{pattern}` can be taken back once, not twice"),
                ));
            } else if !span.is_empty() && pattern.trim_matches('/').is_empty() {
                mistakes.push(mistake(
                    span,
                    format!("`{}` names no file and no folder", line.trim_end()),
                ));
            } else if let Err(error) = builder.add_line(None, line) {
                mistakes.push(mistake(span, why(error)));
            }
        }
        if !mistakes.is_empty() {
            return Err(Mistakes(mistakes));
        }
        let built = builder.build();
        built
            .map(Self)
            .map_err(|error| Mistakes(vec![mistake(0..0, why(error))]))
    }

    /// Whether it leaves out what is at `path`, seen from the recipe's folder; what is in a folder that is left out is not
    /// asked for.
    pub fn leaves_out(&self, path: &TreePath, is_folder: bool) -> bool {
        let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        self.0.matched(path, is_folder).is_ignore()
    }

    /// Whether it can leave anything out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn mistake(span: Range<usize>, what: String) -> Mistake {
    Mistake {
        span,
        what,
        expected: Some("a pattern as in a .gitignore, such as `*.o`, `/target/` or `!keep.o`".to_owned()),
        hint: Some("`.mkignore` is described in docs/recipe.md".to_owned()),
    }
}

fn why(error: ::ignore::Error) -> String {
    match error {
        ::ignore::Error::Glob {
            glob: Some(glob),
            err,
        } => format!("`{glob}` is not a pattern: {err}"),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns which of `paths` are left out; those with a closing slash are folders. What is below a folder that is left out
    /// is, too.
    fn left_out<'p>(text: &str, paths: &[&'p str]) -> Vec<&'p str> {
        let ignore = Ignore::parse(text.as_bytes()).unwrap();
        let leaves_out = |path: &str| {
            let mut ends = path.match_indices('/').map(|(at, _)| at);
            let above = ends.any(|at| {
                at + 1 < path.len() && ignore.leaves_out(&TreePath::parse(&path[..at]).unwrap(), true)
            });
            let itself = TreePath::parse(path.trim_end_matches('/')).unwrap();
            above || ignore.leaves_out(&itself, path.ends_with('/'))
        };
        paths.iter().copied().filter(|path| leaves_out(path)).collect()
    }

    const PATHS: [&str; 12] = [
        "a.o",
        "keep.o",
        "src/",
        "src/a.o",
        "src/a.c",
        "src/target",
        "target/",
        "target/x",
        "lib/target/",
        "lib/target/x",
        "# odd",
        "sp ",
    ];

    #[test]
    fn lines_mean_what_git_makes_of_them() {
        // As `git check-ignore` 2.47 has it.
        let table: [(&str, &[&str]); 15] = [
            ("", &[]),
            ("# a comment\n\n   \n", &[]),
            ("*.o\n", &["a.o", "keep.o", "src/a.o"]),
            ("*.o\r\n!keep.o\r\n", &["a.o", "src/a.o"]),
            ("!keep.o\n*.o\n", &["a.o", "keep.o", "src/a.o"]),
            ("/*.o\n", &["a.o", "keep.o"]),
            (
                "target/\n",
                &["target/", "target/x", "lib/target/", "lib/target/x"],
            ),
            (
                "target\n",
                &["src/target", "target/", "target/x", "lib/target/", "lib/target/x"],
            ),
            ("/target\n", &["target/", "target/x"]),
            ("lib/target\n", &["lib/target/", "lib/target/x"]),
            ("target/*\n!target/x\n", &[]),
            (
                "target/\n!target/x\n",
                &["target/", "target/x", "lib/target/", "lib/target/x"],
            ),
            ("src/**\n!src/*.c\n", &["src/a.o", "src/target"]),
            ("**/x\n", &["target/x", "lib/target/x"]),
            ("\\# odd\nsp\\ \n", &["# odd", "sp "]),
        ];
        for (text, expected) in table {
            assert_eq!(left_out(text, &PATHS), expected, "{text:?}");
        }
        assert_eq!(left_out("\u{feff}/a.o", &PATHS), ["a.o"]);
        assert_eq!(
            left_out("*.{o,c}", &PATHS),
            ["a.o", "keep.o", "src/a.o", "src/a.c"]
        );
    }

    #[test]
    fn the_file_itself_is_left_out_unless_it_is_asked_for() {
        let paths = [".mkignore", "src/.mkignore"];
        assert_eq!(left_out("", &paths), [".mkignore"]);
        assert_eq!(left_out("!.mkignore", &paths), Vec::<&str>::new());
        assert!(!Ignore::nothing().leaves_out(&TreePath::parse(".mkignore").unwrap(), false));
    }

    #[test]
    fn each_mistake_is_told_with_its_line() {
        let text = "*.o\n[a\n/\n!\n!!a\n  \na\\\n";
        let Mistakes(mistakes) = Ignore::parse(text.as_bytes()).unwrap_err();
        let drawn: Vec<String> = mistakes
            .iter()
            .map(|mistake| mistake.render(NAME, text))
            .collect();
        let lines: Vec<&str> = drawn.iter().map(|drawn| drawn.lines().next().unwrap()).collect();
        assert_eq!(
            lines,
            [2, 3, 4, 5, 7].map(|line| format!("cannot read `.mkignore`, line {line}, column 1"))
        );
        assert!(
            drawn[0].contains("`[a` is not a pattern: unclosed character class"),
            "{}",
            drawn[0]
        );
        let text = b"a\n\xff\n";
        let mistakes = Ignore::parse(text).unwrap_err();
        let drawn = mistakes.render(NAME, &String::from_utf8_lossy(text));
        assert!(drawn.contains("line 2, column 1"), "{drawn}");
    }
}
