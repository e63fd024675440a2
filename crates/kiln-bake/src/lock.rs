//! `kiln.lock`: the outside inputs of a stack's bases and images, pinned.
//!
//! Lines of words, one per package, in the order of names: a change of one package is a change of one line. A base's time is
//! when its packages were last found to be different; every time in its images is that or earlier.

use std::collections::BTreeMap;
use std::fmt;

use kiln_model::recipe::{BaseRecipe, DebianBase, DebianVariant};
use kiln_model::stack::Stack;
use kiln_model::{BaseName, Digest};

use crate::bake::{OutsideInputs, Repository};
use crate::calendar;
use crate::debian::ARCH;
use crate::git::{CommitPrefix, LockedCommit, is_commit};

/// The name of the file in the stack folder.
pub const LOCK_FILE: &str = "kiln.lock";

/// The version of a lock of bases alone, as every Kiln reads it.
const VERSION: &str = "1";

/// The version of a lock with images of registries.
const VERSION_WITH_IMAGES: &str = "2";

/// The version of a lock with tools, which are laid and not configured.
const VERSION_WITH_TOOLS: &str = "3";

/// The version of a lock with an image that was found in a list.
const VERSION_WITH_LISTS: &str = "4";

/// The version of a lock with files of URLs.
const VERSION_WITH_URLS: &str = "5";

/// The version of a lock with commits of Git repositories.
const VERSION_WITH_COMMITS: &str = "6";

/// All that are read.
const VERSIONS: [&str; 6] = [
    VERSION,
    VERSION_WITH_IMAGES,
    VERSION_WITH_TOOLS,
    VERSION_WITH_LISTS,
    VERSION_WITH_URLS,
    VERSION_WITH_COMMITS,
];

/// A lock beyond this was not made by Kiln: a base of every package of Debian has 10 MB.
pub const LOCK_BYTES_MAX: u64 = 64 << 20;

/// All that is pinned for a stack.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// By base.
    pub bases: BTreeMap<BaseName, LockedBase>,
    /// The manifests of images of registries, by the names that the stack and its Dockerfiles have for them.
    pub images: BTreeMap<String, Digest>,
    /// The lists for several machines in which they were found, of those that were in one: what is signed may be the list.
    pub lists: BTreeMap<String, Digest>,
    /// The files of URLs that Dockerfiles add.
    pub urls: BTreeMap<String, Digest>,
    /// The commits of Git repositories that Dockerfiles add, by what stands in the ADD.
    pub commits: BTreeMap<String, LockedCommit>,
}

/// What one base is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedBase {
    /// When it was locked, in seconds since the epoch.
    pub locked_at: u64,
    /// The recipe that it was locked for, but for its mirror: the same packages come from any.
    pub recipe: LockedRecipe,
    /// The archives, in the order of preference.
    pub archives: Vec<LockedArchive>,
    /// The packages, in the order of names.
    pub packages: Vec<LockedPackage>,
}

/// What of a base's recipe decides what is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedRecipe {
    /// The suite.
    pub suite: String,
    /// The architecture.
    pub arch: String,
    /// How much is there beside the packages.
    pub variant: DebianVariant,
    /// The components.
    pub components: Vec<String>,
    /// The packages that the recipe lists, in order.
    pub packages: Vec<String>,
}

/// An archive whose signed index was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedArchive {
    /// The suite.
    pub suite: String,
    /// When its index was made, in seconds since the epoch.
    pub released: u64,
    /// The digest of the signed text.
    pub index: Digest,
}

/// One package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture: the base's, or `all`.
    pub arch: String,
    /// The size of the file in bytes.
    pub size: u64,
    /// The digest of the file.
    pub digest: Digest,
    /// The suite that has it.
    pub suite: String,
    /// Where it is below the archive's root.
    pub path: String,
}

