//! What the log tells of an environment's rollouts. Pure: entries in, what is shown out.

mod delays;
mod receipt;

use kiln_model::event::RolloutEvent;
use kiln_model::rollout::{Cause, Step};
use kiln_model::{Entry, Event};

pub use delays::Seen;
pub(crate) use delays::What;

use super::verdicts;
use super::view::{cause_word, often, outcome_word, text_towards};
use super::wire;

/// The count of the requests at a rollout's end follows within so many of the environment's next entries, or never.
const COUNTED_WITHIN_MAX: usize = 200;

/// Shows the last `max` rollouts, the newest first and without their steps, from entries that come the last first.
///
/// # Errors
/// An entry can't be read; what came before it is dropped, for a history with a hole tells something else.
pub fn latest<E>(
    back: impl Iterator<Item = Result<Entry, E>>,
    max: usize,
) -> Result<Vec<wire::RolloutRecord>, E> {
    let (mut found, mut entries) = (Vec::new(), Vec::new());
    for entry in back {
        if found.len() >= max {
            break;
        }
        let entry = entry?;
        let is_start = matches!(entry.event, Event::Rollout(RolloutEvent::Started { .. }));
        entries.push(entry);
        if is_start {
            let record = record(entries.drain(..).rev());
            found.extend(record.map(without_steps));
        }
    }
    Ok(found)
}

/// Shows the rollout that the first of these entries starts, from entries in order; what comes after its end is not read.
/// None if the first one starts none.
pub fn record(entries: impl IntoIterator<Item = Entry>) -> Option<wire::RolloutRecord> {
    let mut entries = entries.into_iter();
    let first = entries.next()?;
    let mut record = started(&first)?;
    let mut counting = receipt::Counting::default();
    counting.tell(&first);
    let (mut is_over, mut later) = (false, 0);
    for entry in entries {
        let Event::Rollout(event) = &entry.event else { continue };
        is_over |= matches!(event, RolloutEvent::Started { .. });
        // The requests are counted soon after a rollout ends, when another one may have begun.
        if is_over || record.rollout.ended.is_some() {
            later += 1;
        }
        if later > COUNTED_WITHIN_MAX || counting.is_complete() {
            break;
        }
        counting.tell(&entry);
        if !is_over {
            tell(&mut record, &entry, event);
        }
    }
    record.receipt = counting.receipt(&record);
    counting.predict(&mut record);
    Some(record)
}

/// Says how long each step was to be expected to take, of a rollout whose prediction was not stored: `first` starts the rollout, and `seen` is of those before it.
pub fn expect(record: &mut wire::RolloutRecord, first: &Entry, seen: &Seen) {
    let Event::Rollout(RolloutEvent::Started { steps, .. }) = &first.event else { return };
    for (shown, step) in record.rollout.steps.iter_mut().zip(steps) {
        shown.expected_ms = seen.expected(step).map(|took| took.0);
    }
}

fn started(entry: &Entry) -> Option<wire::RolloutRecord> {
    let Event::Rollout(RolloutEvent::Started { from, to, cause, steps }) = &entry.event else { return None };
    Some(wire::RolloutRecord {
        rollout: wire::Rollout {
            id: entry.position.0,
            from: from.map(|number| number.0),
            to: to.map(|number| number.0),
            cause: cause_word(cause).into(),
            actor: entry.actor.to_string(),
            started_ms: entry.at.0,
            steps: planned(to.map(|number| number.0), steps),
            ..wire::Rollout::default()
        },
        service: match cause {
            Cause::Rollback { service, .. } => service.as_ref().map(ToString::to_string),
            Cause::Up | Cause::Down | Cause::Promotion { .. } => None,
        },
        ..wire::RolloutRecord::default()
    })
}

fn planned(target: Option<u64>, steps: &[Step]) -> Vec<wire::Step> {
    let step = |step: &Step| wire::Step {
        text: text_towards(target, step),
        state: "waiting".into(),
        ..Default::default()
    };
    steps.iter().map(step).collect()
}

