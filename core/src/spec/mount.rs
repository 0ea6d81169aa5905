//! `--mount type=…,source=…,target=…`: the long form, in which every mount can be said. Nothing is looked up here.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::Error;
use super::volume::{
    ALONE, ELSEWHERE, Extra, ImageMount, PAIRS, Source, Tmpfs, Volume, Words, is_volume_name, mode_of,
    size_of, target_path, unknown,
};
use crate::path::{TreePath, shown};
use crate::recipe::meant;

/// The keys of `--mount`, by what they mean, with the other names that people know them by.
const KEYS: [(&str, &[&str]); 10] = [
    ("type", &[]),
    ("source", &["src"]),
    ("target", &["dst", "destination"]),
    ("readonly", &["ro"]),
    ("tmpfs-size", &["size"]),
    ("tmpfs-mode", &["mode"]),
    ("bind-recursive", &[]),
    ("bind-nonrecursive", &[]),
    ("volume-nocopy", &["nocopy"]),
    ("bind-propagation", &[]),
];
const TYPES: [&str; 4] = ["bind", "volume", "image", "tmpfs"];

/// What `--mount` said so far.
#[derive(Debug, Default)]
struct Long {
    kind: Option<String>,
    source: Option<Vec<u8>>,
    target: Option<TreePath>,
    words: Words,
    size: Option<u64>,
    mode: Option<u16>,
}

impl Extra {
    /// Reads `type=KIND,source=…,target=…,…`: the long form, in which a value may be put in double quotes with its key
    /// where it holds a comma.
    pub fn parse(text: &OsStr) -> Result<Self, Error> {
        let refuse = |why: String| Error::Mount {
            text: shown(text.as_bytes()),
            why,
        };
        let mut long = Long::default();
        for field in fields(text.as_bytes()).map_err(refuse)? {
            long.take(&field).map_err(refuse)?;
        }
        long.finish().map_err(refuse)
    }
}

/// Cuts at commas outside of double quotes; a quote inside of quotes is doubled (RFC 4180).
fn fields(bytes: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut found = vec![Vec::new()];
    let (mut quoted, mut bytes) = (false, bytes.iter().copied().peekable());
    while let Some(byte) = bytes.next() {
        let field: &mut Vec<u8> = match found.last_mut() {
            Some(field) => field,
            None => break,
        };
        match byte {
            b'"' if quoted && bytes.peek() == Some(&b'"') => {
                bytes.next();
                field.push(b'"');
            }
            b'"' if quoted || field.is_empty() => quoted = !quoted,
            b',' if !quoted => found.push(Vec::new()),
            other => field.push(other),
        }
    }
    match quoted {
        true => Err("a double quote is not closed".into()),
        false => Ok(found),
    }
}

impl Long {
    fn take(&mut self, field: &[u8]) -> Result<(), String> {
        let cut = field.iter().position(|&byte| byte == b'=');
        let (key, value) = match cut {
            Some(cut) => (shown(&field[..cut]), Some(&field[cut + 1..])),
            None => (shown(field), None),
        };
        let known = KEYS
            .iter()
            .find(|(name, others)| *name == key || others.contains(&key.as_str()));
        match (known.map(|(name, _)| *name), value) {
            (Some("type"), Some(value)) => set(&mut self.kind, &key, shown(value)),
            (Some("source"), Some(value)) => set(&mut self.source, &key, value.to_vec()),
            (Some("target"), Some(value)) => set(&mut self.target, &key, target_path(value)?),
            (Some("tmpfs-size"), Some(value)) => set(&mut self.size, &key, size_of(&shown(value))?),
            (Some("tmpfs-mode"), Some(value)) => set(&mut self.mode, &key, mode_of(&shown(value))?),
            (Some("readonly"), value) => self.switch(&key, value, "ro", "rw"),
            (Some("volume-nocopy"), value) => match truth(&key, value)? {
                true => self.words.take("nocopy"),
                false => Ok(()),
            },
            (Some("bind-nonrecursive"), value) => self.switch(&key, value, "bind", "rbind"),
            (Some("bind-recursive"), Some(value)) => self.recursive(value),
            (Some("bind-propagation"), _) => Err(unknown("private").replace("private", &key)),
            (Some(_), _) => Err(format!("`{key}` has no value: expected `{key}=…`")),
            (None, _) => self.option(&key, value),
        }
    }

