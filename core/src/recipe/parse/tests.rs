//! What recipes mean, and a table of what people get wrong.

use super::*;
use crate::path::TreePath;
use crate::recipe::{Location, Network, Owner, Select, Source, User, Verb};

fn recipe(text: &str) -> Recipe {
    parse(text, &BTreeMap::new()).unwrap_or_else(|mistakes| panic!("{}", mistakes.render("r.toml", text)))
}

/// The verb of a recipe of one step.
fn verb(step: &str) -> Verb {
    recipe(&format!("[[step]]\n{step}")).steps.remove(0).verb
}

/// Each mistake of `text` as `marked source | message | hint`.
fn mistakes(text: &str) -> Vec<String> {
    let Err(mistakes) = parse(text, &BTreeMap::new()) else {
        panic!("accepted:\n{text}");
    };
    let told = |mistake: &Mistake| {
        let marked = &text[mistake.span.clone()];
        format!(
            "{marked} | {mistake} | {}",
            mistake.hint.as_deref().unwrap_or_default()
        )
    };
    mistakes.0.iter().map(told).collect()
}

/// The only mistake of a recipe of one step.
fn mistake(step: &str) -> String {
    let text = format!("[[step]]\n{step}");
    let mut told = mistakes(&text);
    assert_eq!(told.len(), 1, "{told:#?}");
    told.remove(0)
}

fn at(path: &str) -> TreePath {
    TreePath::normalise(path).unwrap()
}

#[test]
fn a_recipe_says_everything_that_it_can() {
    let recipe = recipe(
        r#"
description = "all of it"
name = "every-thing_1.0"
epoch = 1_700_000_000

[args]
greeting = "hello"

[[step]]
write = "/etc/{greeting}"
text = "{greeting} {{literal}}\n"

[conf]
hostname = "{greeting}"
hosts = { "10.0.0.7" = ["db", "db.example"], "::1" = "six" }
nameservers = ["9.9.9.9", "2620:fe::fe"]

[run]
command = ["/bin/sh", "-c", ""]
env = { PATH = "/bin:/sbin", A_B = "{greeting}" }
workdir = "/srv//app/"
user = "app:100"
network = "host"
nesting = true
"#,
    );
    assert_eq!(recipe.description.as_deref(), Some("all of it"));
    assert_eq!(recipe.name.as_deref(), Some("every-thing_1.0"));
    assert_eq!(recipe.epoch, Some(1_700_000_000));
    assert_eq!(
        recipe.steps[0].verb,
        Verb::Write {
            path: at("/etc/hello"),
            text: "hello {literal}\n".to_owned(),
            mode: 0o644,
            owner: Owner::default(),
        }
    );
    assert_eq!(recipe.conf.hostname.as_deref(), Some("hello"));
    assert_eq!(
        recipe.conf.hosts[&"10.0.0.7".parse().unwrap()],
        ["db", "db.example"]
    );
    assert_eq!(recipe.conf.hosts[&"::1".parse().unwrap()], ["six"]);
    assert_eq!(recipe.conf.nameservers.unwrap().len(), 2);
    assert_eq!(recipe.run.command, ["/bin/sh", "-c", ""]);
    assert_eq!(recipe.run.env["A_B"], "hello");
    assert_eq!(recipe.run.workdir.as_deref(), Some("/srv/app"));
    assert_eq!(recipe.run.user.as_deref(), Some("app:100"));
    assert_eq!(recipe.run.network, Some(Network::Host));
    assert!(recipe.run.nesting);
}

#[test]
fn what_is_left_out_has_its_default() {
    let recipe = recipe("[[step]]\ndir = '/a'\n");
    assert_eq!(
        (recipe.description, recipe.name, recipe.epoch),
        (None, None, None)
    );
    assert_eq!(
        (recipe.conf, recipe.run),
        (Conf::default(), RunDefaults::default())
    );
    assert_eq!(
        recipe.steps[0].verb,
        Verb::Dir {
            paths: vec![at("/a")],
            mode: 0o755,
            owner: Owner::default(),
        }
    );
}

#[test]
fn a_step_knows_where_it_is_written() {
    let text = "[[step]]\ndir = '/a'\n\n[[step]]\nmode = '0700'\ndir = '/b'\n# end\n";
    let steps = recipe(text).steps;
    assert_eq!(&text[steps[0].span.clone()], "[[step]]\ndir = '/a'");
    assert_eq!(
        &text[steps[1].span.clone()],
        "[[step]]\nmode = '0700'\ndir = '/b'"
    );
}

