//! The one entry point: locks and bakes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_model::image::Image;
use kiln_model::stack::Stack;
use kiln_model::{Digest, ImageName};
use kiln_store::Store;

use crate::bake::{Bake, Baked, Repository};
use crate::bake_error::{BakeError, OpenBakerError};
use crate::cache::{PACKAGES, PackageCache};
use crate::cancel::Cancel;
use crate::debian::{APT_PATH, KEYRING_PATH};
use crate::fetch::Fetcher;
use crate::git::{Checkouts, LockedCommit};
use crate::lock::Lock;
use crate::locking::{self, LockError, LockOptions, Locker};
use crate::outside::{NoRegistries, Registries};
use crate::progress::Report;
use crate::sandbox::StepLimits;
use crate::secrets::{NoSecrets, Secrets};
use crate::source::Source;
use crate::stage::{CacheMounts, MOUNTS};
use crate::steps::{StepCache, cache_of};
use crate::workbench::Workbench;

/// A step that takes this long hangs: the largest installations take a few minutes.
const STEP_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How a machine bakes.
#[derive(Debug, Clone)]
pub struct BakerOptions {
    /// The keys that may sign an archive's index.
    pub keyring: PathBuf,
    /// Where apt is told its sources.
    pub apt: PathBuf,
    /// Where packages, records and work folders are; none means `cache` in the store's folder. It must be on a file system
    /// that an overlay can write to.
    pub cache: Option<PathBuf>,
    /// Whether every step is done again although its outcome is there.
    pub no_cache: bool,
    /// How long one step may take.
    pub step_timeout: Duration,
    /// What all steps may use together.
    pub limits: StepLimits,
    /// Where images of registries come from; by default there are none.
    pub registries: Arc<dyn Registries>,
    /// Where the values of secrets come from; by default there are none.
    pub secrets: Arc<dyn Secrets>,
    /// The socket of the SSH agent that commands may use where the stack says so.
    pub ssh_agent: Option<PathBuf>,
    /// Calls it off.
    pub cancel: Cancel,
}

impl Default for BakerOptions {
    fn default() -> Self {
        Self {
            keyring: KEYRING_PATH.into(),
            apt: APT_PATH.into(),
            cache: None,
            no_cache: false,
            step_timeout: STEP_TIMEOUT,
            limits: StepLimits::default(),
            registries: Arc::new(NoRegistries),
            secrets: Arc::new(NoSecrets),
            ssh_agent: None,
            cancel: Cancel::default(),
        }
    }
}

/// Makes locks and images.
#[derive(Debug)]
pub struct Baker {
    pub(crate) store: Store,
    /// The folder of caches.
    pub(crate) root: PathBuf,
    pub(crate) options: BakerOptions,
    pub(crate) fetcher: Fetcher,
    pub(crate) packages: PackageCache,
    pub(crate) steps: StepCache,
    pub(crate) workbench: Workbench,
    pub(crate) caches: CacheMounts,
}

impl Baker {
    /// Opens the folders of a bake.
    ///
    /// # Errors
    /// The file system refused.
    pub fn new(store: Store, options: BakerOptions) -> Result<Self, OpenBakerError> {
        let root = options.cache.clone().unwrap_or_else(|| cache_of(&store));
        let at = |name: &str| root.join(name);
        let failed = |path: PathBuf| move |source| OpenBakerError { path, source };
        Ok(Self {
            fetcher: Fetcher::new(options.cancel.clone()),
            packages: PackageCache::open(at(PACKAGES)).map_err(failed(at(PACKAGES)))?,
            steps: StepCache::open(&root).map_err(failed(root.clone()))?,
            caches: CacheMounts::open(at(MOUNTS)).map_err(failed(at(MOUNTS)))?,
            workbench: Workbench::open(at("work"), options.limits).map_err(failed(at("work")))?,
            store,
            root,
            options,
        })
    }