/// Why a lock does not fit its stack.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StaleLock {
    /// A base has no entry.
    #[error("base `{0}` is not locked")]
    Missing(BaseName),
    /// A base's recipe has changed since.
    #[error("base `{base}` was locked for other {what}")]
    Outdated {
        /// The base.
        base: BaseName,
        /// What differs.
        what: &'static str,
    },
    /// An image of a registry has no entry.
    #[error("the image `{0}` of a registry is not locked")]
    Image(String),
    /// A file of a URL has no entry.
    #[error("the file of `{0}` is not locked")]
    Url(String),
    /// A Git repository has no entry.
    #[error("the commit of `{0}` is not locked")]
    Commit(String),
    /// A Git repository is locked to another commit than its checksum says.
    #[error("`{address}` is locked to the commit {locked}, and its checksum is {promised}")]
    OtherCommit {
        /// The repository.
        address: String,
        /// What the lock has.
        locked: String,
        /// What the checksum has.
        promised: CommitPrefix,
    },
}

/// A lock that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kiln.lock, line {line}: {reason}")]
pub struct ParseLockError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

impl LockedRecipe {
    /// Takes what decides from a recipe.
    pub fn of(base: &DebianBase) -> Self {
        Self {
            suite: base.suite.clone(),
            arch: ARCH.into(),
            variant: base.variant,
            components: base.components.clone(),
            packages: base.packages.clone(),
        }
    }

    fn difference(&self, other: &Self) -> Option<&'static str> {
        [
            (self.suite != other.suite, "suite"),
            (self.arch != other.arch, "architecture"),
            (self.variant != other.variant, "variant"),
            (self.components != other.components, "components"),
            (self.packages != other.packages, "packages"),
        ]
        .into_iter()
        .find_map(|(differs, what)| differs.then_some(what))
    }
}

impl LockedBase {
    /// Writes all that decides what a base becomes; neither its name nor what the recipe asked for does.
    pub(crate) fn describe(&self) -> String {
        let LockedRecipe { suite, arch, variant, .. } = &self.recipe;
        // The same packages are something else where nothing was configured.
        let how = if *variant == DebianVariant::Tools { "tools of " } else { "" };
        let mut text = format!("{how}debian {suite} {arch} {}\n", self.locked_at);
        for package in &self.packages {
            text.push_str(&format!("{} {} {}\n", package.name, package.version, package.digest));
        }
        text
    }
}

impl Lock {
    /// Lists what does not fit a stack's bases and what else it needs from outside. Nothing of it may be baked before
    /// `kiln lock` has run.
    pub fn stale(&self, stack: &Stack, outside: &OutsideInputs) -> Vec<StaleLock> {
        let bases = stack.bases.iter().filter_map(|(name, recipe)| self.stale_base(name, recipe));
        let images = outside.images.iter().filter_map(|name| self.stale_image(name));
        let urls = outside.urls.iter().filter_map(|url| self.stale_url(url));
        let commits = outside.repositories.iter().filter_map(|(address, it)| self.stale_commit(address, it));
        bases.chain(images).chain(urls).chain(commits).collect()
    }

    pub(crate) fn stale_commit(&self, address: &str, asked: &Repository) -> Option<StaleLock> {
        let Some(locked) = self.commits.get(address) else { return Some(StaleLock::Commit(address.into())) };
        let promised = asked.promised.as_ref().filter(|promised| !promised.is_of(&locked.commit))?;
        let (address, locked) = (address.to_owned(), locked.commit.clone());
        Some(StaleLock::OtherCommit { address, locked, promised: promised.clone() })
    }

    pub(crate) fn stale_url(&self, url: &str) -> Option<StaleLock> {
        (!self.urls.contains_key(url)).then(|| StaleLock::Url(url.into()))
    }

    pub(crate) fn stale_image(&self, name: &str) -> Option<StaleLock> {
        (!self.images.contains_key(name)).then(|| StaleLock::Image(name.into()))
    }

    pub(crate) fn stale_base(&self, name: &BaseName, recipe: &BaseRecipe) -> Option<StaleLock> {
        let BaseRecipe::Debian(recipe) = recipe;
        match self.bases.get(name) {
            None => Some(StaleLock::Missing(name.clone())),
            Some(locked) => locked
                .recipe
                .difference(&LockedRecipe::of(recipe))
                .map(|what| StaleLock::Outdated { base: name.clone(), what }),
        }
    }

