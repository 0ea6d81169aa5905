//! The one table of what a recipe may say: [`parse`](super::parse) refuses what is not in it, [`schema`](super::schema)
//! prints it for editors.

/// A name that may stand left of `=`.
#[derive(Debug)]
pub(super) struct Key {
    /// The name.
    pub(super) name: &'static str,
    /// What may stand right of it.
    pub(super) shape: Shape,
    /// Whether it must be there.
    pub(super) required: bool,
    /// What it means, in one line.
    pub(super) about: &'static str,
}

/// What a value looks like.
#[derive(Debug)]
pub(super) enum Shape {
    /// A text.
    Text(Text),
    /// A list of texts.
    List(Text),
    /// A text, or a list of them.
    OneOrList(Text),
    /// A text, or a list of them in which one may stand twice.
    Command(Text),
    /// A whole number from 0 to `most`.
    Number { most: i64 },
    /// A table from a name to a text.
    Texts(Text),
    /// A table from a name to a text, or a list of them.
    Lists(Text),
    /// A table with keys of its own.
    Table(&'static [Key]),
    /// A text, or a table with keys of its own.
    TextOrTable(Text, &'static [Key]),
    /// A list of tables with keys of their own.
    Tables(&'static [Key]),
    /// Whether.
    Switch,
    /// The list of steps.
    Steps,
}

/// What a text looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text {
    /// In words, as a fragment that follows "expected".
    pub(super) expected: &'static str,
    /// As an anchored regular expression, where that says more than the words.
    pub(super) pattern: Option<&'static str>,
}

/// One verb with what may stand beside it.
#[derive(Debug)]
pub(super) struct VerbKeys {
    /// The verb itself.
    pub(super) verb: Key,
    /// What else its step may hold.
    pub(super) others: &'static [Key],
}

/// The largest uid or gid: one less than `(uid_t) -1`, which means "leave as it is" to chown(2).
pub(super) const LARGEST_ID: i64 = u32::MAX as i64 - 1;
/// The last second of the year 9999.
pub(super) const LATEST_EPOCH: i64 = 253_402_300_799;
/// More leading names than any archive has.
const MOST_STRIPPED: i64 = 1000;

const fn text(expected: &'static str) -> Text {
    Text {
        expected,
        pattern: None,
    }
}

const fn matching(expected: &'static str, pattern: &'static str) -> Text {
    Text {
        expected,
        pattern: Some(pattern),
    }
}

const fn need(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        required: true,
        about,
    }
}

const fn may(name: &'static str, shape: Shape, about: &'static str) -> Key {
    Key {
        name,
        shape,
        required: false,
        about,
    }
}

const ANY: Text = text("a text in quotes");
const PATH: Text = matching("a path from the root of the image, such as \"/etc/motd\"", "/.*");
const SOURCE: Text = text("a path beside the recipe, such as \"files/motd\"");
const ARCHIVE: Text = text("an http:// or https:// URL, or a path beside the recipe");
const SHA256: Text = matching("64 lower-case hexadecimal digits in quotes", "[0-9a-f]{64}");
const MODE: Text = matching("octal digits in quotes, such as \"0644\"", "0?[0-7]{3,4}");
const OWNER: Text = matching(
    "numbers in quotes, such as \"0:0\" or \"1000\"",
    "[0-9]+(:[0-9]+)?",
);
const FROM: Text = text(
    "a recipe or image by name, the path of a recipe, a digest, or a folder or archive beside the recipe",
);
const BASE: Text = text("a recipe or image by name, the path of a recipe, or a digest");
const ENTRY_GLOB: Text = text("a glob pattern, such as \"usr/bin/*\"");
const TREE_GLOB: Text = matching(
    "a glob pattern from the root of the image, such as \"/usr/share/doc/**\"",
    "/.+",
);
const PACKAGE: Text = matching(
    "the name of a Debian package, such as \"busybox-static\"",
    "[a-z0-9][a-z0-9+.-]+",
);
const SUITE: Text = text("the name of a Debian suite, such as \"bookworm\"");
const TARGET: Text = text("what the link points to, such as \"busybox\" or \"/usr/bin/env\"");
const USER_NAME: Text = matching("a lower-case name, such as \"app\"", "[a-z_][a-z0-9_-]{0,31}");
const GECOS: Text = text("a text without `:` and line ends");
const HOST_NAME: Text = text("a host name, such as \"web-1\"");
const ADDRESS: Text = text("an IPv4 or IPv6 address");
const NETWORK: Text = matching(
    "one of \"none\", \"host\", \"bridge\", \"bridge:NAME\", \"private\", \"private:NAME\", \"user\"",
    "none|host|user|(bridge|private)(:[a-z0-9][a-z0-9._-]{0,14})?",
);
const CACHE: Text = matching("a name, such as \"apt\"", "[a-z0-9][a-z0-9._-]{0,127}");
const SCRIPT: Text = text("what a shell is to read, in quotes");
const WHO: Text = text("a user, such as \"app\", \"1000\" or \"1000:1000\"");

const INTO: Key = may(
    "into",
    Shape::Text(PATH),
    "Folder of the image that the entries go into; the root unless given.",
);
const INCLUDE: Key = may(
    "include",
    Shape::OneOrList(ENTRY_GLOB),
    "Only entries that match one of these patterns, or lie below a match, are taken.",
);
const EXCLUDE: Key = may(
    "exclude",
    Shape::OneOrList(ENTRY_GLOB),
    "Entries that match one of these patterns, or lie below a match, are left out.",
);
const OWNED: Key = may(
    "owner",
    Shape::Text(OWNER),
    "Owner as numbers, `uid:gid`, or `uid` for both; \"0:0\" unless given.",
);

/// What stands at the top of a recipe.
pub(super) static TOP: &[Key] = &[
    may(
        "description",
        Shape::Text(text("one line of text")),
        "One line for people; no part of the image.",
    ),
    may(
        "name",
        Shape::Text(CACHE),
        "What the image is called; no part of it. Unless given, as the file, or as its folder for Containerfile.toml.",
    ),
    may(
        "from",
        Shape::Text(FROM),
        "What the steps start from instead of nothing: the tree of another recipe or image, a folder, or an archive.",
    ),
    may(
        "epoch",
        Shape::Number { most: LATEST_EPOCH },
        "No time in the image is later than this: seconds since 1970 UTC.",
    ),
    may(
        "args",
        Shape::Texts(ANY),
        "Arguments with their defaults; each is put in where a text says `{name}`.",
    ),
    may(
        "step",
        Shape::Steps,
        "What to do, one verb a step, in this order; may be left out beside `from`.",
    ),
    may(
        "conf",
        Shape::Table(CONF),
        "The files that each run finds in /etc; no part of the tree.",
    ),
    may(
        "run",
        Shape::Table(RUN),
        "Defaults of `mk run`; the command line overrides each.",
    ),
];

/// What `[conf]` may hold.
pub(super) static CONF: &[Key] = &[
    may(
        "hostname",
        Shape::Text(HOST_NAME),
        "The host name; `mk` unless given.",
    ),
    may(
        "hosts",
        Shape::Lists(HOST_NAME),
        "Address = names: lines of /etc/hosts besides those of loopback.",
    ),
    may(
        "nameservers",
        Shape::OneOrList(ADDRESS),
        "Name servers, at most three; the host's own unless given.",
    ),
];

/// What `copy` may hold as a table.
pub(super) static TAKEN: &[Key] = &[
    need(
        "from",
        Shape::Text(BASE),
        "The recipe or image whose tree it is taken from.",
    ),
    need(
        "path",
        Shape::Text(PATH),
        "Its path in that tree; \"/\" for all of it.",
    ),
];

/// What one of `mounts` may hold.
pub(super) static MOUNT: &[Key] = &[
    may(
        "copy",
        Shape::Text(SOURCE),
        "A file or folder from beside the recipe, which cannot be changed; a part of what the step is made of.",
    ),
    may(
        "cache",
        Shape::Text(CACHE),
        "A folder that outlives the build, by name; no part of what the step is made of.",
    ),
    may(
        "secret",
        Shape::Text(CACHE),
        "A file that `mk build --secret NAME=FILE` gives; no part of what the step is made of.",
    ),
    need("at", Shape::Text(PATH), "Where it is in the tree."),
];

/// What `[run]` may hold.
pub(super) static RUN: &[Key] = &[
    may(
        "command",
        Shape::List(ANY),
        "Program and arguments, without a shell; [\"/bin/sh\"] unless given.",
    ),
    may("env", Shape::Texts(ANY), "Environment variables, by name."),
    may(
        "workdir",
        Shape::Text(PATH),
        "Working directory; \"/\" unless given.",
    ),
    may(
        "user",
        Shape::Text(WHO),
        "Who runs it: `name`, `uid`, `name:group` or `uid:gid`; root unless given.",
    ),
    may(
        "network",
        Shape::Text(NETWORK),
        "`none`: a network namespace with loopback only (the default); `host`: the host's; `bridge`, `bridge:NAME`: one on a bridge that leads out; `private`, `private:NAME`: one on a bridge that leads nowhere else; `user`: what the caller can reach.",
    ),
    may(
        "nesting",
        Shape::Switch,
        "Whether it may make containers of its own; it gets no power over the machine by that.",
    ),
];

/// What a step may hold, verb by verb.
pub(super) static VERBS: &[VerbKeys] = &[
    VerbKeys {
        verb: need(
            "unpack",
            Shape::Text(ARCHIVE),
            "Lays an archive over the tree: tar or deb, plain or packed by gzip, xz or zstd.",
        ),
        others: &[
            may(
                "sha256",
                Shape::Text(SHA256),
                "What the archive's bytes must hash to; without it, a URL is pinned in the lock.",
            ),
            INTO,
            may(
                "strip",
                Shape::Number { most: MOST_STRIPPED },
                "How many leading names are taken off each entry's path; 0 unless given.",
            ),
            INCLUDE,
            EXCLUDE,
        ],
    },
    VerbKeys {
        verb: need(
            "deb",
            Shape::OneOrList(PACKAGE),
            "Lays Debian packages over the tree, without what they depend on and without running their scripts.",
        ),
        others: &[
            need(
                "suite",
                Shape::Text(SUITE),
                "Suite of the Debian archive that they are taken from.",
            ),
            INTO,
            INCLUDE,
            EXCLUDE,
        ],
    },
    VerbKeys {
        verb: need(
            "copy",
            Shape::TextOrTable(SOURCE, TAKEN),
            "Copies a file or folder from beside the recipe, or, as `{ from, path }`, from another tree; a folder written with a closing slash means what is in it.",
        ),
        others: &[
            need(
                "into",
                Shape::Text(PATH),
                "Its path in the image; with a closing slash, the folder that it is put into under its own name.",
            ),
            may(
                "mode",
                Shape::Text(MODE),
                "Permission bits of files; unless given, 0755 for what its owner may execute, else 0644; from another tree, those it has there.",
            ),
            OWNED,
        ],
    },
    VerbKeys {
        verb: need("write", Shape::Text(PATH), "Writes a text to a file."),
        others: &[
            need("text", Shape::Text(ANY), "Exactly what the file then holds."),
            may(
                "mode",
                Shape::Text(MODE),
                "Permission bits; \"0644\" unless given.",
            ),
            OWNED,
        ],
    },
    VerbKeys {
        verb: need(
            "link",
            Shape::OneOrList(PATH),
            "Makes symbolic links that all have the same target.",
        ),
        others: &[need(
            "to",
            Shape::Text(TARGET),
            "Their target, as it is read from the folder of the link.",
        )],
    },
    VerbKeys {
        verb: need(
            "dir",
            Shape::OneOrList(PATH),
            "Makes folders, or changes mode and owner of those that are there.",
        ),
        others: &[
            may(
                "mode",
                Shape::Text(MODE),
                "Permission bits; \"0755\" unless given.",
            ),
            OWNED,
        ],
    },
    VerbKeys {
        verb: need(
            "remove",
            Shape::OneOrList(TREE_GLOB),
            "Takes away what matches; a folder goes with all that is below it.",
        ),
        others: &[],
    },
    VerbKeys {
        verb: need(
            "user",
            Shape::Text(USER_NAME),
            "Adds a user, and a group of the same name, to /etc/passwd, group and shadow.",
        ),
        others: &[
            need("uid", Shape::Number { most: LARGEST_ID }, "User id."),
            may(
                "gid",
                Shape::Number { most: LARGEST_ID },
                "Group id; the uid unless given.",
            ),
            may(
                "home",
                Shape::Text(PATH),
                "Home folder, made where it is missing; \"/\" unless given.",
            ),
            may(
                "shell",
                Shape::Text(PATH),
                "Login shell; \"/bin/sh\" unless given.",
            ),
            may(
                "gecos",
                Shape::Text(GECOS),
                "The comment field; empty unless given.",
            ),
            may(
                "groups",
                Shape::OneOrList(USER_NAME),
                "Further groups, which must be in the image's /etc/group.",
            ),
        ],
    },
    VerbKeys {
        verb: need(
            "run",
            Shape::Command(SCRIPT),
            "Runs a command in the tree so far, isolated and without a network: a text for /bin/sh, or program and arguments.",
        ),
        others: &[
            may(
                "env",
                Shape::Texts(ANY),
                "Environment variables, by name, besides those that each step finds.",
            ),
            may(
                "workdir",
                Shape::Text(PATH),
                "Working directory; \"/\" unless given.",
            ),
            may(
                "user",
                Shape::Text(WHO),
                "Who runs it: `name`, `uid`, `name:group` or `uid:gid`; root unless given.",
            ),
            may(
                "stdin",
                Shape::Text(ANY),
                "What it reads from its standard input; nothing unless given.",
            ),
            may(
                "mounts",
                Shape::Tables(MOUNT),
                "What it finds besides the tree, and what stays out of the image: `copy`, `cache` or `secret`, and `at`.",
            ),
            may(
                "network",
                Shape::Switch,
                "Whether it has the network of the machine that builds, which makes the image impure.",
            ),
        ],
    },
];

/// What people write who know other tools, and what it is called here.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("add", "unpack"),
    ("cmd", "command"),
    ("content", "text"),
    ("contents", "text"),
    ("dest", "into"),
    ("destination", "into"),
    ("dns", "nameservers"),
    ("entrypoint", "command"),
    ("environment", "env"),
    ("extract", "unpack"),
    ("file", "write"),
    ("mkdir", "dir"),
    ("packages", "deb"),
    ("permissions", "mode"),
    ("rm", "remove"),
    ("symlink", "link"),
    ("target", "to"),
    ("to", "into"),
];

