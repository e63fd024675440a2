//! The client's socket as hyper sees it: only whole, sound heads and well-framed bodies get through.
//!
//! The guard follows the bytes from message to message with readers of its own ([`crate::head`], [`crate::chunk`]). A
//! request that breaks a rule is replaced by one that the service answers with the refusal; nothing after it is read.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::chunk::ChunkScanner;
use crate::head::{Framing, Head, HeadScanner, Refusal};
use crate::limits::{LINGER_BYTES_MAX, READ_AHEAD_BYTES_MAX};
use crate::link::{Link, Stage, Switch};

/// The method of the request that stands in for a refused one. A client that sends it gets a refusal, too.
pub(crate) const REFUSED_METHOD: &str = "KILN-REFUSED";
const REFUSED_REQUEST: &[u8] = b"KILN-REFUSED / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// One read: a request with its body mostly, or as much of a stream as a socket tends to hold.
const SCRATCH_BYTES: usize = 32 << 10;

thread_local! {
    /// Shared by all connections of a worker, so that an idle one owns no buffer.
    static SCRATCH: RefCell<Box<[u8; SCRATCH_BYTES]>> = RefCell::new(Box::new([0; SCRATCH_BYTES]));
}

/// A client's socket.
pub(crate) struct Guard {
    stream: TcpStream,
    link: Arc<Link>,
    state: State,
    /// Read from the socket and not given to hyper.
    pending: Vec<u8>,
    given: usize,
    ended: bool,
    /// After the write side was shut down: the bytes thrown away since.
    lingering: Option<usize>,
}

enum State {
    /// Before or inside a head.
    Head(HeadScanner),
    /// A sound head of which so many bytes are still to be given.
    Deliver {
        left: usize,
        head: Head,
    },
    Length {
        left: u64,
        upgrade: bool,
    },
    Chunked {
        scanner: ChunkScanner,
        upgrade: bool,
    },
    /// A request for another protocol: what follows depends on the answer.
    Undecided,
    Tunnel,
    /// A body that breaks the rules: an error once what was sound before it is read.
    Broken(Refusal),
    /// The stand-in request, of which so many bytes were given.
    Refused {
        given: usize,
    },
}

/// What to do with the bytes at hand.
enum Step {
    /// Give so many of them to hyper.
    Take(usize),
    /// The state has changed: look again.
    Again,
    /// More bytes, or a decision, are needed.
    Wait,
}

impl Guard {
    pub(crate) fn new(stream: TcpStream, link: Arc<Link>) -> Self {
        Self {
            stream,
            link,
            state: State::Head(HeadScanner::default()),
            pending: Vec::new(),
            given: 0,
            ended: false,
            lingering: None,
        }
    }

    fn step(&mut self, rest: &[u8], room: usize) -> Step {
        let next = match &mut self.state {
            State::Head(_) if rest.is_empty() => return Step::Wait,
            State::Head(scanner) => match scanner.advance(rest) {
                Ok(None) => return Step::Wait,
                Ok(Some(head)) => {
                    if head.upgrade {
                        self.link.forget_switch();
                    }
                    State::Deliver { left: head.len, head }
                }
                Err(refusal) => {
                    self.link.refuse(refusal);
                    State::Refused { given: 0 }
                }
            },
            State::Deliver { left: 0, head } => after_head(*head),
            State::Length { left: 0, upgrade } => after_body(*upgrade),
            State::Chunked { scanner, upgrade } if scanner.is_complete() => after_body(*upgrade),
            State::Deliver { left, .. } => {
                let take = (*left).min(rest.len()).min(room);
                *left -= take;
                return Step::Take(take);
            }
            State::Length { left, .. } => {
                let take = (*left).min(rest.len().min(room) as u64);
                *left -= take;
                return Step::Take(take as usize);
            }
            State::Chunked { scanner, .. } => match scanner.advance(&rest[..rest.len().min(room)]) {
                Ok(taken) => return Step::Take(taken),
                Err(refusal) => {
                    self.link.refuse(refusal);
                    State::Broken(refusal)
                }
            },
            State::Tunnel => return Step::Take(rest.len().min(room)),
            State::Undecided => match self.link.switch() {
                Switch::Undecided => return Step::Wait,
                Switch::Accepted => State::Tunnel,
                Switch::Declined => State::Head(HeadScanner::default()),
            },
            State::Refused { .. } | State::Broken(_) => return Step::Wait,
        };
        self.state = next;
        Step::Again
    }

    /// Moves what may pass from `input` to `out`; returns how many bytes of `input` are done with.
    fn pass(&mut self, input: &[u8], out: &mut ReadBuf<'_>) -> usize {
        let mut done = 0;
        loop {
            match self.step(&input[done..], out.remaining()) {
                Step::Again => {}
                Step::Wait | Step::Take(0) => return done,
                Step::Take(taken) => {
                    out.put_slice(&input[done..done + taken]);
                    done += taken;
                }
            }
        }
    }

