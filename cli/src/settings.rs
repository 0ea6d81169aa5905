//! Environment, configuration files and flags → one [`Settings`] value. The only reader of the environment.
//!
//! A flag beats a variable, a variable beats the user's file, the user's file beats `/etc/mk/config.toml`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mk_core::recipe::mistake::Mistake;
use mk_core::store::Durability;
use serde::Deserialize;

/// Every variable that mk reads, and there are no others.
const READ: [&str; 23] = [
    "MK_STORE",
    "MK_DURABILITY",
    "MK_STATE",
    "MK_SOURCES",
    "HOME",
    "PATH",
    "XDG_DATA_HOME",
    "XDG_CONFIG_HOME",
    "XDG_RUNTIME_DIR",
    "SOURCE_DATE_EPOCH",
    "NO_COLOR",
    "CLICOLOR",
    "CLICOLOR_FORCE",
    "TERM",
    "http_proxy",
    "HTTP_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
    "REQUEST_METHOD",
];

/// The variables that mk looks at, as they were when it started.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<&'static str, OsString>);

impl Environment {
    /// Reads the process's environment.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the environment"
    )]
    pub(crate) fn of_process() -> Self {
        Self(
            READ.into_iter()
                .filter_map(|name| Some((name, std::env::var_os(name)?)))
                .collect(),
        )
    }

    /// Returns an environment of `pairs`; a name that mk does not read is a mistake in the test.
    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        let known = |name| READ.into_iter().find(|known| *known == name).unwrap();
        Self(
            pairs
                .iter()
                .map(|(name, value)| (known(*name), value.into()))
                .collect(),
        )
    }

    /// Returns the value of `name` where it is set and is text.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.0.get(name)?.to_str().map(str::to_owned)
    }

    /// Returns the value of `name` where it is set and not empty.
    fn filled(&self, name: &str) -> Option<&OsString> {
        self.0.get(name).filter(|value| !value.is_empty())
    }

    /// Returns the folder that an `XDG_…` variable names. The specification has relative ones ignored.
    fn xdg(&self, name: &str, below_home: &str) -> Option<PathBuf> {
        let said = self
            .filled(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        said.or_else(|| self.filled("HOME").map(|home| Path::new(home).join(below_home)))
    }
}

/// The proxies that the environment names, as curl(1) reads them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    /// For `http://`.
    pub(crate) http: Option<String>,
    /// For `https://`.
    pub(crate) https: Option<String>,
    /// Hosts that are asked directly: names, suffixes or `*`, separated by commas.
    pub(crate) none: Option<String>,
}

/// A configuration file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    store: Option<PathBuf>,
    mirror: Option<String>,
    source_dirs: Option<Vec<PathBuf>>,
    durability: Option<String>,
}

const KEYS: [&str; 4] = ["store", "mirror", "source-dirs", "durability"];
/// What a durability can be, in words.
const DURABILITIES: &str = "`full` or `none`";

/// What holds for this call of mk, whoever said it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Where images are kept; absolute.
    pub(crate) store: PathBuf,
    /// Where it is kept which containers there are; absolute.
    pub(crate) state: PathBuf,
    /// Debian mirror, where one is configured.
    pub(crate) mirror: Option<String>,
    /// Folders that sources are looked up in, by sha256.
    pub(crate) source_dirs: Vec<PathBuf>,
    /// No time in an image is later than this, unless its recipe says otherwise (seconds since 1970 UTC).
    pub(crate) epoch: Option<i64>,
    /// The environment's proxies.
    pub(crate) proxies: Proxies,
    /// Whether builds sync what they write.
    pub(crate) durability: Durability,
}

/// What flags say of settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags<'a> {
    /// `--store`
    pub(crate) store: Option<&'a Path>,
    /// `--mirror`
    pub(crate) mirror: Option<&'a str>,
    /// `--source-dir`
    pub(crate) source_dirs: &'a [PathBuf],
    /// `--durability`
    pub(crate) durability: Option<Durability>,
}

