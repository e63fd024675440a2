//! The controller's end of the socket.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use kiln_core::{Admission, Command, IfRunning, Lasting, Reply, State};
use kiln_model::release::{Release, RevisionSpec};
use kiln_model::rollout::ReplicaOwner;
use kiln_model::route::Sampling;
use kiln_model::{
    Actor, Digest, Entry, EnvKey, InstanceSpec, Millis, Position, RevisionNumber, ServiceName, Timestamp,
};
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::canaries::{Traffic, canaries};
use super::history::Seen;
use super::peer::Peer;
use super::wire::{self, Problem, ProblemBody};
use super::{narrate, prediction, refusal, sealed, verdicts, view};
use crate::controller::CommandError;

/// An `up` of 10,000 services takes about 10 MiB.
const BODY_BYTES_MAX: usize = 64 << 20;
/// A stream holds a thread; more people than this do not look at one machine at once.
const STREAMS_MAX: usize = 64;
/// How often a stream looks whether its reader is still there.
const STREAM_BEAT: Duration = Duration::from_secs(1);
/// One read of the log for a stream.
const EVENTS_PAGE: usize = 512;
/// One answer with a history: a year of a few rollouts a day.
const ROLLOUTS_MAX: usize = 1000;
/// As many as fit on a screen, where nobody says how many.
const ROLLOUTS_SHOWN: usize = 20;
/// Lines that wait for a slow reader; then the stream waits.
const LINES_WAITING_MAX: usize = 16;

/// What the API shows and asks: the controller and the store behind it.
pub trait Backend: Send + Sync + 'static {
    /// Asks the controller; returns once it is recorded or refused.
    fn command(&self, command: Command, actor: Actor) -> Result<Reply, CommandError>;
    /// The last committed state.
    fn state(&self) -> Arc<State>;
    /// Why nothing new can be recorded at the moment, if so.
    fn trouble(&self) -> Option<String>;
    /// How much room the store takes, where there is a disk budget and since it was looked.
    fn disk(&self) -> Option<wire::Disk>;
    /// What is wrong with the packs, for people.
    fn damaged(&self) -> Vec<String>;
    /// The state once something after `position` is committed, or after `timeout`.
    fn wait_past(&self, position: Position, timeout: Duration) -> Arc<State>;
    /// At most `max` entries of the log after `after`.
    fn events(&self, after: Position, max: usize) -> Result<Vec<Entry>, String>;
    /// The last `max` rollouts of an environment, the newest first, without their steps.
    fn rollouts(&self, env: &EnvKey, max: usize) -> Result<Vec<wire::RolloutRecord>, String>;
    /// One rollout of an environment with its steps; none if it never had one of this id.
    fn rollout(&self, env: &EnvKey, id: u64) -> Result<Option<wire::RolloutRecord>, String>;
    /// What the edge counted last of a split; none before it was asked, or where it is over.
    fn traffic(&self, env: &EnvKey, service: &ServiceName, sampling: Sampling) -> Option<Traffic>;
    /// How long the steps of an environment's last rollouts took.
    fn seen(&self, env: &EnvKey) -> Result<Seen, String>;
    /// A stored release: only what is stored can be moved to.
    fn release(&self, digest: &Digest) -> Result<Release, String>;
    /// Whether a binding is stored.
    fn has_binding(&self, digest: &Digest) -> bool;
    /// Collects what nothing needs, or only looks.
    ///
    /// # Errors
    /// Nothing, or not everything, was collected; what is left is whole.
    fn collect(&self, request: &wire::Collect) -> Result<wire::Collection, Problem>;
}

struct Api {
    backend: Arc<dyn Backend>,
    streams: Arc<Semaphore>,
}

type Context = Shared<Arc<Api>>;

/// Serves the API until `stop` resolves; streams end with their readers.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: UnixListener,
    backend: Arc<dyn Backend>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let service = router(backend).into_make_service_with_connect_info::<Peer>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await
}

