//! Carries a [`Table`] out, in the child: [`prepare`] allocates in the parent, the rest keeps to the stack.
//!
//! Every place is opened below the root's handle, where no symbolic link leads out, and a mount is moved onto the
//! handle: between looking and mounting there is no name that could change its meaning.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use super::mapped::Handles;
use super::{LINKS, Mount, NODES, Table, What};
use crate::path::TreePath;
use crate::rootfs::SCRATCH;
use crate::rootfs::scratch::Names;
use crate::sys::mount::{self, Attr, NewFs};
use crate::sys::place::{self, Links};
use crate::sys::terminal::Pair;
use crate::sys::{Errno, SysError};

/// A table ready to be carried out.
#[derive(Debug)]
pub struct Ready {
    names: Names,
    /// Layers that have no place yet, and the names that they get in the scratch.
    layers: Vec<(CString, OwnedFd)>,
    lowers: CString,
    user_xattr: bool,
    read_only: bool,
    mounts: Vec<ReadyMount>,
}

#[derive(Debug)]
struct ReadyMount {
    target: Target,
    make: Make,
    attr: Attr,
}

/// How a mount comes about.
#[derive(Debug)]
enum Make {
    /// A new filesystem of this kind, with these options.
    New(&'static CStr, Vec<(&'static CStr, CString)>),
    /// `/dev`, with these options, and those of its `devpts`.
    Devices {
        options: Vec<(&'static CStr, CString)>,
        terminals: Vec<(&'static CStr, CString)>,
        nodes: Vec<Node>,
        links: Vec<Node>,
        console: bool,
    },
    /// A copy of a mount of the host.
    Bind {
        source: CString,
        folder: bool,
        recursive: bool,
    },
    /// A copy of a mount of the host that was made already.
    Given { tree: OwnedFd, folder: bool },
    /// A copy of nothing.
    Hidden { folder: bool },
    /// A copy of what is there.
    Frozen,
}

/// A name in `/dev`, and the node of the host or the target of the link that it stands for.
#[derive(Debug)]
struct Node {
    name: CString,
    source: CString,
}

/// A place in the image, with what must be made where it is missing.
#[derive(Debug)]
struct Target {
    path: CString,
    links: Links,
    /// Each folder on the way and the name in it, from the root down; the last name is the place itself.
    steps: Vec<(CString, CString)>,
}

/// What a filesystem had to say when a mount failed. A fixed size, because it is filled in where nothing may allocate.
#[derive(Debug, Clone, Copy)]
pub struct Note {
    bytes: [u8; Self::LONGEST],
    length: usize,
}

impl Note {
    /// How many bytes are kept.
    pub const LONGEST: usize = 160;

    /// Returns an empty one.
    pub const fn new() -> Self {
        Self {
            bytes: [0; Self::LONGEST],
            length: 0,
        }
    }

    /// Returns what was said.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn set(&mut self, text: &[u8]) {
        self.length = text.len().min(Self::LONGEST);
        self.bytes[..self.length].copy_from_slice(&text[..self.length]);
    }

    fn ask(&mut self, new: &NewFs) {
        let got = new.complaint(&mut self.bytes);
        self.length = got.min(Self::LONGEST);
        // The kernel puts before it whether it is an error, a warning or only information: `e VFS: …`.
        if let [b'e' | b'w' | b'i', b' ', ..] = self.bytes[..self.length] {
            self.bytes.copy_within(2..self.length, 0);
            self.length -= 2;
        }
        if self.bytes[..self.length].ends_with(b"\n") {
            self.length -= 1;
        }
    }
}

impl Default for Note {
    fn default() -> Self {
        Self::new()
    }
}

/// Turns `table` into what the child can use, whose scratch has these `names`. Where the child cannot name what it
/// mounts, all of that comes as `handles`.
pub fn prepare(table: &Table, names: Names, handles: Option<Handles>) -> Ready {
    let (layers, mut given) = match handles {
        Some(handles) => (handles.lowers, handles.mounts),
        None => (Vec::new(), Vec::new()),
    };
    let inside = !layers.is_empty();
    let mut handed = layers.into_iter();
    let mut layers = Vec::new();
    let lowers = table.lowers.iter().enumerate().map(|(at, path)| {
        let bytes = path.as_os_str().as_bytes();
        match handed.next().flatten() {
            Some(tree) => {
                let name = c_string(format!("lower{at}").as_bytes());
                layers.push((name.clone(), tree));
                name.into_bytes()
            }
            None if inside => path
                .strip_prefix(SCRATCH)
                .unwrap_or(path)
                .as_os_str()
                .as_bytes()
                .to_owned(),
            None => bytes.to_owned(),
        }
    });
    let lowers = c_string(&lowers.collect::<Vec<_>>().join(&b':'));
    given.resize_with(table.mounts.len(), || None);
    Ready {
        names,
        layers,
        lowers,
        user_xattr: table.user_xattr,
        read_only: table.read_only,
        mounts: table
            .mounts
            .iter()
            .zip(given)
            .map(|(mount, handle)| ready_mount(mount, handle))
            .collect(),
    }
}