fn tell(record: &mut wire::RolloutRecord, entry: &Entry, event: &RolloutEvent) {
    let at_ms = entry.at.0;
    match event {
        RolloutEvent::Started { .. }
        | RolloutEvent::Counted { .. }
        | RolloutEvent::Predicted { .. }
        | RolloutEvent::NotTold { .. } => {}
        RolloutEvent::StepStarted { index, deadline } => {
            if let Some(step) = step(record, *index) {
                step.state = "running".into();
                step.started_ms = Some(at_ms);
                step.deadline_ms = deadline.map(|at| at.0);
            }
        }
        RolloutEvent::StepCompleted { index } => {
            if let Some(step) = step(record, *index) {
                step.state = "done".into();
                step.ended_ms = Some(at_ms);
                step.deadline_ms = None;
            }
        }
        RolloutEvent::Paused => {
            record.rollout.paused = Some(wire::Paused { by: entry.actor.to_string(), since_ms: at_ms });
        }
        RolloutEvent::Resumed => resume(record, at_ms),
        RolloutEvent::Promoted { index } => {
            if let Some(step) = step(record, *index) {
                step.note = Some(format!("promoted by {}", entry.actor));
            }
        }
        RolloutEvent::Analysed { service, window, verdict, evidence, synthetic } => {
            record
                .analyses
                .push(verdicts::analysis(entry.at, service, *window, *verdict, evidence, *synthetic));
        }
        RolloutEvent::Extended { index, times, .. } => {
            if let Some(step) = step(record, *index) {
                step.note = Some(format!("extended {}, for want of requests", often(*times)));
            }
        }
        RolloutEvent::Measured { service, window, metric, finding, text } => {
            let of = (service, *window);
            record.measurements.push(verdicts::measurement(entry.at, of, metric, *finding, text));
        }
        RolloutEvent::Tried { index, passed, text } => {
            if let Some(step) = step(record, *index) {
                let how = if *passed { "passed" } else { "failed" };
                step.note = Some(format!("{how}: {text}"));
            }
        }
        RolloutEvent::Halted { reason, until } => {
            resume(record, at_ms);
            stop(record, at_ms);
            record.rollout.halted = Some(wire::Halted { reason: reason.clone(), until_ms: until.0 });
        }
        RolloutEvent::GoingBack { reason, steps } => {
            record.rollout.halted = None;
            resume(record, at_ms);
            stop(record, at_ms);
            record.rollout.going_back = Some(reason.clone());
            let steps = planned(record.rollout.from, steps);
            record.way_back = Some(wire::WayBack { at_ms, actor: entry.actor.to_string(), steps });
        }
        RolloutEvent::Finished { outcome, reason } => {
            record.rollout.halted = None;
            resume(record, at_ms);
            stop(record, at_ms);
            let outcome = outcome_word(outcome).into();
            record.rollout.ended = Some(wire::Ended { at_ms, outcome, reason: reason.clone() });
        }
    }
}

/// The steps of the way that it goes now.
fn steps(record: &mut wire::RolloutRecord) -> &mut Vec<wire::Step> {
    match &mut record.way_back {
        Some(back) => &mut back.steps,
        None => &mut record.rollout.steps,
    }
}

fn step(record: &mut wire::RolloutRecord, index: u32) -> Option<&mut wire::Step> {
    steps(record).get_mut(usize::try_from(index).ok()?)
}

fn resume(record: &mut wire::RolloutRecord, at_ms: u64) {
    if let Some(pause) = record.rollout.paused.take() {
        record.pauses.push(wire::PauseRecord { by: pause.by, since_ms: pause.since_ms, until_ms: at_ms });
    }
}

/// A step that runs while the rollout turns round or ends is left half-way.
fn stop(record: &mut wire::RolloutRecord, at_ms: u64) {
    for step in steps(record).iter_mut().filter(|step| step.state == "running") {
        step.state = "stopped".into();
        step.ended_ms = Some(at_ms);
        step.deadline_ms = None;
    }
}

fn without_steps(mut record: wire::RolloutRecord) -> wire::RolloutRecord {
    // It is of a rollout whose later entries were not looked at.
    (record.receipt, record.predicted) = (None, None);
    record.rollout.steps.clear();
    if let Some(back) = &mut record.way_back {
        back.steps.clear();
    }
    record
}

#[cfg(test)]
mod tests {
    use kiln_model::rollout::Outcome;
    use kiln_model::{Actor, Position, RevisionNumber, ServiceName, Term, Timestamp};

    use super::*;

    fn entry(position: u64, event: RolloutEvent) -> Entry {
        Entry {
            position: Position(position),
            at: Timestamp(1000 * position),
            term: Term(1),
            actor: Actor::User("alice".into()),
            env: None,
            event: Event::Rollout(event),
        }
    }

