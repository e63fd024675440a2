//! Who may sign an archive's index.

use std::path::{Path, PathBuf};

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::KeyDetails;

/// Where Debian keeps the keys of its archive.
pub const KEYRING_PATH: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Debian's has 56 KB; a file beyond this is no keyring.
const KEYRING_BYTES_MAX: u64 = 16 << 20;

/// The keys that may sign an index.
#[derive(Debug)]
pub struct Keyring {
    path: PathBuf,
    keys: Vec<SignedPublicKey>,
}

/// Why a keyring can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It can't be read.
    #[error("cannot read the keyring {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// It holds no key.
    #[error("{} holds no OpenPGP public key", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// Why a signature does not hold. The text completes "the index ...".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureProblem {
    /// It is not a clear-signed message.
    #[error("is not signed")]
    Unsigned,
    /// No key of the keyring made a signature on it.
    #[error("is signed by none of the keyring's keys (signed by {0})")]
    UnknownKey(String),
    /// A signature names a key of the keyring, but does not fit the text.
    #[error("does not fit its signature: it was changed after it was signed")]
    Tampered,
    /// The key was good but is not any more.
    #[error("is signed by a key that has expired or was revoked ({0})")]
    DeadKey(String),
    /// The signature itself has expired, or uses a broken hash.
    #[error("has a signature that has expired or uses a weak hash")]
    DeadSignature,
}

impl Keyring {
    /// Reads a keyring, binary or armoured.
    pub fn load(path: &Path) -> Result<Self, KeyringError> {
        let fail = |source| KeyringError::Read { path: path.into(), source };
        if std::fs::metadata(path).map_err(fail)?.len() > KEYRING_BYTES_MAX {
            return Err(KeyringError::Empty { path: path.into() });
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        let keys: Vec<_> = match SignedPublicKey::from_reader_many_buf(bytes.as_slice()) {
            Ok((keys, _)) => keys.filter_map(Result::ok).collect(),
            Err(_) => Vec::new(),
        };
        if keys.is_empty() {
            return Err(KeyringError::Empty { path: path.into() });
        }
        Ok(Self { path: path.into(), keys })
    }

    /// Returns the file that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the text that a clear-signed message holds, if one good signature of a living key is on it.
    ///
    /// Only what is returned is signed: text before and after the armour is not part of it.
    pub(crate) fn verify(&self, message: &str, now: u64) -> Result<String, SignatureProblem> {
        let (message, _) =
            CleartextSignedMessage::from_string(message).map_err(|_| SignatureProblem::Unsigned)?;
        let text = message.signed_text();
        let mut problem = None;
        for signature in message.signatures() {
            match self.check(signature, text.as_bytes(), now) {
                Ok(()) => return Ok(text.replace("\r\n", "\n")),
                // An index is signed by several keys, of which the host knows some: the worst answer is the news.
                Err(next) => problem = Some(worse(problem, next)),
            }
        }
        Err(problem.unwrap_or(SignatureProblem::Unsigned))
    }

    fn check(&self, signature: &Signature, text: &[u8], now: u64) -> Result<(), SignatureProblem> {
        let signer = signer(signature);
        for key in &self.keys {
            if named(signature, &key.primary_key) {
                signature.verify(&key.primary_key, text).map_err(|_| SignatureProblem::Tampered)?;
                return primary_lives(key, now).and_then(|()| signature_lives(signature, now));
            }
            if let Some(subkey) = key.public_subkeys.iter().find(|subkey| named(signature, &subkey.key)) {
                signature.verify(&subkey.key, text).map_err(|_| SignatureProblem::Tampered)?;
                primary_lives(key, now)?;
                return subkey_lives(key, subkey, now).and_then(|()| signature_lives(signature, now));
            }
        }
        Err(SignatureProblem::UnknownKey(signer))
    }
}

fn worse(old: Option<SignatureProblem>, new: SignatureProblem) -> SignatureProblem {
    match old {
        Some(old) if !matches!(old, SignatureProblem::UnknownKey(_)) => old,
        _ => new,
    }
}

fn signer(signature: &Signature) -> String {
    let fingerprints = signature.issuer_fingerprint().into_iter().map(|one| format!("{one:X}"));
    let ids = signature.issuer_key_id().into_iter().map(ToString::to_string);
    fingerprints.chain(ids).next().unwrap_or_else(|| "an unnamed key".into())
}

fn named(signature: &Signature, key: &impl KeyDetails) -> bool {
    signature.issuer_fingerprint().into_iter().any(|one| *one == key.fingerprint())
        || signature.issuer_key_id().into_iter().any(|one| *one == key.legacy_key_id())
}

fn strong(signature: &Signature) -> bool {
    matches!(
        signature.hash_alg(),
        Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512)
    )
}

