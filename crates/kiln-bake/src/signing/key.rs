//! Keys: ECDSA on P-256 and Ed25519, as PEM.
//!
//! Source: RFC 5208 and 5958 (PKCS #8), RFC 5480 and 8410 (public keys), RFC 7468 (PEM).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, UnparsedPublicKey,
};

use crate::hashing::sha256;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";

/// What stands before an Ed25519 seed in PKCS #8 of version 1: the form that every OpenSSL reads.
const ED25519_PRIVATE: &[u8] = &[0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// What stands before an Ed25519 key.
const ED25519_PUBLIC: &[u8] = &[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// What stands before a point of P-256, uncompressed.
const P256_PUBLIC: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
    1, 7, 3, 0x42, 0,
];

const SEED_BYTES: usize = 32;
const ED25519_BYTES: usize = 32;
const POINT_BYTES: usize = 65;

/// The kind of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256 with SHA-256.
    P256,
    /// Ed25519.
    Ed25519,
}

/// A key that can't be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no PEM text of this kind in it.
    #[error("it holds no `-----BEGIN {0}-----`")]
    NotPem(&'static str),
    /// It is encrypted.
    #[error("the key is encrypted, which is not read")]
    Encrypted,
    /// It is in the form before PKCS #8.
    #[error("the key is in OpenSSL's older form, not in PKCS #8")]
    Sec1,
    /// It is a key of another kind, or a broken one.
    #[error("it is no key for ECDSA on P-256 or Ed25519")]
    Unknown,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}

/// A key that signs.
#[derive(Debug)]
pub enum SigningKey {
    /// ECDSA on P-256 with SHA-256.
    P256(EcdsaKeyPair),
    /// Ed25519.
    Ed25519(Ed25519KeyPair),
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    bytes: Vec<u8>,
}

/// Makes a new key, and returns it as PEM.
///
/// # Errors
/// `Random`.
pub fn generate(kind: KeyKind) -> Result<String, KeyError> {
    let random = SystemRandom::new();
    let der = match kind {
        KeyKind::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| KeyError::Random)?
            .as_ref()
            .to_vec(),
        KeyKind::Ed25519 => {
            let mut seed = [0; SEED_BYTES];
            random.fill(&mut seed).map_err(|_| KeyError::Random)?;
            [ED25519_PRIVATE, &seed].concat()
        }
    };
    Ok(pem(PRIVATE, &der))
}

impl SigningKey {
    /// Reads a private key: PKCS #8 as PEM, not encrypted.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = match unpem(PRIVATE, text) {
            Some(der) => der,
            None if text.contains("ENCRYPTED") => return Err(KeyError::Encrypted),
            None if text.contains("BEGIN EC PRIVATE KEY") => return Err(KeyError::Sec1),
            None => return Err(KeyError::NotPem(PRIVATE)),
        };
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            return Ok(Self::Ed25519(pair));
        }
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der, &SystemRandom::new())
            .map(Self::P256)
            .map_err(|_| KeyError::Unknown)
    }

    /// Returns what its signatures are checked with.
    pub fn public(&self) -> PublicKey {
        match self {
            Self::P256(pair) => PublicKey { kind: KeyKind::P256, bytes: pair.public_key().as_ref().to_vec() },
            Self::Ed25519(pair) => {
                PublicKey { kind: KeyKind::Ed25519, bytes: pair.public_key().as_ref().to_vec() }
            }
        }
    }

    /// Signs a message.
    ///
    /// # Errors
    /// `Random`.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self {
            Self::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| KeyError::Random),
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }
}

impl PublicKey {
    /// Reads a public key: `SubjectPublicKeyInfo` as PEM.
    ///
    /// # Errors
    /// `NotPem` or `Unknown`.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = unpem(PUBLIC, text).ok_or(KeyError::NotPem(PUBLIC))?;
        let key = |kind, prefix: &[u8], length: usize| {
            let bytes = der.strip_prefix(prefix)?;
            (bytes.len() == length).then(|| Self { kind, bytes: bytes.to_vec() })
        };
        key(KeyKind::Ed25519, ED25519_PUBLIC, ED25519_BYTES)
            .or_else(|| key(KeyKind::P256, P256_PUBLIC, POINT_BYTES))
            .ok_or(KeyError::Unknown)
    }

    /// Returns it as PEM.
    pub fn to_pem(&self) -> String {
        pem(PUBLIC, &self.der())
    }

    /// Returns a digest that names it.
    pub fn fingerprint(&self) -> String {
        sha256(&self.der()).to_string()
    }

    fn der(&self) -> Vec<u8> {
        let prefix = match self.kind {
            KeyKind::P256 => P256_PUBLIC,
            KeyKind::Ed25519 => ED25519_PUBLIC,
        };
        [prefix, &self.bytes].concat()
    }

    /// Whether a signature of a message was made with this key's private one.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let checked = match self.kind {
            KeyKind::P256 => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.bytes).verify(message, signature)
            }
            KeyKind::Ed25519 => UnparsedPublicKey::new(&ED25519, &self.bytes).verify(message, signature),
        };
        checked.is_ok()
    }
}

