//! The port's verbs, as this host takes them.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::{Digest, InstanceId};
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::boot::InitIdentity;
use super::exec::{ExecReport, ExecRequest};
use super::images::ImageError;
use super::instance::{Instance, Leaving, Phase};
use super::log::{FileLog, LOG_FOLDER};
use super::network::BRIDGE_PORTS_MAX;
use super::record::Record;
use super::zygote::Request;
use super::{Host, Job};
use crate::port::{
    Capabilities, CreateRequest, Cursor, DestroyRequest, ExecOutcome, Listing, LogCursor, LogNext, LogStream,
    Provider, ProviderError, Transition, Transitions, Watched,
};

/// How often a log that is followed is looked at: a person does not notice, and a file system does not mind.
const FOLLOW_POLL: Duration = Duration::from_millis(50);
/// What is kept of a command's output: it ends up in a message.
const OUTPUT_BYTES_MAX: u64 = 16 << 10;
/// A command that hangs holds a thread of the server.
const EXEC_TIMEOUT_MAX: Duration = Duration::from_secs(600);

fn failed(what: &str) -> impl FnOnce(io::Error) -> ProviderError {
    move |error| ProviderError::Failed { reason: format!("cannot {what}: {error}") }
}

impl From<ImageError> for ProviderError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Refused(reason) => Self::Refused { reason },
            ImageError::Failed(reason) => Self::Failed { reason },
        }
    }
}

/// A shared host is a provider.
impl Provider for Arc<Host> {
    fn capabilities(&self) -> Result<Capabilities, ProviderError> {
        Ok(Capabilities {
            isolation: format!("namespaces, seccomp, {}", self.cgroups.describe()),
            unenforced: self.cgroups.unenforced(),
            subnet: self.network.subnet.to_string(),
            instances_max: BRIDGE_PORTS_MAX,
        })
    }

    fn prepare(&self, image: &Digest) -> Result<(), ProviderError> {
        Ok(self.images.prepare(image)?)
    }

    fn create(&self, request: &CreateRequest) -> Result<(), ProviderError> {
        let mut fences = self.fences();
        fences.admit(request.fence.term)?;
        if fences.is_tombstoned(request.id) {
            return Err(ProviderError::Tombstoned(request.id));
        }
        let mut registry = self.registry();
        drop(fences);
        if let Some(known) = registry.instances.get(&request.id) {
            if !is_same(&known.record.request, request) {
                return Err(ProviderError::Refused {
                    reason: format!("instance {} exists with another spec", request.id),
                });
            }
            known.history().into_iter().for_each(|transition| self.feed.tell(request.id, transition));
            return Ok(());
        }
        if registry.instances.len() >= BRIDGE_PORTS_MAX as usize {
            return Err(ProviderError::Refused {
                reason: format!(
                    "this host has {BRIDGE_PORTS_MAX} instances, as many as a bridge of Linux takes"
                ),
            });
        }
        let address = registry.addresses.take(request.id).ok_or_else(|| ProviderError::Refused {
            reason: format!("every address of {} is taken", self.network.subnet),
        })?;
        let record = Record { request: request.clone(), address };
        if let Err(error) = record.write(&self.folders.instance(request.id)) {
            registry.addresses.release(request.id);
            return Err(failed("write down the instance")(error));
        }
        registry.instances.insert(request.id, Instance::new(record, Phase::Queued));
        drop(registry);
        self.jobs.push(Job::Start(request.id));
        Ok(())
    }

    fn destroy(&self, request: &DestroyRequest) -> Result<(), ProviderError> {
        let mut fences = self.fences();
        fences.admit(request.fence.term)?;
        // Durable before anything acts on it: a create that comes late must find it, also after a power failure.
        fences.bury(request.id)?;
        let mut registry = self.registry();
        drop(fences);
        let Some(instance) = registry.instances.get_mut(&request.id) else {
            self.feed.tell(request.id, Transition::Destroyed);
            return Ok(());
        };
        if instance.leaving == Leaving::No {
            instance.leaving = Leaving::Asked(request.grace);
            self.prober.remove(request.id);
            // Whoever starts it sees that it is to go when it is done.
            if instance.phase != Phase::Starting {
                self.jobs.push(Job::Stop(request.id));
            }
        }
        Ok(())
    }

    fn list(&self) -> Result<Listing, ProviderError> {
        // The place first: what happens in between is then told once more, and nothing is missed.
        let cursor = self.feed.cursor();
        let instances = self.registry().instances.values().map(Instance::status).collect();
        Ok(Listing { cursor, instances })
    }

    fn watch(&self, cursor: Cursor) -> Result<Box<dyn Transitions>, ProviderError> {
        Ok(Box::new(Watch { host: Self::clone(self), cursor }))
    }

    fn logs(
        &self,
        id: InstanceId,
        cursor: LogCursor,
        follow: bool,
    ) -> Result<Box<dyn LogStream>, ProviderError> {
        let folder = self.log_folder(id).ok_or(ProviderError::Unknown(id))?;
        let log = FileLog::open(folder.clone(), cursor);
        Ok(Box::new(HostLog { host: Self::clone(self), id, folder, log, follow }))
    }

