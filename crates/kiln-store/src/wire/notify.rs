//! Who is told of rollouts.

use kiln_model::SecretName;
use kiln_model::instance::SecretRef;
use kiln_model::notify::{Occasion, Webhook};
use serde::{Deserialize, Serialize};

use super::Text;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookWire {
    url: String,
    events: Vec<OccasionWire>,
    secret: Text<SecretName>,
    version: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OccasionWire {
    Started,
    Waiting,
    Analysed,
    Completed,
    GoingBack,
    Aborted,
    WentBack,
    Stuck,
    Superseded,
}

impl From<&Webhook> for WebhookWire {
    fn from(Webhook { url, events, secret }: &Webhook) -> Self {
        Self {
            url: url.clone(),
            events: events.iter().map(|occasion| (*occasion).into()).collect(),
            secret: Text(secret.name.clone()),
            version: secret.version.clone(),
        }
    }
}

impl From<WebhookWire> for Webhook {
    fn from(wire: WebhookWire) -> Self {
        Self {
            url: wire.url,
            events: wire.events.into_iter().map(Occasion::from).collect(),
            secret: SecretRef { name: wire.secret.0, version: wire.version },
        }
    }
}

impl From<Occasion> for OccasionWire {
    fn from(occasion: Occasion) -> Self {
        match occasion {
            Occasion::Started => Self::Started,
            Occasion::Waiting => Self::Waiting,
            Occasion::Analysed => Self::Analysed,
            Occasion::Completed => Self::Completed,
            Occasion::GoingBack => Self::GoingBack,
            Occasion::Aborted => Self::Aborted,
            Occasion::WentBack => Self::WentBack,
            Occasion::Stuck => Self::Stuck,
            Occasion::Superseded => Self::Superseded,
        }
    }
}

impl From<OccasionWire> for Occasion {
    fn from(wire: OccasionWire) -> Self {
        match wire {
            OccasionWire::Started => Self::Started,
            OccasionWire::Waiting => Self::Waiting,
            OccasionWire::Analysed => Self::Analysed,
            OccasionWire::Completed => Self::Completed,
            OccasionWire::GoingBack => Self::GoingBack,
            OccasionWire::Aborted => Self::Aborted,
            OccasionWire::WentBack => Self::WentBack,
            OccasionWire::Stuck => Self::Stuck,
            OccasionWire::Superseded => Self::Superseded,
        }
    }
}
