//! `for` expressions.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Evaluator, Scope, Scopes, fail};
use crate::diagnostic::{Problem, Problems};
use crate::source::Span;
use crate::syntax::For;
use crate::value::{Marks, Value};

/// What a `for` has made so far.
#[derive(Default)]
struct Made {
    list: Vec<Value>,
    single: BTreeMap<Arc<str>, Value>,
    grouped: BTreeMap<Arc<str>, Vec<Value>>,
    marks: Marks,
}

impl Evaluator<'_> {
    pub(super) fn comprehension(
        &self,
        each: &For,
        span: Span,
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        let collection = self.eval(&each.collection, scopes)?;
        let mut made = Made { marks: collection.marks.clone(), ..Made::default() };
        let mut problems = Vec::new();
        let mut failed = false;
        for (key, value) in self.elements(&collection, each.collection.span)? {
            let key_name = each.key_var.as_deref().unwrap_or_default();
            let with_key = Scope { outer: scopes, name: key_name, value: &key };
            let outer = if each.key_var.is_some() { Some(&with_key) } else { scopes };
            let inner = Scope { outer, name: &each.value_var, value: &value };
            if let Err(more) = self.element(each, Some(&inner), &mut made) {
                failed = true;
                problems.extend(more);
                // One broken element is shown, not ten thousand.
                break;
            }
        }
        if failed {
            return Err(problems);
        }
        let value = match (&each.key, each.grouping) {
            (None, _) => Value::tuple(made.list),
            (Some(_), false) => Value::object(made.single),
            (Some(_), true) => {
                let group = |(key, items)| Ok((key, self.built(Value::tuple(items), span)?));
                let groups: Result<_, Problems> = made.grouped.into_iter().map(group).collect();
                Value::object(groups?)
            }
        };
        Ok(self.built(value, span)?.marked(&made.marks))
    }

    fn element(&self, each: &For, scopes: Scopes<'_>, made: &mut Made) -> Result<(), Problems> {
        if let Some(condition) = &each.condition {
            let value = self.eval(condition, scopes)?;
            made.marks = made.marks.join(&value.marks);
            if !self.operand_bool(value, condition.span, "the condition")? {
                return Ok(());
            }
        }
        let Some(key_expr) = &each.key else {
            made.list.push(self.eval(&each.value, scopes)?);
            return Ok(());
        };
        let key = self.eval(key_expr, scopes)?;
        let sensitive = key.marks.sensitive;
        made.marks = made.marks.join(&key.marks);
        let key = self.text(&key, key_expr.span, "a key")?;
        let key: Arc<str> = key.as_str().unwrap_or_default().into();
        let value = self.eval(&each.value, scopes)?;
        if each.grouping {
            made.grouped.entry(key).or_default().push(value);
            return Ok(());
        }
        if made.single.contains_key(&key) {
            let message = match sensitive {
                true => "two elements have the same key".to_owned(),
                false => format!("two elements have the key \"{key}\""),
            };
            let help = "write `...` after the value to group what has the same key";
            return fail(Problem::new("duplicate", key_expr.span, message).help(help));
        }
        made.single.insert(key, value);
        Ok(())
    }
}
