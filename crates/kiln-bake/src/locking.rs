//! Making a lock: what the signed indexes offer today, pinned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use kiln_model::recipe::{BaseRecipe, DebianBase};
use kiln_model::stack::{RegistryRules, Stack};
use kiln_model::{BaseName, Digest, Timestamp};
use kiln_store::Store;

use crate::bake::Repository;
use crate::cache::PackageCache;
use crate::cancel::Cancel;
use crate::debian::archive::{self, Opened};
use crate::debian::index::{Index, Package};
use crate::debian::mirror::{Archive, archives};
use crate::debian::resolve::resolve;
use crate::debian::{ArchiveError, Keyring, KeyringError, NoMirror, ResolveError};
use crate::fetch::{FetchError, Fetcher};
use crate::git::{Address, Checkouts, GitError, LockedCommit};
use crate::lock::{Lock, LockedArchive, LockedBase, LockedPackage, LockedRecipe, safe_path};
use crate::outside::{Registries, RegistriesError, Resolved};
use crate::progress::{Progress, Report, StepState};
use crate::signed_bases::{self, Locked, UnsignedError};

/// How a lock is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockOptions {
    /// Whether bases that are locked already move to what the archive has today.
    pub upgrade: bool,
    /// The time of the lock: what is found to be different gets it, and indexes are judged by it.
    pub now: Timestamp,
}

/// Why no lock could be made. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The keyring can't be used.
    #[error("no archive can be verified")]
    Keyring(#[source] KeyringError),
    /// No mirror is known.
    #[error("cannot lock base `{base}`")]
    NoMirror {
        /// The base.
        base: BaseName,
        /// The cause.
        #[source]
        source: NoMirror,
    },
    /// An archive's index can't be used.
    #[error("cannot lock base `{base}`")]
    Archive {
        /// The base.
        base: BaseName,
        /// The cause.
        #[source]
        source: Box<ArchiveError>,
    },
    /// The mirror offers an older index than the one that was locked.
    #[error("cannot lock base `{base}`: the mirror's index of {suite} is older than the one in kiln.lock")]
    Older {
        /// The base.
        base: BaseName,
        /// The suite.
        suite: String,
    },
    /// The packages don't fit together.
    #[error("cannot lock base `{base}`")]
    Resolve {
        /// The base.
        base: BaseName,
        /// The cause.
        #[source]
        source: ResolveError,
    },
    /// The index describes a package in a way that can't be used.
    #[error("cannot lock base `{base}`: the index of {suite} has no usable {field} for `{package}`")]
    BadPackage {
        /// The base.
        base: BaseName,
        /// The suite.
        suite: String,
        /// The package.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// The file of a URL did not come.
    #[error("cannot lock the file of `{url}`")]
    Url {
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// A Git repository gave nothing.
    #[error("{place}: cannot lock the commit of `{address}`")]
    Commit {
        /// The file and the line of the ADD.
        place: String,
        /// The repository.
        address: String,
        /// Why.
        #[source]
        source: GitError,
    },
    /// An image of a registry can't be found.
    #[error("cannot lock an image")]
    Image(#[source] RegistriesError),
    /// An image of a registry is not signed as the stack wants it.
    #[error("cannot lock an image")]
    Unsigned(#[source] UnsignedError),
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl LockError {
    /// Says what to do next; none where the error itself says it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Keyring(_) => "install the package debian-archive-keyring".into(),
            Self::NoMirror { .. } => {
                "set `mirror` in the base, for example to the URL that apt uses on another machine".into()
            }
            Self::Archive { source, .. } => return archive_hint(source),
            Self::Older { .. } => "wait for the mirror to catch up, or set `mirror` to another".into(),
            Self::Resolve { source, .. } => match source {
                ResolveError::UnknownPackage { nearest: Some(nearest), .. } => {
                    format!("did you mean `{nearest}`?")
                }
                ResolveError::UnknownPackage { .. } => {
                    "check the spelling, and whether it is in another of the archive's `components`".into()
                }
                ResolveError::Unsatisfiable { .. } => {
                    "it may be in another of the archive's `components`".into()
                }
                ResolveError::Conflict(_) => "leave out one of the two".into(),
            },
            Self::BadPackage { .. } => "report it to the archive's owner".into(),
            Self::Url { source: FetchError::Missing { .. } | FetchError::Page { .. }, .. } => {
                "check the URL; an ADD with `--checksum=sha256:…` needs no lock".into()
            }
            Self::Url { source: FetchError::TooLarge { .. }, .. } => {
                "put the file into the build context".into()
            }
            Self::Url { .. } => "check the network, or put the file into the build context".into(),
            Self::Commit { source, .. } => return source.hint().map(str::to_owned),
            Self::Image(error) => return error.hint.clone(),
            Self::Unsigned(error) => return error.hint(),
            Self::Cancelled => return None,
        };
        Some(hint)
    }

    /// Whether another attempt would fail again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Archive { source, .. } => match source.as_ref() {
                ArchiveError::Fetch { source, .. } => source.is_permanent(),
                _ => true,
            },
            Self::Url { source, .. } => source.is_permanent(),
            Self::Commit { source, .. } => source.is_permanent(),
            Self::Image(error) => error.is_permanent,
            Self::Older { .. } | Self::Cancelled => false,
            _ => true,
        }
    }
}

