//! The address of stored bytes.

use std::fmt;
use std::str::FromStr;

/// A sha256 digest: the address of a blob, a manifest, a release or a spec.
///
/// Computing one is the store's work; this type only carries it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the 32 bytes of a finished sha256.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Returns the 64 hexadecimal digits, without the algorithm.
    pub fn hex(&self) -> String {
        text(&self.digits()).to_owned()
    }

    /// As [`Digest::hex`], as bytes that take no memory of their own: a tree names ten thousand files by their digests.
    pub fn digits(&self) -> [u8; 64] {
        let mut digits = [0; 64];
        for (at, byte) in self.0.iter().enumerate() {
            digits[2 * at] = digit(byte >> 4);
            digits[2 * at + 1] = digit(byte & 0xf);
        }
        digits
    }

    /// Reads 64 lower-case hexadecimal digits; none where the text is anything else.
    pub fn of_hex(text: &[u8]) -> Option<Self> {
        let text: &[u8; 64] = text.try_into().ok()?;
        let (mut bytes, mut all) = ([0; 32], 0);
        for (at, byte) in bytes.iter_mut().enumerate() {
            let (high, low) = (nibble(text[2 * at]), nibble(text[2 * at + 1]));
            *byte = high << 4 | low;
            all |= high | low;
        }
        (all < 16).then_some(Self(bytes))
    }

    /// Returns the first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        text(&self.digits()[..12]).to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        f.write_str(text(&self.digits()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseDigestError(String);

impl fmt::Display for ParseDigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a digest: expected `sha256:` and 64 lower-case hexadecimal digits", self.0)
    }
}

impl std::error::Error for ParseDigestError {}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || ParseDigestError(text.chars().take(80).collect());
        text.strip_prefix("sha256:").and_then(|hex| Self::of_hex(hex.as_bytes())).ok_or_else(fail)
    }
}

fn text(digits: &[u8]) -> &str {
    std::str::from_utf8(digits).expect("hexadecimal digits are ASCII")
}

fn digit(nibble: u8) -> u8 {
    nibble + if nibble < 10 { b'0' } else { b'a' - 10 }
}

/// The value of a digit; 16 or more where it is none. Without a way out, so that the digits are read side by side.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => u8::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_back_what_it_prints() {
        let digest = Digest::new(std::array::from_fn(|i| i as u8));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(Digest::of_hex(digest.hex().as_bytes()), Some(digest));
        assert_eq!(digest.short(), "000102030405");
    }

    #[test]
    fn what_is_not_a_digest_is_refused() {
        for text in ["", "sha256:", "md5:00", &format!("sha256:{}", "G".repeat(64)), &"a".repeat(64)] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let whole = "0123456789abcdef".repeat(4);
        for (at, byte) in (0..64).flat_map(|at| (0..=u8::MAX).map(move |byte| (at, byte))) {
            let mut digits = whole.clone().into_bytes();
            digits[at] = byte;
            assert_eq!(Digest::of_hex(&digits).is_some(), matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        }
    }
}
