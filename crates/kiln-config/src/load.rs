//! Text to stack.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use kiln_model::stack::Stack;
use kiln_model::{EnvName, StackName, Timestamp};

use crate::build;
use crate::declare::{Declarations, attribute};
use crate::diagnostic::{Diagnostic, Problem, Problems, Severity, Sink};
use crate::eval::{Evaluator, Scope, fail};
use crate::files::Files;
use crate::graph::{Graph, is_environment_scoped};
use crate::parse::parse_file;
use crate::reader::Context;
use crate::references::{Found, visit};
use crate::resolve::{Elements, Node, Resolver};
use crate::schema;
use crate::source::{SourceSet, Span};
use crate::suggest::nearest;
use crate::syntax::{Block, Body, Expr, ExprKind, Part};
use crate::types::Type;
use crate::value::{Kind, SeqKind, Value};
use crate::variables::{self, Declaration, RawValue, Sources};

/// Nobody reads more errors, and a generated stack may have a hundred thousand.
const PROBLEMS_MAX: usize = 100;

/// What a stack is resolved for and from.
pub struct Request<'a> {
    /// The environment.
    pub env: EnvName,
    /// Variables given from outside of the stack folder.
    pub variables: BTreeMap<String, RawValue>,
    /// The files below the stack folder.
    pub files: &'a dyn Files,
    /// When the lock was made: the only time that a stack can see.
    pub lock_time: Timestamp,
}

/// What came of loading.
#[derive(Debug)]
pub struct Loaded {
    /// The stack; none if there is an error.
    pub stack: Option<Stack>,
    /// All that is wrong, in the order of the source.
    pub diagnostics: Vec<Diagnostic>,
    /// Where images of folders and files are named, which whoever has a disk may look for.
    pub image_files: Vec<ImageFile>,
}

/// A place that names an image of a folder or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFile {
    /// The name, as the stack has it.
    pub name: String,
    /// The file that names it.
    pub file: String,
    /// Where in that.
    pub span: Range<usize>,
}

impl Loaded {
    /// Whether an error was found.
    pub fn has_errors(&self) -> bool {
        self.diagnostics.iter().any(|d| d.severity == Severity::Error)
    }
}

/// Resolves a stack folder for one environment. Finds all errors at once. Does no I/O but through `request.files`.
pub fn load(sources: &SourceSet, request: &Request<'_>) -> Loaded {
    let sink = RefCell::new(Sink::default());
    let (bodies, broken) = parse_all(sources, &sink);
    let redacted = Arc::new(redactions(sources, &bodies, &broken));
    let declared = Declarations::collect(&bodies, &mut sink.borrow_mut());
    let stack = resolve(&declared, request, &sink);
    if !broken.is_empty() {
        // What is missing may stand in a part that could not be read.
        sink.borrow_mut().drop_codes(&["unknown-name", "unknown-variable", "missing-stack", "no-port"]);
    }
    let stack = stack.filter(|_| !sink.borrow().has_errors());
    let mut sink = sink.into_inner();
    let image_files = image_files(&mut sink, sources);
    let total = sink.len();
    let mut problems = sink.into_sorted();
    if total > PROBLEMS_MAX {
        problems.truncate(PROBLEMS_MAX);
        let message = format!("{} more problems are not shown", total - PROBLEMS_MAX);
        problems.push(Problem::new("more", Span::NONE, message));
    }
    let diagnostics = problems.into_iter().map(|p| p.resolve(sources, &redacted)).collect();
    Loaded { stack, diagnostics, image_files }
}

fn image_files(sink: &mut Sink, sources: &SourceSet) -> Vec<ImageFile> {
    let place = |(name, span): (String, Span)| {
        let file = sources.file(span.file)?.path.clone();
        Some(ImageFile { name, file, span: span.start as usize..span.end as usize })
    };
    std::mem::take(&mut sink.image_files).into_iter().filter_map(place).collect()
}

/// Checks syntax and the names of blocks and attributes alone: for text that is only part of a stack.
pub fn check_fragment(sources: &SourceSet) -> Vec<Diagnostic> {
    let sink = RefCell::new(Sink::default());
    let (bodies, broken) = parse_all(sources, &sink);
    let redacted = Arc::new(redactions(sources, &bodies, &broken));
    let problems = sink.into_inner().into_sorted();
    problems.into_iter().map(|p| p.resolve(sources, &redacted)).collect()
}

/// Parses all files, and checks names. Returns the paths of files with syntax errors beside.
fn parse_all(sources: &SourceSet, sink: &RefCell<Sink>) -> (Vec<Body>, Vec<String>) {
    let mut sink = sink.borrow_mut();
    let mut broken = Vec::new();
    let mut bodies = Vec::new();
    for (id, file) in sources.files() {
        let (body, problems) = parse_file(id, file);
        if !problems.is_empty() {
            broken.push(file.path.clone());
        }
        sink.extend(problems);
        schema::check_file(&body, &mut sink);
        bodies.push(body);
    }
    (bodies, broken)
}

