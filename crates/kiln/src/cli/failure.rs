//! How a failure is told: what, why, and what to do next.

use std::error::Error;
use std::fmt::Write as _;

use kiln_store::PutError;
use serde_json::json;

use super::exit::Exit;
use super::screen::Paint;

/// Whose business a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It was asked for and carried out, and the answer is no.
    Failed,
    /// The user asked for what can't be done now.
    Refused,
    /// The user asked in a way that makes no sense.
    Usage,
    /// The stack has errors.
    Config,
    /// Something outside Kiln failed.
    External,
    /// Kiln is wrong.
    Bug,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Usage => "usage",
            Self::Config => "config",
            Self::External => "external",
            Self::Bug => "bug",
        }
    }
}

/// Why a command could not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    report: Option<String>,
    /// Whether it was for want of room: then no other hint helps.
    is_full: bool,
}

/// What is done about a full disk, whatever it stopped.
const FULL: &str = "free some space on the disk of the state folder; what runs was not touched";

/// What every command returns.
pub(crate) type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure of a kind.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hint: None, report: None, is_full: false }
    }

    /// It was carried out, and the answer is no.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// It was refused; nothing changed.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Kind::Refused, message)
    }

    /// The command line makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// Something outside failed.
    pub(crate) fn external(message: impl Into<String>) -> Self {
        Self::new(Kind::External, message)
    }

    /// Kiln itself is wrong.
    pub(crate) fn bug(message: impl Into<String>) -> Self {
        Self::new(Kind::Bug, message)
            .hint("this is a defect in Kiln; `kiln events --json` holds what led to it")
    }

    /// The stack has errors, already rendered with file, line and underline.
    pub(crate) fn diagnostics(report: String, errors: usize) -> Self {
        let message = match errors {
            1 => "the stack has an error".to_string(),
            n => format!("the stack has {n} errors"),
        };
        Self { report: Some(report), ..Self::new(Kind::Config, message) }
    }

    /// Adds a line that says why.
    #[must_use]
    pub(crate) fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds an error and all that it stems from.
    #[must_use]
    pub(crate) fn caused_by(mut self, error: &(dyn Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.is_full |= is_full(error);
            let text = error.to_string();
            // A transparent wrapper repeats its source's text.
            if self.causes.last() != Some(&text) {
                self.causes.push(text);
            }
            next = error.source();
        }
        if self.is_full {
            self.hint = Some(FULL.into());
        }
        self
    }

    /// Says what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        if !self.is_full {
            self.hint = Some(hint.into());
        }
        self
    }

    /// What the shell sees.
    pub(crate) const fn exit(&self) -> Exit {
        match self.kind {
            Kind::Failed => Exit::Failed,
            Kind::Refused => Exit::Refused,
            Kind::Usage => Exit::Usage,
            Kind::Config => Exit::Config,
            Kind::External => Exit::External,
            Kind::Bug => Exit::Bug,
        }
    }

    /// The failure for people, with a newline at the end.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        if let Some(report) = &self.report {
            out.push_str(report.trim_end());
            out.push_str("\n\n");
        }
        // Writing to a String can't fail.
        let _ = writeln!(out, "{} {}", paint.red("error:"), self.message);
        for cause in &self.causes {
            let _ = writeln!(out, "  cause: {}", indented(cause));
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "  hint:  {}", indented(hint));
        }
        out
    }

    /// The failure for programs, one line.
    pub(crate) fn json(&self) -> String {
        json!({
            "error": {
                "kind": self.kind.name(),
                "message": self.message,
                "causes": self.causes,
                "hint": self.hint,
                "report": self.report,
                "exit": self.exit().code(),
            }
        })
        .to_string()
    }
}

fn is_full(error: &(dyn Error + 'static)) -> bool {
    let of_io = error.downcast_ref::<std::io::Error>().is_some_and(|error| {
        matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
    });
    of_io || matches!(error.downcast_ref::<PutError>(), Some(PutError::Full { .. }))
}

/// Lines after the first stand under the first.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n         ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_and_what_next() {
        let failure = Failure::refused("cannot roll back web in prod to #41")
            .cause("its image sha256:9f2c was collected")
            .hint("`kiln release list --retained` shows what can still be restored");
        let expected = "error: cannot roll back web in prod to #41\n  \
                        cause: its image sha256:9f2c was collected\n  \
                        hint:  `kiln release list --retained` shows what can still be restored\n";
        assert_eq!(failure.text(Paint::PLAIN), expected);
        assert_eq!(failure.exit().code(), 3);
    }

    #[test]
    fn json_keeps_every_part_on_one_line() {
        let line = Failure::external("a\nb").cause("c").json();
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["error"]["kind"], "external");
        assert_eq!(value["error"]["exit"], 5);
    }

    #[test]
    fn a_full_disk_is_hinted_at_whatever_it_stopped() {
        #[derive(Debug, thiserror::Error)]
        #[error("x can't be written")]
        struct Outer(#[source] std::io::Error);
        let full = Outer(std::io::ErrorKind::StorageFull.into());
        let text = Failure::external("x").caused_by(&full).hint("try another folder").text(Paint::PLAIN);
        assert!(text.ends_with(
            "hint:  free some space on the disk of the state folder; what runs was not touched\n"
        ));
        let put = PutError::Full { path: "/x".into() };
        assert!(Failure::external("x").caused_by(&put).text(Paint::PLAIN).contains("free some space"));
    }

    #[test]
    fn every_link_of_the_chain_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] std::io::Error);
        let outer = Outer(std::io::Error::other("inner"));
        let text = Failure::external("x").caused_by(&outer).text(Paint::PLAIN);
        assert_eq!(text, "error: x\n  cause: outer\n  cause: inner\n");
    }
}
