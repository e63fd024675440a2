//! Every bound of the edge, with its reason.

use std::time::Duration;

/// A request's head, request line included. nginx allows 8 KiB for each of four buffers; applications' cookies fill them.
pub(crate) const HEAD_BYTES_MAX: usize = 32 << 10;
/// A request target. Long enough for every browser, short enough to leave most of the head to headers.
pub(crate) const TARGET_BYTES_MAX: usize = 16 << 10;
/// Header lines of a request; hyper's own table has as many places, and a hundred is far above what is honest.
pub(crate) const HEADERS_MAX: usize = 100;
/// A chunk's size line with its extensions, which nobody uses except to smuggle.
pub(crate) const CHUNK_LINE_BYTES_MAX: usize = 256;
/// The trailers of a chunked body.
pub(crate) const TRAILER_BYTES_MAX: usize = 8 << 10;
/// hyper's buffer for one connection and direction: a head must fit, and a slow reader must not hold much more.
pub(crate) const CONNECTION_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Pipelined or early bytes that are kept while a request is answered; beyond it the client waits in its socket.
pub(crate) const READ_AHEAD_BYTES_MAX: usize = 64 << 10;

/// From the first byte of a head to its last: a slow honest client needs one or two seconds, slowloris needs all it can get.
pub(crate) const HEAD_READ_MAX: Duration = Duration::from_secs(10);
/// A silent keep-alive connection of a client: nginx's default, above what browsers and load balancers keep.
pub(crate) const CLIENT_IDLE_MAX: Duration = Duration::from_secs(75);
/// From the last byte of a request to the first of its answer: nginx's `proxy_read_timeout`.
pub(crate) const FIRST_BYTE_MAX: Duration = Duration::from_secs(60);
/// A body that moves in neither direction. Server-sent events send a comment every 15 to 60 seconds.
pub(crate) const STREAM_STALL_MAX: Duration = Duration::from_secs(300);
/// A tunnel (WebSocket) without a byte; applications ping every minute or so.
pub(crate) const TUNNEL_IDLE_MAX: Duration = Duration::from_secs(3600);
/// After an answer that leaves part of a request unread, so that the client reads the answer before the reset.
pub(crate) const LINGER_MAX: Duration = Duration::from_secs(1);
/// A body that is read and thrown away so that the client sees why it was refused.
pub(crate) const LINGER_BYTES_MAX: usize = 256 << 10;
/// How often deadlines are looked at: it bounds how late one is noticed, and costs one wake-up.
pub(crate) const SWEEP_EVERY: Duration = Duration::from_millis(100);

/// A connection attempt on a bridge of the same machine takes microseconds; one lost SYN is sent again after a second.
pub(crate) const CONNECT_MAX: Duration = Duration::from_millis(1500);
/// Attempts at connecting before the client gets an answer: other backends, then the same one again.
pub(crate) const CONNECT_ATTEMPTS_MAX: u32 = 4;
/// Requests that are sent again after a pooled connection turned out to be dead; then only fresh connections are used.
pub(crate) const STALE_RETRIES_MAX: u32 = 2;
/// A body that is kept so that it can be sent again.
pub(crate) const REPLAY_BYTES_MAX: usize = 64 << 10;
/// The first time that a backend is set aside after a failed connect; it doubles up to [`ASIDE_MAX`].
pub(crate) const ASIDE_MIN: Duration = Duration::from_millis(50);
/// The longest time that a backend is set aside by the edge itself; the controller replaces what stays broken.
pub(crate) const ASIDE_MAX: Duration = Duration::from_secs(2);

/// A pooled connection to a backend that is idle for longer is closed: backends close theirs after a second at the earliest.
pub(crate) const POOL_IDLE_MAX: Duration = Duration::from_millis(500);
/// A pooled connection that carries a request which can't be sent twice must have been in use this recently.
pub(crate) const UNREPLAYABLE_IDLE_MAX: Duration = Duration::from_millis(100);
/// And it must have been silent this long: a backend that closes after an answer does so at once, and its close is here.
pub(crate) const UNREPLAYABLE_IDLE_MIN: Duration = Duration::from_millis(2);
/// Idle connections kept for each backend and worker; above it they are closed after use.
pub(crate) const POOL_IDLE_CONNECTIONS_MAX: usize = 128;