fn router(backend: Arc<dyn Backend>) -> Router {
    let api = Arc::new(Api { backend, streams: Arc::new(Semaphore::new(STREAMS_MAX)) });
    let env = "/v1/environments/{stack}/{env}";
    let path = |rest: &str| format!("{env}{rest}");
    Router::new()
        .route("/v1/health", get(health))
        .route("/v1/environments", get(environments))
        .route(env, get(environment))
        .route(&path("/revisions"), get(revisions))
        .route(&path("/revisions/{number}"), get(revision))
        .route(&path("/rollouts"), get(rollouts))
        .route(&path("/rollouts/{id}"), get(rollout))
        .route(&path("/progress"), get(progress))
        .route(&path("/up"), post(up))
        .route(&path("/predict"), post(predict))
        .route(&path("/gates"), post(gates))
        .route(&path("/approve"), post(approve))
        .route(&path("/rollback"), post(rollback))
        .route(&path("/scale"), post(scale))
        .route(&path("/abort"), post(abort))
        .route(&path("/withdraw"), post(withdraw))
        .route(&path("/pause"), post(pause))
        .route(&path("/resume"), post(resume))
        .route(&path("/promote"), post(promote))
        .route(&path("/down"), post(down))
        .route(&path("/check"), post(check))
        .route(&path("/inspected"), post(inspected))
        .route("/v1/verdict", get(verdict))
        .route("/v1/events", get(events))
        .route("/v1/collect", post(collect))
        .fallback(async || Refused::invalid("unknown_path", "the API has no such path"))
        .layer(middleware::from_fn(admit))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(api)
}

/// An answer that is not a success.
struct Refused(Problem);

impl Refused {
    fn new(kind: &str, code: &str, message: impl Into<String>) -> Self {
        Self(Problem { kind: kind.into(), code: code.into(), message: message.into() })
    }

