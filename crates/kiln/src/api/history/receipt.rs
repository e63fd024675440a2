//! What a rollout came to: the difference of what the edge had counted when it began and when it ended.

use std::collections::BTreeMap;

use kiln_model::event::RolloutEvent;
use kiln_model::forecast::{Extra, Forecast};
use kiln_model::rollout::{RequestCount, Step};
use kiln_model::{Entry, Event};

use super::wire;

/// What is found on the way through a rollout's entries.
#[derive(Debug, Default)]
pub(super) struct Counting {
    start: Option<Count>,
    end: Option<Count>,
    /// The steps of the way there, and of the way back.
    ways: Vec<Vec<Step>>,
    forecast: Option<Result<Forecast, String>>,
    id: Option<u64>,
}

#[derive(Debug)]
struct Count {
    at_ms: u64,
    counts: Option<Vec<RequestCount>>,
    extra: Option<Extra>,
}

impl Counting {
    /// Takes an entry into account; the first is the rollout's start.
    pub(super) fn tell(&mut self, entry: &Entry) {
        let Event::Rollout(event) = &entry.event else { return };
        let id = *self.id.get_or_insert(entry.position.0);
        match event {
            RolloutEvent::Started { steps, .. } if entry.position.0 == id => self.ways.push(steps.clone()),
            RolloutEvent::GoingBack { steps, .. } => self.ways.push(steps.clone()),
            RolloutEvent::Predicted { rollout, forecast } if rollout.0 == id => {
                self.forecast.get_or_insert(forecast.clone());
            }
            RolloutEvent::Counted { rollout, is_end, counts, extra } if rollout.0 == id => {
                let place = if *is_end { &mut self.end } else { &mut self.start };
                // A controller that was killed after it had counted may count again: later.
                place.get_or_insert(Count { at_ms: entry.at.0, counts: counts.clone(), extra: *extra });
            }
            _ => {}
        }
    }

    /// Whether nothing more will come.
    pub(super) fn is_complete(&self) -> bool {
        // A prediction takes a moment, and may come after the end of a rollout that was over at once.
        self.end.is_some() && self.forecast.is_some()
    }

    /// The receipt of the rollout that `record` tells of; none if nobody counted.
    pub(super) fn receipt(&self, record: &wire::RolloutRecord) -> Option<wire::Receipt> {
        if self.start.is_none() && self.end.is_none() {
            return None;
        }
        let extra = self.end.as_ref().and_then(|end| end.extra);
        let known = |count: &Option<Count>| {
            let count = count.as_ref()?;
            count.counts.as_ref().map(|counts| (count.at_ms, counts.clone()))
        };
        let (start, end) = (known(&self.start), known(&self.end));
        let requests = start.as_ref().zip(end.as_ref()).map(|(start, end)| difference(&start.1, &end.1));
        Some(wire::Receipt {
            from_ms: start.map(|(at_ms, _)| at_ms),
            until_ms: end.map(|(at_ms, _)| at_ms),
            requests,
            longest_drain_ms: self.longest_drain(record),
            memory_extra_bytes: extra.map(|extra| extra.memory.0),
            unlimited_extra: extra.map(|extra| extra.unlimited),
        })
    }

    /// Writes down what was expected of the rollout, if that was stored.
    pub(super) fn predict(self, record: &mut wire::RolloutRecord) {
        let Some(forecast) = self.forecast else { return };
        if let Ok(forecast) = &forecast {
            for (shown, took) in record.rollout.steps.iter_mut().zip(&forecast.steps) {
                shown.expected_ms = took.map(|took| took.0);
            }
        }
        record.predicted = Some(match forecast {
            Err(why) => wire::Predicted { unknown: Some(why), ..wire::Predicted::default() },
            Ok(Forecast { total, extra, approvals, goes_back, .. }) => wire::Predicted {
                unknown: None,
                total_ms: total.0,
                approvals,
                goes_back,
                memory_extra_bytes: extra.memory.0,
                unlimited_extra: extra.unlimited,
            },
        });
    }

    fn longest_drain(&self, record: &wire::RolloutRecord) -> Option<u64> {
        let back = record.way_back.as_ref().map(|back| &back.steps);
        let shown = [Some(&record.rollout.steps), back].into_iter().flatten();
        let steps = self.ways.iter().zip(shown).flat_map(|(planned, shown)| planned.iter().zip(shown));
        let drains = steps.filter(|(planned, _)| matches!(planned, Step::Drain { .. }));
        drains.filter_map(|(_, shown)| Some(shown.ended_ms?.saturating_sub(shown.started_ms?))).max()
    }
}

/// What was counted in between; what stayed as it was is left out.
fn difference(start: &[RequestCount], end: &[RequestCount]) -> Vec<wire::ServedRequests> {
    let before: BTreeMap<_, _> = start.iter().map(|it| ((&it.service, it.revision), it)).collect();
    let since = |count: &RequestCount| {
        let before = before.get(&(&count.service, count.revision));
        let less = |of: fn(&RequestCount) -> u64| of(count).saturating_sub(before.map_or(0, |it| of(it)));
        wire::ServedRequests {
            service: count.service.to_string(),
            revision: count.revision.0,
            served: less(|it| it.answered),
            lost: less(|it| it.lost),
            retried: less(|it| it.retried),
        }
    };
    let all = end.iter().map(since);
    all.filter(|it| it.served + it.lost + it.retried > 0).collect()
}

