//! Parts of the model in the form in which they are stored, for formats whose other parts this crate doesn't know.

use kiln_model::InstanceSpec;
use kiln_model::event::Purpose;
use kiln_model::gates::Gates;
use kiln_model::instance::ExitStatus;
use kiln_model::interlude::Interludes;
use kiln_model::notify::Webhook;
use kiln_model::rollout::{Cause, Outcome, ReplicaOwner, Step};
use kiln_model::route::Route;
use kiln_model::service::{Canary, Service, Waves};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::SpecWire;
use super::canary::CanaryWire;
use super::event::{ExitWire, PurposeWire};
use super::gates::GatesWire;
use super::interlude::InterludesWire;
use super::notify::WebhookWire;
use super::rollout::{CauseWire, OutcomeWire, OwnerWire, StepWire};
use super::service::{NamedRouteWire, NamedServiceWire};
use super::waves::WavesWire;

/// A part of the model, encoded as the events of the log encode it.
///
/// A format of another crate holds what the model has no type for, and this for the rest. So a part of the model is
/// written in one way only, and what is opaque here stays opaque there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded<T>(pub T);

macro_rules! encoded {
    ($($model:ty as $wire:ty;)*) => {$(
        impl Serialize for Encoded<$model> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$wire>::from(&self.0).serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for Encoded<$model> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let wire = <$wire>::deserialize(deserializer)?;
                <$model>::try_from(wire).map(Self).map_err(D::Error::custom)
            }
        }
    )*};
}

encoded! {
    InstanceSpec as SpecWire;
    Service as NamedServiceWire;
    Canary as CanaryWire;
    Route as NamedRouteWire;
    Step as StepWire;
    Cause as CauseWire;
    Outcome as OutcomeWire;
    ReplicaOwner as OwnerWire;
    Purpose as PurposeWire;
    ExitStatus as ExitWire;
    Gates as GatesWire;
    Interludes as InterludesWire;
    Webhook as WebhookWire;
    Waves as WavesWire;
}
