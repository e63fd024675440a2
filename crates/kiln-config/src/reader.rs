//! Reads the attributes of a block: evaluated, of the right type, with the place of what is wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use kiln_model::{ByteSize, MilliCpu, Millis, ServiceName};

use crate::declare::attribute;
use crate::diagnostic::{Problem, Problems, Sink};
use crate::eval::{Evaluator, Scopes, written_at};
use crate::graph::Graph;
use crate::resolve::Resolver;
use crate::source::Span;
use crate::syntax::{Block, Body, Expr, ExprKind};
use crate::types::Type;
use crate::units::{parse_millis, parse_size};
use crate::value::{Kind, Reference, Value};

/// All that blocks are read with.
pub(crate) struct Context<'a> {
    pub(crate) resolver: &'a Resolver<'a>,
    pub(crate) eval: &'a Evaluator<'a>,
    pub(crate) graph: &'a Graph,
    pub(crate) sink: &'a RefCell<Sink>,
}

impl Context<'_> {
    pub(crate) fn report(&self, problem: Problem) {
        self.sink.borrow_mut().push(problem);
    }

    pub(crate) fn take<T>(&self, result: Result<T, Problems>) -> Option<T> {
        self.sink.borrow_mut().take(result)
    }

    /// Checks a name against the rule of its kind.
    pub(crate) fn name<T: std::str::FromStr<Err = kiln_model::NameError>>(
        &self,
        text: &str,
        span: Span,
    ) -> Option<T> {
        match text.parse() {
            Ok(name) => Some(name),
            Err(error) => {
                self.report(Problem::new("invalid-name", span, format!("{error}")));
                None
            }
        }
    }
}

/// Reads one block.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'r> {
    pub(crate) context: &'r Context<'r>,
    body: &'r Body,
    /// The block's kind and labels.
    pub(crate) header: Span,
    scopes: Scopes<'r>,
    /// What the block belongs to, for messages: `service "web"`.
    pub(crate) owner: &'r str,
    /// Whether it belongs to an image, which environments may not decide about.
    sealed: bool,
    uses: &'r RefCell<BTreeSet<ServiceName>>,
}

impl<'r> Reader<'r> {
    pub(crate) fn new(
        context: &'r Context<'r>,
        block: &'r Block,
        scopes: Scopes<'r>,
        owner: &'r str,
        uses: &'r RefCell<BTreeSet<ServiceName>>,
    ) -> Self {
        Self { context, body: &block.body, header: block.header(), scopes, owner, sealed: false, uses }
    }

    /// The same for what may not depend on the environment.
    pub(crate) fn sealed(self) -> Self {
        Self { sealed: true, ..self }
    }

    /// The same for a block within.
    pub(crate) fn within(self, block: &'r Block) -> Self {
        Self { body: &block.body, header: block.header(), ..self }
    }

    /// The blocks of a kind within.
    pub(crate) fn blocks(self, kind: &'r str) -> impl Iterator<Item = &'r Block> {
        self.body.blocks.iter().filter(move |b| &*b.kind == kind)
    }

    /// All blocks within, in order.
    pub(crate) fn all_blocks(self) -> &'r [Block] {
        &self.body.blocks
    }

    /// The first block of a kind within.
    pub(crate) fn block(self, kind: &'r str) -> Option<Self> {
        self.blocks(kind).next().map(|b| self.within(b))
    }

    pub(crate) fn has(self, name: &str) -> bool {
        attribute(self.body, name).is_some()
    }

    /// The names of the attributes, and where each stands.
    pub(crate) fn attributes(self) -> impl Iterator<Item = (&'r str, Span)> {
        self.body.attributes.iter().map(|attribute| (&*attribute.name, attribute.name_span))
    }

    /// Where an attribute is, or the block.
    pub(crate) fn span(self, name: &str) -> Span {
        attribute(self.body, name).map_or(self.header, |a| a.expr.span)
    }

    pub(crate) fn report(self, problem: Problem) {
        self.context.report(problem);
    }

    /// Evaluates an attribute. Null counts as not set.
    pub(crate) fn value(self, name: &str) -> Option<(Value, &'r Expr)> {
        let attribute = attribute(self.body, name)?;
        let expr = &attribute.expr;
        if self.sealed {
            let (graph, resolver) = (self.context.graph, self.context.resolver);
            graph.refuse_environment(resolver, self.owner, expr, &mut self.context.sink.borrow_mut());
        }
        let value = self.context.take(self.context.eval.eval(expr, self.scopes))?;
        let marks = value.all_marks();
        if marks.sensitive {
            self.refuse_sensitive(name, expr, &value);
            return None;
        }
        if let Some(uses) = &marks.uses {
            self.uses.borrow_mut().extend(uses.iter().cloned());
        }
        (!value.is_null()).then_some((value, expr))
    }

