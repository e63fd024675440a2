//! The functions: one table with signature, description and example, from which the reference is written too.

mod collection;
mod convert;
mod datetime;
mod digest;
mod encode;
mod file;
mod format;
mod json;
mod net;
mod number;
mod sets;
mod text;
pub(crate) use self::text::compile_pattern;

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use crate::diagnostic::{Problem, Problems};
use crate::eval::{Evaluator, written_at};
use crate::number::Number;
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::Call;
use crate::types::Type;
use crate::value::{Map, Marks, STRING_BYTES_MAX, Seq, Value};

/// A function, as the reference shows it.
#[derive(Debug, Clone, Copy)]
pub struct FunctionInfo {
    /// How it is called, such as `upper(string)`.
    pub signature: &'static str,
    /// What it does, one sentence.
    pub summary: &'static str,
    /// A call.
    pub example: &'static str,
    /// What the call gives.
    pub result: &'static str,
}

/// One row of the table.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) info: FunctionInfo,
    /// The least and the most arguments.
    arity: (usize, usize),
    run: Run,
}

/// How it is run, and what becomes of the marks of its arguments.
enum Run {
    /// The result bears the marks of all that was passed.
    Whole(Body),
    /// The result holds elements of what was passed, with their own marks.
    Parts(Body),
    /// It decides about the marks itself.
    Marks(Body),
    Lazy(Lazy),
}

type Body = fn(&Args<'_>) -> Result<Value, Failure>;

/// Functions whose arguments may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lazy {
    Try,
    Can,
}

impl Lazy {
    pub(crate) const fn takes(self) -> &'static str {
        match self {
            Self::Try => "one or more expressions",
            Self::Can => "one expression",
        }
    }
}

/// Any number of arguments.
const MANY: usize = usize::MAX;

/// What a function is called with.
pub(crate) struct Args<'a> {
    eval: &'a Evaluator<'a>,
    span: Span,
    values: &'a [Value],
}

/// Why a call failed.
pub(crate) enum Failure {
    /// An argument is to blame.
    Argument(usize, String),
    /// The call as a whole.
    Call(String),
    /// Something within, with places of its own.
    Problems(Problems),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Call(message)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::Call(message.to_owned())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl From<crate::value::TooLarge> for Failure {
    fn from(_: crate::value::TooLarge) -> Self {
        Self::Call("the result is too large".to_owned())
    }
}

impl<'a> Args<'a> {
    fn len(&self) -> usize {
        self.values.len()
    }

    fn get(&self, i: usize) -> &'a Value {
        &self.values[i]
    }

