//! Checks of single texts: each takes what a recipe says and gives the type that the rest of mk trusts.

use std::net::IpAddr;

use super::raw::{Wrong, quoted};
use super::{BadNetwork, Base, Location, Network, Owner};
use crate::digest::Digest;
use crate::glob::GlobSet;
use crate::path::{BadPath, LONGEST_PATH, TreePath};

/// The longest host name that Linux keeps (`HOST_NAME_MAX`, gethostname(2)).
const LONGEST_HOSTNAME: usize = 64;
/// The longest name of a host in the DNS (RFC 1035, section 2.3.4).
const LONGEST_HOST: usize = 253;
/// The longest user name that useradd(8) makes.
const LONGEST_USER: usize = 32;

type Checked<T> = Result<T, Wrong>;

/// A text that is `expected` where it is refused.
fn wrong<T>(what: String, expected: &str) -> Checked<T> {
    Err(Wrong {
        what,
        expected: Some(expected.to_owned()),
        hint: None,
    })
}

/// The same with advice.
fn wrong_so<T>(what: String, expected: &str, hint: impl Into<String>) -> Checked<T> {
    Err(Wrong {
        what,
        expected: Some(expected.to_owned()),
        hint: Some(hint.into()),
    })
}

/// Any text.
pub(super) fn any(text: &str) -> Checked<String> {
    Ok(text.to_owned())
}

/// A text for the kernel or a line of a file: no NUL.
pub(super) fn no_nul(text: &str) -> Checked<String> {
    if text.contains('\0') {
        return wrong(format!("{} holds a NUL byte", quoted(text)), "a text without NUL");
    }
    Ok(text.to_owned())
}

/// One line.
pub(super) fn line(text: &str) -> Checked<String> {
    if text.chars().any(char::is_control) {
        return wrong(
            format!("{} holds a line end or another control character", quoted(text)),
            "one line of text",
        );
    }
    Ok(text.to_owned())
}

/// A path of the image as a person writes it: from the root.
pub(super) fn path(text: &str) -> Checked<TreePath> {
    const EXPECTED: &str = "a path from the root of the image, such as \"/etc/motd\"";
    if !text.starts_with('/') {
        let what = format!("{} does not start at the root", quoted(text));
        return match TreePath::normalise(text) {
            Ok(meant) if !text.is_empty() => wrong_so(what, EXPECTED, format!("did you mean \"{meant}\"?")),
            _ => wrong(what, EXPECTED),
        };
    }
    TreePath::normalise(text).or_else(|BadPath { why, .. }| {
        wrong(
            format!("{} is not a path inside an image: {why}", quoted(text)),
            EXPECTED,
        )
    })
}

/// The path of something other than the root.
pub(super) fn path_below_root(text: &str) -> Checked<TreePath> {
    let path = path(text)?;
    if path.is_root() {
        return wrong(
            format!("{} is the root of the image", quoted(text)),
            "a path below it, such as \"/etc/motd\"",
        );
    }
    Ok(path)
}

/// The path of a file, which has no closing slash.
pub(super) fn file_path(text: &str) -> Checked<TreePath> {
    let path = path_below_root(text)?;
    if text.ends_with('/') {
        return wrong(
            format!("{} names a folder", quoted(text)),
            "the path of the file itself, such as \"/etc/motd\"",
        );
    }
    Ok(path)
}

/// An absolute path that is kept as text (a home, a shell, a working directory), in its shortest form.
pub(super) fn path_text(text: &str) -> Checked<String> {
    let path = path(text)?;
    match std::str::from_utf8(path.as_bytes()) {
        Ok(names) => Ok(format!("/{names}")),
        Err(_) => wrong(format!("{} is not UTF-8", quoted(text)), "a path in UTF-8"),
    }
}

/// The same for a field of passwd(5).
pub(super) fn passwd_path(text: &str) -> Checked<String> {
    let path = path_text(text)?;
    passwd_field(&path)?;
    Ok(path)
}

