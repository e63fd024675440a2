//! Operators and conditionals.

use hcl_edit::expr::{BinaryOperator, UnaryOperator};

use super::{Evaluator, Scopes, fail, null_problem, written_at};
use crate::diagnostic::{Problem, Problems};
use crate::number::Number;
use crate::source::Span;
use crate::syntax::Expr;
use crate::types::Type;
use crate::value::{Kind, Value};

impl Evaluator<'_> {
    pub(super) fn unary(
        &self,
        operator: UnaryOperator,
        inner: &Expr,
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        let value = self.eval(inner, scopes)?;
        let marks = value.marks.clone();
        let out = match operator {
            UnaryOperator::Neg => {
                Value::number(self.operand_number(value, inner.span, "the operand of `-`")?.negate())
            }
            UnaryOperator::Not => Value::bool(!self.operand_bool(value, inner.span, "the operand of `!`")?),
        };
        Ok(out.marked(&marks))
    }

    pub(super) fn binary(
        &self,
        operator: BinaryOperator,
        sides: &[Expr; 2],
        (span, at): (Span, Span),
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        let [left, right] = sides;
        if matches!(operator, BinaryOperator::And | BinaryOperator::Or) {
            return self.logic(operator, sides, scopes);
        }
        let mut values = super::all([self.eval(left, scopes), self.eval(right, scopes)].into_iter())?;
        let (b, a) = (values.pop().expect("two"), values.pop().expect("two"));
        let marks = a.all_marks().join(&b.all_marks());
        if matches!(operator, BinaryOperator::Eq | BinaryOperator::NotEq) {
            self.spend(a.weight().min(b.weight()), span)?;
            let equal = a.order(&b).is_eq();
            return Ok(Value::bool(equal == (operator == BinaryOperator::Eq)).marked(&marks));
        }
        let what = |side: &str| format!("the {side} side of `{}`", operator.as_str());
        let a = self.operand_number(a, left.span, &what("left"))?;
        let b = self.operand_number(b, right.span, &what("right"))?;
        let result = match operator {
            BinaryOperator::Plus => a.add(b),
            BinaryOperator::Minus => a.subtract(b),
            BinaryOperator::Mul => a.multiply(b),
            BinaryOperator::Div | BinaryOperator::Mod if b.is_zero() => {
                return fail(Problem::new("division-by-zero", right.span, "division by zero"));
            }
            BinaryOperator::Div => a.divide(b),
            BinaryOperator::Mod => a.remainder(b),
            BinaryOperator::Less => return Ok(Value::bool(a < b).marked(&marks)),
            BinaryOperator::LessEq => return Ok(Value::bool(a <= b).marked(&marks)),
            BinaryOperator::Greater => return Ok(Value::bool(a > b).marked(&marks)),
            // The logic operators and the equalities were handled above.
            _ => return Ok(Value::bool(a >= b).marked(&marks)),
        };
        match result {
            Some(number) => Ok(Value::number(number).marked(&marks)),
            None => fail(Problem::new("number-range", at, "the result is out of the range of numbers")),
        }
    }

    /// `&&` and `||`: the right side is looked at only if the left doesn't decide.
    fn logic(
        &self,
        operator: BinaryOperator,
        [left, right]: &[Expr; 2],
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        let what = |side: &str| format!("the {side} side of `{}`", operator.as_str());
        let a = self.eval(left, scopes)?;
        let marks = a.marks.clone();
        let a = self.operand_bool(a, left.span, &what("left"))?;
        if a == (operator == BinaryOperator::Or) {
            return Ok(Value::bool(a).marked(&marks));
        }
        let b = self.eval(right, scopes)?;
        let marks = marks.join(&b.marks);
        let b = self.operand_bool(b, right.span, &what("right"))?;
        Ok(Value::bool(b).marked(&marks))
    }

    pub(super) fn conditional(
        &self,
        [condition, yes, no]: &[Expr; 3],
        span: Span,
        scopes: Scopes<'_>,
    ) -> Result<Value, Problems> {
        let decided = self.eval(condition, scopes)?;
        let marks = decided.marks.clone();
        let decided = self.operand_bool(decided, condition.span, "the condition")?;
        let (taken, other) = if decided { (yes, no) } else { (no, yes) };
        let value = self.eval(taken, scopes)?;
        // Only the branch that is taken has to work; the other one has a say in the type if it does.
        let Ok(unused) = self.eval(other, scopes) else { return Ok(value.marked(&marks)) };
        if same_primitive(&value, &unused) {
            return Ok(value.marked(&marks));
        }
        self.spend(value.weight().saturating_add(unused.weight()), span)?;
        let (a, b) = (Type::of(&value), Type::of(&unused));
        let Some(ty) = a.unify(&b) else {
            let (yes_type, no_type) = if decided { (&a, &b) } else { (&b, &a) };
            let problem = Problem::new("wrong-type", span, "the two results have no type in common")
                .label(format!("{} or {}", yes_type.with_article(), no_type.with_article()));
            return fail(problem);
        };
        let converted = self.convert(value, &ty, taken.span, "this result")?;
        Ok(converted.marked(&marks))
    }

    pub(crate) fn operand_number(&self, value: Value, span: Span, what: &str) -> Result<Number, Problems> {
        let origin = value.origin;
        let converted = self.convert(value, &Type::Number, span, what)?;
        match converted.kind {
            Kind::Number(number) => Ok(number),
            _ => fail(written_at(null_problem(span, what), span, origin)),
        }
    }

    pub(crate) fn operand_bool(&self, value: Value, span: Span, what: &str) -> Result<bool, Problems> {
        let origin = value.origin;
        let converted = self.convert(value, &Type::Bool, span, what)?;
        match converted.kind {
            Kind::Bool(value) => Ok(value),
            _ => fail(written_at(null_problem(span, what), span, origin)),
        }
    }
}

fn same_primitive(a: &Value, b: &Value) -> bool {
    matches!(
        (&a.kind, &b.kind),
        (Kind::Bool(_), Kind::Bool(_))
            | (Kind::Number(_), Kind::Number(_))
            | (Kind::String(_), Kind::String(_))
            | (_, Kind::Null)
    )
}
