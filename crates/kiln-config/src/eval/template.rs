//! Templates: literals, interpolations and directives to one string.

use super::{Evaluator, Scope, Scopes, fail, too_large};
use crate::diagnostic::{Problem, Problems};
use crate::source::Span;
use crate::syntax::Part;
use crate::value::{Marks, STRING_BYTES_MAX, Value};

/// A string in the making.
#[derive(Default)]
struct Output {
    text: String,
    marks: Marks,
}

impl Evaluator<'_> {
    pub(super) fn template(&self, parts: &[Part], span: Span, scopes: Scopes<'_>) -> Result<Value, Problems> {
        // `"${x}"` is x itself, whatever its type.
        if let [Part::Expr(only)] = parts {
            return self.eval(only, scopes);
        }
        let mut out = Output::default();
        self.parts(parts, span, scopes, &mut out)?;
        Ok(Value::string(out.text).at(span).marked(&out.marks))
    }

    fn parts(
        &self,
        parts: &[Part],
        span: Span,
        scopes: Scopes<'_>,
        out: &mut Output,
    ) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut failed = false;
        for part in parts {
            if let Err(more) = self.part(part, span, scopes, out) {
                failed = true;
                problems.extend(more);
            }
        }
        if failed { Err(problems) } else { Ok(()) }
    }

    fn part(&self, part: &Part, span: Span, scopes: Scopes<'_>, out: &mut Output) -> Result<(), Problems> {
        match part {
            Part::Literal(text) => self.append(text, span, out),
            Part::Expr(expr) => {
                let value = self.eval(expr, scopes)?;
                let text = self.text(&value, expr.span, "what is put into a string")?;
                out.marks = out.marks.join(&text.marks);
                self.append(text.as_str().unwrap_or_default(), expr.span, out)
            }
            Part::If(condition, yes, no) => {
                let value = self.eval(condition, scopes)?;
                out.marks = out.marks.join(&value.marks);
                let taken = self.operand_bool(value, condition.span, "the condition")?;
                self.parts(if taken { yes } else { no }, span, scopes, out)
            }
            Part::For(each) => {
                let collection = self.eval(&each.collection, scopes)?;
                out.marks = out.marks.join(&collection.marks);
                for (key, value) in self.elements(&collection, each.collection.span)? {
                    self.spend(1, span)?;
                    let key_name = each.key_var.as_deref().unwrap_or_default();
                    let with_key = Scope { outer: scopes, name: key_name, value: &key };
                    let outer = if each.key_var.is_some() { Some(&with_key) } else { scopes };
                    let inner = Scope { outer, name: &each.value_var, value: &value };
                    self.parts(&each.body, span, Some(&inner), out)?;
                }
                Ok(())
            }
        }
    }

    fn append(&self, text: &str, span: Span, out: &mut Output) -> Result<(), Problems> {
        self.spend(1 + text.len() as u64 / 64, span)?;
        if out.text.len() + text.len() > STRING_BYTES_MAX {
            return fail(too_large(span));
        }
        out.text.push_str(text);
        Ok(())
    }

    /// The keys and values of a collection, for iteration.
    pub(crate) fn elements(&self, collection: &Value, span: Span) -> Result<Vec<(Value, Value)>, Problems> {
        use crate::value::{Kind, SeqKind};
        let marks = &collection.marks;
        match &collection.kind {
            Kind::Seq(seq) => {
                self.spend(seq.items.len() as u64, span)?;
                let pair = |(i, item): (usize, &Value)| {
                    let key = match seq.kind {
                        SeqKind::Set => item.clone(),
                        SeqKind::Tuple | SeqKind::List => Value::number(i),
                    };
                    (key.marked(marks), item.clone().marked(marks))
                };
                Ok(seq.items.iter().enumerate().map(pair).collect())
            }
            Kind::Map(map) => {
                self.spend(map.items.len() as u64, span)?;
                let pair = |(key, item): (&std::sync::Arc<str>, &Value)| {
                    (Value::new(Kind::String(key.clone())).marked(marks), item.clone().marked(marks))
                };
                Ok(map.items.iter().map(pair).collect())
            }
            _ => {
                let message =
                    format!("`for` goes over a list, set, map or object, found {}", collection.describe());
                fail(super::written_at(Problem::new("wrong-type", span, message), span, collection.origin))
            }
        }
    }
}
