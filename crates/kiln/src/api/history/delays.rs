//! How long the steps of the last rollouts took, for whoever wants to know how long the next one will.

use std::collections::{BTreeMap, BTreeSet};

use kiln_core::Delays;
use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{RequestCount, Step};
use kiln_model::{Entry, Event, Millis, ServiceName, Timestamp};

/// Older rollouts say little of the next one.
const ROLLOUTS_MAX: usize = 20;
/// A plan is not held up by a history of steps without end.
const ENTRIES_MAX: usize = 5000;
/// So many of the latest count: enough that one slow start does not, few enough that a service may become slower.
const SAMPLES_MAX: usize = 9;

/// A rate of requests over less is a guess.
const RATE_MIN: Millis = Millis(1_000);
/// A minute, in milliseconds.
const MINUTE: u64 = 60_000;

/// What takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// New instances to become healthy.
    Healthy,
    /// Requests in flight to end.
    Drain,
    /// Old instances to go.
    Stop,
    /// A job to end.
    Run,
    /// An analysis to come to a verdict.
    Analysis,
}

impl What {
    /// The step's own kind of waiting with the services that it is about; none if it waits for nobody.
    pub(crate) fn of(step: &Step) -> Option<(Self, BTreeSet<&ServiceName>)> {
        let (what, slots) = match step {
            Step::WaitHealthy { slots, .. } => (Self::Healthy, slots),
            Step::Drain { slots, .. } => (Self::Drain, slots),
            Step::Retire { slots } => (Self::Stop, slots),
            Step::Run { job, .. } => return Some((Self::Run, [job].into())),
            Step::Analyse { service, .. } => return Some((Self::Analysis, [service].into())),
            Step::OpenListeners
            | Step::Create { .. }
            | Step::Shift { .. }
            | Step::Split { .. }
            | Step::Hold { .. }
            | Step::Soak { .. }
            | Step::Approve { .. }
            | Step::Ask(_)
            | Step::Mirror { .. }
            | Step::KeepWarm { .. } => return None,
        };
        Some((what, slots.iter().map(|range| &range.service).collect()))
    }

    /// Its name for programs.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Drain => "drain",
            Self::Stop => "stop",
            Self::Run => "run",
            Self::Analysis => "analysis",
        }
    }

    /// What is taken where nothing was seen; none where it is as long as it may be.
    const fn default(self) -> Option<Millis> {
        match self {
            // A program that reads its configuration and opens a port; what warms caches takes longer.
            Self::Healthy => Some(Millis(3_000)),
            // An ordinary slow request.
            Self::Drain => Some(Millis(1_000)),
            // Most programs end soon after SIGTERM.
            Self::Stop => Some(Millis(1_000)),
            // A small migration.
            Self::Run => Some(Millis(10_000)),
            Self::Analysis => None,
        }
    }
}

/// What the last rollouts of an environment took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// The newest first.
    samples: BTreeMap<(What, ServiceName), Vec<Sample>>,
    /// How many requests a minute came to a service, in each of the last rollouts.
    rates: BTreeMap<ServiceName, Vec<u64>>,
}

/// How long a step took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sample {
    took: Millis,
    /// Whether it waited for other services too: the slowest decides, which need not be this one.
    is_shared: bool,
}

impl Seen {
    /// Reads it from entries that come the last first.
    ///
    /// # Errors
    /// An entry can't be read.
    pub(crate) fn read<E>(back: impl Iterator<Item = Result<Entry, E>>) -> Result<Self, E> {
        let (mut seen, mut entries, mut rollouts) = (Self::default(), Vec::new(), 0);
        for entry in back.take(ENTRIES_MAX) {
            let entry = entry?;
            let is_start = matches!(entry.event, Event::Rollout(RolloutEvent::Started { .. }));
            entries.push(entry);
            if is_start {
                seen.note(entries.drain(..).rev());
                rollouts += 1;
            }
            if rollouts >= ROLLOUTS_MAX {
                break;
            }
        }
        Ok(seen)
    }

    /// How long something takes, by how many that were seen; none and no time where it is as long as it may be.
    pub(crate) fn delay(&self, what: What, service: &ServiceName) -> (Option<Millis>, usize) {
        let samples = self.samples.get(&(what, service.clone())).map(Vec::as_slice).unwrap_or_default();
        let alone: Vec<Millis> = samples.iter().filter(|it| !it.is_shared).map(|it| it.took).collect();
        let mut taken = if alone.is_empty() { samples.iter().map(|it| it.took).collect() } else { alone };
        taken.truncate(SAMPLES_MAX);
        taken.sort_unstable();
        match taken.get(taken.len() / 2) {
            Some(median) => (Some(*median), taken.len()),
            None => (what.default(), 0),
        }
    }