    /// Reads the text of a `kiln.lock`.
    pub fn parse(text: &str) -> Result<Self, ParseLockError> {
        let mut lines = text.lines().enumerate();
        let fail = |line: usize, reason: &str| ParseLockError { line: line + 1, reason: reason.into() };
        match lines.next().map(|(_, line)| line.split_whitespace().collect::<Vec<_>>()) {
            Some(words) if matches!(words[..], ["kiln.lock", version] if VERSIONS.contains(&version)) => {}
            Some(words) if words.first() == Some(&"kiln.lock") => {
                return Err(fail(0, "it was made by another version of Kiln: run `kiln lock` with this one"));
            }
            _ => return Err(fail(0, "this is not a kiln.lock")),
        }
        let mut lock = Self::default();
        let mut open: Option<(BaseName, Draft)> = None;
        let mut last = 0;
        for (number, line) in lines {
            last = number;
            let words: Vec<_> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                [word, ..] if word.starts_with('#') => {}
                ["base", name] => {
                    lock.close(open.take()).map_err(|reason| fail(number, reason))?;
                    let name = BaseName::new(*name).map_err(|error| fail(number, &error.to_string()))?;
                    open = Some((name, Draft::default()));
                }
                ["image", name, digest] | ["image", name, digest, "of", _] => {
                    lock.close(open.take()).map_err(|reason| fail(number, reason))?;
                    let parse =
                        |text: &str| text.parse().map_err(|_| fail(number, "the image has no usable digest"));
                    let digest = parse(digest)?;
                    if let Some(list) = words.get(4) {
                        lock.lists.insert((*name).to_owned(), parse(list)?);
                    }
                    if lock.images.insert((*name).to_owned(), digest).is_some() {
                        return Err(fail(number, "this image comes twice"));
                    }
                }
                ["url", url, digest] => {
                    lock.close(open.take()).map_err(|reason| fail(number, reason))?;
                    let digest = digest.parse().map_err(|_| fail(number, "the file has no usable digest"))?;
                    if lock.urls.insert((*url).to_owned(), digest).is_some() {
                        return Err(fail(number, "this URL comes twice"));
                    }
                }
                ["git", address, commit, files] => {
                    lock.close(open.take()).map_err(|reason| fail(number, reason))?;
                    if !is_commit(commit) {
                        return Err(fail(number, "this is no commit"));
                    }
                    let files = files.parse().map_err(|_| fail(number, "the files have no usable digest"))?;
                    let locked = LockedCommit { commit: (*commit).to_owned(), files };
                    if lock.commits.insert((*address).to_owned(), locked).is_some() {
                        return Err(fail(number, "this repository comes twice"));
                    }
                }
                words => {
                    let (_, draft) = open.as_mut().ok_or_else(|| fail(number, "this belongs to no base"))?;
                    draft.read(words).ok_or_else(|| fail(number, "this line can't be understood"))?;
                }
            }
        }
        lock.close(open).map_err(|reason| fail(last, reason))?;
        Ok(lock)
    }

    fn close(&mut self, open: Option<(BaseName, Draft)>) -> Result<(), &'static str> {
        let Some((name, draft)) = open else { return Ok(()) };
        let base = draft.finish().ok_or("the base above lacks its `locked-at` or `debian` line")?;
        match self.bases.insert(name, base) {
            None => Ok(()),
            Some(_) => Err("the base above comes twice"),
        }
    }
}

/// A base while its lines are read.
#[derive(Default)]
struct Draft {
    locked_at: Option<u64>,
    recipe: Option<(String, String, DebianVariant)>,
    components: Vec<String>,
    wanted: Vec<String>,
    archives: Vec<LockedArchive>,
    packages: Vec<LockedPackage>,
}

