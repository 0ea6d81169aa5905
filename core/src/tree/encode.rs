//! [`Tree`] ↔ canonical text: mtree(5), one line a path, sorted by the bytes of the path. The digest of this text is
//! the name of the tree, so one tree has one text; docs/store.md describes it.
//!
//! What mtree(5) has no keyword for stands in `tags`, which every reader passes over: `hardlink:PATH` names the first
//! path of the same group, `xattr:NAME:VALUE` an extended attribute (value in base64).

use std::collections::HashMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Group, Node, NodeKind, Tree};
use crate::digest::Digest;
use crate::entry::Content;
use crate::meta::{Meta, Xattrs};
use crate::path::TreePath;

/// The first line of every tree; the number is the version of the format.
const HEADER: &str = "#mtree mk-tree 1";

/// A text that is no canonical tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is not of a tree: {why}")]
pub struct BadTree {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, as a fragment.
    pub why: String,
}

impl Tree {
    /// Returns the canonical text.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = String::with_capacity(64 + self.nodes.len() * 160);
        text.push_str(HEADER);
        text.push('\n');
        let mut first_of: HashMap<Group, &TreePath> = HashMap::new();
        for (path, node) in &self.nodes {
            write_path(&mut text, path);
            write_meta(&mut text, node);
            let mut tags: Vec<String> = Vec::new();
            if let NodeKind::File {
                group: Some(group), ..
            } = node.kind
            {
                match first_of.get(&group) {
                    Some(first) => tags.push(format!("hardlink:{}", percent(first.as_bytes()))),
                    None => _ = first_of.insert(group, path),
                }
            }
            for (name, value) in node.meta.xattrs.iter().flat_map(|xattrs| xattrs.iter()) {
                tags.push(format!("xattr:{}:{}", percent(name), BASE64.encode(value)));
            }
            if !tags.is_empty() {
                text.push_str(" tags=");
                text.push_str(&tags.join(","));
            }
            text.push('\n');
        }
        text.into_bytes()
    }

    /// Reads a canonical text back. Accepts what [`Tree::encode`] writes and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadTree> {
        let bad = |line: usize, why: &str| BadTree {
            line,
            why: why.to_owned(),
        };
        let text = std::str::from_utf8(bytes).map_err(|_| bad(1, "it is not UTF-8"))?;
        let body = text
            .strip_prefix(HEADER)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or_else(|| bad(1, &format!("expected `{HEADER}`")))?;
        if !body.is_empty() && !body.ends_with('\n') {
            return Err(bad(text.lines().count(), "it is cut short"));
        }
        let mut reading = Reading {
            tree: Tree {
                nodes: Default::default(),
                last_group: 0,
            },
            last: None,
            first_of: HashMap::new(),
        };
        for (at, line) in body.lines().enumerate() {
            reading.line(line).map_err(|why| BadTree { line: at + 2, why })?;
        }
        if reading.tree.nodes.is_empty() {
            return Err(bad(2, "the root is missing"));
        }
        Ok(reading.tree)
    }
}

/// A tree as far as it has been read.
struct Reading {
    tree: Tree,
    last: Option<TreePath>,
    first_of: HashMap<Group, TreePath>,
}