/// As OpenSSL breaks lines.
const LINE_CHARS: usize = 64;

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(LINE_CHARS)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn unpem(label: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys and signatures of `hello` that OpenSSL 3.0 made.
    const P256: (&str, &str, &str) = (
        "-----BEGIN PRIVATE KEY-----\n\
         MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgoP49O0futd4nyw9I\n\
         9ZegffTF3zRAfcn4qB7gtGHQa+qhRANCAATxizGelLpyIBs/sE2nflefbuJhi21b\n\
         HLZC8m9LhLZiKFX3DYLsK90plIxK2Mzd1TaCuVvoWITZgJNE2U2KazZL\n\
         -----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n\
         MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YsxnpS6ciAbP7BNp35Xn27iYYtt\n\
         Wxy2QvJvS4S2YihV9w2C7CvdKZSMStjM3dU2grlb6FiE2YCTRNlNims2Sw==\n\
         -----END PUBLIC KEY-----\n",
        "MEYCIQCeRkdyLHySryLvkMAuuB2WZmeVnKnW1Mahue2j77/5RwIhAN1g/L9Ms3DTi/wFGwq1AfIxvQScbJfb1QW673yFgiYK",
    );
    const ED: (&str, &str, &str) = (
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIC3L9iIchj8Z6BAKSWR8t3lR6XEyQAcgVXpRIjDaCWh4\n\
         -----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAVX9gg16nCC7Hmv37Uyyi3it9HKrlin2GPm8hXJqVw44=\n\
         -----END PUBLIC KEY-----\n",
        "7AM4NTNfQ8P9GAw26ngXbOD5AgzPmx88maeOllMWiNhiL7/NUVnzQ0TA425kjUJYImKQ6sR5G0vL69xl0ztyBw==",
    );

    #[test]
    fn openssls_keys_and_signatures_are_read() {
        for (private, public, signature) in [P256, ED] {
            let key = SigningKey::from_pem(private).unwrap();
            let public_key = PublicKey::from_pem(public).unwrap();
            assert_eq!(key.public(), public_key);
            assert_eq!(public_key.to_pem(), public);
            let signature = STANDARD.decode(signature).unwrap();
            assert!(public_key.verifies(b"hello", &signature));
            assert!(!public_key.verifies(b"hullo", &signature));
            assert!(public_key.verifies(b"own", &key.sign(b"own").unwrap()));
        }
        assert!(!PublicKey::from_pem(ED.1).unwrap().verifies(b"hello", b"short"));
    }

    #[test]
    fn new_keys_read_back_and_no_two_are_the_same() {
        for kind in [KeyKind::P256, KeyKind::Ed25519] {
            let (one, other) = (generate(kind).unwrap(), generate(kind).unwrap());
            assert_ne!(one, other);
            let public = SigningKey::from_pem(&one).unwrap().public();
            assert_eq!(public.kind, kind);
            assert_eq!(PublicKey::from_pem(&public.to_pem()).unwrap(), public);
        }
    }

    #[test]
    fn what_is_no_such_key_is_told_apart() {
        let of = |text: &str| SigningKey::from_pem(text).unwrap_err();
        assert_eq!(of("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----"), KeyError::Encrypted);
        assert_eq!(of("-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----"), KeyError::Sec1);
        assert_eq!(of("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"), KeyError::Unknown);
        assert_eq!(of(ED.1), KeyError::NotPem(PRIVATE));
        assert_eq!(PublicKey::from_pem(ED.0), Err(KeyError::NotPem(PUBLIC)));
        assert_eq!(
            PublicKey::from_pem("-----BEGIN PUBLIC KEY-----\nMCow\n-----END PUBLIC KEY-----"),
            Err(KeyError::Unknown)
        );
    }
}
