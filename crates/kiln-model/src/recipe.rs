//! How images are made.

use std::collections::{BTreeMap, BTreeSet};

use crate::image::ImageConfig;
use crate::instance::Probe;
use crate::name::{BaseName, ImageName, SecretName};
use crate::units::{ByteSize, Millis};

/// A golden base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseRecipe {
    /// A Debian system made from locked packages.
    Debian(DebianBase),
}

/// A Debian system made from packages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebianBase {
    /// The suite, such as `bookworm`.
    pub suite: String,
    /// The archive's root; none means the one that the host's apt uses.
    pub mirror: Option<String>,
    /// The archive's components; `main` by default.
    pub components: Vec<String>,
    /// Packages beside what every system needs.
    pub packages: Vec<String>,
    /// How much of Debian is there beside `packages`.
    pub variant: DebianVariant,
}

/// How much of Debian is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DebianVariant {
    /// The listed packages, what they need, and Debian's Essential set, which every package may rely upon.
    Essential,
    /// `Essential` and apt: what mmdebstrap calls `minbase`.
    MinBase,
    /// The listed packages and what they need, laid side by side and not configured: programs that run beside an image and are
    /// in none.
    Tools,
}

/// A recipe for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecipe {
    /// What it starts from.
    pub from: ImageSource,
    /// What is done to it, in order.
    pub steps: Vec<RecipeStep>,
    /// How it runs; laid over the source's.
    pub config: ImageConfig,
    /// What must hold before it can be released.
    pub tests: Vec<ImageTest>,
    /// Which known vulnerabilities it may not have when it is released; none if nobody looks.
    pub scan: Option<Scan>,
}

impl ImageRecipe {
    /// Iterates over its playbooks, in order.
    pub fn provisions(&self) -> impl Iterator<Item = &ProvisionStep> {
        self.steps.iter().filter_map(|step| match step {
            RecipeStep::Provision(provision) => Some(provision),
            RecipeStep::Copy(_) | RecipeStep::Run(_) => None,
        })
    }
}

/// What an image starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// Nothing.
    Scratch,
    /// A base of the same stack.
    Base(BaseName),
    /// Another image of the same stack.
    Image(ImageName),
    /// An image of a registry, by the name that the stack or a Dockerfile has for it, such as `docker.io/library/debian:12`.
    Registry(String),
    /// A Dockerfile of the stack folder.
    Dockerfile(Box<DockerfileSource>),
}

/// A Dockerfile with what it may take from outside of its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileSource {
    /// A folder that holds a `Dockerfile`, or a Dockerfile; relative to the stack folder.
    pub path: String,
    /// The folder whose files it may copy, relative to the stack folder; none means the Dockerfile's own.
    pub context: Option<String>,
    /// The stage that is made, by name or number; none means the last.
    pub target: Option<String>,
    /// Values of its ARGs.
    pub args: BTreeMap<String, String>,
    /// What a `FROM` or `--from` means, by the name that it uses.
    pub contexts: BTreeMap<String, ImageSource>,
    /// The secrets that its commands may mount, by the ids that they have for them. Values are no part of what is made.
    pub secrets: BTreeMap<String, SecretName>,
    /// Whether its commands may use the SSH agent of whoever bakes.
    pub ssh: bool,
    /// Whether its commands may reach the network: what they fetch makes the image unproven.
    pub network: bool,
}

impl ImageSource {
    /// Iterates over all that is made before: itself where it has no Dockerfile, and what a Dockerfile names.
    pub fn parents(&self) -> impl Iterator<Item = &ImageSource> {
        let contexts = match self {
            Self::Dockerfile(source) => Some(source.contexts.values()),
            _ => None,
        };
        let own = (!matches!(self, Self::Dockerfile(_))).then_some(self);
        own.into_iter().chain(contexts.into_iter().flatten())
    }
}

/// One step of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeStep {
    /// Files of the stack folder into the image.
    Copy(CopyStep),
    /// A command in the sandbox.
    Run(RunStep),
    /// A playbook in the sandbox.
    Provision(ProvisionStep),
}