/// Returns `bytes` as a C string. What gets here holds no NUL: paths were checked when they were read.
fn c_string(bytes: &[u8]) -> CString {
    CString::new(bytes).unwrap_or_default()
}

fn ready_mount(mount: &Mount, handle: Option<OwnedFd>) -> ReadyMount {
    let make = match handle {
        Some(tree) => Make::Given {
            tree,
            folder: matches!(mount.what, What::Bind { folder: true, .. }),
        },
        None => make_of(&mount.what),
    };
    // An image that has a link where the kernel's own filesystems belong is up to something.
    let links = match mount.what {
        What::Bind { .. } | What::Tmpfs { .. } => Links::Inside,
        _ => Links::Refused,
    };
    ReadyMount {
        target: Target::new(&mount.target, links),
        make,
        attr: mount.attr,
    }
}

fn make_of(what: &What) -> Make {
    match what {
        What::Proc => Make::New(c"proc", Vec::new()),
        What::Sysfs => Make::New(c"sysfs", Vec::new()),
        What::HostSys => Make::Bind {
            source: c"/sys".to_owned(),
            folder: true,
            recursive: true,
        },
        What::Devices {
            terminal_group,
            console,
        } => devices(*terminal_group, *console),
        What::Tmpfs { size, mode } => Make::New(c"tmpfs", tmpfs_options(*size, *mode)),
        What::Bind {
            source,
            folder,
            recursive,
            ..
        } => Make::Bind {
            source: c_string(source.as_os_str().as_bytes()),
            folder: *folder,
            recursive: *recursive,
        },
        What::Hidden { folder } => Make::Hidden { folder: *folder },
        What::Frozen => Make::Frozen,
    }
}

fn tmpfs_options(size: Option<u64>, mode: u16) -> Vec<(&'static CStr, CString)> {
    let mut options = vec![(c"mode", c_string(format!("{mode:o}").as_bytes()))];
    options.extend(size.map(|size| (c"size", c_string(size.to_string().as_bytes()))));
    options
}

fn devices(terminal_group: Option<u32>, console: bool) -> Make {
    let mut terminals = vec![(c"ptmxmode", c"0666".to_owned()), (c"mode", c"0620".to_owned())];
    terminals.extend(terminal_group.map(|gid| (c"gid", c_string(gid.to_string().as_bytes()))));
    let node = |name: &str, source: String| Node {
        name: c_string(name.as_bytes()),
        source: c_string(source.as_bytes()),
    };
    Make::Devices {
        options: tmpfs_options(None, 0o755),
        terminals,
        nodes: NODES
            .iter()
            .map(|name| node(name, format!("/dev/{name}")))
            .collect(),
        links: LINKS
            .iter()
            .map(|(name, target)| node(name, (*target).to_owned()))
            .collect(),
        console,
    }
}

impl Target {
    fn new(path: &TreePath, links: Links) -> Self {
        let mut steps = Vec::new();
        let mut place = Some(path.clone());
        while let Some(inner) = place {
            place = inner.parent();
            if let (Some(parent), Some(name)) = (&place, inner.name()) {
                steps.push((c_string(parent.as_path().as_os_str().as_bytes()), c_string(name)));
            }
        }
        steps.reverse();
        Self {
            path: c_string(path.as_bytes()),
            links,
            steps,
        }
    }

    fn find(&self, root: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
        place::find(root, &self.path, self.links, false).map_err(failed("openat2"))
    }

    /// Opens the place, and makes what is missing of it: folders, and at the end a folder or an empty file.
    fn find_or_make(&self, root: BorrowedFd<'_>, folder: bool) -> Result<OwnedFd, SysError> {
        match place::find(root, &self.path, self.links, folder) {
            Err(Errno::NOENT) => {}
            found => return found.map_err(failed("openat2")),
        }
        let last = self.steps.len().saturating_sub(1);
        for (at, (parent, name)) in self.steps.iter().enumerate() {
            let parent = place::find(root, parent, self.links, true).map_err(failed("openat2"))?;
            let made = match at == last && !folder {
                true => place::make_file(parent.as_fd(), name, 0o644),
                false => place::make_folder(parent.as_fd(), name, 0o755),
            };
            match made {
                Err(refused) if refused.errno != Errno::EXIST => return Err(refused),
                _ => {}
            }
        }
        place::find(root, &self.path, self.links, folder).map_err(failed("openat2"))
    }
}

