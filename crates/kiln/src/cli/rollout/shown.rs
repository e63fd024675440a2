//! Rollouts as people read them. Pure.

use std::fmt::Write as _;

use kiln_model::{ByteSize, EnvKey, Millis, Timestamp};

use crate::api::verdicts::{measurement_sentence, sentence};
use crate::api::wire::{Queued, Receipt, Rollout, RolloutRecord, Step};
use crate::cli::follow::canaries;
use crate::cli::follow::frame::title;
use crate::cli::screen::Paint;
use crate::cli::table::{Table, count, moment, span};

/// The last ones tell why it ended.
const MEASUREMENTS_SHOWN_MAX: usize = 20;

/// A line for each rollout.
pub(super) fn list(rollouts: &[RolloutRecord], now_ms: u64, paint: Paint) -> String {
    let mut table = Table::new(&["ID", "ROLLOUT", "BY", "BEGAN", "TOOK", "OUTCOME", ""]);
    for record in rollouts {
        let rollout = &record.rollout;
        table.row([
            rollout.id.to_string(),
            what(record),
            rollout.actor.clone(),
            moment(Timestamp(rollout.started_ms)),
            took(rollout, now_ms),
            outcome(rollout, paint),
            reason(rollout).to_owned(),
        ]);
    }
    table.render(0)
}

/// What begins next.
pub(super) fn queued(queued: &Queued) -> String {
    let Queued { revision, by, since_ms } = queued;
    format!(
        "Next, when the one that runs has ended: #{revision}, which {by} asked for at {}\n",
        moment(Timestamp(*since_ms))
    )
}

/// All that is known of one.
pub(super) fn record(env: &EnvKey, record: &RolloutRecord, now_ms: u64, paint: Paint) -> String {
    let rollout = &record.rollout;
    let mut text = format!("{}\n", paint.bold(&format!("Rollout {} of {env}: {}", rollout.id, what(record))));
    let mut facts = Table::bare();
    facts.row(["asked by", &rollout.actor]);
    facts.row(["began", &moment(Timestamp(rollout.started_ms))]);
    facts.row(["took", &format!("{}{}", took(rollout, now_ms), predicted(record))]);
    if let Some(memory) = memory(record) {
        facts.row(["memory", &memory]);
    }
    facts.row(["outcome", &outcome(rollout, paint)]);
    if !reason(rollout).is_empty() {
        facts.row(["because", reason(rollout)]);
    }
    let after = |at_ms: u64| span(Millis(at_ms.saturating_sub(rollout.started_ms)));
    for pause in &record.pauses {
        let lasted = span(Millis(pause.until_ms.saturating_sub(pause.since_ms)));
        facts.row(["paused", &format!("by {} after {} for {lasted}", pause.by, after(pause.since_ms))]);
    }
    if let Some(pause) = &rollout.paused {
        facts.row([
            "paused",
            &paint.yellow(&format!("by {} since {}", pause.by, moment(Timestamp(pause.since_ms)))),
        ]);
    }
    text.push_str(&facts.render(2));
    if let Some(receipt) = &record.receipt {
        requests(&mut text, receipt, paint);
    }
    section(&mut text, "Steps", &rollout.steps, rollout.started_ms, now_ms, paint);
    if !rollout.canaries.is_empty() {
        let _ = writeln!(text, "{}", paint.bold("Canaries"));
        for line in canaries::lines(&rollout.canaries, now_ms) {
            let _ = writeln!(text, "  {line}");
        }
    }
    if !record.analyses.is_empty() {
        let _ = writeln!(text, "{}", paint.bold("Analyses"));
        for found in &record.analyses {
            let _ = writeln!(text, "  {}", sentence(found));
        }
    }
    if !record.measurements.is_empty() {
        let _ = writeln!(text, "{}", paint.bold("Measurements"));
        let left_out = record.measurements.len().saturating_sub(MEASUREMENTS_SHOWN_MAX);
        if left_out > 0 {
            let _ = writeln!(text, "  {left_out} before; `--json` has all");
        }
        for found in record.measurements.iter().skip(left_out) {
            let _ = writeln!(text, "  after {}: {}", after(found.at_ms), measurement_sentence(found));
        }
    }
    if let Some(back) = &record.way_back {
        let title = format!("Way back, by {}", back.actor);
        section(&mut text, &title, &back.steps, rollout.started_ms, now_ms, paint);
    }
    text
}