/// A field of passwd(5): no `:`, one line.
pub(super) fn passwd_field(text: &str) -> Checked<String> {
    if text.contains(':') || text.chars().any(char::is_control) {
        return wrong(
            format!("{} cannot stand in /etc/passwd", quoted(text)),
            "a text without `:` and line ends",
        );
    }
    Ok(text.to_owned())
}

/// Where `copy` puts something: the path, and whether it is written as a folder to put it into.
pub(super) fn into(text: &str) -> Checked<(TreePath, bool)> {
    Ok((path(text)?, text.ends_with('/')))
}

/// A path beside the recipe.
pub(super) fn source(text: &str) -> Checked<String> {
    const EXPECTED: &str = "a path beside the recipe, such as \"files/motd\"";
    const BESIDE: &str =
        "what a recipe reads lies in its own folder, so that the folder can be moved as a whole";
    if text.is_empty() {
        return wrong("an empty text is not a path".to_owned(), EXPECTED);
    }
    if text.starts_with('/') {
        return wrong_so(
            format!("{} is a path of this machine", quoted(text)),
            EXPECTED,
            BESIDE,
        );
    }
    if text.starts_with("~/") {
        return wrong_so(
            format!("{} is a path in somebody's home", quoted(text)),
            EXPECTED,
            BESIDE,
        );
    }
    if text.split('/').any(|name| name == "..") {
        return wrong_so(
            format!("{} leaves the folder of the recipe", quoted(text)),
            EXPECTED,
            BESIDE,
        );
    }
    TreePath::normalise(text)
        .or_else(|BadPath { why, .. }| wrong(format!("{} is not a path: {why}", quoted(text)), EXPECTED))?;
    Ok(text.to_owned())
}

/// Where an archive is: a URL, or a file beside the recipe.
pub(super) fn location(text: &str) -> Checked<Location> {
    const EXPECTED: &str = "an http:// or https:// URL, or a path beside the recipe";
    let Some((scheme, rest)) = text.split_once("://") else {
        let path = source(text)?;
        if text.ends_with('/') || TreePath::normalise(text).is_ok_and(|path| path.is_root()) {
            return wrong_so(
                format!("{} is a folder", quoted(text)),
                "an archive",
                "`copy` takes folders",
            );
        }
        return Ok(Location::File(path));
    };
    if !matches!(scheme, "http" | "https") {
        let hint = match scheme {
            "file" => "a file beside the recipe is written as a plain path",
            _ => "download it, and put it beside the recipe",
        };
        return wrong_so(
            format!(
                "`{}://` in {} is not a known kind of URL",
                crate::path::shown(scheme.as_bytes()),
                quoted(text)
            ),
            EXPECTED,
            hint,
        );
    }
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        return wrong(format!("{} names no host", quoted(text)), "https://HOST/PATH");
    }
    if text.contains(|letter: char| letter.is_control() || letter.is_whitespace() || !letter.is_ascii()) {
        return wrong_so(
            format!("{} holds a character that a URL cannot hold", quoted(text)),
            "a URL",
            "a blank is written %20",
        );
    }
    Ok(Location::Url(text.to_owned()))
}

/// What a recipe starts from.
#[derive(Debug)]
pub(super) enum From {
    /// The tree of another recipe or image.
    Base(Base),
    /// A folder beside the recipe.
    Folder(String),
    /// An archive.
    Archive(Location),
}

/// What a recipe starts from: whatever ends with a slash is a folder, and whatever has another slash, or ends as archives
/// do, is an archive; the rest is a [`base`].
pub(super) fn from(text: &str) -> Checked<From> {
    if is_recipe(text) {
        return base(text).map(From::Base);
    }
    if text.ends_with('/') || matches!(text, "." | "..") {
        return source(text).map(From::Folder);
    }
    if text.contains('/') || is_archive(text) {
        return location(text).map(From::Archive);
    }
    base(text).map(From::Base)
}

