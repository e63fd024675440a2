//! A client of registries.
//!
//! Synchronous, and streaming: a blob goes from the socket to whoever writes it, in pieces. What fails for a while is tried
//! again, with growing pauses; a download goes on where it broke off, and so does an upload.
//!
//! Credentials go to the registry's own origin, and to the place of tokens that it names. A redirect is followed without them
//! where it leads elsewhere.

mod challenge;
pub mod credentials;
mod download;
mod exchange;
mod reference;
mod referrers;
pub mod trust;
mod upload;

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use crate::digest::ContentDigest;
use credentials::{Credentials, CredentialsError};
use trust::{Trust, TrustError};

pub use reference::{ImageReference, ParseReferenceError};
pub use upload::Pushed;

/// As long as a chain of a registry, its storage and a mirror in front of that can be, with room to spare.
const REDIRECTS_MAX: usize = 5;

/// What fails so often is down.
const ATTEMPTS_MAX: u32 = 5;

/// Before the second attempt; doubled before each next.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// The longest that a registry can ask to be left alone for; beyond, a person should know.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

/// Long enough for a SYN to be sent again twice.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// A registry that says nothing, or takes nothing, for so long stalls.
const STALL_MAX: Duration = Duration::from_secs(60);

/// An error's or a token's answer. Tokens have some KB.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What is done in a repository: what a token is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Only read.
    Pull,
    /// Read and written.
    Push,
}

/// How registries are spoken to.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Plain HTTP, even to another machine.
    pub insecure: bool,
    /// A file of certificates in PEM that are trusted as well. With it, this machine is spoken to over TLS, too.
    pub authority: Option<PathBuf>,
    /// Docker's file of credentials.
    pub docker_config: Option<PathBuf>,
    /// Folders of settings about hosts; see [`trust::folders`]. Not asked where something is said here.
    pub settings: Vec<PathBuf>,
}

/// A registry did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It does not answer, or breaks off, again and again.
    #[error("{host} can't be reached")]
    Unreachable {
        /// The registry.
        host: String,
        /// The last failure.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It does not let us.
    #[error("{host} does not allow it: {reason}")]
    Denied {
        /// The registry.
        host: String,
        /// What it says.
        reason: String,
    },
    /// It does not have it.
    #[error("{host} has no {what}")]
    Missing {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It refuses.
    #[error("{host} refuses: {reason}")]
    Refused {
        /// The registry.
        host: String,
        /// What it says.
        reason: String,
    },
    /// What answers is no registry.
    #[error("{host} does not answer as a registry does: {reason}")]
    NotARegistry {
        /// Who answers.
        host: String,
        /// How.
        reason: String,
    },
    /// What it sends is not what was asked for.
    #[error("{host} sent something else for {what}: {reason}")]
    Wrong {
        /// The registry.
        host: String,
        /// What was asked for.
        what: String,
        /// What is wrong with what came.
        reason: String,
    },
    /// It would have us send credentials or images without encryption.
    #[error("{url} is not encrypted")]
    Unencrypted {
        /// Where it leads.
        url: String,
    },
    /// The credentials can't be read.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// What this machine says of registries can't be read.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The file of authorities can't be read.
    #[error("{} holds no certificate that can be read", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
    },
    /// What is read or written on this side failed.
    #[error("the image's bytes can't be read or written here")]
    Local(#[source] std::io::Error),
}

/// A connection to one repository of a registry.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    /// Scheme, host and port.
    origin: String,
    reference: ImageReference,
    purpose: Purpose,
    credentials: Option<Credentials>,
    /// What the last challenge was answered with.
    authorization: Mutex<Option<String>>,
    insecure: bool,
}

impl Client {
    /// Prepares to speak to the registry of a reference. Connects to nobody yet.
    ///
    /// # Errors
    /// A file of the options can't be used.
    pub fn new(
        reference: &ImageReference,
        purpose: Purpose,
        options: &ClientOptions,
    ) -> Result<Self, ClientError> {
        let credentials = match &options.docker_config {
            Some(path) => credentials::find(path, &reference.host)?,
            None => None,
        };
        let said =
            Trust { insecure: options.insecure, authorities: options.authority.iter().cloned().collect() };
        let trust = match said == Trust::default() {
            true => Trust::find(&options.settings, &reference.host)?,
            false => said,
        };
        // Who has an authority of its own speaks TLS, wherever it is.
        let is_plain = trust.authorities.is_empty() && (trust.insecure || reference.is_loopback());
        let scheme = if is_plain { "http" } else { "https" };
        Ok(Self {
            agent: exchange::agent(&trust.authorities, STALL_MAX)?,
            origin: format!("{scheme}://{}", reference.endpoint()),
            reference: reference.clone(),
            purpose,
            credentials,
            authorization: Mutex::default(),
            insecure: is_plain,
        })
    }

    fn host(&self) -> String {
        self.reference.host.clone()
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.origin, self.reference.repository)
    }

    fn blob_url(&self, digest: &ContentDigest) -> String {
        self.path(&format!("blobs/{digest}"))
    }
}

#[cfg(test)]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
