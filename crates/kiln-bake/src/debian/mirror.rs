//! Where an archive is: what the recipe says, else what the host's apt is told.
//!
//! No host name is built in: a mirror is a choice of who runs the machine.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::recipe::DebianBase;

use super::control::paragraphs;

/// Where apt is told its sources.
pub const APT_PATH: &str = "/etc/apt";

/// A sources file beyond this is not one.
const SOURCES_BYTES_MAX: u64 = 1 << 20;

/// One suite at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Archive {
    /// The suite, such as `bookworm-security`.
    pub(crate) suite: String,
    /// The URL above `dists` and `pool`.
    pub(crate) root: String,
    /// Whether its absence is an error. A suite that the host's apt or the recipe names must be there; one that was only
    /// guessed from another suite's place need not.
    pub(crate) required: bool,
}

/// No place is known for a suite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no mirror is known for {suite}: the recipe has no `mirror`, and {} names none", apt.display())]
pub struct NoMirror {
    /// The suite.
    pub suite: String,
    /// The host's apt configuration.
    pub apt: PathBuf,
}

/// Returns the archives of a base in the order of preference: the suite, its updates, its security fixes.
pub(crate) fn archives(recipe: &DebianBase, apt: &Path) -> Result<Vec<Archive>, NoMirror> {
    let suite = recipe.suite.as_str();
    if let Some(mirror) = &recipe.mirror {
        return Ok(around(suite, mirror.trim_end_matches('/')));
    }
    let sources = sources(apt);
    let of = |suite: &str| sources.iter().find(|source| source.suite == suite);
    let found: Vec<_> = family(suite)
        .iter()
        .filter_map(|suite| {
            of(suite).map(|source| Archive {
                suite: suite.clone(),
                root: source.root.clone(),
                required: true,
            })
        })
        .collect();
    if of(suite).is_some() {
        return Ok(found);
    }
    // Another release of the same distribution is at the same place.
    match sources.iter().find(|source| source.is_debian && !source.suite.contains('-')) {
        Some(sibling) => Ok(around(suite, &sibling.root)),
        None => Err(NoMirror { suite: suite.into(), apt: apt.into() }),
    }
}

fn family(suite: &str) -> [String; 3] {
    [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")]
}

/// Debian's mirrors keep security fixes beside the archive, as `debian-security` beside `debian`.
fn around(suite: &str, root: &str) -> Vec<Archive> {
    let [main, updates, security] = family(suite);
    let archive = |suite, root: &str, required| Archive { suite, root: root.into(), required };
    let mut archives = vec![archive(main, root, true), archive(updates, root, false)];
    // Beside a mirror that is a whole host there is nothing: the name with `-security` would be another host's.
    if has_path(root) {
        archives.push(archive(security, &format!("{root}-security"), false));
    }
    archives
}

fn has_path(root: &str) -> bool {
    let rest = root.split_once("://").map_or(root, |(_, rest)| rest);
    rest.trim_end_matches('/').contains('/')
}

struct Source {
    suite: String,
    root: String,
    is_debian: bool,
}

/// Reads `sources.list` and `sources.list.d`, in apt's order. What can't be read is left out: apt complains of it, not we.
fn sources(apt: &Path) -> Vec<Source> {
    let mut files = vec![apt.join("sources.list")];
    let mut more: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    more.sort();
    files.extend(more);
    files
        .iter()
        .flat_map(|file| {
            let small = fs::metadata(file).is_ok_and(|meta| meta.len() <= SOURCES_BYTES_MAX);
            let text = if small { fs::read_to_string(file).unwrap_or_default() } else { String::new() };
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("sources") => deb822(&text),
                Some("list") => one_line(&text),
                _ => Vec::new(),
            }
        })
        .collect()
}

fn deb822(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    // A comment inside a stanza is no field; taken out first, it can't end one.
    let text: String =
        text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    for paragraph in paragraphs(&text) {
        let words = |name| paragraph.get(name).unwrap_or("").split_whitespace();
        let off = paragraph.get("Enabled").is_some_and(|value| matches!(value, "no" | "false" | "0"));
        if off || !words("Types").any(|word| word == "deb") {
            continue;
        }
        let signed = paragraph.get("Signed-By").unwrap_or("");
        for uri in words("URIs").filter(|uri| supported(uri)) {
            found.extend(words("Suites").map(|suite| source(uri, suite, signed)));
        }
    }
    found
}