    fn invalid(code: &str, message: impl Into<String>) -> Self {
        Self::new("invalid", code, message)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.kind.as_str() {
            "refused" => StatusCode::CONFLICT,
            "denied" => StatusCode::FORBIDDEN,
            "invalid" | "version" => StatusCode::BAD_REQUEST,
            "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(ProblemBody { problem: self.0 })).into_response()
    }
}

impl From<CommandError> for Refused {
    fn from(error: CommandError) -> Self {
        Self(refusal::problem(&error))
    }
}

impl From<sealed::Malformed> for Refused {
    fn from(error: sealed::Malformed) -> Self {
        Self::invalid("malformed", error.to_string())
    }
}

/// Who may not ask is told so, and who speaks another version as well, before anything is looked at.
async fn admit(ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    if !peer.is_trusted() {
        let why = "only root may talk to Kiln";
        return stamped(Refused::new("denied", "not_root", why).into_response());
    }
    let version = request.headers().get(wire::VERSION_HEADER).and_then(|value| value.to_str().ok());
    // `curl` sends none, and is welcome.
    if let Some(theirs) = version
        && !theirs.parse().is_ok_and(wire::is_compatible)
        && request.uri().path() != "/v1/health"
    {
        let why = format!("this controller speaks version {} of the API, not {theirs}", wire::VERSION);
        return stamped(Refused::new("version", "other_version", why).into_response());
    }
    request.extensions_mut().insert(peer.actor());
    stamped(next.run(request).await)
}

fn stamped(mut response: Response) -> Response {
    response.headers_mut().insert(wire::VERSION_HEADER, HeaderValue::from(wire::VERSION));
    response
}

/// Reads a body; what is wrong with it is said in the API's own form.
fn body<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, Refused> {
    serde_json::from_slice(bytes).map_err(|error| Refused::invalid("malformed", error.to_string()))
}

fn key((stack, env): (&str, &str)) -> Result<EnvKey, Refused> {
    Ok(EnvKey { stack: sealed::parse("stack", stack)?, env: sealed::parse("environment", env)? })
}

fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// As the controller counts it: the log never goes back, whatever the wall clock does.
fn now(state: &State) -> Timestamp {
    wall_clock().max(state.now())
}

async fn health(Shared(api): Context) -> Json<wire::Health> {
    let state = api.backend.state();
    Json(wire::Health {
        version: env!("CARGO_PKG_VERSION").into(),
        api: wire::VERSION,
        pid: std::process::id(),
        term: state.term().0,
        position: state.position().0,
        now_ms: now(&state).0,
        trouble: api.backend.trouble().unwrap_or_default(),
        disk: api.backend.disk(),
        damaged: api.backend.damaged(),
    })
}

async fn environments(Shared(api): Context) -> Json<wire::Environments> {
    let state = api.backend.state();
    let now = now(&state);
    Json(wire::Environments {
        environments: state.environments().map(|env| view::environment(&state, env, now)).collect(),
        checks: state.checks().count(),
    })
}

fn unknown(env: &EnvKey) -> Refused {
    CommandError::Refused(kiln_core::Refusal::UnknownEnvironment(env.clone())).into()
}

async fn environment(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
) -> Result<Json<wire::Environment>, Refused> {
    let key = key((&stack, &env))?;
    let state = api.backend.state();
    let env = state.environment(&key).ok_or_else(|| unknown(&key))?;
    Ok(Json(view::environment(&state, env, now(&state))))
}

async fn revisions(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
) -> Result<Json<wire::Revisions>, Refused> {
    let key = key((&stack, &env))?;
    let state = api.backend.state();
    let env = state.environment(&key).ok_or_else(|| unknown(&key))?;
    Ok(Json(wire::Revisions { revisions: view::revisions(&state, env) }))
}

async fn revision(
    Shared(api): Context,
    Path((stack, env, number)): Path<(String, String, u64)>,
) -> Result<Json<wire::RevisionDetail>, Refused> {
    let key = key((&stack, &env))?;
    let state = api.backend.state();
    let env = state.environment(&key).ok_or_else(|| unknown(&key))?;
    let number = RevisionNumber(number);
    let gone = || CommandError::Refused(kiln_core::Refusal::UnknownRevision(key.clone(), number));
    Ok(Json(view::revision(&state, env, number).ok_or_else(gone)?))
}

#[derive(serde::Deserialize)]
struct RolloutsQuery {
    limit: Option<usize>,
}

async fn rollouts(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Query(query): Query<RolloutsQuery>,
) -> Result<Json<wire::Rollouts>, Refused> {
    let key = key((&stack, &env))?;
    let max = query.limit.unwrap_or(ROLLOUTS_SHOWN).min(ROLLOUTS_MAX);
    let rollouts = read(&api, move |backend| backend.rollouts(&key, max)).await?;
    Ok(Json(wire::Rollouts { rollouts }))
}

async fn rollout(
    Shared(api): Context,
    Path((stack, env, id)): Path<(String, String, u64)>,
) -> Result<Json<wire::RolloutRecord>, Refused> {
    let key = key((&stack, &env))?;
    let never = Refused::new("refused", "no_such_rollout", format!("{key} never had a rollout {id}"));
    let found = read(&api, move |backend| {
        let mut found = backend.rollout(&key, id)?;
        if let Some(record) = &mut found {
            let state = backend.state();
            record.rollout.canaries = canaries(&state, &key, id, backend);
            view::correct_deadline(&state, &key, record);
        }
        Ok(found)
    });
    Ok(Json(found.await?.ok_or(never)?))
}

/// Reads the log on a thread that may wait.
async fn read<T: Send + 'static>(
    api: &Arc<Api>,
    read: impl FnOnce(&dyn Backend) -> Result<T, String> + Send + 'static,
) -> Result<T, Refused> {
    let backend = Arc::clone(&api.backend);
    let answer = tokio::task::spawn_blocking(move || read(&*backend)).await;
    answer
        .map_err(|error| Refused::new("internal", "bug", error.to_string()))?
        .map_err(|why| Refused::new("unavailable", "log_unreadable", why))
}