fn archive_hint(error: &ArchiveError) -> Option<String> {
    let hint = match error {
        ArchiveError::Fetch { source: FetchError::Missing { .. }, .. } => {
            "check `suite` and `mirror`: this mirror does not have it"
        }
        ArchiveError::Fetch { source: FetchError::WrongHash { .. }, .. } => {
            "the mirror may be in the middle of an update: try again in some minutes, or set `mirror` to another"
        }
        ArchiveError::Fetch { .. } => "check the network, or set `mirror` to another",
        ArchiveError::Signature { .. } => {
            "the mirror is not to be trusted, or debian-archive-keyring is older than the suite"
        }
        ArchiveError::Expired { .. } => "the mirror is no longer updated: set `mirror` to another",
        ArchiveError::Future { .. } => "check this machine's clock",
        ArchiveError::WrongSuite { .. } => "use the suite's code name",
        ArchiveError::NoComponent { .. } => "check `components`",
        ArchiveError::Malformed { .. } => "set `mirror` to another",
    };
    Some(hint.into())
}

/// Pins images of registries; see [`crate::Baker::lock_images`].
pub(crate) fn lock_images(
    (store, registries): (&Store, &dyn Registries),
    cancel: &Cancel,
    (names, rules): (&BTreeSet<String>, &BTreeMap<String, RegistryRules>),
    existing: Option<&Lock>,
    options: LockOptions,
    report: Report<'_>,
) -> Result<Lock, LockError> {
    let mut lock = Lock::default();
    for (index, name) in names.iter().enumerate() {
        if cancel.is_set() {
            return Err(LockError::Cancelled);
        }
        let old = existing.filter(|_| !options.upgrade).and_then(|lock| {
            Some(Resolved { manifest: *lock.images.get(name)?, list: lock.lists.get(name).copied() })
        });
        let found = match old {
            Some(old) => old,
            None => {
                let tell = |state| {
                    let (step, steps, what) = (index + 1, names.len(), format!("find {name}"));
                    report(Progress { subject: "lock images".into(), step, steps, what, state });
                };
                tell(StepState::Started);
                let began = Instant::now();
                let found = registries.resolve(name).map_err(LockError::Image)?;
                tell(StepState::Finished { cached: false, elapsed: began.elapsed() });
                found
            }
        };
        let Resolved { manifest, list } = found;
        signed_bases::check(store, registries, rules, Locked { name, manifest, list })
            .map_err(LockError::Unsigned)?;
        lock.images.insert(name.clone(), manifest);
        lock.lists.extend(list.map(|list| (name.clone(), list)));
    }
    Ok(lock)
}

