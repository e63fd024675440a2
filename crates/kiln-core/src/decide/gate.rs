//! What a canary waits for between two shares: time, an analysis, somebody's approval.

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Evidence, Verdict};
use kiln_model::service::{Analysis, Canary, Inconclusive, MetricKind, Strategy};
use kiln_model::{Event, ServiceName};

use super::work::{Deed, View};
use crate::analysis::{Judgement, judge};
use crate::state::Rollout;

/// What follows from looking at a step that waits.
pub(super) enum Gate {
    /// It goes on waiting, and this is written down.
    Wait(Vec<Deed>),
    /// It is complete.
    Open(Vec<Deed>),
    /// It failed.
    Shut(Vec<Deed>, String),
}

/// Says which canary is worse than its baseline, at whatever step the rollout is: a bad one is not held for longer than it
/// takes to know.
pub(super) fn failed(view: View<'_>, rollout: &Rollout) -> Option<(Deed, String)> {
    if rollout.is_going_back() {
        return None;
    }
    rollout.splits.iter().find_map(|(name, split)| {
        let judgement = judged(view, rollout, name, split.window)?;
        let is_alarm = judgement.verdict == Verdict::Fail && !declared(view, rollout, name)?.dry_run;
        is_alarm.then(|| {
            let reason = reason(name, &judgement.evidence);
            (analysed(name, split.window, judgement), reason)
        })
    })
}

/// Looks at an analysis that is waited for.
pub(super) fn analyse(
    view: View<'_>,
    rollout: &Rollout,
    (name, window): (&ServiceName, u32),
    is_late: bool,
) -> Gate {
    let Some(analysis) = declared(view, rollout, name) else { return Gate::Open(Vec::new()) };
    let judgement = judged(view, rollout, name, window);
    let judgement = judgement.unwrap_or_else(|| judge(analysis, 1, &Default::default()));
    let is_over = match judgement.verdict {
        Verdict::Pass => true,
        // One that counts is told by `failed`.
        Verdict::Fail => analysis.dry_run,
        Verdict::Inconclusive => false,
    };
    if is_over {
        return Gate::Open(vec![analysed(name, window, judgement)]);
    }
    if !is_late {
        return Gate::Wait(Vec::new());
    }
    if rollout.undecided {
        return Gate::Shut(
            Vec::new(),
            format!("nobody decided about {name}, whose requests were too few to tell"),
        );
    }
    let few = format!("the requests to the new {name} were too few to compare it with its baseline");
    let deeds = vec![analysed(name, window, Judgement { verdict: Verdict::Inconclusive, ..judgement })];
    match analysis.inconclusive {
        _ if analysis.dry_run => Gate::Open(deeds),
        Inconclusive::Continue => Gate::Open(deeds),
        Inconclusive::Ask => Gate::Wait(deeds),
        Inconclusive::Stop => Gate::Shut(deeds, few),
    }
}

fn analysed(name: &ServiceName, window: u32, judgement: Judgement) -> Deed {
    let Judgement { verdict, evidence, .. } = judgement;
    Deed::Log(Event::Rollout(RolloutEvent::Analysed { service: name.clone(), window, verdict, evidence }))
}

fn canary<'a>(view: View<'a>, rollout: &Rollout, name: &ServiceName) -> Option<&'a Canary> {
    match &view.env.service(rollout.to, name)?.strategy {
        Strategy::Canary(canary) => Some(canary),
        Strategy::BlueGreen | Strategy::Rolling { .. } | Strategy::StopThenStart => None,
    }
}

fn declared<'a>(view: View<'a>, rollout: &Rollout, name: &ServiceName) -> Option<&'a Analysis> {
    canary(view, rollout, name)?.analysis.as_ref()
}

fn judged(view: View<'_>, rollout: &Rollout, name: &ServiceName, window: u32) -> Option<Judgement> {
    let canary = canary(view, rollout, name)?;
    let samples = view.observed.samples(&view.env.key, name, rollout.id, window)?;
    Some(judge(canary.analysis.as_ref()?, canary.stages.len(), samples))
}

/// Why a canary failed, for people, as in `error rate 5.1% where the baseline has 0.1%`.
fn reason(name: &ServiceName, evidence: &[Evidence]) -> String {
    let failed = evidence.iter().filter(|found| found.verdict == Verdict::Fail);
    let told: Vec<String> = failed.map(told).collect();
    format!("the new {name} is worse than its baseline: {}", told.join("; "))
}

fn told(found: &Evidence) -> String {
    // Far below 2^52, where a float is exact.
    let (canary, baseline) = (found.canary.value as f64, found.baseline.value as f64);
    let requests = found.canary.samples;
    match found.metric {
        MetricKind::ErrorRate => {
            let (canary, baseline) = (canary / 1e4, baseline / 1e4);
            format!("{canary:.2}% of {requests} requests failed, {baseline:.2}% of the baseline's")
        }
        MetricKind::Latency { quantile } => {
            let (canary, baseline) = (canary / 1e3, baseline / 1e3);
            let quantile = f64::from(quantile) / 1e4;
            format!(
                "its p{quantile} is {canary:.1} ms after {requests} requests, the baseline's {baseline:.1} ms"
            )
        }
    }
}
