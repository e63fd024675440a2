//! What a stack's files declare, by name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::diagnostic::{Problem, Sink};
use crate::source::Span;
use crate::syntax::{Attribute, Block, Body, Expr};

/// The kinds of blocks that have a name and can be referred to.
pub(crate) const NAMED: [&str; 11] = [
    "config", "secret", "base", "image", "registry", "service", "worker", "job", "volume", "route", "notify",
];

/// All that is declared.
#[derive(Debug, Default)]
pub(crate) struct Declarations<'a> {
    pub(crate) stack: Option<(Arc<str>, Span)>,
    pub(crate) variables: Vec<Variable<'a>>,
    pub(crate) locals: Vec<Local<'a>>,
    pub(crate) environments: Vec<&'a Block>,
    blocks: HashMap<&'static str, Vec<Declared<'a>>>,
    variable_index: HashMap<Arc<str>, usize>,
    local_index: HashMap<Arc<str>, usize>,
    block_index: HashMap<(&'static str, Arc<str>), usize>,
}

/// A `variable` block.
#[derive(Debug)]
pub(crate) struct Variable<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) block: &'a Block,
}

/// One attribute of a `locals` block.
#[derive(Debug)]
pub(crate) struct Local<'a> {
    pub(crate) name: Arc<str>,
    pub(crate) attribute: &'a Attribute,
}

/// A named block.
#[derive(Debug)]
pub(crate) struct Declared<'a> {
    pub(crate) kind: &'static str,
    pub(crate) name: Arc<str>,
    pub(crate) name_span: Span,
    pub(crate) block: &'a Block,
    pub(crate) for_each: Option<&'a Expr>,
}

/// Returns an attribute of a body.
pub(crate) fn attribute<'a>(body: &'a Body, name: &str) -> Option<&'a Attribute> {
    body.attributes.iter().find(|a| &*a.name == name)
}

impl<'a> Declarations<'a> {
    /// Collects from files in any order. Reports what is declared twice.
    pub(crate) fn collect(bodies: &'a [Body], sink: &mut Sink) -> Self {
        let mut all = Self::default();
        for block in bodies.iter().flat_map(|b| &b.blocks) {
            all.add(block, sink);
        }
        if all.stack.is_none() {
            let end = bodies.iter().find_map(|b| b.end).unwrap_or(Span::NONE);
            let start = Span { start: 0, end: 0, ..end };
            let problem = Problem::new("missing-stack", start, "no file has a `stack` block");
            sink.push(problem.help("name the stack: `stack \"shop\" {}`"));
        }
        all
    }

    fn add(&mut self, block: &'a Block, sink: &mut Sink) {
        match &*block.kind {
            "stack" => self.add_stack(block, sink),
            "variable" => self.add_variable(block, sink),
            "locals" => {
                for attribute in &block.body.attributes {
                    self.add_local(attribute, sink);
                }
            }
            "environment" => self.add_environment(block, sink),
            kind => {
                if let Some(kind) = NAMED.into_iter().find(|k| *k == kind) {
                    self.add_named(kind, block, sink);
                }
            }
        }
    }

    fn add_stack(&mut self, block: &'a Block, sink: &mut Sink) {
        let Some((name, span)) = block.labels.first() else { return };
        if let Some((_, first)) = &self.stack {
            let problem = Problem::new("duplicate", *span, "a folder is one stack, but `stack` stands twice");
            sink.push(problem.label("again here").also(*first, "first here"));
            return;
        }
        self.stack = Some((name.clone(), *span));
    }

    fn add_variable(&mut self, block: &'a Block, sink: &mut Sink) {
        let Some((name, span)) = block.labels.first() else { return };
        if let Some(first) = self.variable_index.get(name) {
            let first = self.variables[*first].block.header();
            return sink.push(declared_twice("variable", name, *span, first));
        }
        self.variable_index.insert(name.clone(), self.variables.len());
        self.variables.push(Variable { name: name.clone(), block });
    }

    fn add_local(&mut self, attribute: &'a Attribute, sink: &mut Sink) {
        let name = &attribute.name;
        if let Some(first) = self.local_index.get(name) {
            let first = self.locals[*first].attribute.name_span;
            return sink.push(declared_twice("local", name, attribute.name_span, first));
        }
        self.local_index.insert(name.clone(), self.locals.len());
        self.locals.push(Local { name: name.clone(), attribute });
    }

    fn add_environment(&mut self, block: &'a Block, sink: &mut Sink) {
        let Some((name, span)) = block.labels.first() else { return };
        let same = |b: &&&Block| b.labels[0].0 == *name;
        if let Some(first) = self.environments.iter().find(same) {
            return sink.push(declared_twice("environment", name, *span, first.header()));
        }
        self.environments.push(block);
    }

    fn add_named(&mut self, kind: &'static str, block: &'a Block, sink: &mut Sink) {
        let Some((name, name_span)) = block.labels.last() else { return };
        if kind == "base" && block.labels.len() != 2 {
            return;
        }
        // Services, workers and jobs share their names: each is one place in an environment.
        let rivals: &[&'static str] = match kind {
            "service" | "worker" | "job" => &["service", "worker", "job"],
            _ => &[kind],
        };
        for rival in rivals {
            if let Some(first) = self.block_index.get(&(*rival, name.clone())) {
                let first = self.blocks[rival][*first].block.header();
                return sink.push(declared_twice(kind, name, *name_span, first));
            }
        }
        let list = self.blocks.entry(kind).or_default();
        self.block_index.insert((kind, name.clone()), list.len());
        let for_each = attribute(&block.body, "for_each").map(|a| &a.expr);
        list.push(Declared { kind, name: name.clone(), name_span: *name_span, block, for_each });
    }

    pub(crate) fn of_kind(&self, kind: &str) -> &[Declared<'a>] {
        self.blocks.get(kind).map_or(&[], |list| list)
    }

    pub(crate) fn variable(&self, name: &str) -> Option<usize> {
        self.variable_index.get(name).copied()
    }

    pub(crate) fn local(&self, name: &str) -> Option<usize> {
        self.local_index.get(name).copied()
    }

    pub(crate) fn block(&self, kind: &'static str, name: &str) -> Option<usize> {
        self.block_index.get(&(kind, Arc::from(name))).copied()
    }
}

fn declared_twice(kind: &str, name: &str, span: Span, first: Span) -> Problem {
    let message = format!("`{kind} \"{name}\"` is declared twice");
    Problem::new("duplicate", span, message).label("again here").also(first, "first here")
}
