//! What a run puts into its root besides the image: volumes, folders in memory and other images, as `-v` and `--tmpfs`
//! ask for them. Nothing is looked up here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Error;
use crate::path::{TreePath, shown};
use crate::recipe::meant;

/// A mount that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extra {
    /// A file or folder that outlives the run.
    Volume(Volume),
    /// The files of another image.
    Image(ImageMount),
    /// An empty folder in memory.
    Tmpfs(Tmpfs),
}

impl Extra {
    /// Returns where in the image it goes.
    pub fn target(&self) -> &TreePath {
        match self {
            Self::Volume(volume) => &volume.target,
            Self::Image(image) => &image.target,
            Self::Tmpfs(tmpfs) => &tmpfs.target,
        }
    }
}

/// A file or folder that outlives the run: `-v SOURCE:TARGET[:OPTIONS]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// What is shown.
    pub source: Source,
    /// Where in the image; never its root.
    pub target: TreePath,
    /// How.
    pub options: Options,
}

/// What a volume shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file or folder of the host, as written: absolute, or seen from the caller's working directory.
    Path(PathBuf),
    /// A folder of the store that has this name.
    Named {
        /// The name.
        name: String,
        /// Whether it can only be a name: not where `-v` leaves open whether a file beside the caller was meant.
        certain: bool,
    },
}

/// How a volume is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Nothing can be written there, nor in what is mounted below it.
    pub read_only: bool,
    /// What is mounted below the source is shown too.
    pub recursive: bool,
    /// Programs in it can be executed.
    pub exec: bool,
    /// Set-user-id bits and file capabilities in it have an effect.
    pub suid: bool,
    /// Device nodes in it can be opened.
    pub dev: bool,
    /// Whose the files are inside; `None`: as fits the run's user namespace.
    pub idmap: Option<bool>,
    /// A source that is missing is made.
    pub create: bool,
    /// A new volume begins with what the image has at its place.
    pub copy: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            read_only: false,
            recursive: true,
            exec: true,
            suid: false,
            dev: false,
            idmap: None,
            create: false,
            copy: true,
        }
    }
}

/// The files of another image, read-only: `--mount type=image,source=IMAGE,target=TARGET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMount {
    /// Name, digest or recipe, as written.
    pub image: String,
    /// Where in the image that runs; never its root.
    pub target: TreePath,
    /// Whether programs in it can be executed.
    pub exec: bool,
}

/// An empty folder in memory: `--tmpfs TARGET[:size=…,mode=…]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where in the image; never its root.
    pub target: TreePath,
    /// How many bytes it can hold; `None`: half of the machine's memory.
    pub size: Option<u64>,
    /// Permission bits of the folder (01777 unless given).
    pub mode: u16,
    /// Whether programs in it can be executed.
    pub exec: bool,
}

