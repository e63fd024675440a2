//! Variables: where their values come from, their types and what must hold for them.

use std::collections::BTreeMap;

use kiln_model::{EnvName, VariableName};

use crate::declare::{Declarations, Variable, attribute};
use crate::diagnostic::{Problem, Problems, Sink};
use crate::eval::{Evaluator, Names, Scopes, fail};
use crate::functions;
use crate::graph::is_environment_scoped;
use crate::parse::parse_expression;
use crate::references::{Found, visit};
use crate::resolve::{Node, Resolver};
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::{Block, Expr, ExprKind, Step};
use crate::types::{Type, parse_type};
use crate::value::{Kind, Reference, Value};

/// A variable's value as text from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawValue {
    /// The text: a string as it is, any other type as HCL writes it.
    pub text: String,
    /// Where it was given.
    pub origin: RawOrigin,
}

/// Where a variable was given from outside of the stack folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RawOrigin {
    /// `-var NAME=…`: goes before all else.
    Flag,
    /// The environment variable `KILN_VAR_NAME`: goes before the default alone.
    EnvironmentVariable,
    /// A release that it was sealed in, as JSON: goes before the default alone, since a flag or `KILN_VAR_NAME` set it then.
    Release,
}

/// What a `variable` block says.
pub(crate) struct Declaration {
    pub(crate) ty: Type,
    pub(crate) environment: bool,
    pub(crate) sensitive: bool,
}

/// Names in expressions that may have none: defaults, and the values of environments.
pub(crate) struct NoNames(pub(crate) &'static str);

impl Names for NoNames {
    fn resolve(&self, root: &str, span: Span, _steps: &[Step]) -> Result<(Value, usize), Problems> {
        let problem =
            Problem::new("reference-not-allowed", span, format!("{} can't refer to anything", self.0));
        let problem = match root {
            "var" | "local" | "config" => {
                problem.help("use a `local` for values that are derived from others")
            }
            _ => problem.help("text is written in quotes"),
        };
        fail(problem)
    }

    fn attribute(&self, _: &Reference, _: &str, _: Span) -> Result<Value, Problems> {
        Err(Vec::new())
    }
}

/// Reads a declaration. What is wrong is reported and replaced by what lets the rest go on.
pub(crate) fn declaration(block: &Block, eval: &Evaluator<'_>, sink: &mut Sink) -> Declaration {
    let none = NoNames("a type's default");
    let ty = match attribute(&block.body, "type") {
        None => Type::Any,
        Some(a) => {
            let inner = eval.with_names(&none);
            let parsed = parse_type(&a.expr, &|e| inner.eval(e, None));
            eval.absorb(&inner);
            sink.take(parsed).unwrap_or(Type::Any)
        }
    };
    if let Some(scope) = attribute(&block.body, "scope")
        && !matches!(scope.expr.as_literal(), Some("stack" | "environment"))
    {
        let message = "`scope` is \"stack\" or \"environment\"";
        sink.push(Problem::new("wrong-value", scope.expr.span, message));
    }
    if let Some(description) = attribute(&block.body, "description")
        && description.expr.as_literal().is_none()
        && !matches!(description.expr.kind, ExprKind::Template(_))
    {
        let message = "`description` is text in quotes";
        sink.push(Problem::new("wrong-type", description.expr.span, message));
    }
    Declaration { ty, environment: is_environment_scoped(block), sensitive: is_sensitive(block, sink) }
}

/// Whether a variable is declared sensitive. Anything but `false` counts, so that a mistake hides too much.
pub(crate) fn says_sensitive(block: &Block) -> bool {
    attribute(&block.body, "sensitive").is_some_and(|a| !matches!(a.expr.kind, ExprKind::Bool(false)))
}

fn is_sensitive(block: &Block, sink: &mut Sink) -> bool {
    if let Some(a) = attribute(&block.body, "sensitive")
        && !matches!(a.expr.kind, ExprKind::Bool(_))
    {
        sink.push(Problem::new("wrong-type", a.expr.span, "`sensitive` is true or false"));
    }
    says_sensitive(block)
}

/// What the variables of one environment are set from.
pub(crate) struct Sources<'a> {
    pub(crate) raw: &'a BTreeMap<String, RawValue>,
    /// The values of the chosen environment's block.
    pub(crate) environment: BTreeMap<&'a str, &'a Expr>,
    pub(crate) env: &'a EnvName,
}