fn resolve(declared: &Declarations<'_>, request: &Request<'_>, sink: &RefCell<Sink>) -> Option<Stack> {
    let name = match &declared.stack {
        Some((text, span)) => match StackName::new(&**text) {
            Ok(name) => name,
            Err(error) => {
                sink.borrow_mut().push(Problem::new("invalid-name", *span, error.to_string()));
                stand_in_name()
            }
        },
        None => stand_in_name(),
    };
    let resolver = Resolver::new(declared, name);
    let scoped: Vec<usize> = {
        let variables = declared.variables.iter().enumerate();
        variables.filter(|(_, v)| is_environment_scoped(v.block)).map(|(i, _)| i).collect()
    };
    let graph = Graph::build(&resolver, &scoped, &mut sink.borrow_mut());
    let eval = Evaluator::new(&resolver, request.files, request.lock_time);
    let declarations: Vec<Declaration> = {
        let mut sink = sink.borrow_mut();
        declared.variables.iter().map(|v| variables::declaration(v.block, &eval, &mut sink)).collect()
    };
    let raw = Sources::collect(declared, &request.variables, &request.env, &mut sink.borrow_mut());
    warn_of_undeclared(declared, &request.env, sink);
    for node in &graph.order {
        let known = !graph.cyclic.contains(node);
        let value = known.then(|| compute(*node, &resolver, &eval, &declarations, &raw)).transpose();
        let value = sink.borrow_mut().take(value).flatten();
        resolver.set(*node, value);
    }
    variables::validate(&resolver, &eval, &mut sink.borrow_mut());
    let holes = variables::holes(&resolver, &declarations, &raw, &mut sink.borrow_mut());
    let context = Context { resolver: &resolver, eval: &eval, graph: &graph, sink };
    Some(build::stack(&context, &request.env, holes))
}

/// Names in URLs while the real one is missing; the error is reported already, and no stack is returned.
fn stand_in_name() -> StackName {
    StackName::new("unnamed").expect("the literal follows the rule")
}

/// `--env prdo` would otherwise run a stack with defaults.
fn warn_of_undeclared(declared: &Declarations<'_>, env: &EnvName, sink: &RefCell<Sink>) {
    let names: Vec<&str> =
        declared.environments.iter().filter_map(|b| b.labels.first()).map(|l| &*l.0).collect();
    if names.contains(&env.as_str()) {
        return;
    }
    if let Some(near) = nearest(env.as_str(), names.iter().copied()) {
        let message = format!("no `environment \"{env}\"` is declared, its variables have their defaults");
        let problem = Problem::new("undeclared-environment", Span::NONE, message);
        sink.borrow_mut().push(problem.warning().help(format!("did you mean `{near}`?")));
    }
}

fn compute(
    node: Node,
    resolver: &Resolver<'_>,
    eval: &Evaluator<'_>,
    declarations: &[Declaration],
    sources: &Sources<'_>,
) -> Result<Value, Problems> {
    let declared = resolver.declared;
    match node {
        Node::Variable(i) => {
            let declaration = declarations.get(i).ok_or_else(Vec::new)?;
            variables::value_of(&declared.variables[i], declaration, sources, eval)
        }
        Node::Local(i) => eval.eval(&declared.locals[i].attribute.expr, None),
        Node::ConfigKey(b, k) => {
            eval.eval(&declared.of_kind("config")[b].block.body.attributes[k].expr, None)
        }
        Node::ForEach(kind, b) => {
            let Some(for_each) = declared.of_kind(kind)[b].for_each else { return Err(Vec::new()) };
            let elements = elements(for_each, eval)?;
            let value = resolver.references(kind, b, &elements)?;
            resolver.set_elements(node, Some(elements));
            Ok(value)
        }
        Node::ConfigMap(b) => {
            let config = &declared.of_kind("config")[b];
            let Some(for_each) = config.for_each else { return Err(Vec::new()) };
            let elements = elements(for_each, eval)?;
            let mut out = BTreeMap::new();
            for (key, value) in elements.iter() {
                out.insert(key.clone(), config_instance(config.block, key, value, eval)?);
            }
            resolver.set_elements(node, Some(elements));
            eval.built(Value::object(out), config.block.header())
        }
    }
}

fn config_instance(
    block: &Block,
    key: &Arc<str>,
    value: &Value,
    eval: &Evaluator<'_>,
) -> Result<Value, Problems> {
    let each = BTreeMap::from([(Arc::from("key"), Value::string(key)), (Arc::from("value"), value.clone())]);
    let each = eval.built(Value::object(each), block.header())?;
    let scope = Scope { outer: None, name: "each", value: &each };
    let mut keys = BTreeMap::new();
    for attribute in block.body.attributes.iter().filter(|a| &*a.name != "for_each") {
        keys.insert(attribute.name.clone(), eval.eval(&attribute.expr, Some(&scope))?);
    }
    eval.built(Value::object(keys), block.header())
}

