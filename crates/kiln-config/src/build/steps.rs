//! The `step` blocks of a rollout: what is done between the moves that its strategy makes.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::interlude::Interludes;
use kiln_model::service::{Analysis, Gate, Stage};
use kiln_model::stack::ServiceDefinition;
use kiln_model::{Millis, PortName, ServiceName, Weight};

use super::analysis::measures_at_nothing;
use super::checks::{Check, Place, check};
use super::rollout::{bounded, percent, wrong};
use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::source::Span;
use crate::units::parse_weight;

/// How long an approval is waited for: somebody is there on the next day.
const APPROVE_WITHIN: Millis = Millis::from_secs(24 * 3600);

/// How long a job may run: most migrations take seconds, and whoever rewrites a large table says so.
const RUN_WITHIN: Millis = Millis::from_secs(600);

/// Nobody reads a longer list; a rolling service goes through it with each batch.
const STEPS_MAX: usize = 100;

/// What a step can be.
const KINDS: [&str; 11] =
    ["run", "check", "create", "wait", "mirror", "shift", "hold", "analyse", "approve", "drain", "retire"];

/// The moves that the strategies make, in their order.
const NEW_FIRST: [Move; 5] = [Move::Create, Move::Wait, Move::Shift, Move::Drain, Move::Retire];
const OLD_FIRST: [Move; 4] = [Move::Drain, Move::Retire, Move::Create, Move::Wait];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Create,
    Wait,
    Shift,
    Drain,
    Retire,
}

impl Move {
    const fn word(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Wait => "wait",
            Self::Shift => "shift",
            Self::Drain => "drain",
            Self::Retire => "retire",
        }
    }

    fn of(kind: &str) -> Option<Self> {
        NEW_FIRST.into_iter().find(|made| made.word() == kind)
    }
}

/// What stands in the blocks.
#[derive(Default)]
pub(super) struct Steps {
    pub(super) interludes: Interludes,
    /// The shares of less than all, and what comes after each.
    pub(super) stages: Vec<(Stage, Span)>,
    /// What its checks run.
    pub(super) checks: Vec<Check>,
}

/// Reads the steps of a rollout.
pub(super) fn steps(
    rollout: Reader<'_>,
    label: &str,
    (service, ports): (&ServiceName, &BTreeMap<PortName, u16>),
    is_old_first: bool,
    analysis: Option<&Analysis>,
) -> Steps {
    let blocks: Vec<Reader<'_>> = rollout.blocks("step").map(|block| rollout.within(block)).collect();
    if blocks.len() > STEPS_MAX {
        wrong(rollout, rollout.header, &format!("a rollout has at most {STEPS_MAX} steps"));
    }
    let order: &[Move] = if is_old_first { &OLD_FIRST } else { &NEW_FIRST };
    // Who says where the instances are created means what stands before it to come before.
    let is_explicit = blocks.iter().any(|step| step.has("create") || step.has("wait"));
    let (is_canary, out) = (label == "canary", Steps::default());
    let mut walk = Walk { label, service, ports, order, is_canary, is_explicit, analysis, done: 0, out };
    for step in blocks.into_iter().take(STEPS_MAX) {
        walk.step(step);
    }
    walk.out
}

/// Lets services be created after what the jobs need that they wait for, and returns those of which one needs the other.
pub(super) fn order_jobs(
    definitions: &mut BTreeMap<ServiceName, ServiceDefinition>,
) -> Vec<(ServiceName, ServiceName)> {
    let mut circles = Vec::new();
    let mut needed: Vec<(ServiceName, BTreeSet<ServiceName>)> = Vec::new();
    for (name, definition) in definitions.iter() {
        let Interludes { before, created, ready, moved: _, drained, retired } = &*definition.interludes;
        // These come before the new instances do their work.
        let mut first: Vec<&Gate> = before.iter().chain(created).chain(ready).collect();
        if definition.strategy.is_old_first() {
            first.extend(drained.iter().chain(retired));
        }
        for gate in first {
            let Gate::Run { job, .. } = gate else { continue };
            let Some(after) = definitions.get(job).map(|found| &found.after) else { continue };
            if after.contains(name) {
                circles.push((name.clone(), job.clone()));
            }
            needed.push((name.clone(), after.iter().filter(|other| *other != name).cloned().collect()));
        }
    }
    for (name, after) in needed {
        if let Some(definition) = definitions.get_mut(&name) {
            definition.after.extend(after);
        }
    }
    circles
}