impl<'a> Sources<'a> {
    /// Finds the chosen environment's block, and checks all of them. Reports what sets a variable that doesn't exist.
    pub(crate) fn collect(
        declared: &Declarations<'a>,
        raw: &'a BTreeMap<String, RawValue>,
        env: &'a EnvName,
        sink: &mut Sink,
    ) -> Self {
        let mut environment = BTreeMap::new();
        for block in &declared.environments {
            let values = environment_values(declared, block, sink);
            if block.labels.first().is_some_and(|(name, _)| &**name == env.as_str()) {
                environment = values;
            }
        }
        for (name, value) in raw {
            if value.origin == RawOrigin::Flag && declared.variable(name).is_none() {
                let known = declared.variables.iter().map(|v| &*v.name);
                let message = format!("-var {name}: there is no `variable \"{name}\"`");
                sink.push(
                    Problem::new("unknown-variable", Span::NONE, message)
                        .maybe_help(did_you_mean(name, known)),
                );
            }
        }
        Self { raw, environment, env }
    }
}

fn environment_values<'a>(
    declared: &Declarations<'a>,
    block: &'a Block,
    sink: &mut Sink,
) -> BTreeMap<&'a str, &'a Expr> {
    let mut values = BTreeMap::new();
    let Some(variables) = attribute(&block.body, "variables") else { return values };
    let ExprKind::Object(items) = &variables.expr.kind else {
        let message = "`variables` is an object, written as `{ name = value }`";
        sink.push(Problem::new("wrong-type", variables.expr.span, message));
        return values;
    };
    for (key, value) in items {
        let Some(name) = key.as_literal() else {
            sink.push(Problem::new("wrong-type", key.span, "the name of a variable is a plain word"));
            continue;
        };
        visit(value, &mut |found| {
            if let Found::Call(call) = found
                && functions::find(&call.name).is_none()
            {
                sink.push(functions::unknown(call));
            }
        });
        match declared.variable(name).map(|i| &declared.variables[i]) {
            Some(variable) if is_environment_scoped(variable.block) => {
                values.insert(name, value);
            }
            Some(variable) => {
                let message = format!("`var.{name}` is not decided by environments");
                let problem = Problem::new("not-environment-scoped", key.span, message)
                    .help("declare it with `scope = \"environment\"`");
                sink.push(problem.also(variable.block.header(), "declared here"));
            }
            None => {
                let known = declared.variables.iter().map(|v| &*v.name);
                let message = format!("there is no `variable \"{name}\"`");
                let problem = Problem::new("unknown-variable", key.span, message);
                sink.push(problem.maybe_help(did_you_mean(name, known)));
            }
        }
    }
    values
}

/// Finds the value of a variable.
pub(crate) fn value_of(
    variable: &Variable<'_>,
    declaration: &Declaration,
    sources: &Sources<'_>,
    eval: &Evaluator<'_>,
) -> Result<Value, Problems> {
    let raw = |origin| sources.raw.get(&*variable.name).filter(|r| r.origin == origin);
    let value = if let Some(raw) = raw(RawOrigin::Flag) {
        from_text(variable, declaration, raw, eval)?
    } else if let Some(expr) = sources.environment.get(&*variable.name) {
        constant(expr, "the value of an environment", declaration, eval)?
    } else if let Some(raw) = raw(RawOrigin::EnvironmentVariable).or_else(|| raw(RawOrigin::Release)) {
        from_text(variable, declaration, raw, eval)?
    } else if let Some(default) = attribute(&variable.block.body, "default") {
        constant(&default.expr, "a default", declaration, eval)?
    } else {
        let name = &variable.name;
        let message = format!("`var.{name}` is not set");
        let mut help = format!("set it with `-var {name}=…`, with KILN_VAR_{name}, or give it a default");
        if declaration.environment {
            help =
                format!("{help}; or in `environment \"{}\" {{ variables = {{ {name} = … }} }}`", sources.env);
        }
        return fail(Problem::new("variable-not-set", variable.block.header(), message).help(help));
    };
    let mut value = value;
    value.marks.sensitive |= declaration.sensitive;
    Ok(value)
}

fn constant(
    expr: &Expr,
    what: &'static str,
    declaration: &Declaration,
    eval: &Evaluator<'_>,
) -> Result<Value, Problems> {
    let names = NoNames(what);
    let inner = eval.with_names(&names);
    let value = inner.eval(expr, None);
    eval.absorb(&inner);
    let mut value = value?;
    value.marks.sensitive |= declaration.sensitive;
    eval.convert(value, &declaration.ty, expr.span, what)
}

