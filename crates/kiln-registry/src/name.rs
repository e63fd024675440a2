//! Names of repositories and tags, by the specification's grammar.

use std::fmt;
use std::str::FromStr;

use crate::digest::ContentDigest;

/// A longer name fits into no client: they allow 255 characters for host and name together.
pub const NAME_BYTES_MAX: usize = 255;
/// The grammar's own bound.
pub const TAG_BYTES_MAX: usize = 128;

/// The text does not fit the grammar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(String);

/// A repository's name, such as `shop/web`.
///
/// Matches `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*`: every part begins and ends with a
/// letter or digit, so that a name is a path that goes only down, and no part can be one of the storage's own folders.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepositoryName(Box<str>);

impl RepositoryName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError(format!("a repository's name has at most {NAME_BYTES_MAX} characters")));
        }
        if !text.split('/').all(is_component) {
            let shown = text.escape_default();
            return Err(NameError(format!(
                "`{shown}` is not a repository's name: lower-case letters and digits, joined by `.`, `_`, `__`, `-` and `/`"
            )));
        }
        Ok(Self(text.into()))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|byte| is_word(byte)).count();
        rest = &rest[word..];
        if word == 0 || rest.is_empty() {
            return word > 0;
        }
        let (joint, next) = rest.split_at(rest.iter().take_while(|byte| !is_word(byte)).count());
        if !matches!(joint, b"." | b"_" | b"__") && !joint.iter().all(|byte| *byte == b'-') {
            return false;
        }
        rest = next;
    }
}

/// A tag: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(Box<str>);

impl Tag {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tag {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let fits = text.len() <= TAG_BYTES_MAX
            && text.bytes().next().is_some_and(is_word)
            && text.bytes().all(|byte| is_word(byte) || byte == b'.' || byte == b'-');
        if !fits {
            let shown: String = text.escape_default().take(2 * TAG_BYTES_MAX).collect();
            return Err(NameError(format!(
                "`{shown}` is not a tag: at most {TAG_BYTES_MAX} letters, digits, `_`, `.` and `-`, of which `.` and `-` can't come first"
            )));
        }
        Ok(Self(text.into()))
    }
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// Whatever the tag points at.
    Tag(Tag),
    /// This one and no other.
    Digest(ContentDigest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_follow_the_grammar() {
        let long = "a".repeat(NAME_BYTES_MAX);
        for name in ["a", "shop/web", "a.b_c__d-e---f/0", "v2/blobs/uploads", &long] {
            assert_eq!(name.parse::<RepositoryName>().unwrap().as_str(), name);
        }
        for name in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a..b",
            "a/../b",
            "..",
            ".",
            ".a",
            "a.",
            "_a",
            "a_",
            "a___b",
            "a-",
            "-a",
            "a._b",
            "a b",
            "a\0b",
            "a%2fb",
            "é",
            "_blobs",
            "a/_tags",
            &format!("{long}a"),
        ] {
            assert!(name.parse::<RepositoryName>().is_err(), "{name}");
        }
    }

    #[test]
    fn tags_follow_the_grammar() {
        let long = "a".repeat(TAG_BYTES_MAX);
        for tag in ["latest", "_", "1.2.3-rc.1_x", "A", &long] {
            assert_eq!(tag.parse::<Tag>().unwrap().as_str(), tag);
        }
        for tag in ["", ".", "..", ".a", "-a", "a/b", "a:b", "a b", "a\0", "é", &format!("{long}a")] {
            assert!(tag.parse::<Tag>().is_err(), "{tag}");
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_folder(text in "[a-z0-9._/-]{0,40}|\\PC{0,20}") {
            if let Ok(name) = text.parse::<RepositoryName>() {
                let parts: Vec<_> = std::path::Path::new(name.as_str()).components().collect();
                let goes_down = |part: &std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
                prop_assert!(parts.iter().all(goes_down));
                prop_assert_eq!(parts.len(), name.as_str().split('/').count());
            }
            if let Ok(tag) = text.parse::<Tag>() {
                prop_assert!(std::path::Path::new(tag.as_str()).file_name().is_some());
                prop_assert!(!tag.as_str().contains('/'));
            }
        }
    }
}
