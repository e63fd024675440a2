//! Evaluates expressions. HCL 2's rules as Terraform applies them, within named bounds, with the place of every error.

mod comprehension;
mod operate;
mod template;
mod traverse;

#[cfg(test)]
mod tests;

use std::cell::Cell;

use kiln_model::Timestamp;

use crate::diagnostic::{Problem, Problems};
use crate::files::Files;
use crate::functions;
use crate::source::Span;
use crate::syntax::{Call, Expr, ExprKind, Part, Step};
use crate::types::Type;
use crate::value::{Kind, Reference, STRING_BYTES_MAX, TooLarge, Value};

/// A stack of 10,000 services takes well under a million steps; a hostile one is stopped within a second or two.
const STEPS_MAX: u64 = 5_000_000;

/// `templatefile` and `templatestring` within each other: each level nests a whole evaluation on the stack.
const TEMPLATE_NESTING_MAX: u32 = 8;

/// What names mean: `var.x`, `local.y`, `image.web`.
pub(crate) trait Names {
    /// Resolves a name that no `for` introduced, with the steps after it. Returns how many steps were used.
    fn resolve(&self, root: &str, span: Span, steps: &[Step]) -> Result<(Value, usize), Problems>;

    /// Returns an attribute of what a block declares, such as `url` of a service.
    fn attribute(&self, reference: &Reference, name: &str, span: Span) -> Result<Value, Problems>;
}

/// Evaluates expressions against names and files.
pub(crate) struct Evaluator<'a> {
    pub(crate) names: &'a dyn Names,
    pub(crate) files: &'a dyn Files,
    pub(crate) lock_time: Timestamp,
    steps: Cell<u64>,
    templates: Cell<u32>,
}

/// The names that `for` and `for_each` introduce, innermost first.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub(crate) outer: Option<&'a Scope<'a>>,
    pub(crate) name: &'a str,
    pub(crate) value: &'a Value,
}

pub(crate) type Scopes<'a> = Option<&'a Scope<'a>>;

fn lookup<'a>(mut scopes: Scopes<'a>, name: &str) -> Option<&'a Value> {
    while let Some(scope) = scopes {
        if scope.name == name {
            return Some(scope.value);
        }
        scopes = scope.outer;
    }
    None
}

pub(crate) fn fail<T>(problem: Problem) -> Result<T, Problems> {
    Err(vec![problem])
}

/// Joins results: all values, or all problems of all.
pub(crate) fn all<T>(results: impl Iterator<Item = Result<T, Problems>>) -> Result<Vec<T>, Problems> {
    let (mut values, mut problems, mut failed) = (Vec::new(), Vec::new(), false);
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(more) => {
                failed = true;
                problems.extend(more);
            }
        }
    }
    if failed { Err(problems) } else { Ok(values) }
}

impl<'a> Evaluator<'a> {
    pub(crate) fn new(names: &'a dyn Names, files: &'a dyn Files, lock_time: Timestamp) -> Self {
        Self { names, files, lock_time, steps: Cell::new(0), templates: Cell::new(0) }
    }

    /// The same bounds and files with other names.
    pub(crate) fn with_names<'b>(&'b self, names: &'b dyn Names) -> Evaluator<'b> {
        Evaluator {
            names,
            files: self.files,
            lock_time: self.lock_time,
            steps: Cell::new(self.steps.get()),
            templates: Cell::new(self.templates.get()),
        }
    }

    /// Takes over the steps that an evaluator made by [`Self::with_names`] used.
    pub(crate) fn absorb(&self, other: &Evaluator<'_>) {
        self.steps.set(other.steps.get());
    }

    /// Counts work. Every loop over data calls it.
    pub(crate) fn spend(&self, steps: u64, span: Span) -> Result<(), Problems> {
        let spent = self.steps.get().saturating_add(steps);
        self.steps.set(spent);
        if spent > STEPS_MAX {
            let message = format!("evaluating this stack takes more than {STEPS_MAX} steps");
            return fail(Problem::new("too-large", span, message).label("stopped here"));
        }
        Ok(())
    }