/// Options that exclude each other; of each pair, what holds unless said otherwise comes first.
pub(super) const PAIRS: [(&str, &str); 6] = [
    ("rw", "ro"),
    ("rbind", "bind"),
    ("exec", "noexec"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("idmap", "noidmap"),
];
/// Options that stand alone.
pub(super) const ALONE: [&str; 2] = ["create", "nocopy"];

/// Options of other tools that mk does not take, and why not.
pub(super) const ELSEWHERE: [(&str, &str); 14] = [
    ("z", LABELS),
    ("Z", LABELS),
    ("U", "mk changes no owners: leave it out"),
    (
        "O",
        "`--scratch` says where writes to the image go; a volume is written to itself, or `ro`",
    ),
    ("cached", WHOLE),
    ("consistent", WHOLE),
    ("delegated", WHOLE),
    ("private", PROPAGATION),
    ("rprivate", PROPAGATION),
    ("shared", PROPAGATION),
    ("rshared", PROPAGATION),
    ("slave", PROPAGATION),
    ("rslave", PROPAGATION),
    ("copy", "that is how it is: leave it out"),
];
const LABELS: &str =
    "mk gives files no SELinux labels: leave it out, and see to it that the label lets containers in";
const WHOLE: &str = "both sides see one and the same file: leave it out";
const PROPAGATION: &str = "what is mounted on one side later is never seen on the other: leave it out";

/// The words of a volume as they come in, each checked against those before it.
#[derive(Debug, Default)]
pub(super) struct Words(pub(super) Vec<&'static str>);

impl Words {
    /// Takes the option `word`.
    pub(super) fn take(&mut self, word: &str) -> Result<(), String> {
        let pair = PAIRS.iter().find_map(|&(one, other)| match word {
            _ if word == one => Some((one, other)),
            _ if word == other => Some((other, one)),
            _ => None,
        });
        if let Some((ours, opposite)) = pair {
            if self.has(opposite) {
                return Err(format!("`{opposite}` and `{ours}` exclude each other"));
            }
            self.0.push(ours);
            return Ok(());
        }
        match ALONE.iter().find(|known| **known == word) {
            Some(known) => self.0.push(known),
            None => return Err(unknown(word)),
        }
        Ok(())
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }

    pub(super) fn options(&self) -> Options {
        Options {
            read_only: self.has("ro"),
            recursive: !self.has("bind"),
            exec: !self.has("noexec"),
            suid: self.has("suid"),
            dev: self.has("dev"),
            idmap: match (self.has("idmap"), self.has("noidmap")) {
                (false, false) => None,
                (idmap, _) => Some(idmap),
            },
            create: self.has("create"),
            copy: !self.has("nocopy"),
        }
    }

    /// Refuses what makes no sense with `source`.
    pub(super) fn check(&self, source: &Source) -> Result<(), String> {
        match source {
            Source::Path(_) if self.has("nocopy") => {
                Err("`nocopy` goes with a named volume: nothing is copied to a folder of the host".into())
            }
            Source::Named { .. } if self.has("create") => {
                Err("`create` goes with a path: a named volume is made when it is first used".into())
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn unknown(word: &str) -> String {
    if let Some((_, why)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == word) {
        return format!("`{word}` is no option of mk's: {why}");
    }
    let known = PAIRS.iter().flat_map(|(one, other)| [*one, *other]).chain(ALONE);
    match meant(word, known.clone()) {
        Some(meant) => format!("`{word}` is no option of a volume; did you mean `{meant}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!(
                "`{word}` is no option of a volume; there are {}",
                known.join(", ")
            )
        }
    }
}

impl Volume {
    /// Reads `SOURCE:TARGET` or `SOURCE:TARGET:OPTION,…`.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let refuse = |why: String| Error::Volume {
            text: shown(text.as_bytes()),
            why,
        };
        let parts: Vec<&[u8]> = text.as_bytes().split(|&byte| byte == b':').collect();
        let (source, target, options) = match parts[..] {
            [source, target] => (source, target, None),
            [source, target, options] => (source, target, Some(shown(options))),
            [_] => return Err(refuse("it names no target: expected `SOURCE:TARGET`".into())),
            _ => {
                return Err(refuse(
                    "it has more than two colons, and where a path holds one, only `--mount` takes it".into(),
                ));
            }
        };
        let source = source_of(source).map_err(refuse)?;
        let mut words = Words::default();
        for word in options.iter().flat_map(|options| options.split(',')) {
            words.take(word).map_err(refuse)?;
        }
        words.check(&source).map_err(refuse)?;
        Ok(Self {
            source,
            target: target_path(target).map_err(refuse)?,
            options: words.options(),
        })
    }
}

/// Reads what stands before the first colon: a path where it holds a slash or begins with a dot, else a name.
fn source_of(bytes: &[u8]) -> Result<Source, String> {
    if bytes.is_empty() {
        return Err("its source is empty".into());
    }
    if bytes.contains(&b'/') || bytes.starts_with(b".") {
        return Ok(Source::Path(PathBuf::from(OsStr::from_bytes(bytes))));
    }
    let text = shown(bytes);
    match is_volume_name(&text) {
        true => Ok(Source::Named {
            name: text,
            certain: false,
        }),
        false => Err(format!(
            "its source `{text}` is neither a path, which holds a `/`, nor the name of a volume, which is made of \
             lower-case letters, digits, `.`, `_` and `-`"
        )),
    }
}

/// Whether a volume of the store can be called so: like an image.
pub fn is_volume_name(name: &str) -> bool {
    crate::store::image::check_name(name).is_ok()
}

impl Tmpfs {
    /// Reads `TARGET` or `TARGET:size=BYTES,mode=OCTAL`; sizes may end in `k`, `m` or `g`.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let refuse = |why: String| Error::Tmpfs {
            text: shown(text.as_bytes()),
            why,
        };
        let bytes = text.as_bytes();
        let cut = bytes.iter().position(|&byte| byte == b':').unwrap_or(bytes.len());
        let options = shown(bytes.get(cut + 1..).unwrap_or_default());
        let mut tmpfs = Self::at(target_path(&bytes[..cut]).map_err(refuse)?);
        for option in options.split(',').filter(|option| !option.is_empty()) {
            tmpfs.option(option).map_err(refuse)?;
        }
        Ok(tmpfs)
    }

    pub(super) fn at(target: TreePath) -> Self {
        Self {
            target,
            size: None,
            mode: 0o1777,
            exec: true,
        }
    }

    fn option(&mut self, option: &str) -> Result<(), String> {
        match option.split_once('=') {
            Some(("size", size)) => self.size = Some(size_of(size)?),
            Some(("mode", mode)) => self.mode = mode_of(mode)?,
            None if option == "noexec" => self.exec = false,
            _ => return Err(format!("`{option}` is none of `size=`, `mode=` and `noexec`")),
        }
        Ok(())
    }
}

pub(super) fn size_of(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| format!("`{text}` is not a size"))
}

