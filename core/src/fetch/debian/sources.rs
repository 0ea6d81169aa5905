//! Where the machine's own APT gets Debian from: `sources.list(5)`, one-line and deb822. Only entries that carry the
//! Debian archive itself count: not its security archive, not a third party's packages for Debian.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A mirror of the Debian archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mirror {
    /// Its address, `http://`, `https://` or `file:///`, without a closing slash.
    pub(super) url: String,
    /// Keyrings that the entry names.
    pub(super) keyrings: Vec<PathBuf>,
    /// A keyring that the entry holds itself, armoured.
    pub(super) key: Option<String>,
}

/// One entry as written.
#[derive(Debug, Default)]
struct Entry {
    types: Vec<String>,
    urls: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
    disabled: bool,
}

/// Returns the mirrors that the APT configuration in `apt_dir` names, in the order in which APT reads them. Files that
/// cannot be read are passed over.
pub(super) fn mirrors(apt_dir: &Path) -> Vec<Mirror> {
    let mut files = vec![apt_dir.join("sources.list")];
    let parts = fs_err::read_dir(apt_dir.join("sources.list.d"));
    let mut parts: Vec<PathBuf> = parts
        .into_iter()
        .flatten()
        .flatten()
        .map(|part| part.path())
        .collect();
    parts.sort();
    files.extend(parts);
    let mut mirrors: Vec<Mirror> = Vec::new();
    for file in files {
        let deb822 = match file.extension().and_then(OsStr::to_str) {
            Some("list") => false,
            Some("sources") => true,
            _ => continue,
        };
        let Ok(text) = fs_err::read_to_string(&file) else {
            continue;
        };
        let entries = if deb822 { stanzas(&text) } else { lines(&text) };
        for mirror in entries.iter().flat_map(Entry::mirrors) {
            if !mirrors.iter().any(|known| known.url == mirror.url) {
                mirrors.push(mirror);
            }
        }
    }
    mirrors
}

impl Entry {
    fn mirrors(&self) -> Vec<Mirror> {
        let debian = !self.disabled
            && self.types.iter().any(|kind| kind == "deb")
            && self.components.iter().any(|component| component == "main")
            && self.suites.iter().any(|suite| is_debian_suite(suite))
            && is_debian_signer(&self.signed_by);
        let urls = self.urls.iter().filter(|url| debian && is_debian_url(url));
        urls.map(|url| self.mirror(url)).collect()
    }

    fn mirror(&self, url: &str) -> Mirror {
        // `file:/path` and `file:///path` are the same.
        let url = match url.strip_prefix("file:") {
            Some(path) => format!("file:///{}", path.trim_start_matches('/')),
            None => url.to_owned(),
        };
        let is_key = self.signed_by.contains("-----BEGIN PGP");
        let keyrings = self
            .signed_by
            .split(['\n', ',', ' '])
            .map(str::trim)
            .filter(|path| path.starts_with('/'));
        Mirror {
            url: url.trim_end_matches('/').to_owned(),
            keyrings: if is_key {
                Vec::new()
            } else {
                keyrings.map(PathBuf::from).collect()
            },
            key: is_key.then(|| self.signed_by.clone()),
        }
    }
}