#[test]
fn archives_are_unpacked_from_files_and_urls() {
    let digest = "5c3b447848a98e48dce106cb3e6acbd4fb6f9b26ee778798137349ce01f4d3c1";
    let unpack = |location, sha256, select| Verb::Unpack {
        source: Source { location, sha256 },
        select,
    };
    assert_eq!(
        verb("unpack = 'a/b.tar'"),
        unpack(Location::File("a/b.tar".into()), None, Select::default())
    );
    assert_eq!(
        verb(&format!(
            "unpack = 'https://h/x?y=z'\nsha256 = '{digest}'\ninto = '/opt/'\nstrip = 1\n\
             include = 'bin/*'\nexclude = ['/share', './doc/', '*.{{{{a,b}}}}']"
        )),
        unpack(
            Location::Url("https://h/x?y=z".into()),
            Some(digest.parse().unwrap()),
            Select {
                into: Some(at("/opt")),
                strip: 1,
                include: vec!["bin/*".into()],
                exclude: vec!["share".into(), "doc".into(), "*.{a,b}".into()],
            }
        )
    );
}

#[test]
fn packages_are_one_or_several() {
    for (deb, packages) in [("'a-1'", vec!["a-1"]), ("['g++', 'b.c']", vec!["g++", "b.c"])] {
        let expected = Verb::Deb {
            packages: packages.into_iter().map(str::to_owned).collect(),
            suite: "bookworm".into(),
            select: Select::default(),
        };
        assert_eq!(
            verb(&format!("deb = {deb}\nsuite = 'bookworm'\ninto = '/'")),
            expected
        );
    }
}

#[test]
fn a_copy_keeps_its_name_where_a_folder_is_named() {
    for (from, into, to) in [
        ("files/motd", "/etc/motd", "/etc/motd"),
        ("files/motd", "/etc/", "/etc/motd"),
        ("files/motd", "/", "/motd"),
        ("files", "/srv", "/srv"),
        ("files", "/srv/", "/srv/files"),
        ("files/", "/srv/", "/srv"),
        ("files/.", "/", "/"),
        (".", "/", "/"),
    ] {
        let Verb::Copy {
            from: read,
            into: path,
            mode,
            owner,
        } = verb(&format!("copy = '{from}'\ninto = '{into}'\nowner = '7'"))
        else {
            panic!("no copy");
        };
        assert_eq!((read.as_str(), path), (from, at(to)), "{from} into {into}");
        assert_eq!((mode, owner), (None, Owner { uid: 7, gid: 7 }));
    }
}

#[test]
fn modes_and_owners_are_read_as_written() {
    for (text, mode) in [
        ("0644", 0o644),
        ("755", 0o755),
        ("1777", 0o1777),
        ("04755", 0o4755),
        ("000", 0),
        ("0000", 0),
    ] {
        let Verb::Dir { mode: read, .. } = verb(&format!("dir = '/a'\nmode = '{text}'")) else {
            panic!("no dir");
        };
        assert_eq!(read, mode, "{text}");
    }
    for (text, uid, gid) in [("0", 0, 0), ("0:5", 0, 5), ("4294967294:1", u32::MAX - 1, 1)] {
        let Verb::Dir { owner, .. } = verb(&format!("dir = '/a'\nowner = '{text}'")) else {
            panic!("no dir");
        };
        assert_eq!(owner, Owner { uid, gid }, "{text}");
    }
}

#[test]
fn links_and_removals_are_one_or_several() {
    let expected = Verb::Link {
        paths: vec![at("/bin/sh"), at("/bin/ls")],
        to: "busybox".into(),
    };
    assert_eq!(verb("link = ['/bin/sh', '/bin/ls']\nto = 'busybox'"), expected);
    let expected = Verb::Remove {
        patterns: vec!["usr/share/doc/**".into(), "var/*.log".into()],
    };
    assert_eq!(verb("remove = ['/usr/share/doc/**', '/var/*.log']"), expected);
}

