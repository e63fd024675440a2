//! The `git` of this machine, told to bring one commit and nothing else.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::address::{Address, CommitPrefix, is_commit};
use crate::cancel::Cancel;
use crate::sandbox::{Ended, wait};

/// How long one command may take, as long as a file of a URL may.
const TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// The largest file that it may write, which is the pack of a commit: as large as a file of a URL may be.
pub(super) const FILE_BYTES_MAX: u64 = 4 << 30;

/// The memory that each of its processes may have for itself: one blob of a gigabyte and what it is a delta of. A pack is read
/// where it lies.
const MEMORY_BYTES_MAX: u64 = 3 << 30;

/// What is read of what it says: the reason stands at the end.
const SAID_BYTES_MAX: u64 = 4 << 10;

/// What a server may list for one name: its branches and tags of that name in folders, too.
const REFERENCES_BYTES_MAX: u64 = 1 << 20;

/// The longest head of an object: its name, its kind and its size.
const HEAD_BYTES_MAX: u64 = 256;

/// What a shell says of a program that it can't find.
const NOT_FOUND: i32 = 127;

/// Limits what comes after it, and all that this starts. A limit that is lower already stays.
const LIMITED: &str = "ulimit -f \"$1\" 2>/dev/null; ulimit -d \"$2\" 2>/dev/null; shift 2; exec git \"$@\"";

/// Who asks for a password asks nobody.
const SSH: &str = "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=10 -oServerAliveInterval=15 \
                   -oServerAliveCountMax=2 -oClearAllForwardings=yes -oForwardAgent=no -oControlPath=none";

/// What of the caller's environment decides how a repository is reached, and as whom.
const PASSED: [&str; 13] = [
    "PATH",
    "HOME",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "USER",
];

/// How Git is told to behave, whatever the machine's settings are.
const SETTINGS: [&str; 14] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.bigFileThreshold=16m",
    "core.alternateRefsCommand=true",
    "credential.helper=",
    "fetch.unpackLimit=1",
    "fetch.recurseSubmodules=false",
    "fetch.showForcedUpdates=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "protocol.version=2",
    "transfer.bundleURI=false",
];

/// Why a repository gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no program for it.
    #[error("this machine has no `git`")]
    NoGit,
    /// Git did not bring it.
    #[error("git says: {said}")]
    Failed {
        /// The end of what it said.
        said: String,
    },
    /// It took longer than anybody waits.
    #[error("it takes more than {0:?}")]
    TimedOut(Duration),
    /// It is larger than it may be.
    #[error("it has more than {0}")]
    TooLarge(&'static str),
    /// The repository has nothing of this name.
    #[error("it has no branch and no tag `{0}`")]
    NoReference(String),
    /// The repository is empty.
    #[error("it has no commit")]
    Empty,
    /// The name means another commit than was promised.
    #[error("`{reference}` is the commit {found} today, and the checksum is {promised}")]
    OtherCommit {
        /// The branch or tag.
        reference: String,
        /// What the checksum says.
        promised: CommitPrefix,
        /// What it is.
        found: String,
    },
    /// The commit has no such folder.
    #[error("the commit {commit} has no folder `{folder}`")]
    NoFolder {
        /// The commit.
        commit: String,
        /// The folder.
        folder: String,
    },
    /// It refers to another repository.
    #[error("`{0}` is a submodule: what another repository has is not fetched")]
    Submodule(String),
    /// A path of it can't be in an image.
    #[error("it holds the path `{path}`: {reason}")]
    Path {
        /// As it is there, made readable.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// What it sends is not what was locked.
    #[error("the files of the commit {commit} are not those that were locked")]
    OtherFiles {
        /// The commit.
        commit: String,
    },
    /// The files can't be kept.
    #[error("cannot write {}", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl GitError {
    /// Whether another attempt would fail again.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::TimedOut(_) | Self::Write { .. } | Self::Cancelled)
    }

    /// Says what to do next; none where the error itself says it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoGit => "install the package git",
            Self::Failed { .. } => {
                "check the address and the network; nobody is asked for a password, and ssh needs a key of an agent or \
                 of a file without one, and the host in known_hosts"
            }
            Self::TimedOut(_) | Self::TooLarge(_) => "put the files into the build context",
            Self::NoReference(_) | Self::Empty | Self::NoFolder { .. } => "check what stands behind `#`",
            Self::OtherCommit { .. } => "look at what changed before the checksum is changed",
            Self::Submodule(_) => {
                "add the other repository by an ADD of its own, and leave this folder out by `#…:folder`"
            }
            Self::Path { .. } => "put the files that are needed into the build context",
            Self::OtherFiles { .. } => {
                "the same commit has the same files: this Kiln may write them otherwise; run `kiln lock --upgrade`"
            }
            Self::Write { .. } | Self::Cancelled => return None,
        })
    }
}