pub(super) fn mode_of(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|bits| *bits <= 0o7777 && !text.starts_with('+'))
        .ok_or_else(|| format!("`{text}` is not an octal mode"))
}

/// Reads a place in the image: absolute, not the root itself.
pub(super) fn target_path(bytes: &[u8]) -> Result<TreePath, String> {
    if !bytes.starts_with(b"/") {
        return Err(format!("its target `{}` is not an absolute path", shown(bytes)));
    }
    let path = TreePath::normalise(bytes).map_err(|bad| bad.to_string())?;
    if path.is_root() {
        return Err("its target is the root of the image".into());
    }
    Ok(path)
}

/// Reads a number of bytes: digits, and `k`, `m` or `g` for powers of 1024. It is not 0, which is no limit to a tmpfs
/// (tmpfs(5)).
pub fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 10),
        b'm' | b'M' => (&text[..text.len() - 1], 20),
        b'g' | b'G' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    digits
        .parse::<u64>()
        .ok()?
        .checked_mul(1 << shift)
        .filter(|size| *size > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    fn volume(text: &str) -> Volume {
        Volume::parse(OsStr::new(text)).unwrap()
    }

    #[track_caller]
    fn complaint(result: Result<impl std::fmt::Debug, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_volume_is_recursive_and_powerless_unless_it_says_otherwise() {
        let read = volume("./a:/mnt/:ro");
        assert_eq!(
            (read.source, read.target),
            (Source::Path("./a".into()), path("mnt"))
        );
        assert_eq!(
            read.options,
            Options {
                read_only: true,
                ..Options::default()
            }
        );
        let all = volume("/a:/b:bind,noexec,suid,dev,create,noidmap").options;
        assert_eq!(
            all,
            Options {
                read_only: false,
                recursive: false,
                exec: false,
                suid: true,
                dev: true,
                idmap: Some(false),
                create: true,
                copy: true
            }
        );
        let usual = volume("/a:/b:rw,rbind,exec,nosuid,nodev").options;
        assert_eq!(usual, Options::default());
    }

    #[test]
    fn volumes_are_read_strictly() {
        for text in [
            "/a",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/../b",
            "/a:/b:",
            "/a:/b:ro,",
            "/a:/b:ro:z",
            "",
        ] {
            assert!(Volume::parse(OsStr::new(text)).is_err(), "{text:?} was accepted");
        }
        for (options, expected) in [
            ("ro,rw", "`ro` and `rw` exclude each other"),
            ("bind,rbind", "`bind` and `rbind` exclude each other"),
            ("raed", "`raed` is no option"),
            ("noexce", "did you mean `noexec`?"),
            ("nosiud", "did you mean `nosuid`?"),
            ("z", "no SELinux labels"),
            ("rshared", "never seen on the other"),
            ("nocopy", "goes with a named volume"),
        ] {
            let said = complaint(Volume::parse(OsStr::new(&format!("/a:/b:{options}"))));
            assert!(said.contains(expected), "{options}: {said}");
        }
    }

    #[test]
    fn a_source_without_a_slash_is_a_name() {
        for (text, named) in [
            ("cache", true),
            ("c-1.x_y", true),
            ("./cache", false),
            ("a/b", false),
            (".", false),
            ("..", false),
        ] {
            let source = volume(&format!("{text}:/x")).source;
            assert_eq!(matches!(source, Source::Named { .. }), named, "{text}");
        }
        for text in ["Cache", "-c", "~", "a b", "ä", &"a".repeat(129)] {
            let said = complaint(Volume::parse(OsStr::new(&format!("{text}:/x"))));
            assert!(said.contains("neither a path"), "{said}");
        }
        let said = complaint(Volume::parse(OsStr::new("cache:/x:create")));
        assert!(said.contains("made when it is first used"), "{said}");
    }

    #[test]
    fn a_tmpfs_has_a_size_and_a_mode() {
        let tmpfs = Tmpfs::parse(OsStr::new("/cache:size=64m,mode=0700,noexec")).unwrap();
        assert_eq!(
            (tmpfs.size, tmpfs.mode, tmpfs.exec),
            (Some(64 << 20), 0o700, false)
        );
        let plain = Tmpfs::parse(OsStr::new("/cache")).unwrap();
        assert_eq!((plain.size, plain.mode, plain.exec), (None, 0o1777, true));
        for text in [
            "cache",
            "/",
            "/c:size=",
            "/c:size=0",
            "/c:size=-1",
            "/c:mode=9",
            "/c:mode=+7",
            "/c:x=1",
        ] {
            assert!(Tmpfs::parse(OsStr::new(text)).is_err(), "{text:?} was accepted");
        }
    }
}