/// Client connections of one listener; more wait in the socket's backlog. Memory: about 20 KiB each under load.
pub(crate) const LISTENER_CONNECTIONS_MAX: usize = 10_000;
/// A worker hands an accepted connection over when it has this many more than the least busy one.
pub(crate) const HANDOVER_SLACK: usize = 4;
/// How long accepting pauses when the process is out of file descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Open listeners: one for each of 256 environments and as many public ones.
pub(crate) const LISTENERS_MAX: usize = 512;
/// How long letting go of a listener may take: each worker does it between two events, in microseconds unless it has no processor.
pub(crate) const UNLISTEN_MAX: Duration = Duration::from_secs(10);

/// After a stop signal clients that are using their connection get `Connection: close`; then idle ones are closed.
pub(crate) const STOP_IDLE_GRACE: Duration = Duration::from_millis(1500);
/// What is in flight this long after a stop signal is cut; the supervisor kills after 15 seconds.
pub(crate) const STOP_DRAIN_MAX: Duration = Duration::from_secs(12);

/// A control frame: a table of 10,000 services with some replicas takes about 8 MiB.
pub(crate) const FRAME_BYTES_MAX: usize = 32 << 20;
/// File descriptors in one frame; the kernel's limit (`SCM_MAX_FD`) is 253.
pub(crate) const FRAME_FDS_MAX: usize = 64;
/// Control connections: a host, a controller, some command lines.
pub(crate) const CONTROL_CONNECTIONS_MAX: usize = 32;
/// A control peer that does not read for this long is disconnected.
pub(crate) const CONTROL_WRITE_MAX: Duration = Duration::from_secs(5);
/// How long the client waits for an answer. Publishing syncs a file: seconds on a disk that is busy.
pub(crate) const CONTROL_ANSWER_MAX: Duration = Duration::from_secs(30);
/// An anchor is a position and a hash.
pub(crate) const ANCHOR_BYTES_MAX: usize = 4 << 10;

/// Copies under way to the canary of a pool; more are skipped and counted, so a canary that hangs costs no more than this.
pub(crate) const MIRRORS_MAX: usize = 64;
/// From the start of a copy to the end of its answer. Who would wait longer is not asked, and a drain waits for it.
pub(crate) const MIRROR_MAX: Duration = Duration::from_secs(10);
/// An answer to a copy that is longer is not read to its end, only its connection is closed.
pub(crate) const MIRROR_BODY_BYTES_MAX: usize = 1 << 20;

/// Synthetic requests under way to both sides of an analysis: an instance that hangs holds no more connections than this.
pub(crate) const SYNTHETICS_MAX: u64 = 64;
/// From the start of a synthetic request to its answer's head, and from there to its end. Who takes longer is a failure.
pub(crate) const SYNTHETIC_MAX: Duration = Duration::from_secs(10);

/// Slots of the ledger: one for each (environment, service, revision) that is served or still has requests in flight.
pub(crate) const LEDGER_SLOTS: usize = 1024;
/// Windows whose counts are kept: each service that is in a canary rollout has one, of 40 KiB. Those that no table names any
/// more stay until their slot is needed.
pub(crate) const SAMPLE_SLOTS: usize = 64;

/// Log lines that a worker gathers before they go to the writer.
pub(crate) const LOG_BATCH_BYTES: usize = 64 << 10;
/// Batches under way to the writer; when they are full, lines are dropped and counted.
pub(crate) const LOG_BATCHES_MAX: usize = 64;
/// The access log is moved aside at this size.
pub(crate) const LOG_FILE_BYTES_MAX: u64 = 64 << 20;
/// Old access logs that are kept.
pub(crate) const LOG_FILES_KEPT: u32 = 4;
/// A path in the access log is cut here.
pub(crate) const LOG_PATH_BYTES_MAX: usize = 1024;
