//! What is seen of the canaries that run: the edge's counts until now, and how much more it takes to tell.

use std::sync::Arc;

use kiln_core::state::{Environment, Rollout, StepPhase};
use kiln_core::{Standing, State, Tally, measured, standing, told};
use kiln_model::outside::OutsideMetric;
use kiln_model::rollout::Step;
use kiln_model::route::{Group, Sampling};
use kiln_model::sample::{GroupSamples, WindowSamples};
use kiln_model::service::{Analysis, Inconclusive, Strategy};
use kiln_model::{EnvKey, ServiceName};
use serde::{Deserialize, Serialize};

use super::server::Backend;
use super::verdicts::metric_text;

/// What the edge counted of a service whose requests are split.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The counts since the split began.
    pub samples: Arc<WindowSamples>,
    /// How many requests a minute came to the groups that are compared, of late; none before that can be told.
    pub per_minute: Option<u64>,
}

/// A canary that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Canary {
    /// The service.
    pub service: String,
    /// Which split of its requests, from 0: the counts are since its beginning.
    pub window: u32,
    /// The new instances'.
    pub canary: Side,
    /// Those of the fresh old instances that they are compared with.
    pub baseline: Side,
    /// What became of the copies of requests, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// Where its analysis is going, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlook: Option<Outlook>,
    /// What others measure for it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outside: Vec<Outside>,
}

/// A metric that others measure.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outside {
    /// Its name.
    pub metric: String,
    /// `measuring`, `passed`, `failed`, `unclear` or `away`.
    pub standing: String,
    /// How many values came.
    pub measured: u32,
    /// How many are needed.
    pub count: u32,
    /// How many of them were failures.
    pub failed: u32,
    /// How many attempts came to no value.
    pub errors: u32,
    /// Whether it is only written down.
    pub dry_run: bool,
    /// How it stands and why, for people.
    pub text: String,
}

/// One measurement of a metric of outside.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Measurement {
    /// When.
    pub at_ms: u64,
    /// The service.
    pub service: String,
    /// Which split of its requests, from 0.
    pub window: u32,
    /// The metric's name.
    pub metric: String,
    /// `passed`, `failed`, `unclear` or `error`.
    pub finding: String,
    /// The value, or why there is none.
    pub text: String,
}

/// What was counted of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Side {
    /// The requests.
    pub requests: u64,
    /// Of these: answered with a server error, or not at all.
    pub failed: u64,
    /// Of the requests: those that the edge made itself.
    #[serde(skip_serializing_if = "is_none")]
    pub synthetic: u64,
}

/// What became of the copies of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Copies {
    /// An answer began.
    pub answered: u64,
    /// Of these: of another class of status than the original's.
    pub differed: u64,
    /// No answer began in time.
    pub lost: u64,
    /// Not sent: too many were under way.
    pub skipped: u64,
}

/// Where an analysis is going, if things stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outlook {
    /// The metrics that can't tell yet.
    pub undecided: Vec<String>,
    /// About how many more requests it takes; none where no end can be told.
    pub more_requests: Option<u64>,
    /// How many a minute come, of late.
    pub per_minute: Option<u64>,
    /// About how long that takes at this traffic; none where no end can be told.
    pub needed_ms: Option<u64>,
    /// When it counts as inconclusive, while the rollout waits for it.
    pub until_ms: Option<u64>,
    /// What happens then: `stop`, `continue`, `ask`, or `extend`.
    pub then: String,
    /// How often it took its time again.
    pub extended: u32,
    /// How often it may at most.
    pub extend_limit: u32,
}

/// Returns what is seen of the canaries of a rollout; empty unless it is the one that runs, forwards.
pub(super) fn canaries(state: &State, key: &EnvKey, id: u64, backend: &dyn Backend) -> Vec<Canary> {
    let Some(env) = state.environment(key) else { return Vec::new() };
    let Some(rollout) = env.rollout.as_ref().filter(|it| it.id.0 == id && !it.is_going_back()) else {
        return Vec::new();
    };
    let seen = |(name, split): (&ServiceName, &kiln_core::state::Split)| {
        let sampling = Sampling { rollout: rollout.id, window: split.window };
        // Before the edge was asked for the first time nothing is counted.
        let none = || Traffic { samples: Arc::default(), per_minute: None };
        let traffic = backend.traffic(key, name, sampling).unwrap_or_else(none);
        let found = canary(env, rollout, name, split.window, &traffic);
        // Who gets copies alone is not compared yet.
        if split.is_mirror() { Canary { outlook: None, outside: Vec::new(), ..found } } else { found }
    };
    rollout.splits.iter().map(seen).collect()
}