/// A setting that cannot be used.
#[derive(Debug)]
pub(crate) enum Error {
    /// A variable's value is no use.
    Variable {
        name: &'static str,
        value: String,
        expected: &'static str,
    },
    /// There is nowhere to keep images.
    NoStore,
    /// A configuration file cannot be read.
    Unreadable(io::Error),
    /// A configuration file says something that is no setting.
    Config {
        /// The whole drawing.
        text: String,
        hint: Option<String>,
    },
    /// The current folder is gone.
    Relative { path: PathBuf, source: io::Error },
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Variable {
                name,
                value,
                expected,
            } => {
                write!(
                    f,
                    "the variable `{name}` is `{}`: expected {expected}",
                    value.escape_debug()
                )
            }
            Self::NoStore => {
                f.write_str("there is nowhere to keep images: neither `HOME` nor `XDG_DATA_HOME` is set")
            }
            Self::Unreadable(_) => f.write_str("cannot read the configuration"),
            Self::Config { text, .. } => f.write_str(text),
            Self::Relative { path, .. } => write!(f, "cannot tell where `{}` is", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable(source) | Self::Relative { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Settings {
    /// Reads the configuration files and puts all that was said together. `root` tells whether this is uid 0.
    pub(crate) fn read(environment: &Environment, flags: &Flags<'_>, root: bool) -> Result<Self, Error> {
        let user = environment
            .xdg("XDG_CONFIG_HOME", ".config")
            .map(|folder| folder.join("mk/config.toml"));
        let mut files = Vec::new();
        for path in user
            .iter()
            .map(PathBuf::as_path)
            .chain([Path::new("/etc/mk/config.toml")])
        {
            files.extend(File::read(path)?);
        }
        Self::combine(environment, flags, files, root)
    }

    fn combine(
        environment: &Environment,
        flags: &Flags<'_>,
        files: Vec<File>,
        root: bool,
    ) -> Result<Self, Error> {
        let mut file = File::default();
        for next in files {
            file.store = file.store.or(next.store);
            file.mirror = file.mirror.or(next.mirror);
            file.source_dirs = file.source_dirs.or(next.source_dirs);
            file.durability = file.durability.or(next.durability);
        }
        let store = flags.store.map(Path::to_path_buf);
        let store = store
            .or_else(|| environment.filled("MK_STORE").map(PathBuf::from))
            .or(file.store);
        let store = store
            .or_else(|| default_store(environment, root))
            .ok_or(Error::NoStore)?;
        let mut source_dirs = flags.source_dirs.to_vec();
        match environment.filled("MK_SOURCES") {
            Some(list) => {
                source_dirs.extend(std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()))
            }
            None => source_dirs.extend(file.source_dirs.unwrap_or_default()),
        }
        let store = absolute(store)?;
        let state = match environment.filled("MK_STATE") {
            Some(folder) => absolute(PathBuf::from(folder))?,
            None => default_state(environment, &store, root),
        };
        Ok(Self {
            store,
            state,
            mirror: flags.mirror.map(str::to_owned).or(file.mirror),
            source_dirs: source_dirs.into_iter().map(absolute).collect::<Result<_, _>>()?,
            epoch: epoch(environment)?,
            proxies: proxies(environment),
            durability: match (flags.durability, durability(environment)?) {
                (Some(said), _) | (None, Some(said)) => said,
                // The file was read with care already.
                (None, None) => file
                    .durability
                    .and_then(|said| said.parse().ok())
                    .unwrap_or_default(),
            },
        })
    }
}

/// A place that is empty after a boot, like the containers; only where there is none, one that lasts.
fn default_state(environment: &Environment, store: &Path, root: bool) -> PathBuf {
    let runtime = match root {
        true => Some(PathBuf::from("/run")),
        false => environment
            .filled("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute()),
    };
    runtime.map_or_else(|| store.join("run"), |folder| folder.join("mk"))
}

impl File {
    /// Reads the file at `path`; none where there is no such file.
    fn read(path: &Path) -> Result<Option<Self>, Error> {
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(Error::Unreadable(error)),
        };
        Self::parse(path, &text).map(Some)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let refuse = |span: Range<usize>, what: String, hint: Option<String>| {
            let mistake = Mistake {
                span,
                what,
                expected: None,
                hint: None,
            };
            Error::Config {
                text: mistake.render(&path.display().to_string(), text),
                hint,
            }
        };
        let file: Self = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let word = text.get(span.clone()).unwrap_or_default();
            let likely = KEYS
                .into_iter()
                .find(|key| *key != word && strsim::damerau_levenshtein(key, word) <= 2);
            refuse(
                span,
                error.message().to_owned(),
                likely.map(|key| format!("did you mean `{key}`?")),
            )
        })?;
        if let Some(said) = file
            .durability
            .as_ref()
            .filter(|said| said.parse::<Durability>().is_err())
        {
            let start = text.find(said.as_str()).unwrap_or(0);
            let what = format!("`{said}` is no durability: expected {DURABILITIES}");
            return Err(refuse(start..start + said.len(), what, None));
        }
        let mut paths = file.store.iter().chain(file.source_dirs.iter().flatten());
        // Relative to what: the file, or whatever folder mk is called in? Better to ask than to guess.
        let Some(relative) = paths.find(|path| !path.is_absolute()) else {
            return Ok(file);
        };
        let shown = relative.display().to_string();
        let start = text.find(&shown).unwrap_or(0);
        let what = format!("`{shown}` is no absolute path: expected one that starts with `/`");
        let tilde = "`~` is not expanded here: write the path out".to_owned();
        Err(refuse(
            start..start + shown.len(),
            what,
            shown.starts_with('~').then_some(tilde),
        ))
    }
}

