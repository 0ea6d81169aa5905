//! Whether a clear-signed index was signed by a key of a keyring, at a time at which that key could sign.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use pgp::composed::{CleartextSignedMessage, Deserializable as _, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureType};
use pgp::types::{KeyDetails, Tag, VerifyingKey};

/// How far a signer's clock may be ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest keyring that is read, in bytes.
const LARGEST_KEYRING: u64 = 16 * 1024 * 1024;
/// An index carries one signature a key of its publisher; more than this many are not looked at.
const MOST_SIGNATURES: usize = 16;

/// Why a signature does not vouch for an index.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing to check it against.
    #[error("there is no keyring: expected one of {}", paths(.looked))]
    NoKeyring {
        /// The keyrings that do not exist, cannot be read or hold no key.
        looked: Vec<PathBuf>,
    },
    /// It is not clear-signed, or its signature is damaged.
    #[error("it is not signed as expected: {why}")]
    Unsigned {
        /// What is wrong, as a fragment.
        why: String,
    },
    /// No key of the keyrings made any of its signatures.
    #[error("it is signed by {}, which {} in no keyring", .keys.join(", "), if .keys.len() == 1 { "is" } else { "are" })]
    UnknownKey {
        /// Key ids of the signers.
        keys: Vec<String>,
    },
    /// The text is not the one that was signed.
    #[error("its signature by {key} does not match: the text was changed")]
    Mismatch {
        /// Fingerprint of the signer.
        key: String,
    },
    /// The signing key was revoked.
    #[error("the key {key} that signed it was revoked")]
    RevokedKey {
        /// Fingerprint of the signer.
        key: String,
    },
    /// The signing key was no longer, or not yet, valid.
    #[error("the key {key} that signed it has expired or is not valid yet")]
    ExpiredKey {
        /// Fingerprint of the signer.
        key: String,
    },
    /// The key may not sign.
    #[error("the key {key} that signed it is not one for signing")]
    NotForSigning {
        /// Fingerprint of the signer.
        key: String,
    },
    /// The signature itself is past its end or from the future.
    #[error("its signature by {key} has expired or is not valid yet")]
    ExpiredSignature {
        /// Fingerprint of the signer.
        key: String,
    },
    /// The signature rests on a hash that can be forged.
    #[error("its signature by {key} uses {hash}, which can be forged")]
    WeakHash {
        /// Fingerprint of the signer.
        key: String,
        /// Name of the hash.
        hash: String,
    },
}

fn paths(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| format!("`{}`", path.display())).collect();
    shown.join(", ")
}

/// Keys that may sign an index.
#[derive(Debug, Default)]
pub(super) struct Keyring {
    keys: Vec<SignedPublicKey>,
    looked: Vec<PathBuf>,
}

impl Keyring {
    /// Reads the keyrings at `paths`; passes over those that do not exist or cannot be read.
    pub(super) fn read<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let mut keyring = Self::default();
        for path in paths {
            if keyring.looked.contains(path) {
                continue;
            }
            keyring.looked.push(path.clone());
            let mut bytes = Vec::new();
            let file = fs_err::File::open(path);
            if file
                .and_then(|file| file.take(LARGEST_KEYRING).read_to_end(&mut bytes))
                .is_ok()
            {
                keyring.add(&bytes);
            }
        }
        keyring
    }

    /// Adds the keys in `bytes`, binary or armoured; leaves out those that make no sense.
    pub(super) fn add(&mut self, bytes: &[u8]) {
        if let Ok((keys, _)) = SignedPublicKey::from_reader_many(bytes) {
            self.keys.extend(keys.flatten());
        }
    }

    /// Returns the text of the clear-signed `message` if a key in here vouches for it at the time `now`.
    pub(super) fn verify(&self, message: &[u8], now: SystemTime) -> Result<String, Refusal> {
        let unsigned = |why: String| Refusal::Unsigned { why };
        let message = parse(message).map_err(unsigned)?;
        if self.keys.is_empty() {
            return Err(Refusal::NoKeyring {
                looked: self.looked.clone(),
            });
        }
        let text = message.signed_text();
        let mut signers = BTreeSet::new();
        let mut refusal = None;
        for signature in message.signatures().iter().take(MOST_SIGNATURES) {
            signers.extend(
                signature
                    .issuer_key_id()
                    .iter()
                    .map(|key| key.to_string().to_uppercase()),
            );
            match self.vouch(signature, &text, now) {
                Some(Ok(())) => return Ok(text),
                Some(Err(why)) => refusal = refusal.or(Some(why)),
                None => {}
            }
        }
        if message.signatures().is_empty() {
            return Err(unsigned("it carries no signature".into()));
        }
        Err(refusal.unwrap_or(Refusal::UnknownKey {
            keys: signers.into_iter().collect(),
        }))
    }

    /// Says whether `signature` vouches for `text`; nothing if none of the keys made it.
    fn vouch(&self, signature: &Signature, text: &str, now: SystemTime) -> Option<Result<(), Refusal>> {
        let mut refusal = None;
        for certificate in &self.keys {
            let primary = &certificate.primary_key;
            let result = if is_by(signature, primary) {
                matches(signature, primary, text, now).and_then(|()| may_sign(certificate, None, now))
            } else if let Some(subkey) = certificate
                .public_subkeys
                .iter()
                .find(|key| is_by(signature, &key.key))
            {
                matches(signature, &subkey.key, text, now)
                    .and_then(|()| may_sign(certificate, Some(subkey), now))
            } else {
                continue;
            };
            match result {
                Ok(()) => return Some(Ok(())),
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        refusal.map(Err)
    }
}

/// Returns the text of a clear-signed message, or of one that is not signed at all, without any check.
pub(super) fn unverified(message: &[u8]) -> String {
    parse(message).map_or_else(
        |_| String::from_utf8_lossy(message).into_owned(),
        |message| message.signed_text(),
    )
}

fn parse(message: &[u8]) -> Result<CleartextSignedMessage, String> {
    let (message, _) = CleartextSignedMessage::from_armor(message).map_err(|error| error.to_string())?;
    Ok(message)
}

/// Whether a signature names `key` as its issuer.
fn is_by(signature: &Signature, key: &impl KeyDetails) -> bool {
    signature
        .issuer_fingerprint()
        .iter()
        .any(|issuer| **issuer == key.fingerprint())
        || signature
            .issuer_key_id()
            .iter()
            .any(|issuer| **issuer == key.legacy_key_id())
}

fn matches(
    signature: &Signature,
    key: &impl VerifyingKey,
    text: &str,
    now: SystemTime,
) -> Result<(), Refusal> {
    let name = || key.fingerprint().to_string();
    let hash = signature.hash_alg();
    if !is_strong(signature) {
        let hash = hash.map_or("no hash".into(), |hash| hash.to_string());
        return Err(Refusal::WeakHash { key: name(), hash });
    }
    let of_text = matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary));
    if !of_text || signature.verify(key, text.as_bytes()).is_err() {
        return Err(Refusal::Mismatch { key: name() });
    }
    if !in_force(signature, now) {
        return Err(Refusal::ExpiredSignature { key: name() });
    }
    Ok(())
}

