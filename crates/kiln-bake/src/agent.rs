//! The SSH agent of whoever bakes, for commands that may use it: through a door of our own, by which keys are used and not changed.
//!
//! Source: draft-ietf-sshm-ssh-agent, sections 3 and 5: each message is its length in four bytes, its kind in one, and its content.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{AtFlags, Gid, Mode, Uid, chmodat, chownat};

/// The socket's name in its memory.
pub(crate) const SOCKET: &str = "agent";

/// Commands ask one after the other, or a few at a time.
const CONNECTIONS_MAX: usize = 16;

/// The longest message that OpenSSH's own agent takes.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// An agent may ask a person, who has to find a token first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What a command may ask for: which keys there are, and a signature by one. It may not add, remove or lock any.
const ALLOWED: [u8; 2] = [11, 13];

/// `SSH_AGENT_FAILURE`.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// An open door; closed with the value.
#[derive(Debug)]
pub(crate) struct Door {
    memory: OwnedFd,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    /// Opens a door to an agent in empty memory, which is attached nowhere: [`SOCKET`] in it.
    pub(crate) fn open(agent: &Path, memory: OwnedFd, (mode, uid, gid): (u32, u32, u32)) -> io::Result<Self> {
        let listener = UnixListener::bind(at(&memory))?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        chownat(&memory, SOCKET, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
        chmodat(&memory, SOCKET, Mode::from_raw_mode(mode), AtFlags::empty())?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (over, agent) = (is_over.clone(), agent.to_owned());
        let thread = std::thread::spawn(move || listen(&listener, &agent, &over));
        Ok(Self { memory, is_over, thread: Some(thread) })
    }

    /// Returns the memory that the socket is in.
    pub(crate) fn memory(&self) -> &OwnedFd {
        &self.memory
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // It waits for somebody to come.
        if UnixStream::connect(at(&self.memory)).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The path of the socket for this process: its memory has none.
fn at(memory: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}/{SOCKET}", memory.as_raw_fd()).into()
}

fn listen(listener: &UnixListener, agent: &Path, is_over: &AtomicBool) {
    let count = Arc::new(AtomicUsize::new(0));
    for client in listener.incoming() {
        if is_over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        if count.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            count.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (agent, count) = (agent.to_owned(), count.clone());
        // It ends with the connection, which ends with the command.
        std::thread::spawn(move || {
            let _ = serve(client, &agent);
            count.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Passes on what is allowed until one of the two leaves.
fn serve(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    let mut agent = UnixStream::connect(agent)?;
    agent.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    agent.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    loop {
        let question = message(&mut client)?;
        if question.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
            agent.write_all(&question)?;
            client.write_all(&message(&mut agent)?)?;
        } else {
            client.write_all(&FAILURE)?;
        }
    }
}

/// Reads one message, its length included.
fn message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes(head) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut message = vec![0; 4 + length];
    message[..4].copy_from_slice(&head);
    stream.read_exact(&mut message[4..])?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::tmpfs;

    fn framed(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes()[..], body].concat()
    }

    /// An agent that answers what it is asked with the question, under another kind.
    fn echo(path: PathBuf) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                while let Ok(mut question) = message(&mut stream) {
                    question[4] = 12;
                    stream.write_all(&question).unwrap();
                }
            }
        });
    }

    #[test]
    fn keys_are_listed_and_used_and_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        let agent = folder.path().join("agent");
        echo(agent.clone());
        let door = Door::open(&agent, tmpfs(0).unwrap(), (0o600, 7, 8)).unwrap();
        let found = std::fs::metadata(at(&door.memory)).unwrap();
        let of = |meta: &std::fs::Metadata| {
            use std::os::unix::fs::MetadataExt;
            (meta.mode() & 0o777, meta.uid(), meta.gid())
        };
        assert_eq!(of(&found), (0o600, 7, 8));
        let mut client = UnixStream::connect(at(&door.memory)).unwrap();
        for (question, answer) in [
            (&[11][..], framed(&[12])),
            (&[13, 1, 2, 3], framed(&[12, 1, 2, 3])),
            // Remove all, add one, lock, extend; and nothing at all.
            (&[19], FAILURE.to_vec()),
            (&[17, 9], FAILURE.to_vec()),
            (&[22, 9], FAILURE.to_vec()),
            (&[27, 9], FAILURE.to_vec()),
            (&[], FAILURE.to_vec()),
        ] {
            client.write_all(&framed(question)).unwrap();
            assert_eq!(message(&mut client).unwrap(), answer, "{question:?}");
        }
        // Whoever says that more comes than may is left.
        client.write_all(&u32::MAX.to_be_bytes()).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        drop(door);
    }
}
