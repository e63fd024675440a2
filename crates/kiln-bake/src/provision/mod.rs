//! What plays a playbook: Ansible's packages, and a driver of Kiln's own beside them.
//!
//! The sandbox has the image's root, and all of this at places below `/.kiln`, which no image has. Python is started by the
//! tools' own loader (`launch.c`); `play.py` calls Ansible, and `callback.py` notes which task failed.

mod failure;

use kiln_model::Digest;
use kiln_model::recipe::{CopyStep, ProvisionStep};
use kiln_store::tree::{PathError, ResolveError, TreeError};
use kiln_store::{Batch, Entry, Meta, PutError, Tree, TreePath};
use serde_json::json;

pub(crate) use self::failure::explain;
use crate::hashing::sha256;

/// Python for the kernel, compiled for the target by `build.rs`.
const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/launch"));
const PLAY: &[u8] = include_bytes!("play.py");
const CALLBACK: &[u8] = include_bytes!("callback.py");

/// Where the tools are in the sandbox, as the driver has it, too.
pub(crate) const TOOLS: &str = "/.kiln/ansible";

/// Where the playbook's folder is.
pub(crate) const PLAYBOOKS: &str = "/.kiln/playbook";

/// Where memory is that Ansible writes into.
pub(crate) const MEMORY: &str = "/.kiln/tmp";

/// What is in it is small: compiled modules, and copies of templates.
pub(crate) const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Where modules put files for a moment, as any user that a task becomes.
const REMOTE: &str = "/.kiln/remote";

/// What is to be played.
const TASK: &str = ".kiln/provision.json";

/// The playbook's folder in a tree of its own: at its root the store adds mount points.
pub(crate) const PART: &str = "playbook";

/// Where Debian has the loader of its programs.
#[cfg(target_arch = "x86_64")]
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
#[cfg(target_arch = "aarch64")]
const LOADER: &str = "lib/ld-linux-aarch64.so.1";

/// Where Debian has python.
const PYTHON: &str = "usr/bin/python3";

/// Why a playbook could not be played, or did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// It is no file.
    #[error("`{playbook}` is no file")]
    NotAFile {
        /// As it was written.
        playbook: String,
    },
    /// Tasks are started by the image's shell.
    #[error("the image has no /bin/sh, by which Ansible starts what its tasks do")]
    NoShell,
    /// Something is not in the packages of the tools.
    #[error("Ansible's packages have no {0}")]
    NoTool(&'static str),
    /// A task failed.
    #[error("task `{}` failed ({}): {}", .0.task, .0.place, .0.message)]
    Task(Box<FailedTask>),
    /// Ansible refused it.
    #[error("{message}")]
    Refused {
        /// What Ansible says, with file and line.
        message: String,
        /// The end of its output.
        log: String,
    },
    /// It has no play for this image.
    #[error("no play of `{playbook}` is for this image")]
    Idle {
        /// As it was written.
        playbook: String,
        /// The end of its output.
        log: String,
    },
    /// A path can't be in a tree.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A place is taken.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A place can't be reached.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Something can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
}

/// The task that ended a playbook.
#[derive(Debug)]
pub struct FailedTask {
    /// Its name.
    pub task: String,
    /// The file of the stack folder, and the line.
    pub place: String,
    /// The module.
    pub module: String,
    /// Whether it could reach the network.
    pub network: bool,
    /// What Ansible says.
    pub message: String,
    /// The end of its output.
    pub log: String,
}

/// Returns what decides how playbooks are played, beside Ansible itself.
pub(crate) fn driver() -> Digest {
    let parts = [LAUNCHER, PLAY, CALLBACK].map(|bytes| sha256(bytes).to_string());
    sha256(parts.concat().as_bytes())
}

/// Returns the copy that a playbook's folder is taken by, as `copy` takes one.
pub(crate) fn folder_of(step: &ProvisionStep) -> CopyStep {
    CopyStep {
        from: step.folder().to_owned(),
        to: format!("/{PART}"),
        owner: String::new(),
        mode: None,
        exclude: Vec::new(),
    }
}

/// Puts the driver beside Ansible's packages.
pub(crate) fn equip(tools: &mut Tree, batch: &Batch) -> Result<(), ProvisionError> {
    let real = |path: &str, what| {
        let path = TreePath::parse(path)?;
        let found = tools.resolve(&path, true).ok().filter(|path| tools.get(path).is_some());
        found.ok_or(ProvisionError::NoTool(what))
    };
    let links = [("kiln/python", real(PYTHON, "python")?), ("kiln/loader", real(LOADER, "loader")?)];
    for (path, bytes) in [(PYTHON, LAUNCHER), ("kiln/play.py", PLAY), ("kiln/callback/kiln.py", CALLBACK)] {
        let stored = batch.put_bytes(bytes)?;
        put(tools, path, Entry::file(0o755, stored.digest, stored.size))?;
    }
    for (path, target) in links {
        put(tools, path, Entry::symlink([b"../", target.as_bytes()].concat()))?;
    }
    Ok(())
}

/// Makes, in what a sandbox shows, the places of all this, and says what is to be played.
pub(crate) fn furnish(shown: &mut Tree, step: &ProvisionStep, batch: &Batch) -> Result<(), ProvisionError> {
    let shell = TreePath::parse("bin/sh")?;
    if !shown.resolve(&shell, true).is_ok_and(|real| shown.get(&real).is_some()) {
        return Err(ProvisionError::NoShell);
    }
    for (place, mode) in [(TOOLS, 0o755), (PLAYBOOKS, 0o755), (MEMORY, 0o755), (REMOTE, 0o1777)] {
        shown.make_dirs(&TreePath::parse(place)?, &Meta { mode, ..Meta::default() })?;
    }
    let task = json!({
        "groups": step.groups,
        "playbook": step.file(),
        "tags": step.tags,
        "vars": step.vars,
    });
    let stored = batch.put_bytes(task.to_string().as_bytes())?;
    put(shown, TASK, Entry::file(0o644, stored.digest, stored.size))
}

fn put(tree: &mut Tree, path: &str, entry: Entry) -> Result<(), ProvisionError> {
    let path = TreePath::parse(path)?;
    // A package's folder may be a link.
    let parent = path.parent().unwrap_or_default();
    let parent = tree.resolve(&parent, true).unwrap_or(parent);
    tree.make_dirs(&parent, &Meta { mode: 0o755, ..Meta::default() })?;
    Ok(tree.insert(&parent.join(path.name())?, entry)?)
}
