//! Templates: what a heredoc's indentation is, and what strip markers take away.
//!
//! hcl-edit looks for a heredoc's indentation only outside of directives, and gives up where one begins a line. Here it is
//! what all lines of the source have in common, and it goes before `~` is applied.

use std::ops::Range;
use std::sync::Arc;

use hcl_edit::Span as _;
use hcl_edit::template::{Directive, Element, Strip, Template};

use crate::diagnostic::Problem;
use crate::lower::Lowering;
use crate::syntax::{Part, TemplateFor};
use crate::value::normalized;

/// What kind of template a text is, which decides how its literals are read.
pub(crate) enum Shape {
    /// `"…"`: escapes are resolved by the parser, and `~` strips a whole literal.
    Quoted,
    /// A template file: `~` strips up to the end of the line.
    Bare,
    /// A heredoc: as a file, and each line loses this many blanks.
    Heredoc {
        /// How many characters.
        indent: usize,
    },
}

/// A part, with what the markers beside it strip.
struct Loose {
    part: Part,
    /// Whether its opening marker strips what stands before.
    strips_before: bool,
    /// Whether its closing marker strips what follows.
    strips_after: bool,
}

impl Lowering<'_> {
    pub(crate) fn heredoc_shape(&self, range: Option<Range<usize>>, template: &Template) -> Shape {
        let flush = range.and_then(|r| self.text.get(r)).is_some_and(|t| t.starts_with("<<-"));
        if !flush {
            return Shape::Heredoc { indent: 0 };
        }
        let mut literals = Vec::new();
        let mut at_line_start = false;
        collect(template, &mut literals, &mut at_line_start, self.text);
        if at_line_start {
            return Shape::Heredoc { indent: 0 };
        }
        let lines = literals.iter().flat_map(|r| self.line_indents(r.clone()));
        Shape::Heredoc { indent: lines.min().unwrap_or(0) }
    }

    /// The indentation of each line that begins in a literal, blank lines left out.
    fn line_indents(&self, range: Range<usize>) -> Vec<usize> {
        let literal = self.text.get(range.clone()).unwrap_or("");
        let after_newline = range.start > 0 && self.text.as_bytes().get(range.start - 1) == Some(&b'\n');
        let starts = literal.match_indices('\n').map(|(i, _)| i + 1).filter(|i| *i < literal.len());
        let first = after_newline.then_some(0);
        let indent_of = |start: usize| {
            let line = literal[start..].split('\n').next().unwrap_or("");
            let blank = line.trim().is_empty() && literal[start + line.len()..].starts_with('\n');
            let indent = line.chars().take_while(|c| c.is_whitespace()).count();
            (!blank).then_some(indent)
        };
        first.into_iter().chain(starts).filter_map(indent_of).collect()
    }

    /// Lowers a template: literals dedented, markers applied.
    pub(crate) fn parts(&self, template: &Template, shape: &Shape) -> Vec<Part> {
        self.parts_between(template, shape, false, false)
    }

    fn parts_between(
        &self,
        template: &Template,
        shape: &Shape,
        strip_first: bool,
        strip_last: bool,
    ) -> Vec<Part> {
        let mut loose: Vec<Loose> = template.iter().map(|e| self.loose(e, shape)).collect();
        let count = loose.len();
        for i in 0..count {
            let before = if i == 0 { strip_first } else { loose[i - 1].strips_after };
            let after = if i + 1 == count { strip_last } else { loose[i + 1].strips_before };
            if let Part::Literal(text) = &loose[i].part {
                let stripped = strip(text, before, after, matches!(shape, Shape::Quoted));
                loose[i].part = Part::Literal(stripped.into());
            }
        }
        loose.into_iter().map(|l| l.part).collect()
    }

    fn loose(&self, element: &Element, shape: &Shape) -> Loose {
        match element {
            Element::Literal(text) => {
                let text = match shape {
                    Shape::Quoted => {
                        if text.span().and_then(|r| self.text.get(r)).is_some_and(|t| t.contains('\n')) {
                            let span = self.span(text.span());
                            let message = "this string goes over several lines";
                            self.fail(Problem::new("syntax", span, message).help("use a heredoc (`<<-EOT`)"));
                        }
                        normalized(text.as_str())
                    }
                    Shape::Bare => normalized(text.as_str()),
                    Shape::Heredoc { indent } => self.heredoc_literal(text.span(), *indent),
                };
                Loose { part: Part::Literal(text), strips_before: false, strips_after: false }
            }
            Element::Interpolation(i) => Loose {
                part: Part::Expr(self.expr(&i.expr)),
                strips_before: starts(i.strip),
                strips_after: ends(i.strip),
            },
            Element::Directive(directive) => self.directive(directive, shape),
        }
    }

    fn directive(&self, directive: &Directive, shape: &Shape) -> Loose {
        match directive {
            Directive::If(d) => {
                let (first, last) = (&d.if_expr, &d.endif_expr);
                let then_end = d.else_expr.as_ref().map_or(last.strip, |e| e.strip);
                let then = self.parts_between(&first.template, shape, ends(first.strip), starts(then_end));
                let otherwise = d.else_expr.as_ref().map_or_else(Vec::new, |e| {
                    self.parts_between(&e.template, shape, ends(e.strip), starts(last.strip))
                });
                Loose {
                    part: Part::If(self.expr(&first.cond_expr), then, otherwise),
                    strips_before: starts(first.strip),
                    strips_after: ends(last.strip),
                }
            }
            Directive::For(d) => {
                let (first, last) = (&d.for_expr, &d.endfor_expr);
                let body = self.parts_between(&first.template, shape, ends(first.strip), starts(last.strip));
                let part = Part::For(Box::new(TemplateFor {
                    key_var: first.key_var.as_ref().map(|k| k.as_str().into()),
                    value_var: first.value_var.as_str().into(),
                    collection: self.expr(&first.collection_expr),
                    body,
                }));
                Loose { part, strips_before: starts(first.strip), strips_after: ends(last.strip) }
            }
        }
    }

    /// Reads a heredoc's literal from the source: hcl-edit may have dedented its own by another measure.
    fn heredoc_literal(&self, range: Option<Range<usize>>, indent: usize) -> Arc<str> {
        let range = range.unwrap_or(0..0);
        let literal = self.text.get(range.clone()).unwrap_or("");
        let mut line_start = range.start > 0 && self.text.as_bytes().get(range.start - 1) == Some(&b'\n');
        let mut out = String::with_capacity(literal.len());
        for line in literal.split_inclusive('\n') {
            let mut rest = line;
            if line_start {
                for _ in 0..indent {
                    let mut chars = rest.chars();
                    match chars.next() {
                        Some(c) if c.is_whitespace() && c != '\n' && c != '\r' => rest = chars.as_str(),
                        _ => break,
                    }
                }
            }
            out.push_str(&rest.replace("$${", "${").replace("%%{", "%{"));
            line_start = true;
        }
        normalized(&out)
    }
}

