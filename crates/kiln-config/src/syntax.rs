//! The syntax tree that the rest works on: hcl-edit's, with a file in every span, heredocs dedented and markers applied.

use std::sync::Arc;

use hcl_edit::expr::{BinaryOperator, UnaryOperator};

use crate::number::Number;
use crate::source::Span;

/// A file's or a block's content, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Body {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) blocks: Vec<Block>,
    /// Copy and run steps mix, so the order among blocks counts; this is where the body ends.
    pub(crate) end: Option<Span>,
}

/// `name = expr`.
#[derive(Debug, Clone)]
pub(crate) struct Attribute {
    pub(crate) name: Arc<str>,
    pub(crate) name_span: Span,
    pub(crate) expr: Expr,
}

/// `kind "label" { … }`.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub(crate) kind: Arc<str>,
    pub(crate) kind_span: Span,
    pub(crate) labels: Vec<(Arc<str>, Span)>,
    pub(crate) body: Body,
}

impl Block {
    /// The header: from the kind to the last label.
    pub(crate) fn header(&self) -> Span {
        let end = self.labels.last().map_or(self.kind_span.end, |(_, span)| span.end);
        Span { end, ..self.kind_span }
    }
}

/// An expression and where it is.
#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub(crate) span: Span,
    pub(crate) kind: ExprKind,
}

#[derive(Debug, Clone)]
pub(crate) enum ExprKind {
    Null,
    Bool(bool),
    Number(Number),
    String(Arc<str>),
    Template(Vec<Part>),
    Tuple(Vec<Expr>),
    Object(Vec<(Expr, Expr)>),
    Variable(Arc<str>),
    Traversal(Box<Expr>, Vec<Step>),
    Call(Box<Call>),
    Conditional(Box<[Expr; 3]>),
    Unary(UnaryOperator, Box<Expr>),
    Binary(BinaryOperator, Span, Box<[Expr; 2]>),
    For(Box<For>),
}

/// One step of a traversal.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) span: Span,
    pub(crate) kind: StepKind,
}

#[derive(Debug, Clone)]
pub(crate) enum StepKind {
    /// `.name`
    Attr(Arc<str>),
    /// `[expr]`, and `.0`
    Index(Expr),
    /// `.*`: the attributes that follow are taken of each element.
    AttrSplat,
    /// `[*]`: all that follows is taken of each element.
    FullSplat,
}

/// `name(args)`.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) name: Arc<str>,
    pub(crate) name_span: Span,
    pub(crate) args: Vec<Expr>,
    /// The last argument is a list whose elements are the last arguments: `f(xs...)`.
    pub(crate) expand: bool,
}

/// `[for k, v in c : e if x]` and `{for k, v in c : k => v... if x}`.
#[derive(Debug, Clone)]
pub(crate) struct For {
    pub(crate) key_var: Option<Arc<str>>,
    pub(crate) value_var: Arc<str>,
    pub(crate) collection: Expr,
    pub(crate) key: Option<Expr>,
    pub(crate) value: Expr,
    pub(crate) grouping: bool,
    pub(crate) condition: Option<Expr>,
}

/// A part of a template.
#[derive(Debug, Clone)]
pub(crate) enum Part {
    Literal(Arc<str>),
    Expr(Expr),
    If(Expr, Vec<Part>, Vec<Part>),
    For(Box<TemplateFor>),
}

/// `%{ for k, v in c }…%{ endfor }`.
#[derive(Debug, Clone)]
pub(crate) struct TemplateFor {
    pub(crate) key_var: Option<Arc<str>>,
    pub(crate) value_var: Arc<str>,
    pub(crate) collection: Expr,
    pub(crate) body: Vec<Part>,
}

impl Expr {
    /// The text of a literal string.
    pub(crate) fn as_literal(&self) -> Option<&str> {
        match &self.kind {
            ExprKind::String(text) => Some(text),
            _ => None,
        }
    }
}
