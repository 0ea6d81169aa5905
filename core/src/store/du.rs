//! How much of the store each image takes: for itself, and together with others.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use super::image::ImageId;
use super::layout::ObjectName;
use super::{Result, Store};
use crate::digest::Digest;
use crate::tree::NodeKind;

/// What an image takes, in bytes of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The image.
    pub image: ImageId,
    /// Its names, sorted.
    pub names: Vec<String>,
    /// What no other image has.
    pub own: u64,
    /// What others have, too.
    pub shared: u64,
}

/// What all images take.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shares {
    /// Each, that which takes the most for itself first.
    pub images: Vec<Share>,
    /// Bytes of the files of all, each counted once.
    pub bytes: u64,
}

/// Reads the tree of every image. Two images with one tree share all of it.
pub fn shares(store: &Store) -> Result<Shares> {
    let mut trees: HashMap<Digest, HashMap<ObjectName, u64>> = HashMap::new();
    let mut images = Vec::new();
    for id in store.images()? {
        let image = match store.image(&id) {
            // Gone meanwhile.
            Err(super::Error::NoImage(_)) => continue,
            image => image?,
        };
        if let Entry::Vacant(place) = trees.entry(image.tree) {
            let tree = match store.tree(&image.tree) {
                Err(super::Error::NoTree(_)) => continue,
                tree => tree?,
            };
            let files = tree.iter().filter_map(|(_, node)| match &node.kind {
                NodeKind::File { content, .. } => {
                    let name = ObjectName::new(&content.digest, &node.meta, &store.format);
                    Some((name, content.size))
                }
                _ => None,
            });
            place.insert(files.collect());
        }
        images.push((id, image.tree));
    }
    let mut holders: HashMap<&ObjectName, u32> = HashMap::new();
    for (_, tree) in &images {
        for name in trees[tree].keys() {
            *holders.entry(name).or_default() += 1;
        }
    }
    let refs = store.refs()?;
    let mut shares: Vec<Share> = images
        .iter()
        .map(|(id, tree)| {
            let bytes = |alone: bool| {
                let files = trees[tree].iter();
                let files = files.filter(|(name, _)| (holders[name] == 1) == alone);
                files.map(|(_, size)| size).sum()
            };
            let names = refs.iter().filter(|named| named.image == *id);
            Share {
                image: *id,
                names: names.map(|named| named.name.clone()).collect(),
                own: bytes(true),
                shared: bytes(false),
            }
        })
        .collect();
    shares.sort_by(|one, other| other.own.cmp(&one.own).then_with(|| one.names.cmp(&other.names)));
    let mut counted = HashSet::new();
    let all = trees.values().flatten();
    let bytes = all
        .filter(|(name, _)| counted.insert(*name))
        .map(|(_, size)| size)
        .sum();
    Ok(Shares {
        images: shares,
        bytes,
    })
}
