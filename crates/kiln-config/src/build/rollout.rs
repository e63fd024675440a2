//! How a service moves from one revision to another.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_model::interlude::Interludes;
use kiln_model::route::Group;
use kiln_model::service::{Analysis, Audience, Canary, Gate, RolloutBounds, ServiceKind, Stage, Strategy};
use kiln_model::{Millis, PortName, ServiceName, Weight};

use super::analysis::{analysis, measures_at_nothing, refuse_unused};
use super::audience::audience;
use super::checks::Check;
use super::misplaced::refuse_misplaced;
use super::outside::refuse_too_slow;
use super::service::REPLICAS_MAX;
use super::steps::{Steps, steps};
use super::waves::waves;
use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::units::{parse_millis, parse_weight};

const STRATEGIES: [&str; 4] = ["blue_green", "canary", "rolling", "stop_then_start"];

/// The shares of a canary that names none: few see a bad one, and the second is enough to see what load does.
const SHARES: [u16; 2] = [50, 250];

/// How long a stage of a canary holds that nobody compares. Most programs that can't stand requests fail within it.
const HOLD: Millis = Millis::from_secs(60);

/// Nobody remembers what a canary that is older was for.
pub(super) const STEP_MAX: Millis = Millis::from_secs(14 * 24 * 3600);

/// More stages can't be told apart.
const STAGES_MAX: usize = 50;

/// How a service moves, with its bounds and with what is done between its moves.
pub(super) struct Rollout {
    pub(super) strategy: Strategy,
    pub(super) bounds: RolloutBounds,
    pub(super) interludes: Arc<Interludes>,
    pub(super) checks: Vec<Check>,
}

pub(super) fn rollout(
    reader: Reader<'_>,
    name: &ServiceName,
    kind: ServiceKind,
    ports: &BTreeMap<PortName, u16>,
) -> Rollout {
    let default = if kind == ServiceKind::Service { Strategy::BlueGreen } else { Strategy::StopThenStart };
    let mut bounds = RolloutBounds::default();
    let plain = |strategy| Rollout { strategy, bounds, interludes: Arc::default(), checks: Vec::new() };
    let Some(rollout) = reader.block("rollout") else { return plain(default) };
    let Some((label, span)) = reader.blocks("rollout").next().and_then(|b| b.labels.first()) else {
        return plain(default);
    };
    let mut of_canary = Steps::default();
    let strategy = match &**label {
        "blue_green" => Strategy::BlueGreen,
        "stop_then_start" => Strategy::StopThenStart,
        "rolling" => rolling(rollout),
        "canary" if kind != ServiceKind::Service || ports.is_empty() => {
            let message = "a canary is a share of the requests, and nothing is sent to what has no port";
            let help = "use \"rolling\", or declare a `port`";
            rollout.report(Problem::new("wrong-value", *span, message).help(help));
            default
        }
        "canary" => {
            let (canary, steps) = canary(rollout, (name, ports));
            of_canary = steps;
            Strategy::Canary(Arc::new(canary))
        }
        other => {
            let normal = other.to_ascii_lowercase().replace('-', "_");
            let message = format!("there is no strategy \"{other}\"");
            let help = did_you_mean(&normal, STRATEGIES.into_iter())
                .unwrap_or_else(|| format!("there are \"{}\"", STRATEGIES.join("\", \"")));
            rollout.report(Problem::new("wrong-value", *span, message).help(help));
            return plain(default);
        }
    };
    let steps = match strategy {
        Strategy::Canary(_) => of_canary,
        _ => steps(rollout, label, (name, ports), strategy.is_old_first(), None),
    };
    refuse_misplaced(rollout, label);
    bounds.progress_deadline = rollout.some_millis("progress_deadline").unwrap_or(bounds.progress_deadline);
    bounds.drain_deadline = rollout.millis("drain_deadline").unwrap_or(bounds.drain_deadline);
    bounds.warm_for = rollout.millis("warm_for").unwrap_or(bounds.warm_for);
    bounds.healthy_for = healthy_for(rollout, bounds.progress_deadline);
    bounds.auto_promote = rollout.bool("auto_promote").unwrap_or(bounds.auto_promote);
    bounds.auto_revert = rollout.bool("auto_revert").unwrap_or(bounds.auto_revert);
    Rollout { strategy, bounds, interludes: Arc::new(steps.interludes), checks: steps.checks }
}

