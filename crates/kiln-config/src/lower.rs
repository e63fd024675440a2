//! hcl-edit's tree to ours.

use std::ops::Range;
use std::sync::Arc;

use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, ForExpr, ObjectKey, Traversal, TraversalOperator};
use hcl_edit::structure::{Body as HclBody, Structure};
use hcl_edit::template::Template;

use crate::diagnostic::{Problem, Problems};
use crate::heredoc::Shape;
use crate::number::Number;
use crate::source::{FileId, Span};
use crate::syntax::{Attribute, Block, Body, Call, Expr, ExprKind, For, Part, Step, StepKind};
use crate::value::normalized;

/// Lowers one parsed text.
pub(crate) struct Lowering<'a> {
    file: FileId,
    /// The parsed text; spans of hcl-edit are offsets into it.
    pub(crate) text: &'a str,
    /// Where the text begins in the file.
    base: usize,
    problems: std::cell::RefCell<Problems>,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(file: FileId, text: &'a str, base: usize) -> Self {
        Self { file, text, base, problems: Default::default() }
    }

    pub(crate) fn file(self, body: &HclBody) -> (Body, Problems) {
        let mut lowered = self.body(body);
        let end = self.base + self.text.len();
        lowered.end = Some(Span::new(self.file, end, end));
        (lowered, self.problems.into_inner())
    }

    pub(crate) fn expression(self, expr: &Expression) -> (Expr, Problems) {
        let lowered = self.expr(expr);
        (lowered, self.problems.into_inner())
    }

    pub(crate) fn template(self, template: &Template) -> (Vec<Part>, Problems) {
        let parts = self.parts(template, &Shape::Bare);
        (parts, self.problems.into_inner())
    }

    pub(crate) fn fail(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn span(&self, range: Option<Range<usize>>) -> Span {
        // Every node that the parser makes has a span; one without would only lose its underline.
        let range = range.unwrap_or(0..0);
        Span::new(self.file, self.base + range.start, self.base + range.end)
    }

    fn body(&self, body: &HclBody) -> Body {
        let mut out = Body::default();
        for structure in body {
            match structure {
                Structure::Attribute(attribute) => out.attributes.push(Attribute {
                    name: attribute.key.as_str().into(),
                    name_span: self.span(attribute.key.span()),
                    expr: self.expr(&attribute.value),
                }),
                Structure::Block(block) => {
                    let span = self.span(block.span());
                    let mut body = self.body(&block.body);
                    body.end = Some(Span { start: span.end.saturating_sub(1).max(span.start), ..span });
                    let labels = block.labels.iter().map(|l| (normalized(l.as_str()), self.span(l.span())));
                    out.blocks.push(Block {
                        kind: block.ident.as_str().into(),
                        kind_span: self.span(block.ident.span()),
                        labels: labels.collect(),
                        body,
                    });
                }
            }
        }
        out
    }

    pub(crate) fn expr(&self, expr: &Expression) -> Expr {
        let span = self.span(expr.span());
        let kind = match expr {
            Expression::Null(_) => ExprKind::Null,
            Expression::Bool(value) => ExprKind::Bool(*value.value()),
            Expression::Number(_) => self.number(expr.span(), span),
            Expression::String(text) => {
                self.check_one_line(text.span(), span);
                ExprKind::String(normalized(text.as_str()))
            }
            Expression::Array(items) => ExprKind::Tuple(items.iter().map(|e| self.expr(e)).collect()),
            Expression::Object(object) => {
                let item = |(key, value): (&ObjectKey, &hcl_edit::expr::ObjectValue)| {
                    (self.object_key(key), self.expr(value.expr()))
                };
                ExprKind::Object(object.iter().map(item).collect())
            }
            Expression::StringTemplate(template) => ExprKind::Template(self.parts(template, &Shape::Quoted)),
            Expression::HeredocTemplate(heredoc) => {
                let shape = self.heredoc_shape(expr.span(), &heredoc.template);
                ExprKind::Template(self.parts(&heredoc.template, &shape))
            }
            Expression::Parenthesis(inner) => return Expr { span, ..self.expr(inner.inner()) },
            Expression::Variable(name) => ExprKind::Variable(name.as_str().into()),
            Expression::Conditional(c) => ExprKind::Conditional(Box::new([
                self.expr(&c.cond_expr),
                self.expr(&c.true_expr),
                self.expr(&c.false_expr),
            ])),
            Expression::FuncCall(call) => {
                let namespaces = call.name.namespace.iter().map(|n| format!("{}::", n.as_str()));
                let name = namespaces.chain([call.name.name.as_str().to_owned()]).collect::<String>();
                ExprKind::Call(Box::new(Call {
                    name: name.into(),
                    name_span: self.span(call.name.name.span()),
                    args: call.args.iter().map(|a| self.expr(a)).collect(),
                    expand: call.args.expand_final(),
                }))
            }
            Expression::Traversal(traversal) => self.traversal(traversal),
            Expression::UnaryOp(op) => ExprKind::Unary(*op.operator.value(), Box::new(self.expr(&op.expr))),
            Expression::BinaryOp(op) => ExprKind::Binary(
                *op.operator.value(),
                self.span(op.operator.span()),
                Box::new([self.expr(&op.lhs_expr), self.expr(&op.rhs_expr)]),
            ),
            Expression::ForExpr(for_expr) => self.for_expr(for_expr),
        };
        Expr { span, kind }
    }

    fn number(&self, range: Option<Range<usize>>, span: Span) -> ExprKind {
        let text = range.and_then(|r| self.text.get(r)).unwrap_or("0");
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        match Number::parse(&text) {
            Some(number) => ExprKind::Number(number),
            None => {
                self.fail(Problem::new("syntax", span, "this number is out of range"));
                ExprKind::Null
            }
        }
    }

    /// The parser takes a string over several lines, HCL doesn't.
    fn check_one_line(&self, range: Option<Range<usize>>, span: Span) {
        if range.and_then(|r| self.text.get(r)).is_some_and(|t| t.contains('\n')) {
            let problem = Problem::new("syntax", span, "this string goes over several lines")
                .help("text of several lines goes into a heredoc (`<<-EOT`)");
            self.fail(problem);
        }
    }

    fn object_key(&self, key: &ObjectKey) -> Expr {
        match key {
            ObjectKey::Ident(name) => {
                Expr { span: self.span(name.span()), kind: ExprKind::String(name.as_str().into()) }
            }
            ObjectKey::Expression(expr) => {
                if matches!(expr, Expression::Traversal(_)) {
                    let problem =
                        Problem::new("syntax", self.span(expr.span()), "this key could be meant in two ways")
                            .help("write `(name.attribute)` for its value, or quote it for the text itself");
                    self.fail(problem);
                }
                self.expr(expr)
            }
        }
    }

    fn traversal(&self, traversal: &Traversal) -> ExprKind {
        let base = self.expr(&traversal.expr);
        let steps = traversal.operators.iter().map(|operator| {
            let span = self.step_span(operator.span());
            let kind = match operator.value() {
                TraversalOperator::AttrSplat(_) => StepKind::AttrSplat,
                TraversalOperator::FullSplat(_) => StepKind::FullSplat,
                TraversalOperator::GetAttr(name) => StepKind::Attr(name.as_str().into()),
                TraversalOperator::Index(index) => StepKind::Index(self.expr(index)),
                TraversalOperator::LegacyIndex(index) => {
                    let number = Number::from(*index.value());
                    StepKind::Index(Expr { span, kind: ExprKind::Number(number) })
                }
            };
            Step { span, kind }
        });
        ExprKind::Traversal(Box::new(base), steps.collect())
    }

    /// The name of an attribute, without the dot and blanks before it.
    fn step_span(&self, range: Option<Range<usize>>) -> Span {
        let range = range.unwrap_or(0..0);
        let text = self.text.get(range.clone()).unwrap_or("");
        let name = text.strip_prefix('.').map_or(text, str::trim_start);
        self.span(Some(range.end - name.len()..range.end))
    }

    fn for_expr(&self, for_expr: &ForExpr) -> ExprKind {
        let name = |name: &hcl_edit::Decorated<hcl_edit::Ident>| Arc::from(name.as_str());
        ExprKind::For(Box::new(For {
            key_var: for_expr.intro.key_var.as_ref().map(name),
            value_var: name(&for_expr.intro.value_var),
            collection: self.expr(&for_expr.intro.collection_expr),
            key: for_expr.key_expr.as_ref().map(|k| self.expr(k)),
            value: self.expr(&for_expr.value_expr),
            grouping: for_expr.grouping,
            condition: for_expr.cond.as_ref().map(|c| self.expr(&c.expr)),
        }))
    }
}
