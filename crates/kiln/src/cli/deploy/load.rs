//! Reads a stack folder and resolves it for one environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_bake::Lock;
use kiln_config::{
    Diagnostic, FileError, Files, ImageFile, Loaded, RawOrigin, RawValue, Request, Severity, SourceSet,
    glob_pattern,
};
use kiln_model::stack::Stack;
use kiln_model::{EnvName, Timestamp};
use kiln_store::Stamps;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde_json::{Value, json};

use super::folder::{self, Listing, ScanError};
use super::{dockerfiles, lockfile, secrets};
use crate::cli::failure::Failure;
use crate::cli::screen::Screen;
use crate::runtime::StateDir;

/// A file that a function such as `file()` reads; more is data, not configuration.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A stack as its folder declares it.
pub(crate) struct Declared {
    /// Its folder.
    pub folder: PathBuf,
    /// What the paths of that are relative to which is not captured: of secrets that a bake mounts, of images in folders and files.
    pub outside: PathBuf,
    /// The stack, resolved for the environment.
    pub stack: Stack,
    /// The `.hcl` files as they were evaluated.
    pub sources: Vec<(String, Vec<u8>)>,
    /// The folder's files, without those that hold secrets.
    pub listing: Listing,
    /// Whether a file changed after the folder was listed, and it was listed again.
    pub changed: bool,
}

/// What loading found, errors or not.
pub(crate) struct Found {
    /// The stack, if there are no errors.
    pub stack: Option<Stack>,
    /// What is wrong.
    pub diagnostics: Vec<Diagnostic>,
    /// Where images of folders and files are named.
    pub image_files: Vec<ImageFile>,
    /// The texts that the diagnostics point into.
    pub texts: SourceSet,
    /// The `.hcl` files.
    pub sources: Vec<(String, Vec<u8>)>,
}

/// Resolves a folder and lists its files; errors are shown all at once, warnings are told.
///
/// # Errors
/// The stack has errors, or the folder can't be read.
pub(crate) fn declared(
    folder: &Path,
    env: &EnvName,
    vars: &[(String, String)],
    state: &StateDir,
    screen: &mut Screen,
) -> Result<Declared, Failure> {
    declared_with(folder, env, vars, state, screen, |_| ()).map(|(declared, ())| declared)
}

/// The same, which calls `begin` as soon as it knows the stack: listing a large folder takes longer than all else.
///
/// # Errors
/// As [`declared`].
pub(crate) fn declared_with<T>(
    folder: &Path,
    env: &EnvName,
    vars: &[(String, String)],
    state: &StateDir,
    screen: &mut Screen,
    begin: impl FnOnce(&Stack) -> T,
) -> Result<(Declared, T), Failure> {
    let found = find(folder, env, vars, state)?;
    let stack = found.require(screen)?;
    let began = begin(&stack);
    let listing = listed(folder, &stack, state)?;
    let (folder, sources) = (folder.to_owned(), found.sources);
    Ok((Declared { outside: folder.clone(), folder, stack, sources, listing, changed: false }, began))
}

/// Lists a stack's folder, without the files that hold its secrets.
fn listed(folder: &Path, stack: &Stack, state: &StateDir) -> Result<Listing, Failure> {
    let mut stamps = Stamps::open(state.stamps_of(folder));
    let scanned = folder::scan(folder, state, Some(&mut stamps));
    let mut listing = scanned.map_err(|error| scan_failure(&error))?;
    secrets::leave_out(stack, folder, &mut listing);
    // What was left out is forgotten with what is gone: the hash of a secret could be guessed back.
    stamps.retain(|name| listing.contains_key(name));
    // They only save time: no state folder is made for them, and whoever may not write into one may plan all the same.
    if state.path().is_dir() {
        let _ = stamps.save();
    }
    Ok(listing)
}

impl Declared {
    /// Lists the folder again, after a file of Kiln's own was written into it.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn rescan(&mut self, state: &StateDir) -> Result<(), Failure> {
        self.listing = listed(&self.folder, &self.stack, state)?;
        Ok(())
    }

    /// Lists the folder again, after it turned out to be another one by now.
    ///
    /// # Errors
    /// The folder can't be read.
    pub(crate) fn follow_change(&mut self, state: &StateDir) -> Result<(), Failure> {
        self.changed = true;
        self.rescan(state)
    }
}

/// Resolves a folder.
///
/// # Errors
/// The folder can't be read or holds no stack; what is wrong inside of files is in the diagnostics.
pub(crate) fn find(
    folder: &Path,
    env: &EnvName,
    vars: &[(String, String)],
    state: &StateDir,
) -> Result<Found, Failure> {
    let sources = folder::sources(folder).map_err(|error| scan_failure(&error))?;
    if sources.is_empty() {
        return Err(Failure::refused(format!("{} holds no stack", folder.display()))
            .cause("a stack is one folder of .hcl files")
            .hint("`kiln init` writes a small one; `-C DIR` enters another folder"));
    }
    // A lock that can't be read is an error of its own where it is needed; here it would hide the stack's.
    let lock = lockfile::read(folder).ok().flatten();
    let files = FolderFiles { folder: folder.to_owned(), state: state.clone() };
    let mut found = resolve(sources.into_iter().collect(), &files, env, variables(vars), lock.as_ref());
    let wrong = found.stack.as_ref().map(|stack| dockerfiles::check(stack, folder)).unwrap_or_default();
    if !wrong.0.is_empty() {
        found.diagnostics.extend(wrong.0);
        found.texts = found.sources.iter().cloned().chain(wrong.1).collect();
    }
    Ok(found)
}