#[cfg(test)]
mod tests {
    use kiln_model::rollout::{Cause, Outcome};
    use kiln_model::{
        Actor, ByteSize, Millis, Position, RevisionNumber, RolloutId, ServiceName, Term, Timestamp,
    };

    use super::super::record;
    use super::*;

    fn count(revision: u64, answered: u64, lost: u64) -> RequestCount {
        let service = ServiceName::new("web").unwrap();
        RequestCount { service, revision: RevisionNumber(revision), answered, lost, retried: 1 }
    }

    fn counted(rollout: u64, is_end: bool, counts: Option<Vec<RequestCount>>) -> RolloutEvent {
        RolloutEvent::Counted { rollout: RolloutId(rollout), is_end, counts, extra: None }
    }

    fn started(steps: Vec<Step>) -> RolloutEvent {
        RolloutEvent::Started { from: None, to: Some(RevisionNumber(2)), cause: Cause::Up, steps }
    }

    /// The receipt of what starts at 10, an entry a second.
    fn receipt(events: Vec<RolloutEvent>) -> Option<wire::Receipt> {
        recorded(events)?.receipt
    }

    fn recorded(events: Vec<RolloutEvent>) -> Option<wire::RolloutRecord> {
        let entry = |(position, event)| Entry {
            position: Position(position),
            at: Timestamp(1000 * position),
            term: Term(1),
            actor: Actor::Controller,
            env: None,
            event: Event::Rollout(event),
        };
        record((10..).zip(events).map(entry))
    }

    #[test]
    fn the_difference_counts_also_where_another_rollout_began_before_it_was_known() {
        let drain = Step::Drain { slots: Vec::new(), within: Millis(5) };
        let found = receipt(vec![
            started(vec![drain]),
            counted(10, false, Some(vec![count(1, 100, 1)])),
            RolloutEvent::StepStarted { index: 0, deadline: None },
            RolloutEvent::StepCompleted { index: 0 },
            RolloutEvent::Finished { outcome: Outcome::Completed, reason: String::new() },
            started(Vec::new()),
            counted(15, false, Some(Vec::new())),
            counted(10, true, Some(vec![count(1, 150, 1), count(2, 7, 2)])),
            counted(10, true, Some(vec![count(1, 999, 9)])),
        ]);
        let served = |revision, served, lost, retried| wire::ServedRequests {
            service: "web".into(),
            revision,
            served,
            lost,
            retried,
        };
        let expected = wire::Receipt {
            from_ms: Some(11_000),
            until_ms: Some(17_000),
            requests: Some(vec![served(1, 50, 0, 0), served(2, 7, 2, 1)]),
            longest_drain_ms: Some(1_000),
            memory_extra_bytes: None,
            unlimited_extra: None,
        };
        assert_eq!(found, Some(expected));
    }

    #[test]
    fn what_was_predicted_is_told_also_where_it_came_after_the_end() {
        let extra = Extra { memory: ByteSize(9), unlimited: 1 };
        let forecast = Forecast {
            total: Millis(70),
            steps: vec![Some(Millis(7)), None],
            extra,
            approvals: 0,
            goes_back: None,
        };
        let (rollout, of_another) = (RolloutId(10), RolloutId(3));
        let end = RolloutEvent::Counted {
            rollout,
            is_end: true,
            counts: None,
            extra: Some(Extra { memory: ByteSize(8), unlimited: 0 }),
        };
        let events = [
            started(vec![Step::OpenListeners, Step::OpenListeners]),
            RolloutEvent::Predicted { rollout: of_another, forecast: Err("too large".into()) },
            RolloutEvent::Finished { outcome: Outcome::Completed, reason: String::new() },
            end,
            started(Vec::new()),
            RolloutEvent::Predicted { rollout, forecast: Ok(forecast) },
        ];
        let found = recorded(events.into()).unwrap();
        let receipt = found.receipt.unwrap();
        assert_eq!((receipt.memory_extra_bytes, receipt.unlimited_extra), (Some(8), Some(0)));
        let predicted = found.predicted.unwrap();
        assert_eq!((predicted.total_ms, predicted.memory_extra_bytes), (70, 9));
        let steps: Vec<_> = found.rollout.steps.iter().map(|step| step.expected_ms).collect();
        assert_eq!(steps, [Some(7), None]);
    }

    #[test]
    fn numbers_that_are_not_known_are_not_made_up() {
        assert_eq!(receipt(vec![started(Vec::new())]), None);
        let lost = receipt(vec![
            started(Vec::new()),
            counted(10, false, None),
            RolloutEvent::Finished { outcome: Outcome::Completed, reason: String::new() },
            counted(10, true, Some(vec![count(1, 5, 0)])),
        ]);
        let lost = lost.unwrap();
        assert_eq!((lost.from_ms, lost.until_ms, lost.requests), (None, Some(13_000), None));
    }
}