#[test]
fn a_user_has_a_group_a_home_and_a_shell() {
    let user = |home: &str, shell: &str, gid, gecos: &str, groups: &[&str]| {
        Verb::User(User {
            name: "_app".into(),
            uid: 1000,
            gid,
            home: home.into(),
            shell: shell.into(),
            gecos: gecos.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        })
    };
    assert_eq!(
        verb("user = '_app'\nuid = 1000"),
        user("/", "/bin/sh", 1000, "", &[])
    );
    assert_eq!(
        verb(
            "user = '_app'\nuid = 1000\ngid = 5\nhome = '/srv'\nshell = '/bin/x'\ngecos = 'A, B'\ngroups = 'tty'"
        ),
        user("/srv", "/bin/x", 5, "A, B", &["tty"])
    );
}

#[test]
fn arguments_that_are_given_replace_their_defaults() {
    let text = "[args]\nname = 'a'\n[[step]]\nwrite = '/x'\ntext = '{name}'\n";
    let given = BTreeMap::from([("name".to_owned(), "{b}".to_owned())]);
    let Verb::Write { text, .. } = &parse(text, &given).unwrap().steps[0].verb else {
        panic!("no write");
    };
    assert_eq!(text, "{b}");
}

#[test]
fn an_argument_that_no_recipe_declares_is_a_mistake_without_a_place() {
    let given = BTreeMap::from([("nmae".to_owned(), String::new())]);
    let told = |text: &str| {
        let mistakes = parse(text, &given).unwrap_err().0;
        assert!(mistakes.len() == 1 && !mistakes[0].has_place(), "{mistakes:?}");
        format!("{} | {:?}", mistakes[0], mistakes[0].hint)
    };
    assert_eq!(
        told("args = { name = 'a', other = 'b' }\n[[step]]\ndir = '/a'"),
        "the recipe has no argument `nmae`: expected one of `name`, `other` | Some(\"did you mean `name`?\")"
    );
    assert_eq!(
        told("[[step]]\ndir = '/a'"),
        "the recipe has no argument `nmae`: expected none: the recipe has no `[args]` | None"
    );
}

#[test]
fn several_mistakes_are_told_together_in_the_order_of_the_text() {
    let told = mistakes(
        "descripton = 'x'\nepoch = 'y'\n[[step]]\nwrite = 'etc/x'\nmode = 644\n[[step]]\ndir = '/a'\nowner = 'me'\n\
         [run]\nnetwork = 'hots'\nworkdir = 'x'\n",
    );
    let marked: Vec<&str> = told
        .iter()
        .map(|line| line.split(" | ").next().unwrap())
        .collect();
    assert_eq!(
        marked,
        [
            "descripton",
            "'y'",
            "[[step]]",
            "'etc/x'",
            "644",
            "'me'",
            "'hots'",
            "'x'"
        ]
    );
}

#[test]
fn a_mistake_in_an_argument_is_told_once() {
    let told = mistakes("[args]\na = 1\n'1b' = 'x'\n[[step]]\nwrite = '/{a}'\ntext = '{a}'\n");
    assert_eq!(told.len(), 2, "{told:#?}");
}