#[derive(serde::Deserialize)]
struct VerdictQuery {
    image: String,
    test: String,
    spec: String,
}

async fn verdict(
    Shared(api): Context,
    Query(query): Query<VerdictQuery>,
) -> Result<Json<wire::Verdict>, Refused> {
    let image = sealed::parse("image", &query.image)?;
    let spec = sealed::parse("spec", &query.spec)?;
    Ok(Json(view::verdict(&api.backend.state(), image, &query.test, spec)))
}

/// Asks the controller on a thread that may wait.
async fn ask(api: &Arc<Api>, command: Command, actor: Actor) -> Result<Json<wire::Accepted>, Refused> {
    let backend = Arc::clone(&api.backend);
    let answer = tokio::task::spawn_blocking(move || {
        let reply = backend.command(command, actor)?;
        Ok((reply, backend.state().position()))
    });
    let (reply, position) = answer
        .await
        .map_err(|error| Refused::new("internal", "bug", error.to_string()))?
        .map_err(|error: CommandError| Refused::from(error))?;
    Ok(Json(accepted(&reply, position)))
}

async fn up(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let up: wire::Up = body(&bytes)?;
    let release: Digest = sealed::parse("release", &up.release)?;
    let binding: Digest = sealed::parse("binding", &up.binding)?;
    // What the log names must be stored before the log names it.
    let stored = api.backend.release(&release).map_err(|why| Refused::invalid("release_not_stored", why))?;
    if !api.backend.has_binding(&binding) {
        return Err(Refused::invalid("binding_not_stored", format!("binding {binding} is not stored")));
    }
    let admission = admission(&up)?;
    let command = Command::Up {
        env: key((&stack, &env))?,
        origin: up.origin,
        adopt: up.adopt,
        base: up.base.map(RevisionNumber),
        release,
        binding,
        checks: stored.checks,
        spec: Arc::new(RevisionSpec::try_from(&up.sealed)?),
        admission,
    };
    ask(&api, command, actor).await
}

fn admission(up: &wire::Up) -> Result<Admission, Refused> {
    let from = up.promoted_from.as_deref();
    Ok(Admission {
        promoted_from: from.map(|env| sealed::parse("environment", env)).transpose()?,
        if_running: match up.if_running {
            wire::IfRunning::Supersede => IfRunning::Supersede,
            wire::IfRunning::Refuse => IfRunning::Refuse,
            wire::IfRunning::Queue => IfRunning::Queue,
        },
        gates: Arc::new(up.gates.as_ref().map(|gates| gates.0.clone()).unwrap_or_default()),
        break_glass: up.break_glass.clone(),
        lasting: match up.ttl_ms {
            None => Lasting::AsBefore,
            Some(0) => Lasting::ForEver,
            Some(ttl) => Lasting::For(Millis(ttl)),
        },
    })
}