/// How long it was expected to take, as far as that was told.
fn predicted(record: &RolloutRecord) -> String {
    let Some(predicted) = &record.predicted else { return String::new() };
    if let Some(why) = &predicted.unknown {
        return format!(", not predicted: {why}");
    }
    let total = span(Millis(predicted.total_ms));
    let approvals = match usize::try_from(predicted.approvals) {
        Ok(0) | Err(_) => String::new(),
        Ok(number) => format!(" and {}", count(number, "approval")),
    };
    let back = predicted.goes_back.as_ref().map(|why| format!(", and to go back: {why}"));
    format!(", predicted {total}{approvals}{}", back.unwrap_or_default())
}

/// What the instances took at the peak beyond what they took before, measured and predicted by the same limits.
fn memory(record: &RolloutRecord) -> Option<String> {
    let receipt = record.receipt.as_ref();
    let measured = receipt.and_then(|it| Some((it.memory_extra_bytes?, it.unlimited_extra?)));
    let predicted = record.predicted.as_ref().filter(|it| it.unknown.is_none());
    let predicted = predicted.map(|it| (it.memory_extra_bytes, it.unlimited_extra));
    let text = |(bytes, unlimited): (u64, u32)| {
        let without = match usize::try_from(unlimited) {
            Ok(0) | Err(_) => String::new(),
            Ok(number) => format!(" and {} without a limit", count(number, "instance")),
        };
        format!("{}{without}", ByteSize(bytes))
    };
    match (measured, predicted) {
        (Some(measured), Some(predicted)) => {
            Some(format!("{} more at the peak by the limits, predicted {}", text(measured), text(predicted)))
        }
        (Some(measured), None) => Some(format!("{} more at the peak by the limits", text(measured))),
        (None, Some(predicted)) => {
            Some(format!("predicted {} more at the peak by the limits", text(predicted)))
        }
        (None, None) => None,
    }
}

/// What became of the requests, as far as it is known.
fn requests(text: &mut String, receipt: &Receipt, paint: Paint) {
    let mut table = Table::bare();
    match (&receipt.requests, receipt.from_ms, receipt.until_ms) {
        (Some(requests), ..) if requests.is_empty() => table.row(["none came"]),
        (Some(requests), ..) => {
            for of in requests {
                let by = match of.revision {
                    0 => format!("{}, no instance", of.service),
                    number => format!("{} #{number}", of.service),
                };
                let lost = format!("{} lost", of.lost);
                let lost = if of.lost == 0 { lost } else { paint.red(&lost) };
                table.row([by, format!("{} served", of.served), lost, format!("{} retried", of.retried)]);
            }
        }
        (None, Some(_), None) => table.row(["counted since its start; known once it has ended"]),
        (None, ..) => table.row(["not known: the edge's counts could not be read in time"]),
    }
    // Writing to a String can't fail.
    let _ = write!(text, "{}\n{}", paint.bold("Requests meanwhile"), table.render(2));
    if let Some(drain) = receipt.longest_drain_ms {
        let _ = writeln!(text, "  longest drain {}", span(Millis(drain)));
    }
}

