//! The address of content: `sha256:…` or `sha512:…`, the two algorithms that the OCI image specification registers.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256, Sha512};

/// How content is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// What nearly everything uses.
    Sha256,
    /// The other one that is registered.
    Sha512,
}

impl Algorithm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name in a digest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|it| it.name() == text).ok_or_else(|| ParseDigestError::of(text))
    }
}

/// The address of content. Its text can be part of a path: an algorithm of ours, and hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentDigest {
    algorithm: Algorithm,
    hex: Box<str>,
}

impl ContentDigest {
    /// Hashes bytes.
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.digest()
    }

    /// How it was made.
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Its lower-case hexadecimal digits.
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for ContentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

/// The text is not a digest of an algorithm that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits")]
pub struct ParseDigestError(String);

impl ParseDigestError {
    fn of(text: &str) -> Self {
        // More than the longest digest tells nothing more.
        Self(text.chars().take(140).collect())
    }
}

impl FromStr for ContentDigest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| ParseDigestError::of(text))?;
        let algorithm: Algorithm = algorithm.parse().map_err(|_| ParseDigestError::of(text))?;
        let is_hex = hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != algorithm.hex_digits() || !is_hex {
            return Err(ParseDigestError::of(text));
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

/// Hashes content piece by piece.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// In the middle of a sha256.
    Sha256(Sha256),
    /// In the middle of a sha512.
    Sha512(Sha512),
}

impl Hasher {
    /// Begins.
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
        }
    }

    /// How it hashes.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    /// Returns the digest of what was taken so far.
    pub fn digest(&self) -> ContentDigest {
        let hex = match self {
            Self::Sha256(hash) => hex(&hash.clone().finalize()),
            Self::Sha512(hash) => hex(&hash.clone().finalize()),
        };
        ContentDigest { algorithm: self.algorithm(), hex: hex.into() }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        for algorithm in Algorithm::ALL {
            let digest = ContentDigest::of(algorithm, b"a small string");
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
        // From FIPS 180-4's example for "abc".
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(ContentDigest::of(Algorithm::Sha256, b"abc").to_string(), abc);
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        let a = "a".repeat(64);
        for text in [
            String::new(),
            a.clone(),
            "sha256:".into(),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{a}a"),
            format!("sha512:{a}"),
            format!("md5:{a}"),
            format!("sha256:../../../{}", &a[9..]),
            format!("sha256:{}é", &a[2..]),
            format!("sha256/../x:{a}"),
        ] {
            assert!(text.parse::<ContentDigest>().is_err(), "{text}");
        }
    }
}