    fn exec(&self, id: InstanceId, argv: &[String], timeout: Duration) -> Result<ExecOutcome, ProviderError> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("make a pipe")(e.into()))?;
        let refused = |reason| ProviderError::Failed { reason };
        let answer =
            self.begin_exec(id, argv, timeout.min(EXEC_TIMEOUT_MAX), Some(write)).map_err(refused)?;
        let mut output = Vec::new();
        let mut pipe = fs::File::from(read);
        // A program that it leaves behind in the background may keep the pipe open; the answer does not wait for that.
        let reader = thread::spawn(move || {
            let _ = (&mut pipe).take(OUTPUT_BYTES_MAX).read_to_end(&mut output);
            let _ = io::copy(&mut pipe, &mut io::sink());
            output
        });
        let mut text = Vec::new();
        fs::File::from(answer).read_to_end(&mut text).map_err(failed("read the command's answer"))?;
        let status = ExecReport::parse(&text).answer.into_status().map_err(refused)?;
        let deadline = Instant::now() + FOLLOW_POLL;
        while !reader.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let output = if reader.is_finished() { reader.join().unwrap_or_default() } else { Vec::new() };
        Ok(ExecOutcome { status, output: String::from_utf8_lossy(&output).into_owned() })
    }
}

/// A repeated action is issued by a later term, perhaps; what is asked for must be the same.
fn is_same(known: &CreateRequest, asked: &CreateRequest) -> bool {
    known.spec == asked.spec && known.env == asked.env && known.service == asked.service
}

impl Host {
    /// Starts a command in a running instance and returns the pipe on which its report comes. Without an output, what it prints
    /// is part of that.
    pub(super) fn begin_exec(
        &self,
        id: InstanceId,
        argv: &[String],
        timeout: Duration,
        output: Option<OwnedFd>,
    ) -> Result<OwnedFd, String> {
        let (mut program, hostname) = {
            let registry = self.registry();
            let instance = registry.instances.get(&id).ok_or_else(|| format!("there is no instance {id}"))?;
            if instance.phase != Phase::Running {
                return Err(format!("instance {id} does not run"));
            }
            (instance.record.program()?, instance.record.hostname())
        };
        program.argv = argv.to_vec();
        let group = self.cgroups.group(id.as_str());
        let mut join = group.join_files();
        join.push(group.unified.join("cgroup.procs"));
        let timeout_ms = timeout.as_millis() as u64;
        let request = ExecRequest { program, hostname, join, timeout_ms, captures: output.is_none() };
        let said = |error: io::Error| error.to_string();
        let request = memory_file(&serde_json::to_vec(&request).map_err(|e| e.to_string())?).map_err(said)?;
        let init = open_init(&InitIdentity::read(&self.folders.instance(id)).map_err(said)?).map_err(said)?;
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| said(error.into()))?;
        // What is captured goes nowhere else; the zygote counts its descriptors.
        let output = output.as_ref().unwrap_or(&write);
        let fds = [request.as_fd(), write.as_fd(), output.as_fd(), init.as_fd()];
        self.zygote.send(Request::Exec, &fds).map_err(said)?;
        Ok(read)
    }

    /// Returns where an instance's log is, also for a while after it is gone.
    fn log_folder(&self, id: InstanceId) -> Option<PathBuf> {
        let lives = self.folders.instance(id).join(LOG_FOLDER);
        let ended = self.folders.ended.join(id.as_str());
        // The log is moved before the instance is forgotten: where it is counts, not whether the instance is known.
        if !lives.is_dir() && ended.is_dir() {
            return Some(ended);
        }
        self.registry().instances.contains_key(&id).then_some(lives)
    }
}

/// Opens an init by its identity: a pidfd names the process for good, so that it is enough to look after it was opened.
pub(super) fn open_init(identity: &InitIdentity) -> io::Result<OwnedFd> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, "the instance's init is gone");
    let pid = Pid::from_raw(identity.pid).ok_or_else(gone)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    if identity.is_alive() { Ok(pidfd) } else { Err(gone()) }
}

/// Puts bytes into anonymous memory that can be handed to another process.
pub(super) fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("kiln-request", MemfdFlags::CLOEXEC)?;
    let mut file = fs::File::from(fd);
    io::Write::write_all(&mut file, bytes)?;
    Ok(file.into())
}

struct Watch {
    host: Arc<Host>,
    cursor: Cursor,
}

impl Transitions for Watch {
    fn next(&mut self, timeout: Duration) -> Result<Option<Watched>, ProviderError> {
        let watched = self.host.feed.next(self.cursor, timeout).map_err(ProviderError::Away)?;
        if let Some(Watched::Relist { cursor } | Watched::Transition { cursor, .. }) = &watched {
            self.cursor = *cursor;
        }
        Ok(watched)
    }
}

struct HostLog {
    host: Arc<Host>,
    id: InstanceId,
    folder: PathBuf,
    log: FileLog,
    follow: bool,
}

impl LogStream for HostLog {
    fn next(&mut self, timeout: Duration) -> Result<LogNext, ProviderError> {
        let deadline = Instant::now() + timeout;
        loop {
            // Asked before the log is read: what was written before the end is then read still.
            let lives = self.host.registry().instances.contains_key(&self.id);
            if !self.folder.is_dir() {
                let Some(folder) = self.host.log_folder(self.id) else { return Ok(LogNext::End) };
                if folder != self.folder {
                    self.log.move_to(folder.clone());
                    self.folder = folder;
                }
            }
            let ended = !lives || !self.follow;
            match self.log.poll(ended) {
                Ok(Some(next)) => return Ok(next),
                Ok(None) if ended => return Ok(LogNext::End),
                Ok(None) => {}
                Err(error) => return Err(failed("read the log")(error)),
            }
            if Instant::now() >= deadline {
                return Ok(LogNext::Quiet);
            }
            thread::sleep(FOLLOW_POLL.min(timeout));
        }
    }
}
