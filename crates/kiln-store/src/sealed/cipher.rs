//! Keys, sealing and the keyed MAC.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::SealedError;
use crate::shelf::replace_private_file;

const KEY_BYTES: usize = 32;

/// What the key of this Kiln is used for; one key never serves two purposes.
const WRAP: &[u8] = b"kiln.sealed/1 wrap";
const EQUALITY: &[u8] = b"kiln.sealed/1 equality";

/// 80 random bits: never the same twice, and short enough for people.
pub(super) const VERSION_CHARS: usize = 16;
const VERSION_ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// The key of this Kiln, as the two keys that are derived from it.
pub(super) struct MasterKey {
    wrap: LessSafeKey,
    equality: hmac::Key,
}

/// The key of one value; it seals that value and nothing else.
pub(super) struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl MasterKey {
    /// Reads the key, or makes it where nothing was ever sealed. The caller holds the lock.
    pub(super) fn open(root: &Path) -> Result<Self, SealedError> {
        let path = root.join("key");
        let refuse = |reason| SealedError::Key { path: path.clone(), reason };
        match fs::symlink_metadata(&path) {
            Ok(stat) if !stat.is_file() => return Err(refuse("it is not a regular file")),
            Ok(stat) if stat.mode() & 0o077 != 0 => {
                return Err(refuse("others than its owner may read it; `chmod 600` it if nobody did"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let sealed_before =
                    fs::read_dir(root.join("keys")).map_err(SealedError::at(root))?.next().is_some();
                if sealed_before {
                    return Err(refuse(
                        "it is missing, though values are sealed with it: restore it from a backup",
                    ));
                }
                let mut key = Zeroizing::new([0; KEY_BYTES]);
                fill_random(&mut *key);
                replace_private_file(&path, &root.join("tmp"), &*key)?;
            }
            Err(error) => return Err(SealedError::at(&path)(error)),
        }
        let bytes = Zeroizing::new(fs::read(&path).map_err(SealedError::at(&path))?);
        if bytes.len() != KEY_BYTES {
            return Err(refuse("it does not have 32 bytes"));
        }
        let master = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let wrap = hmac::sign(&master, WRAP);
        let equality = hmac::sign(&master, EQUALITY);
        Ok(Self {
            wrap: cipher(wrap.as_ref()),
            equality: hmac::Key::new(hmac::HMAC_SHA256, equality.as_ref()),
        })
    }

    /// Returns the keyed MAC of a list of parts, in hexadecimal digits.
    pub(super) fn mac(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.equality);
        for part in parts {
            // With its length, so that no two lists look alike.
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn wrap(&self, version: &str, key: &DataKey) -> Vec<u8> {
        seal(&self.wrap, version.as_bytes(), &*key.0)
    }

    pub(super) fn unwrap(&self, version: &str, sealed: &[u8]) -> Option<DataKey> {
        let bytes = open(&self.wrap, version.as_bytes(), sealed)?;
        Some(DataKey(Zeroizing::new(bytes.as_slice().try_into().ok()?)))
    }
}

impl DataKey {
    pub(super) fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill_random(&mut *bytes);
        Self(bytes)
    }

    pub(super) fn seal(&self, context: &[u8], value: &[u8]) -> Vec<u8> {
        seal(&cipher(&*self.0), context, value)
    }

    pub(super) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        open(&cipher(&*self.0), context, sealed)
    }
}

/// Returns a new version: random, so that it says nothing about the value.
pub(super) fn new_version() -> String {
    let mut bytes = [0; VERSION_CHARS];
    fill_random(&mut bytes);
    bytes.iter().map(|byte| char::from(VERSION_ALPHABET[usize::from(byte & 31)])).collect()
}

/// Whether a text can be a version: it names files.
pub(super) fn is_version(text: &str) -> bool {
    text.len() == VERSION_CHARS && text.bytes().all(|byte| VERSION_ALPHABET.contains(&byte))
}

fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the kernel has random bytes once it has booted");
}

fn cipher(key: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has 32 bytes"))
}

/// Seals bytes under a fresh nonce, which goes first. `context` must be the same to open them.
fn seal(key: &LessSafeKey, context: &[u8], value: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    fill_random(&mut nonce);
    // Room for the tag beforehand: growing later would leave a copy of the plain bytes behind.
    let mut bytes = Vec::with_capacity(value.len() + CHACHA20_POLY1305.tag_len());
    bytes.extend_from_slice(value);
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(context), &mut bytes)
        .expect("secrets are far below the limit of the cipher");
    [&nonce[..], &bytes].concat()
}

fn open(key: &LessSafeKey, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, bytes) = sealed.split_at_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut bytes = Zeroizing::new(bytes.to_vec());
    let length = key.open_in_place(nonce, Aad::from(context), &mut bytes).ok()?.len();
    bytes.truncate(length);
    Some(bytes)
}
