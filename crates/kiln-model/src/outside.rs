//! What a canary is judged by that others measure: queries that Prometheus answers.

use std::cmp::Ordering;
use std::fmt;

use crate::access::Access;
use crate::units::Millis;

/// A number of outside, compared by its bits: it is stored and shown as it came.
#[derive(Debug, Clone, Copy)]
pub struct Number(pub f64);

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.0.total_cmp(&other.0) == Ordering::Equal
    }
}

impl Eq for Number {}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A metric that somebody else measures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideMetric {
    /// Its name; no other metric of the analysis has it.
    pub name: String,
    /// Where Prometheus, or what speaks as it does, answers: `http://127.0.0.1:9090`.
    pub prometheus: String,
    /// What the question goes with.
    pub access: Access,
    /// What it is asked.
    pub query: String,
    /// What a value must fulfil to count as a success.
    pub success: Option<Condition>,
    /// What counts as a failure; at least one of both is there. A value that is neither tells nothing.
    pub failure: Option<Condition>,
    /// How long before each measurement, since the split of the requests or the one before.
    pub interval: Millis,
    /// How many measurements make it pass, if no limit is passed.
    pub count: u32,
    /// How many of them may be failures.
    pub failure_limit: u32,
    /// How many of them may tell nothing.
    pub inconclusive_limit: u32,
    /// How many attempts in a row may come to no value.
    pub error_limit: u32,
    /// Whether its measurements are only written down.
    pub dry_run: bool,
}

/// A comparison of a value with a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// How.
    pub comparison: Comparison,
    /// With what; a finite number.
    pub with: Number,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
    /// `==`
    Equal,
    /// `!=`
    Other,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.comparison {
            Comparison::Less => "<",
            Comparison::AtMost => "<=",
            Comparison::Greater => ">",
            Comparison::AtLeast => ">=",
            Comparison::Equal => "==",
            Comparison::Other => "!=",
        };
        write!(f, "result {sign} {}", self.with)
    }
}

/// What one measurement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A success.
    Passed,
    /// A failure.
    Failed,
    /// Neither: it tells nothing.
    Unclear,
    /// There was no value.
    Error,
}