fn signature_lives(signature: &Signature, now: u64) -> Result<(), SignatureProblem> {
    let text = matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary));
    if text && strong(signature) && !ended(signature.created(), signature.signature_expiration_time(), now) {
        Ok(())
    } else {
        Err(SignatureProblem::DeadSignature)
    }
}

fn ended(from: Option<pgp::types::Timestamp>, span: Option<pgp::types::Duration>, now: u64) -> bool {
    match (from, span) {
        // A span of zero means "never", as in RFC 9580 5.2.3.13.
        (Some(from), Some(span)) if span.as_secs() != 0 => {
            u64::from(from.as_secs()) + u64::from(span.as_secs()) <= now
        }
        _ => false,
    }
}

/// A primary key lives if its newest good self-signature says so and nothing revokes it.
fn primary_lives(key: &SignedPublicKey, now: u64) -> Result<(), SignatureProblem> {
    let dead = || SignatureProblem::DeadKey(format!("{:X}", key.primary_key.fingerprint()));
    let revoked = |one: &Signature| one.verify_key(&key.primary_key).is_ok();
    if key.details.revocation_signatures.iter().any(revoked) {
        return Err(dead());
    }
    let direct = key.details.direct_signatures.iter().filter(|one| one.verify_key(&key.primary_key).is_ok());
    let users = key.details.users.iter().flat_map(|user| {
        user.signatures.iter().filter(|one| {
            named(one, &key.primary_key)
                && one.verify_certification(&key.primary_key, pgp::types::Tag::UserId, &user.id).is_ok()
        })
    });
    let newest = direct.chain(users).max_by_key(|one| one.created().map(|at| at.as_secs()));
    match newest {
        Some(one) if !ended(Some(key.primary_key.created_at()), one.key_expiration_time(), now) => Ok(()),
        _ => Err(dead()),
    }
}

/// A subkey lives if the primary bound it for signing, it agreed, and nothing revokes it.
fn subkey_lives(
    key: &SignedPublicKey,
    subkey: &SignedPublicSubKey,
    now: u64,
) -> Result<(), SignatureProblem> {
    let dead = || SignatureProblem::DeadKey(format!("{:X}", subkey.key.fingerprint()));
    let bound = |one: &&Signature| one.verify_subkey_binding(&key.primary_key, &subkey.key).is_ok();
    let is = |kind| move |one: &&Signature| one.typ() == Some(kind);
    if subkey.signatures.iter().filter(is(SignatureType::SubkeyRevocation)).any(|one| bound(&one)) {
        return Err(dead());
    }
    let newest = subkey
        .signatures
        .iter()
        .filter(is(SignatureType::SubkeyBinding))
        .filter(bound)
        .max_by_key(|one| one.created().map(|at| at.as_secs()))
        .ok_or_else(dead)?;
    let agreed = newest
        .embedded_signature()
        .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, &key.primary_key).is_ok());
    let ended = ended(Some(subkey.key.created_at()), newest.key_expiration_time(), now);
    if newest.key_flags().sign() && agreed && !ended { Ok(()) } else { Err(dead()) }
}
