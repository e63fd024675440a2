//! The controller's link to the edge: tables out, acknowledgements back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use kiln_core::{Action, ActionKind, Observation, route_table};
use kiln_edge::client::{ClientError, EdgeClient, EdgeEvent, Published};
use kiln_model::route::{RouteTable, Sampling};
use kiln_model::{Fence, InstanceId};

use super::counted::Counted;
use super::outbox::{Deliveries, Next, Outbox, outbox};
use crate::controller::{Ended, Handle, Peer};

/// How long an edge that is away is left alone. The host starts another within tens of milliseconds.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How often answers are looked for while some are awaited. A drain takes as long as its requests: this adds nothing that
/// anybody sees, and a table never waits for it.
const ANSWERS_EVERY: Duration = Duration::from_millis(5);
/// How often they are looked for otherwise, to notice that the edge is gone.
const IDLE_EVERY: Duration = Duration::from_millis(50);

/// How often the counts of canaries are asked for. A verdict that is this much later is none too late; an answer takes the edge
/// microseconds.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// The sending side, held by the controller.
#[derive(Debug)]
pub(super) struct EdgeLink {
    worker: Outbox,
    ask_again: Arc<AtomicBool>,
}

impl EdgeLink {
    /// Starts the thread; it ends with the controller.
    pub(super) fn start(socket: PathBuf, handle: Handle, counted: Arc<Counted>) -> std::io::Result<Self> {
        let (worker, deliveries) = outbox();
        let ask_again = Arc::new(AtomicBool::new(false));
        let thread = Worker {
            socket,
            handle,
            deliveries,
            ask_again: ask_again.clone(),
            awaited: BTreeMap::new(),
            sampled_at: None,
            counted,
        };
        thread::Builder::new().name("edge".into()).spawn(move || thread.run())?;
        Ok(Self { worker, ask_again })
    }

    /// Queues an action.
    pub(super) fn send(&self, action: Action) {
        self.worker.send(action);
    }

    /// Has what is outstanding issued again: every answer of the edge can be asked for twice.
    pub(super) fn relist(&self) {
        self.ask_again.store(true, Ordering::Release);
    }
}

struct Worker {
    socket: PathBuf,
    handle: Handle,
    deliveries: Deliveries,
    ask_again: Arc<AtomicBool>,
    /// The fence of the last question about each instance.
    awaited: BTreeMap<InstanceId, Fence>,
    /// When the counts of canaries were last asked for.
    sampled_at: Option<Instant>,
    /// Where people look at them.
    counted: Arc<Counted>,
}

/// Why a connection is given up.
enum Broken {
    Edge(ClientError),
    Gone,
    Controller,
}

impl From<ClientError> for Broken {
    fn from(error: ClientError) -> Self {
        Self::Edge(error)
    }
}

impl From<Ended> for Broken {
    fn from(_: Ended) -> Self {
        Self::Controller
    }
}

impl Worker {
    fn run(mut self) {
        let mut told = false;
        loop {
            match self.connection() {
                Broken::Controller => return,
                Broken::Gone => told = false,
                Broken::Edge(error) => {
                    // Once is enough: an edge that is away is away at every attempt.
                    if !told {
                        tracing::warn!(%error, "the edge is away");
                    }
                    told = true;
                }
            }
            thread::sleep(RETRY_AFTER);
        }
    }

    /// One life of a connection; returns why it ended.
    fn connection(&mut self) -> Broken {
        let serve = |worker: &mut Self| -> Result<std::convert::Infallible, Broken> {
            let (edge, events) = EdgeClient::connect(&worker.socket)?;
            worker.awaited.clear();
            worker.restore(&edge)?;
            worker.handle.reconnected(Peer::Edge)?;
            loop {
                worker.listen(&events)?;
                worker.sample(&edge)?;
                worker.work(&edge, &events)?;
            }
        };
        match serve(self) {
            Ok(never) => match never {},
            Err(broken) => broken,
        }
    }