/// What people get wrong in a step: the step, what is marked, and parts of what is said.
#[rustfmt::skip]
const STEPS: &[(&str, &str, &[&str])] = &[
    // Verbs
    ("into = '/x'", "[[step]]", &["no verb", "`unpack`, `deb`"]),
    ("cpoy = 'a'\ninto = '/b'", "cpoy", &["`cpoy` is not a verb", "did you mean `copy`?"]),
    ("mkdir = '/a'", "mkdir", &["did you mean `dir`?"]),
    ("write = '/a'\ntext = ''\ncopy = 'b'", "copy", &["`copy` is a second verb beside `write`", "begin another"]),
    ("run = ' '", "' '", &["`run` begins with an empty text", "a command"]),
    ("run = ['']", "['']", &["`run` begins with an empty text"]),
    ("run = []", "[]", &["the list of `run` is empty"]),
    ("run = 'a'\nto = 'b'", "to", &["`to`"]),
    ("run = 'a'\nenv = { 'A=B' = 'c' }", "'A=B'", &["`A=B`"]),
    ("run = 'a'\nworkdir = 'b'", "'b'", &["`b`"]),
    ("copy = { from = 'a' }\ninto = '/b'", "{ from = 'a' }", &["`copy` needs `path`"]),
    ("copy = { from = 'a.tar', path = '/b' }\ninto = '/b'", "'a.tar'", &["`a.tar` is no recipe", "`unpack` archives"]),
    ("copy = { from = 'a', path = '/b', to = '/c' }\ninto = '/b'", "to", &["`to` is not a key of `copy`"]),
    // Keys
    ("write = '/a'\ntxt = 'x'\ntext = ''", "txt", &["`txt` is not a key of `write`", "did you mean `text`?"]),
    ("copy = 'a'\nto = '/b'\ninto = '/b'", "to", &["did you mean `into`?"]),
    ("dir = '/a'\nsha256 = 'x'", "sha256", &["is not a key of `dir`", "`sha256` goes with `unpack`"]),
    ("dir = '/a'\nhostname = 'x'", "hostname", &["`hostname` is a key of `[conf]`"]),
    ("dir = '/a'\ndescription = 'x'", "description", &["at the top of the recipe"]),
    ("dir = '/a'\ncommand = ['x']", "command", &["`command` is a key of `[run]`"]),
    ("copy = 'a'", "[[step]]", &["`copy` needs `into`", "closing slash"]),
    ("write = '/a'", "[[step]]", &["`write` needs `text`"]),
    ("deb = 'a1'", "[[step]]", &["`deb` needs `suite`"]),
    ("link = '/a'", "[[step]]", &["`link` needs `to`"]),
    ("user = 'a'", "[[step]]", &["`user` needs `uid`"]),
    // Types
    ("dir = 1", "1", &["`dir` cannot be the number 1", "or a list"]),
    ("dir = ['/a', 2]", "2", &["`dir` cannot be the number 2"]),
    ("dir = []", "[]", &["the list of `dir` is empty"]),
    ("dir = '/a'\nmode = 644", "644", &["the number 644", "in quotes: \"0644\""]),
    ("dir = '/a'\nmode = 0o755", "0o755", &["in quotes: \"0755\""]),
    ("dir = '/a'\nowner = 1000", "1000", &["write it in quotes: \"1000\""]),
    ("write = '/a'\ntext = ['x']", "['x']", &["`text` cannot be a list", "a text in quotes"]),
    ("user = 'a'\nuid = '7'", "'7'", &["`uid` cannot be a text", "without quotes"]),
    ("unpack = 'a'\nstrip = true", "true", &["`strip` cannot be true"]),
    ("unpack = 'a'\nsha256 = { a = 1 }", "{ a = 1 }", &["`sha256` cannot be a table"]),
    // Values
    ("dir = '/a'\nmode = '0888'", "'0888'", &["`0888` is not a file mode", "octal"]),
    ("dir = '/a'\nmode = 'rwxr-xr-x'", "'rwxr-xr-x'", &["not a file mode"]),
    ("dir = '/a'\nmode = '07'", "'07'", &["not a file mode"]),
    ("dir = '/a'\nmode = '+755'", "'+755'", &["not a file mode"]),
    ("dir = '/a'\nmode = '17777'", "'17777'", &["not a file mode"]),
    ("dir = '/a'\nowner = 'root'", "'root'", &["`root` is not an owner", "by number"]),
    ("dir = '/a'\nowner = '0:'", "'0:'", &["not an owner"]),
    ("dir = '/a'\nowner = '+1:0'", "'+1:0'", &["not an owner"]),
    ("dir = '/a'\nowner = '0:01'", "'0:01'", &["not an owner"]),
    ("dir = '/a'\nowner = '4294967295'", "'4294967295'", &["up to 4294967294"]),
    ("dir = '/a'\nowner = '4294967296:0'", "'4294967296:0'", &["not an owner"]),
    ("user = 'a'\nuid = 4294967295", "4294967295", &["from 0 to 4294967294"]),
    ("user = 'a'\nuid = -1", "-1", &["`uid` cannot be -1"]),
    ("user = 'a'\nuid = 99999999999999999999", "99999999999999999999", &["`uid` cannot be"]),
    ("user = 'App'\nuid = 1", "'App'", &["`App` is not a user name", "lower-case"]),
    ("user = '1a'\nuid = 1", "'1a'", &["not a user name"]),
    ("user = 'a:b'\nuid = 1", "'a:b'", &["not a user name"]),
    ("user = 'a23456789012345678901234567890123'\nuid = 1", "'a23456789012345678901234567890123'", &["32"]),
    ("user = 'a'\nuid = 1\ngecos = 'x:0'", "'x:0'", &["cannot stand in /etc/passwd"]),
    ("user = 'a'\nuid = 1\ngecos = \"x\\ny\"", "\"x\\ny\"", &["cannot stand in /etc/passwd"]),
    ("user = 'a'\nuid = 1\nhome = 'home/a'", "'home/a'", &["did you mean \"/home/a\"?"]),
    ("user = 'a'\nuid = 1\nshell = '/bin/a:b'", "'/bin/a:b'", &["cannot stand in /etc/passwd"]),
    ("user = 'a'\nuid = 1\ngroups = ['x', 'x']", "'x'", &["twice"]),
    // Paths
    ("dir = 'a/b'", "'a/b'", &["does not start at the root", "did you mean \"/a/b\"?"]),
    ("dir = ''", "''", &["does not start at the root"]),
    ("dir = '/a/../b'", "'/a/../b'", &["`..`"]),
    ("dir = \"/a\\u0000b\"", "\"/a\\u0000b\"", &["NUL"]),
    ("dir = ['/a', '/a/']", "'/a/'", &["in the list of `dir` twice"]),
    ("write = '/'\ntext = ''", "'/'", &["is the root of the image"]),
    ("write = '/etc/'\ntext = ''", "'/etc/'", &["names a folder"]),
    ("link = '/a'\nto = ''", "''", &["cannot be the target"]),
    ("copy = '/etc/passwd'\ninto = '/b'", "'/etc/passwd'", &["a path of this machine", "beside the recipe"]),
    ("copy = '../x'\ninto = '/b'", "'../x'", &["leaves the folder of the recipe"]),
    ("copy = 'a/../../x'\ninto = '/b'", "'a/../../x'", &["leaves the folder"]),
    ("copy = '~/x'\ninto = '/b'", "'~/x'", &["in somebody's home"]),
    ("copy = ''\ninto = '/b'", "''", &["not a path"]),
    ("unpack = 'rootfs/'", "'rootfs/'", &["is a folder", "`copy` takes folders"]),
    ("unpack = 'a.tar'\ninto = 'opt'", "'opt'", &["did you mean \"/opt\"?"]),
    ("remove = 'usr/share'", "'usr/share'", &["did you mean \"/usr/share\"?"]),
    ("remove = '/'", "'/'", &["names nothing below the root"]),
    ("remove = '/usr/../etc'", "'/usr/../etc'", &["is not a pattern"]),
    ("remove = '/a[b'", "'/a[b'", &["is not a pattern"]),
    ("remove = '/a/{{b'", "'/a/{{b'", &["is not a pattern"]),
    // Sources
    ("unpack = 'ftp://h/a.tar'", "'ftp://h/a.tar'", &["`ftp://`", "http:// or https://"]),
    ("unpack = 'file:///a.tar'", "'file:///a.tar'", &["plain path"]),
    ("unpack = 'https:///a.tar'", "'https:///a.tar'", &["names no host"]),
    ("unpack = 'https://h/a b'", "'https://h/a b'", &["%20"]),
    ("unpack = 'a'\nsha256 = 'abc'", "'abc'", &["it has 3 digits", "64 lower-case"]),
    ("unpack = 'a'\nsha256 = 'xyz'", "'xyz'", &["`xyz` is not a sha256"]),
    ("deb = 'busybox=1.35'\nsuite = 'x'", "'busybox=1.35'", &["stand in the lock"]),
    ("deb = 'Busybox'\nsuite = 'x'", "'Busybox'", &["not the name of a Debian package"]),
    ("deb = ['a1', 'a1']\nsuite = 'x'", "'a1'", &["twice"]),
    ("deb = 'a1'\nsuite = 'a/../b'", "'a/../b'", &["not the name of a Debian suite"]),
    // Braces
    ("write = '/a'\ntext = 'hi {who}'", "{who}", &["`{who}` names no argument", "`[args]`", "`{{` and `}}`"]),
    ("write = '/a'\ntext = 'echo ${HOME}'", "{HOME}", &["`{HOME}` names no argument", "doubled"]),
    ("write = '/a'\ntext = '{\"a\": 1}'", "{\"a\": 1}", &["holds no name", "`{{` and `}}`"]),
    ("write = '/a'\ntext = \"x\\n{\"", "{", &["this `{` has no `}`", "`{{` and `}}`"]),
    ("write = '/a'\ntext = '''\n\nf() {\n}'''", "{", &["no `}` on its line"]),
    ("write = '/a'\ntext = 'a } b'", "}", &["this `}` has no `{`"]),
    ("write = '/a'\ntext = \"\\u007bx}\"", "\"\\u007bx}\"", &["`{x}` names no argument"]),
];