/// Who needs longer to prove that it is healthy than it may take to become so never does.
fn healthy_for(rollout: Reader<'_>, progress_deadline: Millis) -> Millis {
    let span = rollout.millis("min_healthy_time").unwrap_or_default();
    if span > Millis(0) && span >= progress_deadline {
        let message = format!(
            "`min_healthy_time` is {span}, and `progress_deadline` ends the wait after {progress_deadline}"
        );
        let help = "raise `progress_deadline`: an instance must also have time to start";
        let problem = Problem::new("wrong-value", rollout.span("min_healthy_time"), message);
        rollout.report(problem.help(help));
    }
    span
}

/// Where `max_surge` of a canary is less than what its shares take.
pub(super) fn refuse_small_surge(reader: Reader<'_>, strategy: &Strategy, replicas: u32) {
    let (Some(rollout), Strategy::Canary(canary)) = (reader.block("rollout"), strategy) else { return };
    let Some(surge) = canary.max_surge else { return };
    let most = canary.stages.iter().max_by_key(|stage| canary.extra_at(stage.weight, replicas));
    let Some(stage) = most.filter(|stage| canary.extra_at(stage.weight, replicas) > surge) else { return };
    let (share, extra) = (percent(stage.weight), canary.extra_at(stage.weight, replicas));
    let baseline = if canary.compares_at(stage.weight) { ", with as many for the baseline," } else { "" };
    let message = format!(
        "a share of {share}%{baseline} takes {extra} instances more than {replicas}, and `max_surge` is {surge}"
    );
    let help = format!("write `max_surge = {extra}` or more, or end with a smaller share");
    rollout.report(Problem::new("wrong-value", rollout.span("max_surge"), message).help(help));
}

fn rolling(rollout: Reader<'_>) -> Strategy {
    let max_surge = rollout.int("max_surge", 0..=REPLICAS_MAX).unwrap_or(1);
    let max_unavailable = rollout.int("max_unavailable", 0..=REPLICAS_MAX).unwrap_or(0);
    if max_surge == 0 && max_unavailable == 0 {
        let message = "with neither `max_surge` nor `max_unavailable` a rollout can't take a step";
        rollout.report(Problem::new("wrong-value", rollout.span("max_surge"), message));
    }
    Strategy::Rolling { max_surge, max_unavailable, waves: waves(rollout).map(Arc::new) }
}

fn canary(rollout: Reader<'_>, of: (&ServiceName, &BTreeMap<PortName, u16>)) -> (Canary, Steps) {
    let analysis = rollout.block("analysis").map(|block| analysis(block, of));
    let audience = audience(rollout);
    let mut found = Steps::default();
    let stages = match rollout.block("step") {
        None => short_form(rollout, analysis.as_ref(), &audience),
        Some(_) => {
            for name in ["steps", "hold"] {
                if rollout.has(name) {
                    let message =
                        format!("`{name}` is the short form of `step` blocks, which stand here as well");
                    rollout.report(Problem::new("wrong-value", rollout.span(name), message));
                }
            }
            found = steps(rollout, "canary", of, false, analysis.as_ref().map(|(analysis, _)| analysis));
            ascending(rollout, rollout.header, &audience, std::mem::take(&mut found.stages))
        }
    };
    if let (Some(block), Some((analysis, _))) = (rollout.block("analysis"), &analysis) {
        refuse_too_slow(block, &analysis.outside, &stages);
        refuse_unused(block, &stages);
    }
    let analysis = analysis.map(|(analysis, _)| analysis);
    let max_surge = rollout.int("max_surge", 1..=REPLICAS_MAX);
    (Canary { stages, analysis, audience, max_surge }, found)
}

/// A duration of at least a millisecond and at most [`STEP_MAX`].
pub(super) fn bounded(reader: Reader<'_>, name: &str) -> Option<Millis> {
    reader.parsed(name, "\"10m\"", |text| match parse_millis(text)? {
        Millis(0) => Err("it must be longer than nothing".to_owned()),
        millis if millis > STEP_MAX => Err(format!("it must be at most {STEP_MAX}")),
        millis => Ok(millis),
    })
}

