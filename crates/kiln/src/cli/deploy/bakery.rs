//! Locks and bakes with their progress on the screen.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use kiln_bake::{Cancel, Progress, Report, StepState};
use kiln_model::{ByteSize, Millis};

use crate::cli::interrupt::Interrupt;
use crate::cli::screen::{Paint, Screen};
use crate::cli::table::span;

/// News that waits for the screen; then the bake waits. Advances are dropped instead.
const NEWS_WAITING_MAX: usize = 256;
/// How often the clock on the screen counts.
const FRAME_EVERY: Duration = Duration::from_millis(100);

/// Does `work` on another thread, shows what it reports, and sets `cancel` when Ctrl-C is pressed.
pub(crate) fn with_progress<T: Send>(
    screen: &mut Screen,
    interrupt: &Interrupt,
    cancel: &Cancel,
    work: impl FnOnce(Report<'_>) -> T + Send,
) -> T {
    let (sender, news) = sync_channel::<Progress>(NEWS_WAITING_MAX);
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let report = |progress: Progress| {
                // A screen that is gone or slow must not hold up a bake for a percentage.
                let _ = match progress.state {
                    StepState::Advanced { .. } => sender.try_send(progress).is_ok(),
                    StepState::Started | StepState::Warned | StepState::Finished { .. } => {
                        sender.send(progress).is_ok()
                    }
                };
            };
            work(&report)
        });
        let mut board = Board::default();
        loop {
            match news.recv_timeout(FRAME_EVERY) {
                Ok(progress) => {
                    if let Some(line) = board.take(progress, Instant::now(), screen.is_live()) {
                        screen.note(&line);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if interrupt.is_set() {
                cancel.set();
            }
            screen.draw(&board.frame(Instant::now(), screen.err_paint()));
        }
        screen.draw(&[]);
        match worker.join() {
            Ok(answer) => answer,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// What is being made right now.
#[derive(Default)]
struct Board {
    running: BTreeMap<String, Running>,
}

struct Running {
    progress: Progress,
    since: Instant,
}

impl Board {
    /// Takes a piece of news and returns what a pipe is told of it, or a terminal for good.
    fn take(&mut self, progress: Progress, now: Instant, live: bool) -> Option<String> {
        let place = format!("{} {}/{} {}", progress.subject, progress.step, progress.steps, progress.what);
        match progress.state {
            StepState::Started => {
                self.running.insert(progress.subject.clone(), Running { progress, since: now });
                (!live).then_some(place)
            }
            StepState::Advanced { .. } => {
                let same = |running: &&mut Running| running.progress.step == progress.step;
                match self.running.get_mut(&progress.subject).filter(same) {
                    Some(running) => running.progress = progress,
                    None => {
                        self.running.insert(progress.subject.clone(), Running { progress, since: now });
                    }
                }
                None
            }
            StepState::Warned => Some(format!("{}: warning: {}", progress.subject, progress.what)),
            StepState::Finished { cached, elapsed } => {
                self.running.remove(&progress.subject);
                // What was there already is no news, unless a pipe wants to know that it was looked at.
                match cached {
                    true => (!live).then(|| format!("{place}: cached")),
                    false => {
                        let took = Millis(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
                        Some(format!("{place}: {}", span(took)))
                    }
                }
            }
        }
    }

    fn frame(&self, now: Instant, paint: Paint) -> Vec<String> {
        let line = |running: &Running| {
            let Progress { subject, step, steps, what, state } = &running.progress;
            let passed = now.saturating_duration_since(running.since).as_millis();
            let passed = span(Millis(u64::try_from(passed).unwrap_or(u64::MAX)));
            let amount = match state {
                StepState::Advanced { done, total } if *total > 0 => {
                    format!("  {} of {}", ByteSize(*done), ByteSize(*total))
                }
                _ => String::new(),
            };
            format!(
                "{} {} {step}/{steps} {what}{amount}  {}",
                paint.yellow("▸"),
                paint.bold(subject),
                paint.dim(&passed)
            )
        };
        self.running.values().map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(state: StepState) -> Progress {
        Progress { subject: "image web".into(), step: 1, steps: 2, what: "copy ./web".into(), state }
    }

    #[test]
    fn a_pipe_gets_lines_and_a_terminal_gets_what_took_time() {
        let now = Instant::now();
        let done = |cached| StepState::Finished { cached, elapsed: Duration::from_millis(1500) };
        let mut board = Board::default();
        assert_eq!(
            board.take(news(StepState::Started), now, false).as_deref(),
            Some("image web 1/2 copy ./web")
        );
        assert_eq!(board.take(news(StepState::Started), now, true), None);
        assert_eq!(board.take(news(done(true)), now, true), None);
        assert_eq!(
            board.take(news(done(true)), now, false).as_deref(),
            Some("image web 1/2 copy ./web: cached")
        );
        assert_eq!(
            board.take(news(done(false)), now, true).as_deref(),
            Some("image web 1/2 copy ./web: 1.5s")
        );
    }

    #[test]
    fn a_frame_shows_what_runs_and_how_far_it_is() {
        let now = Instant::now();
        let mut board = Board::default();
        board.take(news(StepState::Started), now, true);
        board.take(news(StepState::Advanced { done: 1024, total: 4096 }), now, true);
        let frame = board.frame(now + Duration::from_secs(2), Paint::PLAIN);
        assert_eq!(frame, ["▸ image web 1/2 copy ./web  1 KiB of 4 KiB  2.0s"]);
    }
}
