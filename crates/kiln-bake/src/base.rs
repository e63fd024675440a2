//! A Debian base: fetched, unpacked, configured, normalised.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kiln_model::recipe::DebianBase;
use kiln_store::{Batch, Entry, Meta, Store, Tree, TreePath};

use crate::bake_error::StepError;
use crate::cache::PackageCache;
use crate::cancel::Cancel;
use crate::debian::unpack::{self, Unpacked};
use crate::debian::{database, deb, mirror};
use crate::fetch::{CONNECTIONS_MAX, FetchError, Fetcher};
use crate::lock::{LockedBase, LockedPackage};
use crate::normalise::{Occasion, normalise};
use crate::sandbox::{Invocation, User};
use crate::secrets::Hidden;
use crate::workbench::{DEFAULT_PATH, Shown, Workbench, environment};

/// The folder of the installation's own files in the sandbox, beside the clock; never part of the image.
const SCAFFOLD: &str = crate::clock::FOLDER;

/// No service is started by a maintainer script: there is none to talk to.
const POLICY: (&str, &[u8]) = ("usr/sbin/policy-rc.d", b"#!/bin/sh\nexit 101\n");

/// No init runs either. Told so, libc6's script does not ask for its restart, and does not wait a second for it.
const ISCHROOT: &[u8] = b"#!/bin/sh\nexit 0\n";

/// What making a base needs of the machine.
#[derive(Debug)]
pub(crate) struct BaseMaker<'a> {
    pub(crate) store: &'a Store,
    pub(crate) fetcher: &'a Fetcher,
    pub(crate) packages: &'a PackageCache,
    pub(crate) workbench: &'a Workbench,
    pub(crate) cancel: &'a Cancel,
    pub(crate) apt: &'a std::path::Path,
    pub(crate) timeout: Duration,
}

impl BaseMaker<'_> {
    /// Obtains every package of a locked base; `tell` hears of the bytes that are there.
    pub(crate) fn fetch(
        &self,
        recipe: &DebianBase,
        locked: &LockedBase,
        tell: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<PathBuf>, StepError> {
        let archives = mirror::archives(recipe, self.apt)?;
        let root = |package: &LockedPackage| {
            let archive = archives.iter().find(|archive| archive.suite == package.suite);
            archive
                .map(|archive| archive.root.as_str())
                .ok_or_else(|| mirror::NoMirror { suite: package.suite.clone(), apt: self.apt.into() })
        };
        let obtain = |package: &LockedPackage| {
            let url = format!("{}/{}", root(package)?, package.path);
            let obtained = self.packages.obtain(self.fetcher, &url, package.size, &package.digest);
            let path = obtained.map_err(|source| match source {
                FetchError::Cancelled => StepError::Cancelled,
                source => StepError::Fetch { package: package.name.clone(), source },
            })?;
            tell(package.size);
            Ok(path)
        };
        parallel(&locked.packages, CONNECTIONS_MAX, obtain)
    }

    /// Reads all packages into the store, on all cores.
    pub(crate) fn unpack(&self, locked: &LockedBase, files: &[PathBuf]) -> Result<Vec<Unpacked>, StepError> {
        let batch = self.store.objects.batch();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let pairs: Vec<_> = locked.packages.iter().zip(files).collect();
        let unpacked = parallel(&pairs, cores, |(package, file)| {
            if self.cancel.is_set() {
                return Err(StepError::Cancelled);
            }
            let deb = deb::read(file, &batch)
                .map_err(|source| StepError::Deb { package: package.name.clone(), source })?;
            let control = String::from_utf8_lossy(&deb.control["control"]).into_owned();
            Ok(Unpacked { name: package.name.clone(), version: package.version.clone(), control, deb })
        })?;
        batch.commit()?;
        Ok(unpacked)
    }

    /// Lays the packages into one tree and runs their scripts over it.
    pub(crate) fn install(&self, locked: &LockedBase, packages: &[Unpacked]) -> Result<Tree, StepError> {
        let order = unpack::order(packages);
        let mut tree = unpack::lay(packages, &order)?;
        let essential = unpack::essential_closure(packages);
        let batch = self.store.objects.batch();
        database::write(&mut tree, &batch, packages, |index| essential.contains(&index))?;
        let mut furnished = tree.clone();
        scaffold(&mut furnished, &batch, packages, &order, &essential)?;
        batch.commit()?;
        let mut env = environment(locked.locked_at);
        for (name, value) in [("DEBIAN_FRONTEND", "noninteractive"), ("DEBCONF_NONINTERACTIVE_SEEN", "true")]
        {
            env.insert(name.into(), value.into());
        }
        env.insert("PATH".into(), format!("/{SCAFFOLD}/bin:{DEFAULT_PATH}"));
        let argv = ["/bin/sh".to_owned(), "-e".to_owned(), format!("/{SCAFFOLD}/install")];
        let invocation = Invocation {
            argv: &argv,
            env: &env,
            workdir: "/",
            user: User::default(),
            network: false,
            timeout: self.timeout,
            mounts: &[],
            hidden: &Hidden::default(),
        };
        let before = tree.clone();
        let shown = Shown { tree: furnished, before: None };
        self.workbench.run(self.store, shown, &mut tree, &invocation, locked.locked_at, self.cancel)?;
        for path in [SCAFFOLD, POLICY.0] {
            let path = TreePath::parse(path).expect("a constant path is valid");
            if before.get(&path).is_none() {
                tree.remove(&path);
            }
        }
        let batch = self.store.objects.batch();
        normalise(&mut tree, Occasion::Base, &self.store.objects, &batch, locked.locked_at)?;
        batch.commit()?;
        Ok(tree)
    }
}