fn one_line(text: &str) -> Vec<Source> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or("").trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else {
            continue;
        };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next())
            && supported(uri)
        {
            found.push(source(uri, suite, options));
        }
    }
    found
}

fn supported(uri: &str) -> bool {
    ["http://", "https://", "file:/"].iter().any(|scheme| uri.starts_with(scheme))
}

fn source(uri: &str, suite: &str, signed: &str) -> Source {
    let root = uri.trim_end_matches('/');
    let is_debian = signed.contains("debian-archive") || root.ends_with("/debian");
    Source { suite: suite.trim_end_matches('/').into(), root: root.into(), is_debian }
}

#[cfg(test)]
mod tests {
    use kiln_model::recipe::DebianVariant;

    use super::*;

    fn recipe(suite: &str, mirror: Option<&str>) -> DebianBase {
        DebianBase {
            suite: suite.into(),
            mirror: mirror.map(Into::into),
            components: vec!["main".into()],
            packages: Vec::new(),
            variant: DebianVariant::Essential,
        }
    }

    fn apt(name: &str, text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("sources.list.d")).unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        folder
    }

    const SOURCES: &str = "Types: deb\n# a comment\nURIs: http://mirror.invalid/debian/\nSuites: bookworm bookworm-updates\n\
        Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\n\
        URIs: http://mirror.invalid/debian-security\nSuites: bookworm-security\nComponents: main\n\n\
        Enabled: no\nTypes: deb\nURIs: http://off.invalid/debian\nSuites: sid\n";

    #[test]
    fn no_other_host_is_guessed_for_a_mirror_without_a_path() {
        let apt = apt("sources.list", "");
        let roots = |mirror| -> Vec<String> {
            let found = archives(&recipe("bookworm", Some(mirror)), apt.path()).unwrap();
            found.into_iter().map(|one| one.root).collect()
        };
        assert_eq!(roots("http://mirror.invalid/"), ["http://mirror.invalid", "http://mirror.invalid"]);
        assert_eq!(roots("http://mirror.invalid/debian")[2], "http://mirror.invalid/debian-security");
        assert_eq!(roots("file:///srv/debian/")[2], "file:///srv/debian-security");
    }

    #[test]
    fn the_hosts_apt_says_where_a_suite_and_its_fixes_are() {
        let apt = apt("sources.list.d/debian.sources", SOURCES);
        let found = archives(&recipe("bookworm", None), apt.path()).unwrap();
        let shown: Vec<_> = found.iter().map(|one| (one.suite.as_str(), one.root.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("bookworm", "http://mirror.invalid/debian"),
                ("bookworm-updates", "http://mirror.invalid/debian"),
                ("bookworm-security", "http://mirror.invalid/debian-security"),
            ]
        );
        assert!(found.iter().all(|one| one.required));
    }

    #[test]
    fn another_release_of_the_distribution_is_at_the_same_place() {
        let apt =
            apt("sources.list", "deb [signed-by=/x] http://mirror.invalid/debian bookworm main # yes\n");
        let found = archives(&recipe("trixie", None), apt.path()).unwrap();
        assert_eq!(found[0].root, "http://mirror.invalid/debian");
        assert_eq!(found[2].root, "http://mirror.invalid/debian-security");
        assert!(found[0].required && !found[1].required && !found[2].required);
    }

    #[test]
    fn the_recipes_mirror_wins() {
        let apt = apt("sources.list.d/debian.sources", SOURCES);
        let found = archives(&recipe("bookworm", Some("http://other.invalid/debian/")), apt.path()).unwrap();
        assert_eq!(found[0].root, "http://other.invalid/debian");
    }

    #[test]
    fn without_a_mirror_the_error_says_where_it_was_looked_for() {
        let apt = apt(
            "sources.list",
            "deb-src http://mirror.invalid/debian bookworm main\ndeb cdrom:[x]/ bookworm main\n",
        );
        let error = archives(&recipe("bookworm", None), apt.path()).unwrap_err();
        assert!(error.to_string().contains("`mirror`"), "{error}");
    }
}