/// Names the call of an error, without allocating.
fn failed(call: &'static str) -> impl FnOnce(Errno) -> SysError {
    move |errno| SysError {
        call: std::borrow::Cow::Borrowed(call),
        errno,
    }
}

impl Ready {
    /// Returns how many mounts go into the root.
    pub fn len(&self) -> usize {
        self.mounts.len()
    }

    /// Whether nothing goes into the root.
    pub fn is_empty(&self) -> bool {
        self.mounts.is_empty()
    }

    /// Mounts the root's layers in the scratch, seen from the working directory, and returns its handle.
    pub fn make_root(&self, note: &mut Note) -> Result<OwnedFd, SysError> {
        for (name, tree) in &self.layers {
            place::make_folder_here(name, 0o755)?;
            mount::attach_here(tree.as_fd(), name)?;
        }
        let new = NewFs::open(c"overlay")?;
        let made = self.overlay(&new).inspect_err(|_| note.ask(&new))?;
        mount::attach_here(made.as_fd(), self.names.root)?;
        Ok(made)
    }

    fn overlay(&self, new: &NewFs) -> Result<OwnedFd, SysError> {
        new.set(c"lowerdir", &self.lowers)?;
        new.set(c"upperdir", self.names.upper)?;
        new.set(c"workdir", self.names.work)?;
        if self.user_xattr {
            new.flag(c"userxattr")?;
        }
        new.mount(Attr {
            no_dev: true,
            ..Attr::default()
        })
    }

    /// Puts the mount with this index in place below `root`. The one at `/dev` makes the run's own terminal, where it
    /// has one, and leaves it in `terminal`.
    pub fn make(
        &self,
        index: usize,
        root: BorrowedFd<'_>,
        terminal: &mut Option<Pair>,
        note: &mut Note,
    ) -> Result<(), SysError> {
        match self.mounts.get(index) {
            Some(mount) => mount.make(self.names, root, terminal, note),
            None => Ok(()),
        }
    }

    /// Makes the root read-only, where that was asked for, now that nothing has to be made in it any more.
    pub fn finish(&self, root: BorrowedFd<'_>) -> Result<(), SysError> {
        if !self.read_only {
            return Ok(());
        }
        let attr = Attr {
            read_only: true,
            ..Attr::default()
        };
        mount::restrict(root, attr, false)
    }
}

impl ReadyMount {
    fn make(
        &self,
        names: Names,
        root: BorrowedFd<'_>,
        terminal: &mut Option<Pair>,
        note: &mut Note,
    ) -> Result<(), SysError> {
        match &self.make {
            Make::New(kind, options) => {
                let tree = new_fs(kind, options, self.attr, note)?;
                self.put(root, tree.as_fd(), true)
            }
            Make::Devices {
                options,
                terminals,
                nodes,
                links,
                console,
            } => {
                let tree = new_fs(c"tmpfs", options, self.attr, note)?;
                self.put(root, tree.as_fd(), true)?;
                let pts = fill_devices(tree.as_fd(), terminals, nodes, links, note)?;
                if *console {
                    *terminal = Some(make_console(tree.as_fd(), pts.as_fd())?);
                }
                Ok(())
            }
            Make::Bind {
                source,
                folder,
                recursive,
            } => {
                let tree = mount::copy(source, *recursive)?;
                mount::restrict(tree.as_fd(), self.attr, *recursive)?;
                self.put(root, tree.as_fd(), *folder)
            }
            Make::Given { tree, folder } => self.put(root, tree.as_fd(), *folder),
            Make::Hidden { folder } => self.hide(names, root, *folder),
            Make::Frozen => self.freeze(root),
        }
    }

    fn put(&self, root: BorrowedFd<'_>, tree: BorrowedFd<'_>, folder: bool) -> Result<(), SysError> {
        let place = self.target.find_or_make(root, folder)?;
        mount::attach(tree, place.as_fd())
    }