/// Collects the places of all literals, those within directives too, and whether anything else begins a line.
fn collect(template: &Template, out: &mut Vec<Range<usize>>, unindented: &mut bool, text: &str) {
    for element in template {
        let begins_line = |r: &Range<usize>| r.start > 0 && text.as_bytes().get(r.start - 1) == Some(&b'\n');
        match element {
            Element::Literal(literal) => out.extend(literal.span()),
            other if other.span().is_some_and(|r| begins_line(&r)) => *unindented = true,
            _ => {}
        }
        if let Element::Directive(directive) = element {
            for inner in inner_templates(directive) {
                collect(inner, out, unindented, text);
                // `%{ else }` or `%{ endif }` at the left edge is a line without indentation as well.
                let ends_line = inner.span().is_some_and(|r| begins_line(&(r.end..r.end)));
                *unindented |= ends_line;
            }
        }
    }
}

fn inner_templates(directive: &Directive) -> Vec<&Template> {
    match directive {
        Directive::If(d) => {
            let otherwise = d.else_expr.as_ref().map(|e| &e.template);
            std::iter::once(&d.if_expr.template).chain(otherwise).collect()
        }
        Directive::For(d) => vec![&d.for_expr.template],
    }
}

fn starts(strip: Strip) -> bool {
    matches!(strip, Strip::Start | Strip::Both)
}

fn ends(strip: Strip) -> bool {
    matches!(strip, Strip::End | Strip::Both)
}

/// Takes the blanks at an end away: all of a quoted literal's, else those of the one line that touches the marker.
fn strip(text: &str, before: bool, after: bool, whole: bool) -> String {
    let mut text = text.to_owned();
    if before {
        let line_end = if whole { text.len() } else { text.find('\n').map_or(text.len(), |n| n + 1) };
        text = format!("{}{}", text[..line_end].trim_start(), &text[line_end..]);
    }
    if after {
        let body = text.strip_suffix('\n').unwrap_or(&text);
        let line_start = if whole { 0 } else { body.rfind('\n').map_or(0, |n| n + 1) };
        text = format!("{}{}", &text[..line_start], text[line_start..].trim_end());
    }
    text
}