impl Draft {
    fn read(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["locked-at", time] => self.locked_at = Some(calendar::parse_iso(time)?),
            ["debian", suite, arch, variant] => {
                self.recipe = Some((suite.into(), arch.into(), parse_variant(variant)?));
            }
            ["components", ref rest @ ..] => self.components = rest.iter().map(|&word| word.into()).collect(),
            ["packages", ref rest @ ..] => self.wanted = rest.iter().map(|&word| word.into()).collect(),
            ["archive", suite, released, index] => self.archives.push(LockedArchive {
                suite: suite.into(),
                released: calendar::parse_iso(released)?,
                index: index.parse().ok()?,
            }),
            ["deb", name, version, arch, size, digest, suite, path] => self.packages.push(LockedPackage {
                name: name.into(),
                version: version.into(),
                arch: arch.into(),
                size: size.parse().ok()?,
                digest: digest.parse().ok()?,
                suite: suite.into(),
                path: safe_path(path)?.into(),
            }),
            _ => return None,
        }
        Some(())
    }

    fn finish(self) -> Option<LockedBase> {
        let (suite, arch, variant) = self.recipe?;
        Some(LockedBase {
            locked_at: self.locked_at?,
            recipe: LockedRecipe { suite, arch, variant, components: self.components, packages: self.wanted },
            archives: self.archives,
            packages: self.packages,
        })
    }
}

/// A pool path is joined to a mirror's root, which may be a folder of this machine.
pub(crate) fn safe_path(path: &str) -> Option<&str> {
    let safe = !path.starts_with('/')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        && path.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\'));
    safe.then_some(path)
}

fn parse_variant(text: &str) -> Option<DebianVariant> {
    [DebianVariant::Essential, DebianVariant::MinBase, DebianVariant::Tools]
        .into_iter()
        .find(|variant| variant_name(*variant) == text)
}

fn variant_name(variant: DebianVariant) -> &'static str {
    match variant {
        DebianVariant::Essential => "essential",
        DebianVariant::MinBase => "minbase",
        DebianVariant::Tools => "tools",
    }
}

impl fmt::Display for Lock {
    /// Writes the text of a `kiln.lock`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_tools = self.bases.values().any(|base| base.recipe.variant == DebianVariant::Tools);
        let version = match (has_tools, self.images.is_empty()) {
            _ if !self.commits.is_empty() => VERSION_WITH_COMMITS,
            _ if !self.urls.is_empty() => VERSION_WITH_URLS,
            _ if !self.lists.is_empty() => VERSION_WITH_LISTS,
            (true, _) => VERSION_WITH_TOOLS,
            (false, false) => VERSION_WITH_IMAGES,
            (false, true) => VERSION,
        };
        writeln!(f, "kiln.lock {version}")?;
        writeln!(f, "# Made by `kiln lock`: commit it, don't edit it.")?;
        if !self.images.is_empty() {
            writeln!(f)?;
        }
        for (name, digest) in &self.images {
            match self.lists.get(name) {
                Some(list) => writeln!(f, "image {name} {digest} of {list}")?,
                None => writeln!(f, "image {name} {digest}")?,
            }
        }
        if !self.urls.is_empty() {
            writeln!(f)?;
        }
        for (url, digest) in &self.urls {
            writeln!(f, "url {url} {digest}")?;
        }
        if !self.commits.is_empty() {
            writeln!(f)?;
        }
        for (address, LockedCommit { commit, files }) in &self.commits {
            writeln!(f, "git {address} {commit} {files}")?;
        }
        for (name, base) in &self.bases {
            let recipe = &base.recipe;
            writeln!(f, "\nbase {name}")?;
            writeln!(f, "  locked-at {}", calendar::iso(base.locked_at))?;
            writeln!(f, "  debian {} {} {}", recipe.suite, recipe.arch, variant_name(recipe.variant))?;
            writeln!(f, "{}", words("  components", &recipe.components))?;
            writeln!(f, "{}", words("  packages", &recipe.packages))?;
            for archive in &base.archives {
                let released = calendar::iso(archive.released);
                writeln!(f, "  archive {} {released} {}", archive.suite, archive.index)?;
            }
            for LockedPackage { name, version, arch, size, digest, suite, path } in &base.packages {
                writeln!(f, "  deb {name} {version} {arch} {size} {digest} {suite} {path}")?;
            }
        }
        Ok(())
    }
}

