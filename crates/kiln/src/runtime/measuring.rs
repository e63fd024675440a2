//! Measures what the analyses of canaries ask others for, when it is due.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kiln_core::{Observation, Standing, State, measured, standing};
use kiln_model::outside::OutsideMetric;
use kiln_model::route::Sampling;
use kiln_model::{EnvKey, ServiceName};

use super::outward::{authorization, version_of};
use super::prometheus::Prometheus;
use crate::controller::Handle;

/// How often it is looked whether something is due: a measurement may be this much late, where intervals are of seconds.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Questions under way at once: some canaries with some metrics each. Of a Prometheus that hangs each holds a thread for seconds.
const ASKED_MAX: usize = 16;

/// One metric of one split.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    env: EnvKey,
    service: ServiceName,
    rollout: u64,
    window: u32,
    metric: String,
}

/// Starts the thread; it ends with the process.
pub(super) fn start(handle: Handle, folder: PathBuf) -> io::Result<()> {
    let measuring = Measuring {
        handle,
        folder,
        prometheus: Prometheus::default(),
        due: BTreeMap::new(),
        asked: Arc::new(AtomicUsize::new(0)),
    };
    thread::Builder::new().name("measuring".into()).spawn(move || measuring.run()).map(drop)
}

struct Measuring {
    handle: Handle,
    /// The state folder, where the secrets are.
    folder: PathBuf,
    prometheus: Prometheus,
    /// When each metric is measured next. Not remembered by the next controller: it waits for a whole interval again.
    due: BTreeMap<Key, Instant>,
    asked: Arc<AtomicUsize>,
}

/// What is to be asked, and how many answers were known then.
struct Question {
    key: Key,
    sampling: Sampling,
    metric: OutsideMetric,
    known: u32,
    /// Of the secret that it goes with.
    version: Option<String>,
}

impl Measuring {
    fn run(mut self) {
        loop {
            self.look();
            thread::sleep(LOOK_EVERY);
        }
    }

    fn look(&mut self) {
        let questions = questions(&self.handle.state());
        self.due.retain(|key, _| questions.iter().any(|question| question.key == *key));
        let now = Instant::now();
        for question in questions {
            let interval = question.metric.interval.as_duration();
            let due = self.due.entry(question.key.clone()).or_insert(now + interval);
            if *due > now || self.asked.load(Ordering::Acquire) >= ASKED_MAX {
                continue;
            }
            *due = now + interval;
            self.ask(question);
        }
    }

    /// Asks on a thread of its own: one that hangs holds up no other. An answer that comes after the next question is known to be
    /// late by the number of answers that were known.
    fn ask(&self, question: Question) {
        let (handle, prometheus, asked) = (self.handle.clone(), self.prometheus.clone(), self.asked.clone());
        asked.fetch_add(1, Ordering::AcqRel);
        let (counted, folder) = (asked.clone(), self.folder.clone());
        let thread = thread::Builder::new().name("prometheus".into()).spawn(move || {
            let Question { key, sampling, metric, known, version } = question;
            let authorization = authorization(&folder, &key.env.stack, &metric.access, version.as_deref());
            let value = authorization.and_then(|it| prometheus.ask(&metric, it.as_deref()));
            counted.fetch_sub(1, Ordering::AcqRel);
            let Key { env, service, metric, .. } = key;
            // A controller that has ended is followed by one that asks again.
            let _ = handle.observe(Observation::Measured { env, service, sampling, metric, known, value });
        });
        if thread.is_err() {
            asked.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// All that is still to be measured.
fn questions(state: &State) -> Vec<Question> {
    let mut found = Vec::new();
    for env in state.environments() {
        let Some(rollout) = env.rollout.as_ref().filter(|it| !it.is_going_back() && it.paused.is_none())
        else {
            continue;
        };
        for (service, split) in rollout.splits.iter().filter(|(_, split)| !split.is_mirror()) {
            let sampling = Sampling { rollout: rollout.id, window: split.window };
            for (metric, tally) in measured(env, rollout, service) {
                if standing(metric, tally) != Standing::Measuring {
                    continue;
                }
                let key = Key {
                    env: env.key.clone(),
                    service: service.clone(),
                    rollout: rollout.id.0,
                    window: split.window,
                    metric: metric.name.clone(),
                };
                let version = version_of(state, &env.key, rollout.to, &metric.access);
                let (metric, known) = (metric.clone(), tally.asked());
                found.push(Question { key, sampling, metric, known, version });
            }
        }
    }
    found
}
