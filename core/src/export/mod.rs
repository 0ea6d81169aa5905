//! A tree and the files of the store → an archive or a folder outside of it. The same tree gives the same bytes.

use std::io::{self, Read};

use crate::entry::Content;
use crate::meta::Meta;
use crate::path::TreePath;
use crate::store::{ObjectName, Store};
use crate::sys::SysError;

pub mod folder;
pub mod tar;

/// How the bytes of a file are come by.
pub type Open<'a> = dyn Fn(&Content, &Meta) -> io::Result<Box<dyn Read>> + 'a;

/// Returns a way to open the files of trees in `store`.
pub fn files_of(store: &Store) -> impl Fn(&Content, &Meta) -> io::Result<Box<dyn Read>> {
    |content, meta| {
        let name = ObjectName::new(&content.digest, meta, store.format());
        let folder = store.object_folder(&name).map_err(io::Error::other)?;
        Ok(Box::new(folder.open_file(name.file())?))
    }
}

/// Why an image was not written out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store does not give a file of the image.
    #[error("cannot read the file `{path}` of the image in the store")]
    Read {
        /// Where it is in the image.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// The folder cannot hold a path of the image.
    #[error("cannot make `{path}` in the folder")]
    Folder {
        /// Where it is in the image.
        path: TreePath,
        /// Why.
        source: SysError,
    },
    /// What a file holds, or its header, cannot be copied.
    #[error("cannot write out `{path}`")]
    Archive {
        /// Where it is in the image.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use super::*;
    use crate::digest::Digest;
    use crate::entry::{Entry, Kind};
    use crate::sys::dir::Dir;
    use crate::sys::file::FileKind;
    use crate::tree::Tree;

    /// A tree with one of everything, and what its files hold.
    fn everything() -> (Tree, BTreeMap<Digest, Vec<u8>>) {
        let bodies = [b"hello".to_vec(), Vec::new()];
        let content = |body: &Vec<u8>| Content {
            digest: Digest::of(body),
            size: body.len() as u64,
        };
        let path = |text: &str| TreePath::parse(text).unwrap();
        let meta = |mode, mtime| Meta {
            uid: 0,
            gid: 0,
            ..Meta::new(mode, mtime)
        };
        let long = format!("long/{}/{}", "a".repeat(200), "b".repeat(200));
        let mut noted = meta(0o4755, 7);
        noted.keep_xattr(b"user.note", b"a=b\0c");
        let far = Meta {
            uid: 3_000_000,
            gid: 65_534,
            ..meta(0o600, -5)
        };
        let mut tree = Tree::new(50);
        let mut layer = tree.layer(100);
        for (at, meta, kind) in [
            ("bin", meta(0o555, 3), Kind::Folder),
            ("bin/a", noted, Kind::File(content(&bodies[0]))),
            ("bin/b", meta(0, 0), Kind::HardLink(path("bin/a"))),
            (
                "bin/link",
                meta(0o777, 4),
                Kind::Symlink("/x/".repeat(60).as_bytes().into()),
            ),
            (
                "dev/null",
                meta(0o666, 5),
                Kind::Device {
                    block: false,
                    major: 1,
                    minor: 3,
                },
            ),
            ("empty", far, Kind::File(content(&bodies[1]))),
            ("pipe", meta(0o644, 6), Kind::Fifo),
            (&long, meta(0o1777, 8), Kind::Folder),
        ] {
            layer
                .lay(Entry {
                    path: path(at),
                    meta,
                    kind,
                })
                .unwrap();
        }
        (
            tree,
            bodies.into_iter().map(|body| (Digest::of(&body), body)).collect(),
        )
    }

    fn from(bodies: &BTreeMap<Digest, Vec<u8>>) -> impl Fn(&Content, &Meta) -> io::Result<Box<dyn Read>> {
        |content, _| Ok(Box::new(Cursor::new(bodies[&content.digest].clone())))
    }

    #[test]
    fn the_archive_says_all_that_the_tree_says() {
        let (tree, bodies) = everything();
        let bytes = tar::write(&tree, &from(&bodies), Vec::new()).unwrap();
        let mut archive = ::tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = TreePath::normalise(entry.path_bytes()).unwrap();
            let records: Vec<(String, Vec<u8>)> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .map(|record| record.unwrap())
                .map(|record| (record.key().unwrap().to_owned(), record.value_bytes().to_vec()))
                .collect();
            let mut body = Vec::new();
            entry.read_to_end(&mut body).unwrap();
            let node = tree.get(&path).unwrap();
            assert_eq!(
                entry.header().mode().unwrap(),
                u32::from(node.meta.mode),
                "{path}"
            );
            match path.to_string().as_str() {
                "/bin/a" => {
                    assert_eq!(body, b"hello");
                    let note = ("SCHILY.xattr.user.note".to_owned(), b"a=b\0c".to_vec());
                    assert_eq!(records, [note]);
                }
                "/bin/b" => assert_eq!(entry.link_name_bytes().unwrap().as_ref(), b"bin/a"),
                "/bin/link" => assert_eq!(entry.link_name_bytes().unwrap().len(), 180),
                "/empty" => {
                    let said = |key: &str| {
                        records
                            .iter()
                            .find(|(name, _)| name == key)
                            .map(|(_, value)| &value[..])
                    };
                    assert_eq!(
                        (said("uid"), said("mtime")),
                        (Some(&b"3000000"[..]), Some(&b"-5"[..]))
                    );
                    assert_eq!(entry.header().gid().unwrap(), 65_534);
                }
                _ => assert_eq!(
                    entry.header().mtime().unwrap(),
                    u64::try_from(node.meta.mtime).unwrap(),
                    "{path}"
                ),
            }
            seen.push(path);
        }
        assert!(seen.iter().eq(tree.iter().map(|(path, _)| path)), "{seen:?}");
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let (tree, bodies) = everything();
        let again = Tree::decode(&tree.encode()).unwrap();
        let write = |tree| tar::write(tree, &from(&bodies), Vec::new()).unwrap();
        assert_eq!(Digest::of(&write(&tree)), Digest::of(&write(&again)));
    }

    #[test]
    fn a_file_that_is_shorter_than_it_should_be_is_an_error() {
        let (tree, _) = everything();
        let short = |_: &Content, _: &Meta| -> io::Result<Box<dyn Read>> { Ok(Box::new(&b"hell"[..])) };
        assert!(matches!(
            tar::write(&tree, &short, Vec::new()),
            Err(Error::Archive { .. })
        ));
        let temp = tempfile::tempdir().unwrap();
        let into = Dir::open(temp.path()).unwrap();
        assert!(matches!(
            folder::write(&tree, &short, &into, false),
            Err(Error::Read { .. })
        ));
    }

    #[test]
    fn a_folder_has_everything_but_devices() {
        let (tree, bodies) = everything();
        let temp = tempfile::tempdir().unwrap();
        let into = Dir::open(temp.path()).unwrap();
        let missing = folder::write(&tree, &from(&bodies), &into, false).unwrap();
        assert_eq!((missing.devices, missing.owners), (1, 1));
        let stat = |path: &str| into.stat(path).unwrap();
        assert_eq!(
            (stat("bin").kind, stat("bin").mode, stat("bin").mtime),
            (FileKind::Folder, 0o555, 3)
        );
        assert_eq!((stat("bin/a").mode, stat("bin/a").mtime), (0o4755, 7));
        assert_eq!(stat("bin/a").inode, stat("bin/b").inode);
        assert_eq!(
            (stat("bin/link").kind, stat("bin/link").mtime),
            (FileKind::Symlink, 4)
        );
        assert_eq!((stat("pipe").kind, stat("pipe").mode), (FileKind::Fifo, 0o644));
        assert_eq!((stat("empty").size, stat("empty").mtime), (0, -5));
        assert!(into.look("dev/null").unwrap().is_none());
        // A folder that may not be written to could not be cleaned up by an ordinary user.
        into.chmod("bin", 0o755).unwrap();
    }
}
