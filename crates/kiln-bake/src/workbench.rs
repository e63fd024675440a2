//! Running commands over a tree, and taking what they changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_model::Digest;
use kiln_store::trees::{AssembleError, PutTreeError};
use kiln_store::{Store, Strategy, Tree, TreePath};

use crate::cancel::Cancel;
use crate::capture::{CaptureError, Times, capture};
use crate::clock::{self, ClockError};
use crate::sandbox::{self, Group, Invocation, SandboxError, StepLimits};
use crate::secrets::LeakError;

/// An overlay can't lie over the best strategy's: the kernel stacks two deep, and a file-backed EROFS counts as one.
const STRATEGIES: [Strategy; 3] = [Strategy::LoopOverlay, Strategy::FileWhole, Strategy::LoopWhole];

/// Why a command over a tree came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// There is no place to work in.
    #[error("{} can't be used as work folder", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tree that it is to see can't be stored.
    #[error(transparent)]
    Put(#[from] PutTreeError),
    /// It can't be given the lock's time.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// The tree can't be mounted.
    #[error(transparent)]
    Mount(#[from] AssembleError),
    /// The command did not succeed.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// What it changed can't be looked through.
    #[error("what the command wrote can't be read")]
    Search(#[source] io::Error),
    /// It would have left a secret behind.
    #[error(transparent)]
    Leak(#[from] LeakError),
    /// Its changes can't be taken.
    #[error(transparent)]
    Capture(#[from] CaptureError),
}

/// Where commands run: a folder on the store's file system.
#[derive(Debug)]
pub(crate) struct Workbench {
    folder: PathBuf,
    group: Group,
}

impl Workbench {
    /// Opens the folder, and removes what dead bakes left in it.
    pub(crate) fn open(folder: PathBuf, limits: StepLimits) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            let name = entry.file_name();
            let pid = name.to_str().and_then(|name| name.split('.').next()?.parse::<u32>().ok());
            let dead = pid.is_none_or(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if dead {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { folder, group: Group::find(limits)? })
    }

    /// Returns the folder. What in it begins with the number of a process that is gone is removed at the next opening.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns what of the limits can't be enforced on this machine, and why.
    pub(crate) fn unenforced(&self) -> Option<String> {
        self.group.unenforced()
    }

    /// Runs a command over `shown` at the time `latest`, and takes what it changed into `tree`.
    ///
    /// The two differ where the sandbox holds more than the image is to have. Whoever may reach the network sees the machine's
    /// clock: certificates are good for a time.
    pub(crate) fn run(
        &self,
        store: &Store,
        mut shown: Tree,
        tree: &mut Tree,
        invocation: &Invocation<'_>,
        latest: u64,
        cancel: &Cancel,
    ) -> Result<(), WorkError> {
        let bench = Bench::new(&self.folder)?;
        let clocked = !invocation.network;
        if clocked {
            clock::install(&mut shown, &store.objects, latest)?;
        }
        let mount = mount_once(store, &shown)?;
        drop(shown);
        let times = Times::of(latest, || sandbox::run(invocation, mount, &bench.0, &self.group, cancel))?;
        if let Some(leak) = invocation.hidden.find(&bench.0.join("upper")).map_err(WorkError::Search)? {
            return Err(leak.into());
        }
        let own = TreePath::parse(clock::FOLDER).expect("a constant path is valid");
        let had = tree.get(&own).is_some();
        let batch = store.objects.batch();
        capture(&bench.0.join("upper"), tree, &batch, times)?;
        batch.commit().map_err(CaptureError::Put)?;
        if clocked {
            clock::uninstall(tree, had, &store.objects)?;
        } else if !had {
            tree.remove(&own);
        }
        Ok(())
    }
}

/// Mounts a tree that nobody mounts again so that an overlay can lie over it: it is in the store only where the kernel wants that.
pub(crate) fn mount_once(store: &Store, tree: &Tree) -> Result<std::os::fd::OwnedFd, WorkError> {
    match store.trees.mount_unstored(tree, STRATEGIES[0])? {
        Some(mounted) => Ok(mounted.mount),
        None => Ok(assemble(store, &store.trees.put(tree)?)?),
    }
}

/// Mounts a tree so that an overlay can lie over it.
pub(crate) fn assemble(store: &Store, tree: &Digest) -> Result<std::os::fd::OwnedFd, AssembleError> {
    let mut refused = None;
    for strategy in STRATEGIES {
        match store.trees.assemble_with(tree, strategy) {
            Ok(mounted) => return Ok(mounted.mount),
            Err(error @ AssembleError::Refused { .. }) => refused = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refused.expect("there is at least one strategy, and only a refusal ends the loop"))
}

/// One folder for one command; gone with it.
struct Bench(PathBuf);

impl Bench {
    fn new(root: &Path) -> Result<Self, WorkError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{}.{number}", std::process::id()));
        let made = fs::create_dir(&path).and_then(|()| {
            // Overlays show the upper folder's attributes as the root's own.
            fs::create_dir(path.join("upper"))?;
            fs::set_permissions(path.join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        });
        made.map_err(|source| WorkError::Folder { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The environment of everything that runs in a bake: nothing of the host's.
pub(crate) fn environment(latest: u64) -> BTreeMap<String, String> {
    [
        ("PATH", DEFAULT_PATH.to_owned()),
        ("HOME", "/root".into()),
        ("LANG", "C.UTF-8".into()),
        ("SOURCE_DATE_EPOCH", latest.to_string()),
        // Python's compiled files hold sets in the order of their hashes.
        ("PYTHONHASHSEED", "0".into()),
        // Perl's hashes have another order in every process.
        ("PERL_HASH_SEED", "0".into()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

/// Where Debian looks for programs.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