    /// Pins what a stack's bases are made from, and no images. Entries of `existing` that still fit stay as they are, unless an upgrade is
    /// asked for.
    ///
    /// # Errors
    /// See [`LockError`]; nothing was changed.
    pub fn lock(
        &self,
        stack: &Stack,
        existing: Option<&Lock>,
        options: LockOptions,
        report: Report<'_>,
    ) -> Result<Lock, LockError> {
        let locker = Locker {
            fetcher: &self.fetcher,
            cancel: &self.options.cancel,
            apt: self.options.apt.clone(),
            keyring: self.options.keyring.clone(),
            options,
        };
        locker.lock(stack, existing, report)
    }

    /// Pins images of registries to what their names mean today, for this machine, if they are signed as the stack wants it.
    /// Those of `existing` stay as they are, unless an upgrade is asked for. The lock has no bases.
    ///
    /// # Errors
    /// See [`LockError`]; nothing was changed.
    pub fn lock_images(
        &self,
        stack: &Stack,
        names: &BTreeSet<String>,
        existing: Option<&Lock>,
        options: LockOptions,
        report: Report<'_>,
    ) -> Result<Lock, LockError> {
        locking::lock_images(
            (&self.store, &*self.options.registries),
            &self.options.cancel,
            (names, &stack.registries),
            existing,
            options,
            report,
        )
    }

    /// Pins the files of URLs to what their servers have today. Those of `existing` stay as they are, unless an upgrade is asked for.
    ///
    /// # Errors
    /// See [`LockError`]; nothing was changed.
    pub fn lock_urls(
        &self,
        urls: &BTreeSet<String>,
        existing: Option<&Lock>,
        options: LockOptions,
        report: Report<'_>,
    ) -> Result<BTreeMap<String, Digest>, LockError> {
        locking::lock_urls((&self.packages, &self.fetcher), urls, existing, options, report)
    }

    /// Pins what Git repositories have today, or what their checksums say. What `existing` has and still fits stays as it is, unless an
    /// upgrade is asked for.
    ///
    /// # Errors
    /// See [`LockError`]; nothing was changed.
    pub fn lock_repositories(
        &self,
        repositories: &BTreeMap<String, Repository>,
        existing: Option<&Lock>,
        options: LockOptions,
        report: Report<'_>,
    ) -> Result<BTreeMap<String, LockedCommit>, LockError> {
        let checkouts = Checkouts { cache: &self.packages, cancel: &self.options.cancel };
        locking::lock_repositories(&checkouts, repositories, existing, options, report)
    }

    /// Bakes images with all that they are made from, side by side where none is made from another; what has not changed is found
    /// by its content. The first failure calls the others off.
    ///
    /// # Errors
    /// See [`BakeError`].
    pub fn bake(
        &self,
        stack: &Stack,
        lock: &Lock,
        source: &Source,
        names: &BTreeSet<ImageName>,
        report: Report<'_>,
    ) -> Result<BTreeMap<ImageName, Image>, BakeError> {
        let _lease = self.store.leases.take("bake")?;
        Ok(self.bake_and_list(stack, lock, source, names, report)?.images)
    }

    /// The same, and tells what software is in those that are new. Hold a lease.
    ///
    /// # Errors
    /// See [`BakeError`].
    pub fn bake_and_list(
        &self,
        stack: &Stack,
        lock: &Lock,
        source: &Source,
        names: &BTreeSet<ImageName>,
        report: Report<'_>,
    ) -> Result<Baked, BakeError> {
        let bake = Bake::new(self, stack, lock, source, names, report)?;
        let made = bake.all()?;
        Ok(bake.images(made))
    }

    /// The same, and tells of each image what it was made from, so that it can be compared with another bake's. Hold a lease: what is
    /// told is no image's.
    ///
    /// # Errors
    /// See [`BakeError`].
    pub fn bake_with_parts(
        &self,
        stack: &Stack,
        lock: &Lock,
        source: &Source,
        names: &BTreeSet<ImageName>,
        report: Report<'_>,
    ) -> Result<Baked, BakeError> {
        let bake = Bake::new(self, stack, lock, source, names, report)?;
        let made = bake.all()?;
        let parts = bake.made_from(&made)?;
        Ok(Baked { parts, ..bake.images(made) })
    }
}