fn canary(
    env: &Environment,
    rollout: &Rollout,
    name: &ServiceName,
    window: u32,
    traffic: &Traffic,
) -> Canary {
    let of = |group| traffic.samples.get(&group).map(side).unwrap_or_default();
    let copies = traffic.samples.get(&Group::Canary).map(|canary| canary.mirror);
    let copies = copies.map(|it| Copies {
        answered: it.answered,
        differed: it.differed,
        lost: it.lost,
        skipped: it.skipped,
    });
    Canary {
        service: name.to_string(),
        window,
        canary: of(Group::Canary),
        baseline: of(Group::Baseline),
        copies: copies.filter(|copies| *copies != Copies::default()),
        outlook: outlook(env, rollout, name, window, traffic),
        outside: measured(env, rollout, name).map(outside).collect(),
    }
}

fn outside((metric, tally): (&OutsideMetric, &Tally)) -> Outside {
    let standing = match standing(metric, tally) {
        Standing::Measuring => "measuring",
        Standing::Passed => "passed",
        Standing::Failed => "failed",
        Standing::Unclear => "unclear",
        Standing::Away => "away",
    };
    Outside {
        metric: metric.name.clone(),
        standing: standing.into(),
        measured: tally.measured(),
        count: metric.count,
        failed: tally.failed,
        errors: tally.errors,
        dry_run: metric.dry_run,
        text: told(metric, tally),
    }
}

fn side(samples: &GroupSamples) -> Side {
    let (requests, synthetic) = (samples.requests(), samples.synthetic);
    Side { requests, failed: samples.failures().min(requests), synthetic: synthetic.min(requests) }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it")]
pub(super) fn is_none(count: &u64) -> bool {
    *count == 0
}

fn outlook(
    env: &Environment,
    rollout: &Rollout,
    name: &ServiceName,
    window: u32,
    traffic: &Traffic,
) -> Option<Outlook> {
    let found = kiln_core::outlook(env, rollout, name, &traffic.samples)?;
    let analysis = analysis(env, rollout, name)?;
    let needed_ms = match (found.more, traffic.per_minute) {
        (Some(0), _) => Some(0),
        (Some(more), Some(rate @ 1..)) => Some(more.saturating_mul(60_000) / rate),
        _ => None,
    };
    let until_ms = match (rollout.current_step(), rollout.step) {
        (Some(Step::Analyse { service, window: of, .. }), StepPhase::Started { deadline })
            if service == name && *of == window && rollout.paused.is_none() =>
        {
            deadline.map(|at| at.0)
        }
        _ => None,
    };
    Some(Outlook {
        undecided: found.undecided.into_iter().map(metric_text).collect(),
        more_requests: found.more,
        per_minute: traffic.per_minute,
        needed_ms,
        until_ms,
        then: then(analysis, rollout).into(),
        extended: rollout.extended,
        extend_limit: analysis.extensions,
    })
}

fn analysis<'a>(env: &'a Environment, rollout: &Rollout, name: &ServiceName) -> Option<&'a Analysis> {
    match &env.service(rollout.to, name)?.strategy {
        Strategy::Canary(canary) => canary.analysis.as_ref(),
        _ => None,
    }
}

fn then(analysis: &Analysis, rollout: &Rollout) -> &'static str {
    match analysis.inconclusive {
        _ if analysis.dry_run => "continue",
        _ if rollout.extended < analysis.extensions && !rollout.undecided => "extend",
        // Who was asked and did not answer decided against it.
        Inconclusive::Ask if !rollout.undecided => "ask",
        Inconclusive::Ask | Inconclusive::Stop => "stop",
        Inconclusive::Continue => "continue",
    }
}
