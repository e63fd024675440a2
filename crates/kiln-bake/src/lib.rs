//! Recipe and lock to image.
//!
//! [`Baker::lock`] pins what a stack's bases are made from, against the signatures of the archive; [`Baker::bake`] makes
//! images from the lock and the stack folder, against the digests of the lock. What was made is found again by the digest
//! of all that decides it, and the same inputs give the same image on any machine.
//!
//! **Architecture invariant:** nothing here knows of environments, revisions or instances, and nothing that runs in a bake
//! sees the host: not its files, its environment, its name, nor its network unless a step asks. The crate is synchronous.

mod accounts;
mod agent;
mod attest;
mod bake;
mod bake_error;
mod baker;
mod base;
mod beside;
mod cache;
mod calendar;
mod cancel;
mod capture;
mod clock;
mod copy;
pub mod debian;
mod dockerfile;
mod fetch;
mod git;
mod glob;
mod graph;
mod hashing;
mod ignore;
mod inspect;
mod inventory;
mod layer;
mod layout;
mod lock;
mod locking;
mod names;
mod nearest;
mod normalise;
mod oci;
mod osv;
mod outside;
mod progress;
mod proof;
mod provision;
mod sandbox;
mod secrets;
mod settings;
mod signed_bases;
mod signing;
mod source;
mod stage;
mod steps;
mod tape;
mod warm;
mod workbench;

pub use accounts::AccountError;
pub use attest::{
    AttestError, CYCLONEDX_TYPE, PROVENANCE, SPDX_TYPE, STATEMENT_TYPE, Said, Statement, attest, said_about,
};
pub use bake::{Baked, Known, MadePart, OutsideInputs, Repository, check_dockerfiles, outside_inputs};
pub use bake_error::{BakeError, OpenBakerError, StepError};
pub use baker::{Baker, BakerOptions};
pub use beside::{Beside, Rank};
pub use cache::{FetchedFile, FetchedFiles};
pub use cancel::Cancel;
pub use capture::CaptureError;
pub use clock::ClockError;
pub use copy::CopyError;
pub use dockerfile::DockerfileProblem;
pub use fetch::FetchError;
pub use git::{CommitPrefix, GitError, LockedCommit};
pub use glob::GlobError;
pub use ignore::{IGNORE_BYTES_MAX, IGNORE_FILE, Ignore};
pub use inspect::{InspectError, inspect};
pub use inventory::{
    BomFormat, Ecosystem, Inventory, InventoryError, Licence, Omission, Package, Software, SourcePackage,
    System,
};
pub use layer::LayerError;
pub use layout::{ExportError, export_layout};
pub use lock::{LOCK_BYTES_MAX, LOCK_FILE, Lock, LockedArchive, LockedBase, LockedPackage, LockedRecipe};
pub use lock::{ParseLockError, StaleLock};
pub use locking::{LockError, LockOptions};
pub use normalise::{NORMALISERS, NormaliseError, Normaliser, Treatment};
pub use osv::{DatabaseError, DatabaseInfo, Finding, Vulnerabilities, vulnerabilities};
pub use outside::{Registries, RegistriesError, Resolved};
pub use progress::{Progress, Report, StepState};
pub use proof::{CERTIFICATE_TYPE, CompareError, Difference, FileDifference, Proof, ProofError, Verdict};
pub use proof::{ELSEWHERE_COMMAND, ElsewhereError, run_elsewhere};
pub use provision::{FailedTask, ProvisionError};
pub use sandbox::share_heap;
pub use sandbox::{SandboxError, StepLimits};
pub use secrets::{LeakError, Secrets, SecretsError};
pub use signing::{ATTESTATIONS_TYPE, SIGNATURES_TYPE, SignError, Vouched, sign, verify};
pub use signing::{KeyError, KeyKind, PublicKey, SigningKey, generate};
pub use source::{Source, SourceError};
pub use stage::{ArchiveError, CacheBounds, CacheFolder, CacheFolders, MountError};
pub use steps::CachedSteps;
pub use workbench::WorkError;