/// Whether the primary key of `certificate`, or one of its subkeys, could sign at the time `now`.
fn may_sign(
    certificate: &SignedPublicKey,
    subkey: Option<&SignedPublicSubKey>,
    now: SystemTime,
) -> Result<(), Refusal> {
    let primary = &certificate.primary_key;
    let name = || primary.fingerprint().to_string();
    if certificate
        .details
        .revocation_signatures
        .iter()
        .any(|revocation| revocation.verify_key(primary).is_ok())
    {
        return Err(Refusal::RevokedKey { key: name() });
    }
    // The newest signature of the key on itself says what it is for and how long.
    let Some(own) = newest(self_signatures(certificate), now) else {
        return Err(Refusal::ExpiredKey { key: name() });
    };
    if has_ended(primary, own, now) {
        return Err(Refusal::ExpiredKey { key: name() });
    }
    let Some(subkey) = subkey else {
        // A key without flags is an old one, which could do everything.
        let flags = own.key_flags();
        let able = flags.sign() || flags == KeyFlags::default();
        return if able {
            Ok(())
        } else {
            Err(Refusal::NotForSigning { key: name() })
        };
    };
    subkey_may_sign(certificate, subkey, now)
}

fn subkey_may_sign(
    certificate: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: SystemTime,
) -> Result<(), Refusal> {
    let primary = &certificate.primary_key;
    let name = || subkey.key.fingerprint().to_string();
    let bindings = || {
        subkey
            .signatures
            .iter()
            .filter(|binding| binding.verify_subkey_binding(primary, &subkey.key).is_ok())
    };
    if bindings().any(|binding| binding.typ() == Some(SignatureType::SubkeyRevocation)) {
        return Err(Refusal::RevokedKey { key: name() });
    }
    let Some(binding) = newest(bindings(), now) else {
        return Err(Refusal::ExpiredKey { key: name() });
    };
    if has_ended(&subkey.key, binding, now) {
        return Err(Refusal::ExpiredKey { key: name() });
    }
    // Without the subkey's own signature anybody could claim another's subkey (RFC 9580 section 5.2.1.8).
    let agreed = binding
        .embedded_signature()
        .is_some_and(|back| is_strong(back) && back.verify_primary_key_binding(&subkey.key, primary).is_ok());
    if binding.key_flags().sign() && agreed {
        Ok(())
    } else {
        Err(Refusal::NotForSigning { key: name() })
    }
}

/// Returns the signatures that the primary key made over itself and its names.
fn self_signatures(certificate: &SignedPublicKey) -> impl Iterator<Item = &Signature> {
    let primary = &certificate.primary_key;
    let users = certificate.details.users.iter().flat_map(move |user| {
        user.signatures.iter().filter(move |signature| {
            signature.typ() != Some(SignatureType::CertRevocation)
                && signature
                    .verify_certification(primary, Tag::UserId, &user.id)
                    .is_ok()
        })
    });
    let direct = certificate.details.direct_signatures.iter();
    users.chain(direct.filter(move |signature| signature.verify_key(primary).is_ok()))
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>, now: SystemTime) -> Option<&'a Signature> {
    signatures
        .filter(|signature| is_strong(signature) && in_force(signature, now))
        .max_by_key(|signature| signature.created())
}

/// Whether a signature is neither past its end nor from the future.
fn in_force(signature: &Signature, now: SystemTime) -> bool {
    let Some(created) = signature.created().map(SystemTime::from) else {
        return false;
    };
    let life = signature
        .signature_expiration_time()
        .map_or(0, |life| life.as_secs());
    created <= now + CLOCK_SKEW && (life == 0 || now < created + Duration::from_secs(life.into()))
}

/// Whether `key` is past the end that `binding` sets, or from the future.
fn has_ended(key: &impl KeyDetails, binding: &Signature, now: SystemTime) -> bool {
    let created = SystemTime::from(key.created_at());
    let life = binding.key_expiration_time().map_or(0, |life| life.as_secs());
    created > now + CLOCK_SKEW || (life != 0 && now >= created + Duration::from_secs(life.into()))
}

fn is_strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha224
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    )
}