/// Puts the installation's own files into what the sandbox shows.
fn scaffold(
    tree: &mut Tree,
    batch: &Batch,
    packages: &[Unpacked],
    order: &[usize],
    essential: &BTreeSet<usize>,
) -> Result<(), StepError> {
    let later: String = packages
        .iter()
        .enumerate()
        .filter(|(index, _)| !essential.contains(index))
        .map(|(_, package)| database::status(package))
        .collect();
    let script = install_script(packages, order, essential);
    let files = [
        (format!("{SCAFFOLD}/install"), 0o755, script.as_bytes()),
        (format!("{SCAFFOLD}/status"), 0o644, later.as_bytes()),
        (format!("{SCAFFOLD}/bin/ischroot"), 0o755, ISCHROOT),
        (POLICY.0.to_owned(), 0o755, POLICY.1),
    ];
    for (path, mode, bytes) in files {
        let path = TreePath::parse(path).expect("a constant path is valid");
        let stored = batch.put_bytes(bytes)?;
        tree.make_dirs(&path.parent().unwrap_or_default(), &Meta { mode: 0o755, ..Meta::default() })?;
        tree.insert(&path, Entry::file(mode, stored.digest, stored.size))?;
    }
    Ok(())
}

/// Writes what debootstrap and mmdebstrap do: the Essential set with all that it needs first, base-passwd and base-files
/// before the rest of it because every other script may name users and folders; then everything else.
fn install_script(packages: &[Unpacked], order: &[usize], essential: &BTreeSet<usize>) -> String {
    let mut script = String::from(
        "dpkg() { command dpkg --force-unsafe-io --force-confold \"$@\"; }\n\
         preinst() { echo \"kiln: preinst of $1\"; DPKG_MAINTSCRIPT_PACKAGE=\"$1\" DPKG_MAINTSCRIPT_ARCH=\"$3\" \
         DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT=1 DPKG_ADMINDIR=/var/lib/dpkg DPKG_ROOT= \
         DPKG_RUNNING_VERSION=1.22 \"/var/lib/dpkg/info/$2.preinst\" install; }\n",
    );
    let preinsts = |first: bool, script: &mut String| {
        for &index in order.iter().filter(|index| essential.contains(index) == first) {
            let package = &packages[index];
            if package.deb.control.contains_key("preinst") {
                let arch = package.paragraph().get("Architecture").unwrap_or("");
                let info = database::info_name(package);
                script.push_str(&format!("preinst '{}' '{info}' '{arch}'\n", package.name));
            }
        }
    };
    preinsts(true, &mut script);
    for name in ["base-passwd", "base-files"] {
        if packages.iter().any(|package| package.name == name) {
            script.push_str(&format!("dpkg --force-depends --configure {name}\n"));
        }
    }
    script.push_str("dpkg --configure -a\n");
    if packages.len() > essential.len() {
        script.push_str(&format!("cat /{SCAFFOLD}/status >> /var/lib/dpkg/status\n"));
        preinsts(false, &mut script);
        script.push_str("dpkg --configure -a\n");
    }
    script
}

/// Does work on several threads, and returns the outcomes in order or the first error in order.
fn parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    work: impl Fn(&T) -> Result<R, StepError> + Sync,
) -> Result<Vec<R>, StepError> {
    let next = AtomicUsize::new(0);
    let failed = std::sync::atomic::AtomicBool::new(false);
    let done: Mutex<Vec<(usize, Result<R, StepError>)>> = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                while let Some((index, item)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    items.get(index).filter(|_| !failed.load(Ordering::Relaxed)).map(|item| (index, item))
                } {
                    let outcome = work(item);
                    failed.fetch_or(outcome.is_err(), Ordering::Relaxed);
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((index, outcome));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}