impl Reading {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.split(' ');
        let path = read_path(words.next().unwrap_or_default())?;
        if self.last.as_ref().is_some_and(|last| *last >= path) || self.last.is_none() != path.is_root() {
            return Err("paths are sorted and begin with the root".into());
        }
        if path
            .parent()
            .is_some_and(|parent| !self.tree.nodes.get(&parent).is_some_and(Node::is_folder))
        {
            return Err("its folder is missing".into());
        }
        let mut fields = Fields(words);
        let kind = fields.want("type")?;
        let mut meta = Meta {
            mode: octal(fields.want("mode")?)?,
            uid: decimal(fields.want("uid")?)?,
            gid: decimal(fields.want("gid")?)?,
            mtime: decimal(
                fields
                    .want("time")?
                    .strip_suffix(".0")
                    .ok_or("times end in `.0`")?,
            )?,
            xattrs: None,
        };
        let mut kind = match kind {
            "dir" => NodeKind::Folder,
            "file" => {
                let size = decimal(fields.want("size")?)?;
                let digest = fields
                    .want("sha256")?
                    .parse::<Digest>()
                    .map_err(|error| error.to_string())?;
                NodeKind::File {
                    content: Content { digest, size },
                    group: None,
                }
            }
            "link" => NodeKind::Symlink(unescape(fields.want("link")?)?.into()),
            "char" | "block" => {
                let (major, minor) = device(fields.want("device")?)?;
                NodeKind::Device {
                    block: kind == "block",
                    major,
                    minor,
                }
            }
            "fifo" => NodeKind::Fifo,
            _ => return Err(format!("`{kind}` is no type")),
        };
        if let Some(word) = fields.0.next() {
            let tags = word
                .strip_prefix("tags=")
                .ok_or_else(|| format!("`{word}` is not expected here"))?;
            for tag in tags.split(',') {
                self.tag(tag, &mut kind, &mut meta)?;
            }
        }
        if let Some(word) = fields.0.next() {
            return Err(format!("`{word}` is not expected here"));
        }
        self.last = Some(path.clone());
        self.tree.nodes.insert(path, Node { meta, kind });
        Ok(())
    }

    fn tag(&mut self, tag: &str, kind: &mut NodeKind, meta: &mut Meta) -> Result<(), String> {
        if let Some(first) = tag.strip_prefix("hardlink:") {
            let first = TreePath::parse(unpercent(first)?).map_err(|error| error.to_string())?;
            if meta.xattrs.is_some() {
                return Err("a hard link is told of before attributes are".into());
            }
            self.join(first, kind)
        } else if let Some((name, value)) = tag.strip_prefix("xattr:").and_then(|rest| rest.split_once(':')) {
            let value = BASE64.decode(value).map_err(|error| error.to_string())?;
            let name: Box<[u8]> = unpercent(name)?.into();
            let xattrs: &mut Xattrs = meta.xattrs.get_or_insert_default();
            if xattrs.last_key_value().is_some_and(|(last, _)| *last >= name) {
                return Err("attributes are sorted".into());
            }
            xattrs.insert(name, value.into());
            Ok(())
        } else {
            Err(format!("`{tag}` is no tag"))
        }
    }

    /// Makes a file one of the group whose first path is `first`.
    fn join(&mut self, first: TreePath, kind: &mut NodeKind) -> Result<(), String> {
        let NodeKind::File { content, group } = kind else {
            return Err("only files have hard links".into());
        };
        let fresh = self.tree.new_group();
        match self.tree.nodes.get_mut(&first).map(|node| &mut node.kind) {
            Some(NodeKind::File {
                content: same,
                group: of,
            }) if same == content && group.is_none() => {
                let of = *of.get_or_insert(fresh);
                if *self.first_of.entry(of).or_insert_with(|| first.clone()) != first {
                    return Err(format!("`{first}` is not the first of its hard links"));
                }
                *group = Some(of);
                Ok(())
            }
            _ => Err(format!("`{first}` is not the same file")),
        }
    }
}

/// The words of a line behind its path.
struct Fields<'a>(std::str::Split<'a, char>);

impl<'a> Fields<'a> {
    /// Returns the value of the next word, which must be `key=…`.
    fn want(&mut self, key: &str) -> Result<&'a str, String> {
        self.0
            .next()
            .and_then(|word| word.strip_prefix(key)?.strip_prefix('='))
            .ok_or_else(|| format!("expected `{key}=`"))
    }
}

fn write_path(text: &mut String, path: &TreePath) {
    text.push('.');
    if !path.is_root() {
        text.push('/');
        escape(text, path.as_bytes());
    }
}

/// Writes the keywords in their one order. Writing to a `String` cannot fail.
fn write_meta(text: &mut String, node: &Node) {
    let kind = match &node.kind {
        NodeKind::Folder => "dir",
        NodeKind::File { .. } => "file",
        NodeKind::Symlink(_) => "link",
        NodeKind::Device { block: true, .. } => "block",
        NodeKind::Device { block: false, .. } => "char",
        NodeKind::Fifo => "fifo",
    };
    let Meta {
        mode,
        uid,
        gid,
        mtime,
        ..
    } = node.meta;
    _ = write!(
        text,
        " type={kind} mode={mode:04o} uid={uid} gid={gid} time={mtime}.0"
    );
    match &node.kind {
        NodeKind::File { content, .. } => {
            _ = write!(text, " size={} sha256={}", content.size, content.digest);
        }
        NodeKind::Symlink(target) => {
            text.push_str(" link=");
            escape(text, target);
        }
        NodeKind::Device { major, minor, .. } => _ = write!(text, " device=native,{major},{minor}"),
        NodeKind::Folder | NodeKind::Fifo => {}
    }
}