    /// Takes `key` for one of two words.
    fn switch(&mut self, key: &str, value: Option<&[u8]>, on: &str, off: &str) -> Result<(), String> {
        let word = if truth(key, value)? { on } else { off };
        self.words.take(word)
    }

    fn recursive(&mut self, value: &[u8]) -> Result<(), String> {
        match value {
            b"enabled" | b"readonly" => self.words.take("rbind"),
            b"disabled" => self.words.take("bind"),
            other => Err(format!(
                "`bind-recursive={}` is neither `enabled` nor `disabled`: read-only is so all the way down",
                shown(other)
            )),
        }
    }

    /// Takes an option that `-v` has too.
    fn option(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), String> {
        if value.is_some() || key.is_empty() {
            return Err(self.unknown_key(key));
        }
        self.words.take(key).map_err(|why| {
            match why.contains("exclude") || ELSEWHERE.iter().any(|(word, _)| *word == key) {
                true => why,
                false => self.unknown_key(key),
            }
        })
    }

    fn unknown_key(&self, key: &str) -> String {
        let known = KEYS
            .iter()
            .flat_map(|(name, others)| std::iter::once(*name).chain(others.iter().copied()));
        let known = known
            .chain(PAIRS.iter().flat_map(|(one, other)| [*one, *other]))
            .chain(ALONE);
        match meant(key, known) {
            Some(meant) => format!("`{key}` is no key of a mount; did you mean `{meant}`?"),
            None => format!("`{key}` is no key of a mount"),
        }
    }

    fn finish(self) -> Result<Extra, String> {
        let kinds = TYPES.map(|kind| format!("`type={kind}`")).join(", ");
        let Some(kind) = &self.kind else {
            return Err(format!("it has no type: one of {kinds}"));
        };
        let Some(target) = self.target.clone() else {
            return Err("it has no `target=…`".into());
        };
        if kind != "tmpfs" && (self.size.is_some() || self.mode.is_some()) {
            return Err("a size and a mode go with `type=tmpfs`".into());
        }
        match kind.as_str() {
            "bind" => {
                let source = PathBuf::from(OsStr::from_bytes(
                    self.some_source("the path of a file or folder")?,
                ));
                self.volume(Source::Path(source), target)
            }
            "volume" => {
                let name = shown(self.some_source("the name of a volume")?);
                if !is_volume_name(&name) {
                    return Err(format!("`{name}` cannot name a volume; `type=bind` takes paths"));
                }
                self.volume(Source::Named { name, certain: true }, target)
            }
            "image" => self.image(target),
            "tmpfs" => self.tmpfs(target),
            other => Err(match meant(other, TYPES) {
                Some(meant) => format!("`{other}` is no type of a mount; did you mean `{meant}`?"),
                None => format!("`{other}` is no type of a mount; there are {kinds}"),
            }),
        }
    }

    fn some_source(&self, what: &str) -> Result<&[u8], String> {
        match self.source.as_deref() {
            None | Some(b"") => Err(format!("it has no `source=…`, {what}")),
            Some(source) => Ok(source),
        }
    }

    fn volume(self, source: Source, target: TreePath) -> Result<Extra, String> {
        self.words.check(&source)?;
        Ok(Extra::Volume(Volume {
            source,
            target,
            options: self.words.options(),
        }))
    }

    fn image(self, target: TreePath) -> Result<Extra, String> {
        let image = shown(self.some_source("the name of an image")?);
        self.only(
            &["ro", "exec", "noexec", "nosuid", "nodev"],
            "an image, which is never written to",
        )?;
        Ok(Extra::Image(ImageMount {
            image,
            target,
            exec: self.words.options().exec,
        }))
    }

    fn tmpfs(self, target: TreePath) -> Result<Extra, String> {
        if self.source.is_some() {
            return Err("a tmpfs has no source: it begins empty".into());
        }
        self.only(&["rw", "exec", "noexec", "nosuid", "nodev"], "a tmpfs")?;
        let mut tmpfs = Tmpfs::at(target);
        tmpfs.size = self.size;
        tmpfs.mode = self.mode.unwrap_or(tmpfs.mode);
        tmpfs.exec = self.words.options().exec;
        Ok(Extra::Tmpfs(tmpfs))
    }

    fn only(&self, allowed: &[&str], what: &str) -> Result<(), String> {
        match self.words.0.iter().find(|word| !allowed.contains(word)) {
            Some(word) => Err(format!("`{word}` does not go with {what}")),
            None => Ok(()),
        }
    }
}