/// Another tree: a name, the path of a recipe, the digest of an image, or `tree:` and a digest.
pub(super) fn base(text: &str) -> Checked<Base> {
    const EXPECTED: &str = "the name of a recipe or image, the path of a recipe, or a digest";
    if let Some(tree) = text.strip_prefix("tree:") {
        return digest(tree).map(Base::Tree);
    }
    if let Ok(image) = text.parse() {
        return Ok(Base::Image(image));
    }
    if is_recipe(text) {
        return match text.starts_with('/') || text.starts_with("~/") {
            true => wrong_so(
                format!("{} is a path of this machine", quoted(text)),
                "the path of a recipe from the folder of this one, such as \"../base/base.toml\"",
                "folders that are moved together still find each other then",
            ),
            false => no_nul(text).map(Base::Recipe),
        };
    }
    if text.contains('/') || is_archive(text) {
        return wrong_so(
            format!("{} is no recipe", quoted(text)),
            EXPECTED,
            "`copy` takes folders from beside the recipe, and `unpack` archives",
        );
    }
    match is_image_name(text) {
        true => Ok(Base::Name(text.to_owned())),
        false => wrong(format!("{} names no recipe and no image", quoted(text)), EXPECTED),
    }
}

/// The name of an image.
pub(super) fn image_name(text: &str) -> Checked<String> {
    match is_image_name(text) {
        true => Ok(text.to_owned()),
        false => wrong(
            format!("{} cannot name an image", quoted(text)),
            "up to 128 lower-case letters, digits, `.`, `_` and `-`, the first a letter or digit",
        ),
    }
}

/// Whether `text` can name an image: up to 128 lower-case letters, digits, `.`, `_` and `-`, the first a letter or digit.
pub(crate) fn is_image_name(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_digit() || letter.is_ascii_lowercase();
    text.len() <= 128
        && text.starts_with(plain)
        && text
            .chars()
            .all(|letter| plain(letter) || matches!(letter, '.' | '_' | '-'))
}

fn is_recipe(text: &str) -> bool {
    text.ends_with(".toml")
}

/// Whether `text` ends as the names of archives do.
fn is_archive(text: &str) -> bool {
    const ENDINGS: [&str; 7] = [".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.zst", ".deb"];
    ENDINGS.iter().any(|ending| text.ends_with(ending))
}

/// A sha256.
pub(super) fn digest(text: &str) -> Checked<Digest> {
    const EXPECTED: &str = "64 lower-case hexadecimal digits";
    text.parse().or_else(|_| {
        let bare = text.strip_prefix("sha256:").unwrap_or(text).trim();
        if bare.to_lowercase().parse::<Digest>().is_ok() {
            let hint = format!("did you mean \"{}\"?", bare.to_lowercase());
            return wrong_so(format!("{} is not a sha256", quoted(text)), EXPECTED, hint);
        }
        if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return wrong(
                format!("{} is not a sha256: it has {} digits", quoted(text), text.len()),
                EXPECTED,
            );
        }
        wrong(format!("{} is not a sha256", quoted(text)), EXPECTED)
    })
}

/// Permission bits, with setuid, setgid and sticky.
pub(super) fn mode(text: &str) -> Checked<u16> {
    let digits = text
        .strip_prefix('0')
        .filter(|rest| rest.len() >= 3)
        .unwrap_or(text);
    let is_octal = digits.bytes().all(|digit| matches!(digit, b'0'..=b'7'));
    match u16::from_str_radix(digits, 8) {
        Ok(mode) if is_octal && matches!(digits.len(), 3 | 4) => Ok(mode),
        _ => wrong(
            format!("{} is not a file mode", quoted(text)),
            "three or four octal digits, such as \"0644\"",
        ),
    }
}