#[test]
fn each_mistake_in_a_step_is_told_in_its_place() {
    for (step, marked, said) in STEPS {
        let told = mistake(step);
        assert!(told.starts_with(&format!("{marked} | ")), "{step}\nmarks: {told}");
        for part in *said {
            assert!(told.contains(part), "{step}\nlacks: {part}\nin: {told}");
        }
    }
}

/// The same around the steps.
#[rustfmt::skip]
const AROUND: &[(&str, &str, &[&str])] = &[
    ("from = 'A b'", "'A b'", &["`A b` names no recipe and no image"]),
    ("from = '/a/b.toml'", "'/a/b.toml'", &["is a path of this machine", "../base/base.toml"]),
    ("from = '../a/'", "'../a/'", &["leaves the folder of the recipe"]),
    ("from = 'tree:12'", "'tree:12'", &["is not a sha256"]),
    ("name = 'My App'", "'My App'", &["cannot name an image", "lower-case letters"]),
    ("name = '{a}'", "'{a}'", &["cannot name an image"]),
    ("name = 5", "5", &["`name` cannot be the number 5"]),
    ("run.nesting = 'yes'", "'yes'", &["`nesting` cannot be a text", "true or false"]),
    ("description = \"a\\nb\"", "\"a\\nb\"", &["one line"]),
    ("epoch = -1", "-1", &["`epoch` cannot be -1"]),
    ("epoch = 1700000000000", "1700000000000", &["seconds, not milliseconds"]),
    ("epoch = 2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z", &["cannot be a date", "date -d"]),
    ("hostname = 'x'", "hostname", &["not a key of a recipe", "`[conf]`"]),
    ("write = '/x'", "write", &["`write` is a verb: it stands in a `[[step]]`"]),
    ("args = ['x']", "['x']", &["`args` cannot be a list"]),
    ("args = { '1' = 'x' }", "'1'", &["cannot name an argument"]),
    ("args = { a = 1 }", "1", &["`a` cannot be the number 1", "write it in quotes: \"1\""]),
    ("conf = 'x'", "'x'", &["`conf` cannot be a text", "`[conf]` on a line"]),
    ("conf.hostnam = 'x'", "hostnam", &["not a key of `[conf]`", "did you mean `hostname`?"]),
    ("conf.hostname = 'a_b'", "'a_b'", &["not a host name", "did you mean \"a-b\"?"]),
    ("conf.hostname = '-a'", "'-a'", &["not a host name"]),
    ("conf.hostname = ''", "''", &["not a host name"]),
    ("conf.hosts = { db = ['10.0.0.7'] }", "db", &["`db` is not an IP address"]),
    ("conf.hosts = { '1.2.3.4' = [] }", "[]", &["empty"]),
    ("conf.hosts = { '1.2.3.4' = ['a', 'a'] }", "'a'", &["twice"]),
    ("conf.hosts = { '::1' = ['a'], '0::1' = ['b'] }", "'::1'", &["twice, in two spellings"]),
    ("conf.nameservers = ['10.0.0.0/8']", "'10.0.0.0/8'", &["did you mean \"10.0.0.0\"?"]),
    ("conf.nameservers = ['300.1.1.1']", "'300.1.1.1'", &["not an IP address"]),
    ("conf.nameservers = ['1.1.1.1', '1.1.1.2', '1.1.1.3', '1.1.1.4']",
        "['1.1.1.1', '1.1.1.2', '1.1.1.3', '1.1.1.4']", &["at most three"]),
    ("run.cmd = ['x']", "cmd", &["did you mean `command`?"]),
    ("run.command = '/bin/sh -c x'", "'/bin/sh -c x'", &["a list", "[\"/bin/sh\", \"-c\""]),
    ("run.command = ['']", "['']", &["the first text of `command` is empty"]),
    ("run.command = []", "[]", &["the list of `command` is empty"]),
    ("run.env = ['A=b']", "['A=b']", &["`env` cannot be a list", "a table"]),
    ("run.env = { 'A=b' = 'c' }", "'A=b'", &["not the name of a variable", "without `=`"]),
    ("run.env = { '' = 'c' }", "''", &["not the name of a variable"]),
    ("run.env = { A = 1 }", "1", &["`A` cannot be the number 1"]),
    ("run.env = { A = \"\\u0000\" }", "\"\\u0000\"", &["NUL"]),
    ("run.workdir = 'src'", "'src'", &["did you mean \"/src\"?"]),
    ("run.user = 'a:b:c'", "'a:b:c'", &["not a user"]),
    ("run.user = '01'", "'01'", &["not a user"]),
    ("run.network = 'slirp'", "'slirp'", &["not a kind of network", "\"none\", \"host\""]),
    ("run.network = 'bridge:a/b'", "'bridge:a/b'", &["cannot name a network"]),
    ("run.network = 'ns:blue'", "'ns:blue'", &["of one machine"]),
    ("run.network = 'hots'", "'hots'", &["did you mean \"host\"?"]),
    // TOML itself
    ("a = ", "", &["nothing stands behind `=`", "a text in quotes"]),
    ("a = 'x", "", &["this text is not closed", "`'`"]),
    ("a = nope", "nope", &["`nope` is not a value", "in quotes: \"nope\""]),
    ("a = true1", "true1", &["`true1` is not a value"]),
    ("a = [1,\nb = 2\nc = 3", "b", &["`b` is a key in the middle of a list", "`]` before it"]),
    ("a = \"\\q\"", "", &["not an escape", "single quotes"]),
    ("a = 01", "", &["leading zero"]),
    ("a 1", "", &["key with no value", "`=`"]),
    ("= 1", "=", &["keys cannot be empty"]),
    ("epoch = 1\nepoch = 2", "epoch", &["`epoch` is here twice"]),
    ("[conf", "", &["`]`"]),
];

