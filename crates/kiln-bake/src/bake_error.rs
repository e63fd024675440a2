//! Why a bake came to nothing: what, on which step of what, and what to do next.

use std::io;
use std::path::PathBuf;

use kiln_model::{BaseName, Digest, ImageName};
use kiln_store::lease::LeaseError;
use kiln_store::tree::{PathError, ResolveError, TreeError};
use kiln_store::trees::{AssembleError, PutTreeError};
use kiln_store::{PutError, ReadError};

use crate::accounts::AccountError;
use crate::capture::CaptureError;
use crate::clock::ClockError;
use crate::copy::CopyError;
use crate::debian::{DatabaseError, DebError, NoMirror, UnpackError};
use crate::dockerfile::DockerfileProblem;
use crate::fetch::FetchError;
use crate::git::GitError;
use crate::layer::LayerError;
use crate::lock::StaleLock;
use crate::normalise::NormaliseError;
use crate::outside::RegistriesError;
use crate::provision::ProvisionError;
use crate::sandbox::SandboxError;
use crate::signed_bases::UnsignedError;
use crate::source::SourceError;
use crate::stage::{ArchiveError, MountError};
use crate::workbench::WorkError;

/// The folders of a bake can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be opened", path.display())]
pub struct OpenBakerError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Why nothing was baked. What is in the store stays whole: a bake that fails leaves nothing half-visible.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The lock does not fit the stack.
    #[error("{}", stale.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Stale {
        /// What does not fit.
        stale: Vec<StaleLock>,
    },
    /// The stack has no such image.
    #[error("the stack has no image `{0}`")]
    UnknownImage(ImageName),
    /// The stack has no such base.
    #[error("the stack has no base `{0}`")]
    UnknownBase(BaseName),
    /// Images are made from each other.
    #[error("image `{0}` is made from itself")]
    Circle(ImageName),
    /// A Dockerfile is not in the stack folder.
    #[error("image `{image}`: there is no Dockerfile at {path}")]
    NoDockerfile {
        /// The image.
        image: ImageName,
        /// As the stack has it.
        path: String,
    },
    /// Something is wrong with Dockerfiles.
    #[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Dockerfile {
        /// All of it.
        problems: Vec<DockerfileProblem>,
    },
    /// The stack's files can't be listed.
    #[error("the stack folder can't be read")]
    Source(#[from] SourceError),
    /// The store can't be kept from being collected.
    #[error("the store can't be used")]
    Lease(#[from] LeaseError),
    /// A step failed.
    #[error("{subject}, step {step} of {steps}: {what}")]
    Step {
        /// What was being made, such as `image web`.
        subject: String,
        /// The step, from 1.
        step: usize,
        /// How many there are.
        steps: usize,
        /// What it does.
        what: String,
        /// Why it failed.
        #[source]
        source: Box<StepError>,
    },
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// No mirror is known.
    #[error(transparent)]
    NoMirror(#[from] NoMirror),
    /// A package did not come.
    #[error("package `{package}` can't be fetched")]
    Fetch {
        /// The package.
        package: String,
        /// Why.
        #[source]
        source: FetchError,
    },
    /// The file of a URL did not come.
    #[error("{place}: `{url}` can't be added")]
    FetchUrl {
        /// The file and the line of the ADD.
        place: String,
        /// The URL.
        url: String,
        /// Why.
        #[source]
        source: Box<FetchError>,
    },
    /// The files of a commit did not come.
    #[error("{place}: `{address}` can't be added")]
    Commit {
        /// The file and the line of the ADD.
        place: String,
        /// The repository.
        address: String,
        /// Why.
        #[source]
        source: Box<GitError>,
    },
    /// The file of a URL is another one.
    #[error("{place}: `{url}` is not what {whose} says: expected {expected}, got {found}")]
    Checksum {
        /// The file and the line of the ADD.
        place: Box<str>,
        /// The URL.
        url: Box<str>,
        /// Who promised.
        whose: &'static str,
        /// The checksum.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A package can't be unpacked.
    #[error("package `{package}` can't be unpacked")]
    Deb {
        /// The package.
        package: String,
        /// Why.
        #[source]
        source: DebError,
    },
    /// The packages don't fit together.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// dpkg's database can't be written.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// A command failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The outcome can't be normalised.
    #[error(transparent)]
    Normalise(#[from] NormaliseError),
    /// Files can't be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// An archive can't be unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Something can't be mounted for a command.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A tree can't be mounted for a command.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// A user or group is not known.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// A path can't be in the image.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path can't be reached in the image.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// A change can't be in the image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The tree can't be stored.
    #[error(transparent)]
    PutTree(#[from] PutTreeError),
    /// The layer can't be stored.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// Something can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Something stored can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A playbook did not come to its end.
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    /// An image of a registry did not come.
    #[error(transparent)]
    Registries(#[from] RegistriesError),
    /// An image of a registry is not signed as the stack wants it.
    #[error(transparent)]
    Unsigned(#[from] UnsignedError),
    /// What came is not what was locked.
    #[error("`{name}` is locked to {locked}, and what came is {found}")]
    OtherImage {
        /// Its name.
        name: String,
        /// What was locked.
        locked: Digest,
        /// What came.
        found: Digest,
    },
    /// What is left of an image can't be removed.
    #[error("what is left of the image {manifest} can't be removed")]
    Forget {
        /// Which.
        manifest: Digest,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was called off.
    #[error("called off")]
    Cancelled,
}

impl BakeError {
    /// Says what to do next; none where the error itself says it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Stale { .. } => Some("run `kiln lock` and commit kiln.lock".into()),
            Self::NoDockerfile { .. } => {
                Some("`dockerfile` names a folder that holds a `Dockerfile`, or a Dockerfile; .kilnignore may leave it out".into())
            }
            Self::Step { source, .. } => source.hint(),
            _ => None,
        }
    }

    /// Returns the end of the failed command's output; empty where no command failed.
    pub fn log(&self) -> &str {
        match self {
            Self::Step { source, .. } => match source.as_ref() {
                StepError::Work(WorkError::Sandbox(error)) => error.log(),
                StepError::Provision(error) => error.log(),
                _ => "",
            },
            _ => "",
        }
    }

    /// Whether another attempt, with nothing changed, would fail again.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Step { source, .. } => match source.as_ref() {
                StepError::Fetch { source, .. } => source.is_permanent(),
                StepError::FetchUrl { source, .. } => source.is_permanent(),
                StepError::Commit { source, .. } => source.is_permanent(),
                StepError::Registries(error) => error.is_permanent,
                StepError::Unsigned(error) => error.is_permanent(),
                other => !other.is_full(),
            },
            Self::Cancelled | Self::Lease(_) => false,
            _ => true,
        }
    }
}

impl StepError {
    fn hint(&self) -> Option<String> {
        if self.is_full() {
            return Some("free some space on the disk of the state folder, then bake again".into());
        }
        let hint = match self {
            Self::Registries(error) => return error.hint.clone(),
            Self::Provision(error) => return error.hint(),
            Self::Unsigned(error) => return error.hint(),
            Self::Commit { source, .. } => return source.hint().map(str::to_owned),
            Self::OtherImage { .. } => "run `kiln lock --upgrade`, and look at the difference".into(),
            Self::NoMirror(_) => "set `mirror` in the base".into(),
            Self::Fetch { source: FetchError::Missing { .. }, .. } => {
                "mirrors drop what is superseded: run `kiln lock --upgrade`, or set `mirror` to one that keeps it".into()
            }
            Self::Fetch { source: FetchError::WrongHash { .. }, .. } => {
                "the mirror serves other bytes than those that were locked: set `mirror` to another".into()
            }
            Self::Checksum { whose: "kiln.lock", .. } => {
                "the server has other bytes than those that were locked: look at what changed, then run `kiln lock --upgrade`"
                    .into()
            }
            Self::Checksum { .. } => {
                "the server has other bytes than those of the checksum: look at what changed before the checksum is changed"
                    .into()
            }
            Self::FetchUrl { source, .. } => match source.as_ref() {
                FetchError::TooLarge { .. } => {
                    "put it into the build context, or fetch it in a RUN of an image with `network = true`".into()
                }
                FetchError::Page { .. } => {
                    "the server may want a login first: put the file into the build context".into()
                }
                _ => "check the URL and the network, or put the file into the build context".into(),
            },
            Self::Fetch { .. } => "check the network, or set `mirror` to another".into(),
            Self::Copy(CopyError::Missing { ignored: true, .. }) => {
                ".kilnignore leaves it out: add a rule that begins with `!`".into()
            }
            Self::Copy(CopyError::Missing { nearest: Some(nearest), .. })
            | Self::Account(AccountError::Unknown { nearest: Some(nearest), .. }) => {
                format!("did you mean `{nearest}`?")
            }
            Self::Copy(CopyError::Outside { .. }) => "copy the file into the stack folder first".into(),
            Self::Work(WorkError::Sandbox(SandboxError::TimedOut { .. })) => {
                "a command that waits for input, for the network or for the clock to move never ends here".into()
            }
            Self::Work(WorkError::Sandbox(SandboxError::Exhausted { .. })) => {
                "all steps that run at a time share half of the machine's memory: give it less to do at once, such as \
                 `make -j2`, or bake on a larger machine"
                    .into()
            }
            Self::Work(WorkError::Leak(_)) => {
                "remove it in the same RUN, or let it be written where a `--mount=type=tmpfs` or `cache` is".into()
            }
            Self::Mount(MountError::SecretText { .. }) => "leave `env` out, and read the file".into(),
            Self::Work(WorkError::Mount(_)) => "baking needs root, and a kernel with EROFS and overlayfs".into(),
            _ => return None,
        };
        Some(hint)
    }

    /// Whether the disk is full.
    fn is_full(&self) -> bool {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = next {
            if matches!(error.downcast_ref::<PutError>(), Some(PutError::Full { .. })) {
                return true;
            }
            if error.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }) {
                return true;
            }
            next = error.source();
        }
        // Transparent variants hide the error itself behind its own source.
        matches!(
            self,
            Self::Put(PutError::Full { .. })
                | Self::PutTree(PutTreeError::Put(PutError::Full { .. }))
                | Self::Layer(LayerError::Put(PutError::Full { .. }))
                | Self::Database(DatabaseError::Put(PutError::Full { .. }))
                | Self::Normalise(NormaliseError::Put(PutError::Full { .. }))
                | Self::Copy(CopyError::Put(PutError::Full { .. }))
                | Self::Archive(ArchiveError::Put(PutError::Full { .. }))
                | Self::Provision(ProvisionError::Put(PutError::Full { .. }))
                | Self::Work(WorkError::Capture(CaptureError::Put(PutError::Full { .. })))
                | Self::Work(WorkError::Put(PutTreeError::Put(PutError::Full { .. })))
                | Self::Work(WorkError::Clock(ClockError::Put(PutError::Full { .. })))
        )
    }
}