    /// One that completes its first step, fails in the second and gets back.
    fn failed(first: u64, cause: Cause) -> Vec<Entry> {
        let run = |job| Step::Run {
            job: ServiceName::new(job).unwrap(),
            within: None,
            again: kiln_model::ask::Again::default(),
        };
        let events = [
            RolloutEvent::Started {
                from: Some(RevisionNumber(41)),
                to: Some(RevisionNumber(42)),
                cause,
                steps: vec![Step::OpenListeners, run("migrate"), run("seed")],
            },
            RolloutEvent::StepStarted { index: 0, deadline: Some(Timestamp(9)) },
            RolloutEvent::StepCompleted { index: 0 },
            RolloutEvent::StepStarted { index: 1, deadline: None },
            RolloutEvent::GoingBack { reason: "no luck".into(), steps: vec![run("undo")] },
            RolloutEvent::StepStarted { index: 0, deadline: None },
            RolloutEvent::StepCompleted { index: 0 },
            RolloutEvent::Finished { outcome: Outcome::WentBack, reason: "no luck".into() },
        ];
        (first..).zip(events).map(|(position, event)| entry(position, event)).collect()
    }

    fn back(entries: Vec<Entry>) -> impl Iterator<Item = Result<Entry, ()>> {
        entries.into_iter().rev().map(Ok)
    }

    #[test]
    fn each_step_has_its_times_on_the_way_there_and_on_the_way_back() {
        let record = record(failed(5, Cause::Up)).unwrap();
        let shown = |steps: &[wire::Step]| {
            steps.iter().map(|it| (it.state.clone(), it.started_ms, it.ended_ms)).collect::<Vec<_>>()
        };
        assert_eq!(
            shown(&record.rollout.steps),
            [
                ("done".into(), Some(6000), Some(7000)),
                ("stopped".into(), Some(8000), Some(9000)),
                ("waiting".into(), None, None)
            ]
        );
        let back = record.way_back.unwrap();
        assert_eq!(
            (back.at_ms, shown(&back.steps)),
            (9000, vec![("done".into(), Some(10_000), Some(11_000))])
        );
        let ended = record.rollout.ended.unwrap();
        assert_eq!((ended.at_ms, ended.outcome.as_str()), (12_000, "went_back"));
        assert_eq!((record.rollout.id, record.rollout.actor.as_str()), (5, "alice"));
    }

    #[test]
    fn the_latest_come_first_and_no_more_is_read_than_asked_for() {
        let service = Some(ServiceName::new("web").unwrap());
        let mut entries = failed(1, Cause::Up);
        entries.extend(failed(9, Cause::Rollback { to: RevisionNumber(40), service }));
        entries.extend(failed(17, Cause::Down).into_iter().take(4));
        let all = latest(back(entries.clone()), 10).unwrap();
        assert_eq!(all.iter().map(|it| it.rollout.id).collect::<Vec<_>>(), [17, 9, 1]);
        assert!(all[0].rollout.ended.is_none(), "it runs");
        assert_eq!(all[1].service.as_deref(), Some("web"));
        assert!(all.iter().all(|it| it.rollout.steps.is_empty()));
        let unreadable = std::iter::once(Err(()));
        let two = latest(back(entries[8..].to_vec()).chain(unreadable), 2).unwrap();
        assert_eq!(two.len(), 2);
        assert_eq!(latest(back(entries[8..].to_vec()).chain(std::iter::once(Err(()))), 3), Err(()));
    }

    #[test]
    fn each_step_is_told_with_what_the_rollouts_before_let_expect() {
        let (before, now) = (failed(1, Cause::Up), failed(9, Cause::Up));
        // The job of the first one ended well.
        let before = before.into_iter().map(|entry| match entry.event {
            Event::Rollout(RolloutEvent::GoingBack { .. }) => {
                Entry { event: Event::Rollout(RolloutEvent::StepCompleted { index: 1 }), ..entry }
            }
            _ => entry,
        });
        let before: Vec<Entry> = before.take(5).collect();
        let seen = Seen::read(back(before)).unwrap();
        let mut record = record(now.clone()).unwrap();
        expect(&mut record, &now[0], &seen);
        let expected: Vec<Option<u64>> = record.rollout.steps.iter().map(|step| step.expected_ms).collect();
        assert_eq!(expected, [None, Some(1000), None]);
    }

    #[test]
    fn what_starts_no_rollout_is_none() {
        assert_eq!(record(failed(5, Cause::Up).split_off(1)), None);
        assert_eq!(record(Vec::new()), None);
    }
}
