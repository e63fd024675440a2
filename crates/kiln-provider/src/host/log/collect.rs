//! One thread that reads the fifos of all instances.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kiln_model::InstanceId;
use rustix::event::epoll;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};

use super::pending::{Moving, Notes, hash};
use super::{FIFOS, LEFT_OVER, LOG_FOLDER, READER_LOCK, SegmentWriter};
use crate::port::Stream;

/// A pipe holds 64 KiB unless somebody changes it.
const READ_BYTES: usize = 64 << 10;
/// How many fifos are told about at once; the rest follow at once.
const EVENTS_MAX: usize = 64;
const STREAMS: [Stream; 2] = [Stream::Out, Stream::Err];
/// The token of the wake-up; fifos count from 0.
const WAKE: u64 = u64::MAX;

/// Reads every instance's fifos into its segments.
#[derive(Debug)]
pub(crate) struct Collector {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    stopped: AtomicBool,
    sources: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    next: u64,
    by_token: BTreeMap<u64, (InstanceId, usize)>,
    by_id: BTreeMap<InstanceId, Source>,
}

#[derive(Debug)]
struct Source {
    fifos: [OwnedFd; 2],
    tokens: [u64; 2],
    writer: SegmentWriter,
    notes: Notes,
    /// Held for the init to see that somebody reads.
    _lock: File,
}

impl Collector {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let shared =
            Arc::new(Shared { epoll, wake, stopped: AtomicBool::new(false), sources: Mutex::default() });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name("kiln-logs".into()).spawn(move || shared.run())?
        };
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Makes an instance's fifos and the file that is locked while they are read.
    pub(crate) fn make_fifos(folder: &Path) -> io::Result<()> {
        for name in FIFOS {
            let path = folder.join(name);
            match rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                Mode::from(0o600),
                0,
            ) {
                Err(rustix::io::Errno::EXIST) => {}
                other => other?,
            }
        }
        File::create(folder.join(READER_LOCK)).map(drop)
    }

    /// Whether an instance's fifos were made to the last: what is locked is made after them.
    pub(crate) fn has_fifos(folder: &Path) -> bool {
        folder.join(READER_LOCK).exists()
    }

    /// Reads an instance's fifos from now on, after what an init kept while there was no host.
    pub(crate) fn add(&self, id: InstanceId, folder: &Path) -> io::Result<()> {
        let lock = File::open(folder.join(READER_LOCK))?;
        // Shared: the init tries for it alone, and gets it only if nobody reads.
        flock(&lock, FlockOperation::NonBlockingLockShared)?;
        let writer = SegmentWriter::open(&folder.join(LOG_FOLDER))?;
        let open = |name| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            rustix::fs::open(folder.join(name), flags, Mode::empty())
        };
        let fifos = [open(FIFOS[0])?, open(FIFOS[1])?];
        let notes = Notes::open(folder)?;
        let mut source = Source { fifos, tokens: [0; 2], writer, notes, _lock: lock };
        source.recover(folder)?;
        let mut sources = self.shared.sources();
        let tokens = [sources.next, sources.next + 1];
        sources.next += 2;
        for (index, token) in tokens.into_iter().enumerate() {
            sources.by_token.insert(token, (id, index));
            let data = epoll::EventData::new_u64(token);
            epoll::add(&self.shared.epoll, &source.fifos[index], data, epoll::EventFlags::IN)?;
        }
        source.tokens = tokens;
        if let Some(old) = sources.by_id.insert(id, source) {
            for token in old.tokens {
                sources.by_token.remove(&token);
            }
        }
        Ok(())
    }

    /// Reads what is left of an instance whose processes are gone, and stops reading it.
    pub(crate) fn finish(&self, id: InstanceId) {
        let mut sources = self.shared.sources();
        for index in 0..2 {
            while sources.read(id, index) == Progress::More {}
        }
        if let Some(source) = sources.by_id.remove(&id) {
            for token in source.tokens {
                sources.by_token.remove(&token);
            }
        }
    }

    /// Stops the thread. What is in the fifos stays there.
    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = rustix::io::write(&self.shared.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
        self.shared.sources().by_id.clear();
    }
}

