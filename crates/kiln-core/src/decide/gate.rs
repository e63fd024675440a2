//! What a canary waits for between two shares: time, an analysis, somebody's approval.

use kiln_model::event::RolloutEvent;
use kiln_model::outside::OutsideMetric;
use kiln_model::rollout::{Evidence, Step, Verdict};
use kiln_model::sample::WindowSamples;
use kiln_model::service::{Analysis, Inconclusive, MetricKind, Strategy};
use kiln_model::{Event, ServiceName, Weight};

use super::work::{Deed, View};
use crate::analysis::{evidence, verdict};
use crate::outlook::made;
use crate::outside::{self, Standing, Tally, standing};
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
    let splits = rollout.splits.iter().filter(|(_, split)| !split.is_mirror());
    splits.into_iter().find_map(|(name, split)| {
        let case = Case::find(view, rollout, name, split.window).filter(|case| !case.analysis.dry_run)?;
        (case.verdict() == Verdict::Fail).then(|| {
            let evidence = case.evidence();
            let reason = case.reason(&evidence);
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
    // Who was asked to decide has the time that it was given.
    if !is_late && (rollout.undecided || !case.is_stuck()) {
        return Gate::Wait(Vec::new());
    }
    if rollout.undecided {
        let reason = format!("nobody decided about {name}: {}", case.unclear());
        return Gate::Shut(Vec::new(), reason);
    }
    if let Some(again) = extended(view, rollout, &case) {
        return Gate::Wait(vec![again]);
    }
    let deeds = vec![case.concluded(Verdict::Inconclusive, case.evidence())];
    match case.analysis.inconclusive {
        _ if case.analysis.dry_run => Gate::Open(deeds),
        Inconclusive::Continue => Gate::Open(deeds),
        Inconclusive::Ask => Gate::Wait(deeds),
        Inconclusive::Stop => {
            let unclear = case.unclear();
            Gate::Shut(deeds, unclear)
        }
    }
}

/// Takes the time of an analysis again, as often as its stack wants it to; what no time brings any further has none.
fn extended(view: View<'_>, rollout: &Rollout, case: &Case<'_>) -> Option<Deed> {
    let Some(Step::Analyse { within, .. }) = rollout.current_step() else { return None };
    let (index, service, times) = (rollout.next, case.name.clone(), rollout.extended + 1);
    let until = view.now.plus(*within);
    let event = RolloutEvent::Extended { index, service, times, until };
    (times <= case.analysis.extensions && !case.is_stuck()).then_some(Deed::Log(Event::Rollout(event)))
}

/// What there is to judge about one service.
struct Case<'a> {
    name: &'a ServiceName,
    window: u32,
    analysis: &'a Analysis,
    /// How many windows share the chance of a false alarm.
    windows: usize,
    /// Whether there is something to compare at the share that the canary has.
    is_compared: bool,
    /// None before the edge was asked for the first time.
    samples: Option<&'a WindowSamples>,
    /// What others measured that counts.
    outside: Vec<(&'a OutsideMetric, &'a Tally)>,
}

impl<'a> Case<'a> {
    /// None if the target declares no analysis.
    fn find(view: View<'a>, rollout: &'a Rollout, name: &'a ServiceName, window: u32) -> Option<Self> {
        let Strategy::Canary(canary) = &view.env.service(rollout.to, name)?.strategy else { return None };
        let samples = view.observed.samples(&view.env.key, name, rollout.id, window);
        let (analysis, windows) = (canary.analysis.as_ref()?, canary.compared_shares());
        let weight = rollout.splits.get(name).map_or(Weight::ZERO, |split| split.weight);
        let is_compared = canary.compares_at(weight);
        let outside = outside::measured(view.env, rollout, name).filter(|(metric, _)| !metric.dry_run);
        let outside = outside.collect();
        Some(Self { name, window, analysis, windows, is_compared, samples, outside })
    }

    fn verdict(&self) -> Verdict {
        let standings = self.outside.iter().map(|(metric, tally)| standing(metric, tally));
        let outside = standings.fold(Verdict::Pass, |together, standing| match (together, standing) {
            (Verdict::Fail, _) | (_, Standing::Failed) => Verdict::Fail,
            (Verdict::Pass, Standing::Passed) => Verdict::Pass,
            _ => Verdict::Inconclusive,
        });
        match (self.compared(), outside) {
            (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
            (Verdict::Pass, Verdict::Pass) => Verdict::Pass,
            _ => Verdict::Inconclusive,
        }
    }

    /// What the comparison with the baseline says.
    fn compared(&self) -> Verdict {
        if !self.is_compared {
            return Verdict::Pass;
        }
        let verdict = |samples| verdict(self.analysis, self.windows, samples);
        self.samples.map_or(Verdict::Inconclusive, verdict)
    }

    /// Whether no time brings it any further: what others measure is beyond what is accepted of not knowing.
    fn is_stuck(&self) -> bool {
        let mut standings = self.outside.iter().map(|(metric, tally)| standing(metric, tally));
        standings.any(|standing| matches!(standing, Standing::Unclear | Standing::Away))
    }

    /// Why it can't be told, for people.
    fn unclear(&self) -> String {
        let name = self.name;
        let few = || format!("the requests to the new {name} were too few to compare it with its baseline");
        let is_open =
            |(metric, tally): &&(&OutsideMetric, &Tally)| standing(metric, tally) != Standing::Passed;
        let open = self.outside.iter().filter(is_open).map(|(metric, tally)| outside::told(metric, tally));
        let few = (self.compared() != Verdict::Pass).then(few);
        few.into_iter().chain(open).collect::<Vec<_>>().join("; ")
    }

    /// Why it failed, for people: what is worse than the baseline, or what others measured.
    fn reason(&self, evidence: &[Evidence]) -> String {
        let is_bad =
            |(metric, tally): &&(&OutsideMetric, &Tally)| standing(metric, tally) == Standing::Failed;
        let bad = self.outside.iter().filter(is_bad).map(|(metric, tally)| outside::told(metric, tally));
        let worse = (self.compared() == Verdict::Fail).then(|| reason(self.name, evidence));
        let bad = bad.map(|bad| format!("with the new {}, {bad}", self.name));
        worse.into_iter().chain(bad).collect::<Vec<_>>().join("; ")
    }

    /// None of a comparison that was not asked for.
    fn evidence(&self) -> Vec<Evidence> {
        self.samples.map_or_else(Vec::new, |samples| evidence(self.analysis, self.windows, samples))
    }

    fn concluded(&self, verdict: Verdict, evidence: Vec<Evidence>) -> Deed {
        let (service, window) = (self.name.clone(), self.window);
        let synthetic = self.samples.map_or(0, made);
        Deed::Log(Event::Rollout(RolloutEvent::Analysed { service, window, verdict, evidence, synthetic }))
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
        MetricKind::ClientErrors => {
            let (canary, baseline) = (canary / 1e4, baseline / 1e4);
            format!(
                "{canary:.2}% of {requests} requests were answered with 400 to 499, {baseline:.2}% of the baseline's"
            )
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