    /// How long a step was to be expected to take by what was seen; none where something of it was not.
    pub(super) fn expected(&self, step: &Step) -> Option<Millis> {
        let (what, services) = What::of(step)?;
        let seen = |service: &&ServiceName| match self.delay(what, service) {
            (_, 0) => None,
            (took, _) => took,
        };
        let each = services.iter().map(seen).collect::<Option<Vec<Millis>>>()?;
        each.into_iter().max()
    }

    /// All that a prediction needs of a service.
    pub(crate) fn delays(&self, service: &ServiceName) -> Delays {
        let of = |what| self.delay(what, service).0;
        let known = |what| of(what).unwrap_or(Millis(0));
        Delays {
            healthy: known(What::Healthy),
            drain: known(What::Drain),
            stop: known(What::Stop),
            run: known(What::Run),
            analysis: of(What::Analysis),
            per_minute: self.per_minute(service),
        }
    }

    /// Takes a rollout into account, from its start on.
    fn note(&mut self, entries: impl Iterator<Item = Entry>) {
        let (mut steps, mut began): (Vec<Step>, Option<(u32, Timestamp)>) = (Vec::new(), None);
        let (mut id, mut counted, mut is_model) = (None, None, true);
        for entry in entries {
            let Event::Rollout(event) = entry.event else { continue };
            let id = *id.get_or_insert(entry.position.0);
            match event {
                RolloutEvent::Counted { rollout, is_end, counts, .. } if rollout.0 == id => {
                    match (counts, counted.take()) {
                        (Some(counts), None) if !is_end => counted = Some((entry.at, counts)),
                        (Some(end), Some((since, start))) if is_end => {
                            self.add_rates(entry.at.since(since), &start, &end);
                        }
                        _ => {}
                    }
                }
                // The way back is in a hurry, and no model for the way there.
                RolloutEvent::GoingBack { .. } | RolloutEvent::Halted { .. } => is_model = false,
                _ if !is_model => {}
                RolloutEvent::Started { steps: planned, .. } => steps = planned,
                RolloutEvent::StepStarted { index, .. } => began = Some((index, entry.at)),
                RolloutEvent::StepCompleted { index } => {
                    let since = began.take().filter(|(of, _)| *of == index).map(|(_, since)| since);
                    let step = usize::try_from(index).ok().and_then(|at| steps.get(at));
                    if let (Some(since), Some(step)) = (since, step) {
                        self.add(step, entry.at.since(since));
                    }
                }
                // Nobody knows how long it would have taken.
                RolloutEvent::Paused | RolloutEvent::Promoted { .. } => began = None,
                RolloutEvent::Resumed
                | RolloutEvent::Analysed { .. }
                | RolloutEvent::Extended { .. }
                | RolloutEvent::Tried { .. }
                | RolloutEvent::Measured { .. }
                | RolloutEvent::Counted { .. }
                | RolloutEvent::Predicted { .. }
                | RolloutEvent::NotTold { .. }
                | RolloutEvent::Finished { .. } => {}
            }
        }
    }

    /// How many requests a minute come to a service, as in the last rollouts; none if none of them tells.
    fn per_minute(&self, service: &ServiceName) -> Option<u64> {
        let mut rates = self.rates.get(service)?.clone();
        rates.truncate(SAMPLES_MAX);
        rates.sort_unstable();
        rates.get(rates.len() / 2).copied()
    }

    fn add_rates(&mut self, over: Millis, start: &[RequestCount], end: &[RequestCount]) {
        if over < RATE_MIN {
            return;
        }
        let mut came: BTreeMap<&ServiceName, u64> = BTreeMap::new();
        for count in end {
            *came.entry(&count.service).or_default() += count.answered.saturating_add(count.lost);
        }
        for count in start {
            let came = came.entry(&count.service).or_default();
            *came = came.saturating_sub(count.answered.saturating_add(count.lost));
        }
        for (service, came) in came {
            let per_minute = came.saturating_mul(MINUTE) / over.0;
            self.rates.entry(service.clone()).or_default().push(per_minute);
        }
    }

