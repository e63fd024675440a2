//! Running commands over a tree, and taking what they changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_model::Digest;
use kiln_store::trees::{AssembleError, PutTreeError};
use kiln_store::{Store, Strategy, Tree, TreePath, Writable, quick_folder};

use crate::beside::Spared;
use crate::cancel::Cancel;
use crate::capture::{CaptureError, Times, capture};
use crate::clock::{self, ClockError};
use crate::sandbox::{self, Ground, Group, Invocation, Ready, SandboxError, StepLimits};
use crate::secrets::LeakError;
use crate::warm::Warming;

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
    /// What is being taken down after commands that have ended, in threads of their own.
    leaving: Mutex<Vec<JoinHandle<()>>>,
    folder: PathBuf,
    /// What was begun for the next command that wants no network.
    ready: Mutex<Option<Ready>>,
    group: Arc<Group>,
}

impl Drop for Workbench {
    fn drop(&mut self) {
        let leaving = std::mem::take(self.leaving.get_mut().unwrap_or_else(PoisonError::into_inner));
        leaving.into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// What a command has before it.
pub(crate) struct Shown {
    pub(crate) tree: Tree,
    /// The tree before the step before, if that was done just now: what it put there is gone through first.
    pub(crate) before: Option<Tree>,
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
        let group = Arc::new(Group::find(limits)?);
        Ok(Self { leaving: Mutex::default(), folder, ready: Mutex::default(), group })
    }

    /// Begins a sandbox for the next command that wants no network, unless one is there: something is to be done before it, and
    /// a sandbox takes as long as that to begin. If none comes, it goes with the workbench.
    pub(crate) fn expect(&self) {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if ready.is_none() {
            // Whoever needs it begins another, and hears why that is refused.
            *ready = Ready::begin(&self.group, false).ok();
        }
    }

    /// Returns a sandbox that has begun, or begins one.
    fn ready(&self, network: bool) -> io::Result<Ready> {
        let expected = match network {
            true => None,
            false => self.ready.lock().unwrap_or_else(PoisonError::into_inner).take(),
        };
        expected.map_or_else(|| Ready::begin(&self.group, network), Ok)
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
        Shown { tree: mut shown, before }: Shown,
        tree: &mut Tree,
        invocation: &Invocation<'_>,
        latest: u64,
        cancel: &Cancel,
    ) -> Result<(), WorkError> {
        let bench = Bench::new(&self.folder)?;
        let ready = self.ready(invocation.network).map_err(|source| SandboxError::Start {
            program: invocation.argv.first().cloned().unwrap_or_default(),
            source,
            log: String::new(),
        })?;
        let clocked = !invocation.network;
        if clocked {
            clock::install(&mut shown, &store.objects, latest)?;
        }
        let (ground, below) = bench.ground(store, &shown)?;
        let warming = before.and_then(|before| Warming::begin(ground.mount(), before, shown).ok());
        let run = || sandbox::run(invocation, ready, ground, &bench.0, &self.group, cancel);
        let (times, remains) = {
            let _spared = Spared::one();
            Times::of(latest, run)?
        };
        drop(warming);
        if let Some(leak) = invocation.hidden.find(&bench.0.join("upper")).map_err(WorkError::Search)? {
            return Err(leak.into());
        }
        let own = TreePath::parse(clock::FOLDER).expect("a constant path is valid");
        let had = tree.get(&own).is_some();
        let batch = store.objects.batch();
        capture(&bench.0.join("upper"), below.as_ref(), tree, &batch, times)?;
        batch.commit().map_err(CaptureError::Put)?;
        self.leave((remains, bench, below));
        if clocked {
            clock::uninstall(tree, had, &store.objects)?;
        } else if !had {
            tree.remove(&own);
        }
        Ok(())
    }

    /// Drops what takes a while to go, and that nobody waits for but this workbench at its own end.
    pub(crate) fn leave(&self, what: impl Send + 'static) {
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|thread| !thread.is_finished());
        leaving.push(std::thread::spawn(move || drop(what)));
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
        let name = || format!("{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // A command may make many files, and the last one's were removed just now.
        let made = quick_folder(root, name).and_then(|path| {
            fs::create_dir(path.join("work"))?;
            // Overlays show the upper folder's attributes as the root's own.
            fs::create_dir(path.join("upper"))?;
            fs::set_permissions(path.join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            Ok(path)
        });
        made.map(Self).map_err(|source| WorkError::Folder { path: root.into(), source })
    }

    /// Mounts what a command is to see, and returns it with the tree that what is captured may refer to, if it may.
    fn ground(&self, store: &Store, shown: &Tree) -> Result<(Ground, Option<Tree>), WorkError> {
        let (upper, work) = (self.0.join("upper"), self.0.join("work"));
        Ok(match store.trees.mount_writable(shown, &upper, &work)? {
            Some(Writable { mount, shown }) => (Ground::Writable(mount), Some(shown)),
            None => (Ground::Tree(mount_once(store, shown)?), None),
        })
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kiln_store::{Entry, Kind};
    use proptest::prelude::{ProptestConfig, prop, proptest};
    use proptest::strategy::Strategy as Generate;

    use super::*;
    use crate::hashing::sha256;
    use crate::sandbox::User;
    use crate::secrets::Hidden;

    /// When what is there was made.
    const EARLIER: u64 = 1_500_000_000;
    /// When the step is said to run.
    const LATEST: u64 = 1_600_000_000;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text).unwrap()
    }

    /// Two folders with files and folders, one of them linked, and a shell.
    fn ground(store: &Store) -> Tree {
        let mut tree = Tree::new();
        let dir = || {
            let mut entry = Entry::dir(0o755);
            entry.meta.mtime.secs = EARLIER as i64;
            entry
        };
        let mut put = |at: &str, mode: u16, bytes: &[u8]| {
            let mut entry = Entry::file(mode, store.objects.put_bytes(bytes).unwrap(), bytes.len() as u64);
            entry.meta.mtime.secs = EARLIER as i64;
            let at = path(at);
            tree.make_dirs(&at.parent().unwrap(), &dir().meta).unwrap();
            tree.insert(&at, entry).unwrap();
        };
        put("bin/busybox", 0o755, &fs::read("/bin/busybox").unwrap());
        for folder in ["a", "b", "a/c", "b/d", "a/c/e"] {
            put(&format!("srv/{folder}/one"), 0o644, format!("one of {folder}").as_bytes());
            put(&format!("srv/{folder}/two"), 0o600, format!("two of {folder}").as_bytes());
        }
        tree.link(&path("srv/b/linked"), &path("srv/a/one")).unwrap();
        for applet in ["sh", "mv", "rm", "mkdir", "chmod", "chown", "ln", "cp", "touch", "cat"] {
            let kind = Kind::Symlink { target: b"busybox".to_vec() };
            tree.insert(&path(&format!("bin/{applet}")), Entry { meta: dir().meta, kind }).unwrap();
        }
        tree
    }

    /// What a script leaves of a tree, over its own layers or over a mount of it.
    fn left(store: &Store, folder: &Path, shown: &Tree, script: &str, over_layers: bool) -> Tree {
        let bench = Bench::new(folder).unwrap();
        let (ground, below) = match over_layers {
            true => bench.ground(store, shown).unwrap(),
            false => (Ground::Tree(mount_once(store, shown).unwrap()), None),
        };
        assert_eq!(below.is_some(), over_layers, "this kernel has data-only layers");
        let argv = ["/bin/sh".to_owned(), "-c".into(), script.into()];
        let invocation = Invocation {
            argv: &argv,
            env: &environment(LATEST),
            workdir: "/srv",
            user: User::default(),
            network: false,
            timeout: Duration::from_secs(60),
            mounts: &[],
            hidden: &Hidden::default(),
        };
        let group = Arc::new(Group::find(StepLimits::default()).unwrap());
        let ready = Ready::begin(&group, false).unwrap();
        let run = || sandbox::run(&invocation, ready, ground, &bench.0, &group, &Cancel::default());
        let (times, _) = Times::of(LATEST, run).unwrap_or_else(|error| panic!("{error}: {}", error.log()));
        let (mut tree, batch) = (shown.clone(), store.objects.batch());
        capture(&bench.0.join("upper"), below.as_ref(), &mut tree, &batch, times).unwrap();
        batch.commit().unwrap();
        tree
    }

    /// Runs a script both ways, and returns what it leaves.
    fn both(script: &str) -> Tree {
        let state = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(state.path()).unwrap();
        let folder = state.path().join("work");
        fs::create_dir(&folder).unwrap();
        let shown = ground(&store);
        let [plain, layered] = [false, true].map(|layers| left(&store, &folder, &shown, script, layers));
        let lines = |tree: &Tree| -> Vec<String> {
            tree.iter().map(|(path, entry)| format!("{path} {entry:?}")).collect()
        };
        assert_eq!(lines(&plain), lines(&layered), "{script}");
        layered
    }

    #[test]
    fn what_is_moved_or_gets_other_attributes_is_the_same_whether_the_kernel_copies_it_or_not() {
        let tree = both(
            "mv a moved; chmod 640 moved/one; mv moved/c moved/two b; echo more >> b/c/one; rm -r b/d;
             mkdir b/d; echo new > b/d/new; mv b/c/e e; mv e/one e/uno; chown 5:6 e/uno; rm e/two; mv e f;
             mkdir a; mv moved/one a/one; ln a/one a/again; mv f a/f; chmod 700 a/f; cp -a a/f g",
        );
        assert!(tree.get(&path("srv/a/f/uno")).is_some_and(|entry| entry.meta.uid == 5));
        assert!(tree.get(&path("srv/moved")).is_some_and(Entry::is_dir));
        assert!(tree.get(&path("srv/moved/one")).is_none());
        assert_eq!(tree.inode(&path("srv/a/one")), tree.inode(&path("srv/a/again")));
    }

    #[test]
    fn a_device_node_of_an_image_opens_no_device() {
        let state = tempfile::tempdir_in("/var/tmp").unwrap();
        let store = Store::open(state.path()).unwrap();
        let folder = state.path().join("work");
        fs::create_dir(&folder).unwrap();
        let mut shown = ground(&store);
        // That of /dev/zero, which opens nothing of anybody's.
        let kind = Kind::Char { major: 1, minor: 5 };
        shown.insert(&path("srv/zero"), Entry { kind, ..Entry::file(0o666, sha256(b""), 0) }).unwrap();
        for layers in [false, true] {
            let script = "test -c zero && /bin/busybox dd if=zero of=read bs=1 count=1; test ! -s read";
            left(&store, &folder, &shown, script, layers);
        }
    }

    fn places() -> impl Generate<Value = &'static str> {
        prop::sample::select(vec![
            "a", "b", "a/c", "b/d", "a/c/e", "a/one", "b/two", "a/c/one", "b/linked", "n", "a/n", "b/d/n",
            "b/c",
        ])
    }

    fn commands() -> impl Generate<Value = String> {
        (0..9, places(), places()).prop_map(|(what, one, other)| match what {
            0..=2 => format!("mv {one} {other}"),
            3 => format!("rm -rf {one}"),
            4 => format!("mkdir -p {one}"),
            5 => format!("chmod 711 {one}"),
            6 => format!("chown 7:8 {one}"),
            7 => format!("echo text >> {one}"),
            _ => format!("ln {one} {other}"),
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::with_cases(16) })]

        #[test]
        fn any_commands_leave_the_same_whether_the_kernel_copies_or_not(
            commands in prop::collection::vec(commands(), 1..16)
        ) {
            both(&format!("exec 2>&1; {}; true", commands.join("; ")));
        }
    }
}
