//! The provider port on the simulated host.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_model::{Digest, InstanceId};
use kiln_provider::{
    Capabilities, CreateRequest, Cursor, DestroyRequest, ExecOutcome, Listing, LogCursor, LogNext, LogStream,
    Provider, ProviderError, Transitions, Watched,
};

use super::Host;

/// A handle to the simulated host: the port's second implementation. The world moves the host by [`SharedHost::lock`]; who
/// uses it as a provider sees the port alone.
///
/// No verb waits, because the time of this world passes only between its happenings: a stream without news says so at once.
#[derive(Debug, Clone)]
pub struct SharedHost(Arc<Mutex<Host>>);

impl SharedHost {
    /// Shares a host.
    pub fn new(host: Host) -> Self {
        Self(Arc::new(Mutex::new(host)))
    }

    /// The host itself, behind its port.
    pub fn lock(&self) -> MutexGuard<'_, Host> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host, if its process is there to answer.
    fn answering(&self) -> Result<MutexGuard<'_, Host>, ProviderError> {
        let host = self.lock();
        if host.is_up() {
            return Ok(host);
        }
        Err(ProviderError::Away(io::Error::new(io::ErrorKind::NotConnected, "the simulated host is down")))
    }
}

impl Provider for SharedHost {
    fn capabilities(&self) -> Result<Capabilities, ProviderError> {
        let instances_max = self.answering()?.addresses;
        let unenforced =
            ["memory", "cpu", "pids"].map(|limit| format!("{limit}: nothing runs in a simulation"));
        Ok(Capabilities {
            isolation: "none: simulated".into(),
            unenforced: unenforced.into(),
            subnet: "10.0.0.0/25".into(),
            instances_max,
        })
    }

    fn prepare(&self, _image: &Digest) -> Result<(), ProviderError> {
        // An image is only a name here, so every one is ready.
        self.answering().map(drop)
    }

    fn create(&self, request: &CreateRequest) -> Result<(), ProviderError> {
        self.answering()?.create(request)
    }

    fn destroy(&self, request: &DestroyRequest) -> Result<(), ProviderError> {
        self.answering()?.destroy(request)
    }

    fn list(&self) -> Result<Listing, ProviderError> {
        Ok(self.answering()?.list())
    }

    fn watch(&self, cursor: Cursor) -> Result<Box<dyn Transitions>, ProviderError> {
        drop(self.answering()?);
        Ok(Box::new(Watch { host: self.clone(), cursor }))
    }

    fn logs(
        &self,
        id: InstanceId,
        _cursor: LogCursor,
        follow: bool,
    ) -> Result<Box<dyn LogStream>, ProviderError> {
        if !self.answering()?.guests().contains_key(&id) {
            return Err(ProviderError::Unknown(id));
        }
        Ok(Box::new(Silence { host: self.clone(), id, follow }))
    }

    fn exec(
        &self,
        id: InstanceId,
        _argv: &[String],
        _timeout: Duration,
    ) -> Result<ExecOutcome, ProviderError> {
        if !self.answering()?.guests().contains_key(&id) {
            return Err(ProviderError::Unknown(id));
        }
        Err(ProviderError::Refused { reason: "a simulated instance has no programs".into() })
    }
}

struct Watch {
    host: SharedHost,
    cursor: Cursor,
}

impl Transitions for Watch {
    fn next(&mut self, _timeout: Duration) -> Result<Option<Watched>, ProviderError> {
        let watched = self.host.answering()?.after(self.cursor);
        if let Some(Watched::Relist { cursor } | Watched::Transition { cursor, .. }) = &watched {
            self.cursor = *cursor;
        }
        Ok(watched)
    }
}

/// The log of an instance that says nothing.
struct Silence {
    host: SharedHost,
    id: InstanceId,
    follow: bool,
}

impl LogStream for Silence {
    fn next(&mut self, _timeout: Duration) -> Result<LogNext, ProviderError> {
        let lives = self.host.answering()?.guests().contains_key(&self.id);
        Ok(if lives && self.follow { LogNext::Quiet } else { LogNext::End })
    }
}