    fn rest(&self, from: usize) -> &'a [Value] {
        &self.values[from.min(self.values.len())..]
    }

    fn bad<T>(&self, i: usize, message: impl Into<String>) -> Result<T, Failure> {
        Err(Failure::Argument(i, message.into()))
    }

    fn converted(&self, i: usize, ty: &Type) -> Result<Value, Failure> {
        if self.values[i].is_null() {
            return self.bad(i, "it can't be null");
        }
        ty.convert(self.values[i].clone()).map_err(|e| Failure::Argument(i, e))
    }

    fn str(&self, i: usize) -> Result<Arc<str>, Failure> {
        Ok(self.converted(i, &Type::String)?.as_str().unwrap_or_default().into())
    }

    fn number(&self, i: usize) -> Result<Number, Failure> {
        match self.converted(i, &Type::Number)?.kind {
            crate::value::Kind::Number(number) => Ok(number),
            _ => self.bad(i, "expected a number"),
        }
    }

    fn int<T: TryFrom<i128>>(&self, i: usize) -> Result<T, Failure> {
        match self.number(i)?.to_int() {
            Some(value) => Ok(value),
            None => self.bad(i, "expected a whole number within its range"),
        }
    }

    /// A list, tuple or set.
    fn seq(&self, i: usize) -> Result<&'a Seq, Failure> {
        match self.values[i].as_seq() {
            Some(seq) => {
                self.spend(seq.items.len())?;
                Ok(seq)
            }
            None => self.bad(i, format!("expected a list, found {}", self.values[i].describe())),
        }
    }

    /// A map or object.
    fn map(&self, i: usize) -> Result<&'a Map, Failure> {
        match self.values[i].as_map() {
            Some(map) => {
                self.spend(map.items.len())?;
                Ok(map)
            }
            None => self.bad(i, format!("expected a map, found {}", self.values[i].describe())),
        }
    }

    /// The elements of a list as strings.
    fn strings(&self, i: usize) -> Result<Vec<Arc<str>>, Failure> {
        let text = |(at, value): (usize, &Value)| {
            let converted = Type::String.convert(value.clone());
            let converted = converted.map_err(|e| Failure::Argument(i, format!("at element {at}: {e}")))?;
            match converted.as_str() {
                Some(text) => Ok(text.into()),
                None => self.bad(i, format!("element {at} can't be null")),
            }
        };
        self.seq(i)?.items.iter().enumerate().map(text).collect()
    }

    /// Counts the work of walking all arguments.
    fn weigh(&self) -> Result<(), Failure> {
        let weight = self.values.iter().fold(0_u64, |sum, v| sum.saturating_add(v.weight()));
        self.eval.spend(weight, self.span).map_err(Failure::Problems)
    }

    /// Counts work over data.
    fn spend(&self, steps: usize) -> Result<(), Failure> {
        self.eval.spend(steps as u64, self.span).map_err(Failure::Problems)
    }

    /// Checks and counts the size of text before it is made.
    fn room(&self, bytes: usize) -> Result<(), Failure> {
        if bytes > STRING_BYTES_MAX {
            return Err(format!("the result would have more than {} MiB", STRING_BYTES_MAX >> 20).into());
        }
        self.spend(1 + bytes / 64)
    }

    fn text(&self, text: String) -> Result<Value, Failure> {
        self.room(text.len())?;
        Ok(Value::string(text))
    }
}

impl Function {
    pub(crate) fn lazy(&self) -> Option<Lazy> {
        match self.run {
            Run::Lazy(lazy) => Some(lazy),
            _ => None,
        }
    }

    pub(crate) fn run(
        &self,
        eval: &Evaluator<'_>,
        call: &Call,
        span: Span,
        values: &[Value],
        spans: &[Span],
    ) -> Result<Value, Problems> {
        let (least, most) = self.arity;
        if values.len() < least || values.len() > most {
            let message = format!("`{}` takes {}, found {}", self.name, arity(least, most), values.len());
            let help = format!("call it as `{}`", self.info.signature);
            return Err(vec![Problem::new("wrong-arguments", span, message).help(help)]);
        }
        let args = Args { eval, span, values };
        let (body, whole) = match self.run {
            Run::Whole(body) => (body, Some(true)),
            Run::Parts(body) => (body, Some(false)),
            Run::Marks(body) => (body, None),
            Run::Lazy(_) => return Err(Vec::new()),
        };
        let marks = |whole: bool| {
            let of = |v: &Value| if whole { v.all_marks() } else { v.marks.clone() };
            values.iter().map(of).fold(Marks::default(), |a, b| a.join(&b))
        };
        match body(&args) {
            Ok(value) => {
                let value = value.at(span);
                Ok(whole.map_or(value.clone(), |whole| value.marked(&marks(whole))))
            }
            Err(failure) => Err(self.problems(failure, call, span, values, spans)),
        }
    }