/// Returns the one of `known` that `word` was most likely meant to be.
pub(crate) fn meant<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let known: Vec<&str> = known.into_iter().collect();
    let lower = word.to_lowercase();
    let allowed = match lower.chars().count() {
        0..=2 => 0,
        3..=4 => 1,
        _ => 2,
    };
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), *candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= allowed)
        .map(|(_, candidate)| candidate);
    nearest.or_else(|| {
        let (_, ours) = OTHER_WORDS.iter().find(|(theirs, _)| *theirs == lower)?;
        known.into_iter().find(|candidate| candidate == ours)
    })
}

/// Says where else in a recipe `name` is a key, if anywhere.
pub(super) fn belongs(name: &str) -> Option<String> {
    let has = |keys: &[Key]| keys.iter().any(|key| key.name == name);
    let verbs: Vec<String> = VERBS
        .iter()
        .filter(|verb| has(verb.others))
        .map(|verb| format!("`{}`", verb.verb.name))
        .collect();
    if VERBS.iter().any(|verb| verb.verb.name == name) {
        Some(format!("`{name}` is a verb: it stands in a `[[step]]`"))
    } else if !verbs.is_empty() {
        Some(format!("`{name}` goes with {}", verbs.join(", ")))
    } else if has(CONF) {
        Some(format!("`{name}` is a key of `[conf]`"))
    } else if has(RUN) {
        Some(format!("`{name}` is a key of `[run]`"))
    } else if has(TOP) {
        Some(format!(
            "`{name}` stands at the top of the recipe, above every `[…]` line"
        ))
    } else {
        None
    }
}
