//! Keys made for one test, and what they sign.

use std::time::SystemTime;

use pgp::composed::{
    ArmorOptions, CleartextSignedMessage, EncryptionCaps, KeyType, SecretKeyParamsBuilder, SignedPublicKey,
    SignedSecretKey, SubkeyParamsBuilder,
};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{KeyFlags, Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData};
use pgp::ser::Serialize as _;
use pgp::types::{Duration, KeyDetails as _, Password, SigningKey, Tag, Timestamp};
use rand::thread_rng;

const DAY: u32 = 24 * 60 * 60;

/// A publisher's key, made thirty days ago.
pub(super) struct Signer {
    secret: SignedSecretKey,
    /// What others know of it.
    pub(super) public: SignedPublicKey,
}

/// How something is signed.
pub(super) struct Manner {
    pub(super) hash: HashAlgorithm,
    /// Days since it was signed; negative ones are in the future.
    pub(super) age: i32,
    /// Days that the signature lasts.
    pub(super) lasts: Option<u32>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            hash: HashAlgorithm::Sha512,
            age: 0,
            lasts: None,
        }
    }
}

fn days_ago(days: i32) -> Timestamp {
    let now = i64::from(Timestamp::try_from(SystemTime::now()).unwrap().as_secs());
    Timestamp::from_secs(u32::try_from(now - i64::from(days) * i64::from(DAY)).unwrap())
}

impl Signer {
    /// Makes a key that certifies, with a subkey that signs.
    pub(super) fn with_subkey() -> Self {
        Self::make(KeyType::Ed25519Legacy, true)
    }

    /// Makes a key that signs itself.
    pub(super) fn alone() -> Self {
        Self::make(KeyType::Ed25519Legacy, false)
    }

    /// Makes a key that signs itself, of a kind that lets any hash be signed.
    pub(super) fn lenient() -> Self {
        Self::make(KeyType::Rsa(2048), false)
    }

    fn make(kind: KeyType, subkey: bool) -> Self {
        let mut params = SecretKeyParamsBuilder::default();
        params
            .key_type(kind.clone())
            .can_certify(true)
            .can_sign(!subkey)
            .can_encrypt(EncryptionCaps::None)
            .created_at(days_ago(30))
            .primary_user_id("Archive of a test <archive@example.org>".into());
        if subkey {
            let mut signing = SubkeyParamsBuilder::default();
            signing.key_type(kind).can_sign(true).created_at(days_ago(30));
            params.subkeys(vec![signing.build().unwrap()]);
        }
        let secret = params.build().unwrap().generate(thread_rng()).unwrap();
        let public = secret.to_public_key();
        Self { secret, public }
    }

    /// Returns the keyring that holds only this key, binary.
    pub(super) fn keyring(&self) -> Vec<u8> {
        self.public.to_bytes().unwrap()
    }

    /// Returns the keyring that holds only this key, armoured.
    pub(super) fn armoured(&self) -> String {
        self.public.to_armored_string(ArmorOptions::default()).unwrap()
    }

    /// Returns `text`, clear-signed by the subkey if there is one.
    pub(super) fn sign(&self, text: &str) -> String {
        self.sign_as(text, &Manner::default())
    }

    pub(super) fn sign_as(&self, text: &str, manner: &Manner) -> String {
        sign_all(text, &[(self, manner)])
    }

    /// Returns `text`, clear-signed by the primary key, whether it may or not.
    pub(super) fn sign_by_primary(&self, text: &str) -> String {
        let signature = signature(text, &self.secret.primary_key, &Manner::default());
        armour(text, vec![signature])
    }

    fn signature(&self, text: &str, manner: &Manner) -> Signature {
        match self.secret.secret_subkeys.first() {
            Some(subkey) => signature(text, &subkey.key, manner),
            None => signature(text, &self.secret.primary_key, manner),
        }
    }

