//! The command line's end of the socket. Blocking: a command does one thing at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use kiln_model::{Digest, EnvKey, RevisionNumber};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use super::wire;

/// A controller that folds, appends and syncs on a slow disk answers late, but it answers; beyond this it hangs.
const REQUEST_WITHIN: Duration = Duration::from_secs(60);
/// A collection reads every kept document and removes file by file: minutes in a large store on a slow disk.
const COLLECT_WITHIN: Duration = Duration::from_secs(3600);
/// A controller that was killed is started again within a second or two, and every command is safe to repeat.
const RETRY_WITHIN: Duration = Duration::from_secs(30);
/// Between two attempts to reach a controller that is being started again.
const RETRY_EVERY: Duration = Duration::from_millis(20);
/// An environment of 10,000 services takes a few MiB; beyond this it is no answer of ours.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// One line of a stream; the largest is the progress of 10,000 services.
const LINE_BYTES_MAX: usize = 64 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens.
    #[error("nobody answers at {path}")]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The file system or the controller keeps this user out.
    #[error("{path} is not open to this user")]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The controller speaks another version.
    #[error("this `kiln` speaks version {ours} of the API, the running one version {theirs}")]
    Version {
        /// Ours.
        ours: u32,
        /// Theirs.
        theirs: u32,
    },
    /// The first request failed.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Why a request has no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The controller said no.
    #[error("{}", .0.message)]
    Problem(wire::Problem),
    /// The connection broke.
    #[error("the connection to the controller broke")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It took too long.
    #[error("the controller did not answer within {} seconds", .0.as_secs())]
    TooSlow(Duration),
    /// It is not JSON of the expected shape.
    #[error("the controller's answer makes no sense")]
    Nonsense(#[source] serde_json::Error),
    /// It is larger than any answer of ours.
    #[error("the controller's answer is too large")]
    TooLarge,
}

/// The command line's end of the socket.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
    health: wire::Health,
}

/// What a stream gave within the time that its reader had.
#[derive(Debug)]
pub enum Next<T> {
    /// The next line.
    Item(T),
    /// Nothing yet.
    Idle,
    /// The end, as it should be.
    End,
}

/// A stream of JSON lines.
pub struct Stream<'a, T> {
    client: &'a Client,
    body: Incoming,
    buffer: Vec<u8>,
    ended: bool,
    item: std::marker::PhantomData<T>,
}