fn from_text(
    variable: &Variable<'_>,
    declaration: &Declaration,
    raw: &RawValue,
    eval: &Evaluator<'_>,
) -> Result<Value, Problems> {
    let name = &variable.name;
    let from = match raw.origin {
        RawOrigin::Flag => format!("-var {name}"),
        RawOrigin::EnvironmentVariable => format!("KILN_VAR_{name}"),
        RawOrigin::Release => format!("{name} as it was sealed"),
    };
    let bad = |reason: String| {
        let reason =
            if declaration.sensitive { "the value does not fit its type".to_owned() } else { reason };
        let problem = Problem::new("wrong-type", variable.block.header(), format!("{from}: {reason}"))
            .label(format!("declared as {}", declaration.ty));
        vec![problem]
    };
    let value = match declaration.ty {
        _ if raw.origin == RawOrigin::Release => functions::decode_json(&raw.text).map_err(bad)?,
        Type::Any | Type::String | Type::Number | Type::Bool => Value::string(&raw.text),
        _ => {
            let expr = parse_expression(&raw.text).map_err(bad)?;
            let names = NoNames("the value of a variable");
            let inner = eval.with_names(&names);
            let value = inner.eval(&expr, None);
            eval.absorb(&inner);
            value.map_err(|p| bad(p.into_iter().map(|p| p.message).collect::<Vec<_>>().join("; ")))?
        }
    };
    declaration.ty.convert(value).map(|v| v.at(Span::NONE)).map_err(bad)
}

/// Checks what must hold for the variables.
pub(crate) fn validate(resolver: &Resolver<'_>, eval: &Evaluator<'_>, sink: &mut Sink) {
    for (i, variable) in resolver.declared.variables.iter().enumerate() {
        let Ok(value) = resolver.value(Node::Variable(i)) else { continue };
        for block in variable.block.body.blocks.iter().filter(|b| &*b.kind == "validation") {
            let checked = check(variable, &value, block, eval);
            sink.take(checked);
        }
    }
}

fn check(
    variable: &Variable<'_>,
    value: &Value,
    block: &Block,
    eval: &Evaluator<'_>,
) -> Result<(), Problems> {
    let (Some(condition), Some(message)) =
        (attribute(&block.body, "condition"), attribute(&block.body, "error_message"))
    else {
        return Err(Vec::new());
    };
    let scopes: Scopes<'_> = None;
    let holds = eval.eval(&condition.expr, scopes)?;
    if eval.operand_bool(holds, condition.expr.span, "the condition")? {
        return Ok(());
    }
    let text = eval.eval(&message.expr, scopes)?;
    let text = eval.text(&text, message.expr.span, "the message")?;
    let shown = match &text.kind {
        Kind::String(shown) if !text.marks.sensitive => shown.to_string(),
        _ => "a condition on it does not hold (the message holds a sensitive value)".to_owned(),
    };
    let problem =
        Problem::new("validation", condition.expr.span, format!("`var.{}`: {shown}", variable.name))
            .label("this does not hold");
    fail(problem.also(value.origin, "the value comes from here"))
}

/// What the release and the binding say of the variables.
pub(crate) struct Holes {
    pub(crate) holes: BTreeMap<VariableName, String>,
    pub(crate) bound: BTreeMap<VariableName, String>,
    /// What came from outside and is no environment's affair: none for what is sensitive.
    pub(crate) given: BTreeMap<VariableName, Option<String>>,
}

/// Collects the holes, what fills them, and what the release has to keep beside its source.
pub(crate) fn holes(
    resolver: &Resolver<'_>,
    declarations: &[Declaration],
    sources: &Sources<'_>,
    sink: &mut Sink,
) -> Holes {
    let mut out = Holes { holes: BTreeMap::new(), bound: BTreeMap::new(), given: BTreeMap::new() };
    for (i, variable) in resolver.declared.variables.iter().enumerate() {
        let Ok(name) = VariableName::new(&*variable.name) else { continue };
        let Some(declaration) = declarations.get(i) else { continue };
        if declaration.environment {
            out.holes.insert(name.clone(), declaration.ty.to_string());
        } else if !sources.raw.contains_key(&*variable.name) {
            continue;
        }
        let Ok(value) = resolver.value(Node::Variable(i)) else { continue };
        let json = match value.all_marks().sensitive {
            true => None,
            false => match functions::encode_json(&value) {
                Ok(json) => Some(json),
                Err(reason) => {
                    sink.push(Problem::new("too-large", variable.block.header(), reason));
                    continue;
                }
            },
        };
        match (declaration.environment, json) {
            (true, Some(json)) => drop(out.bound.insert(name, json)),
            (true, None) => {}
            (false, json) => drop(out.given.insert(name, json)),
        }
    }
    out
}
