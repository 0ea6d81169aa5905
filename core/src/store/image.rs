//! [`Image`]: the document that an image's digest is the digest of; the names of images; their conf folders.

use std::fmt;
use std::net::IpAddr;

use super::document::{BadDocument, Reader, Writer};
use super::{Error, Result, Store, exists, layout};
use crate::digest::Digest;
use crate::meta::Meta;
use crate::recipe::{self, Conf, Network, RunDefaults};
use crate::sys::file;
use crate::tree::{Size, Tree};

const HEADER: &str = "mk-image 1";
/// A shorter beginning of a digest names no image.
const SHORTEST_PREFIX: usize = 6;

/// What an image is: a tree, what runs of it find in `/etc`, and how they are started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The tree.
    pub tree: Digest,
    /// How much is in it.
    pub size: Size,
    /// The highest user or group id that owns any of it: 0 where all is root's.
    pub top_id: u32,
    /// The three files each run finds in `/etc`.
    pub conf: Conf,
    /// Defaults of `mk run`.
    pub run: RunDefaults,
    /// Why another build of the same recipe may give another tree, a line each: empty where it gives this one.
    pub impure: Vec<String>,
}

/// The name of an image: the digest of its document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageId(Digest);

/// A name and the image that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The name.
    pub name: String,
    /// The image.
    pub image: ImageId,
}

impl ImageId {
    /// Returns the digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl From<Digest> for ImageId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Image {
    /// Returns the image of a tree, whose digest is `digest`.
    pub fn new(digest: Digest, tree: &Tree, conf: Conf, run: RunDefaults, impure: Vec<String>) -> Self {
        let ids = tree.iter().map(|(_, node)| node.meta.uid.max(node.meta.gid));
        Self {
            tree: digest,
            size: tree.size(),
            top_id: ids.max().unwrap_or_default(),
            conf,
            run,
            impure,
        }
    }

    /// Returns the canonical document.
    pub fn encode(&self) -> String {
        let mut text = Writer::new(HEADER);
        text.line("tree", &self.tree.to_string());
        text.line("files", &self.size.files.to_string());
        text.line("bytes", &self.size.bytes.to_string());
        text.line("top-id", &self.top_id.to_string());
        if let Some(hostname) = &self.conf.hostname {
            text.line("hostname", hostname);
        }
        for (address, names) in &self.conf.hosts {
            let address = address.to_string();
            text.words(
                "host",
                std::iter::once(address.as_str()).chain(names.iter().map(String::as_str)),
            );
        }
        if let Some(servers) = &self.conf.nameservers {
            let servers: Vec<String> = servers.iter().map(IpAddr::to_string).collect();
            let none = ["-"];
            match servers.is_empty() {
                true => text.words("nameservers", none),
                false => text.words("nameservers", servers.iter().map(String::as_str)),
            }
        }
        for word in &self.run.command {
            text.line("command", word);
        }
        for (name, value) in &self.run.env {
            text.named("env", name, value);
        }
        if let Some(workdir) = &self.run.workdir {
            text.line("workdir", workdir);
        }
        if let Some(user) = &self.run.user {
            text.line("user", user);
        }
        if let Some(network) = &self.run.network {
            text.line("network", &network.to_string());
        }
        if self.run.nesting {
            text.line("nesting", "true");
        }
        for why in &self.impure {
            text.line("impure", why);
        }
        text.finish()
    }

    /// Reads a document back. Accepts what [`Image::encode`] writes and nothing else.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadDocument> {
        let mut reader = Reader::new(bytes, HEADER)?;
        let tree = reader.want("tree")?;
        let size = Size {
            files: reader.want("files")?,
            bytes: reader.want("bytes")?,
        };
        let top_id = reader.want("top-id")?;
        let conf = read_conf(&mut reader)?;
        let run = read_run(&mut reader)?;
        let mut impure = Vec::new();
        while let Some(why) = reader.text("impure")? {
            impure.push(why);
        }
        reader.finish()?;
        Ok(Self {
            tree,
            size,
            top_id,
            conf,
            run,
            impure,
        })
    }
}