/// `steps = ["5%", "25%", "100%"]` with the same gates after each.
fn short_form(rollout: Reader<'_>, analysis: Option<&(Analysis, Millis)>, audience: &Audience) -> Vec<Stage> {
    let hold =
        bounded(rollout, "hold").or_else(|| (analysis.is_none() && !rollout.has("hold")).then_some(HOLD));
    let gates = |weight| {
        let analyse = analysis.filter(|(analysis, _)| weight > Weight::ZERO || measures_at_nothing(analysis));
        hold.map(Gate::Hold).into_iter().chain(analyse.map(|(_, within)| Gate::Analyse(*within))).collect()
    };
    let weights = if rollout.has("steps") {
        let Some(texts) = rollout.strings("steps") else { return Vec::new() };
        let (mut weights, mut is_readable) = (Vec::new(), true);
        for text in texts {
            match parse_weight(&text) {
                Ok(weight) => weights.push(weight),
                Err(reason) => {
                    is_readable = false;
                    wrong(rollout, rollout.span("steps"), &format!("`steps`: {reason}"));
                }
            }
        }
        // What can't be read was meant to be a share: that there are too few is not the mistake.
        if weights.is_empty() && !is_readable {
            return Vec::new();
        }
        weights
    } else {
        SHARES.into_iter().filter_map(Weight::new).collect()
    };
    let span = rollout.span("steps");
    let stages = weights.into_iter().map(|weight| (Stage { weight, gates: gates(weight) }, span));
    ascending(rollout, span, audience, stages.collect())
}

pub(super) fn wrong(reader: Reader<'_>, span: Span, message: &str) {
    reader.report(Problem::new("wrong-value", span, message));
}

/// A share as people write it.
pub(super) fn percent(weight: Weight) -> f64 {
    f64::from(weight.per_mille()) / 10.0
}

/// Each share is greater than the one before; that of all is what follows anyway.
fn ascending(
    rollout: Reader<'_>,
    whole: Span,
    audience: &Audience,
    stages: Vec<(Stage, Span)>,
) -> Vec<Stage> {
    let mut found: Vec<Stage> = Vec::new();
    for (stage, span) in stages {
        match found.last().map(|before| before.weight) {
            None if stage.weight == Weight::ZERO => refuse_nothing(rollout, span, audience, &stage),
            Some(last) if stage.weight <= last => {
                let message = format!("{}% does not come after {}%", percent(stage.weight), percent(last));
                let help = "shares only grow: a rollout that should shrink goes back";
                rollout.report(Problem::new("wrong-value", span, message).help(help));
            }
            _ => {}
        }
        found.push(stage);
    }
    found.retain(|stage| stage.weight < Weight::FULL);
    if found.is_empty() {
        let help = "as in `steps = [\"5%\", \"25%\", \"100%\"]`; without one, use \"blue_green\"";
        let message = "a canary has at least one share of less than all";
        rollout.report(Problem::new("wrong-value", whole, message).help(help));
    }
    if found.len() > STAGES_MAX {
        wrong(rollout, whole, &format!("a canary has at most {STAGES_MAX} shares"));
    }
    found
}

/// A share of nothing is for those who are aimed at the canary, as long as something holds it.
fn refuse_nothing(rollout: Reader<'_>, span: Span, audience: &Audience, stage: &Stage) {
    // What could not be read of them was meant to be somebody.
    let is_read = audience.aim.len() == rollout.blocks("match").count();
    let is_aimed = audience.aim.iter().any(|aim| aim.group == Group::Canary);
    let problem = if is_read && !is_aimed && rollout.block("mirror").is_none() {
        let help = "add `match { header = \"X-Version\" }` for testers, or begin with a share such as \"1%\"";
        Problem::new("wrong-value", span, "with a share of 0% nobody sees the canary").help(help)
    } else if stage.gates.is_empty() {
        let message = "nothing holds the share of 0%, so testers would see the canary for no time alone";
        let help = match rollout.block("step") {
            Some(_) => "write `step { hold = \"30m\" }` or `step { approve = [] }` after it",
            None => "write `hold = \"30m\"`: an analysis does not count their requests",
        };
        Problem::new("wrong-value", span, message).help(help)
    } else {
        return;
    };
    rollout.report(problem);
}