/// Whether the path of a URL ends in `debian`, as the Debian archive's does everywhere.
fn is_debian_url(url: &str) -> bool {
    let known = ["http://", "https://", "file:/"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    known
        && url
            .trim_end_matches('/')
            .rsplit_once('/')
            .is_some_and(|(_, last)| last == "debian")
}

/// Whether a suite is one of the Debian archive, or an addition to one of them.
fn is_debian_suite(suite: &str) -> bool {
    const SUITES: [&str; 17] = [
        "oldoldstable",
        "oldstable",
        "stable",
        "testing",
        "unstable",
        "experimental",
        "sid",
        "rc-buggy",
        "jessie",
        "stretch",
        "buster",
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "oldoldoldstable",
    ];
    const ADDITIONS: [&str; 4] = ["-updates", "-backports", "-backports-sloppy", "-proposed-updates"];
    let base = ADDITIONS
        .iter()
        .find_map(|addition| suite.strip_suffix(addition))
        .unwrap_or(suite);
    SUITES.contains(&base)
}

/// Whether an entry's keyring may be Debian's: third parties name their own. A key in the entry itself, or one by its
/// fingerprint, can be anybody's; the signature will tell.
fn is_debian_signer(signed_by: &str) -> bool {
    let mut paths = signed_by
        .split(['\n', ',', ' '])
        .map(str::trim)
        .filter(|path| path.starts_with('/'))
        .peekable();
    let is_debians = |path: &str| {
        let name = Path::new(path)
            .file_name()
            .and_then(OsStr::to_str)
            .unwrap_or_default();
        name.starts_with("debian-archive-") || name.starts_with("debian-keyring")
    };
    paths.peek().is_none() || paths.any(is_debians)
}

/// Reads the one-line format: `type [options] url suite component…`.
fn lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let (kind, rest) = line.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_ascii_whitespace().map(str::to_owned);
    let option = |name: &str| {
        options.split_ascii_whitespace().find_map(|option| {
            let (key, value) = option.split_once('=')?;
            key.trim_end_matches(['+', '-'])
                .eq_ignore_ascii_case(name)
                .then(|| value.to_owned())
        })
    };
    let enabled = option("enabled").is_none_or(|value| is_yes(&value));
    Some(Entry {
        types: vec![kind.to_owned()],
        urls: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by: option("signed-by").unwrap_or_default(),
        disabled: !enabled,
    })
}

/// Reads deb822: stanzas of fields, separated by empty lines.
fn stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !fields.is_empty() {
                entries.push(entry(&fields));
                fields.clear();
            }
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            // In a field of several lines a lone dot stands for an empty one.
            let more = if line.trim() == "." { "" } else { line.trim() };
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(more);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    entries
}

fn entry(fields: &[(String, String)]) -> Entry {
    let field = |name: &str| {
        fields
            .iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.as_str())
    };
    let words = |name: &str| field(name).split_ascii_whitespace().map(str::to_owned).collect();
    let enabled = field("enabled");
    Entry {
        types: words("types"),
        urls: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: field("signed-by").to_owned(),
        disabled: !enabled.is_empty() && !is_yes(enabled),
    }
}