/// A folder for one commit, gone with the value.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    folder: PathBuf,
    cancel: &'a Cancel,
}

impl Drop for Repository<'_> {
    fn drop(&mut self) {
        // What is left is removed when it is old.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl<'a> Repository<'a> {
    /// Makes an empty one at a path where nothing is.
    pub(super) fn new(folder: PathBuf, cancel: &'a Cancel) -> Result<Self, GitError> {
        std::fs::create_dir(&folder).map_err(|source| GitError::Write { path: folder.clone(), source })?;
        let repository = Self { folder, cancel };
        repository
            .run(&["init", "--quiet", "--bare", "--template=", "--initial-branch=main"], SAID_BYTES_MAX)?;
        Ok(repository)
    }

    /// Finds out which commit is meant today.
    pub(super) fn resolve(
        &self,
        address: &Address,
        promised: Option<&CommitPrefix>,
    ) -> Result<String, GitError> {
        // A commit that is promised needs no branch that may move away from it.
        let promised_alone = promised.and_then(CommitPrefix::whole).filter(|_| address.reference.is_none());
        let named = address.reference.as_deref().filter(|name| is_commit(name));
        let reference = address.reference.as_deref().unwrap_or("HEAD");
        let found = match promised_alone.or(named) {
            Some(commit) => commit.to_owned(),
            None => self.ask(address, reference)?,
        };
        match promised {
            Some(promised) if !promised.is_of(&found) => {
                Err(GitError::OtherCommit { reference: reference.into(), promised: promised.clone(), found })
            }
            _ => Ok(found),
        }
    }

    /// Asks a server what a name means: a branch before a tag, as `git checkout` has it.
    fn ask(&self, address: &Address, reference: &str) -> Result<String, GitError> {
        let peeled = format!("{reference}^{{}}");
        let listed = self.run(
            &["ls-remote", "--quiet", "--", &address.remote, reference, &peeled],
            REFERENCES_BYTES_MAX,
        )?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let of = |name: &str| {
            let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
            lines.find(|(_, it)| *it == name).map(|(commit, _)| commit.to_owned())
        };
        let found = if reference == "HEAD" {
            of("HEAD").ok_or(GitError::Empty)?
        } else {
            let below = reference.strip_prefix("refs/").unwrap_or(reference);
            let head = below.strip_prefix("heads/").unwrap_or(below);
            let tag = format!("refs/tags/{}", below.strip_prefix("tags/").unwrap_or(below));
            of(&format!("refs/heads/{head}"))
                .or_else(|| of(&format!("{tag}^{{}}")))
                .or_else(|| of(&tag))
                .or_else(|| of(&format!("refs/{below}^{{}}")))
                .or_else(|| of(&format!("refs/{below}")))
                .ok_or_else(|| GitError::NoReference(reference.into()))?
        };
        match is_commit(&found) {
            true => Ok(found),
            false => Err(GitError::Failed { said: format!("`{found}` is no commit of SHA-1") }),
        }
    }

    /// Fetches a commit without its history.
    pub(super) fn fetch(&self, remote: &str, commit: &str) -> Result<(), GitError> {
        let words =
            ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance"];
        self.run(&[&words[..], &["--", remote, commit]].concat(), SAID_BYTES_MAX).map(drop)
    }

    /// Runs a command to its end, and returns what it wrote.
    pub(super) fn run(&self, words: &[&str], output_max: u64) -> Result<Vec<u8>, GitError> {
        let [output, errors] = ["said.output", "said.errors"].map(|name| self.folder.join(name));
        let open =
            |path: &Path| File::create(path).map_err(|source| GitError::Write { path: path.into(), source });
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(open(&output)?).stderr(open(&errors)?);
        let mut child = command.spawn().map_err(|source| self.unstarted(source))?;
        let ended = wait(&mut child, TIMEOUT, self.cancel);
        end(&mut child);
        let read = |path: &Path, max: u64| {
            let mut bytes = Vec::new();
            let read = File::open(path).and_then(|file| file.take(max + 1).read_to_end(&mut bytes));
            read.map_err(|source| GitError::Write { path: path.into(), source }).map(|_| bytes)
        };
        match ended {
            Ok(Ended::Exit(status)) if status.success() => {
                let bytes = read(&output, output_max)?;
                if bytes.len() as u64 > output_max {
                    return Err(GitError::TooLarge("1 MiB of branches and tags of one name"));
                }
                Ok(bytes)
            }
            Ok(Ended::Exit(status)) => Err(failed(status, &read(&errors, SAID_BYTES_MAX)?)),
            Ok(Ended::TimedOut) => Err(GitError::TimedOut(TIMEOUT)),
            Ok(Ended::Cancelled) => Err(GitError::Cancelled),
            Err(source) => Err(self.unstarted(source)),
        }
    }

    /// Starts a command that is talked to while it runs.
    pub(super) fn talk(&self, words: &[&str]) -> Result<Talk, GitError> {
        let mut command = self.command(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|source| self.unstarted(source))?;
        let asked = child.stdin.take().expect("it was piped just now");
        let answers = BufReader::new(child.stdout.take().expect("it was piped just now"));
        Ok(Talk { child, asked, answers })
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_set()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        // Shells count files in half kilobytes, and memory in whole ones.
        let [files, memory] = [FILE_BYTES_MAX / 512, MEMORY_BYTES_MAX / 1024].map(|it| it.to_string());
        command.args(["-c", LIMITED, "sh", &files, &memory]);
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(words).current_dir(&self.folder).env_clear().process_group(0);
        for name in PASSED {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        // What curl knows under another name.
        command.envs(std::env::var_os("SSL_CERT_FILE").map(|value| ("GIT_SSL_CAINFO", value)));
        let settings = [
            ("GIT_DIR", "."),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_ALLOW_PROTOCOL", "http:https:git:ssh"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "/bin/false"),
            ("GIT_SSH_COMMAND", SSH),
            ("GIT_SSH_VARIANT", "ssh"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_OPTIONAL_LOCKS", "0"),
            ("LC_ALL", "C"),
        ];
        command.envs(settings);
        command
    }

    fn unstarted(&self, source: io::Error) -> GitError {
        match source.kind() {
            io::ErrorKind::NotFound => GitError::NoGit,
            _ => GitError::Write { path: self.folder.clone(), source },
        }
    }
}

/// Ends a command with all that it started.
fn end(child: &mut Child) {
    // It leads a group of its own, whose number is its own as long as nobody has waited for it.
    if matches!(child.try_wait(), Ok(None)) {
        let group = rustix::process::Pid::from_child(child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = child.wait();
    }
}

fn failed(status: ExitStatus, errors: &[u8]) -> GitError {
    let said = String::from_utf8_lossy(errors);
    let too_large = status.signal() == Some(libc::SIGXFSZ)
        || said.contains(&format!("died of signal {}", libc::SIGXFSZ))
        || said.contains("File too large");
    if too_large {
        return GitError::TooLarge("4 GiB");
    }
    if status.code() == Some(NOT_FOUND) {
        return GitError::NoGit;
    }
    // A server's own words may be meant for the terminal.
    let lines = said.lines().map(|line| line.trim_start_matches("fatal: ").trim());
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let said = if lines.is_empty() { status.to_string() } else { lines.join("; ") };
    GitError::Failed { said: said.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() }
}

/// A command that answers while it runs; it ends with the value.
#[derive(Debug)]
pub(super) struct Talk {
    child: Child,
    asked: ChildStdin,
    pub(super) answers: BufReader<ChildStdout>,
}

impl Talk {
    /// Waits for the end of what was read to its end, and tells whether it went well.
    pub(super) fn is_well(&mut self) -> io::Result<bool> {
        self.child.wait().map(|status| status.success())
    }

    /// Asks `git cat-file --batch` for a blob, and returns its size: so many bytes of `answers` are its content.
    pub(super) fn blob(&mut self, object: &str) -> io::Result<u64> {
        writeln!(self.asked, "{object}")?;
        let mut head = String::new();
        (&mut self.answers).take(HEAD_BYTES_MAX).read_line(&mut head)?;
        let size =
            head.strip_prefix(object).and_then(|rest| rest.strip_prefix(" blob ")?.trim_end().parse().ok());
        size.ok_or_else(broken)
    }

    /// Goes behind the content of a blob, of which so many bytes were not read.
    pub(super) fn close_blob(&mut self, left: u64) -> io::Result<()> {
        match left {
            0 => self.answers.read_exact(&mut [0]),
            _ => Err(broken()),
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "an object that is not a file")
}

impl Drop for Talk {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