impl Shared {
    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_MAX];
        while !self.stopped.load(Ordering::SeqCst) {
            let Ok((ready, _)) = epoll::wait(&self.epoll, &mut events, None) else { continue };
            let tokens: Vec<u64> = ready.iter().map(|event| event.data.u64()).collect();
            let mut sources = self.sources();
            for token in tokens {
                let Some((id, index)) = sources.by_token.get(&token).copied() else { continue };
                if sources.read(id, index) == Progress::Closed {
                    // Every writer is gone: it would be told about for ever.
                    if let Some(source) = sources.by_id.get(&id) {
                        let _ = epoll::delete(&self.epoll, source.fifos[index].as_fd());
                    }
                }
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    More,
    Empty,
    Closed,
}

impl Sources {
    fn read(&mut self, id: InstanceId, index: usize) -> Progress {
        self.by_id.get_mut(&id).map_or(Progress::Closed, |source| source.read(index))
    }
}

impl Source {
    /// Moves a batch from a fifo to the segment. Whenever this process is killed, the next one finds out how far it was.
    fn read(&mut self, index: usize) -> Progress {
        let bytes = match peek(&self.fifos[index]) {
            Ok(bytes) if bytes.is_empty() => return Progress::Closed,
            Ok(bytes) => bytes,
            Err(_) => return Progress::Empty,
        };
        let text = self.writer.encode(STREAMS[index], &bytes);
        let (segment, before) = self.writer.place_for(text.len());
        let after = before + text.len() as u64;
        let moving = Moving { length: bytes.len() as u64, hash: hash(&bytes), segment, before, after };
        // A note that can't be written, on a full disk, costs exactness at a SIGKILL; the application must not wait for it.
        let _ = self.notes.note(index, moving);
        self.writer.write_batch(&text, bytes.len());
        consume(&self.fifos[index], bytes.len());
        let _ = self.notes.clear(index);
        Progress::More
    }

    /// Finishes what the last host was moving, and takes in what an init kept while there was none.
    fn recover(&mut self, folder: &Path) -> io::Result<()> {
        for (index, name) in LEFT_OVER.into_iter().enumerate() {
            let path = folder.join(name);
            let mut left = fs::read(&path).ok();
            if let Some(moving) = self.notes.read(index) {
                self.finish_moving(index, moving, left.as_mut())?;
                self.notes.clear(index)?;
            }
            self.writer.mend()?;
            if let Some(bytes) = left {
                let text = self.writer.encode(STREAMS[index], &bytes);
                self.writer.write_batch(&text, bytes.len());
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn finish_moving(&mut self, index: usize, moving: Moving, left: Option<&mut Vec<u8>>) -> io::Result<()> {
        if self.writer.end() != (moving.segment, moving.after) {
            // It was not written, or in part: then it was not taken out of the fifo.
            return self.writer.take_back(moving.segment, moving.before);
        }
        let length = moving.length as usize;
        let is_it = |bytes: &[u8]| bytes.get(..length).is_some_and(|head| hash(head) == moving.hash);
        match left {
            Some(left) if is_it(left) => _ = left.drain(..length),
            Some(_) => {}
            None if peek(&self.fifos[index]).is_ok_and(|bytes| is_it(&bytes)) => {
                consume(&self.fifos[index], length);
            }
            None => {}
        }
        Ok(())
    }
}

/// Returns what is in a fifo and leaves it there; nothing if every writer is gone.
fn peek(fifo: &OwnedFd) -> Result<Vec<u8>, Errno> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let count = tee(fifo, &write, READ_BYTES, SpliceFlags::NONBLOCK)?;
    drop(write);
    let mut bytes = vec![0; count];
    let mut filled = 0;
    while filled < count {
        match rustix::io::read(&read, &mut bytes[filled..])? {
            0 => return Err(Errno::IO),
            more => filled += more,
        }
    }
    Ok(bytes)
}

/// Takes out of a fifo what was seen in it.
fn consume(fifo: &OwnedFd, mut count: usize) {
    let mut buffer = [0; READ_BYTES];
    while count > 0 {
        let most = count.min(READ_BYTES);
        match rustix::io::read(fifo, &mut buffer[..most]) {
            Ok(0) | Err(_) => return,
            Ok(taken) => count -= taken,
        }
    }
}
