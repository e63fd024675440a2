//! What a rollout will come to, on the wire: the core's prediction with what was seen of this environment.

use std::collections::BTreeSet;
use std::sync::Arc;

use kiln_core::{Command, PredictError, Prediction, Risk, State, predict, predict_up};
use kiln_model::forecast::Forecast;
use kiln_model::release::RevisionSpec;
use kiln_model::{EnvKey, ServiceName};

use super::history::{Seen, What};
use super::refusal;
use super::view::{often, step_text};
use super::wire;
use crate::controller::CommandError;

/// Predicts moving an environment to a revision.
pub(crate) fn up(state: &State, env: &EnvKey, spec: RevisionSpec, seen: &Seen) -> wire::Prediction {
    let spec = Arc::new(spec);
    match predict_up(state, env, &spec, &|service| seen.delays(service)) {
        Ok(prediction) => shown(&prediction, &spec, seen),
        Err(error) => wire::Prediction { unknown: Some(reason(error)), ..wire::Prediction::default() },
    }
}

/// Predicts the rollout that a command began on this state, for its receipt.
///
/// # Errors
/// Why nothing is predicted, for people.
pub(crate) fn forecast(state: &State, command: &Command, seen: &Seen) -> Result<Forecast, String> {
    let prediction = predict(state, command, &|service| seen.delays(service));
    prediction.map(|prediction| prediction.forecast()).map_err(reason)
}

/// Why nothing is predicted, for people.
fn reason(error: PredictError) -> String {
    match error {
        PredictError::Refused(refusal) => refusal::problem(&CommandError::Refused(refusal)).message,
        other => other.to_string(),
    }
}

fn shown(prediction: &Prediction, spec: &RevisionSpec, seen: &Seen) -> wire::Prediction {
    let step = |it: &kiln_core::PredictedStep| wire::PredictedStep {
        text: match it.extended {
            0 => step_text(&it.step),
            times => format!("{}, and again {}", step_text(&it.step), often(times)),
        },
        took_ms: it.took.map(|took| took.0),
    };
    let risk = |(service, risk): (&ServiceName, &Risk)| wire::ServiceRisk {
        service: service.to_string(),
        replaced: risk.replaced,
        before: risk.before,
        fewest: risk.fewest,
    };
    wire::Prediction {
        unknown: None,
        total_ms: prediction.total.0,
        steps: prediction.steps.iter().map(step).collect(),
        goes_back: prediction.goes_back.clone(),
        approvals: prediction.approvals,
        memory_extra_bytes: prediction.extra.memory.0,
        unlimited_extra: prediction.extra.unlimited,
        services: prediction.services.iter().map(risk).collect(),
        delays: delays(prediction, spec, seen),
    }
}

/// The delays that the prediction rests on.
fn delays(prediction: &Prediction, spec: &RevisionSpec, seen: &Seen) -> Vec<wire::AssumedDelay> {
    let steps = prediction.steps.iter().filter_map(|it| What::of(&it.step));
    let used: BTreeSet<(What, &ServiceName)> =
        steps.flat_map(|(what, services)| services.into_iter().map(move |service| (what, service))).collect();
    // What has no health check is healthy once it has run for a moment, whatever was seen.
    let is_asked = |(what, service): &(What, &ServiceName)| {
        let health = spec.services.get(*service).map(|service| service.spec.health.is_some());
        *what != What::Healthy || health != Some(false)
    };
    let delay = |(what, service): (What, &ServiceName)| {
        let (took, times) = seen.delay(what, service);
        wire::AssumedDelay {
            service: service.to_string(),
            what: what.word().into(),
            ms: took.map(|took| took.0),
            seen: u32::try_from(times).unwrap_or(u32::MAX),
        }
    };
    used.into_iter().filter(is_asked).map(delay).collect()
}