/// Writes `bytes` as mtree(5) wants names: graphic ASCII as it is, all else, and what mtree takes for a pattern or a
/// comment, as `\ooo` (vis(3), VIS_OCTAL).
fn escape(text: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'\\' | b'#' | b'*' | b'?' | b'[' | b'=' | 0..=32 | 127.. => _ = write!(text, "\\{byte:03o}"),
            _ => text.push(char::from(byte)),
        }
    }
}

fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut again = String::new();
    let bytes = unmark(text, b'\\', 3, 8)?;
    escape(&mut again, &bytes);
    exactly(text, &again, bytes)
}

/// Replaces each `mark` with the `digits` behind it, a number to the base `radix`, by the byte of that number.
fn unmark(text: &str, mark: u8, digits: usize, radix: u32) -> Result<Vec<u8>, String> {
    let bad = || format!("`{text}` has an escape that is none");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == mark {
            let (number, after) = rest.split_at_checked(digits).ok_or_else(bad)?;
            let number = std::str::from_utf8(number).map_err(|_| bad())?;
            bytes.push(u8::from_str_radix(number, radix).map_err(|_| bad())?);
            rest = after;
        } else {
            bytes.push(byte);
        }
    }
    Ok(bytes)
}

/// Returns `bytes` if `text` is the one way to write them.
fn exactly(text: &str, again: &str, bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    match again == text {
        true => Ok(bytes),
        false => Err(format!("`{text}` is not escaped as it should be")),
    }
}

fn read_path(word: &str) -> Result<TreePath, String> {
    if word == "." {
        return Ok(TreePath::root());
    }
    let path = word.strip_prefix("./").ok_or("paths begin with `./`")?;
    TreePath::parse(unescape(path)?).map_err(|error| error.to_string())
}

/// Writes `bytes` with all but letters, digits, `.`, `_`, `-` and `/` as `%xx`, so that they hold none of a tag's marks.
fn percent(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' => {
                text.push(char::from(byte))
            }
            _ => _ = write!(text, "%{byte:02x}"),
        }
    }
    text
}

fn unpercent(text: &str) -> Result<Vec<u8>, String> {
    let bytes = unmark(text, b'%', 2, 16)?;
    exactly(text, &percent(&bytes), bytes)
}

/// Reads a number that is written as this module writes it: no sign but `-`, no leading zeros.
fn decimal<N: std::str::FromStr + ToString>(text: &str) -> Result<N, String> {
    text.parse::<N>()
        .ok()
        .filter(|number| number.to_string() == text)
        .ok_or_else(|| format!("`{text}` is not a number that fits"))
}

fn octal(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777 && format!("{mode:04o}") == text)
        .ok_or_else(|| format!("`{text}` is not a mode"))
}