/// The variables from outside: flags, and the environment's `KILN_VAR_NAME`.
pub(crate) fn variables(vars: &[(String, String)]) -> BTreeMap<String, RawValue> {
    let from_environment = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.strip_prefix("KILN_VAR_")?.to_owned();
        Some((name, RawValue { text: value.into_string().ok()?, origin: RawOrigin::EnvironmentVariable }))
    });
    let flags = vars
        .iter()
        .map(|(name, text)| (name.clone(), RawValue { text: text.clone(), origin: RawOrigin::Flag }));
    from_environment.chain(flags).collect()
}

/// Resolves texts.
pub(crate) fn resolve(
    sources: Vec<(String, Vec<u8>)>,
    files: &dyn Files,
    env: &EnvName,
    variables: BTreeMap<String, RawValue>,
    lock: Option<&Lock>,
) -> Found {
    let texts: SourceSet = sources.iter().map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
    // The newest lock is the only time that a stack can see, so that evaluating it again gives the same.
    let locked_at = lock.into_iter().flat_map(|lock| lock.bases.values()).map(|base| base.locked_at).max();
    let lock_time = Timestamp(locked_at.unwrap_or_default().saturating_mul(1000));
    let request = Request { env: env.clone(), variables, files, lock_time };
    let loaded = kiln_config::load(&texts, &request);
    let Loaded { stack, diagnostics, image_files } = loaded;
    Found { stack, diagnostics, image_files, texts, sources }
}

impl Found {
    /// How many errors there are.
    pub(crate) fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// All diagnostics, rendered.
    pub(crate) fn report(&self, colour: bool) -> String {
        let rendered: Vec<String> =
            self.diagnostics.iter().map(|diagnostic| diagnostic.render(&self.texts, colour)).collect();
        rendered.join("\n")
    }

    /// All diagnostics as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        self.diagnostics.iter().map(diagnostic_json).collect()
    }

    /// The stack, or all errors at once.
    ///
    /// # Errors
    /// There are some.
    pub(crate) fn require(&self, screen: &mut Screen) -> Result<Stack, Failure> {
        let colour = screen.err_paint() != crate::cli::screen::Paint::PLAIN;
        match (&self.stack, self.errors()) {
            (Some(stack), 0) => {
                if !self.diagnostics.is_empty() {
                    screen.note(self.report(colour).trim_end());
                }
                Ok(stack.clone())
            }
            (_, errors) => Err(Failure::diagnostics(self.report(colour && !screen.json()), errors)),
        }
    }
}

fn diagnostic_json(diagnostic: &Diagnostic) -> Value {
    let labels: Vec<Value> = diagnostic
        .labels
        .iter()
        .map(|label| {
            json!({ "file": label.file, "line": label.line, "column": label.column, "text": label.text })
        })
        .collect();
    json!({
        "severity": diagnostic.severity.as_str(),
        "code": diagnostic.code,
        "message": diagnostic.message,
        "labels": labels,
        "help": diagnostic.help,
    })
}

/// A failure of reading a folder.
pub(crate) fn scan_failure(error: &ScanError) -> Failure {
    let failure = Failure::external("the stack folder can't be read").caused_by(error);
    match error {
        ScanError::TooLarge { .. } => failure.hint("name what the stack does not need in .kilnignore"),
        ScanError::Ignore(_) => failure.hint(".kilnignore has the syntax of .gitignore"),
        ScanError::Io { .. } => failure,
    }
}

/// The files below a stack folder, where no link leads out.
struct FolderFiles {
    folder: PathBuf,
    state: StateDir,
}

impl Files for FolderFiles {
    fn read(&self, path: &str) -> Result<Vec<u8>, FileError> {
        use std::io::Read as _;
        let other = |error: std::io::Error| FileError::Other(error.to_string());
        let root = std::fs::File::open(&self.folder).map_err(other)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        let file = rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH).map_err(
            |errno| match errno {
                rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => FileError::NotFound,
                rustix::io::Errno::XDEV | rustix::io::Errno::LOOP => FileError::Escapes,
                errno => other(errno.into()),
            },
        )?;
        let file = std::fs::File::from(file);
        if !file.metadata().map_err(other)?.is_file() {
            return Err(FileError::Other("it is not a regular file".into()));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(other)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(FileError::TooLarge { max_bytes: FILE_BYTES_MAX });
        }
        Ok(bytes)
    }

    fn list(&self, glob: &str) -> Result<Vec<String>, FileError> {
        let pattern = glob_pattern(glob).ok_or_else(|| FileError::Other("the glob is not valid".into()))?;
        let listing = folder::scan(&self.folder, &self.state, None)
            .map_err(|error| FileError::Other(error.to_string()))?;
        let names = listing.keys().filter_map(|path| String::from_utf8(path.clone()).ok());
        Ok(names.filter(|name| pattern.is_match(name)).collect())
    }
}