    fn problems(
        &self,
        failure: Failure,
        call: &Call,
        span: Span,
        values: &[Value],
        spans: &[Span],
    ) -> Problems {
        let sensitive = values.iter().any(|v| v.all_marks().sensitive);
        let help = format!("call it as `{}`, for example `{}`", self.info.signature, self.info.example);
        match failure {
            Failure::Problems(problems) => problems,
            Failure::Argument(i, reason) => {
                let at = spans.get(i).copied().unwrap_or(call.name_span);
                // What a function says about a sensitive argument may quote it.
                let reason = if sensitive { "the sensitive value does not fit".to_owned() } else { reason };
                let message = format!("argument {} of `{}`: {reason}", i + 1, self.name);
                let problem = Problem::new("wrong-arguments", at, message).help(help);
                vec![written_at(problem, at, values.get(i).map_or(at, |v| v.origin))]
            }
            Failure::Call(reason) => {
                let reason = if sensitive { "a sensitive argument does not fit".to_owned() } else { reason };
                let message = format!("`{}` failed: {reason}", self.name);
                vec![Problem::new("call-failed", span, message)]
            }
        }
    }
}

fn arity(least: usize, most: usize) -> String {
    let arguments = |n: usize| if n == 1 { "1 argument".to_owned() } else { format!("{n} arguments") };
    match (least, most) {
        (0, MANY) => "any number of arguments".into(),
        (least, MANY) => format!("at least {}", arguments(least)),
        (least, most) if least == most => arguments(most),
        (least, most) => format!("{least} to {}", arguments(most)),
    }
}

/// Makes a row.
#[allow(clippy::too_many_arguments, reason = "a row of a table, written once per function")]
const fn row(
    name: &'static str,
    signature: &'static str,
    arity: (usize, usize),
    run: Run,
    summary: &'static str,
    example: &'static str,
    result: &'static str,
) -> Function {
    Function { name, info: FunctionInfo { signature, summary, example, result }, arity, run }
}

static TABLE: LazyLock<HashMap<&'static str, &'static Function>> = LazyLock::new(|| {
    let groups = GROUPS.iter().flat_map(|(_, rows)| rows.iter());
    groups.map(|f| (f.name, f)).collect()
});

/// The functions by topic, in the order of the reference.
static GROUPS: &[(&str, &[Function])] = &[
    ("Numbers", number::ROWS),
    ("Strings", text::ROWS),
    ("Formatting", format::ROWS),
    ("Collections", collection::ROWS),
    ("Sets and sequences", sets::ROWS),
    ("Encoding", encode::ROWS),
    ("Files", file::ROWS),
    ("Hashes", digest::ROWS),
    ("Dates", datetime::ROWS),
    ("Networks", net::ROWS),
    ("Types", convert::ROWS),
];

/// Returns the functions by topic: what the reference is written from.
pub fn functions() -> impl Iterator<Item = (&'static str, Vec<FunctionInfo>)> {
    GROUPS.iter().map(|(topic, rows)| (*topic, rows.iter().map(|f| f.info).collect()))
}

pub(crate) use datetime::seconds as parse_timestamp;
pub(crate) use json::{decode as decode_json, encode as encode_json};

pub(crate) fn find(name: &str) -> Option<&'static Function> {
    TABLE.get(name).copied()
}

/// The problem of a name that is no function.
pub(crate) fn unknown(call: &Call) -> Problem {
    let message = format!("there is no function `{}`", call.name);
    let known = match &*call.name {
        "yamldecode" | "yamlencode" => Some("use `jsondecode` and `jsonencode`".to_owned()),
        "uuid" | "bcrypt" => {
            Some("a function that gives something else each time would replace every instance".to_owned())
        }
        "list" => Some("write `[…]`".to_owned()),
        "map" => Some("write `{…}`".to_owned()),
        "env" | "getenv" => {
            Some("declare a `variable`; it is read from the environment as `KILN_VAR_name`".to_owned())
        }
        "abspath" | "pathexpand" | "dirname" | "basename" => {
            Some("paths are relative to the stack folder as they are".to_owned())
        }
        name => did_you_mean(name, TABLE.keys().copied()),
    };
    Problem::new("unknown-function", call.name_span, message).maybe_help(known)
}