fn read_conf(reader: &mut Reader<'_>) -> Result<Conf, BadDocument> {
    let mut conf = Conf {
        hostname: reader.text("hostname")?,
        ..Conf::default()
    };
    while let Some(words) = reader.words("host")? {
        let (address, names) = words
            .split_first()
            .ok_or_else(|| reader.bad("expected an address"))?;
        let address: IpAddr = reader.exact(address)?;
        if conf
            .hosts
            .last_key_value()
            .is_some_and(|(last, _)| *last >= address)
        {
            return Err(reader.bad("hosts are sorted by address"));
        }
        conf.hosts.insert(address, names.to_vec());
    }
    if let Some(words) = reader.words("nameservers")? {
        conf.nameservers = Some(match &words[..] {
            [none] if none == "-" => Vec::new(),
            servers => servers
                .iter()
                .map(|server| reader.exact(server))
                .collect::<Result<_, _>>()?,
        });
    }
    Ok(conf)
}

fn read_run(reader: &mut Reader<'_>) -> Result<RunDefaults, BadDocument> {
    let mut run = RunDefaults::default();
    while let Some(word) = reader.text("command")? {
        run.command.push(word);
    }
    while let Some((name, value)) = reader.named("env")? {
        if run.env.last_key_value().is_some_and(|(last, _)| *last >= name) {
            return Err(reader.bad("variables are sorted by name"));
        }
        run.env.insert(name, value);
    }
    run.workdir = reader.text("workdir")?;
    run.user = reader.text("user")?;
    run.network = match reader.take("network") {
        None => None,
        Some(text) => match text.parse::<Network>() {
            Ok(network) if network.is_portable() && network.to_string() == text => Some(network),
            _ => return Err(reader.bad("expected a kind of network")),
        },
    };
    run.nesting = match reader.take("nesting") {
        None => false,
        Some("true") => true,
        Some(_) => return Err(reader.bad("expected `true`")),
    };
    Ok(run)
}

impl Store {
    /// Keeps an image and returns its name. Its tree must be in the store.
    pub fn put_image(&self, image: &Image) -> Result<ImageId> {
        let text = image.encode();
        let digest = Digest::of(text.as_bytes());
        let path = format!("{}/{digest}", layout::IMAGES);
        match self.dir.look(&path)? {
            // gc spares what was built lately, also where there was nothing to do.
            Some(_) => self.dir.touch(&path)?,
            None => self.put_new(layout::IMAGES, &digest.to_string(), text.as_bytes())?,
        }
        Ok(ImageId(digest))
    }

    /// Returns an image.
    pub fn image(&self, id: &ImageId) -> Result<Image> {
        let name = id.to_string();
        let text = self
            .read(layout::IMAGES, &name, 1 << 24)?
            .ok_or_else(|| Error::NoImage(name.clone()))?;
        if Digest::of(&text) != id.0 {
            return Err(self.damaged(layout::IMAGES, &name, "its text does not hash to its name".into()));
        }
        Image::decode(&text).map_err(|bad| self.misread(layout::IMAGES, &name, bad))
    }

    /// Returns every image, sorted.
    pub fn images(&self) -> Result<Vec<ImageId>> {
        let mut images: Vec<ImageId> = self.digests(layout::IMAGES)?.into_iter().map(ImageId).collect();
        images.sort();
        Ok(images)
    }

    /// Returns the path of an image's conf folder, whether it is there or not: the layer over its rootfs.
    pub fn conf_path(&self, image: &ImageId) -> std::path::PathBuf {
        self.path.join(layout::CONF).join(image.to_string())
    }

    /// Whether an image has its conf folder. One without an `etc` is damaged.
    pub fn has_conf(&self, image: &ImageId) -> Result<bool> {
        let etc = format!("{image}/etc");
        match self.has_folder(layout::CONF, &image.to_string())? {
            true if !self.has_folder(layout::CONF, &etc)? => {
                Err(self.damaged(layout::CONF, &etc, "it is missing".into()))
            }
            there => Ok(there),
        }
    }