fn device(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.strip_prefix("native,").and_then(|rest| rest.split_once(','));
    let (major, minor) = numbers.ok_or_else(|| format!("`{text}` is not a device"))?;
    Ok((decimal(major)?, decimal(minor)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Kind};

    fn lay(tree: &mut Tree, at: &[u8], meta: Meta, kind: Kind<Content>) {
        tree.layer(i64::MAX)
            .lay(Entry {
                path: TreePath::normalise(at).unwrap(),
                meta,
                kind,
            })
            .unwrap();
    }

    /// One of everything.
    fn sample() -> Tree {
        let mut tree = Tree::new(0);
        let content = Content {
            digest: Digest::of(b"hi\n"),
            size: 3,
        };
        lay(
            &mut tree,
            b"etc",
            Meta {
                mode: 0o750,
                uid: 1,
                gid: 2,
                mtime: -5,
                xattrs: None,
            },
            Kind::Folder,
        );
        lay(
            &mut tree,
            b"etc/a b#*\\\xff",
            Meta::new(0o644, 7),
            Kind::File(content),
        );
        let mut capable = Meta::new(0o4755, 7);
        capable.keep_xattr(b"security.capability", b"\x01\x00\xfe");
        capable.keep_xattr(b"user.odd,name=", b"");
        lay(&mut tree, b"bin/ping", capable, Kind::File(content));
        lay(
            &mut tree,
            b"bin/also,ping",
            Meta::new(0, 0),
            Kind::HardLink(TreePath::parse("bin/ping").unwrap()),
        );
        lay(
            &mut tree,
            b"bin/sh",
            Meta::new(0o777, 7),
            Kind::Symlink(b"busy box".as_slice().into()),
        );
        lay(
            &mut tree,
            b"dev/null",
            Meta::new(0o666, 7),
            Kind::Device {
                block: false,
                major: 1,
                minor: 3,
            },
        );
        lay(
            &mut tree,
            b"dev/sda",
            Meta::new(0o660, 7),
            Kind::Device {
                block: true,
                major: 8,
                minor: 0,
            },
        );
        lay(&mut tree, b"pipe", Meta::new(0o600, 7), Kind::Fifo);
        tree
    }

    const TEXT: &str = r"#mtree mk-tree 1
. type=dir mode=0755 uid=0 gid=0 time=0.0
./bin type=dir mode=0755 uid=0 gid=0 time=9223372036854775807.0
./bin/also,ping type=file mode=4755 uid=0 gid=0 time=7.0 size=3 sha256=98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4 tags=xattr:security.capability:AQD+,xattr:user.odd%2cname%3d:
./bin/ping type=file mode=4755 uid=0 gid=0 time=7.0 size=3 sha256=98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4 tags=hardlink:bin/also%2cping,xattr:security.capability:AQD+,xattr:user.odd%2cname%3d:
./bin/sh type=link mode=0777 uid=0 gid=0 time=7.0 link=busy\040box
./dev type=dir mode=0755 uid=0 gid=0 time=9223372036854775807.0
./dev/null type=char mode=0666 uid=0 gid=0 time=7.0 device=native,1,3
./dev/sda type=block mode=0660 uid=0 gid=0 time=7.0 device=native,8,0
./etc type=dir mode=0750 uid=1 gid=2 time=-5.0
./etc/a\040b\043\052\134\377 type=file mode=0644 uid=0 gid=0 time=7.0 size=3 sha256=98ea6e4f216f2fb4b69fff9b3a44842c38686ca685f3f55dc48c5d3fb1107be4
./pipe type=fifo mode=0600 uid=0 gid=0 time=7.0
";

    #[test]
    fn a_tree_has_this_text_and_comes_back_from_it() {
        let text = String::from_utf8(sample().encode()).unwrap();
        assert_eq!(text, TEXT);
        let back = Tree::decode(TEXT.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(back.encode()).unwrap(), TEXT);
    }

    #[test]
    fn the_order_of_entries_does_not_matter() {
        let mut one = Tree::new(0);
        lay(&mut one, b"a", Meta::new(0o755, 1), Kind::Folder);
        lay(&mut one, b"b", Meta::new(0o755, 1), Kind::Folder);
        let mut other = Tree::new(0);
        lay(&mut other, b"b", Meta::new(0o755, 1), Kind::Folder);
        lay(&mut other, b"a", Meta::new(0o755, 1), Kind::Folder);
        assert_eq!(one.digest(), other.digest());
    }

    #[test]
    fn only_canonical_text_is_a_tree() {
        let lines: Vec<&str> = TEXT.lines().collect();
        let join = |lines: &[&str]| lines.join("\n") + "\n";
        let mut cases = vec![
            String::new(),
            HEADER.to_owned(),
            join(&lines[..1]),
            TEXT.trim_end().to_owned(),
            TEXT.replace("mk-tree 1", "mk-tree 2"),
            TEXT.replace("mode=0600", "mode=600"),
            TEXT.replace("uid=1 ", "uid=01 "),
            TEXT.replace("uid=1 ", "uid=4294967296 "),
            TEXT.replace("type=fifo", "type=socket"),
            TEXT.replace("\\040box", " box"),
            TEXT.replace("\\040box", "\\141box"),
            TEXT.replace("./pipe", "./../pipe"),
            TEXT.replace("hardlink:bin/also%2cping", "hardlink:bin/other"),
            TEXT.replace("time=-5.0", "time=-5.1"),
        ];
        let mut swapped = lines.clone();
        swapped.swap(2, 3);
        cases.push(join(&swapped));
        let mut orphan = lines.clone();
        orphan.remove(2);
        cases.push(join(&orphan));
        for case in cases {
            assert!(Tree::decode(case.as_bytes()).is_err(), "accepted:\n{case}");
        }
    }

    proptest::proptest! {
        /// What is accepted is canonical: a tree has one text, also where somebody changed it on the disk.
        #[test]
        fn a_changed_text_is_refused_or_canonical(at in 0..TEXT.len(), with in "[ -~\n]{0,3}", gone in 0..40_usize) {
            let end = (at + gone).min(TEXT.len());
            let changed = [&TEXT[..at], &with, &TEXT[end..]].concat();
            if let Ok(tree) = Tree::decode(changed.as_bytes()) {
                proptest::prop_assert_eq!(String::from_utf8(tree.encode()).unwrap(), changed);
            }
        }
    }
}
