//! Netlink messages and the socket that carries them: just enough for links, addresses, routes and nftables.
//!
//! Written here rather than taken from a crate: we send nine kinds of message, some from a process that was just cloned, and the
//! kernel's format is four bytes of length, a kind, and padding to four.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with};

/// An answer is expected: the sender wants to know whether it worked.
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REQUEST: u16 = 0x1;
/// All objects rather than one.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Make it, and fail if there is one.
pub(crate) const NLM_F_CREATE_NEW: u16 = 0x600;
/// Make it unless there is one.
pub(crate) const NLM_F_CREATE: u16 = 0x400;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLA_F_NESTED: u16 = 0x8000;
const HEADER_BYTES: usize = 16;

/// The kernel fills at most this much into one datagram of a dump.
const RECEIVE_BYTES: usize = 64 << 10;

/// The kernel answers at once; an answer that it never meant to send must not stop us for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One message that is being built.
pub(crate) struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins a request of a kind with its fixed part.
    pub(crate) fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.pad();
        self
    }

    /// Adds an attribute that ends with a zero byte.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds a number in the machine's byte order.
    pub(crate) fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a number in network byte order, as nftables wants it.
    pub(crate) fn number_be(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Adds an attribute that holds attributes.
    pub(crate) fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = (filled.bytes.len() - start) as u16;
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Adds bytes without a header, as the peer of a veth wants it.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    fn pad(&mut self) {
        let padded = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(padded, 0);
    }

    fn finish(mut self, seq: u32, acknowledge: bool) -> Vec<u8> {
        let length = (self.bytes.len() as u32).to_ne_bytes();
        self.bytes[..4].copy_from_slice(&length);
        if acknowledge {
            self.bytes[6] |= NLM_F_ACK as u8;
        }
        self.bytes[8..12].copy_from_slice(&seq.to_ne_bytes());
        self.bytes
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// A netlink socket. It speaks to the network namespace in which it was opened, whoever uses it.
pub(crate) struct Socket {
    fd: OwnedFd,
    seq: u32,
}

impl Socket {
    /// Opens a socket for links, addresses and routes.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// Opens a socket for nftables.
    pub(crate) fn netfilter() -> io::Result<Self> {
        Self::open(Some(netlink::NETFILTER))
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
        Ok(Self { fd, seq: 0 })
    }

    /// Sends one request and waits for the kernel's verdict.
    pub(crate) fn execute(&mut self, message: Message) -> io::Result<()> {
        self.execute_batch(vec![message], 0..1)
    }

    /// Sends requests as one datagram, waits for the verdicts on those in `answered`, and returns the first refusal.
    pub(crate) fn execute_batch(&mut self, messages: Vec<Message>, answered: Range<usize>) -> io::Result<()> {
        let mut waiting = answered.len();
        let first = self.send(messages, answered.clone())?;
        let expected = first + answered.start as u32..first + answered.end as u32;
        let mut result = Ok(());
        while waiting > 0 {
            for (header, body) in self.receive()? {
                if header.kind != NLMSG_ERROR || header.seq < first {
                    continue;
                }
                result = result.and(verdict(&body));
                // A batch that is refused as a whole is answered once, in the name of its first message.
                if !expected.contains(&header.seq) {
                    return result;
                }
                waiting -= 1;
            }
        }
        result
    }

    /// Sends one request for all objects of a kind, and hands each answer's body to `take`.
    pub(crate) fn dump(&mut self, message: Message, take: &mut dyn FnMut(&[u8])) -> io::Result<()> {
        let seq = self.send(vec![message], 0..0)?;
        loop {
            for (header, body) in self.receive()? {
                match header.kind {
                    _ if header.seq != seq => {}
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return verdict(&body),
                    _ => take(&body),
                }
            }
        }
    }

    fn send(&mut self, messages: Vec<Message>, answered: Range<usize>) -> io::Result<u32> {
        let first = self.seq + 1;
        let mut datagram = Vec::new();
        for (index, message) in messages.into_iter().enumerate() {
            self.seq += 1;
            datagram.extend(message.finish(self.seq, answered.contains(&index)));
        }
        sendto(&self.fd, &datagram, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(first)
    }

    fn receive(&self) -> io::Result<Vec<(Header, Vec<u8>)>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        let (count, _) = recv(&self.fd, &mut buffer[..], RecvFlags::empty())?;
        let mut rest = &buffer[..count];
        let mut messages = Vec::new();
        while let Some((header, body)) = split_message(&mut rest) {
            messages.push((header, body.to_vec()));
        }
        Ok(messages)
    }
}

struct Header {
    kind: u16,
    seq: u32,
}

fn split_message<'a>(rest: &mut &'a [u8]) -> Option<(Header, &'a [u8])> {
    let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    let message = rest.get(..length)?;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let seq = u32::from_ne_bytes(message.get(8..12)?.try_into().ok()?);
    *rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((Header { kind, seq }, message.get(HEADER_BYTES..)?))
}

fn verdict(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}

/// Walks the attributes of an answer.
pub(crate) fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

/// Returns the text of an attribute without its zero byte.
pub(crate) fn text_of(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nested_message_has_the_lengths_and_padding_that_the_kernel_wants() {
        let bytes =
            Message::new(16, NLM_F_CREATE, &[]).text(3, "ab").nest(18, |m| m.number(1, 7)).finish(5, true);
        assert_eq!(bytes.len(), 16 + 8 + 12);
        assert_eq!(bytes[..4], 36u32.to_ne_bytes());
        let seen: Vec<_> = attributes(&bytes[16..]).collect();
        assert_eq!(seen[0], (3, &b"ab\0"[..]));
        assert_eq!(seen[1].0, 18);
        assert_eq!(attributes(seen[1].1).collect::<Vec<_>>(), [(1, &7u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn a_torn_answer_ends_the_walk() {
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert!(split_message(&mut &[40u8, 0, 0, 0][..]).is_none());
    }
}