/// Pins the files of URLs; see [`crate::Baker::lock_urls`].
pub(crate) fn lock_urls(
    (packages, fetcher): (&PackageCache, &Fetcher),
    urls: &BTreeSet<String>,
    existing: Option<&Lock>,
    options: LockOptions,
    report: Report<'_>,
) -> Result<BTreeMap<String, Digest>, LockError> {
    let old = existing.filter(|_| !options.upgrade);
    let mut locked = BTreeMap::new();
    for (index, url) in urls.iter().enumerate() {
        if let Some(digest) = old.and_then(|lock| lock.urls.get(url)) {
            locked.insert(url.clone(), *digest);
            continue;
        }
        let tell = |state| {
            let (step, steps, what) = (index + 1, urls.len(), format!("fetch {url}"));
            report(Progress { subject: "lock files".into(), step, steps, what, state });
        };
        tell(StepState::Started);
        let began = Instant::now();
        let digest = packages.learn(fetcher, url).map_err(|source| match source {
            FetchError::Cancelled => LockError::Cancelled,
            source => LockError::Url { url: url.clone(), source },
        })?;
        tell(StepState::Finished { cached: false, elapsed: began.elapsed() });
        locked.insert(url.clone(), digest);
    }
    Ok(locked)
}

/// Pins the commits of Git repositories; see [`crate::Baker::lock_repositories`].
pub(crate) fn lock_repositories(
    checkouts: &Checkouts<'_>,
    repositories: &BTreeMap<String, Repository>,
    existing: Option<&Lock>,
    options: LockOptions,
    report: Report<'_>,
) -> Result<BTreeMap<String, LockedCommit>, LockError> {
    let old = existing.filter(|_| !options.upgrade);
    let mut locked = BTreeMap::new();
    for (index, (address, asked)) in repositories.iter().enumerate() {
        let old = old.filter(|lock| lock.stale_commit(address, asked).is_none());
        if let Some(commit) = old.and_then(|lock| lock.commits.get(address)) {
            locked.insert(address.clone(), commit.clone());
            continue;
        }
        let tell = |state| {
            let (step, steps, what) = (index + 1, repositories.len(), format!("fetch {address}"));
            report(Progress { subject: "lock repositories".into(), step, steps, what, state });
        };
        tell(StepState::Started);
        let began = Instant::now();
        let parsed = Address::parse(address).expect("what a Dockerfile adds was parsed when it was noted");
        let commit = checkouts.learn(&parsed, asked.promised.as_ref()).map_err(|source| match source {
            GitError::Cancelled => LockError::Cancelled,
            source => LockError::Commit { place: asked.place.clone(), address: address.clone(), source },
        })?;
        tell(StepState::Finished { cached: false, elapsed: began.elapsed() });
        locked.insert(address.clone(), commit);
    }
    Ok(locked)
}

/// What making a lock needs of the machine.
#[derive(Debug)]
pub(crate) struct Locker<'a> {
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) cancel: &'a Cancel,
    pub(crate) apt: PathBuf,
    pub(crate) keyring: PathBuf,
    pub(crate) options: LockOptions,
}

