//! How Kiln tells those whom it asks over HTTP who it is, and how it knows them.

use std::sync::Arc;

use crate::interlude::Interludes;
use crate::name::SecretName;
use crate::service::{Gate, Strategy};

/// What a question to somebody else goes with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// Who asks; none is nobody in particular.
    pub credentials: Option<Credentials>,
    /// Certificates in PEM that vouch for whoever is asked, beside those that the machine trusts.
    pub roots: Option<Arc<str>>,
}

/// What is in the header `Authorization`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// `Bearer`, with the value of a secret (RFC 6750).
    Bearer(SecretName),
    /// `Basic`, with a user and the value of a secret (RFC 7617).
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: SecretName,
    },
}

impl Access {
    /// Returns the secret whose value is needed.
    pub fn secret(&self) -> Option<&SecretName> {
        match self.credentials.as_ref()? {
            Credentials::Bearer(secret) | Credentials::Basic { password: secret, .. } => Some(secret),
        }
    }
}

/// Returns the secrets that the questions of a service's rollouts go with.
pub fn secrets<'a>(
    strategy: &'a Strategy,
    interludes: &'a Interludes,
) -> impl Iterator<Item = &'a SecretName> {
    let canary = match strategy {
        Strategy::Canary(canary) => Some(canary),
        Strategy::BlueGreen | Strategy::Rolling { .. } | Strategy::StopThenStart => None,
    };
    let stages = canary.into_iter().flat_map(|canary| &canary.stages).flat_map(|stage| &stage.gates);
    let asks = interludes.gates().chain(stages).filter_map(|gate| match gate {
        Gate::Ask(ask) => Some(&ask.access),
        _ => None,
    });
    let analysis = canary.and_then(|canary| canary.analysis.as_ref());
    let measured = analysis.into_iter().flat_map(|analysis| &analysis.outside).map(|metric| &metric.access);
    asks.chain(measured).filter_map(Access::secret)
}