fn set<T>(slot: &mut Option<T>, key: &str, value: T) -> Result<(), String> {
    match slot.replace(value) {
        Some(_) => Err(format!("`{key}` is given twice")),
        None => Ok(()),
    }
}

/// Reads the value of a switch: its name alone means yes.
fn truth(key: &str, value: Option<&[u8]>) -> Result<bool, String> {
    match value {
        None | Some(b"true" | b"1") => Ok(true),
        Some(b"false" | b"0") => Ok(false),
        Some(other) => Err(format!("`{key}={}` is neither `true` nor `false`", shown(other))),
    }
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

    fn long(text: &str) -> Extra {
        Extra::parse(OsStr::new(text)).unwrap()
    }

    #[track_caller]
    fn complaint(result: Result<impl std::fmt::Debug, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_long_form_says_the_same() {
        assert_eq!(
            long("type=bind,source=/a,target=/b,readonly"),
            Extra::Volume(volume("/a:/b:ro"))
        );
        assert_eq!(
            long("type=bind,src=/a,dst=/b,ro=true,bind-recursive=disabled,noexec"),
            Extra::Volume(volume("/a:/b:ro,bind,noexec"))
        );
        assert_eq!(
            long("destination=/b,type=bind,src=/a,readonly=0"),
            Extra::Volume(volume("/a:/b"))
        );
        let Extra::Volume(named) = long("type=volume,source=cache,target=/b,volume-nocopy") else {
            panic!("no volume")
        };
        assert_eq!(
            named.source,
            Source::Named {
                name: "cache".into(),
                certain: true
            }
        );
        assert!(!named.options.copy);
        let image = ImageMount {
            image: "alpine".into(),
            target: path("a"),
            exec: false,
        };
        assert_eq!(long("type=image,src=alpine,dst=/a,noexec"), Extra::Image(image));
        let Extra::Tmpfs(tmpfs) = long("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=0700") else {
            panic!("no tmpfs")
        };
        assert_eq!((tmpfs.size, tmpfs.mode), (Some(1 << 20), 0o700));
    }

    #[test]
    fn a_value_with_a_comma_stands_in_quotes() {
        let Extra::Volume(read) = long("type=bind,\"source=/a,b\"\"c\",target=/b:c") else {
            panic!("no volume")
        };
        assert_eq!(read.source, Source::Path("/a,b\"c".into()));
        assert_eq!(read.target, path("b:c"));
        assert!(Extra::parse(OsStr::new("type=bind,\"source=/a,target=/b")).is_err());
    }

    #[test]
    fn the_long_form_is_read_strictly() {
        for (text, expected) in [
            ("", "no key of a mount"),
            ("source=/a,target=/b", "it has no type"),
            ("type=bnid,source=/a,target=/b", "did you mean `bind`?"),
            (
                "type=npipe,source=/a,target=/b",
                "is no type of a mount; there are",
            ),
            ("type=bind,target=/b", "it has no `source=…`"),
            ("type=bind,source=,target=/b", "it has no `source=…`"),
            ("type=bind,source=/a", "it has no `target=…`"),
            ("type=bind,source=/a,target=b", "not an absolute path"),
            ("type=bind,source=/a,target=/b,src=/c", "`src` is given twice"),
            ("type=bind,source=/a,traget=/b", "did you mean `target`?"),
            (
                "type=bind,source=/a,target=/b,readonly=maybe",
                "neither `true` nor `false`",
            ),
            ("type=bind,source=/a,target=/b,ro,rw", "exclude each other"),
            ("type=bind,source=/a,target", "`target` has no value"),
            (
                "type=bind,source=/a,target=/b,tmpfs-size=1m",
                "go with `type=tmpfs`",
            ),
            (
                "type=bind,source=/a,target=/b,bind-propagation=shared",
                "never seen on the other",
            ),
            ("type=volume,source=/a,target=/b", "`type=bind` takes paths"),
            (
                "type=volume,source=a,target=/b,create",
                "made when it is first used",
            ),
            ("type=image,source=a,target=/b,rw", "never written to"),
            ("type=tmpfs,source=a,target=/b", "a tmpfs has no source"),
            ("type=tmpfs,target=/b,create", "`create` does not go with a tmpfs"),
            ("type=tmpfs,target=/b,tmpfs-size=0", "not a size"),
            ("type=bind,source=/a,target=/b,z", "no SELinux labels"),
        ] {
            let said = complaint(Extra::parse(OsStr::new(text)));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }
}