/// An owner: `uid:gid`, or one number for both.
pub(super) fn owner(text: &str) -> Checked<Owner> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    match (id(uid), id(gid)) {
        (Some(uid), Some(gid)) => Ok(Owner { uid, gid }),
        _ => {
            let what = format!("{} is not an owner", quoted(text));
            let expected = "numbers up to 4294967294, such as \"0:0\" or \"1000\"";
            if text.contains(|letter: char| letter.is_alphabetic()) {
                wrong_so(
                    what,
                    expected,
                    "an image knows owners by number; write the uid that the name has in it",
                )
            } else {
                wrong(what, expected)
            }
        }
    }
}

/// Reads a uid or gid strictly: decimal digits only, no leading zero, and not `(uid_t) -1`.
fn id(text: &str) -> Option<u32> {
    let is_plain =
        text.bytes().all(|digit| digit.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !is_plain {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

/// The name of a cache or a secret.
pub(super) fn name(text: &str) -> Checked<String> {
    match is_image_name(text) {
        true => Ok(text.to_owned()),
        false => wrong(
            format!("{} cannot be a name", quoted(text)),
            "lower-case letters, digits, `.`, `_` and `-`, the first a letter or digit",
        ),
    }
}

/// A pattern for entries of an archive; a leading slash says nothing more than none.
pub(super) fn entry_glob(text: &str) -> Checked<String> {
    glob(text, text.trim_start_matches("./").trim_start_matches('/'))
}

/// A pattern for paths of the image, which starts at the root.
pub(super) fn tree_glob(text: &str) -> Checked<String> {
    let Some(pattern) = text.strip_prefix('/') else {
        return wrong_so(
            format!("{} does not start at the root", quoted(text)),
            "a glob pattern from the root of the image, such as \"/usr/share/doc/**\"",
            format!("did you mean \"/{text}\"?"),
        );
    };
    glob(text, pattern)
}

fn glob(text: &str, pattern: &str) -> Checked<String> {
    const EXPECTED: &str = "a glob pattern, such as \"usr/share/doc/**\"";
    let pattern = pattern.trim_end_matches('/');
    let refuse = |why: &str| wrong(format!("{} is not a pattern: {why}", quoted(text)), EXPECTED);
    if pattern.is_empty() {
        return refuse("it names nothing below the root");
    }
    if pattern.len() > LONGEST_PATH {
        return refuse("it is longer than 4095 bytes");
    }
    if pattern.contains('\0') {
        return refuse("it holds a NUL byte");
    }
    if pattern.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return refuse("`.`, `..` and a double slash match no path");
    }
    match GlobSet::new(&[pattern.to_owned()]) {
        Ok(_) => Ok(pattern.to_owned()),
        Err(bad) => refuse(&bad.why),
    }
}

/// The name of a Debian package (Debian Policy, section 5.6.1).
pub(super) fn package(text: &str) -> Checked<String> {
    let is_name = text.len() >= 2
        && text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'+' | b'-' | b'.'));
    if is_name {
        return Ok(text.to_owned());
    }
    let what = format!("{} is not the name of a Debian package", quoted(text));
    let expected = "lower-case letters, digits, `+`, `-` and `.`, such as \"busybox-static\"";
    if text.contains(['=', ':', '/']) {
        wrong_so(
            what,
            expected,
            "the version and digest of each architecture stand in the lock, not here",
        )
    } else {
        wrong(what, expected)
    }
}

/// The name of a Debian suite.
pub(super) fn suite(text: &str) -> Checked<String> {
    let is_name = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    if is_name {
        Ok(text.to_owned())
    } else {
        wrong(
            format!("{} is not the name of a Debian suite", quoted(text)),
            "one such as \"bookworm\" or \"bookworm-updates\"",
        )
    }
}

/// What a symbolic link points to.
pub(super) fn target(text: &str) -> Checked<String> {
    if text.is_empty() || text.len() > LONGEST_PATH {
        return wrong(
            format!("{} cannot be the target of a link", quoted(text)),
            "from 1 to 4095 bytes",
        );
    }
    no_nul(text)
}

