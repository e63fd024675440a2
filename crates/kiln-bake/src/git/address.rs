//! What an ADD of a Git repository names: where it is, what of its history, and which folder.
//!
//! Source: BuildKit's `util/gitutil` and `frontend/dockerfile/dfgitutil`.

use std::fmt;

use kiln_store::TreePath;

/// The digits of a commit's SHA-1.
pub(crate) const COMMIT_DIGITS: usize = 40;

/// Fewer digits than Git itself shows of a commit are no promise.
const COMMIT_DIGITS_MIN: usize = 7;

/// A repository, what of its history, and which folder of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// As Git takes it.
    pub(crate) remote: String,
    /// A branch, a tag or a commit; none means what the repository shows first.
    pub(crate) reference: Option<String>,
    /// The root means all of it.
    pub(crate) folder: TreePath,
}

/// A commit, or the beginning of one, that a checksum promises.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CommitPrefix(String);

impl CommitPrefix {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let is_one = (COMMIT_DIGITS_MIN..=COMMIT_DIGITS).contains(&text.len())
            && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_one.then(|| Self(text.into()))
    }

    /// Whether a commit is the promised one.
    pub(crate) fn is_of(&self, commit: &str) -> bool {
        commit.starts_with(&self.0)
    }

    /// The commit, where all of it is there.
    pub(crate) fn whole(&self) -> Option<&str> {
        is_commit(&self.0).then_some(self.0.as_str())
    }
}

impl fmt::Display for CommitPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether this is all of a commit's name.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl Address {
    /// Whether a source of an ADD is a Git repository, and not a file.
    pub(crate) fn is_one(text: &str) -> bool {
        let plain = text.split('#').next().unwrap_or_default();
        if let Some((scheme, rest)) = plain.split_once("://") {
            let path = rest.split('?').next().unwrap_or_default();
            return match scheme {
                "git" | "ssh" => true,
                "http" | "https" => path.ends_with(".git") && path.contains('/'),
                _ => false,
            };
        }
        // As ssh takes it: `user@host:path`.
        plain.split_once(':').and_then(|(place, _)| place.split_once('@')).is_some_and(|(user, host)| {
            let plain = |text: &str| {
                !text.is_empty() && text.bytes().all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
            };
            plain(user) && plain(host)
        })
    }

    /// Reads what [`Address::is_one`] found to be one.
    ///
    /// # Errors
    /// Why it can't be fetched.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the address of a repository has no blanks, and no letters but those of ASCII");
        }
        let (remote, fragment) = text.split_once('#').unwrap_or((text, ""));
        if remote.contains('?') {
            return Err("a branch, tag or commit and a folder stand behind `#`, as in `…/x.git#v1:folder`");
        }
        let (place, scheme) = match remote.split_once("://") {
            Some((scheme, rest)) => (rest.split('/').next().unwrap_or_default(), scheme),
            None => (remote.split(':').next().unwrap_or_default(), "ssh"),
        };
        let (user, host) = place.rsplit_once('@').unwrap_or(("", place));
        if user.contains(':') || scheme.starts_with("http") && !user.is_empty() {
            return Err("who you are would stand in kiln.lock for all to read");
        }
        // Git and ssh take what begins with a dash for an option.
        if host.is_empty() || host.starts_with('-') || user.starts_with('-') {
            return Err("the address of a repository needs a host");
        }
        let (reference, folder) = fragment.split_once(':').unwrap_or((fragment, ""));
        if !reference.is_empty() && !is_reference(reference) {
            return Err("a branch, tag or commit can't have this name");
        }
        let folder = TreePath::parse(folder).map_err(|_| "the folder is not in the repository")?;
        let reference = (!reference.is_empty()).then(|| reference.to_owned());
        Ok(Self { remote: remote.to_owned(), reference, folder })
    }
}

/// Source: `git check-ref-format`.
fn is_reference(text: &str) -> bool {
    !text.starts_with('-')
        && !text.contains("..")
        && !text.contains("@{")
        && !text.ends_with('.')
        && text.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock"))
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"~^:?*[\\".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        for text in [
            "https://example.org/a/b.git",
            "http://example.org/b.git#main:docs",
            "https://example.org/b.git?ref=main",
            "git://example.org/b",
            "ssh://git@example.org/b",
            "git@example.org:a/b",
            "me@example.org:b.git#v1",
        ] {
            assert!(Address::is_one(text), "{text}");
        }
        for text in [
            "https://example.org/b.tar.gz",
            "https://example.org/b.tar#x.git",
            "https://example.git",
            "ftp://example.org/b.git",
            "a/b.git",
            "./git@example.org:b",
            "a@b",
        ] {
            assert!(!Address::is_one(text), "{text}");
        }
    }

    #[test]
    fn an_address_is_a_remote_a_reference_and_a_folder() {
        let parse = |text| Address::parse(text).map(|it| (it.remote, it.reference, it.folder.to_string()));
        let root = TreePath::root().to_string();
        let of = |remote: &str, reference: Option<&str>, folder: &str| {
            Ok((remote.to_owned(), reference.map(str::to_owned), folder.to_owned()))
        };
        assert_eq!(parse("https://h/b.git"), of("https://h/b.git", None, &root));
        assert_eq!(parse("https://h/b.git#v1"), of("https://h/b.git", Some("v1"), &root));
        let docs = TreePath::parse("docs/en").unwrap().to_string();
        assert_eq!(
            parse("git@h:b.git#refs/pull/1/head:docs/en"),
            of("git@h:b.git", Some("refs/pull/1/head"), &docs)
        );
        assert_eq!(parse("ssh://git@h:22/b#:docs/en"), of("ssh://git@h:22/b", None, &docs));
    }

    #[test]
    fn addresses_that_would_be_options_secrets_or_ways_out_are_refused() {
        for text in [
            "https://me:token@h/b.git",
            "https://token@h/b.git",
            "ssh://me:password@h/b.git",
            "ssh://-oProxyCommand=x/b",
            "-oProxyCommand=x@h:b",
            "https://h/b.git?ref=x",
            "https://h/b.git#--upload-pack=x",
            "https://h/b.git#a..b",
            "https://h/b.git#a^{commit}",
            "https://h/b.git#a b",
            "https://h/b.git#v1:../x",
            "git@h:é",
        ] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_promised_commit_is_whole_or_its_beginning() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let [whole, short] = [commit, &commit[..7]].map(|text| CommitPrefix::parse(text).unwrap());
        assert!(whole.is_of(commit) && short.is_of(commit));
        assert_eq!([whole.whole(), short.whole()], [Some(commit), None]);
        assert!(!CommitPrefix::parse("0123457").unwrap().is_of(commit));
        for text in ["012345", "0123456X", &format!("{commit}0"), "sha256:0123456"] {
            assert_eq!(CommitPrefix::parse(text), None, "{text}");
        }
    }
}
