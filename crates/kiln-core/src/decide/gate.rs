//! What a canary waits for between two shares: time, an analysis, somebody's approval.

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Evidence, Verdict};
use kiln_model::sample::WindowSamples;
use kiln_model::service::{Analysis, Inconclusive, MetricKind, Strategy};
use kiln_model::{Event, ServiceName};

use super::work::{Deed, View};
use crate::analysis::{evidence, verdict};
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
        let case = Case::find(view, rollout, name, split.window).filter(|case| !case.analysis.dry_run)?;
        (case.verdict() == Verdict::Fail).then(|| {
            let evidence = case.evidence();
            let reason = reason(name, &evidence);
            (case.concluded(Verdict::Fail, evidence), reason)
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
    let Some(case) = Case::find(view, rollout, name, window) else { return Gate::Open(Vec::new()) };
    let verdict = case.verdict();
    let is_over = match verdict {
        Verdict::Pass => true,
        // One that counts is told by `failed`.
        Verdict::Fail => case.analysis.dry_run,
        Verdict::Inconclusive => false,
    };
    if is_over {
        return Gate::Open(vec![case.concluded(verdict, case.evidence())]);
    }
    if !is_late {
        return Gate::Wait(Vec::new());
    }
    if rollout.undecided {
        let reason = format!("nobody decided about {name}, whose requests were too few to tell");
        return Gate::Shut(Vec::new(), reason);
    }
    let deeds = vec![case.concluded(Verdict::Inconclusive, case.evidence())];
    match case.analysis.inconclusive {
        _ if case.analysis.dry_run => Gate::Open(deeds),
        Inconclusive::Continue => Gate::Open(deeds),
        Inconclusive::Ask => Gate::Wait(deeds),
        Inconclusive::Stop => {
            let few = format!("the requests to the new {name} were too few to compare it with its baseline");
            Gate::Shut(deeds, few)
        }
    }
}

/// What there is to judge about one service.
struct Case<'a> {
    name: &'a ServiceName,
    window: u32,
    analysis: &'a Analysis,
    /// How many windows share the chance of a false alarm.
    windows: usize,
    /// None before the edge was asked for the first time.
    samples: Option<&'a WindowSamples>,
}

impl<'a> Case<'a> {
    /// None if the target declares no analysis.
    fn find(view: View<'a>, rollout: &Rollout, name: &'a ServiceName, window: u32) -> Option<Self> {
        let Strategy::Canary(canary) = &view.env.service(rollout.to, name)?.strategy else { return None };
        let samples = view.observed.samples(&view.env.key, name, rollout.id, window);
        let (analysis, windows) = (canary.analysis.as_ref()?, canary.stages.len());
        Some(Self { name, window, analysis, windows, samples })
    }

    fn verdict(&self) -> Verdict {
        let verdict = |samples| verdict(self.analysis, self.windows, samples);
        self.samples.map_or(Verdict::Inconclusive, verdict)
    }

    fn evidence(&self) -> Vec<Evidence> {
        self.samples.map_or_else(Vec::new, |samples| evidence(self.analysis, self.windows, samples))
    }

    fn concluded(&self, verdict: Verdict, evidence: Vec<Evidence>) -> Deed {
        let (service, window) = (self.name.clone(), self.window);
        Deed::Log(Event::Rollout(RolloutEvent::Analysed { service, window, verdict, evidence }))
    }
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
