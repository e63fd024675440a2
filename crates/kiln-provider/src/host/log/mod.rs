//! What instances write: from two fifos per instance into bounded segment files, and back out.
//!
//! A fifo lies in the instance's folder, so that a new host process opens it again and goes on where the last one was killed;
//! meanwhile the init holds it open. What is read is written at once, also the beginning of a line whose end is not there yet: nothing
//! that was read waits in memory, and nothing leaves a fifo before it is in a segment (see `pending`).

mod collect;
mod pending;
mod read;
mod segment;

pub(crate) use collect::Collector;
pub(crate) use read::FileLog;
pub(crate) use segment::SegmentWriter;

/// The fifos of an instance, by stream.
pub(crate) const FIFOS: [&str; 2] = ["stdout", "stderr"];
/// What an init kept of each because there was no host to read it.
pub(crate) const LEFT_OVER: [&str; 2] = ["stdout.left", "stderr.left"];
/// Locked by the host as long as it reads the fifos.
pub(crate) const READER_LOCK: &str = "reader.lock";
/// The folder of the segments, in the instance's folder.
pub(crate) const LOG_FOLDER: &str = "log";
