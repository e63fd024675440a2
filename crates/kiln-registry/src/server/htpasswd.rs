//! Who may use the registry: a file of users and bcrypt hashes, as `htpasswd -B` writes it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::limits::HTPASSWD_BYTES_MAX;
use crate::base64;

/// Where bcrypt's own alphabet has what base64 has elsewhere.
const ALPHABET: &[u8; 64] = b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// bcrypt reads no more of a password.
const PASSWORD_BYTES_MAX: usize = 72;

/// A check takes a second with 14, and twice as long with each more: a larger cost is a mistake, or meant to be one.
const COST_MAX: u32 = 16;

/// The users of a registry.
#[derive(Debug)]
pub(crate) struct Htpasswd {
    users: BTreeMap<String, Hash>,
    /// What was found right before, so that not every request takes a tenth of a second. Holds one entry for each user at
    /// most, a hash under a key that only this process knows.
    right: Mutex<BTreeMap<String, [u8; 32]>>,
    key: [u8; 32],
}

/// A file of users can't be used.
#[derive(Debug, thiserror::Error)]
pub enum HtpasswdError {
    /// It can't be read.
    #[error("it can't be read")]
    Io(#[source] io::Error),
    /// It is too large to be one.
    #[error("it is larger than {HTPASSWD_BYTES_MAX} bytes")]
    TooLarge,
    /// A line is not a user and a bcrypt hash.
    #[error("line {line}: {reason}; `htpasswd -B` writes such a file")]
    Line {
        /// Which line, from 1 on.
        line: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// There is nobody in it.
    #[error("it names no user")]
    Empty,
}

#[derive(Debug, Clone)]
pub(super) struct Hash {
    cost: u32,
    salt: [u8; 16],
    /// bcrypt's text leaves out the last of 24 bytes.
    hash: [u8; 23],
}

impl Htpasswd {
    pub(crate) fn read(path: &Path) -> Result<Self, HtpasswdError> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(HtpasswdError::Io)?;
        file.take(HTPASSWD_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(HtpasswdError::Io)?;
        if bytes.len() as u64 > HTPASSWD_BYTES_MAX {
            return Err(HtpasswdError::TooLarge);
        }
        let mut key = [0; 32];
        rustix::rand::getrandom(&mut key, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| HtpasswdError::Io(error.into()))?;
        Ok(Self { users: parse(&bytes)?, right: Mutex::default(), key })
    }

    /// Whether this password was found right before: cheap.
    pub(crate) fn remembers(&self, user: &str, password: &[u8]) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(user) == Some(&self.keyed(user, password))
    }

    /// Whether the password is the user's. Takes a tenth of a second, for users that do not exist as well.
    pub(crate) fn check(&self, user: &str, password: &[u8]) -> bool {
        let nobody = Hash { cost: 10, salt: [0; 16], hash: [0; 23] };
        let (hash, exists) = self.users.get(user).map_or((&nobody, false), |hash| (hash, true));
        let is_right = hash.is_of(password) && exists;
        if is_right {
            let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            right.insert(user.to_owned(), self.keyed(user, password));
        }
        is_right
    }

    fn keyed(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let parts = [&self.key[..], &(user.len() as u64).to_le_bytes(), user.as_bytes(), password];
        parts.iter().fold(Sha256::new(), |hash, part| hash.chain_update(part)).finalize().into()
    }
}

impl Hash {
    /// Reads `$2y$10$` and 53 characters.
    fn parse(text: &str) -> Option<Self> {
        let rest = ["$2y$", "$2b$", "$2a$"].iter().find_map(|kind| text.strip_prefix(kind))?;
        let (cost, rest) = rest.split_once('$')?;
        let cost = cost.parse().ok().filter(|cost| (4..=COST_MAX).contains(cost))?;
        if rest.len() != 53 || !rest.is_ascii() {
            return None;
        }
        let (salt, hash) = rest.split_at(22);
        Some(Self { cost, salt: decode(salt)?, hash: decode(hash)? })
    }