fn words(head: &str, rest: &[String]) -> String {
    let rest: Vec<_> = rest.iter().map(String::as_str).collect();
    [&[head], rest.as_slice()].concat().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = "kiln.lock 1\n\
        # Made by `kiln lock`: commit it, don't edit it.\n\
        \n\
        base slim\n  \
        locked-at 2026-11-21T10:00:00Z\n  \
        debian bookworm amd64 essential\n  \
        components main\n  \
        packages ca-certificates\n  \
        archive bookworm 2026-07-11T10:16:37Z sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n  \
        deb adduser 3.134 all 5 sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 bookworm pool/main/a/adduser/adduser_3.134_all.deb\n";

    fn empty() -> Digest {
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap()
    }

    fn lock() -> Lock {
        let base = LockedBase {
            locked_at: calendar::parse_iso("2026-11-21T10:00:00Z").unwrap(),
            recipe: LockedRecipe {
                suite: "bookworm".into(),
                arch: "amd64".into(),
                variant: DebianVariant::Essential,
                components: vec!["main".into()],
                packages: vec!["ca-certificates".into()],
            },
            archives: vec![LockedArchive {
                suite: "bookworm".into(),
                released: calendar::parse_iso("2026-07-11T10:16:37Z").unwrap(),
                index: empty(),
            }],
            packages: vec![LockedPackage {
                name: "adduser".into(),
                version: "3.134".into(),
                arch: "all".into(),
                size: 5,
                digest: empty(),
                suite: "bookworm".into(),
                path: "pool/main/a/adduser/adduser_3.134_all.deb".into(),
            }],
        };
        Lock { bases: [(BaseName::new("slim").unwrap(), base)].into(), ..Lock::default() }
    }

    #[test]
    fn the_format_is_golden() {
        assert_eq!(lock().to_string(), GOLDEN);
        assert_eq!(Lock::parse(GOLDEN), Ok(lock()));
    }

    #[test]
    fn images_of_registries_are_lines_before_the_bases_and_make_a_newer_version() {
        let mut lock = lock();
        lock.images = [("localhost:5000/os:v1".to_owned(), empty())].into();
        let line = format!("image localhost:5000/os:v1 {}\n", empty());
        let text = GOLDEN.replace("lock 1", "lock 2").replace("\n\nbase", &format!("\n\n{line}\nbase"));
        assert_eq!(lock.to_string(), text);
        assert_eq!(Lock::parse(&text), Ok(lock));
        for (damaged, number) in
            [(text.replace(&line, &line.repeat(2)), 5), (text.replace("v1 sha256:", "v1 sha256:x"), 4)]
        {
            assert_eq!(Lock::parse(&damaged).unwrap_err().line, number, "{damaged}");
        }
    }

    #[test]
    fn tools_are_locked_like_a_base_and_make_a_newer_version() {
        let mut lock = lock();
        let same = lock.bases[&BaseName::new("slim").unwrap()].describe();
        lock.bases.values_mut().for_each(|base| base.recipe.variant = DebianVariant::Tools);
        let text = GOLDEN.replace("lock 1", "lock 3").replace("amd64 essential", "amd64 tools");
        assert_eq!(lock.to_string(), text);
        assert_eq!(Lock::parse(&text), Ok(lock.clone()));
        assert_ne!(lock.bases[&BaseName::new("slim").unwrap()].describe(), same);
    }

    #[test]
    fn the_list_that_an_image_was_found_in_stands_behind_it() {
        let mut lock = lock();
        lock.images = [("r.example/os:v1".to_owned(), empty())].into();
        lock.lists = [("r.example/os:v1".to_owned(), Digest::new([7; 32]))].into();
        let text = lock.to_string();
        let line = format!("image r.example/os:v1 {} of {}\n", empty(), Digest::new([7; 32]));
        assert!(text.starts_with("kiln.lock 4\n") && text.contains(&line), "{text}");
        assert_eq!(Lock::parse(&text), Ok(lock));
        assert_eq!(Lock::parse(&text.replace(" of sha256:", " of ")).unwrap_err().line, 4);
    }

    #[test]
    fn files_of_urls_are_lines_after_the_images_and_make_a_newer_version() {
        let mut lock = lock();
        lock.images = [("r.example/os:v1".to_owned(), empty())].into();
        lock.urls = [("https://x.example/a?b#c".to_owned(), Digest::new([7; 32]))].into();
        let text = lock.to_string();
        let line = format!("url https://x.example/a?b#c {}\n", Digest::new([7; 32]));
        let expected = format!("\n\nimage r.example/os:v1 {}\n\n{line}\nbase slim\n", empty());
        assert!(text.starts_with("kiln.lock 5\n") && text.contains(&expected), "{text}");
        assert_eq!(Lock::parse(&text), Ok(lock));
        for (damaged, number) in
            [(text.replace(&line, &line.repeat(2)), 7), (text.replace(" sha256:0707", " sha1:07"), 6)]
        {
            assert_eq!(Lock::parse(&damaged).unwrap_err().line, number, "{damaged}");
        }
    }

    #[test]
    fn commits_are_lines_after_the_urls_and_make_a_newer_version() {
        let mut lock = lock();
        lock.urls = [("https://x.example/a".to_owned(), empty())].into();
        let (address, commit) = ("git@x.example:a.git#v1:docs", "0123456789abcdef0123456789abcdef01234567");
        let locked = LockedCommit { commit: commit.into(), files: Digest::new([7; 32]) };
        lock.commits = [(address.to_owned(), locked)].into();
        let text = lock.to_string();
        let line = format!("git {address} {commit} {}\n", Digest::new([7; 32]));
        let expected = format!("\n\nurl https://x.example/a {}\n\n{line}\nbase slim\n", empty());
        assert!(text.starts_with("kiln.lock 6\n") && text.contains(&expected), "{text}");
        assert_eq!(Lock::parse(&text), Ok(lock.clone()));
        for (damaged, number) in [
            (text.replace(&line, &line.repeat(2)), 7),
            (text.replace(" sha256:0707", " sha1:07"), 6),
            (text.replace(" 0123456", " "), 6),
        ] {
            assert_eq!(Lock::parse(&damaged).unwrap_err().line, number, "{damaged}");
        }
        let stale = |promised: &str| {
            let promised = CommitPrefix::parse(promised);
            lock.stale_commit(address, &Repository { promised, place: String::new() })
        };
        assert_eq!(stale(&commit[..9]), None);
        assert!(matches!(stale("abcdef012"), Some(StaleLock::OtherCommit { .. })));
    }

    #[test]
    fn a_damaged_lock_names_the_line() {
        for (text, line) in [
            ("", 1),
            ("kiln.lock 99\n", 1),
            ("kiln.lock 1\nlocked-at 2026-11-21T10:00:00Z\n", 2),
            (&GOLDEN.replace("deb adduser", "deb"), 10),
            (&GOLDEN.replace("pool/main", "pool/../../etc"), 10),
            (&GOLDEN.replace("  locked-at 2026-11-21T10:00:00Z\n", ""), 9),
        ] {
            assert_eq!(Lock::parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn a_base_whose_recipe_changed_is_outdated_but_a_new_mirror_is_not() {
        let mut recipe = DebianBase {
            suite: "bookworm".into(),
            mirror: Some("http://mirror.invalid/debian".into()),
            components: vec!["main".into()],
            packages: vec!["ca-certificates".into()],
            variant: DebianVariant::Essential,
        };
        let name = BaseName::new("slim").unwrap();
        let mut lock = lock();
        for base in lock.bases.values_mut() {
            base.recipe.arch = ARCH.into();
        }
        assert_eq!(lock.stale_base(&name, &BaseRecipe::Debian(recipe.clone())), None);
        recipe.packages.push("curl".into());
        let stale = lock.stale_base(&name, &BaseRecipe::Debian(recipe)).unwrap();
        assert_eq!(stale, StaleLock::Outdated { base: name, what: "packages" });
    }
}