    fn config(&self, typ: SignatureType, more: Vec<SubpacketData>) -> SignatureConfig {
        let primary = &self.secret.primary_key;
        let mut config = SignatureConfig::from_key(thread_rng(), primary, typ).unwrap();
        let mut data = vec![
            SubpacketData::SignatureCreationTime(days_ago(0)),
            SubpacketData::IssuerFingerprint(primary.fingerprint()),
        ];
        data.extend(more);
        config.hashed_subpackets = data
            .into_iter()
            .map(|data| Subpacket::regular(data).unwrap())
            .collect();
        config
    }

    /// Lets the key say that it ends so many days after it was made.
    pub(super) fn expire_after(&mut self, days: u32) {
        let mut flags = KeyFlags::default();
        flags.set_certify(true);
        flags.set_sign(true);
        let ends = SubpacketData::KeyExpirationTime(Duration::from_secs(days * DAY));
        let config = self.config(
            SignatureType::CertPositive,
            vec![SubpacketData::KeyFlags(flags), ends],
        );
        let primary = &self.secret.primary_key;
        let user = &mut self.public.details.users[0];
        let signature = config.sign_certification(
            primary,
            primary.public_key(),
            &Password::empty(),
            Tag::UserId,
            &user.id,
        );
        user.signatures.push(signature.unwrap());
    }

    /// Lets the key say that it is no longer to be trusted.
    pub(super) fn revoke(&mut self) {
        let primary = &self.secret.primary_key;
        let config = self.config(SignatureType::KeyRevocation, Vec::new());
        let signature = config
            .sign_key(primary, &Password::empty(), primary.public_key())
            .unwrap();
        self.public.details.revocation_signatures.push(signature);
    }

    /// Lets the key say that its subkey is no longer to be trusted.
    pub(super) fn revoke_subkey(&mut self) {
        let primary = &self.secret.primary_key;
        let config = self.config(SignatureType::SubkeyRevocation, Vec::new());
        let subkey = &mut self.public.public_subkeys[0];
        let signature =
            config.sign_subkey_binding(primary, primary.public_key(), &Password::empty(), &subkey.key);
        subkey.signatures.push(signature.unwrap());
    }

    /// Claims the subkey of `other` for this key, without the subkey's consent.
    pub(super) fn claim_subkey_of(&mut self, other: &Self) {
        let primary = &self.secret.primary_key;
        let mut flags = KeyFlags::default();
        flags.set_sign(true);
        let config = self.config(SignatureType::SubkeyBinding, vec![SubpacketData::KeyFlags(flags)]);
        let mut subkey = other.public.public_subkeys[0].clone();
        let signature =
            config.sign_subkey_binding(primary, primary.public_key(), &Password::empty(), &subkey.key);
        subkey.signatures = vec![signature.unwrap()];
        self.public.public_subkeys = vec![subkey];
    }
}

/// Returns `text`, clear-signed by each of `signers`.
pub(super) fn sign_all(text: &str, signers: &[(&Signer, &Manner)]) -> String {
    armour(
        text,
        signers
            .iter()
            .map(|(signer, manner)| signer.signature(text, manner))
            .collect(),
    )
}

fn armour(text: &str, signatures: Vec<Signature>) -> String {
    let message = CleartextSignedMessage::new_many(text, |_| Ok(signatures)).unwrap();
    message.to_armored_string(ArmorOptions::default()).unwrap()
}

fn signature(text: &str, key: &impl SigningKey, manner: &Manner) -> Signature {
    let mut config = SignatureConfig::v4(SignatureType::Text, key.algorithm(), manner.hash);
    let mut data = vec![
        SubpacketData::SignatureCreationTime(days_ago(manner.age)),
        SubpacketData::IssuerFingerprint(key.fingerprint()),
    ];
    data.extend(
        manner
            .lasts
            .map(|days| SubpacketData::SignatureExpirationTime(Duration::from_secs(days * DAY))),
    );
    config.hashed_subpackets = data
        .into_iter()
        .map(|data| Subpacket::regular(data).unwrap())
        .collect();
    let lines = text.replace('\n', "\r\n");
    config.sign(key, &Password::empty(), lines.as_bytes()).unwrap()
}
