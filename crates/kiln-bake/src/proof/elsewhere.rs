//! The second bake's surroundings, and the second bake.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_model::Digest;
use kiln_store::snapshot::SnapshotKind;
use kiln_store::{ReadError, Store};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::cache::PACKAGES;
use crate::clock;
use crate::sandbox::{die_with_parent, own_mounts_and_name};
use crate::steps::cache_of;

/// The first word of the command line of the process that makes the surroundings.
pub const ELSEWHERE_COMMAND: &str = "bake-elsewhere";

/// The time that the second Kiln reads, in seconds since the epoch: long before anything that it handles.
const EPOCH: u64 = 1_000_000_000;

/// The same for people.
pub(super) const CLOCK: &str = "2001-09-09T01:46:40Z";

/// What the second bake's machine is called.
pub(super) const HOST_NAME: &str = "kiln-elsewhere";

/// What the second Kiln is told of its user: the language whose small letters surprise, the time zone furthest ahead.
const VARIABLES: [(&str, &str); 5] = [
    ("LANG", "tr_TR.UTF-8"),
    ("LC_ALL", "tr_TR.UTF-8"),
    ("SOURCE_DATE_EPOCH", "1"),
    ("TZ", "Pacific/Kiritimati"),
    ("USER", "somebody-else"),
];

/// The same for people.
pub(super) const ENVIRONMENT: &str =
    "HOME, LANG=LC_ALL=tr_TR.UTF-8, SOURCE_DATE_EPOCH=1, TZ=Pacific/Kiritimati, USER";