fn section(text: &mut String, title: &str, steps: &[Step], start_ms: u64, now_ms: u64, paint: Paint) {
    let mut table = Table::bare();
    for step in steps {
        let mark = match step.state.as_str() {
            "done" => paint.green("✓"),
            "running" => paint.yellow("▸"),
            "stopped" => paint.red("✗"),
            _ => paint.dim("·"),
        };
        let since = |from: u64, to: u64| span(Millis(to.saturating_sub(from)));
        let began = step.started_ms.map(|at| format!("after {}", since(start_ms, at)));
        let lasted = step.started_ms.map(|at| since(at, step.ended_ms.unwrap_or(now_ms)));
        let expected =
            step.expected_ms.map(|ms| format!(", expected {}", span(Millis(ms)))).unwrap_or_default();
        let lasted = lasted.map(|lasted| format!("took {lasted}{expected}"));
        // What runs says how long it goes on at most, and what is over how long it took.
        let left =
            step.deadline_ms.map(|until| format!("{} left", span(Millis(until.saturating_sub(now_ms)))));
        table.row([
            format!("{mark} {}", step.text),
            began.unwrap_or_default(),
            if step.state == "running" { left } else { lasted }.unwrap_or_default(),
            step.note.clone().unwrap_or_default(),
        ]);
    }
    // Writing to a String can't fail.
    let _ = write!(text, "{}\n{}", paint.bold(title), table.render(2));
}

fn what(record: &RolloutRecord) -> String {
    let of = record.service.as_ref().map(|service| format!(" of {service}")).unwrap_or_default();
    title(&record.rollout) + &of
}

fn took(rollout: &Rollout, now_ms: u64) -> String {
    let end_ms = rollout.ended.as_ref().map_or(now_ms, |ended| ended.at_ms);
    span(Millis(end_ms.saturating_sub(rollout.started_ms)))
}

fn outcome(rollout: &Rollout, paint: Paint) -> String {
    if rollout.paused.is_some() {
        return paint.yellow("paused");
    }
    if rollout.halted.is_some() {
        return paint.yellow("stopped");
    }
    match (&rollout.ended, &rollout.going_back) {
        (None, None) => paint.yellow("running"),
        (None, Some(_)) => paint.yellow("going back"),
        (Some(ended), _) if ended.outcome == "completed" => paint.green("completed"),
        (Some(ended), _) => paint.red(&ended.outcome.replace('_', " ")),
    }
}

fn reason(rollout: &Rollout) -> &str {
    match &rollout.ended {
        Some(ended) => &ended.reason,
        None => match &rollout.halted {
            Some(halted) => &halted.reason,
            None => rollout.going_back.as_deref().unwrap_or_default(),
        },
    }
}

#[cfg(test)]
mod tests {
    use kiln_model::{EnvName, StackName};

    use super::*;
    use crate::api::wire::{Ended, PauseRecord, Predicted, ServedRequests, WayBack};

    fn step(text: &str, state: &str, started_ms: Option<u64>, ended_ms: Option<u64>) -> Step {
        Step { text: text.into(), state: state.into(), started_ms, ended_ms, ..Step::default() }
    }

    fn sample() -> RolloutRecord {
        RolloutRecord {
            rollout: Rollout {
                id: 57,
                from: Some(41),
                to: Some(42),
                cause: "rollback".into(),
                actor: "alice".into(),
                started_ms: 1_772_460_309_000,
                steps: vec![
                    Step {
                        expected_ms: Some(15),
                        ..step("create web/0", "done", Some(1_772_460_309_000), Some(1_772_460_309_020))
                    },
                    step("wait", "stopped", Some(1_772_460_309_020), Some(1_772_460_319_020)),
                    step("remove", "waiting", None, None),
                ],
                going_back: Some("too slow".into()),
                ended: Some(Ended {
                    at_ms: 1_772_460_320_500,
                    outcome: "went_back".into(),
                    reason: "too slow".into(),
                }),
                ..Rollout::default()
            },
            service: Some("web".into()),
            analyses: Vec::new(),
            measurements: Vec::new(),
            way_back: Some(WayBack {
                at_ms: 1_772_460_319_020,
                actor: "bob".into(),
                steps: vec![step("switch", "running", Some(1_772_460_319_020), None)],
            }),
            pauses: vec![PauseRecord {
                by: "carol".into(),
                since_ms: 1_772_460_309_500,
                until_ms: 1_772_460_312_500,
            }],
            receipt: Some(Receipt {
                from_ms: Some(1_772_460_309_000),
                until_ms: Some(1_772_460_320_600),
                requests: Some(vec![served(41, 1200, 0), served(0, 0, 3)]),
                longest_drain_ms: Some(1_500),
                memory_extra_bytes: Some(3 << 20),
                unlimited_extra: Some(0),
            }),
            predicted: Some(Predicted {
                total_ms: 3_705,
                approvals: 1,
                memory_extra_bytes: 2 << 20,
                unlimited_extra: 1,
                ..Predicted::default()
            }),
        }
    }

