//! Frames of the control socket: a length of 4 bytes (little-endian), then JSON; file descriptors travel with the first byte.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::limits::{FRAME_BYTES_MAX, FRAME_FDS_MAX};

/// Bytes that are read at a time, so that a length which is only claimed allocates nothing.
const PIECE_BYTES: usize = 64 << 10;

/// Writes one frame.
///
/// # Errors
/// `InvalidInput`: the frame or its file descriptors are beyond the bounds. Others: the connection is unusable.
pub(crate) fn write(stream: &UnixStream, payload: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if payload.len() > FRAME_BYTES_MAX || fds.len() > FRAME_FDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the frame is too large"));
    }
    let length = (payload.len() as u32).to_le_bytes();
    let mut parts = [length.as_slice(), payload];
    let mut fds = fds;
    while parts.iter().any(|part| !part.is_empty()) {
        let sent = send(stream, &parts, fds)?;
        // The kernel hands them over with the first byte.
        fds = &[];
        let head = sent.min(parts[0].len());
        parts[0] = &parts[0][head..];
        parts[1] = &parts[1][sent - head..];
    }
    Ok(())
}

fn send(stream: &UnixStream, parts: &[&[u8]; 2], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let slices = [IoSlice::new(parts[0]), IoSlice::new(parts[1])];
    loop {
        match sendmsg(stream.as_fd(), &slices, &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Reads one frame; nothing when the peer closed the connection between two frames.
///
/// # Errors
/// `InvalidData`: the peer breaks the format. `UnexpectedEof`: it went away in the middle of a frame.
pub(crate) fn read(stream: &UnixStream) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut fds = Vec::new();
    let mut length = [0; 4];
    if !fill(stream, &mut length, &mut fds, true)? {
        return Ok(None);
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too large"));
    }
    let mut payload = Vec::new();
    while payload.len() < length {
        let from = payload.len();
        payload.resize(length.min(from + PIECE_BYTES), 0);
        fill(stream, &mut payload[from..], &mut fds, false)?;
    }
    Ok(Some((payload, fds)))
}

/// Fills `target`; false if the peer closed before the first byte and `may_end` allows that.
fn fill(stream: &UnixStream, target: &mut [u8], fds: &mut Vec<OwnedFd>, may_end: bool) -> io::Result<bool> {
    let mut filled = 0;
    while filled < target.len() {
        match receive(stream, &mut target[filled..], fds)? {
            0 if filled == 0 && may_end => return Ok(false),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => filled += bytes,
        }
    }
    Ok(true)
}

fn receive(stream: &UnixStream, target: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let slice = &mut [IoSliceMut::new(target)];
    let received = loop {
        match recvmsg(stream.as_fd(), slice, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            result => break result?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    if received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > FRAME_FDS_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too many file descriptors in a frame"));
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_frame_carries_its_file_descriptors() {
        let (here, there) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"inside").unwrap();
        file.rewind().unwrap();
        let large = vec![b'x'; 300_000];
        let writer = std::thread::spawn(move || {
            write(&here, b"{}", &[file.as_fd()]).unwrap();
            write(&here, &large, &[]).unwrap();
        });
        let (payload, fds) = read(&there).unwrap().unwrap();
        assert_eq!((payload.as_slice(), fds.len()), (b"{}".as_slice(), 1));
        let mut text = String::new();
        File::from(fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "inside");
        assert_eq!(read(&there).unwrap().unwrap().0.len(), 300_000);
        writer.join().unwrap();
        assert!(read(&there).unwrap().is_none());
    }

    #[test]
    fn a_claimed_length_beyond_the_bound_is_refused_at_once() {
        let (mut here, there) = UnixStream::pair().unwrap();
        here.write_all(&(FRAME_BYTES_MAX as u32 + 1).to_le_bytes()).unwrap();
        assert_eq!(read(&there).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_frame_that_is_cut_is_an_error_and_not_an_end() {
        for bytes in [b"\x05\0".as_slice(), b"\x05\0\0\0ab"] {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(bytes).unwrap();
            drop(here);
            assert_eq!(read(&there).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let (mut here, there) = UnixStream::pair().unwrap();
            here.write_all(&bytes).unwrap();
            drop(here);
            while let Ok(Some(_)) = read(&there) {}
        }
    }
}