/// Why the second bake did not take place.
#[derive(Debug, thiserror::Error)]
pub enum ElsewhereError {
    /// It was called by somebody else than Kiln.
    #[error("this is a part of `kiln bake --prove`")]
    Words,
    /// The surroundings can't be made.
    #[error("{what}")]
    Surroundings {
        /// What was tried.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The loader takes a list of libraries, separated by these.
    #[error("the state folder's path has a blank or a colon, so the second bake can't have another clock")]
    Separator,
    /// The captured folder can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The captured folder can't be laid out.
    #[error("{} can't be written", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The bake failed; it has said why.
    #[error("the second bake failed")]
    Bake,
}

/// What the first word is followed by.
struct Words {
    state: PathBuf,
    /// The first bake's folder.
    folder: PathBuf,
    place: PathBuf,
    out: PathBuf,
    packages: PathBuf,
    source: Digest,
    memory: u64,
    options: Vec<OsString>,
}

impl Words {
    fn read(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut path = || words.next().map(PathBuf::from);
        let (state, folder, place, out, packages) = (path()?, path()?, path()?, path()?, path()?);
        let mut text = || words.next()?.into_string().ok();
        let (source, memory) = (text()?.parse().ok()?, text()?.parse().ok()?);
        Some(Self { state, folder, place, out, packages, source, memory, options: words.collect() })
    }
}

/// Makes the surroundings around this process, which has one thread, bakes in them, and brings out what the images are. The
/// answer of the bake goes to stdout.
///
/// # Errors
/// See [`ElsewhereError`].
pub fn run_elsewhere(words: impl Iterator<Item = OsString>) -> Result<(), ElsewhereError> {
    let words = Words::read(words).ok_or(ElsewhereError::Words)?;
    let store =
        Store::open(&words.state).map_err(|error| failed("the store can't be opened")(error.source))?;
    surround(&words)?;
    let stack = words.place.join("another way to").join("the stack");
    lay_out(&store, &words.source, &stack)?;
    let library = words.place.join("clock.so");
    write(&library, &clock::set_to(EPOCH))?;
    if library.as_os_str().as_bytes().iter().any(|byte| b" :".contains(byte)) {
        return Err(ElsewhereError::Separator);
    }
    let home = words.place.join("home");
    make(&home)?;
    let state = words.place.join("state");
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("-C")
        .arg(&stack)
        .arg("--state")
        .arg(&state)
        .args(&words.options)
        .args(["--json", "bake", "--parts", "--files-from"])
        .arg(&words.folder)
        .envs(VARIABLES)
        .env("HOME", &home)
        .env("LD_PRELOAD", &library)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    die_with_parent(&mut command);
    let output = command.output().map_err(failed("the second bake can't be started"))?;
    if !output.status.success() {
        return Err(ElsewhereError::Bake);
    }
    let theirs =
        Store::open(&state).map_err(|error| failed("the second store can't be opened")(error.source))?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let images = answer["images"].as_object().into_iter().flatten().map(|(_, digest)| digest);
    let parts = answer["parts"].as_object().into_iter().flatten();
    let parts = parts.flat_map(|(_, parts)| parts.as_array().into_iter().flatten());
    for manifest in images.chain(parts.map(|part| &part["manifest"])).filter_map(Value::as_str) {
        bring_out(&theirs, &store, manifest, &words.out)?;
    }
    io::Write::write_all(&mut io::stdout(), &output.stdout).map_err(failed("nobody waits for the answer"))
}

fn surround(words: &Words) -> Result<(), ElsewhereError> {
    own_mounts_and_name().map_err(failed("there are no mount and host name namespaces"))?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    let errno = |what| move |errno: rustix::io::Errno| failed(what)(errno.into());
    mount_change("/", private).map_err(errno("mounts can't be made this process's own"))?;
    if words.memory > 0 {
        let options = format!("size={},mode=700", words.memory);
        let options = std::ffi::CString::new(options).expect("a number holds no NUL");
        mount("kiln-elsewhere", &words.place, "tmpfs", MountFlags::empty(), options.as_c_str())
            .map_err(errno("a file system in memory can't be mounted"))?;
    }
    // Packages are checked against the lock whenever they are used, so fetching them again would vary nothing.
    let state = words.place.join("state");
    let store =
        Store::open(&state).map_err(|error| failed("the second store can't be made")(error.source))?;
    let packages = cache_of(&store).join(PACKAGES);
    make(&packages)?;
    mount_bind(&words.packages, &packages).map_err(errno("fetched packages can't be shared"))?;
    rustix::system::sethostname(HOST_NAME.as_bytes()).map_err(errno("the host name can't be changed"))?;
    let cpus = sched_getaffinity(None).map_err(errno("the processors can't be counted"))?;
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| cpus.is_set(*cpu));
    let mut one = CpuSet::new();
    one.set(last.unwrap_or(0));
    sched_setaffinity(None, &one).map_err(errno("the processors can't be limited"))?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

/// Writes a captured folder as files, with the modes that this umask gives them.
fn lay_out(store: &Store, source: &Digest, folder: &Path) -> Result<(), ElsewhereError> {
    make(folder)?;
    for file in store.snapshots.load(source)?.files {
        let path = folder.join(Path::new(std::ffi::OsStr::from_bytes(file.path.as_bytes())));
        make(path.parent().unwrap_or(folder))?;
        let done = match &file.kind {
            SnapshotKind::Dir => fs::create_dir_all(&path),
            SnapshotKind::Symlink { target } => symlink(std::ffi::OsStr::from_bytes(target), &path),
            SnapshotKind::File { digest, .. } => {
                let mut content = store.snapshots.open_file(digest)?;
                let mode = if file.mode & 0o100 != 0 { 0o700 } else { 0o600 };
                File::create(&path).and_then(|mut file| {
                    io::copy(&mut content, &mut file)?;
                    file.set_permissions(fs::Permissions::from_mode(mode))
                })
            }
        };
        done.map_err(|source| ElsewhereError::Write { path, source })?;
    }
    Ok(())
}

/// Copies an image's manifest, config and layers to where the first process finds them, but for what the first bake made, too.
fn bring_out(store: &Store, first: &Store, manifest: &str, out: &Path) -> Result<(), ElsewhereError> {
    let digest: Digest = manifest.parse().map_err(|_| ElsewhereError::Bake)?;
    let bytes = store.blobs.read_verified(&digest)?;
    write(&out.join(digest.hex()), &bytes)?;
    let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let parts = value["layers"].as_array().into_iter().flatten().chain([&value["config"]]);
    for part in parts.filter_map(|part| part["digest"].as_str()?.parse::<Digest>().ok()) {
        let path = out.join(part.hex());
        if path.exists() || first.blobs.contains(&part) {
            continue;
        }
        let mut blob = store.blobs.open_verified(&part)?;
        let copied = File::create(&path).and_then(|mut file| io::copy(&mut blob, &mut file));
        copied.map_err(|source| ElsewhereError::Write { path, source })?;
    }
    Ok(())
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ElsewhereError {
    move |source| ElsewhereError::Surroundings { what, source }
}

fn make(folder: &Path) -> Result<(), ElsewhereError> {
    fs::create_dir_all(folder).map_err(|source| ElsewhereError::Write { path: folder.into(), source })
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), ElsewhereError> {
    fs::write(path, bytes).map_err(|source| ElsewhereError::Write { path: path.into(), source })
}
