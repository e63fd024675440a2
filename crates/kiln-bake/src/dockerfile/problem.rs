//! What is wrong with a Dockerfile, and where.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A range of bytes of a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A problem whose file is known to whoever gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) span: Span,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds the name that was probably meant.
    pub(crate) fn meant(mut self, nearest: Option<&str>) -> Self {
        self.help = nearest.map(|nearest| format!("did you mean `{nearest}`?")).or(self.help);
        self
    }
}

/// What is wrong at one place of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerfileProblem {
    /// The file, relative to the stack folder.
    pub file: String,
    /// All of its text.
    pub text: Arc<str>,
    /// The bytes that are to blame.
    pub span: Range<usize>,
    /// One sentence.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl DockerfileProblem {
    pub(crate) fn new(file: &str, text: &Arc<str>, problem: Problem) -> Self {
        let Problem { span, message, help } = problem;
        let end = span.end.clamp(span.start, text.len());
        Self { file: file.into(), text: text.clone(), span: span.start.min(text.len())..end, message, help }
    }

    /// Returns the line and the column, in characters, of the first byte; both from 1.
    pub fn position(&self) -> (usize, usize) {
        let before = &self.text.as_bytes()[..self.span.start];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
    }
}

impl fmt::Display for DockerfileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.position();
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)
    }
}

impl std::error::Error for DockerfileProblem {}