    /// Makes the conf folder of an image, unless it is there: `files` (name and text) in an `etc` that carries the
    /// metadata of the image's own, `etc`; without one, 0755 and root's.
    pub fn put_conf(&self, image: &ImageId, etc: Option<&Meta>, files: &[(&str, &[u8])]) -> Result<()> {
        if self.has_conf(image)? {
            return Ok(());
        }
        let like = etc.cloned().unwrap_or_else(|| Meta::new(0o755, 0));
        let stage = self.stage()?;
        let dir = stage.dir();
        self.full(dir.make_dir("conf", 0o755))?;
        self.full(dir.make_dir("conf/etc", 0o755))?;
        let folder = dir.open_dir("conf/etc")?;
        for (name, text) in files {
            let file = self.full(folder.create_file(name, 0o644))?;
            self.full(file::write(&file, text))?;
            self.format.dress(&file, &Meta::new(0o644, like.mtime))?;
            self.sync_file(&file)?;
        }
        self.format.dress(&folder, &like)?;
        self.format
            .dress(&dir.open_dir("conf")?, &Meta::new(0o755, like.mtime))?;
        let path = format!("{}/{image}", layout::CONF);
        self.full(exists(dir.rename("conf", &self.dir, path)).map(drop))
    }

    /// Gives `image` a name, which is taken from another image if need be. All that the image needs is on the disk
    /// before the name is.
    pub fn set_ref(&self, name: &str, image: &ImageId) -> Result<()> {
        if self.get_ref(name)? == Some(*image) {
            return Ok(());
        }
        self.sync_all()?;
        self.put_over(layout::REFS, name, format!("{image}\n").as_bytes())?;
        self.sync_file(self.dir.open_dir(layout::REFS)?)
    }

    /// Returns the image of this name.
    pub fn get_ref(&self, name: &str) -> Result<Option<ImageId>> {
        check_name(name)?;
        let Some(text) = self.read(layout::REFS, name, 80)? else {
            return Ok(None);
        };
        let digest = std::str::from_utf8(&text)
            .ok()
            .and_then(|text| layout::exact(text.strip_suffix('\n')?));
        digest
            .map(|digest| Some(ImageId(digest)))
            .ok_or_else(|| self.damaged(layout::REFS, name, "expected a digest".into()))
    }

    /// Takes a name away, and says whether it was there. The image stays until gc.
    pub fn remove_ref(&self, name: &str) -> Result<bool> {
        check_name(name)?;
        let removed = self.dir.unlink(format!("{}/{name}", layout::REFS));
        Ok(super::none_if_missing(removed)?.is_some())
    }

    /// Returns every name with its image, sorted by name.
    pub fn refs(&self) -> Result<Vec<Ref>> {
        let mut refs = Vec::new();
        for (name, _) in self.dir.open_dir(layout::REFS)?.list()? {
            let name = name.to_string_lossy().into_owned();
            if check_name(&name).is_err() {
                return Err(self.damaged(layout::REFS, &name, "it is no name of an image".into()));
            }
            // Gone, if another process takes it away just now.
            if let Some(image) = self.get_ref(&name)? {
                refs.push(Ref { name, image });
            }
        }
        refs.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(refs)
    }

    /// Returns the image that `text` stands for: a name, a digest, or the beginning of just one image's digest (six
    /// digits at least).
    pub fn resolve(&self, text: &str) -> Result<ImageId> {
        if let Some(image) = self.get_ref(text)? {
            return Ok(image);
        }
        let unknown = || Error::NoImage(text.to_owned());
        let is_digest = |digit: char| digit.is_ascii_digit() || matches!(digit, 'a'..='f');
        if text.len() < SHORTEST_PREFIX || !text.chars().all(is_digest) {
            return Err(unknown());
        }
        let mut found: Vec<ImageId> = self.images()?;
        found.retain(|image| image.to_string().starts_with(text));
        match found[..] {
            [] => Err(unknown()),
            [image] => Ok(image),
            _ => Err(Error::Ambiguous {
                prefix: text.to_owned(),
                images: found.iter().map(|image| image.0.short()).collect(),
            }),
        }
    }

    /// Returns the digests that files in `folder` are named by; other files are passed over.
    pub(super) fn digests(&self, folder: &str) -> Result<Vec<Digest>> {
        let listed = self.dir.open_dir(folder)?.list()?;
        Ok(listed
            .iter()
            .filter_map(|(name, _)| name.to_str()?.parse().ok())
            .collect())
    }
}

/// Accepts what can name an image.
pub fn check_name(name: &str) -> Result<()> {
    match recipe::is_image_name(name) {
        true => Ok(()),
        false => Err(Error::BadName(crate::path::shown(name.as_bytes()))),
    }
}
