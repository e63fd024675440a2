//! The root of an archive's index: the signed list of what everything else must hash to.

use std::collections::BTreeMap;

use kiln_model::Digest;

use super::control::Paragraph;
use crate::calendar;

/// An archive's `Release`, after its signature was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Release {
    /// Its release code name, such as `bookworm`.
    pub(crate) codename: String,
    /// Its role, such as `stable`.
    pub(crate) suite: String,
    /// When it was made, in seconds since the epoch.
    pub(crate) date: u64,
    /// When it must not be believed any more.
    pub(crate) valid_until: Option<u64>,
    /// Whether every file is also found under its hash.
    pub(crate) by_hash: bool,
    /// The components, for messages.
    pub(crate) components: String,
    /// Size and digest by path.
    pub(crate) files: BTreeMap<String, (u64, Digest)>,
}

impl Release {
    /// Reads the signed text; returns nothing where a field that decides is missing or malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let paragraph = Paragraph::new(text);
        let date = |name| match paragraph.get(name) {
            Some(text) => calendar::parse_rfc2822(text).map(Some),
            None => Some(None),
        };
        let mut files = BTreeMap::new();
        for line in paragraph.get("SHA256")?.lines().filter(|line| !line.trim().is_empty()) {
            let mut words = line.split_whitespace();
            let digest = format!("sha256:{}", words.next()?).parse().ok()?;
            let size = words.next()?.parse().ok()?;
            files.insert(words.next()?.to_owned(), (size, digest));
        }
        Some(Self {
            codename: paragraph.get("Codename").unwrap_or("").into(),
            suite: paragraph.get("Suite").unwrap_or("").into(),
            date: date("Date")??,
            valid_until: date("Valid-Until")?,
            by_hash: paragraph.get("Acquire-By-Hash") == Some("yes"),
            components: paragraph.get("Components").unwrap_or("").into(),
            files,
        })
    }

    /// Tells whether this is the index that was asked for, by code name or by role.
    pub(crate) fn is_of(&self, suite: &str) -> bool {
        self.codename == suite || self.suite == suite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn text() -> String {
        format!(
            "Origin: Debian\nSuite: oldstable\nCodename: bookworm\nDate: Sat, 11 Jul 2026 10:16:37 UTC\n\
             Acquire-By-Hash: yes\nComponents: main\nSHA256:\n {EMPTY}        0 main/binary-amd64/Packages\n"
        )
    }

    #[test]
    fn a_release_lists_files_by_path() {
        let release = Release::parse(&text()).expect("well-formed");
        assert!(release.by_hash && release.is_of("bookworm") && release.is_of("oldstable"));
        assert!(!release.is_of("trixie"));
        assert_eq!(release.valid_until, None);
        assert_eq!(release.files["main/binary-amd64/Packages"].1.hex(), EMPTY);
    }

    #[test]
    fn a_release_without_date_or_with_a_garbled_one_is_refused() {
        assert_eq!(Release::parse(&text().replace("Date:", "Dated:")), None);
        assert_eq!(Release::parse(&format!("Valid-Until: soon\n{}", text())), None);
        assert_eq!(Release::parse(&text().replace(EMPTY, "00")), None);
    }
}
