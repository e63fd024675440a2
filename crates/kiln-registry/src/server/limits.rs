//! Every bound of the server, with its reason.

use std::time::Duration;

/// Connections at once; the next wait in the kernel's queue. Each may hold two pieces, so this bounds the memory.
pub(crate) const CONNECTIONS_MAX: usize = 256;

/// What is read or written at once: long enough that switching threads costs nothing beside it.
pub(crate) const PIECE_BYTES: usize = 256 << 10;

/// What hyper may buffer of a connection; also the longest head of a request.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// How long a request's head may take; also how long an idle connection is kept.
pub(crate) const HEAD_WITHIN: Duration = Duration::from_secs(60);

/// How long a client may send nothing of a body, or take nothing of an answer: a line that fails for longer is down.
pub(crate) const STALL_MAX: Duration = Duration::from_secs(60);

/// How long a TLS handshake may take: a few round trips.
pub(crate) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// How long a request waits for another one on the same upload: one whose connection broke is noticed in that time.
pub(crate) const TURN_WITHIN: Duration = Duration::from_secs(10);

/// Uploads at once, idle ones included. A pushing client has about five.
pub(crate) const UPLOADS_MAX: usize = 1000;

/// What nobody went on with for a day is not gone on with.
pub(crate) const UPLOAD_AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// How often it is looked for such uploads.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);

/// Manifests that are held in memory at once, of 4 MiB each.
pub(crate) const MANIFESTS_AT_ONCE: usize = 8;

/// Tags or repositories in one answer, asked for or not: 128 KB of the longest tags, and no client asks for more.
pub(crate) const LIST_MAX: usize = 1000;

/// Descriptors that are looked at for one answer.
pub(crate) const REFERRERS_MAX: usize = 1000;

/// What is still read of a body that was refused, so that the client reads the answer instead of a reset.
pub(crate) const DRAIN_BYTES_MAX: u64 = 16 << 20;

/// How long that may take.
pub(crate) const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// How long requests may go on once the process was asked to end. What is cut can be resumed.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(10);

/// After a failure to accept, which is for want of descriptors: others end meanwhile.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Threads for files. More would not make a disk faster.
pub(crate) const FILE_THREADS_MAX: usize = 32;

/// Passwords that are checked at once: each takes a core for a tenth of a second.
pub(crate) const PASSWORDS_AT_ONCE: usize = 2;

/// A file of users; a thousand of them have 70 KB.
pub(crate) const HTPASSWD_BYTES_MAX: u64 = 1 << 20;

/// A certificate chain or a key; real ones have some 4 KB.
pub(crate) const PEM_BYTES_MAX: u64 = 1 << 20;
