//! A Debian archive made for one test.

use std::collections::BTreeMap;

use super::*;

/// A Debian mirror in a folder.
pub(super) struct Archive {
    pub(super) folder: tempfile::TempDir,
    pub(super) release: BTreeMap<&'static str, String>,
    pub(super) indexes: BTreeMap<String, Vec<u8>>,
}

pub(super) fn stanza(package: &str, version: &str, arch: &str) -> String {
    let body = format!("{package} {version} {arch}");
    format!(
        "Package: {package}\nVersion: {version}\nArchitecture: {arch}\nDescription: a thing\n with\n Package: not this\n\
         Filename: pool/main/{package}_{version}_{arch}.deb\nSize: {}\nSHA256: {}\n\n",
        body.len(),
        Digest::of(body.as_bytes())
    )
}

pub(super) fn xz(text: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    liblzma::read::XzEncoder::new(text.as_bytes(), 6)
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

pub(super) fn gz(text: &str) -> Vec<u8> {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(text.as_bytes(), flate2::Compression::fast())
        .read_to_end(&mut packed)
        .unwrap();
    packed
}

impl Archive {
    /// Makes `bookworm` for amd64 and arm64 with a few packages; nothing is written yet.
    pub(super) fn new() -> Self {
        let amd64 = [
            stanza("busybox", "1:1.35.0-4", "amd64"),
            stanza("busybox-static", "1:1.35.0-4~", "amd64"),
            stanza("busybox-static", "1:1.35.0-4+b3", "amd64"),
            stanza("busybox-static", "1:1.35.0-4", "amd64"),
            stanza("tzdata", "2026b-0", "all"),
            stanza("grub-pc", "2.06-13", "amd64"),
        ];
        let arm64 = [
            stanza("busybox-static", "1:1.35.0-4+b4", "arm64"),
            stanza("tzdata", "2026b-0", "all"),
        ];
        let release = [
            ("Origin", "Debian"),
            ("Suite", "oldstable"),
            ("Codename", "bookworm"),
            ("Components", "main"),
        ];
        let mut archive = Self {
            folder: tempfile::tempdir().unwrap(),
            release: release
                .into_iter()
                .map(|(name, value)| (name, value.to_owned()))
                .collect(),
            indexes: BTreeMap::new(),
        };
        archive.index("main/binary-amd64/Packages.xz", xz(&amd64.concat()));
        archive.index("main/binary-arm64/Packages.xz", xz(&arm64.concat()));
        archive
    }

    pub(super) fn index(&mut self, name: &str, bytes: Vec<u8>) {
        self.indexes.insert(name.to_owned(), bytes);
    }

    pub(super) fn put(&self, path: &str, body: impl AsRef<[u8]>) {
        let path = self.folder.path().join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, body).unwrap();
    }

    /// Returns the text of the release.
    pub(super) fn text(&self) -> String {
        let mut text: String = self
            .release
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"))
            .collect();
        text.push_str(
            "MD5Sum:\n 00000000000000000000000000000000 1 main/binary-amd64/Packages.xz\nSHA256:\n",
        );
        for (name, bytes) in &self.indexes {
            text.push_str(&format!(" {} {} {name}\n", Digest::of(bytes), bytes.len()));
        }
        text
    }

    /// Writes the indexes and `in_release`.
    pub(super) fn publish(&self, in_release: &str) {
        for (name, bytes) in &self.indexes {
            self.put(&format!("dists/bookworm/{name}"), bytes);
        }
        self.put("dists/bookworm/InRelease", in_release);
    }

    /// Returns settings that use this mirror and trust `keyring`.
    pub(super) fn settings(&self, keyring: impl AsRef<[u8]>) -> Settings {
        self.put("keyring", keyring);
        Settings {
            mirror: Some(format!("file://{}", self.folder.path().display())),
            keyrings: vec![self.folder.path().join("keyring")],
            ..impatient()
        }
    }
}

/// Serves the folder of an archive.
pub(super) fn serve(archive: &Archive) -> Server {
    let folder = archive.folder.path().to_owned();
    Server::new(
        move |_, request| match fs_err::read(folder.join(request.target.trim_start_matches('/'))) {
            Ok(body) => Answer::part(&body, request),
            Err(_) => Answer::status(404),
        },
    )
}
