//! What a request's head may look like: a strict reading, before hyper's lenient one.
//!
//! Request smuggling lives where two readers of the same bytes disagree. The edge therefore accepts only heads that every
//! reader frames in the same way (RFC 9112 §2.2, §3, §5, §6): lines end in CRLF, no folding, no space before a colon,
//! one `Content-Length` of digits or one `Transfer-Encoding: chunked`, never both.

use hyper::{StatusCode, Uri};

use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// Why a request is refused before it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The head or the body's framing breaks a rule.
    Malformed(&'static str),
    /// The head is too large or has too many lines.
    HeadTooLarge,
    /// The target is too long.
    TargetTooLong,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body stopped arriving.
    BodyTimeout,
}

impl Refusal {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::HeadTimeout | Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Malformed(why) => why,
            Self::HeadTooLarge => "the request's headers are too large",
            Self::TargetTooLong => "the request target is too long",
            Self::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here",
            Self::HeadTimeout => "the request's headers did not arrive in time",
            Self::BodyTimeout => "the request's body did not arrive in time",
        }
    }
}

/// How a request's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
}

/// A head that is complete and sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its bytes, the empty line included.
    pub(crate) len: usize,
    pub(crate) framing: Framing,
    /// Whether it asks for another protocol: what follows the body then depends on the answer.
    pub(crate) upgrade: bool,
}

/// Reads one head line by line as its bytes arrive, each byte once.
#[derive(Debug, Default)]
pub(crate) struct HeadScanner {
    line_start: usize,
    searched: usize,
    lines: usize,
    http_10: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
}

impl HeadScanner {
    /// Looks at `input`, which begins where the head begins and has only grown since the last call.
    pub(crate) fn advance(&mut self, input: &[u8]) -> Result<Option<Head>, Refusal> {
        while let Some(at) = memchr::memchr(b'\n', &input[self.searched..]) {
            let newline = self.searched + at;
            let Some(line) = input[self.line_start..newline].strip_suffix(b"\r") else {
                return Err(Refusal::Malformed("a line of the head does not end in CRLF"));
            };
            (self.searched, self.line_start) = (newline + 1, newline + 1);
            if newline >= HEAD_BYTES_MAX {
                return Err(self.too_large());
            }
            match (self.lines, line.is_empty()) {
                // RFC 9112 §2.2: an empty line before a request line is ignored.
                (0, true) => continue,
                (0, false) => self.request_line(line)?,
                (_, true) => return self.finish(newline + 1).map(Some),
                (_, false) => self.header_line(line)?,
            }
            self.lines += 1;
            if self.lines > HEADERS_MAX + 1 {
                return Err(Refusal::HeadTooLarge);
            }
        }
        self.searched = input.len();
        if input.len() >= HEAD_BYTES_MAX { Err(self.too_large()) } else { Ok(None) }
    }

    fn too_large(&self) -> Refusal {
        if self.lines == 0 { Refusal::TargetTooLong } else { Refusal::HeadTooLarge }
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let malformed = Refusal::Malformed("the request line is not METHOD TARGET HTTP/1.1");
        let mut parts = line.split(|b| *b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed);
        };
        if method.is_empty() || !method.iter().all(|b| is_token(*b)) || target.is_empty() {
            return Err(malformed);
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(Refusal::TargetTooLong);
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.http_10 = true,
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => return Err(Refusal::Version),
            _ => return Err(malformed),
        }
        if !is_plain_path(target) && Uri::try_from(target).is_err() {
            return Err(Refusal::Malformed("the request target is not a valid URI"));
        }
        Ok(())
    }

    fn header_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let colon = memchr::memchr(b':', line).ok_or(Refusal::Malformed("a header line has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
            // Also folded lines, which begin with a space, and a space before the colon.
            return Err(Refusal::Malformed("a header name is empty or has a character that it may not have"));
        }
        if !value.iter().all(|b| is_value(*b)) {
            return Err(Refusal::Malformed("a header value has a control character"));
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host_line(value),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = true;
                Ok(())
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => self.length_line(value),
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.encoding_line(value),
            _ => Ok(()),
        }
    }

    fn host_line(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.host, true) {
            return Err(Refusal::Malformed("there is more than one Host header"));
        }
        let sound =
            |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']' | b'~');
        if value.iter().all(sound) {
            Ok(())
        } else {
            Err(Refusal::Malformed("the Host header is not a host name with an optional port"))
        }
    }

    fn length_line(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() {
            return Err(Refusal::Malformed("there is more than one Content-Length header"));
        }
        // `parse` alone would take a sign, and 18 digits can't overflow.
        let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
        let length = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok());
        self.length = Some(length.ok_or(Refusal::Malformed("the Content-Length is not a number"))?);
        Ok(())
    }

    fn encoding_line(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if std::mem::replace(&mut self.chunked, true) || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Refusal::Malformed("the only Transfer-Encoding understood is `chunked`, once"));
        }
        Ok(())
    }

    fn finish(&self, len: usize) -> Result<Head, Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::Malformed("Content-Length and Transfer-Encoding exclude each other"));
        }
        if self.chunked && self.http_10 {
            return Err(Refusal::Malformed("HTTP/1.0 has no Transfer-Encoding"));
        }
        if !self.host && !self.http_10 {
            return Err(Refusal::Malformed("the Host header is missing"));
        }
        let framing = if self.chunked { Framing::Chunked } else { Framing::Length(self.length.unwrap_or(0)) };
        Ok(Head { len, framing, upgrade: self.upgrade && !self.http_10 })
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let symbols = b"!#$%&'*+-.^_`|~";
        let mut i = 0;
        while i < 256 {
            table[i] = (i as u8).is_ascii_alphanumeric();
            i += 1;
        }
        i = 0;
        while i < symbols.len() {
            table[symbols[i] as usize] = true;
            i += 1;
        }
        table
    };
    TOKEN[byte as usize]
}