    fn refuse_sensitive(self, name: &str, expr: &Expr, value: &Value) {
        let (span, origin) = sensitive_item(expr, value).unwrap_or((expr.span, value.origin));
        let message = format!("`{name}` of {} would store a sensitive value in clear", self.owner);
        let problem = Problem::new("sensitive-value", span, message).label("this is sensitive").help(
            "declare a `secret`, and let the service read it from a file: `secrets = { \"/run/secrets/NAME\" = secret.NAME }`",
        );
        self.report(written_at(problem, span, origin));
    }

    fn wrong(self, name: &str, span: Span, value: &Value, reason: &str, help: Option<String>) {
        let message = format!("`{name}` of {}: {reason}", self.owner);
        let problem = Problem::new("wrong-type", span, message).maybe_help(help);
        self.report(written_at(problem, span, value.origin));
    }

    fn converted(self, name: &str, ty: &Type) -> Option<(Value, &'r Expr)> {
        let (value, expr) = self.value(name)?;
        match ty.convert(value.clone()) {
            Ok(converted) => Some((converted, expr)),
            Err(reason) => {
                self.wrong(name, expr.span, &value, &reason, hint(ty, &value));
                None
            }
        }
    }

    pub(crate) fn string(self, name: &str) -> Option<String> {
        let (value, expr) = self.converted(name, &Type::String)?;
        let text = value.as_str()?;
        if text.contains('\0') {
            self.wrong(name, expr.span, &value, "text can't hold a zero byte", None);
            return None;
        }
        Some(text.to_owned())
    }

    pub(crate) fn bool(self, name: &str) -> Option<bool> {
        match self.converted(name, &Type::Bool)?.0.kind {
            Kind::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// A whole number of a range.
    pub(crate) fn int(self, name: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
        let (value, expr) = self.converted(name, &Type::Number)?;
        let Kind::Number(number) = value.kind else { return None };
        match number.to_int::<u32>().filter(|n| range.contains(n)) {
            Some(number) => Some(number),
            None => {
                let (low, high) = range.into_inner();
                let reason = format!("expected a whole number from {low} to {high}, found {number}");
                self.wrong(name, expr.span, &value, &reason, None);
                None
            }
        }
    }

    /// Text that a parser reads, such as a duration.
    pub(crate) fn parsed<T>(
        self,
        name: &str,
        example: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (value, expr) = self.value(name)?;
        let Some(text) = value.as_str() else {
            let reason = format!("expected text like {example}, found {}", value.describe());
            self.wrong(name, expr.span, &value, &reason, None);
            return None;
        };
        match parse(text) {
            Ok(parsed) => Some(parsed),
            Err(reason) => {
                self.wrong(name, expr.span, &value, &reason, None);
                None
            }
        }
    }

    pub(crate) fn millis(self, name: &str) -> Option<Millis> {
        self.parsed(name, "\"5s\"", parse_millis)
    }

    /// A duration of at least a millisecond.
    pub(crate) fn some_millis(self, name: &str) -> Option<Millis> {
        self.parsed(name, "\"5s\"", |text| match parse_millis(text)? {
            Millis(0) => Err("it must be longer than nothing".to_owned()),
            millis => Ok(millis),
        })
    }

    pub(crate) fn size(self, name: &str) -> Option<ByteSize> {
        self.parsed(name, "\"128MiB\"", positive_size)
    }

    pub(crate) fn cpu(self, name: &str) -> Option<MilliCpu> {
        let (value, expr) = self.converted(name, &Type::Number)?;
        let Kind::Number(number) = value.kind else { return None };
        let thousandths = (number.to_f64() * 1000.0).round();
        // The kernel's quota has a resolution of a thousandth of a period.
        if (1.0..=4_096_000.0).contains(&thousandths) {
            return Some(MilliCpu(thousandths as u32));
        }
        let reason = format!("expected a number of cores from 0.001 to 4096, found {number}");
        self.wrong(name, expr.span, &value, &reason, None);
        None
    }

    pub(crate) fn strings(self, name: &str) -> Option<Vec<String>> {
        let (value, _) = self.converted(name, &Type::List(Box::new(Type::String)))?;
        let items = &value.as_seq()?.items;
        let text = |item: &Value| item.as_str().map(str::to_owned);
        match items.iter().map(text).collect() {
            Some(texts) => Some(texts),
            None => {
                self.wrong(name, self.span(name), &value, "its elements can't be null", None);
                None
            }
        }
    }

    /// A program and its arguments: not empty.
    pub(crate) fn argv(self, name: &str) -> Option<Vec<String>> {
        let argv = self.strings(name)?;
        let bad = match argv.first() {
            None => Some("it names no program"),
            Some(program) if program.is_empty() => Some("the program's name is empty"),
            Some(_) if argv.iter().any(|a| a.contains('\0')) => Some("text can't hold a zero byte"),
            Some(_) => None,
        };
        match bad {
            None => Some(argv),
            Some(reason) => {
                let message = format!("`{name}` of {}: {reason}", self.owner);
                self.report(Problem::new("wrong-value", self.span(name), message));
                None
            }
        }
    }

    /// A map of strings.
    pub(crate) fn string_map(self, name: &str) -> Option<BTreeMap<String, String>> {
        let mut out = BTreeMap::new();
        for (key, value, span) in self.entries(name, "a map of strings")? {
            match Type::String.convert(value.clone()) {
                Ok(text) => {
                    if let Some(text) = text.as_str() {
                        out.insert(key, text.to_owned());
                    }
                }
                Err(reason) => {
                    let name = format!("{name}.{key}");
                    self.wrong(&name, span, &value, &reason, hint(&Type::String, &value));
                }
            }
        }
        Some(out)
    }

    /// The environment variables of a process.
    pub(crate) fn env(self, name: &str) -> Option<BTreeMap<String, String>> {
        let map = self.string_map(name)?;
        for (key, value) in &map {
            if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
                let message =
                    format!("`{name}` of {}: \"{key}\" can't be an environment variable", self.owner);
                self.report(Problem::new("wrong-value", self.span(name), message));
            }
        }
        Some(map)
    }

    /// The keys, values and places of an object.
    pub(crate) fn entries(self, name: &str, what: &str) -> Option<Vec<(String, Value, Span)>> {
        let (value, expr) = self.value(name)?;
        let Some(map) = value.as_map() else {
            let reason = format!("expected {what}, found {}", value.describe());
            self.wrong(name, expr.span, &value, &reason, Some(format!("write `{name} = {{ … }}`")));
            return None;
        };
        let entry = |(key, item): (&std::sync::Arc<str>, &Value)| {
            (key.to_string(), item.clone(), item_span(expr, key))
        };
        Some(map.items.iter().map(entry).collect())
    }

    /// An absolute path without `..`.
    pub(crate) fn absolute_path(self, name: &str) -> Option<String> {
        self.parsed(name, "\"/app\"", absolute_path)
    }

    /// A reference to a block of one of these kinds.
    pub(crate) fn reference(self, name: &str, kinds: &[&str], example: &str) -> Option<(Reference, Span)> {
        let (value, expr) = self.value(name)?;
        let reference = self.expect_reference(name, &value, expr.span, kinds, example)?;
        Some((reference, expr.span))
    }

    pub(crate) fn expect_reference(
        self,
        name: &str,
        value: &Value,
        span: Span,
        kinds: &[&str],
        example: &str,
    ) -> Option<Reference> {
        match &value.kind {
            Kind::Ref(reference) if kinds.contains(&reference.kind) => Some(reference.clone()),
            kind => {
                let help = match kind {
                    Kind::Map(map) if map.items.values().any(Value::has_reference) => {
                        "it has `for_each`: say which one, as in `[each.key]`".to_owned()
                    }
                    Kind::String(_) => format!("write the name without quotes: `{example}`"),
                    _ => format!("write `{example}`"),
                };
                let reason = format!("expected `{example}`, found {}", value.describe());
                self.wrong(name, span, value, &reason, Some(help));
                None
            }
        }
    }
}

pub(crate) fn positive_size(text: &str) -> Result<ByteSize, String> {
    match parse_size(text)? {
        ByteSize(0) => Err("it must be more than nothing".to_owned()),
        size => Ok(size),
    }
}

/// Checks an absolute path; a `/` at the end is dropped.
pub(crate) fn absolute_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("\"{text}\" is not absolute; begin it with `/`"));
    }
    if text.contains('\0') || text.split('/').any(|part| part == ".." || part == ".") {
        return Err(format!("\"{text}\" holds `.` or `..`"));
    }
    let trimmed = text.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() })
}