    /// Returns the place, or nothing where this kernel does not have it.
    fn find_if_there(&self, root: BorrowedFd<'_>) -> Result<Option<OwnedFd>, SysError> {
        match self.target.find(root) {
            Ok(place) => Ok(Some(place)),
            Err(missing) if matches!(missing.errno, Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(other) => Err(other),
        }
    }

    fn hide(&self, names: Names, root: BorrowedFd<'_>, folder: bool) -> Result<(), SysError> {
        let Some(place) = self.find_if_there(root)? else {
            return Ok(());
        };
        if !folder {
            let null = mount::copy(c"/dev/null", false)?;
            return mount::attach(null.as_fd(), place.as_fd());
        }
        let empty = mount::copy(names.empty, false)?;
        let attr = Attr {
            read_only: true,
            no_suid: true,
            no_dev: true,
            no_exec: true,
        };
        mount::restrict(empty.as_fd(), attr, false)?;
        mount::attach(empty.as_fd(), place.as_fd())
    }

    fn freeze(&self, root: BorrowedFd<'_>) -> Result<(), SysError> {
        let Some(place) = self.find_if_there(root)? else {
            return Ok(());
        };
        let same = mount::copy_handle(place.as_fd())?;
        mount::restrict(same.as_fd(), self.attr, false)?;
        mount::attach(same.as_fd(), place.as_fd())
    }
}

fn new_fs(
    kind: &CStr,
    options: &[(&'static CStr, CString)],
    attr: Attr,
    note: &mut Note,
) -> Result<OwnedFd, SysError> {
    let new = NewFs::open(kind)?;
    options
        .iter()
        .try_for_each(|(key, value)| new.set(key, value))
        .and_then(|()| new.mount(attr))
        .inspect_err(|_| note.ask(&new))
}

/// Fills `/dev`, a filesystem that nobody else has seen yet: its names can be used as they are. Returns its `devpts`.
fn fill_devices(
    dev: BorrowedFd<'_>,
    terminals: &[(&'static CStr, CString)],
    nodes: &[Node],
    links: &[Node],
    note: &mut Note,
) -> Result<OwnedFd, SysError> {
    for node in nodes {
        // Also as root: a node of the host under another mount is the same for everybody, one of our own is not.
        note.set(node.source.to_bytes());
        place::make_file(dev, &node.name, 0o666)?;
        let host = mount::copy(&node.source, false)?;
        mount::attach_at(host.as_fd(), dev, &node.name)?;
    }
    *note = Note::new();
    for link in links {
        place::make_link(dev, &link.name, &link.source)?;
    }
    for folder in [c"pts", c"shm", c"mqueue"] {
        place::make_folder(dev, folder, 0o755)?;
    }
    let data = Attr {
        no_suid: true,
        no_dev: true,
        no_exec: true,
        read_only: false,
    };
    let nodes_allowed = Attr {
        no_dev: false,
        ..data
    };
    let pts = new_fs(c"devpts", terminals, nodes_allowed, note)?;
    mount::attach_at(pts.as_fd(), dev, c"pts")?;
    let new = NewFs::open(c"tmpfs")?;
    new.set(c"mode", c"1777")?;
    mount::attach_at(new.mount(data)?.as_fd(), dev, c"shm")?;
    let queues = NewFs::open(c"mqueue")?.mount(data)?;
    mount::attach_at(queues.as_fd(), dev, c"mqueue")?;
    Ok(pts)
}

/// Makes a terminal in the filesystem `pts`, which is mounted in `dev` and as fresh as that, and binds it there as the
/// console.
fn make_console(dev: BorrowedFd<'_>, pts: BorrowedFd<'_>) -> Result<Pair, SysError> {
    let pair = Pair::make(pts)?;
    place::make_file(dev, c"console", 0o600)?;
    let slave = mount::copy_handle(pair.slave.as_fd())?;
    mount::attach_at(slave.as_fd(), dev, c"console")?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_knows_every_folder_on_the_way() {
        let target = Target::new(&TreePath::parse("a/b/c").unwrap(), Links::Inside);
        let steps: Vec<(&str, &str)> = target
            .steps
            .iter()
            .map(|(parent, name)| (parent.to_str().unwrap(), name.to_str().unwrap()))
            .collect();
        assert_eq!(steps, [(".", "a"), ("a", "b"), ("a/b", "c")]);
        assert_eq!(target.path.as_c_str(), c"a/b/c");
    }

    #[test]
    fn a_note_is_cut_at_its_size() {
        let mut note = Note::new();
        note.set(&[b'x'; 500]);
        assert_eq!(note.as_bytes().len(), Note::LONGEST);
    }
}