impl Client {
    /// Connects, and makes sure that both sides understand each other.
    ///
    /// # Errors
    /// `NotRunning`: start Kiln and try again. `Denied`, `Version`: trying again does not help.
    pub fn connect(socket: &Path) -> Result<Self, ConnectError> {
        let broken = |error: io::Error| RequestError::Broken(error.into());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(broken)?;
        // A socket file may outlive its process, or be out of reach: the errno tells.
        runtime.block_on(UnixStream::connect(socket)).map(drop).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ConnectError::NotRunning { path: socket.to_owned() }
            }
            io::ErrorKind::PermissionDenied => ConnectError::Denied { path: socket.to_owned() },
            _ => ConnectError::Request(broken(error)),
        })?;
        let health = wire::Health::default();
        let mut client = Self { socket: socket.to_owned(), runtime, health };
        client.health = client.get("/v1/health").map_err(|error| match error {
            RequestError::Problem(problem) if problem.kind == "denied" => {
                ConnectError::Denied { path: socket.to_owned() }
            }
            other => other.into(),
        })?;
        let theirs = client.health.api;
        if !wire::is_compatible(theirs) {
            return Err(ConnectError::Version { ours: wire::VERSION, theirs });
        }
        Ok(client)
    }

    /// Who answers.
    pub fn health(&self) -> &wire::Health {
        &self.health
    }

    /// Every environment.
    ///
    /// # Errors
    /// See [`RequestError`]; so for all requests. Reading may be tried again.
    pub fn environments(&self) -> Result<Vec<wire::Environment>, RequestError> {
        Ok(self.everything()?.environments)
    }

    /// Every environment, and how much there is beside them.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn everything(&self) -> Result<wire::Environments, RequestError> {
        self.get("/v1/environments")
    }

    /// One environment.
    ///
    /// # Errors
    /// As [`Client::environments`]; a problem of kind `refused` where there is none.
    pub fn environment(&self, env: &EnvKey) -> Result<wire::Environment, RequestError> {
        self.get(&path(env, ""))
    }

    /// The retained revisions of an environment, the newest first.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn revisions(&self, env: &EnvKey) -> Result<Vec<wire::Revision>, RequestError> {
        Ok(self.get::<wire::Revisions>(&path(env, "/revisions"))?.revisions)
    }

    /// The rollouts of an environment, the newest first, without their steps.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn rollouts(&self, env: &EnvKey, limit: usize) -> Result<Vec<wire::RolloutRecord>, RequestError> {
        Ok(self.get::<wire::Rollouts>(&path(env, &format!("/rollouts?limit={limit}")))?.rollouts)
    }

    /// One rollout of an environment with its steps, whether it runs or is over.
    ///
    /// # Errors
    /// As [`Client::environments`]; a problem of code `no_such_rollout` where there never was one.
    pub fn rollout(&self, env: &EnvKey, id: u64) -> Result<wire::RolloutRecord, RequestError> {
        self.get(&path(env, &format!("/rollouts/{id}")))
    }

    /// What is recorded about a test of an image.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn verdict(&self, image: &Digest, test: &str, spec: &Digest) -> Result<wire::Verdict, RequestError> {
        self.get(&format!("/v1/verdict?image={image}&spec={spec}&test={}", escaped(test)))
    }

    /// One revision with all that runs in it.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn revision(
        &self,
        env: &EnvKey,
        number: RevisionNumber,
    ) -> Result<wire::RevisionDetail, RequestError> {
        self.get(&path(env, &format!("/revisions/{}", number.0)))
    }

    /// Asks to move an environment to what was sealed.
    ///
    /// # Errors
    /// As [`Client::environments`]; commands are safe to repeat.
    pub fn up(&self, env: &EnvKey, up: &wire::Up) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/up"), up)
    }

    /// Asks what moving an environment to this would come to.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn predict(&self, env: &EnvKey, predict: &wire::Predict) -> Result<wire::Prediction, RequestError> {
        self.post(&path(env, "/predict"), predict)
    }

    /// Asks what the gates of an environment say to what would be asked of [`Client::up`].
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn gates(&self, env: &EnvKey, up: &wire::Up) -> Result<wire::GatesFound, RequestError> {
        self.post(&path(env, "/gates"), up)
    }

    /// Lets a release into an environment, as far as it depends on the caller.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn approve(&self, env: &EnvKey, approve: &wire::Approve) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/approve"), approve)
    }

    /// Asks to go back.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn rollback(
        &self,
        env: &EnvKey,
        to: Option<RevisionNumber>,
        service: Option<&str>,
        careful: bool,
    ) -> Result<wire::Accepted, RequestError> {
        let to = to.map(|number| number.0);
        let body = wire::Rollback { to, service: service.map(Into::into), careful };
        self.post(&path(env, "/rollback"), &body)
    }

    /// Asks for a number of replicas.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn scale(&self, env: &EnvKey, scale: &wire::Scale) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/scale"), scale)
    }

    /// Asks that the step with this index counts as complete.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn promote(&self, env: &EnvKey, step: Option<u32>) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/promote"), &wire::Promote { step })
    }

    /// Asks to stop the rollout and go back.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn abort(&self, env: &EnvKey) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/abort"), &serde_json::json!({}))
    }

    /// Asks not to begin what is queued behind the rollout that runs.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn withdraw(&self, env: &EnvKey) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/withdraw"), &serde_json::json!({}))
    }

    /// Asks to let no further step of the rollout begin.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn pause(&self, env: &EnvKey) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/pause"), &serde_json::json!({}))
    }

    /// Asks to let a paused rollout go on.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn resume(&self, env: &EnvKey) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/resume"), &serde_json::json!({}))
    }

    /// Asks to take everything of an environment down.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn down(&self, env: &EnvKey) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/down"), &serde_json::json!({}))
    }

    /// Asks to boot an image and see whether it comes to answer.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn check(&self, env: &EnvKey, check: &wire::Check) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/check"), check)
    }

    /// Tells what was found in an image without booting it.
    ///
    /// # Errors
    /// As [`Client::up`].
    pub fn inspected(&self, env: &EnvKey, found: &wire::Inspected) -> Result<wire::Accepted, RequestError> {
        self.post(&path(env, "/inspected"), found)
    }

    /// Asks to collect what nothing needs, or to look what that would be.
    ///
    /// # Errors
    /// As [`Client::up`]; a problem of kind `refused` and code `storing` while somebody stores.
    pub fn collect(&self, collect: &wire::Collect) -> Result<wire::Collection, RequestError> {
        let body =
            serde_json::to_vec(collect).expect("wire structs always serialise: their keys are strings");
        self.answer_within(COLLECT_WITHIN, Method::POST, "/v1/collect", body)
    }

    /// Follows a rollout until it ends.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn progress(&self, env: &EnvKey, rollout: u64) -> Result<Stream<'_, wire::Progress>, RequestError> {
        self.stream(&path(env, &format!("/progress?rollout={rollout}")))
    }

    /// Reads the log after a position, to its end or, if followed, for ever.
    ///
    /// # Errors
    /// As [`Client::environments`].
    pub fn events(&self, after: u64, follow: bool) -> Result<Stream<'_, wire::Event>, RequestError> {
        self.stream(&format!("/v1/events?after={after}&follow={follow}"))
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, RequestError> {
        self.answer(Method::GET, path, Vec::new())
    }

    fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, RequestError> {
        let body = serde_json::to_vec(body).expect("wire structs always serialise: their keys are strings");
        self.answer(Method::POST, path, body)
    }

    fn answer<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, RequestError> {
        self.answer_within(REQUEST_WITHIN, method, path, body)
    }

    fn answer_within<T: DeserializeOwned>(
        &self,
        within: Duration,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, RequestError> {
        let body = Bytes::from(body);
        let exchange = async || whole(self.send(method.clone(), path, body.clone()).await?).await;
        let bounded = async { tokio::time::timeout(within, persist(exchange)).await };
        let (ok, bytes) = self.runtime.block_on(bounded).map_err(|_| RequestError::TooSlow(within))??;
        if ok { serde_json::from_slice(&bytes).map_err(RequestError::Nonsense) } else { Err(problem(&bytes)) }
    }

    fn stream<T>(&self, path: &str) -> Result<Stream<'_, T>, RequestError> {
        let exchange = async || {
            let response = self.send(Method::GET, path, Bytes::new()).await?;
            if response.status().is_success() {
                return Ok(response.into_body());
            }
            let (_, bytes) = whole(response).await?;
            Err(problem(&bytes))
        };
        let bounded = async { tokio::time::timeout(REQUEST_WITHIN, persist(exchange)).await };
        let body = self.runtime.block_on(bounded).map_err(|_| RequestError::TooSlow(REQUEST_WITHIN))??;
        Ok(Stream { client: self, body, buffer: Vec::new(), ended: false, item: std::marker::PhantomData })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, RequestError> {
        let socket =
            UnixStream::connect(&self.socket).await.map_err(|error| RequestError::Broken(error.into()))?;
        let broken = |error: hyper::Error| RequestError::Broken(error.into());
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(broken)?;
        // It ends with the answer's body, or with this process.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "kiln")
            .header("content-type", "application/json")
            .header(wire::VERSION_HEADER, wire::VERSION)
            .body(Full::new(body))
            .expect("paths are escaped and headers are constants");
        sender.send_request(request).await.map_err(broken)
    }
}