fn default_store(environment: &Environment, root: bool) -> Option<PathBuf> {
    if root {
        return Some("/var/lib/mk".into());
    }
    Some(environment.xdg("XDG_DATA_HOME", ".local/share")?.join("mk"))
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path).map_err(|source| Error::Relative { path, source })
}

/// SOURCE_DATE_EPOCH, to the letter of its specification: decimal digits and nothing else.
fn epoch(environment: &Environment) -> Result<Option<i64>, Error> {
    let Some(value) = environment.filled("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match value.parse() {
        Ok(seconds) if digits => Ok(Some(seconds)),
        _ => Err(Error::Variable {
            name: "SOURCE_DATE_EPOCH",
            value: value.into_owned(),
            expected: "whole seconds since 1970, such as `1700000000`",
        }),
    }
}

fn durability(environment: &Environment) -> Result<Option<Durability>, Error> {
    let Some(value) = environment.filled("MK_DURABILITY") else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    match value.parse() {
        Ok(said) => Ok(Some(said)),
        Err(()) => Err(Error::Variable {
            name: "MK_DURABILITY",
            value: value.into_owned(),
            expected: DURABILITIES,
        }),
    }
}

fn proxies(environment: &Environment) -> Proxies {
    let either = |lower, upper| environment.filled(lower).or_else(|| environment.filled(upper));
    let text = |value: Option<&OsString>| value.and_then(|value| value.to_str()).map(str::to_owned);
    let all = text(either("all_proxy", "ALL_PROXY"));
    // A web server puts a request's `Proxy:` header into HTTP_PROXY (httpoxy, CVE-2016-5385).
    let upper = if environment.filled("REQUEST_METHOD").is_some() {
        "http_proxy"
    } else {
        "HTTP_PROXY"
    };
    Proxies {
        http: text(either("http_proxy", upper)).or_else(|| all.clone()),
        https: text(either("https_proxy", "HTTPS_PROXY")).or(all),
        none: text(either("no_proxy", "NO_PROXY")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(
        pairs: &[(&str, &str)],
        flags: &Flags<'_>,
        file: &str,
        root: bool,
    ) -> Result<Settings, Error> {
        let file = File::parse(Path::new("config.toml"), file)?;
        Settings::combine(&Environment::of(pairs), flags, vec![file], root)
    }

    fn store(pairs: &[(&str, &str)], flag: Option<&str>, file: &str, root: bool) -> PathBuf {
        let flags = Flags {
            store: flag.map(Path::new),
            ..Flags::default()
        };
        settings(pairs, &flags, file, root).unwrap().store
    }

    #[test]
    fn the_store_is_where_the_nearest_voice_says() {
        let home = ("HOME", "/home/a");
        let file = "store = '/file'";
        assert_eq!(
            store(&[home, ("MK_STORE", "/env")], Some("/flag"), file, true),
            Path::new("/flag")
        );
        assert_eq!(
            store(&[home, ("MK_STORE", "/env")], None, file, true),
            Path::new("/env")
        );
        assert_eq!(
            store(&[home, ("MK_STORE", "")], None, file, true),
            Path::new("/file")
        );
        assert_eq!(store(&[home], None, "", true), Path::new("/var/lib/mk"));
        assert_eq!(
            store(&[home], None, "", false),
            Path::new("/home/a/.local/share/mk")
        );
        assert_eq!(
            store(&[home, ("XDG_DATA_HOME", "/d")], None, "", false),
            Path::new("/d/mk")
        );
        let relative = [home, ("XDG_DATA_HOME", "d")];
        assert_eq!(
            store(&relative, None, "", false),
            Path::new("/home/a/.local/share/mk")
        );
        assert!(matches!(
            settings(&[], &Flags::default(), "", false),
            Err(Error::NoStore)
        ));
    }

    #[test]
    fn containers_are_known_where_all_is_gone_after_a_boot() {
        let flags = Flags {
            store: Some(Path::new("/s")),
            ..Flags::default()
        };
        let state = |pairs: &[(&str, &str)], root| settings(pairs, &flags, "", root).unwrap().state;
        let runtime = ("XDG_RUNTIME_DIR", "/run/user/7");
        assert_eq!(state(&[runtime], true), Path::new("/run/mk"));
        assert_eq!(state(&[runtime], false), Path::new("/run/user/7/mk"));
        assert_eq!(state(&[("XDG_RUNTIME_DIR", "run")], false), Path::new("/s/run"));
        assert_eq!(state(&[], false), Path::new("/s/run"));
        for root in [true, false] {
            assert_eq!(state(&[runtime, ("MK_STATE", "/m")], root), Path::new("/m"));
        }
    }

    #[test]
    fn source_folders_of_flags_come_before_those_of_the_environment() {
        let dirs = ["/flag".into()];
        let flags = Flags {
            source_dirs: &dirs,
            store: Some(Path::new("/s")),
            ..Flags::default()
        };
        let read = |pairs: &[(&str, &str)]| settings(pairs, &flags, "source-dirs = ['/file']", true).unwrap();
        assert_eq!(
            read(&[("MK_SOURCES", "/a::/b")]).source_dirs,
            ["/flag", "/a", "/b"].map(PathBuf::from)
        );
        assert_eq!(read(&[]).source_dirs, ["/flag", "/file"].map(PathBuf::from));
    }

    #[test]
    fn a_durability_is_said_by_the_nearest_voice_too() {
        let read = |pairs: &[(&str, &str)], durability: Option<Durability>, file: &str| {
            let flags = Flags {
                store: Some(Path::new("/s")),
                durability,
                ..Flags::default()
            };
            settings(pairs, &flags, file, true).map(|settings| settings.durability)
        };
        let (file, variable) = ("durability = 'none'", ("MK_DURABILITY", "none"));
        assert_eq!(read(&[], None, "").unwrap(), Durability::Full);
        assert_eq!(read(&[], None, file).unwrap(), Durability::None);
        assert_eq!(
            read(&[("MK_DURABILITY", "full")], None, file).unwrap(),
            Durability::Full
        );
        assert_eq!(read(&[variable], None, "").unwrap(), Durability::None);
        assert_eq!(
            read(&[variable], Some(Durability::Full), file).unwrap(),
            Durability::Full
        );
        assert!(read(&[("MK_DURABILITY", "some")], None, "").is_err());
        assert!(read(&[], None, "durability = 'some'").is_err());
    }

    #[test]
    fn an_epoch_is_digits_and_nothing_else() {
        let read = |text: &str| epoch(&Environment::of(&[("SOURCE_DATE_EPOCH", text)]));
        assert_eq!(read("0").unwrap(), Some(0));
        assert_eq!(read("1700000000").unwrap(), Some(1_700_000_000));
        assert_eq!(read("").unwrap(), None);
        for text in ["-1", "+1", " 1", "1.5", "now", "0x10", "99999999999999999999"] {
            assert!(read(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_request_header_cannot_choose_the_proxy() {
        let read = |pairs: &[(&str, &str)]| proxies(&Environment::of(pairs));
        assert_eq!(
            read(&[("HTTP_PROXY", "a"), ("http_proxy", "b")]).http.as_deref(),
            Some("b")
        );
        assert_eq!(read(&[("HTTP_PROXY", "a")]).http.as_deref(), Some("a"));
        assert_eq!(read(&[("HTTP_PROXY", "a"), ("REQUEST_METHOD", "GET")]).http, None);
        let all = read(&[("ALL_PROXY", "a"), ("NO_PROXY", "x")]);
        assert_eq!(
            all,
            Proxies {
                http: Some("a".into()),
                https: Some("a".into()),
                none: Some("x".into())
            }
        );
    }

    #[test]
    fn a_mistake_in_a_configuration_file_is_shown_in_its_place() {
        for (text, place, advice) in [
            (
                "# mine\nmiror = 'x'\n",
                "`config.toml`, line 2, column 1\n",
                Some("did you mean `mirror`?"),
            ),
            (
                "store = '~/mk'\n",
                "`config.toml`, line 1, column 10\n",
                Some("`~` is not expanded here: write the path out"),
            ),
            ("store = 'mk'\n", "`config.toml`, line 1, column 10\n", None),
            ("store = 1\n", "`config.toml`, line 1, column 9\n", None),
        ] {
            match File::parse(Path::new("config.toml"), text).unwrap_err() {
                Error::Config { text, hint } => {
                    assert!(text.contains(place), "{text}");
                    assert_eq!(hint.as_deref(), advice);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