/// The elements of a `for_each`: a map, an object, or a set of strings.
fn elements(expr: &Expr, eval: &Evaluator<'_>) -> Result<Elements, Problems> {
    let value = eval.eval(expr, None)?;
    if value.marks.sensitive {
        let message = "`for_each` can't be sensitive: its keys become names";
        return fail(Problem::new("sensitive-value", expr.span, message));
    }
    let marks = value.marks.clone();
    match &value.kind {
        Kind::Map(map) => {
            Ok(Arc::new(map.items.iter().map(|(k, v)| (k.clone(), v.clone().marked(&marks))).collect()))
        }
        Kind::Seq(seq) if seq.kind == SeqKind::Set || seq.items.is_empty() => {
            let mut out = BTreeMap::new();
            for item in &seq.items {
                if item.marks.sensitive {
                    let message = "`for_each` can't be sensitive: its keys become names";
                    return fail(Problem::new("sensitive-value", expr.span, message));
                }
                let text =
                    eval.convert(item.clone(), &Type::String, expr.span, "an element of `for_each`")?;
                let Some(key) = text.as_str() else {
                    return fail(Problem::new("null-value", expr.span, "an element of `for_each` is null"));
                };
                out.insert(Arc::from(key), item.clone());
            }
            Ok(Arc::new(out))
        }
        Kind::Seq(_) => {
            let message = "`for_each` takes a map or a set of strings, found a list";
            let help = "write `toset([…])`: the elements become names, so each must be there once";
            fail(Problem::new("wrong-type", expr.span, message).help(help))
        }
        _ => {
            let message = format!("`for_each` takes a map or a set of strings, found {}", value.describe());
            fail(Problem::new("wrong-type", expr.span, message))
        }
    }
}

/// Where the source holds sensitive text that no diagnostic may show.
fn redactions(sources: &SourceSet, bodies: &[Body], broken: &[String]) -> Vec<(String, Range<usize>)> {
    let mut spans: Vec<Span> = Vec::new();
    let mut sensitive: Vec<&str> = Vec::new();
    let blocks = || bodies.iter().flat_map(|b| &b.blocks);
    for block in blocks().filter(|b| &*b.kind == "variable" && variables::says_sensitive(b)) {
        sensitive.extend(block.labels.first().map(|l| &*l.0));
        spans.extend(attribute(&block.body, "default").map(|a| a.expr.span));
    }
    for block in blocks().filter(|b| &*b.kind == "environment") {
        if let Some(ExprKind::Object(items)) = attribute(&block.body, "variables").map(|a| &a.expr.kind) {
            let hidden = |(key, _): &&(Expr, Expr)| key.as_literal().is_some_and(|k| sensitive.contains(&k));
            spans.extend(items.iter().filter(hidden).map(|(_, value)| value.span));
        }
    }
    for body in bodies {
        sensitive_calls(body, &mut spans);
    }
    let path = |span: &Span| sources.file(span.file).map(|f| f.path.clone());
    let mut out: Vec<(String, Range<usize>)> =
        spans.iter().filter_map(|s| Some((path(s)?, s.start as usize..s.end as usize))).collect();
    for file in broken {
        out.extend(strings_near_sensitive(file, sources));
    }
    out
}

/// The literals within `sensitive(…)`.
fn sensitive_calls(body: &Body, spans: &mut Vec<Span>) {
    for attribute in &body.attributes {
        visit(&attribute.expr, &mut |found| {
            if let Found::Call(call) = found
                && &*call.name == "sensitive"
            {
                spans.extend(call.args.iter().filter(|a| is_literal(a)).map(|a| a.span));
            }
        });
    }
    for block in &body.blocks {
        sensitive_calls(&block.body, spans);
    }
}

fn is_literal(expr: &Expr) -> bool {
    match &expr.kind {
        ExprKind::String(_) | ExprKind::Number(_) | ExprKind::Object(_) | ExprKind::Tuple(_) => true,
        ExprKind::Template(parts) => parts.iter().any(|p| matches!(p, Part::Literal(_))),
        _ => false,
    }
}

/// In a file that can't be parsed, what is sensitive can't be told: if it says the word, no string is shown.
pub(crate) fn strings_near_sensitive(path: &str, sources: &SourceSet) -> Vec<(String, Range<usize>)> {
    let Some(text) = sources.text(path).filter(|t| t.contains("sensitive")) else { return Vec::new() };
    let (tokens, _) = crate::lex::lex(text);
    let hidden = tokens
        .into_iter()
        .filter(|t| matches!(t.kind, crate::lex::TokenKind::Quoted | crate::lex::TokenKind::Heredoc));
    hidden.map(|t| (path.to_owned(), t.range)).collect()
}