impl<T: DeserializeOwned> Stream<'_, T> {
    /// Waits for the next line, at most this long.
    ///
    /// # Errors
    /// `Broken`: the controller went away; what it decided goes on, and a new stream shows it.
    pub fn next(&mut self, within: Duration) -> Result<Next<T>, RequestError> {
        let client = self.client;
        let wait = async { tokio::time::timeout(within, self.line()).await };
        match client.runtime.block_on(wait) {
            Err(_) => Ok(Next::Idle),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) => Ok(Next::End),
            Ok(Ok(Some(line))) => {
                serde_json::from_slice(&line).map(Next::Item).map_err(RequestError::Nonsense)
            }
        }
    }

    /// Cancelling loses nothing: what has come is in the buffer.
    async fn line(&mut self) -> Result<Option<Vec<u8>>, RequestError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                // An empty line only shows that the controller lives.
                if line.is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(RequestError::TooLarge);
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => return Err(RequestError::Broken(error.into())),
                None => self.ended = true,
            }
        }
    }
}

/// Repeats what a controller that ends leaves unfinished, the answer's body included, until another one answers in full.
async fn persist<T>(exchange: impl AsyncFn() -> Result<T, RequestError>) -> Result<T, RequestError> {
    let until = Instant::now() + RETRY_WITHIN;
    loop {
        match exchange().await {
            Err(RequestError::Broken(_)) if Instant::now() < until => tokio::time::sleep(RETRY_EVERY).await,
            answer => return answer,
        }
    }
}

async fn whole(response: Response<Incoming>) -> Result<(bool, Bytes), RequestError> {
    let ok = response.status().is_success();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            RequestError::TooLarge
        } else {
            RequestError::Broken(error)
        }
    })?;
    Ok((ok, body.to_bytes()))
}

fn problem(bytes: &[u8]) -> RequestError {
    match serde_json::from_slice::<wire::ProblemBody>(bytes) {
        Ok(body) => RequestError::Problem(body.problem),
        Err(error) => RequestError::Nonsense(error),
    }
}

/// Names are DNS labels, so they need no escaping in a path.
fn path(env: &EnvKey, rest: &str) -> String {
    format!("/v1/environments/{}/{}{rest}", env.stack, env.env)
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
