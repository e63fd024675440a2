//! Where a chunked body ends (RFC 9112 §7.1), read as strictly as its head.

use crate::head::Refusal;
use crate::limits::{CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};

/// Follows a chunked body to its end.
#[derive(Debug)]
pub(crate) struct ChunkScanner {
    at: At,
    /// Bytes of the size line or of the trailers so far.
    taken: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    LastLf,
    End,
}

const MALFORMED: Refusal = Refusal::Malformed("the chunked body is malformed");

impl ChunkScanner {
    pub(crate) fn new() -> Self {
        Self { at: At::Size { value: 0, digits: 0 }, taken: 0 }
    }

    /// Returns how many bytes of `input` belong to the body. Fewer than all: the body is complete.
    pub(crate) fn advance(&mut self, input: &[u8]) -> Result<usize, Refusal> {
        let mut position = 0;
        while position < input.len() && self.at != At::End {
            if let At::Data { left } = self.at {
                let here = left.min((input.len() - position) as u64);
                position += here as usize;
                self.at = if here == left { At::DataCr } else { At::Data { left: left - here } };
            } else {
                self.at = self.control(input[position])?;
                position += 1;
            }
        }
        Ok(position)
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.at == At::End
    }

    fn control(&mut self, byte: u8) -> Result<At, Refusal> {
        self.taken += 1;
        let bound = match self.at {
            At::TrailerStart | At::Trailer | At::TrailerLf | At::LastLf => TRAILER_BYTES_MAX,
            _ => CHUNK_LINE_BYTES_MAX,
        };
        if self.taken > bound {
            return Err(MALFORMED);
        }
        let next = match (self.at, byte) {
            // 15 hexadecimal digits can't overflow.
            (At::Size { value, digits }, b) if b.is_ascii_hexdigit() && digits < 15 => {
                let digit = (b as char).to_digit(16).expect("checked to be a digit");
                At::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (At::Size { value, digits: 1.. }, b';') => At::Extension { value },
            (At::Size { value, digits: 1.. } | At::Extension { value }, b'\r') => At::SizeLf { value },
            (At::Extension { value }, b) if b == b'\t' || (b >= 0x20 && b != 0x7f) => At::Extension { value },
            (At::SizeLf { value: 0 }, b'\n') => At::TrailerStart,
            (At::SizeLf { value }, b'\n') => At::Data { left: value },
            (At::DataCr, b'\r') => At::DataLf,
            (At::DataLf, b'\n') => {
                self.taken = 0;
                At::Size { value: 0, digits: 0 }
            }
            (At::TrailerStart, b'\r') => At::LastLf,
            (At::LastLf, b'\n') => At::End,
            // A trailer line must not begin with a space: that would be folding.
            (At::TrailerStart, b) if b.is_ascii_graphic() && b != b':' => At::Trailer,
            (At::Trailer, b'\r') => At::TrailerLf,
            (At::Trailer, b) if b == b'\t' || (b >= 0x20 && b != 0x7f) => At::Trailer,
            (At::TrailerLf, b'\n') => At::TrailerStart,
            _ => return Err(MALFORMED),
        };
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end_of(text: &str) -> Option<usize> {
        let mut scanner = ChunkScanner::new();
        let taken = scanner.advance(text.as_bytes()).ok()?;
        scanner.is_complete().then_some(taken)
    }

    #[test]
    fn the_end_is_found_after_data_extensions_and_trailers() {
        let body = "5\r\nhello\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n";
        assert_eq!(end_of(&format!("{body}GET / HTTP/1.1")), Some(body.len()));
        assert_eq!(end_of("0\r\n\r\n"), Some(5));
    }

    #[test]
    fn an_unfinished_body_is_not_complete() {
        let body = b"5\r\nhello\r\n0\r\n\r\n";
        for end in 0..body.len() {
            let mut scanner = ChunkScanner::new();
            assert_eq!(scanner.advance(&body[..end]), Ok(end));
            assert!(!scanner.is_complete());
        }
    }

    #[test]
    fn sloppy_chunks_are_refused() {
        for body in [
            "5\nhello\r\n",
            "5 \r\nhello\r\n",
            " 5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            "-1\r\n",
            "\r\n",
            ";x\r\n",
            "5;x\nhello\r\n",
            "5\r\nhelloX\r\n",
            "5\r\nhello\n",
            "FFFFFFFFFFFFFFFFF\r\n",
            "0\r\n folded: x\r\n\r\n",
            "0\r\nX: a\nb\r\n\r\n",
            "0\r\n\n",
        ] {
            assert!(ChunkScanner::new().advance(body.as_bytes()).is_err(), "{body:?}");
        }
        let long = format!("5;{}\r\nhello\r\n", "x".repeat(CHUNK_LINE_BYTES_MAX));
        assert!(ChunkScanner::new().advance(long.as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn a_body_in_chunks_ends_where_it_was_ended(
            chunks in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 1..40), 0..6),
            cut in 0_usize..200,
        ) {
            let mut body = Vec::new();
            for chunk in &chunks {
                body.extend(format!("{:x}\r\n", chunk.len()).bytes());
                body.extend(chunk);
                body.extend(b"\r\n");
            }
            body.extend(b"0\r\n\r\n");
            let end = body.len();
            body.extend(b"tail");
            let mut scanner = ChunkScanner::new();
            let cut = cut.min(body.len());
            let first = scanner.advance(&body[..cut]).unwrap();
            let second = if first == cut { scanner.advance(&body[cut..]).unwrap() } else { 0 };
            proptest::prop_assert!(scanner.is_complete());
            proptest::prop_assert_eq!(first + second, end);
        }
    }
}