    fn pass_pending(&mut self, out: &mut ReadBuf<'_>) {
        let pending = std::mem::take(&mut self.pending);
        self.given += self.pass(&pending[self.given..], out);
        self.pending = pending;
        if self.given == self.pending.len() {
            (self.pending, self.given) = (Vec::new(), 0);
        }
    }

    /// Reads once from the socket; false at its end.
    fn poll_socket(&mut self, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        SCRATCH.with_borrow_mut(|scratch| {
            // Inside a body no more is read than fits, so that nothing of it is copied twice.
            let whole = matches!(self.state, State::Head(_) | State::Undecided);
            let bytes = if whole { SCRATCH_BYTES } else { out.remaining().clamp(1, SCRATCH_BYTES) };
            let mut read = ReadBuf::new(&mut scratch[..bytes]);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            let input = read.filled();
            if input.is_empty() {
                return Poll::Ready(Ok(false));
            }
            self.link.moved();
            if self.pending.is_empty() {
                let done = self.pass(input, out);
                self.pending.extend_from_slice(&input[done..]);
            } else {
                self.pending.drain(..self.given);
                self.given = 0;
                self.pending.extend_from_slice(input);
                self.pass_pending(out);
            }
            Poll::Ready(Ok(true))
        })
    }

    /// Nothing can be read now. Returns whether the connection's time is over; a head that takes too long becomes a refusal.
    fn wait(&mut self) -> bool {
        let in_head = matches!(self.state, State::Head(_)) && !self.pending.is_empty();
        if !in_head {
            // Also inside a body that was answered before its end, and of which nothing more comes.
            return self.link.has_expired(Stage::Idle);
        }
        if self.link.stage() == Stage::Idle {
            self.link.enter(Stage::Head);
        }
        if self.link.has_expired(Stage::Head) {
            self.link.refuse(Refusal::HeadTimeout);
            self.state = State::Refused { given: 0 };
        }
        false
    }

    /// Whether the client's last request was read to its end.
    fn is_between_messages(&self) -> bool {
        match self.state {
            State::Head(_) => self.pending.is_empty(),
            State::Tunnel => true,
            _ => false,
        }
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>, mut discarded: usize) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            while discarded < LINGER_BYTES_MAX && !self.link.has_expired(Stage::Linger) {
                let mut read = ReadBuf::new(&mut scratch[..]);
                match Pin::new(&mut self.stream).poll_read(cx, &mut read) {
                    Poll::Ready(Ok(())) if !read.filled().is_empty() => discarded += read.filled().len(),
                    Poll::Ready(_) => return Poll::Ready(Ok(())),
                    Poll::Pending => {
                        self.lingering = Some(discarded);
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
    }

    fn moved(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(_)) => self.link.moved(),
            Poll::Pending if self.link.has_expired(Stage::Streaming) => {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")));
            }
            _ => {}
        }
        written
    }
}

fn after_head(head: Head) -> State {
    match head.framing {
        Framing::Length(left) => State::Length { left, upgrade: head.upgrade },
        Framing::Chunked => State::Chunked { scanner: ChunkScanner::new(), upgrade: head.upgrade },
    }
}

fn after_body(upgrade: bool) -> State {
    if upgrade { State::Undecided } else { State::Head(HeadScanner::default()) }
}

impl AsyncRead for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        loop {
            if let State::Refused { given } = &mut self.state {
                let piece = &REFUSED_REQUEST[*given..];
                let piece = &piece[..piece.len().min(out.remaining())];
                *given += piece.len();
                out.put_slice(piece);
                // After it nothing comes: its answer closes the connection.
                return if piece.is_empty() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            if !self.pending.is_empty() {
                self.pass_pending(out);
            }
            if out.filled().len() != before || self.ended {
                return Poll::Ready(Ok(()));
            }
            match self.state {
                State::Refused { .. } => continue,
                State::Broken(refusal) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, refusal.text())));
                }
                _ => {}
            }
            if self.pending.len() - self.given >= READ_AHEAD_BYTES_MAX {
                return Poll::Pending;
            }
            match self.poll_socket(cx, out)? {
                Poll::Ready(more) => self.ended = !more,
                Poll::Pending => {
                    let over = self.wait();
                    if over {
                        self.ended = true;
                    } else if !matches!(self.state, State::Refused { .. }) {
                        return Poll::Pending;
                    }
                }
            }
            if out.filled().len() != before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.moved(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.moved(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush; hyper gets here when it has handed over all that it had.
        self.link.written();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let discarded = match self.lingering {
            Some(discarded) => discarded,
            None => {
                ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
                if self.ended || self.is_between_messages() {
                    return Poll::Ready(Ok(()));
                }
                self.link.enter(Stage::Linger);
                0
            }
        };
        // Closing with unread bytes resets the connection, and the reset overtakes the answer.
        self.poll_linger(cx, discarded)
    }
}
