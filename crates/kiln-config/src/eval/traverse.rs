//! Attributes, indexes and splats.

use super::{Evaluator, Scopes, all, fail, lookup, null_problem, written_at};
use crate::diagnostic::{Problem, Problems};
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::{Expr, ExprKind, Step, StepKind};
use crate::types::Type;
use crate::value::{Kind, Marks, SeqKind, Value};

impl Evaluator<'_> {
    pub(super) fn traversal(
        &self,
        base: &Expr,
        steps: &[Step],
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        if let ExprKind::Variable(name) = &base.kind
            && lookup(scopes, name).is_none()
        {
            let (value, used) = self.names.resolve(name, base.span, steps)?;
            return self.steps(value, &steps[used..], scopes);
        }
        let value = self.eval(base, scopes)?;
        self.steps(value, steps, scopes)
    }

    fn steps(&self, mut value: Value, steps: &[Step], scopes: Scopes<'_>) -> Result<Value, Problems> {
        for (i, step) in steps.iter().enumerate() {
            self.spend(1, step.span)?;
            value = match &step.kind {
                StepKind::Attr(name) => self.attribute(&value, name, step.span)?,
                StepKind::Index(key) => {
                    let index = self.eval(key, scopes)?;
                    self.index(&value, index, step.span)?
                }
                StepKind::FullSplat => {
                    return self.splat(&value, &steps[i + 1..], step.span, scopes);
                }
                StepKind::AttrSplat => {
                    let rest = &steps[i + 1..];
                    let taken = rest.iter().take_while(|s| matches!(s.kind, StepKind::Attr(_))).count();
                    let each = self.splat(&value, &rest[..taken], step.span, scopes)?;
                    return self.steps(each, &rest[taken..], scopes);
                }
            };
        }
        Ok(value)
    }

    /// Applies steps to each element. Null gives nothing, what is no list counts as a list of one.
    fn splat(&self, value: &Value, rest: &[Step], span: Span, scopes: Scopes<'_>) -> Result<Value, Problems> {
        let items: Vec<Value> = match &value.kind {
            Kind::Null => Vec::new(),
            Kind::Seq(seq) => seq.items.clone(),
            _ => vec![value.clone()],
        };
        self.spend(items.len() as u64, span)?;
        let items = all(items.into_iter().map(|item| self.steps(item, rest, scopes)))?;
        Ok(self.built(Value::tuple(items), span)?.at(span).marked(&value.marks))
    }

    fn attribute(&self, value: &Value, name: &str, span: Span) -> Result<Value, Problems> {
        match &value.kind {
            Kind::Map(map) => match map.items.get(name) {
                Some(item) => Ok(item.clone().marked(&value.marks)),
                None => {
                    // A suggestion looks at every key.
                    self.spend(map.items.len() as u64, span)?;
                    let known = map.items.keys().map(|k| &**k);
                    let many = map.items.iter().next().filter(|(_, v)| matches!(v.kind, Kind::Ref(_)));
                    let help = match many {
                        _ if value.marks.sensitive => None,
                        Some((key, _)) => {
                            Some(format!("it has `for_each`: say which one, as in `[\"{key}\"].{name}`"))
                        }
                        None => did_you_mean(name, known),
                    };
                    let message = format!("{} has no attribute `{name}`", value.describe());
                    let problem = Problem::new("unknown-attribute", span, message).maybe_help(help);
                    fail(written_at(problem, span, value.origin))
                }
            },
            Kind::Ref(reference) => self.names.attribute(reference, name, span),
            Kind::Null => fail(null_problem(span, &format!("what `{name}` is taken of"))),
            Kind::Seq(_) => {
                let message = format!("{} has no attributes", value.describe());
                let problem = Problem::new("unknown-attribute", span, message);
                fail(problem.help(format!("take `{name}` of each element with `[*].{name}`")))
            }
            _ => {
                let message = format!("{} has no attributes", value.describe());
                fail(written_at(Problem::new("unknown-attribute", span, message), span, value.origin))
            }
        }
    }

    pub(crate) fn index(&self, value: &Value, index: Value, span: Span) -> Result<Value, Problems> {
        let marks = value.marks.join(&index.marks);
        match &value.kind {
            Kind::Seq(seq) if seq.kind != SeqKind::Set => {
                let number = self.operand_number(index, span, "an index")?;
                let item = number.to_int::<usize>().and_then(|i| seq.items.get(i));
                match item {
                    Some(item) => Ok(item.clone().marked(&marks)),
                    None => fail(out_of_range(seq.items.len(), &number.to_string(), &marks, span)),
                }
            }
            Kind::Map(map) => {
                let key = self.convert(index, &Type::String, span, "a key")?;
                let Some(text) = key.as_str() else { return fail(null_problem(span, "a key")) };
                match map.items.get(text) {
                    Some(item) => Ok(item.clone().marked(&marks)),
                    None if marks.sensitive => {
                        fail(Problem::new("no-such-key", span, "there is no such key in it"))
                    }
                    None => {
                        self.spend(map.items.len() as u64, span)?;
                        let message = format!("{} has no key \"{text}\"", value.describe());
                        let help = did_you_mean(text, map.items.keys().map(|k| &**k));
                        fail(Problem::new("no-such-key", span, message).maybe_help(help))
                    }
                }
            }
            Kind::Seq(_) => {
                let problem = Problem::new("wrong-type", span, "a set has no order, so it can't be indexed");
                fail(problem.help("use `tolist(…)`, or `contains(…)` to test for an element"))
            }
            Kind::Null => fail(null_problem(span, "what is indexed")),
            Kind::Ref(reference) => {
                let message = format!("{} has no `for_each`, so it can't be indexed", reference.describe());
                fail(Problem::new("wrong-type", span, message))
            }
            _ => {
                let message = format!("{} can't be indexed", value.describe());
                fail(written_at(Problem::new("wrong-type", span, message), span, value.origin))
            }
        }
    }
}

fn out_of_range(length: usize, index: &str, marks: &Marks, span: Span) -> Problem {
    let message = match (marks.sensitive, length) {
        (true, _) => "the index is out of range".to_owned(),
        (false, 0) => format!("index {index} is out of range: the list is empty"),
        (false, 1) => format!("index {index} is out of range: the list has 1 element"),
        (false, n) => format!("index {index} is out of range: the list has {n} elements"),
    };
    Problem::new("no-such-key", span, message)
}