impl Locker<'_> {
    /// Locks every base of a stack; entries that still fit stay as they are unless an upgrade is asked for.
    pub(crate) fn lock(
        &self,
        stack: &Stack,
        existing: Option<&Lock>,
        report: Report<'_>,
    ) -> Result<Lock, LockError> {
        let empty = Lock::default();
        let existing = existing.unwrap_or(&empty);
        let mut lock = Lock::default();
        let mut keyring = None;
        for (name, recipe) in &stack.bases {
            let BaseRecipe::Debian(debian) = recipe;
            let fits = existing.stale_base(name, recipe).is_none();
            let old = existing.bases.get(name);
            if let (true, false, Some(old)) = (fits, self.options.upgrade, old) {
                lock.bases.insert(name.clone(), old.clone());
                continue;
            }
            if keyring.is_none() {
                keyring = Some(Keyring::load(&self.keyring).map_err(LockError::Keyring)?);
            }
            let keyring = keyring.as_ref().expect("it was loaded just now");
            let new = self.lock_base(name, debian, keyring, old, report)?;
            lock.bases.insert(name.clone(), keep_if_same(old, new));
        }
        Ok(lock)
    }

    fn lock_base(
        &self,
        base: &BaseName,
        recipe: &DebianBase,
        keyring: &Keyring,
        old: Option<&LockedBase>,
        report: Report<'_>,
    ) -> Result<LockedBase, LockError> {
        let tell = |step, what: &str, state| {
            let subject = format!("base {base}");
            report(Progress { subject, step, steps: 2, what: what.into(), state });
        };
        let began = Instant::now();
        tell(1, "read the archive's index", StepState::Started);
        let places = archives(recipe, &self.apt)
            .map_err(|source| LockError::NoMirror { base: base.clone(), source })?;
        let mut opened = self.open_all(base, &places, recipe, keyring)?;
        check_age(base, &opened, old)?;
        tell(1, "read the archive's index", StepState::Finished { cached: false, elapsed: began.elapsed() });
        let began = Instant::now();
        tell(2, "resolve packages", StepState::Started);
        let texts = opened.iter_mut().map(|one| std::mem::take(&mut one.packages)).collect();
        let index = Index::new(texts);
        let found = resolve(&index, &recipe.suite, recipe.variant, &recipe.packages)
            .map_err(|source| LockError::Resolve { base: base.clone(), source })?;
        let packages =
            found.into_iter().map(|package| locked(base, package, &opened)).collect::<Result<_, _>>()?;
        tell(2, "resolve packages", StepState::Finished { cached: false, elapsed: began.elapsed() });
        Ok(LockedBase {
            locked_at: self.options.now.0 / 1000,
            recipe: LockedRecipe::of(recipe),
            archives: opened
                .into_iter()
                .map(|one| LockedArchive { suite: one.suite, released: one.released, index: one.digest })
                .collect(),
            packages,
        })
    }

    fn open_all(
        &self,
        base: &BaseName,
        places: &[Archive],
        recipe: &DebianBase,
        keyring: &Keyring,
    ) -> Result<Vec<Opened>, LockError> {
        let now = self.options.now.0 / 1000;
        let open = |place| archive::open(self.fetcher, place, &recipe.components, keyring, now);
        // A suite and its updates and fixes: three threads at most.
        let all: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = places.iter().map(|place| scope.spawn(move || open(place))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("reading an index does not panic"))
                .collect()
        });
        if self.cancel.is_set() {
            return Err(LockError::Cancelled);
        }
        all.into_iter()
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()
            .map_err(|source| LockError::Archive { base: base.clone(), source: Box::new(source) })
    }
}

/// A mirror that serves an old index, signed as it is, would take security fixes away again.
fn check_age(base: &BaseName, opened: &[Opened], old: Option<&LockedBase>) -> Result<(), LockError> {
    let released: BTreeMap<_, _> = opened.iter().map(|one| (one.suite.as_str(), one.released)).collect();
    for archive in old.map_or(&[][..], |old| &old.archives) {
        if released.get(archive.suite.as_str()).is_some_and(|released| *released < archive.released) {
            return Err(LockError::Older { base: base.clone(), suite: archive.suite.clone() });
        }
    }
    Ok(())
}

fn locked(base: &BaseName, package: Package<'_>, opened: &[Opened]) -> Result<LockedPackage, LockError> {
    let suite = opened[package.archive].suite.clone();
    let bad = |field| LockError::BadPackage {
        base: base.clone(),
        suite: suite.clone(),
        package: package.name.into(),
        field,
    };
    let field = |name| package.fields.get(name);
    Ok(LockedPackage {
        name: word(package.name).ok_or_else(|| bad("Package"))?,
        version: word(package.version).ok_or_else(|| bad("Version"))?,
        arch: field("Architecture").and_then(word).ok_or_else(|| bad("Architecture"))?,
        size: field("Size").and_then(|text| text.parse().ok()).ok_or_else(|| bad("Size"))?,
        digest: field("SHA256")
            .and_then(|hex| format!("sha256:{hex}").parse().ok())
            .ok_or_else(|| bad("SHA256"))?,
        path: field("Filename").and_then(safe_path).map(Into::into).ok_or_else(|| bad("Filename"))?,
        suite,
    })
}

/// A lock's lines are words, so what stands in one must be one.
fn word(text: &str) -> Option<String> {
    let plain =
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) && !text.starts_with('#');
    plain.then(|| text.to_owned())
}

/// An upgrade that finds the same packages changes nothing, so that no image changes for it.
fn keep_if_same(old: Option<&LockedBase>, new: LockedBase) -> LockedBase {
    match old {
        Some(old) if old.recipe == new.recipe && old.packages == new.packages => old.clone(),
        _ => new,
    }
}