    fn served(revision: u64, served: u64, lost: u64) -> ServedRequests {
        ServedRequests { service: "web".into(), revision, served, lost, retried: 1 }
    }

    #[test]
    fn a_receipt_that_is_not_known_says_why() {
        let text = |receipt: Receipt| {
            let mut text = String::new();
            requests(&mut text, &receipt, Paint::PLAIN);
            text
        };
        assert!(text(Receipt { from_ms: Some(1), ..Receipt::default() }).contains("once it has ended"));
        assert!(text(Receipt { until_ms: Some(1), ..Receipt::default() }).contains("could not be read"));
        assert!(text(Receipt { requests: Some(Vec::new()), ..Receipt::default() }).contains("none came"));
    }

    #[test]
    fn a_rollout_shows_what_became_of_each_step() {
        let env = EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() };
        let expected = "\
Rollout 57 of shop/prod: rollback #41 → #42 of web
  asked by  alice
  began     2026-03-02 14:05:09
  took      11s, predicted 3.7s and 1 approval
  memory    3 MiB more at the peak by the limits, predicted 2 MiB and 1 instance without a limit
  outcome   went back
  because   too slow
  paused    by carol after 500ms for 3.0s
Requests meanwhile
  web #41           1200 served  0 lost  1 retried
  web, no instance  0 served     3 lost  1 retried
  longest drain 1.5s
Steps
  ✓ create web/0  after 0ms   took 20ms, expected 15ms
  ✗ wait          after 20ms  took 10s
  · remove
Way back, by bob
  ▸ switch  after 10s
";
        assert_eq!(record(&env, &sample(), 1_772_460_330_000, Paint::PLAIN), expected);
    }

    #[test]
    fn what_was_not_predicted_says_why() {
        let unknown = Predicted { unknown: Some("too large".into()), ..Predicted::default() };
        let mut record = RolloutRecord { predicted: Some(unknown), ..sample() };
        assert_eq!(predicted(&record), ", not predicted: too large");
        assert_eq!(memory(&record).unwrap(), "3 MiB more at the peak by the limits");
        record.receipt = None;
        assert_eq!(memory(&record), None);
        record.predicted = None;
        assert_eq!(predicted(&record), "");
        let back = Predicted { goes_back: Some("too slow".into()), ..Predicted::default() };
        record.predicted = Some(back);
        assert_eq!(predicted(&record), ", predicted 0ms, and to go back: too slow");
        assert_eq!(memory(&record).unwrap(), "predicted 0 B more at the peak by the limits");
    }

    #[test]
    fn a_list_has_a_line_for_each() {
        let mut running = sample();
        running.rollout.ended = None;
        let mut whole = sample();
        whole.rollout.going_back = None;
        whole.rollout.ended =
            Some(Ended { at_ms: 1_772_460_310_000, outcome: "completed".into(), reason: String::new() });
        whole.service = None;
        let expected = "\
ID  ROLLOUT                    BY     BEGAN                TOOK  OUTCOME
57  rollback #41 → #42 of web  alice  2026-03-02 14:05:09  21s   going back  too slow
57  rollback #41 → #42         alice  2026-03-02 14:05:09  1.0s  completed
";
        assert_eq!(list(&[running, whole], 1_772_460_330_000, Paint::PLAIN), expected);
    }
}