    fn add(&mut self, step: &Step, took: Millis) {
        let Some((what, services)) = What::of(step) else { return };
        let sample = Sample { took, is_shared: services.len() > 1 };
        for service in services {
            self.samples.entry((what, service.clone())).or_default().push(sample);
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::rollout::{Cause, Slots};
    use kiln_model::{Actor, Position, RevisionNumber, RolloutId, Term};

    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn wait(services: &[&str]) -> Step {
        let slots = services.iter().map(|it| Slots { service: name(it), first: 0, count: 1 }).collect();
        Step::WaitHealthy { slots, within: Millis(9) }
    }

    /// A rollout with one step that took so long; `after` comes while it runs.
    fn rollout(at: u64, step: Step, took: u64, after: Option<RolloutEvent>) -> Vec<Entry> {
        let started = RolloutEvent::Started { from: None, to: None, cause: Cause::Up, steps: vec![step] };
        let began = RolloutEvent::StepStarted { index: 0, deadline: None };
        let ended = RolloutEvent::StepCompleted { index: 0 };
        let events = [(at, started), (at, began)].into_iter();
        let events = events.chain(after.map(|event| (at, event))).chain([(at + took, ended)]);
        let entry = |(position, (at, event))| Entry {
            position: Position(position),
            at: Timestamp(at),
            term: Term(1),
            actor: Actor::Controller,
            env: None,
            event: Event::Rollout(event),
        };
        (at..).zip(events).map(entry).collect()
    }

    fn seen(rollouts: Vec<Vec<Entry>>) -> Seen {
        Seen::read(rollouts.concat().into_iter().rev().map(Ok::<_, ()>)).unwrap()
    }

    #[test]
    fn a_delay_is_the_median_of_what_the_last_steps_took() {
        let of = |at, took| rollout(at, wait(&["web"]), took, None);
        let seen = seen(vec![of(100, 7), of(200, 50), of(300, 9)]);
        assert_eq!(seen.delay(What::Healthy, &name("web")), (Some(Millis(9)), 3));
        assert_eq!(seen.delay(What::Healthy, &name("db")), (Some(Millis(3000)), 0), "by default");
        assert_eq!(seen.delay(What::Analysis, &name("web")), (None, 0));
    }

    #[test]
    fn a_step_that_waited_for_others_too_counts_only_where_there_is_no_better_one() {
        let (shared, alone) = (wait(&["db", "web"]), wait(&["web"]));
        let seen = seen(vec![
            rollout(100, shared.clone(), 50, None),
            rollout(200, alone, 5, None),
            rollout(300, shared, 60, None),
        ]);
        assert_eq!(seen.delay(What::Healthy, &name("web")), (Some(Millis(5)), 1));
        assert_eq!(seen.delay(What::Healthy, &name("db")), (Some(Millis(60)), 2));
    }

    #[test]
    fn a_step_is_expected_to_take_as_long_as_its_slowest_service() {
        let of = |at, service: &str, took| rollout(at, wait(&[service]), took, None);
        let seen = seen(vec![of(100, "web", 7), of(200, "db", 50)]);
        assert_eq!(seen.expected(&wait(&["db", "web"])), Some(Millis(50)));
        assert_eq!(seen.expected(&wait(&["web"])), Some(Millis(7)));
        assert_eq!(seen.expected(&wait(&["web", "new"])), None, "nothing is known of one of them");
        assert_eq!(seen.expected(&Step::OpenListeners), None);
    }

    #[test]
    fn what_was_paused_or_went_back_says_nothing() {
        let back = RolloutEvent::GoingBack { reason: String::new(), steps: Vec::new() };
        let of = |at, after| rollout(at, wait(&["web"]), 5, Some(after));
        assert_eq!(seen(vec![of(100, RolloutEvent::Paused), of(200, back)]), Seen::default());
    }

    #[test]
    fn the_rate_of_requests_is_that_of_the_last_rollouts_that_counted() {
        let counted = |at: u64, is_end, answered| {
            let service = name("web");
            let count = RequestCount { service, revision: RevisionNumber(1), answered, lost: 0, retried: 0 };
            let (rollout, counts) = (RolloutId(at), Some(vec![count]));
            RolloutEvent::Counted { rollout, is_end, counts, extra: None }
        };
        let of = |at, took, came: u64| {
            let mut entries = rollout(at, wait(&["web"]), took, Some(counted(at, false, 1000)));
            let last = entries.last().unwrap().clone();
            let end = Event::Rollout(counted(at, true, 1000 + came));
            entries.push(Entry { event: end, ..last });
            entries
        };
        let seen = seen(vec![of(100_000, 2_000, 100), of(200_000, 6_000, 50), of(300_000, 999, 9999)]);
        assert_eq!(
            seen.per_minute(&name("web")),
            Some(3_000),
            "the larger of two, and none over less than a second"
        );
        assert_eq!(seen.per_minute(&name("db")), None);
    }

    #[test]
    fn no_more_is_read_than_counts() {
        let unreadable = std::iter::once(Err(()));
        let rollouts: Vec<Entry> =
            (1..=20).flat_map(|at| rollout(at * 100, wait(&["web"]), at, None)).collect();
        let back = rollouts.into_iter().rev().map(Ok).chain(unreadable);
        let seen = Seen::read(back).unwrap();
        assert_eq!(seen.delay(What::Healthy, &name("web")), (Some(Millis(16)), 9), "of 12 to 20");
    }
}
