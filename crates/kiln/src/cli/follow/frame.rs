//! The picture of a rollout. Pure.

use std::collections::BTreeMap;

use kiln_model::{Millis, Timestamp};

use super::canaries;
use crate::api::wire::{Counts, Paused, Progress, Rollout, ServiceProgress, Step};
use crate::cli::screen::Paint;
use crate::cli::table::{Table, count, moment, span};

/// Steps around the current one that fit on a small terminal; the rest is counted.
const STEPS_SHOWN_MAX: usize = 8;
/// Services that move; the rest is counted.
const SERVICES_SHOWN_MAX: usize = 12;

/// One frame: what a terminal shows `ago` after `progress` was true.
pub(crate) fn frame(progress: &Progress, ago: Millis, paint: Paint) -> Vec<String> {
    let now_ms = progress.now_ms + ago.0;
    let rollout = &progress.rollout;
    let end_ms = rollout.ended.as_ref().map_or(now_ms, |ended| ended.at_ms);
    let elapsed = span(Millis(end_ms.saturating_sub(rollout.started_ms)));
    let mut lines = vec![format!("{}  {}", paint.bold(&title(rollout)), paint.dim(&elapsed))];
    if let Some(halted) = &rollout.halted {
        let text = format!("  stopped, for somebody to decide: {}", halted.reason);
        lines.push(paint.yellow(&text));
    }
    if let Some(pause) = &rollout.paused {
        lines.push(paint.yellow(&format!("  {}", paused(pause))));
    }
    if let Some(reason) = &rollout.going_back {
        lines.push(paint.red(&format!("  going back: {reason}")));
    }
    lines.extend(steps(&rollout.steps, now_ms, paint));
    lines.extend(canaries::lines(&rollout.canaries, now_ms).into_iter().map(|line| format!("  {line}")));
    lines.extend(services(progress, paint));
    if !rollout.trouble.is_empty() {
        lines.push(paint.yellow(&format!("  last trouble: {}", rollout.trouble)));
    }
    lines
}

/// What moves where: `up #41 → #42`.
pub(crate) fn title(rollout: &Rollout) -> String {
    let number = |number: Option<u64>| number.map_or_else(|| "nothing".into(), |number| format!("#{number}"));
    format!("{} {} → {}", rollout.cause, number(rollout.from), number(rollout.to))
}

/// Who paused a rollout, and since when: `paused by alice since 2026-03-02 14:05:09`.
pub(crate) fn paused(pause: &Paused) -> String {
    format!("paused by {} since {}", pause.by, moment(Timestamp(pause.since_ms)))
}

fn steps(steps: &[Step], now_ms: u64, paint: Paint) -> Vec<String> {
    let current = steps.iter().position(|step| step.state != "done").unwrap_or(steps.len());
    // The steps just behind are worth less than those ahead.
    let first = current.saturating_sub(STEPS_SHOWN_MAX / 2).min(steps.len().saturating_sub(STEPS_SHOWN_MAX));
    let last = (first + STEPS_SHOWN_MAX).min(steps.len());
    let mut lines = Vec::new();
    if first > 0 {
        lines.push(paint.dim(&format!("  ✓ {first} steps done")));
    }
    for step in &steps[first..last] {
        lines.push(match step.state.as_str() {
            "done" => format!("  {} {}", paint.green("✓"), step.text),
            "running" => {
                let text = format!("{}{}", step.text, attempt(step));
                format!("  {} {text}{}", paint.yellow("▸"), paint.dim(&left(step, now_ms)))
            }
            _ => paint.dim(&format!("  · {}", step.text)),
        });
    }
    if last < steps.len() {
        lines.push(paint.dim(&format!("  · and {} more", steps.len() - last)));
    }
    lines
}

/// Which attempt is made, if there may be several.
fn attempt(step: &Step) -> String {
    step.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default()
}

fn left(step: &Step, now_ms: u64) -> String {
    let passed = step.started_ms.map(|start| span(Millis(now_ms.saturating_sub(start)))).unwrap_or_default();
    match step.deadline_ms {
        Some(deadline) => format!("  {passed}, {} left", span(Millis(deadline.saturating_sub(now_ms)))),
        None => format!("  {passed}"),
    }
}