/// Files of the stack folder into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStep {
    /// A path or glob relative to the stack folder.
    pub from: String,
    /// An absolute path; a trailing `/` or several sources make it a folder.
    pub to: String,
    /// `user:group` by name or number, resolved against the image; empty means root.
    pub owner: String,
    /// The permission bits of the files; folders get the execute bits that go with them.
    pub mode: Option<u32>,
    /// Globs of what is left out, beside `.kilnignore`.
    pub exclude: Vec<String>,
}

/// A command in the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Environment variables for this step alone.
    pub env: BTreeMap<String, String>,
    /// The working folder; empty means the image's.
    pub workdir: String,
    /// The user; empty means root.
    pub user: String,
    /// Whether it may reach the network: what it fetches makes the image unproven.
    pub network: bool,
}

/// A playbook of Ansible that is played on an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvisionStep {
    /// The playbook, relative to the stack folder. All that lies in its folder can be used by it.
    pub playbook: String,
    /// Variables that it is given.
    pub vars: BTreeMap<String, String>,
    /// The tags of what is played; empty means all.
    pub tags: Vec<String>,
    /// The groups of hosts that the image is in.
    pub groups: Vec<String>,
    /// Whether it may reach the network: what it fetches makes the image unproven.
    pub network: bool,
    /// The base that Ansible is in. Nothing of it is in the image.
    pub tools: BaseName,
}

impl ProvisionStep {
    /// Returns the folder of the playbook, relative to the stack folder, which is `.` itself.
    pub fn folder(&self) -> &str {
        self.playbook.rsplit_once('/').map_or(".", |(folder, _)| folder)
    }

    /// Returns the name of the playbook in its folder.
    pub fn file(&self) -> &str {
        self.playbook.rsplit_once('/').map_or(&self.playbook, |(_, file)| file)
    }
}

/// Which known vulnerabilities keep an image from being released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Where the database is: relative to the stack folder, or an absolute path on the machine. It is no part of the image.
    pub database: String,
    /// From which severity on they count.
    pub severity: Severity,
    /// What is known and accepted for a while.
    pub ignores: Vec<ScanIgnore>,
}

/// A vulnerability that is known and accepted for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanIgnore {
    /// One of its names.
    pub id: String,
    /// Why it is accepted.
    pub reason: String,
    /// The first day, in UTC, on which it counts again, such as `2027-01-31`.
    pub expires: String,
}

/// How bad a vulnerability is, by the names of CVSS 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A score of 0, or unimportant by Debian's word.
    Negligible,
    /// Up to 3.9.
    Low,
    /// Up to 6.9.
    Medium,
    /// Up to 8.9.
    High,
    /// From 9.0.
    Critical,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Negligible, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// Returns its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Negligible => "negligible",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// What must hold of an image before it can be released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTest {
    /// The test's name.
    pub name: String,
    /// What is seen without booting it.
    pub inspection: Inspection,
    /// What its boot, as an unrouted instance, must come to answer; none if it is not booted.
    pub probe: Option<Probe>,
    /// Ports that must be closed once it answers.
    pub closed_ports: BTreeSet<u16>,
    /// How long it may take.
    pub within: Millis,
    /// Environment variables for the test alone.
    pub env: BTreeMap<String, String>,
    /// Memory for the test alone.
    pub memory: Option<ByteSize>,
}

/// What must hold of an image's files, packages and config.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inspection {
    /// Files.
    pub files: Vec<ExpectedFile>,
    /// Packages.
    pub packages: Vec<ExpectedPackage>,
    /// Its user must not be root.
    pub no_root: bool,
    /// No file may give its own user's or group's rights to who runs it.
    pub no_setuid: bool,
}

impl Inspection {
    /// Whether it asks nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A file that must be there, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedFile {
    /// An absolute path; the image's links are followed.
    pub path: String,
    /// Nothing may be there.
    pub absent: bool,
    /// `user`, `user:group`, or the numbers; none for any.
    pub owner: Option<String>,
    /// The permission bits; none for any.
    pub mode: Option<u16>,
}

/// A package that must be there, or must not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedPackage {
    /// Its name, as in the bill of materials.
    pub name: String,
    /// It may not be there.
    pub absent: bool,
    /// Its version; none for any.
    pub version: Option<String>,
}