/// What the gates say to a release, without asking for anything.
async fn gates(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<Json<wire::GatesFound>, Refused> {
    let up: wire::Up = body(&bytes)?;
    let (key, release) = (key((&stack, &env))?, sealed::parse("release", &up.release)?);
    let state = api.backend.state();
    let found = kiln_core::judge(&state, &key, release, &admission(&up)?, now(&state));
    Ok(Json(wire::GatesFound { gates: found.iter().map(verdicts::gate).collect() }))
}

async fn approve(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let approve: wire::Approve = body(&bytes)?;
    let command = Command::Approve {
        env: key((&stack, &env))?,
        release: sealed::parse("release", &approve.release)?,
        within: Millis(approve.within_ms),
    };
    ask(&api, command, actor).await
}

/// Says what an `up` would come to; nothing is asked of the controller.
async fn predict(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    bytes: Bytes,
) -> Result<Json<wire::Prediction>, Refused> {
    let wire::Predict { sealed } = body(&bytes)?;
    let (key, spec) = (key((&stack, &env))?, RevisionSpec::try_from(&sealed)?);
    let state = api.backend.state();
    let predicted = read(&api, move |backend| {
        let seen = backend.seen(&key)?;
        Ok(prediction::up(&state, &key, spec, &seen))
    });
    Ok(Json(predicted.await?))
}

async fn rollback(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let wire::Rollback { to, service, careful } = body(&bytes)?;
    let command = Command::Rollback {
        env: key((&stack, &env))?,
        to: to.map(RevisionNumber),
        service: service.map(|name| sealed::parse("service", &name)).transpose()?,
        careful,
    };
    ask(&api, command, actor).await
}

async fn promote(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let wire::Promote { step } = body(&bytes)?;
    ask(&api, Command::Promote { env: key((&stack, &env))?, step }, actor).await
}

async fn scale(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let scale: wire::Scale = body(&bytes)?;
    let command = Command::Scale {
        env: key((&stack, &env))?,
        service: sealed::parse("service", &scale.service)?,
        replicas: scale.replicas,
        owner: ReplicaOwner::Hand,
    };
    ask(&api, command, actor).await
}

async fn withdraw(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<wire::Accepted>, Refused> {
    ask(&api, Command::Withdraw { env: key((&stack, &env))? }, actor).await
}

async fn abort(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<wire::Accepted>, Refused> {
    ask(&api, Command::Abort { env: key((&stack, &env))? }, actor).await
}

async fn pause(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<wire::Accepted>, Refused> {
    ask(&api, Command::Pause { env: key((&stack, &env))? }, actor).await
}

async fn resume(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<wire::Accepted>, Refused> {
    ask(&api, Command::Resume { env: key((&stack, &env))? }, actor).await
}

async fn down(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
) -> Result<Json<wire::Accepted>, Refused> {
    ask(&api, Command::Down { env: key((&stack, &env))? }, actor).await
}

async fn check(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let check: wire::Check = body(&bytes)?;
    let command = Command::Check {
        env: key((&stack, &env))?,
        image: sealed::parse("image", &check.image)?,
        test: check.test,
        spec: Arc::new(InstanceSpec::try_from(&check.spec)?),
        spec_digest: sealed::parse("spec_digest", &check.spec_digest)?,
        within: Millis(check.within_ms),
    };
    ask(&api, command, actor).await
}

async fn inspected(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Extension(actor): Extension<Actor>,
    bytes: Bytes,
) -> Result<Json<wire::Accepted>, Refused> {
    let found: wire::Inspected = body(&bytes)?;
    let command = Command::Inspected {
        env: key((&stack, &env))?,
        image: sealed::parse("image", &found.image)?,
        test: found.test,
        question: sealed::parse("question", &found.question)?,
        failure: found.failure,
        basis: found.basis,
    };
    ask(&api, command, actor).await
}

async fn collect(Shared(api): Context, bytes: Bytes) -> Result<Json<wire::Collection>, Refused> {
    let request: wire::Collect = body(&bytes)?;
    let backend = Arc::clone(&api.backend);
    let answer = tokio::task::spawn_blocking(move || backend.collect(&request));
    let answer = answer.await.map_err(|error| Refused::new("internal", "bug", error.to_string()))?;
    Ok(Json(answer.map_err(Refused)?))
}

#[derive(serde::Deserialize)]
struct ProgressQuery {
    rollout: u64,
}

async fn progress(
    Shared(api): Context,
    Path((stack, env)): Path<(String, String)>,
    Query(query): Query<ProgressQuery>,
) -> Result<Response, Refused> {
    let key = key((&stack, &env))?;
    let state = api.backend.state();
    if view::progress(&state, &key, query.rollout, now(&state), None).is_none() {
        let why = format!("{key} has no rollout {} any more", query.rollout);
        return Err(Refused::new("refused", "no_rollout", why));
    }
    let backend = Arc::clone(&api.backend);
    stream(&api, move |lines| {
        let mut last: Option<wire::Progress> = None;
        loop {
            let state = backend.state();
            let shown = view::progress(&state, &key, query.rollout, now(&state), last.as_ref());
            let Some(mut shown) = shown else { return };
            shown.rollout.canaries = canaries(&state, &key, query.rollout, &*backend);
            let over = shown.rollout.ended.is_some();
            if !lines.send(&shown) || over {
                return;
            }
            last = Some(shown);
            backend.wait_past(state.position(), STREAM_BEAT);
        }
    })
}

#[derive(serde::Deserialize)]
struct EventsQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    follow: bool,
}

async fn events(Shared(api): Context, Query(query): Query<EventsQuery>) -> Result<Response, Refused> {
    let backend = Arc::clone(&api.backend);
    stream(&api, move |lines| {
        let mut after = Position(query.after);
        loop {
            let page = match backend.events(after, EVENTS_PAGE) {
                Ok(page) => page,
                // The reader sees a broken stream, which is what it is.
                Err(why) => return lines.fail(&why),
            };
            for entry in &page {
                after = entry.position;
                if !lines.send(&narrate::event(entry)) {
                    return;
                }
            }
            if page.len() == EVENTS_PAGE {
                continue;
            }
            if !query.follow || !lines.beat() {
                return;
            }
            backend.wait_past(after, STREAM_BEAT);
        }
    })
}

/// The writing end of a stream of JSON lines.
struct Lines {
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    _permit: OwnedSemaphorePermit,
}

impl Lines {
    /// Whether the reader is still there.
    fn send(&self, value: &impl serde::Serialize) -> bool {
        let mut line =
            serde_json::to_vec(value).expect("wire structs always serialise: their keys are strings");
        line.push(b'\n');
        self.sender.blocking_send(Ok(line.into())).is_ok()
    }

    /// An empty line: keeps the connection known to be alive, and finds out whether the reader is.
    fn beat(&self) -> bool {
        self.sender.blocking_send(Ok(Bytes::from_static(b"\n"))).is_ok()
    }

    fn fail(&self, why: &str) {
        // A reader that is gone as well needs no telling.
        let _ = self.sender.blocking_send(Err(io::Error::other(why.to_owned())));
    }
}

fn stream(api: &Arc<Api>, write: impl FnOnce(Lines) + Send + 'static) -> Result<Response, Refused> {
    let permit = Arc::clone(&api.streams).try_acquire_owned().map_err(|_| {
        Refused::new("unavailable", "too_many_streams", format!("{STREAMS_MAX} streams are open already"))
    })?;
    let (sender, receiver) = mpsc::channel(LINES_WAITING_MAX);
    tokio::task::spawn_blocking(move || write(Lines { sender, _permit: permit }));
    let lines = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|line| (line, receiver))
    });
    let body = Body::from_stream(lines);
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((kind, body).into_response())
}

/// What the command line is told of the controller's answer.
fn accepted(reply: &Reply, position: Position) -> wire::Accepted {
    let (rollout, revision) = match reply {
        Reply::RolloutStarted { rollout, revision }
        | Reply::AlreadyRunning { rollout, revision }
        | Reply::GoingBack { rollout, revision }
        | Reply::Paused { rollout, revision }
        | Reply::Resumed { rollout, revision } => (Some(rollout.0), *revision),
        Reply::Promoted { rollout, .. } => (Some(rollout.0), None),
        Reply::Unchanged { revision } | Reply::Queued { revision, .. } | Reply::Withdrawn { revision } => {
            (None, Some(*revision))
        }
        Reply::Noted | Reply::Scaled { .. } | Reply::CheckStarted { .. } | Reply::CheckPassed { .. } => {
            (None, None)
        }
    };
    let behind = match reply {
        Reply::Queued { behind, .. } => Some(behind.0),
        _ => None,
    };
    wire::Accepted { position: position.0, rollout, revision: revision.map(|number| number.0), behind }
}
