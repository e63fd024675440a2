//! What is wrong with a stack folder, and where.

use std::ops::Range;
use std::sync::Arc;

use crate::render;
use crate::source::{FileId, SourceSet, Span};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing can be done with the stack.
    Error,
    /// It works, but probably not as meant.
    Warning,
}

impl Severity {
    /// Returns the word that is shown and that JSON carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, with every place that shows why. Holds no secret value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for programs, such as `unknown-attribute`.
    pub code: &'static str,
    /// One sentence.
    pub message: String,
    /// The places; the first is where to look first. Empty when no file is to blame, as with a `-var`.
    pub labels: Vec<Label>,
    /// What to do about it.
    pub help: Option<String>,
    /// Where source text must not be shown, because it holds a sensitive value.
    pub(crate) redacted: Arc<Vec<(String, Range<usize>)>>,
}

/// A place in a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The path as it was given to the [`SourceSet`].
    pub file: String,
    /// The bytes.
    pub span: Range<usize>,
    /// The line of the first byte, from 1.
    pub line: usize,
    /// The column of the first byte in characters, from 1.
    pub column: usize,
    /// What is said about it; may be empty.
    pub text: String,
}

impl Diagnostic {
    /// An error about text in another language than HCL, shown like any other. `path` is that of a text in `sources`.
    pub fn of_text(
        sources: &SourceSet,
        path: &str,
        span: Range<usize>,
        code: &'static str,
        message: &str,
        help: Option<String>,
    ) -> Self {
        let position = sources.by_path(path).map(|file| file.position(span.start));
        let label = position.map(|(line, column)| Label {
            file: path.to_owned(),
            span,
            line,
            column,
            text: String::new(),
        });
        Self {
            severity: Severity::Error,
            code,
            message: message.to_owned(),
            labels: label.into_iter().collect(),
            help,
            redacted: Arc::default(),
        }
    }

    /// Returns the text for a reader: the message, each place with its source line underlined, and the help.
    ///
    /// Ends with a newline. Colour is ANSI.
    pub fn render(&self, sources: &SourceSet, colour: bool) -> String {
        render::render(self, sources, colour)
    }
}

/// A diagnostic in the making: spans instead of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) severity: Severity,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    pub(crate) labels: Vec<(Span, String)>,
    pub(crate) help: Option<String>,
}

impl Problem {
    pub(crate) fn new(code: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            labels: vec![(span, String::new())],
            help: None,
        }
    }

    pub(crate) fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// Says something about the first place.
    pub(crate) fn label(mut self, text: impl Into<String>) -> Self {
        self.labels[0].1 = text.into();
        self
    }

    /// Adds a place.
    pub(crate) fn also(mut self, span: Span, text: impl Into<String>) -> Self {
        if span.file != FileId::NONE {
            self.labels.push((span, text.into()));
        }
        self
    }

    pub(crate) fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// Adds the help, if there is any.
    pub(crate) fn maybe_help(mut self, text: Option<String>) -> Self {
        self.help = text.or(self.help);
        self
    }

    /// Resolves spans to lines.
    pub(crate) fn resolve(
        self,
        sources: &SourceSet,
        redacted: &Arc<Vec<(String, Range<usize>)>>,
    ) -> Diagnostic {
        let labels = self.labels.into_iter().filter_map(|(span, text)| {
            let file = sources.file(span.file)?;
            let (line, column) = file.position(span.start as usize);
            Some(Label {
                file: file.path.clone(),
                span: span.start as usize..span.end as usize,
                line,
                column,
                text,
            })
        });
        Diagnostic {
            severity: self.severity,
            code: self.code,
            message: self.message,
            labels: labels.collect(),
            help: self.help,
            redacted: redacted.clone(),
        }
    }
}

/// What stopped an evaluation. Empty where the cause was already reported elsewhere: what depends on a broken value stays
/// silent, so that one mistake gives one error.
pub(crate) type Problems = Vec<Problem>;

/// Collects problems, each once.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    problems: Vec<Problem>,
    seen: std::collections::HashSet<(&'static str, Span, String)>,
    /// Images of folders and files, and where they are named.
    pub(crate) image_files: Vec<(String, Span)>,
}

impl Sink {
    pub(crate) fn push(&mut self, problem: Problem) {
        // A template that is rendered for every service would otherwise repeat its mistake for each.
        let key = (problem.code, problem.labels[0].0, problem.message.clone());
        if self.seen.insert(key) {
            self.problems.push(problem);
        }
    }

    pub(crate) fn extend(&mut self, problems: Problems) {
        for problem in problems {
            self.push(problem);
        }
    }

    /// Takes a result apart: the problems are kept here.
    pub(crate) fn take<T>(&mut self, result: Result<T, Problems>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(problems) => {
                self.extend(problems);
                None
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.problems.len()
    }

    /// Takes back problems of these kinds.
    pub(crate) fn drop_codes(&mut self, codes: &[&str]) {
        self.problems.retain(|p| !codes.contains(&p.code));
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.problems.iter().any(|p| p.severity == Severity::Error)
    }

    /// Returns the problems in the order of the source, errors first within a place.
    pub(crate) fn into_sorted(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|p| (p.labels[0].0, p.severity));
        self.problems
    }
}
