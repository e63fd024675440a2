//! A small blocking HTTP/1.1 reader and client that hides nothing.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A head as it stands in the bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Head {
    pub(crate) first_line: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn status(&self) -> u16 {
        self.first_line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn is_chunked(&self) -> bool {
        self.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    }

    pub(crate) fn length(&self) -> Option<usize> {
        self.header("content-length").map(|value| value.parse().unwrap())
    }
}

/// Reads a head; nothing at the end of the stream.
pub(crate) fn read_head(stream: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut head = Head::default();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return if head.first_line.is_empty() {
                Ok(None)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        let line = line.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Ok(Some(head));
        }
        if head.first_line.is_empty() {
            head.first_line = line.to_owned();
        } else {
            let (name, value) = line.split_once(':').unwrap();
            head.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }
}

/// Reads one chunk; the last one is empty, and its trailers follow.
pub(crate) fn read_chunk(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let size = usize::from_str_radix(line.trim_end(), 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    let mut data = vec![0; size];
    stream.read_exact(&mut data)?;
    if size > 0 {
        stream.read_exact(&mut [0; 2])?;
    }
    Ok(data)
}

/// Reads a body by its framing.
pub(crate) fn read_body(head: &Head, to_the_end: bool, stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.is_chunked() {
        loop {
            let chunk = read_chunk(stream)?;
            if chunk.is_empty() {
                read_trailers(stream)?;
                return Ok(body);
            }
            body.extend(chunk);
        }
    }
    match head.length() {
        Some(length) => {
            body.resize(length, 0);
            stream.read_exact(&mut body)?;
        }
        None if to_the_end => {
            stream.read_to_end(&mut body)?;
        }
        None => {}
    }
    Ok(body)
}

/// Reads the lines after the last chunk.
pub(crate) fn read_trailers(stream: &mut impl BufRead) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match line.trim_end() {
            "" => return Ok(lines),
            text => lines.push(text.to_owned()),
        }
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// A client's connection.
pub(crate) struct Connection {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::try_open(address).unwrap()
    }

    pub(crate) fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        // Only ends a test that hangs.
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap()
    }

    pub(crate) fn try_answer(&mut self, to_head: bool) -> io::Result<Answer> {
        let head = read_head(&mut self.stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let bodyless = to_head || matches!(head.status(), 100..=199 | 204 | 304);
        let body = if bodyless { vec![] } else { read_body(&head, true, &mut self.stream)? };
        Ok(Answer { head, body })
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        self.answer()
    }

    pub(crate) fn try_exchange(&mut self, method: &str, path: &str, body: &str) -> io::Result<Answer> {
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}");
        self.stream.get_mut().write_all(request.as_bytes())?;
        self.try_answer(false)
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> Answer {
        self.try_exchange("POST", path, body).unwrap()
    }

    /// Whether the other side has closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.stream.read(&mut byte), Ok(0) | Err(_))
    }
}
