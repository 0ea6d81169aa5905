//! A user as data: the lines that passwd(5), group(5) and shadow(5) get for one, without running a program. Pure.

use crate::recipe::User;

/// The text of the three files of accounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accounts {
    /// `/etc/passwd`
    pub passwd: String,
    /// `/etc/group`
    pub group: String,
    /// `/etc/shadow`
    pub shadow: String,
}

/// Why a user cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The number belongs to somebody else.
    #[error("user id {uid} is `{other}` in the image's /etc/passwd, and cannot be `{name}` as well")]
    UidTaken {
        /// Who was to be added.
        name: String,
        /// The number.
        uid: u32,
        /// Who has it.
        other: String,
    },
    /// A group of the user's name has another number.
    #[error(
        "group `{name}` has the id {actual} in the image's /etc/group: expected {expected} for the user of that name"
    )]
    OtherGid {
        /// The group.
        name: String,
        /// As the recipe has it.
        expected: u32,
        /// As the image has it.
        actual: String,
    },
    /// A further group is not there.
    #[error("there is no group `{group}` in the image's /etc/group for user `{name}`")]
    NoGroup {
        /// Who was to be added.
        name: String,
        /// The group.
        group: String,
    },
}

impl Accounts {
    /// Adds `user`, and a group of the same name unless some group has its number. A line of the same name is replaced
    /// where it stands. No password is set, and none will ever match (`*`, shadow(5)).
    pub fn add(&mut self, user: &User) -> Result<(), Error> {
        let name = &user.name;
        let (uid, gid) = (user.uid.to_string(), user.gid.to_string());
        let taken = lines(&self.passwd).find(|line| field(line, 2) == uid && field(line, 0) != name);
        if let Some(other) = taken {
            let other = field(other, 0).to_owned();
            return Err(Error::UidTaken {
                name: name.clone(),
                uid: user.uid,
                other,
            });
        }
        self.add_group(name, &gid, user)?;
        for group in &user.groups {
            self.join(name, group)?;
        }
        let User {
            gecos, home, shell, ..
        } = user;
        set_line(
            &mut self.passwd,
            name,
            &format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}"),
        );
        set_line(&mut self.shadow, name, &format!("{name}:*::0:99999:7:::"));
        Ok(())
    }

    fn add_group(&mut self, name: &str, gid: &str, user: &User) -> Result<(), Error> {
        if let Some(line) = lines(&self.group).find(|line| field(line, 0) == name) {
            let actual = field(line, 2);
            if actual != gid && user.uid == user.gid {
                let (name, actual) = (name.to_owned(), actual.to_owned());
                return Err(Error::OtherGid {
                    name,
                    expected: user.gid,
                    actual,
                });
            }
        } else if !lines(&self.group).any(|line| field(line, 2) == gid) {
            set_line(&mut self.group, name, &format!("{name}:x:{gid}:"));
        }
        Ok(())
    }

    fn join(&mut self, name: &str, group: &str) -> Result<(), Error> {
        let Some(line) = lines(&self.group).find(|line| field(line, 0) == group) else {
            return Err(Error::NoGroup {
                name: name.to_owned(),
                group: group.to_owned(),
            });
        };
        let members = field(line, 3);
        if members.split(',').any(|member| member == name) {
            return Ok(());
        }
        let comma = if members.is_empty() { "" } else { "," };
        let joined = format!(
            "{}:{}:{}:{members}{comma}{name}",
            field(line, 0),
            field(line, 1),
            field(line, 2)
        );
        set_line(&mut self.group, group, &joined);
        Ok(())
    }
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with('#'))
}

/// Returns a field of a line, from 0; empty where the line has fewer.
fn field(line: &str, index: usize) -> &str {
    line.split(':').nth(index).unwrap_or_default()
}

/// Replaces the line that begins with the field `name`, or adds one at the end.
fn set_line(text: &mut String, name: &str, line: &str) {
    let mut found = false;
    let mut all = String::with_capacity(text.len() + line.len() + 1);
    for old in text.lines() {
        let same = !found && field(old, 0) == name;
        found |= same;
        all.push_str(if same { line } else { old });
        all.push('\n');
    }
    if !found {
        all.push_str(line);
        all.push('\n');
    }
    *text = all;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32, gid: u32) -> User {
        let (home, shell) = ("/".to_owned(), "/bin/sh".to_owned());
        User {
            name: name.into(),
            uid,
            gid,
            home,
            shell,
            gecos: String::new(),
            groups: vec![],
        }
    }

    #[test]
    fn a_user_is_a_line_in_each_file() {
        let mut accounts = Accounts::default();
        accounts.add(&user("root", 0, 0)).unwrap();
        accounts.add(&user("app", 1000, 1000)).unwrap();
        assert_eq!(
            accounts.passwd,
            "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n"
        );
        assert_eq!(accounts.group, "root:x:0:\napp:x:1000:\n");
        assert_eq!(accounts.shadow, "root:*::0:99999:7:::\napp:*::0:99999:7:::\n");
    }

    #[test]
    fn adding_twice_changes_nothing_and_adding_otherwise_replaces_the_line() {
        let mut accounts = Accounts {
            passwd: "# people\napp:x:1000:1000::/:/bin/sh\nb:x:2:2::/:/x".into(),
            ..Accounts::default()
        };
        accounts
            .add(&User {
                home: "/home/app".into(),
                ..user("app", 1000, 1000)
            })
            .unwrap();
        let once = accounts.clone();
        assert_eq!(
            once.passwd,
            "# people\napp:x:1000:1000::/home/app:/bin/sh\nb:x:2:2::/:/x\n"
        );
        accounts
            .add(&User {
                home: "/home/app".into(),
                ..user("app", 1000, 1000)
            })
            .unwrap();
        assert_eq!(accounts, once);
    }

    #[test]
    fn a_group_that_has_the_number_serves_and_further_groups_are_joined() {
        let mut accounts = Accounts {
            group: "users:x:100:\nwheel:x:10:root\n".into(),
            ..Accounts::default()
        };
        let groups = vec!["wheel".into(), "users".into()];
        accounts
            .add(&User {
                groups,
                ..user("app", 1000, 100)
            })
            .unwrap();
        assert_eq!(accounts.group, "users:x:100:app\nwheel:x:10:root,app\n");
    }

    #[test]
    fn what_would_give_two_users_one_number_or_none_is_refused() {
        let mut accounts = Accounts::default();
        accounts.add(&user("app", 1000, 1000)).unwrap();
        let before = accounts.clone();
        assert!(matches!(
            accounts.add(&user("other", 1000, 5)),
            Err(Error::UidTaken { .. })
        ));
        assert!(matches!(
            accounts.add(&user("app", 7, 7)),
            Err(Error::OtherGid { .. })
        ));
        let lost = User {
            groups: vec!["wheel".into()],
            ..user("new", 2, 2)
        };
        assert!(matches!(accounts.clone().add(&lost), Err(Error::NoGroup { .. })));
        assert_eq!(accounts, before);
    }
}