/// The way through the blocks.
struct Walk<'a> {
    label: &'a str,
    service: &'a ServiceName,
    ports: &'a BTreeMap<PortName, u16>,
    order: &'static [Move],
    is_canary: bool,
    is_explicit: bool,
    analysis: Option<&'a Analysis>,
    /// How many of the moves are made, written or not.
    done: usize,
    out: Steps,
}

impl Walk<'_> {
    fn step(&mut self, step: Reader<'_>) {
        let is_set = |name: &&str| step.has(name) || *name == "check" && step.block(name).is_some();
        let set: Vec<&str> = KINDS.into_iter().filter(is_set).collect();
        let [kind] = set[..] else {
            let help = "as in `step { run = job.migrate }`, then `step { hold = \"10m\" }`";
            let message = format!("a `step` has exactly one of `{}`", KINDS.join("`, `"));
            step.report(Problem::new("wrong-value", step.header, message).help(help));
            return;
        };
        if step.has("within") && !["approve", "run"].contains(&kind) {
            let message = "`within` is for a `step` that runs a job or waits for an approval";
            wrong(step, step.span("within"), message);
        }
        if step.has("for") && kind != "mirror" {
            let message = "`for` is for a `step` that mirrors requests";
            wrong_with(step, step.span("for"), message, "a step that waits is `hold = \"5m\"`");
        }
        match (kind, Move::of(kind)) {
            ("shift", _) => self.shift(step),
            (_, Some(made)) => self.make(step, made),
            (_, None) => self.wait_for(step, kind),
        }
    }

    /// A move that the strategy makes anyway, and that is told here where it stands.
    fn make(&mut self, step: Reader<'_>, made: Move) {
        let word = made.word();
        let is_said = match made {
            Move::Wait => step.parsed(word, "\"healthy\"", |text| match text {
                "healthy" => Ok(true),
                other => Err(format!("there is no \"{other}\"; it waits until they are \"healthy\"")),
            }),
            _ => step.bool(word),
        };
        if is_said == Some(false) {
            wrong(step, step.span(word), &format!("`{word}` is done in any case: leave the step out"));
        }
        self.reach(step, made);
    }

    fn reach(&mut self, step: Reader<'_>, made: Move) {
        let word = made.word();
        let Some(at) = self.order.iter().position(|other| *other == made) else {
            let label = self.label;
            let message =
                format!("with this \"{label}\" new instances have the requests once they are healthy");
            wrong_with(step, step.span(word), &message, "leave the step out");
            return;
        };
        if at < self.done {
            let order: Vec<&str> = self.order.iter().map(|made| made.word()).collect();
            let message = format!("`{word}` comes too late: what stands above comes after it");
            let help =
                format!("the order is {}; what is not written is done where it has to be", order.join(", "));
            wrong_with(step, step.span(word), &message, &help);
            return;
        }
        self.done = at + 1;
    }

    fn shift(&mut self, step: Reader<'_>) {
        let Some(weight) = step.parsed("shift", "\"5%\"", parse_weight) else { return };
        if weight == Weight::FULL {
            return self.reach(step, Move::Shift);
        }
        if !self.is_canary {
            let message = format!("\"{}\" moves all requests of an instance at once", self.label);
            wrong_with(step, step.span("shift"), &message, "write `shift = \"100%\"`, or use \"canary\"");
            return;
        }
        if self.has_made(Move::Shift) {
            let message = format!("{}% does not come after 100%", percent(weight));
            wrong_with(
                step,
                step.span("shift"),
                &message,
                "shares only grow: a rollout that should shrink goes back",
            );
            return;
        }
        self.done = self.position(Move::Wait) + 1;
        self.out.stages.push((Stage { weight, gates: Vec::new() }, step.span("shift")));
    }

    fn wait_for(&mut self, step: Reader<'_>, kind: &str) {
        // What stands first without saying so is what the new instances need: the rest is about them.
        if self.done == 0 && kind != "run" && !self.is_explicit {
            self.done = self.position(Move::Wait) + 1;
        }
        let gate = match kind {
            "run" => run(step),
            "check" => step.block("check").and_then(|block| self.check(block)),
            "hold" => bounded(step, "hold").map(Gate::Hold),
            "analyse" => self.analyse(step),
            "mirror" => self.mirror(step),
            _ => step.strings("approve").map(|by| {
                let within = bounded(step, "within").unwrap_or(APPROVE_WITHIN);
                Gate::Approve { by, within }
            }),
        };
        let Some(gate) = gate else { return };
        let is_shared = self.order.get(self.done) == Some(&Move::Shift);
        if let Some((stage, _)) = self.out.stages.last_mut().filter(|_| is_shared) {
            stage.gates.push(gate);
            return;
        }
        let all = &mut self.out.interludes;
        let list = match self.done.checked_sub(1).map(|at| self.order[at]) {
            None => &mut all.before,
            Some(Move::Create) => &mut all.created,
            Some(Move::Wait) => &mut all.ready,
            Some(Move::Shift) => &mut all.moved,
            Some(Move::Drain) => &mut all.drained,
            Some(Move::Retire) => &mut all.retired,
        };
        list.push(gate);
    }

    fn check(&mut self, block: Reader<'_>) -> Option<Gate> {
        let has_new = self.has_made(Move::Wait);
        let commands = self.out.checks.len();
        let place = Place { service: self.service, ports: self.ports, has_new, commands };
        let (gate, command) = check(block, &place)?;
        self.out.checks.extend(command);
        Some(gate)
    }

    fn analyse(&self, step: Reader<'_>) -> Option<Gate> {
        let span = step.span("analyse");
        if !self.is_canary {
            let message = format!("\"{}\" has no share of the requests to analyse", self.label);
            wrong_with(step, span, &message, "use \"canary\", whose new instances get a share first");
        } else if self.analysis.is_none() {
            wrong(step, span, "there is no `analysis` block that says what is compared");
        } else if self.out.stages.is_empty() || self.has_made(Move::Shift) {
            let message = "there is nothing to analyse: the requests are not split here";
            wrong_with(step, span, message, "put it after a `shift` of less than \"100%\"");
        } else if self.is_at_nothing() && !self.analysis.is_some_and(measures_at_nothing) {
            let message = "at a share of 0% only testers come, and they are no random sample to compare";
            let help = "write `hold` or `approve` here, and `analyse` after the next `shift`";
            wrong_with(step, span, message, help);
        }
        bounded(step, "analyse").map(Gate::Analyse)
    }

    fn mirror(&mut self, step: Reader<'_>) -> Option<Gate> {
        let span = step.span("mirror");
        let trouble = match self.label {
            "rolling" | "stop_then_start" => Some((
                format!(
                    "with \"{}\" no new instance stands beside the old ones without requests",
                    self.label
                ),
                "use \"blue_green\" or \"canary\"",
            )),
            _ if self.ports.is_empty() => Some((
                format!("no requests come to {}, which has no port", self.service),
                "leave the step out",
            )),
            _ if !self.has_made(Move::Wait) => Some((
                "no new instance is healthy here that could get copies".to_owned(),
                "put it after `step { wait = \"healthy\" }`",
            )),
            _ if self.has_made(Move::Shift) || !self.out.stages.is_empty() => Some((
                "the new instances have requests of their own here".to_owned(),
                "put it before the first `shift`; a canary's `mirror` block copies beside its shares",
            )),
            _ => None,
        };
        if let Some((message, help)) = trouble {
            wrong_with(step, span, &message, help);
            return None;
        }
        let share = step.parsed("mirror", "\"10%\"", parse_weight)?;
        let until = bounded(step, "for");
        let is_mirrored =
            |gate: &Gate| matches!(gate, Gate::Mirror { span: None, share } if *share > Weight::ZERO);
        if share == Weight::ZERO && step.has("for") {
            wrong_with(step, step.span("for"), "nothing is mirrored for that long", "leave `for` out");
        } else if share == Weight::ZERO && !self.out.interludes.ready.iter().any(is_mirrored) {
            let help = "as in `step { mirror = \"10%\" }` further up; what has a `for` ends by itself";
            wrong_with(step, span, "nothing is mirrored here that could end", help);
        }
        Some(Gate::Mirror { share, span: until })
    }

    fn is_at_nothing(&self) -> bool {
        self.out.stages.last().is_some_and(|(stage, _)| stage.weight == Weight::ZERO)
    }

    fn position(&self, made: Move) -> usize {
        let found = self.order.iter().position(|other| *other == made);
        found.expect("each order has the moves of new instances")
    }

    fn has_made(&self, made: Move) -> bool {
        self.order[..self.done].contains(&made)
    }
}

fn run(step: Reader<'_>) -> Option<Gate> {
    let (reference, _) = step.reference("run", &["job"], "job.NAME")?;
    let within = bounded(step, "within").unwrap_or(RUN_WITHIN);
    Some(Gate::Run { job: reference.name.parse().ok()?, within })
}

fn wrong_with(reader: Reader<'_>, span: Span, message: &str, help: &str) {
    reader.report(Problem::new("wrong-value", span, message).help(help));
}
