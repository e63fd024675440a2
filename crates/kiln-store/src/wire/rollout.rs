//! Rollouts: their steps, causes and outcomes.

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Cause, Evidence, Outcome, ReplicaOwner, RequestCount, Slots, Step};
use kiln_model::{EnvName, Millis, RevisionNumber, RolloutId, ServiceName, Timestamp, Weight};
use serde::{Deserialize, Serialize};

use super::Text;
use super::ask::{AgainWire, AskWire};
use super::canary::{EvidenceWire, VerdictWire};
use super::forecast::{ExtraWire, ForecastWire};
use super::notify::OccasionWire;
use super::outside::FindingWire;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RolloutWire {
    Started {
        from: Option<u64>,
        to: Option<u64>,
        cause: CauseWire,
        steps: Vec<StepWire>,
    },
    StepStarted {
        index: u32,
        deadline: Option<u64>,
    },
    StepCompleted {
        index: u32,
    },
    Paused,
    Resumed,
    Promoted {
        index: u32,
    },
    Analysed {
        service: Text<ServiceName>,
        window: u32,
        verdict: VerdictWire,
        evidence: Vec<EvidenceWire>,
        #[serde(default, skip_serializing_if = "is_none")]
        synthetic: u64,
    },
    Extended {
        index: u32,
        service: Text<ServiceName>,
        times: u32,
        until: u64,
    },
    Measured {
        service: Text<ServiceName>,
        window: u32,
        metric: String,
        finding: FindingWire,
        text: String,
    },
    GoingBack {
        reason: String,
        steps: Vec<StepWire>,
    },
    Counted {
        rollout: u64,
        is_end: bool,
        counts: Option<Vec<RequestCountWire>>,
        // Left out where it is not known, as it was before it was counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        extra: Option<ExtraWire>,
    },
    Predicted {
        rollout: u64,
        forecast: ForecastWire,
    },
    NotTold {
        rollout: u64,
        webhook: String,
        occasion: OccasionWire,
        reason: String,
    },
    Finished {
        outcome: OutcomeWire,
        reason: String,
    },
    Halted {
        reason: String,
        until: u64,
    },
    Tried {
        index: u32,
        passed: bool,
        text: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum StepWire {
    OpenListeners,
    Run {
        job: Text<ServiceName>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within_ms: Option<u64>,
        #[serde(default, skip_serializing_if = "AgainWire::is_once")]
        again: AgainWire,
    },
    Ask(AskWire),
    Create {
        slots: Vec<SlotsWire>,
    },
    WaitHealthy {
        slots: Vec<SlotsWire>,
        within_ms: u64,
    },
    Shift {
        slots: Vec<SlotsWire>,
        weight: u16,
        serve_routes: bool,
    },
    Split {
        service: Text<ServiceName>,
        weight: u16,
        window: u32,
    },
    Hold {
        span_ms: u64,
    },
    Analyse {
        service: Text<ServiceName>,
        window: u32,
        within_ms: u64,
    },
    Approve {
        by: Vec<String>,
        within_ms: u64,
    },
    Drain {
        slots: Vec<SlotsWire>,
        within_ms: u64,
    },
    KeepWarm {
        slots: Vec<SlotsWire>,
        keep_for_ms: u64,
    },
    Retire {
        slots: Vec<SlotsWire>,
    },
    Soak {
        slots: Vec<SlotsWire>,
        span_ms: u64,
    },
    Mirror {
        service: Text<ServiceName>,
        share: u16,
        window: u32,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlotsWire {
    service: Text<ServiceName>,
    first: u32,
    count: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CauseWire {
    Up,
    Rollback { to: u64, service: Option<Text<ServiceName>> },
    Down,
    Promotion { from: Text<EnvName> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutcomeWire {
    Completed,
    WentBack,
    Stuck,
    Superseded,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OwnerWire {
    Declared,
    Hand,
    Autoscaler,
}

impl From<&RolloutEvent> for RolloutWire {
    fn from(event: &RolloutEvent) -> Self {
        match event {
            RolloutEvent::Started { from, to, cause, steps } => Self::Started {
                from: from.map(|number| number.0),
                to: to.map(|number| number.0),
                cause: cause.into(),
                steps: steps.iter().map(StepWire::from).collect(),
            },
            RolloutEvent::StepStarted { index, deadline } => {
                Self::StepStarted { index: *index, deadline: deadline.map(|at| at.0) }
            }
            RolloutEvent::StepCompleted { index } => Self::StepCompleted { index: *index },
            RolloutEvent::Paused => Self::Paused,
            RolloutEvent::Resumed => Self::Resumed,
            RolloutEvent::Promoted { index } => Self::Promoted { index: *index },
            RolloutEvent::Analysed { service, window, verdict, evidence, synthetic } => Self::Analysed {
                service: Text(service.clone()),
                window: *window,
                verdict: (*verdict).into(),
                evidence: evidence.iter().map(EvidenceWire::from).collect(),
                synthetic: *synthetic,
            },
            RolloutEvent::Extended { index, service, times, until } => Self::Extended {
                index: *index,
                service: Text(service.clone()),
                times: *times,
                until: until.0,
            },
            RolloutEvent::Measured { service, window, metric, finding, text } => Self::Measured {
                service: Text(service.clone()),
                window: *window,
                metric: metric.clone(),
                finding: (*finding).into(),
                text: text.clone(),
            },
            RolloutEvent::GoingBack { reason, steps } => {
                Self::GoingBack { reason: reason.clone(), steps: steps.iter().map(StepWire::from).collect() }
            }
            RolloutEvent::Tried { index, passed, text } => {
                Self::Tried { index: *index, passed: *passed, text: text.clone() }
            }
            RolloutEvent::Halted { reason, until } => Self::Halted { reason: reason.clone(), until: until.0 },
            RolloutEvent::Counted { rollout, is_end, counts, extra } => Self::Counted {
                rollout: rollout.0,
                is_end: *is_end,
                counts: counts.as_ref().map(|all| all.iter().map(RequestCountWire::from).collect()),
                extra: extra.map(ExtraWire::from),
            },
            RolloutEvent::NotTold { rollout, webhook, occasion, reason } => Self::NotTold {
                rollout: rollout.0,
                webhook: webhook.clone(),
                occasion: (*occasion).into(),
                reason: reason.clone(),
            },
            RolloutEvent::Predicted { rollout, forecast } => {
                Self::Predicted { rollout: rollout.0, forecast: forecast.into() }
            }
            RolloutEvent::Finished { outcome, reason } => {
                Self::Finished { outcome: outcome.into(), reason: reason.clone() }
            }
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
fn is_none(count: &u64) -> bool {
    *count == 0
}

impl TryFrom<RolloutWire> for RolloutEvent {
    type Error = String;

    fn try_from(wire: RolloutWire) -> Result<Self, String> {
        Ok(match wire {
            RolloutWire::Started { from, to, cause, steps } => Self::Started {
                from: from.map(RevisionNumber),
                to: to.map(RevisionNumber),
                cause: cause.into(),
                steps: steps.into_iter().map(Step::try_from).collect::<Result<_, _>>()?,
            },
            RolloutWire::StepStarted { index, deadline } => {
                Self::StepStarted { index, deadline: deadline.map(Timestamp) }
            }
            RolloutWire::StepCompleted { index } => Self::StepCompleted { index },
            RolloutWire::Paused => Self::Paused,
            RolloutWire::Resumed => Self::Resumed,
            RolloutWire::Promoted { index } => Self::Promoted { index },
            RolloutWire::Analysed { service, window, verdict, evidence, synthetic } => Self::Analysed {
                service: service.0,
                window,
                verdict: verdict.into(),
                evidence: evidence.into_iter().map(Evidence::from).collect(),
                synthetic,
            },
            RolloutWire::Extended { index, service, times, until } => {
                Self::Extended { index, service: service.0, times, until: Timestamp(until) }
            }
            RolloutWire::Measured { service, window, metric, finding, text } => {
                Self::Measured { service: service.0, window, metric, finding: finding.into(), text }
            }
            RolloutWire::GoingBack { reason, steps } => Self::GoingBack {
                reason,
                steps: steps.into_iter().map(Step::try_from).collect::<Result<_, _>>()?,
            },
            RolloutWire::Tried { index, passed, text } => Self::Tried { index, passed, text },
            RolloutWire::Halted { reason, until } => Self::Halted { reason, until: Timestamp(until) },
            RolloutWire::Counted { rollout, is_end, counts, extra } => Self::Counted {
                rollout: RolloutId(rollout),
                is_end,
                counts: counts.map(|all| all.into_iter().map(RequestCount::from).collect()),
                extra: extra.map(ExtraWire::into_model),
            },
            RolloutWire::NotTold { rollout, webhook, occasion, reason } => {
                Self::NotTold { rollout: RolloutId(rollout), webhook, occasion: occasion.into(), reason }
            }
            RolloutWire::Predicted { rollout, forecast } => {
                Self::Predicted { rollout: RolloutId(rollout), forecast: forecast.into_model() }
            }
            RolloutWire::Finished { outcome, reason } => Self::Finished { outcome: outcome.into(), reason },
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestCountWire {
    service: Text<ServiceName>,
    revision: u64,
    answered: u64,
    lost: u64,
    retried: u64,
}

impl From<&RequestCount> for RequestCountWire {
    fn from(count: &RequestCount) -> Self {
        let RequestCount { service, revision, answered, lost, retried } = count;
        Self {
            service: Text(service.clone()),
            revision: revision.0,
            answered: *answered,
            lost: *lost,
            retried: *retried,
        }
    }
}

impl From<RequestCountWire> for RequestCount {
    fn from(wire: RequestCountWire) -> Self {
        Self {
            service: wire.service.0,
            revision: RevisionNumber(wire.revision),
            answered: wire.answered,
            lost: wire.lost,
            retried: wire.retried,
        }
    }
}

impl From<&Outcome> for OutcomeWire {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Completed => Self::Completed,
            Outcome::WentBack => Self::WentBack,
            Outcome::Stuck => Self::Stuck,
            Outcome::Superseded => Self::Superseded,
        }
    }
}

impl From<OutcomeWire> for Outcome {
    fn from(wire: OutcomeWire) -> Self {
        match wire {
            OutcomeWire::Completed => Self::Completed,
            OutcomeWire::WentBack => Self::WentBack,
            OutcomeWire::Stuck => Self::Stuck,
            OutcomeWire::Superseded => Self::Superseded,
        }
    }
}

impl From<&Step> for StepWire {
    fn from(step: &Step) -> Self {
        let wire = |slots: &[Slots]| slots.iter().map(SlotsWire::from).collect();
        match step {
            Step::OpenListeners => Self::OpenListeners,
            Step::Run { job, within, again } => Self::Run {
                job: Text(job.clone()),
                within_ms: within.map(|within| within.0),
                again: (*again).into(),
            },
            Step::Ask(ask) => Self::Ask(ask.into()),
            Step::Create { slots } => Self::Create { slots: wire(slots) },
            Step::WaitHealthy { slots, within } => {
                Self::WaitHealthy { slots: wire(slots), within_ms: within.0 }
            }
            Step::Shift { slots, weight, serve_routes } => {
                Self::Shift { slots: wire(slots), weight: weight.per_mille(), serve_routes: *serve_routes }
            }
            Step::Split { service, weight, window } => {
                let (service, weight) = (Text(service.clone()), weight.per_mille());
                Self::Split { service, weight, window: *window }
            }
            Step::Mirror { service, share, window } => {
                let (service, share) = (Text(service.clone()), share.per_mille());
                Self::Mirror { service, share, window: *window }
            }
            Step::Hold { span } => Self::Hold { span_ms: span.0 },
            Step::Analyse { service, window, within } => {
                Self::Analyse { service: Text(service.clone()), window: *window, within_ms: within.0 }
            }
            Step::Approve { by, within } => Self::Approve { by: by.clone(), within_ms: within.0 },
            Step::Drain { slots, within } => Self::Drain { slots: wire(slots), within_ms: within.0 },
            Step::KeepWarm { slots, keep_for } => {
                Self::KeepWarm { slots: wire(slots), keep_for_ms: keep_for.0 }
            }
            Step::Retire { slots } => Self::Retire { slots: wire(slots) },
            Step::Soak { slots, span } => Self::Soak { slots: wire(slots), span_ms: span.0 },
        }
    }
}

impl TryFrom<StepWire> for Step {
    type Error = String;

    fn try_from(wire: StepWire) -> Result<Self, String> {
        let model = |slots: Vec<SlotsWire>| slots.into_iter().map(Slots::from).collect();
        Ok(match wire {
            StepWire::OpenListeners => Self::OpenListeners,
            StepWire::Run { job, within_ms, again } => {
                Self::Run { job: job.0, within: within_ms.map(Millis), again: again.into() }
            }
            StepWire::Ask(ask) => Self::Ask(ask.into()),
            StepWire::Create { slots } => Self::Create { slots: model(slots) },
            StepWire::WaitHealthy { slots, within_ms } => {
                Self::WaitHealthy { slots: model(slots), within: Millis(within_ms) }
            }
            StepWire::Shift { slots, weight, serve_routes } => {
                Self::Shift { slots: model(slots), weight: weight_of(weight)?, serve_routes }
            }
            StepWire::Split { service, weight, window } => {
                Self::Split { service: service.0, weight: weight_of(weight)?, window }
            }
            StepWire::Mirror { service, share, window } => {
                Self::Mirror { service: service.0, share: weight_of(share)?, window }
            }
            StepWire::Hold { span_ms } => Self::Hold { span: Millis(span_ms) },
            StepWire::Analyse { service, window, within_ms } => {
                Self::Analyse { service: service.0, window, within: Millis(within_ms) }
            }
            StepWire::Approve { by, within_ms } => Self::Approve { by, within: Millis(within_ms) },
            StepWire::Drain { slots, within_ms } => {
                Self::Drain { slots: model(slots), within: Millis(within_ms) }
            }
            StepWire::KeepWarm { slots, keep_for_ms } => {
                Self::KeepWarm { slots: model(slots), keep_for: Millis(keep_for_ms) }
            }
            StepWire::Retire { slots } => Self::Retire { slots: model(slots) },
            StepWire::Soak { slots, span_ms } => Self::Soak { slots: model(slots), span: Millis(span_ms) },
        })
    }
}

/// Reads a weight back, which has a range.
pub(super) fn weight_of(per_mille: u16) -> Result<Weight, String> {
    Weight::new(per_mille).ok_or_else(|| format!("a weight of {per_mille} per mille"))
}

impl From<&Slots> for SlotsWire {
    fn from(slots: &Slots) -> Self {
        Self { service: Text(slots.service.clone()), first: slots.first, count: slots.count }
    }
}

impl From<SlotsWire> for Slots {
    fn from(wire: SlotsWire) -> Self {
        Self { service: wire.service.0, first: wire.first, count: wire.count }
    }
}

impl From<&Cause> for CauseWire {
    fn from(cause: &Cause) -> Self {
        match cause {
            Cause::Up => Self::Up,
            Cause::Rollback { to, service } => {
                Self::Rollback { to: to.0, service: service.clone().map(Text) }
            }
            Cause::Down => Self::Down,
            Cause::Promotion { from } => Self::Promotion { from: Text(from.clone()) },
        }
    }
}

impl From<CauseWire> for Cause {
    fn from(wire: CauseWire) -> Self {
        match wire {
            CauseWire::Up => Self::Up,
            CauseWire::Rollback { to, service } => {
                Self::Rollback { to: RevisionNumber(to), service: service.map(|name| name.0) }
            }
            CauseWire::Down => Self::Down,
            CauseWire::Promotion { from } => Self::Promotion { from: from.0 },
        }
    }
}

impl From<&ReplicaOwner> for OwnerWire {
    fn from(owner: &ReplicaOwner) -> Self {
        match owner {
            ReplicaOwner::Declared => Self::Declared,
            ReplicaOwner::Hand => Self::Hand,
            ReplicaOwner::Autoscaler => Self::Autoscaler,
        }
    }
}

impl From<OwnerWire> for ReplicaOwner {
    fn from(wire: OwnerWire) -> Self {
        match wire {
            OwnerWire::Declared => Self::Declared,
            OwnerWire::Hand => Self::Hand,
            OwnerWire::Autoscaler => Self::Autoscaler,
        }
    }
}
