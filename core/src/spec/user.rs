//! [`UserName`]: a user as asked for; [`Identity`]: who that is, by the image's `/etc/passwd` and `/etc/group`.

use crate::path::shown;

/// A user, and perhaps a group, as asked for: `name`, `uid`, `name:group`, `uid:gid`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName {
    /// The user.
    pub user: Id,
    /// The group; left out: the one that the image's passwd gives the user.
    pub group: Option<Id>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// By number.
    Number(u32),
    /// By name.
    Name(String),
}

/// A text that is neither a user nor a user and a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a user: expected `name`, `uid`, `name:group` or `uid:gid`, with numbers up to 4294967294"
)]
pub struct BadUser {
    /// As written.
    pub text: String,
}

/// A name that the image's files do not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// No such user.
    #[error("no user `{name}` in the image's `/etc/passwd`")]
    User {
        /// The name.
        name: String,
    },
    /// No such group.
    #[error("no group `{name}` in the image's `/etc/group`")]
    Group {
        /// The name.
        name: String,
    },
}

/// Who runs a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further group ids.
    pub groups: Vec<u32>,
    /// Home folder, absolute.
    pub home: String,
}

impl UserName {
    /// Reads `text` strictly: what is all digits is a number and must be one, anything else is a name.
    pub fn parse(text: &str) -> Result<Self, BadUser> {
        let bad = || BadUser {
            text: shown(text.as_bytes()),
        };
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        Ok(Self {
            user: Id::parse(user).ok_or_else(bad)?,
            group: group.map(|group| Id::parse(group).ok_or_else(bad)).transpose()?,
        })
    }

    /// Finds out who this is from the texts of the image's passwd(5) and group(5). Lines that are none are passed over.
    pub fn resolve(&self, passwd: &[u8], group: &[u8]) -> Result<Identity, Unknown> {
        let account = accounts(passwd).find(|account| match &self.user {
            Id::Number(uid) => account.uid == *uid,
            Id::Name(name) => account.name == name.as_bytes(),
        });
        let uid = match (&self.user, &account) {
            (_, Some(account)) => account.uid,
            (Id::Number(uid), None) => *uid,
            (Id::Name(name), None) => return Err(Unknown::User { name: name.clone() }),
        };
        let gid = match &self.group {
            Some(Id::Number(gid)) => *gid,
            Some(Id::Name(name)) => groups(group)
                .find(|group| group.name == name.as_bytes())
                .map(|group| group.gid)
                .ok_or_else(|| Unknown::Group { name: name.clone() })?,
            None => account.as_ref().map_or(0, |account| account.gid),
        };
        let mut further = Vec::new();
        // Whoever names a group wants that one only.
        if let (None, Some(account)) = (&self.group, &account) {
            let belongs = groups(group).filter(|group| group.has(account.name));
            further.extend(belongs.map(|group| group.gid).filter(|&other| other != gid));
            further.sort_unstable();
            further.dedup();
        }
        Ok(Identity {
            uid,
            gid,
            groups: further,
            home: account
                .and_then(|account| account.home)
                .unwrap_or_else(|| "/".to_owned()),
        })
    }
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let digits = !text.is_empty() && text.bytes().all(|letter| letter.is_ascii_digit());
        if digits {
            return number(text.as_bytes()).map(Self::Number);
        }
        let name = !text.is_empty()
            && !text.starts_with(['-', '+'])
            && text
                .bytes()
                .all(|letter| letter > b' ' && letter != b':' && letter != 0x7f);
        name.then(|| Self::Name(text.to_owned()))
    }
}

/// Returns what passwd(5) calls the user `uid`.
pub fn name_of(uid: u32, passwd: &[u8]) -> Option<&[u8]> {
    accounts(passwd)
        .find(|account| account.uid == uid)
        .map(|account| account.name)
}

/// Reads an id: digits only. The greatest number means "none" to the kernel and is no id.
fn number(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits)?;
    text.parse().ok().filter(|id| *id != u32::MAX)
}

struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: Option<String>,
}

fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|fields| match fields[..] {
        [name, _, uid, gid, _, home, ..] if !name.is_empty() => Some(Account {
            name,
            uid: number(uid)?,
            gid: number(gid)?,
            home: std::str::from_utf8(home)
                .ok()
                .filter(|home| home.starts_with('/') && !home.contains('\0'))
                .map(str::to_owned),
        }),
        _ => None,
    })
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl Group<'_> {
    fn has(&self, name: &[u8]) -> bool {
        self.members
            .split(|&byte| byte == b',')
            .any(|member| member == name)
    }
}

fn groups(group: &[u8]) -> impl Iterator<Item = Group<'_>> {
    lines(group).filter_map(|fields| match fields[..] {
        [name, _, gid, members, ..] if !name.is_empty() => Some(Group {
            name,
            gid: number(gid)?,
            members,
        }),
        _ => None,
    })
}

fn lines(text: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    text.split(|&byte| byte == b'\n')
        .map(|line| line.split(|&byte| byte == b':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n\nbad line\napp:x:1000:1001::/home/app:/bin/sh\n\
        evil:x:4294967295:0::/:/bin/sh\nnohome:x:7:7:::\n1000:x:5:5::/five:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\napp:x:1001:\nwheel:x:10:root,app\naudio:x:29:app\nself:x:1001:app\n";

    fn who(text: &str) -> Result<Identity, Unknown> {
        UserName::parse(text).unwrap().resolve(PASSWD, GROUP)
    }

    #[test]
    fn names_and_numbers_meet_in_passwd() {
        for text in ["app", "1000"] {
            let found = who(text).unwrap();
            assert_eq!((found.uid, found.gid), (1000, 1001), "{text}");
            assert_eq!(found.groups, [10, 29], "{text}");
            assert_eq!(found.home, "/home/app", "{text}");
        }
    }

    #[test]
    fn a_number_is_never_looked_up_as_a_name() {
        assert_eq!(who("1000").unwrap().uid, 1000);
    }

    #[test]
    fn a_named_group_is_the_only_one() {
        let found = who("app:wheel").unwrap();
        assert_eq!((found.gid, found.groups), (10, vec![]));
        assert_eq!(who("0:5").unwrap().gid, 5);
    }

    #[test]
    fn a_number_that_nobody_has_is_still_a_user() {
        let found = who("77").unwrap();
        assert_eq!((found.uid, found.gid, found.home.as_str()), (77, 0, "/"));
        assert_eq!(who("nohome").unwrap().home, "/");
    }

    #[test]
    fn names_that_are_not_there_are_errors() {
        assert_eq!(
            who("nobody"),
            Err(Unknown::User {
                name: "nobody".into()
            })
        );
        assert_eq!(who("app:none"), Err(Unknown::Group { name: "none".into() }));
        assert!(who("evil").is_err(), "an id that means `none` was accepted");
    }

    #[test]
    fn users_are_read_strictly() {
        for text in [
            "",
            ":",
            "app:",
            ":app",
            "-1",
            "+1",
            "4294967295",
            "4294967296",
            "a b",
            "a\n",
            "a:b:c",
        ] {
            assert!(UserName::parse(text).is_err(), "{text:?} was accepted");
        }
    }
}
