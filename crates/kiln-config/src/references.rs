//! What an expression refers to, found without evaluating it.

use std::sync::Arc;

use crate::source::Span;
use crate::syntax::{Call, Expr, ExprKind, Part, Step, StepKind};

/// Something found in an expression.
pub(crate) enum Found<'e> {
    /// A name that no `for` introduced, with the steps after it.
    Name { root: &'e str, span: Span, steps: &'e [Step] },
    /// A call of a function.
    Call(&'e Call),
}

/// Visits all names and calls of an expression.
pub(crate) fn visit<'e>(expr: &'e Expr, found: &mut dyn FnMut(Found<'e>)) {
    Visitor { bound: Vec::new(), found }.expr(expr);
}

struct Visitor<'e, 'f> {
    /// The names that enclosing `for`s introduce.
    bound: Vec<&'e Arc<str>>,
    found: &'f mut dyn FnMut(Found<'e>),
}

impl<'e> Visitor<'e, '_> {
    fn name(&mut self, root: &'e Arc<str>, span: Span, steps: &'e [Step]) {
        if !self.bound.contains(&root) {
            (self.found)(Found::Name { root, span, steps });
        }
    }

    fn expr(&mut self, expr: &'e Expr) {
        match &expr.kind {
            ExprKind::Null | ExprKind::Bool(_) | ExprKind::Number(_) | ExprKind::String(_) => {}
            ExprKind::Template(parts) => self.parts(parts),
            ExprKind::Tuple(items) => items.iter().for_each(|i| self.expr(i)),
            ExprKind::Object(items) => {
                for (key, value) in items {
                    self.expr(key);
                    self.expr(value);
                }
            }
            ExprKind::Variable(name) => self.name(name, expr.span, &[]),
            ExprKind::Traversal(base, steps) => {
                match &base.kind {
                    ExprKind::Variable(name) => self.name(name, base.span, steps),
                    _ => self.expr(base),
                }
                for step in steps {
                    if let StepKind::Index(index) = &step.kind {
                        self.expr(index);
                    }
                }
            }
            ExprKind::Call(call) => {
                (self.found)(Found::Call(call));
                call.args.iter().for_each(|a| self.expr(a));
            }
            ExprKind::Conditional(parts) => parts.iter().for_each(|p| self.expr(p)),
            ExprKind::Unary(_, inner) => self.expr(inner),
            ExprKind::Binary(_, _, sides) => sides.iter().for_each(|s| self.expr(s)),
            ExprKind::For(each) => {
                self.expr(&each.collection);
                self.within(each.key_var.as_ref(), &each.value_var, |visitor| {
                    for inner in each.key.iter().chain([&each.value]).chain(&each.condition) {
                        visitor.expr(inner);
                    }
                });
            }
        }
    }

    fn parts(&mut self, parts: &'e [Part]) {
        for part in parts {
            match part {
                Part::Literal(_) => {}
                Part::Expr(expr) => self.expr(expr),
                Part::If(condition, yes, no) => {
                    self.expr(condition);
                    self.parts(yes);
                    self.parts(no);
                }
                Part::For(each) => {
                    self.expr(&each.collection);
                    self.within(each.key_var.as_ref(), &each.value_var, |v| v.parts(&each.body));
                }
            }
        }
    }

    fn within(&mut self, key: Option<&'e Arc<str>>, value: &'e Arc<str>, visit: impl FnOnce(&mut Self)) {
        let length = self.bound.len();
        self.bound.extend(key.into_iter().chain([value]));
        visit(self);
        self.bound.truncate(length);
    }
}