    /// An edge that lost its table file serves less than it acknowledged: it gets the committed table again.
    fn restore(&self, edge: &EdgeClient) -> Result<(), Broken> {
        let state = self.handle.state();
        let table = route_table(&state);
        if edge.table()?.table.fence.position < table.fence.position && state.term() > kiln_model::Term(0) {
            self.publish(edge, &table)?;
        }
        Ok(())
    }

    /// Carries out what waits, or returns after a moment of nothing.
    fn work(&mut self, edge: &EdgeClient, events: &Receiver<EdgeEvent>) -> Result<(), Broken> {
        if self.ask_again.swap(false, Ordering::AcqRel) {
            self.handle.reconnected(Peer::Edge)?;
        }
        let wait = if self.awaited.is_empty() { IDLE_EVERY } else { ANSWERS_EVERY };
        let first = match self.deliveries.next_within(wait) {
            None => return Ok(()),
            Some(Next::End) => return Err(Broken::Controller),
            Some(Next::AskAgain) => return Ok(self.handle.reconnected(Peer::Edge)?),
            Some(Next::Deliver(action)) => action,
        };
        let mut batch = vec![first];
        batch.extend(std::iter::from_fn(|| self.deliveries.pending()));
        // Only the newest table matters: the one before it would be swapped out at once.
        let newest = batch.iter().rposition(|action| matches!(action.kind, ActionKind::PublishTable(_)));
        for (index, action) in batch.into_iter().enumerate() {
            match action.kind {
                ActionKind::PublishTable(table) if Some(index) == newest => self.publish(edge, &table)?,
                ActionKind::AwaitIdle(id) => {
                    // An answer that is here already was given to an earlier question.
                    self.listen(events)?;
                    self.awaited.insert(id, action.fence);
                    edge.await_idle(id)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Passes on what the edge counted of the requests that are split.
    fn sample(&mut self, edge: &EdgeClient) -> Result<(), Broken> {
        if self.sampled_at.is_some_and(|last| last.elapsed() < SAMPLE_EVERY) {
            return Ok(());
        }
        self.sampled_at = Some(Instant::now());
        let state = self.handle.state();
        self.counted.keep(|(env, service)| {
            let rollout = state.environment(env).and_then(|env| env.rollout.as_ref());
            rollout.is_some_and(|rollout| rollout.splits.contains_key(service))
        });
        for env in state.environments() {
            let Some(rollout) = &env.rollout else { continue };
            for (service, split) in &rollout.splits {
                let sampling = Sampling { rollout: rollout.id, window: split.window };
                let samples = match edge.samples(&env.key, service, sampling) {
                    Ok(Some(samples)) => samples,
                    // One that is older than the controller counts nothing: the analysis says that it saw too little.
                    Ok(None) | Err(ClientError::Version(_)) => continue,
                    Err(error) => return Err(error.into()),
                };
                let (env, service, samples) = (env.key.clone(), service.clone(), Arc::new(samples));
                let of = (env.clone(), service.clone());
                self.counted.note(of, sampling, &samples, Instant::now());
                self.handle.observe(Observation::Sampled { env, service, sampling, samples })?;
            }
        }
        Ok(())
    }

    fn publish(&self, edge: &EdgeClient, table: &RouteTable) -> Result<(), Broken> {
        match edge.publish(table)? {
            Published::Acknowledged(fence) => {
                Ok(self.handle.observe(Observation::TableAcknowledged { fence })?)
            }
            Published::Refused { highest } => {
                tracing::warn!(table = %table.fence, %highest, "the edge serves a later table");
                Ok(())
            }
        }
    }

    /// Passes on what the edge said unasked.
    fn listen(&mut self, events: &Receiver<EdgeEvent>) -> Result<(), Broken> {
        for event in events.try_iter() {
            match event {
                EdgeEvent::Idle(id) => {
                    if let Some(fence) = self.awaited.remove(&id) {
                        self.handle.observe(Observation::BackendIdle { id, fence })?;
                    }
                }
                EdgeEvent::Disconnected => return Err(Broken::Gone),
            }
        }
        Ok(())
    }
}