    pub(crate) fn eval(&self, expr: &Expr, scopes: Scopes<'_>) -> Result<Value, Problems> {
        self.spend(1, expr.span)?;
        let value = match &expr.kind {
            ExprKind::Null => Value::null(),
            ExprKind::Bool(value) => Value::bool(*value),
            ExprKind::Number(number) => Value::number(*number),
            ExprKind::String(text) => Value::new(Kind::String(text.clone())),
            ExprKind::Template(parts) => return self.template(parts, expr.span, scopes),
            ExprKind::Tuple(items) => {
                let items = all(items.iter().map(|i| self.eval(i, scopes)))?;
                self.built(Value::tuple(items), expr.span)?
            }
            ExprKind::Object(items) => self.object(items, expr.span, scopes)?,
            ExprKind::Variable(name) => match lookup(scopes, name) {
                Some(value) => return Ok(value.clone()),
                None => return self.names.resolve(name, expr.span, &[]).map(|(value, _)| value),
            },
            ExprKind::Traversal(base, steps) => return self.traversal(base, steps, scopes),
            ExprKind::Call(call) => return self.call(call, expr.span, scopes),
            ExprKind::Conditional(parts) => return self.conditional(parts, expr.span, scopes),
            ExprKind::Unary(operator, inner) => self.unary(*operator, inner, scopes)?,
            ExprKind::Binary(operator, at, sides) => {
                self.binary(*operator, sides, (expr.span, *at), scopes)?
            }
            ExprKind::For(for_expr) => self.comprehension(for_expr, expr.span, scopes)?,
        };
        Ok(value.at(expr.span))
    }

    fn object(&self, items: &[(Expr, Expr)], span: Span, scopes: Scopes<'_>) -> Result<Value, Problems> {
        let pairs = all(items.iter().map(|(key, value)| {
            let pair = all([self.eval(key, scopes), self.eval(value, scopes)].into_iter())?;
            let [name, value] = <[Value; 2]>::try_from(pair).expect("two results give two values");
            let marks = name.marks.clone();
            let name = self.convert(name, &Type::String, key.span, "a key")?;
            match name.as_str() {
                Some(text) => Ok((text.into(), value, marks)),
                None => fail(Problem::new("null-value", key.span, "a key can't be null")),
            }
        }))?;
        let mut marks = crate::value::Marks::default();
        let mut map = std::collections::BTreeMap::new();
        for (name, value, key_marks) in pairs {
            marks = marks.join(&key_marks);
            map.insert(name, value);
        }
        Ok(self.built(Value::object(map), span)?.marked(&marks))
    }

    /// Checks the size of what was built, and counts it.
    pub(crate) fn built(&self, value: Result<Value, TooLarge>, span: Span) -> Result<Value, Problems> {
        match value {
            Ok(value) => Ok(value),
            Err(TooLarge) => fail(too_large(span)),
        }
    }

    /// Converts, or says what was expected and found. Never shows content.
    pub(crate) fn convert(&self, value: Value, ty: &Type, span: Span, what: &str) -> Result<Value, Problems> {
        let (sensitive, origin) = (value.all_marks().sensitive, value.origin);
        ty.convert(value).map_err(|reason| {
            let reason = match sensitive {
                // The path into a value, or even its shape, may tell what it is.
                true => format!("expected {}, found a sensitive value that is none", ty.with_article()),
                false => reason,
            };
            let problem = Problem::new("wrong-type", span, format!("{what} has the wrong type: {reason}"))
                .label(format!("expected {}", ty.with_article()));
            vec![written_at(problem, span, origin)]
        })
    }

    /// Converts to a string; nothing for null.
    pub(crate) fn text(&self, value: &Value, span: Span, what: &str) -> Result<Value, Problems> {
        let text = self.convert(value.clone(), &Type::String, span, what)?;
        if text.is_null() {
            return fail(null_problem(span, what));
        }
        Ok(text)
    }

    fn call(&self, call: &Call, span: Span, scopes: Scopes<'_>) -> Result<Value, Problems> {
        let Some(function) = functions::find(&call.name) else {
            return fail(functions::unknown(call));
        };
        if let Some(lazy) = function.lazy() {
            return self.lazy(lazy, call, span, scopes);
        }
        let values = all(call.args.iter().map(|a| self.eval(a, scopes)))?;
        let mut spans: Vec<Span> = call.args.iter().map(|a| a.span).collect();
        let values = if call.expand { self.expand(values, &mut spans)? } else { values };
        function.run(self, call, span, &values, &spans)
    }

    /// `f(xs...)`: the elements of the last argument become arguments.
    fn expand(&self, mut values: Vec<Value>, spans: &mut Vec<Span>) -> Result<Vec<Value>, Problems> {
        let (Some(last), Some(span)) = (values.pop(), spans.pop()) else { return Ok(values) };
        let Some(seq) = last.as_seq() else {
            let message = format!("only a list can be expanded with `...`, found {}", last.describe());
            return fail(Problem::new("wrong-type", span, message));
        };
        self.spend(seq.items.len() as u64, span)?;
        for item in &seq.items {
            values.push(item.clone().marked(&last.marks));
            spans.push(span);
        }
        Ok(values)
    }

