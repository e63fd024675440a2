//! The uploads that are open, each used by one request at a time.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::OwnedMutexGuard;

use super::answer::{Code, Refusal};
use super::limits::{TURN_WITHIN, UPLOADS_MAX};
use super::route::unknown_upload;
use crate::digest::{Algorithm, ContentDigest};
use crate::name::RepositoryName;
use crate::storage::{FinishError, Storage, Swept, Upload, UploadId};

/// An upload, or nothing once it is finished or cancelled.
type Session = Arc<tokio::sync::Mutex<Option<Upload>>>;

/// The open uploads of this process. Those of an earlier one are found on the disk when they are asked for.
#[derive(Debug)]
pub(crate) struct Sessions {
    storage: Arc<Storage>,
    open: Mutex<BTreeMap<UploadId, Session>>,
}

/// The right to use an upload. It goes along with work on other threads, so that a request that is given up does not let
/// another one in before its last bytes are written.
#[derive(Debug)]
pub(crate) struct Turn(OwnedMutexGuard<Option<Upload>>);

impl Turn {
    pub(crate) fn upload(&mut self) -> &mut Upload {
        self.0.as_mut().expect("a turn is given out with an upload, and ends when that does")
    }
}

impl Sessions {
    pub(crate) fn new(storage: Arc<Storage>) -> Self {
        Self { storage, open: Mutex::default() }
    }

    /// Begins an upload, and takes the first turn.
    pub(crate) async fn begin(&self, name: RepositoryName, algorithm: Algorithm) -> Result<Turn, Refusal> {
        if self.open().len() >= UPLOADS_MAX {
            let refusal = Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                format!("{UPLOADS_MAX} uploads are open; one has to be finished or cancelled first"),
            );
            return Err(refusal.header("retry-after", "60"));
        }
        let storage = Arc::clone(&self.storage);
        let upload = blocking(move || storage.begin_upload(&name, algorithm)).await?;
        let id = upload.id.clone();
        let session = Session::new(tokio::sync::Mutex::new(Some(upload)));
        let turn = Turn(Arc::clone(&session).try_lock_owned().expect("nobody else knows of it"));
        self.open().insert(id, session);
        Ok(turn)
    }

    /// Takes a turn at an upload of a repository, after whoever has it.
    pub(crate) async fn turn(&self, name: &RepositoryName, id: &UploadId) -> Result<Turn, Refusal> {
        let known = self.open().get(id).cloned();
        let session = match known {
            Some(session) => session,
            None => self.resume(id).await?,
        };
        let busy = || {
            let message = "another request is writing to this upload";
            Refusal::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, message).header("retry-after", "10")
        };
        let guard =
            tokio::time::timeout(TURN_WITHIN, session.lock_owned()).await.map_err(|_elapsed| busy())?;
        match &*guard {
            Some(upload) if upload.repository == *name => Ok(Turn(guard)),
            _ => Err(unknown_upload()),
        }
    }

    async fn resume(&self, id: &UploadId) -> Result<Session, Refusal> {
        let (storage, wanted) = (Arc::clone(&self.storage), id.clone());
        let upload = blocking(move || storage.resume_upload(&wanted)).await?.ok_or_else(unknown_upload)?;
        // Of two requests that find it at once the first one's is used by both.
        let session = Session::new(tokio::sync::Mutex::new(Some(upload)));
        Ok(Arc::clone(self.open().entry(id.clone()).or_insert(session)))
    }

    /// Makes an upload a blob.
    pub(crate) async fn finish(&self, mut turn: Turn, digest: ContentDigest) -> Result<(), Refusal> {
        let id = turn.upload().id.clone();
        let (storage, wanted) = (Arc::clone(&self.storage), digest.clone());
        let (turn, outcome) = join(tokio::task::spawn_blocking(move || {
            let outcome = storage.finish_upload(turn.upload(), &wanted);
            if !matches!(outcome, Err(FinishError::Io(_))) {
                turn.0.take();
            }
            (turn, outcome)
        }))
        .await?;
        if turn.0.is_none() {
            self.open().remove(&id);
        }
        outcome.map_err(|error| match error {
            FinishError::Mismatch { .. } => {
                Refusal::bad(Code::DigestInvalid, format!("{error}, not {digest}; the upload is gone"))
            }
            FinishError::Io(error) => error.into(),
        })
    }

    /// Removes an upload and what was sent.
    pub(crate) async fn cancel(&self, mut turn: Turn) -> Result<(), Refusal> {
        let id = turn.upload().id.clone();
        let storage = Arc::clone(&self.storage);
        blocking(move || {
            storage.cancel_upload(turn.upload())?;
            turn.0.take();
            Ok(())
        })
        .await?;
        self.open().remove(&id);
        Ok(())
    }

    /// Removes what nobody goes on with.
    pub(crate) fn sweep(&self, age: Duration) -> io::Result<Swept> {
        self.storage.sweep(age, |id| {
            let mut open = self.open();
            match open.get(id).map(|session| Arc::clone(session).try_lock_owned()) {
                Some(Err(_)) => true,
                Some(Ok(mut guard)) => {
                    guard.take();
                    open.remove(id);
                    false
                }
                None => false,
            }
        })
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<UploadId, Session>> {
        // Every use of it is one call.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what may wait for a disk on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Refusal> {
    Ok(join(tokio::task::spawn_blocking(work)).await??)
}

/// Waits for work on another thread. A panic there is a defect of ours, and fails this request only.
pub(crate) async fn join<T>(work: tokio::task::JoinHandle<T>) -> io::Result<T> {
    work.await.map_err(io::Error::other)
}
