//! What a Dockerfile says, as it was written: variables are still in it.

use super::heredoc::Heredoc;
use super::problem::Span;

/// A piece of text and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) span: Span,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instruction {
    /// All of it.
    pub(crate) span: Span,
    /// Its text on one line, for the image's history and for progress.
    pub(crate) text: String,
    pub(crate) action: Action,
}

/// What an instruction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    From(From),
    Arg(Vec<(Word, Option<Word>)>),
    Env(Vec<(Word, Word)>),
    Label(Vec<(Word, Word)>),
    Copy(Box<Copy>),
    Run(Box<Run>),
    Workdir(Word),
    User(Word),
    Expose(Vec<Word>),
    Volume(Vec<Word>),
    StopSignal(Word),
    Shell(Vec<String>),
    Cmd(CommandLine),
    Entrypoint(CommandLine),
    Healthcheck(Option<Health>),
    /// The instruction, and its text with its heredocs.
    OnBuild(Box<Instruction>, String),
    Maintainer(Word),
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) image: Word,
    pub(crate) platform: Option<Word>,
    pub(crate) name: Option<Word>,
}

/// A command for a shell, or a program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CommandLine {
    Shell(String),
    Exec(Vec<String>),
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Copy {
    /// Whether archives are unpacked.
    pub(crate) is_add: bool,
    pub(crate) sources: Vec<CopySource>,
    pub(crate) to: Word,
    pub(crate) from: Option<Word>,
    pub(crate) chown: Option<Word>,
    pub(crate) chmod: Option<Word>,
    pub(crate) link: bool,
    pub(crate) parents: bool,
    pub(crate) exclude: Vec<Word>,
    /// Whether `ADD` unpacks; none means as BuildKit decides.
    pub(crate) unpack: Option<bool>,
    /// What the file of a URL must hash to.
    pub(crate) checksum: Option<Word>,
}

/// What is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CopySource {
    /// A path or a pattern.
    Path(Word),
    /// A heredoc.
    File(Heredoc, Span),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) command: CommandLine,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) mounts: Vec<Mount>,
    /// `--network`; none means the default.
    pub(crate) network: Option<Network>,
}

/// The network that a `RUN` says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Default,
    None,
    /// The machine's own, which the default is here as well where there is one; and where that is said.
    Host(Span),
}

/// `RUN --mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) span: Span,
    pub(crate) kind: MountKind,
    /// Where, with variables in it; empty for a secret means its own place.
    pub(crate) target: String,
    pub(crate) read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountKind {
    Bind {
        /// A stage or context; none means the build context.
        from: Option<Word>,
        source: String,
    },
    Cache {
        /// Empty means the target.
        id: String,
        mode: u32,
        uid: u32,
        gid: u32,
        /// Whose files it begins with, and which.
        seed: Option<(Word, String)>,
    },
    Tmpfs {
        /// Zero means half of the memory that steps have.
        size: u64,
    },
    Secret(SecretMount),
    Ssh(SshMount),
}

/// `RUN --mount=type=secret`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SecretMount {
    /// Empty means the last name of the target.
    pub(crate) id: String,
    /// The variable that has its value; without a target there is no file then.
    pub(crate) env: Option<String>,
    /// Whether the command can't do without it.
    pub(crate) required: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `RUN --mount=type=ssh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshMount {
    /// Empty means the only one there is.
    pub(crate) id: String,
    pub(crate) required: bool,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// `HEALTHCHECK`; times in nanoseconds as the config has them, zero where it was not said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) command: CommandLine,
    pub(crate) interval: u64,
    pub(crate) timeout: u64,
    pub(crate) start_period: u64,
    pub(crate) start_interval: u64,
    pub(crate) retries: u32,
}