    /// `try` and `can`: an argument may fail.
    fn lazy(
        &self,
        lazy: functions::Lazy,
        call: &Call,
        span: Span,
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        if call.args.is_empty() || call.expand || (lazy == functions::Lazy::Can && call.args.len() > 1) {
            let message = format!("`{}` takes {}", call.name, lazy.takes());
            return fail(Problem::new("wrong-arguments", span, message));
        }
        let mut last = Vec::new();
        for arg in &call.args {
            match self.eval(arg, scopes) {
                Ok(value) if lazy == functions::Lazy::Try => return Ok(value),
                Ok(value) => return Ok(Value::bool(true).at(span).marked(&value.all_marks())),
                // No problem means that the cause is reported where it is; a name that doesn't exist, and work without
                // end, are mistakes in themselves.
                Err(problems) if problems.is_empty() || problems.iter().any(is_static) => {
                    return Err(problems);
                }
                Err(problems) => last = problems,
            }
        }
        match lazy {
            functions::Lazy::Try => Err(last),
            functions::Lazy::Can => Ok(Value::bool(false).at(span)),
        }
    }

    /// Renders a template file or string with names of its own.
    pub(crate) fn render(
        &self,
        text: &str,
        variables: &Value,
        span: Span,
        what: &str,
    ) -> Result<Value, Problems> {
        if self.templates.get() >= TEMPLATE_NESTING_MAX {
            let message = format!("templates render each other more than {TEMPLATE_NESTING_MAX} deep");
            return fail(Problem::new("too-large", span, message));
        }
        let parts: Vec<Part> = crate::parse::parse_template(text).map_err(|reason| {
            vec![Problem::new("syntax", span, format!("{what} can't be read: {reason}"))]
        })?;
        let names = TemplateNames { variables };
        let inner = self.with_names(&names);
        inner.templates.set(self.templates.get() + 1);
        let rendered = inner.template(&parts, span, None);
        self.absorb(&inner);
        // Places within the template belong to no file that diagnostics know: they point at the call.
        let rendered = rendered.map_err(|problems| {
            let at_call = |p: Problem| {
                Problem::new(p.code, span, format!("in {what}: {}", p.message)).maybe_help(p.help)
            };
            problems.into_iter().map(at_call).collect::<Problems>()
        })?;
        Ok(rendered.at(span))
    }
}

/// Whether a problem doesn't depend on values, so that `try` must not hide it.
fn is_static(problem: &Problem) -> bool {
    matches!(problem.code, "unknown-name" | "unknown-function" | "too-large")
}

/// The names within a template file: the variables that it was given.
struct TemplateNames<'a> {
    variables: &'a Value,
}

impl Names for TemplateNames<'_> {
    fn resolve(&self, root: &str, span: Span, _steps: &[Step]) -> Result<(Value, usize), Problems> {
        let found = self.variables.as_map().and_then(|m| m.items.get(root));
        match found {
            Some(value) => Ok((value.clone().marked(&self.variables.marks), 0)),
            None => {
                let message = format!("the template uses `{root}`, which it was not given");
                fail(Problem::new("template-variable", span, message))
            }
        }
    }

    fn attribute(&self, reference: &Reference, name: &str, span: Span) -> Result<Value, Problems> {
        let message = format!("`{name}` of {} can't be taken in a template", reference.describe());
        fail(Problem::new("unknown-attribute", span, message).help("take it outside and pass it in"))
    }
}

pub(crate) fn too_large(span: Span) -> Problem {
    let message = format!("this value is too large: at most {} elements", crate::value::WEIGHT_MAX);
    Problem::new("too-large", span, message).help(format!(
        "strings may have {} MiB, and values may nest {} deep",
        STRING_BYTES_MAX >> 20,
        crate::value::DEPTH_MAX
    ))
}

pub(crate) fn null_problem(span: Span, what: &str) -> Problem {
    Problem::new("null-value", span, format!("{what} can't be null"))
}

/// Shows where a value was written, if that is elsewhere.
pub(crate) fn written_at(problem: Problem, span: Span, origin: Span) -> Problem {
    let inside = origin.file == span.file && origin.start >= span.start && origin.end <= span.end;
    if inside || origin == Span::NONE { problem } else { problem.also(origin, "the value comes from here") }
}