fn services(progress: &Progress, paint: Paint) -> Vec<String> {
    let moving = |service: &&ServiceProgress| {
        service.old != Counts::default() || service.new.routed < service.wanted || !service.trouble.is_empty()
    };
    let mut table = Table::bare();
    let shown: Vec<&ServiceProgress> = progress.services.iter().filter(moving).collect();
    for service in shown.iter().take(SERVICES_SHOWN_MAX) {
        table.row([
            paint.bold(&service.service),
            new_text(service, paint),
            old_text(service.old),
            paint.yellow(&service.trouble),
        ]);
    }
    let mut lines: Vec<String> = table.render(2).lines().map(Into::into).collect();
    let rest = shown.len().saturating_sub(SERVICES_SHOWN_MAX);
    if rest > 0 {
        lines.push(paint.dim(&format!("  and {rest} more services move")));
    }
    let still = progress.services.len() - shown.len();
    if still > 0 {
        lines.push(paint.dim(&format!("  {still} in place")));
    }
    lines
}

fn new_text(service: &ServiceProgress, paint: Paint) -> String {
    let Counts { healthy, routed, .. } = service.new;
    let text = format!("new {healthy}/{} healthy, {routed} routed", service.wanted);
    if healthy >= service.wanted { paint.green(&text) } else { text }
}

fn old_text(old: Counts) -> String {
    let parts = [
        (old.routed, "routed"),
        (old.instances.saturating_sub(old.routed), "idle"),
        (old.warm, "warm"),
        (old.leaving, "leaving"),
    ];
    let shown: Vec<String> =
        parts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}")).collect();
    if shown.is_empty() { String::new() } else { format!("old {}", shown.join(", ")) }
}

/// What a pipe is told: a line for each thing that happened.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    started: bool,
    going_back: bool,
    paused: Option<String>,
    steps: usize,
    running: Option<(usize, Option<String>)>,
    trouble: BTreeMap<String, String>,
    canaries: canaries::Told,
    ended: bool,
}

impl Lines {
    /// The lines that are new since the last picture.
    pub(crate) fn update(&mut self, progress: &Progress) -> Vec<String> {
        let rollout = &progress.rollout;
        let elapsed = span(Millis(progress.now_ms.saturating_sub(rollout.started_ms)));
        let mut lines = Vec::new();
        let mut tell = |text: String| lines.push(format!("[{elapsed}] {text}"));
        if !self.started {
            self.started = true;
            // A rollout that ended before it was first asked about has left no steps.
            let steps = match rollout.steps.len() {
                0 => String::new(),
                steps => format!(": {}", count(steps, "step")),
            };
            tell(title(rollout) + &steps);
        }
        let paused = rollout.paused.as_ref().map(paused);
        if paused != self.paused {
            match &paused {
                Some(text) => tell(format!("{text}; `kiln rollout resume` lets it go on")),
                // A rollout that turned round or ended says so itself.
                None if rollout.going_back.is_none() && rollout.ended.is_none() => tell("it goes on".into()),
                None => {}
            }
            self.paused = paused;
        }
        if let (Some(reason), false) = (&rollout.going_back, self.going_back) {
            *self = Self { started: true, going_back: true, ended: self.ended, ..Self::default() };
            tell(format!("going back: {reason}"));
        }
        let total = rollout.steps.len();
        let done = rollout.steps.iter().take_while(|step| step.state == "done").count();
        for (index, step) in rollout.steps.iter().enumerate().take(done).skip(self.steps) {
            tell(format!("{}/{total} done: {}", index + 1, step.text));
        }
        self.steps = self.steps.max(done);
        let running = rollout.steps.iter().position(|step| step.state == "running");
        let running = running.map(|index| (index, rollout.steps[index].note.clone()));
        if running.is_some() && running != self.running {
            let index = running.as_ref().map_or(0, |(index, _)| *index);
            let step = &rollout.steps[index];
            tell(format!("{}/{total} {}{}", index + 1, step.text, attempt(step)));
            self.running = running;
        }
        self.canaries.update(&rollout.canaries, progress.now_ms).into_iter().for_each(&mut tell);
        for service in progress.services.iter().filter(|service| !service.trouble.is_empty()) {
            if self.trouble.insert(service.service.clone(), service.trouble.clone()).as_ref()
                != Some(&service.trouble)
            {
                tell(format!("{}: {}", service.service, service.trouble));
            }
        }
        if let (Some(ended), false) = (&rollout.ended, self.ended) {
            self.ended = true;
            tell(format!("{}{}", ended.outcome.replace('_', " "), because(&ended.reason)));
        }
        lines
    }
}

fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::Ended;

    fn step(text: &str, state: &str) -> Step {
        let running = state == "running";
        Step {
            text: text.into(),
            state: state.into(),
            started_ms: running.then_some(11_000),
            ended_ms: None,
            deadline_ms: running.then_some(60_000),
            note: None,
            expected_ms: None,
        }
    }

    fn sample() -> Progress {
        Progress {
            position: 9,
            now_ms: 12_000,
            rollout: Rollout {
                id: 5,
                from: Some(41),
                to: Some(42),
                cause: "up".into(),
                actor: "root".into(),
                started_ms: 10_000,
                steps: vec![
                    step("create web/0..2", "done"),
                    step("wait until web/0..2 is healthy", "running"),
                    step("send 100% of the requests to web/0..2", "waiting"),
                ],
                ..Rollout::default()
            },
            services: vec![
                ServiceProgress {
                    service: "orders".into(),
                    wanted: 1,
                    new: Counts { instances: 1, healthy: 1, routed: 1, ..Counts::default() },
                    ..ServiceProgress::default()
                },
                ServiceProgress {
                    service: "web".into(),
                    wanted: 2,
                    new: Counts { instances: 2, healthy: 1, ..Counts::default() },
                    old: Counts { instances: 2, healthy: 2, routed: 2, ..Counts::default() },
                    trouble: "connection refused".into(),
                },
            ],
            routes: Vec::new(),
        }
    }

    #[test]
    fn a_frame_shows_steps_services_and_what_is_left() {
        let expected = "\
up #41 → #42  2.5s
  ✓ create web/0..2
  ▸ wait until web/0..2 is healthy  1.5s, 47s left
  · send 100% of the requests to web/0..2
  web  new 1/2 healthy, 0 routed  old 2 routed  connection refused
  1 in place";
        assert_eq!(frame(&sample(), Millis(500), Paint::PLAIN).join("\n"), expected);
    }

    #[test]
    fn a_pipe_is_told_each_thing_once() {
        let mut lines = Lines::default();
        let mut progress = sample();
        let expected = [
            "[2.0s] up #41 → #42: 3 steps",
            "[2.0s] 1/3 done: create web/0..2",
            "[2.0s] 2/3 wait until web/0..2 is healthy",
            "[2.0s] web: connection refused",
        ];
        assert_eq!(lines.update(&progress), expected);
        assert!(lines.update(&progress).is_empty());
        progress.now_ms = 13_000;
        progress.rollout.going_back = Some("web did not become healthy".into());
        progress.rollout.steps = vec![step("send 100% of the requests to web/0..2", "running")];
        let expected = [
            "[3.0s] going back: web did not become healthy",
            "[3.0s] 1/1 send 100% of the requests to web/0..2",
            "[3.0s] web: connection refused",
        ];
        assert_eq!(lines.update(&progress), expected);
        progress.rollout.ended =
            Some(Ended { at_ms: 14_000, outcome: "went_back".into(), reason: "too slow".into() });
        assert_eq!(lines.update(&progress), ["[3.0s] went back: too slow"]);
    }

    #[test]
    fn a_pause_is_told_with_who_wants_it_and_until_it_is_over() {
        let mut lines = Lines::default();
        let mut progress = sample();
        lines.update(&progress);
        progress.rollout.paused = Some(Paused { by: "bob".into(), since_ms: 1_772_460_309_000 });
        let since = "paused by bob since 2026-03-02 14:05:09";
        let expected = format!("[2.0s] {since}; `kiln rollout resume` lets it go on");
        assert_eq!(lines.update(&progress), [expected]);
        assert!(lines.update(&progress).is_empty());
        let shown = frame(&progress, Millis(0), Paint::PLAIN);
        assert_eq!(shown[1], format!("  {since}"));
        progress.rollout.paused = None;
        assert_eq!(lines.update(&progress), ["[2.0s] it goes on"]);
    }

    #[test]
    fn a_long_list_of_steps_is_windowed_around_the_current_one() {
        let mut progress = sample();
        progress.rollout.steps =
            (0..100).map(|i| step(&format!("step {i}"), if i < 50 { "done" } else { "waiting" })).collect();
        let text = frame(&progress, Millis(0), Paint::PLAIN).join("\n");
        assert!(
            text.contains("✓ 46 steps done") && text.contains("step 53") && text.contains("and 46 more"),
            "{text}"
        );
    }
}