/// What helps with common mix-ups.
fn hint(ty: &Type, value: &Value) -> Option<String> {
    match (ty, &value.kind) {
        (Type::List(_), Kind::String(_)) => Some(
            "write a list, as in `[\"program\", \"argument\"]`; for a shell: `[\"/bin/sh\", \"-c\", \"…\"]`"
                .to_owned(),
        ),
        (Type::String, Kind::Ref(r)) if r.kind == "service" && r.port.is_none() => {
            Some(format!("use its address: `service.{}.url`", r.name))
        }
        (Type::String, Kind::Ref(r)) if r.kind == "secret" => Some(
            "a secret is read from a file: `secrets = { \"/run/secrets/NAME\" = secret.NAME }`".to_owned(),
        ),
        _ => None,
    }
}

/// The place of a key's value in an object that is written out, else that of the whole.
fn item_span(expr: &Expr, key: &str) -> Span {
    match &expr.kind {
        ExprKind::Object(items) => {
            let found = items.iter().find(|(k, _)| k.as_literal() == Some(key));
            found.map_or(expr.span, |(_, value)| value.span)
        }
        _ => expr.span,
    }
}

/// The first item of an object that is sensitive: its place, and where its value was written.
fn sensitive_item(expr: &Expr, value: &Value) -> Option<(Span, Span)> {
    let map = value.as_map().filter(|_| !value.marks.sensitive)?;
    let (key, item) = map.items.iter().find(|(_, v)| v.all_marks().sensitive)?;
    Some((item_span(expr, key), item.origin))
}