/// The name of a user or group, as Debian's adduser takes it, and with a leading `_` as its own system users have it.
pub(super) fn user_name(text: &str) -> Checked<String> {
    let is_name = text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
    if is_name && text.len() <= LONGEST_USER {
        Ok(text.to_owned())
    } else {
        wrong(
            format!("{} is not a user name", quoted(text)),
            "a lower-case letter or `_`, then lower-case letters, digits, `_` and `-`, 32 at the most",
        )
    }
}

/// Who runs a program: `name`, `uid`, `name:group` or `uid:gid`.
pub(super) fn who(text: &str) -> Checked<String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let is_known = |part: &str| id(part).is_some() || user_name(part).is_ok();
    if is_known(user) && group.is_none_or(is_known) {
        Ok(text.to_owned())
    } else {
        wrong(
            format!("{} is not a user", quoted(text)),
            "`name`, `uid`, `name:group` or `uid:gid`",
        )
    }
}

/// The name of the machine itself.
pub(super) fn hostname(text: &str) -> Checked<String> {
    if text.len() > LONGEST_HOSTNAME {
        return wrong(
            format!("{} is longer than Linux can keep", quoted(text)),
            "at most 64 bytes",
        );
    }
    host(text)
}

/// The name of a host (RFC 1123, section 2.1).
pub(super) fn host(text: &str) -> Checked<String> {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if text.len() <= LONGEST_HOST && text.split('.').all(is_label) {
        return Ok(text.to_owned());
    }
    let what = format!("{} is not a host name", quoted(text));
    let expected = "letters, digits and `-`, in parts of at most 63 with a `.` between";
    let meant = text.replace('_', "-");
    if meant != text && host(&meant).is_ok() {
        wrong_so(what, expected, format!("did you mean \"{meant}\"?"))
    } else {
        wrong(what, expected)
    }
}

/// An IP address.
pub(super) fn address(text: &str) -> Checked<IpAddr> {
    text.parse().or_else(|_| {
        let what = format!("{} is not an IP address", quoted(text));
        let expected = "one such as \"9.9.9.9\" or \"2620:fe::fe\"";
        match text.split_once(['/', '%']) {
            Some((bare, _)) if bare.parse::<IpAddr>().is_ok() => {
                wrong_so(what, expected, format!("did you mean \"{bare}\"?"))
            }
            _ => wrong(what, expected),
        }
    })
}

/// The name of an environment variable.
pub(super) fn variable(text: &str) -> Checked<String> {
    if text.is_empty() || text.contains(['=', '\0']) {
        wrong(
            format!("{} is not the name of a variable", quoted(text)),
            "a name without `=`",
        )
    } else {
        Ok(text.to_owned())
    }
}

/// The name of an argument.
pub(super) fn argument(text: &str) -> Checked<String> {
    if super::args::is_name(text) {
        Ok(text.to_owned())
    } else {
        wrong(
            format!("{} cannot name an argument", quoted(text)),
            "a letter, then letters, digits, `_` and `-`",
        )
    }
}

/// The kind of network: one that every machine can have.
pub(super) fn network(text: &str) -> Checked<Network> {
    const EXPECTED: &str =
        "one of \"none\", \"host\", \"bridge\", \"bridge:NAME\", \"private\", \"private:NAME\", \"user\"";
    match text.parse::<Network>() {
        Ok(network) if network.is_portable() => Ok(network),
        Ok(_) => wrong(
            format!(
                "{} is a network of one machine, and no part of an image",
                quoted(text)
            ),
            EXPECTED,
        ),
        Err(BadNetwork::Name { name }) => wrong(
            format!("{} cannot name a network", quoted(&name)),
            "up to 15 lower-case letters, digits, `.`, `_` and `-`",
        ),
        Err(_) => {
            let what = format!("{} is not a kind of network", quoted(text));
            match super::keys::meant(text, ["none", "host", "bridge", "private", "user"]) {
                Some(meant) => wrong_so(what, EXPECTED, format!("did you mean \"{meant}\"?")),
                None => wrong(what, EXPECTED),
            }
        }
    }
}
