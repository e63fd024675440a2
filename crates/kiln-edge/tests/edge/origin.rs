//! A backend whose every connection is handled by a function of the test.

use std::collections::HashMap;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketType};

use crate::http::{Head, read_body, read_head};

/// What a handler gets.
pub(crate) struct Accepted {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Accepted {
    pub(crate) fn head(&mut self) -> Option<Head> {
        read_head(&mut self.stream).ok().flatten()
    }

    pub(crate) fn body(&mut self, head: &Head) -> Vec<u8> {
        read_body(head, false, &mut self.stream).unwrap_or_default()
    }

    pub(crate) fn send(&mut self, text: &str) {
        // The other side may be gone: that is what some tests are about.
        let _ = self.stream.get_mut().write_all(text.as_bytes());
    }

    pub(crate) fn answer(&mut self, body: &str) {
        self.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    }

    /// Waits until the other side closes.
    pub(crate) fn wait_for_end(&mut self) {
        let _ = self.stream.read_to_end(&mut Vec::new());
    }
}

pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    open: Arc<Mutex<HashMap<usize, TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    pub(crate) fn start(handle: impl Fn(Accepted) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let stopping = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(HashMap::new()));
        let handle = Arc::new(handle);
        let (counted, stop, kept) = (Arc::clone(&connections), Arc::clone(&stopping), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = stream.set_nodelay(true);
                let number = counted.fetch_add(1, Ordering::SeqCst);
                kept.lock().unwrap().insert(number, stream.try_clone().unwrap());
                let (handle, kept) = (Arc::clone(&handle), Arc::clone(&kept));
                std::thread::spawn(move || {
                    handle(Accepted { stream: BufReader::new(stream) });
                    if let Some(stream) = kept.lock().unwrap().remove(&number) {
                        let _ = stream.shutdown(Shutdown::Both);
                    }
                });
            }
        });
        Self { address, connections, stopping, open, thread: Some(thread) }
    }

    /// Answers every request with its name, keeps connections for `idle_max`.
    pub(crate) fn polite(name: &'static str, idle_max: Duration) -> Self {
        Self::start(move |mut connection| {
            connection.stream.get_ref().set_read_timeout(Some(idle_max)).unwrap();
            while let Some(head) = connection.head() {
                let body = connection.body(&head);
                if head.first_line.contains("/stream") {
                    stream_slowly(&mut connection);
                } else {
                    connection.answer(&format!("{name} {}", String::from_utf8_lossy(&body)));
                }
            }
        })
    }

    /// Sends back each request's head as the body of its answer.
    pub(crate) fn echo() -> Self {
        Self::start(|mut connection| {
            while let Some(head) = connection.head() {
                connection.body(&head);
                let mut lines = vec![head.first_line.clone()];
                lines.extend(head.headers.iter().map(|(name, value)| format!("{name}: {value}")));
                connection.answer(&lines.join("\n"));
            }
        })
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// An address that refuses connections, and is nobody else's meanwhile: a port that was merely free may be taken by another
/// test.
pub(crate) struct Refusing {
    socket: OwnedFd,
    pub(crate) address: SocketAddr,
}

impl Refusing {
    pub(crate) fn new() -> Self {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = net::getsockname(&socket).unwrap().try_into().unwrap();
        Self { socket, address }
    }

    /// Refuses no longer.
    pub(crate) fn listen(self) -> TcpListener {
        net::listen(&self.socket, 128).unwrap();
        TcpListener::from(self.socket)
    }
}

/// Two seconds of chunks.
fn stream_slowly(connection: &mut Accepted) {
    connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(100));
        connection.send("5\r\npiece\r\n");
    }
    connection.send("0\r\n\r\n");
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        for (_, stream) in self.open.lock().unwrap().drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