#[test]
fn each_mistake_around_the_steps_is_told_in_its_place() {
    for (text, marked, said) in AROUND {
        let told = mistakes(&format!("{text}\n[[step]]\ndir = '/a'\n"));
        assert_eq!(told.len(), 1, "{text}: {told:#?}");
        assert!(told[0].starts_with(marked), "{text}\nmarks: {}", told[0]);
        for part in *said {
            assert!(told[0].contains(part), "{text}\nlacks: {part}\nin: {}", told[0]);
        }
    }
}

#[test]
fn a_recipe_without_steps_is_a_mistake() {
    assert_eq!(
        mistakes(""),
        [" | the recipe has no steps: expected at least one `[[step]]` | "]
    );
    let told = mistakes("[[steps]]\ndir = '/a'\n");
    assert!(
        told.len() == 1 && told[0].contains("did you mean `step`?"),
        "{told:?}"
    );
    let told = mistakes("[step]\ndir = '/a'\n");
    assert!(
        told.len() == 1 && told[0].contains("`[[step]]` with two brackets"),
        "{told:?}"
    );
    let told = mistakes("step = []");
    assert_eq!(told.len(), 1, "{told:?}");
    let told = mistakes("step = ['a', { dir = '/a' }, 3]");
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_user_is_added_once() {
    let told = mistakes("[[step]]\nuser = 'a'\nuid = 1\n[[step]]\nuser = 'a'\nuid = 2\n");
    assert!(
        told.len() == 1 && told[0].contains("`a` is added by an earlier step"),
        "{told:?}"
    );
}

#[test]
fn deep_nesting_is_refused_politely() {
    let text = format!("a = {}", "[".repeat(100_000));
    assert!(!parse(&text, &BTreeMap::new()).unwrap_err().0.is_empty());
}

#[test]
fn a_mistake_quotes_nothing_that_a_terminal_acts_on() {
    let told = mistake("dir = \"\\u001b[2J\"");
    assert!(told.contains("`\\u{1b}[2J`"), "{told}");
    let told = mistake("remove = \"\\u001b[2J\"");
    assert!(!told.split_once(" | ").unwrap().1.contains('\u{1b}'), "{told:?}");
}