fn is_yes(value: &str) -> bool {
    ["yes", "true", "with", "on", "enable", "1"]
        .iter()
        .any(|yes| value.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(entries: &[Entry]) -> Vec<String> {
        entries
            .iter()
            .flat_map(Entry::mirrors)
            .map(|mirror| mirror.url)
            .collect()
    }

    #[test]
    fn one_line_entries_that_carry_debian() {
        for (text, expected) in [
            (
                "deb http://m.example/debian bookworm main",
                "http://m.example/debian",
            ),
            (
                "  deb\thttps://m.example/debian/  bookworm-updates   main contrib # why",
                "https://m.example/debian",
            ),
            (
                "deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://m.example/debian sid main",
                "http://m.example/debian",
            ),
            (
                "deb [ enabled=yes ] http://m.example/pub/debian stable main non-free",
                "http://m.example/pub/debian",
            ),
            (
                "deb file:/srv/mirror/debian bookworm main",
                "file:///srv/mirror/debian",
            ),
            (
                "deb file:///srv/mirror/debian bookworm main",
                "file:///srv/mirror/debian",
            ),
            (
                "deb http://m.example:3142/debian trixie-backports main",
                "http://m.example:3142/debian",
            ),
        ] {
            assert_eq!(urls(&lines(text)), [expected], "{text}");
        }
    }

    #[test]
    fn one_line_entries_that_do_not() {
        for text in [
            "",
            "# deb http://m.example/debian bookworm main",
            "deb-src http://m.example/debian bookworm main",
            "deb http://m.example/debian-security bookworm-security main",
            "deb http://m.example/debian bookworm-security main",
            "deb http://m.example/ubuntu noble main",
            "deb http://m.example/debian noble main",
            "deb http://m.example/debian bookworm contrib",
            "deb [signed-by=/etc/apt/keyrings/tool.gpg] https://tool.example/linux/debian bookworm main",
            "deb https://tool.example/apt bookworm main",
            "deb https://tool.example/debian bookworm stable",
            "deb https://tool.example/debian ./",
            "deb [enabled=no] http://m.example/debian bookworm main",
            "deb cdrom:[Debian GNU/Linux 12]/debian bookworm main",
            "deb mirror+file:/etc/apt/mirrors/debian bookworm main",
            "deb tor+http://m.example/debian bookworm main",
            "deb [arch=amd64 http://m.example/debian bookworm main",
            "deb http://m.example/debian",
            "deb",
        ] {
            assert_eq!(urls(&lines(text)), Vec::<String>::new(), "{text}");
        }
    }

    #[test]
    fn deb822_entries() {
        let text = "\
# a comment
Types: deb deb-src
# http://other.example/debian
URIs: http://one.example/debian/ https://two.example/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main


Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main

types: deb
uris: file:/srv/debian
suites: unstable
components: main
enabled: YES

Types: deb
URIs: https://tool.example/debian
Suites: bookworm
Components: main
Signed-By: /etc/apt/keyrings/tool.asc
";
        assert_eq!(
            urls(&stanzas(text)),
            [
                "http://one.example/debian",
                "https://two.example/debian",
                "file:///srv/debian"
            ]
        );
    }

    #[test]
    fn an_entry_names_or_holds_its_key() {
        let named = lines("deb [signed-by=/a/debian-archive-keyring.gpg] http://m.example/debian sid main");
        assert_eq!(
            named[0].mirrors()[0].keyrings,
            [PathBuf::from("/a/debian-archive-keyring.gpg")]
        );
        let held = stanzas(
            "Types: deb\nURIs: http://m.example/debian\nSuites: sid\nComponents: main\nSigned-By:\n \
             -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n mQ/INE\n -----END PGP PUBLIC KEY BLOCK-----\n",
        );
        let mirror = &held[0].mirrors()[0];
        assert_eq!(
            mirror.key.as_deref().unwrap().trim(),
            "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ/INE\n-----END PGP PUBLIC KEY BLOCK-----"
        );
        assert!(mirror.keyrings.is_empty());
    }

    #[test]
    fn files_are_read_in_the_order_of_apt_and_only_those_that_apt_reads() {
        let apt = tempfile::tempdir().unwrap();
        let entry = |host: &str| format!("deb http://{host}.example/debian bookworm main\n");
        fs_err::create_dir_all(apt.path().join("sources.list.d")).unwrap();
        for (name, text) in [
            ("sources.list", entry("first")),
            ("sources.list.d/b.list", entry("third") + &entry("first")),
            (
                "sources.list.d/a.sources",
                "Types: deb\nURIs: http://second.example/debian\nSuites: sid\nComponents: main".into(),
            ),
            ("sources.list.d/c.list.save", entry("saved")),
            ("sources.list.d/d.list.disabled", entry("disabled")),
        ] {
            fs_err::write(apt.path().join(name), text).unwrap();
        }
        let urls: Vec<String> = mirrors(apt.path()).into_iter().map(|mirror| mirror.url).collect();
        assert_eq!(
            urls,
            [
                "http://first.example/debian",
                "http://second.example/debian",
                "http://third.example/debian"
            ]
        );
        assert_eq!(mirrors(&apt.path().join("missing")), []);
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_too_odd(text in "(?s)([\\[\\]#:= \n.]|deb |URIs|Types|main|.){0,80}") {
            for entry in lines(&text).iter().chain(&stanzas(&text)) {
                entry.mirrors();
            }
        }
    }
}