    fn is_of(&self, password: &[u8]) -> bool {
        // bcrypt takes the password as C does, with its NUL, and reads 72 bytes of it.
        let mut read: Vec<u8> = password.iter().copied().chain([0]).collect();
        read.truncate(PASSWORD_BYTES_MAX);
        let found = bcrypt::bcrypt(self.cost, self.salt, &read);
        // Of equal length always, and without an early end.
        found.iter().zip(&self.hash).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

pub(super) fn parse(bytes: &[u8]) -> Result<BTreeMap<String, Hash>, HtpasswdError> {
    let mut users = BTreeMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let wrong = |reason| HtpasswdError::Line { line: index + 1, reason };
        let line = str::from_utf8(line).map_err(|_| wrong("it is not UTF-8"))?.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (user, hash) =
            line.split_once(':').ok_or_else(|| wrong("it has no `:` between user and hash"))?;
        let hash = Hash::parse(hash).ok_or_else(|| wrong("it has no bcrypt hash of a cost from 4 to 16"))?;
        if users.insert(user.to_owned(), hash).is_some() {
            return Err(wrong("it names a user again"));
        }
    }
    if users.is_empty() { Err(HtpasswdError::Empty) } else { Ok(users) }
}

/// Reads bcrypt's base64, whose last character may hold fewer bits.
fn decode<const SIZE: usize>(text: &str) -> Option<[u8; SIZE]> {
    let mut out = [0; SIZE];
    let (mut bits, mut held, mut at) = (0_u32, 0, 0);
    for character in text.bytes() {
        let value = ALPHABET.iter().position(|it| *it == character)?;
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 && at < SIZE {
            held -= 8;
            out[at] = (bits >> held) as u8;
            at += 1;
        }
    }
    (at == SIZE).then_some(out)
}

/// Reads the user and the password of an `Authorization` header, by RFC 7617.
pub(crate) fn basic(header: &str) -> Option<(String, Vec<u8>)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = base64::decode(encoded.trim())?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some((String::from_utf8(pair[..colon].to_vec()).ok()?, pair[colon + 1..].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the test vectors of jBCrypt, and one that Apache's htpasswd wrote.
    const VECTORS: [(&str, &str); 4] = [
        ("", "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s."),
        ("a", "$2a$06$m0CrhHm10qJ3lXRY.5zDGO3rS2KdeeWLuGmsfGlMfOxih58VYVfxe"),
        ("abc", "$2a$06$If6bvum7DFjUnE9p2uDeDu0YHzrHM6tf.iqN8.yx.jNN1ILEf7h0i"),
        ("abcdefghijklmnopqrstuvwxyz", "$2a$06$.rCVZVOThsIa97pEDOxvGuRRgzG64bvtJ0938xuqzv18d3ZpQhstC"),
    ];

    fn of(text: &str) -> Result<Htpasswd, HtpasswdError> {
        Ok(Htpasswd { users: parse(text.as_bytes())?, right: Mutex::default(), key: [7; 32] })
    }

    #[test]
    fn passwords_are_checked_as_bcrypt_does() {
        for (password, hash) in VECTORS {
            let users = of(&format!("# users\n\nann:{hash}\n")).unwrap();
            assert!(!users.remembers("ann", password.as_bytes()));
            assert!(users.check("ann", password.as_bytes()), "{hash}");
            assert!(users.remembers("ann", password.as_bytes()));
            assert!(!users.check("ann", format!("{password}x").as_bytes()));
            assert!(!users.check("bob", password.as_bytes()));
        }
    }

    #[test]
    fn a_file_that_is_none_is_refused_at_its_line() {
        let good = VECTORS[1].1;
        for (text, line) in [
            ("ann".to_owned(), 1),
            (format!("ann:{good}\nbob:$apr1$x$y"), 2),
            (format!("ann:{good}\nann:{good}"), 2),
            (format!("ann:{}", &good[..40]), 1),
            (format!("ann:{}", good.replace("$06$", "$31$")), 1),
            ("ann:plain".to_owned(), 1),
        ] {
            let error = of(&text).unwrap_err();
            assert!(matches!(error, HtpasswdError::Line { line: it, .. } if it == line), "{text}: {error}");
        }
        assert!(matches!(of("# nobody\n"), Err(HtpasswdError::Empty)));
    }

    #[test]
    fn basic_credentials_are_read() {
        // RFC 7617, section 2.
        let read = basic("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap();
        assert_eq!(read, ("Aladdin".into(), b"open sesame".to_vec()));
        assert_eq!(basic("basic YTo=").unwrap(), ("a".into(), Vec::new()));
        for bad in ["", "Basic", "Bearer YTo=", "Basic YQ==", "Basic !!!!"] {
            assert!(basic(bad).is_none(), "{bad}");
        }
    }
}