/// RFC 9110 §5.5: visible characters, spaces, tabs and what is beyond ASCII.
fn is_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// The targets that nearly every request has; anything else takes the parser.
fn is_plain_path(target: &[u8]) -> bool {
    target[0] == b'/'
        && target.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_' | b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Option<Head>, Refusal> {
        HeadScanner::default().advance(text.as_bytes())
    }

    fn refused(text: &str) -> bool {
        matches!(scan(text), Err(Refusal::Malformed(_)))
    }

    #[test]
    fn a_sound_head_is_framed_by_its_length() {
        let text = "POST /a?b HTTP/1.1\r\nHost: x:80\r\ncontent-length:  12 \r\n\r\nrest";
        let head = scan(text).unwrap().unwrap();
        assert_eq!(head, Head { len: text.len() - 4, framing: Framing::Length(12), upgrade: false });
    }

    #[test]
    fn a_head_may_arrive_byte_by_byte() {
        let text = b"\r\nGET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\nUpgrade: y\r\n\r\n";
        let mut scanner = HeadScanner::default();
        for end in 1..text.len() {
            assert_eq!(scanner.advance(&text[..end]), Ok(None), "{end}");
        }
        let head = scanner.advance(text).unwrap().unwrap();
        assert_eq!(head, Head { len: text.len(), framing: Framing::Chunked, upgrade: true });
    }

    #[test]
    fn every_ambiguous_framing_is_refused() {
        let with = |lines: &str| format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n");
        for lines in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: -5",
            "Content-Length: 0x5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 99999999999999999999",
            "Transfer-Encoding: identity",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding:\r\n chunked",
            "Transfer-Encoding : chunked",
            "Transfer-Encoding\t: chunked",
            " Transfer-Encoding: chunked",
            "X: a\r\n Transfer-Encoding: chunked",
            "X: a\r\n\tb",
            "X: a\nContent-Length: 5",
            "X: a\rContent-Length: 5",
            "X: a\u{0}b",
            "X y: a",
            "no colon",
            ": empty",
            "Host: y",
        ] {
            assert!(refused(&with(lines)), "{lines:?}");
        }
    }

    #[test]
    fn request_lines_that_readers_split_differently_are_refused() {
        for line in [
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET / HTTP/1.1\r",
            "GET /\tHTTP/1.1",
            "GET /a b HTTP/1.1",
            "G@T / HTTP/1.1",
            "GET / http/1.1",
            "GET /",
            "GET /\u{1} HTTP/1.1",
            "GET a/b/ HTTP/1.1",
        ] {
            assert!(refused(&format!("{line}\r\nHost: x\r\n\r\n")), "{line:?}");
        }
        assert_eq!(scan("PRI * HTTP/2.0\r\n\r\n"), Err(Refusal::Version));
    }

    #[test]
    fn http_1_1_needs_a_host_and_http_1_0_does_not() {
        assert!(refused("GET / HTTP/1.1\r\n\r\n"));
        assert!(refused("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"));
        assert!(refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"));
        assert!(scan("GET / HTTP/1.0\r\n\r\n").unwrap().is_some());
    }

    #[test]
    fn a_bare_line_feed_is_refused_before_the_head_ends() {
        assert!(refused("GET / HTTP/1.1\nHost: x"));
    }

    #[test]
    fn sizes_are_bounded() {
        let many = "X: y\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(scan(&format!("GET / HTTP/1.1\r\n{many}")), Err(Refusal::HeadTooLarge));
        let long = "a".repeat(HEAD_BYTES_MAX);
        assert_eq!(scan(&format!("GET / HTTP/1.1\r\nX: {long}")), Err(Refusal::HeadTooLarge));
        assert_eq!(scan(&format!("GET /{long}")), Err(Refusal::TargetTooLong));
        let long = "a".repeat(TARGET_BYTES_MAX);
        assert_eq!(scan(&format!("GET /{long} HTTP/1.1\r\n")), Err(Refusal::TargetTooLong));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic_and_splitting_them_changes_nothing(
            bytes in proptest::collection::vec(proptest::prop_oneof![
                proptest::strategy::Just(b'\r'), proptest::strategy::Just(b'\n'),
                proptest::strategy::Just(b':'), proptest::strategy::Just(b' '), proptest::num::u8::ANY,
            ], 0..300),
            cut in 0_usize..300,
        ) {
            let mut split = HeadScanner::default();
            let first = split.advance(&bytes[..cut.min(bytes.len())]);
            let whole = HeadScanner::default().advance(&bytes);
            match first {
                Ok(None) => proptest::prop_assert_eq!(split.advance(&bytes), whole),
                decided => proptest::prop_assert_eq!(decided, whole),
            }
        }
    }
}
