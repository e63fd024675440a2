//! What names mean: from `var.x` to its value, each computed once and in an order in which nothing is missing.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::{ServiceName, StackName};

use crate::declare::{Declarations, Declared, NAMED};
use crate::diagnostic::{Problem, Problems};
use crate::eval::Names;
use crate::source::Span;
use crate::suggest::did_you_mean;
use crate::syntax::{Step, StepKind};
use crate::value::{Kind, Marks, Reference, Value};

/// Suggestions compare with every name; after this many nobody reads them.
const SUGGESTIONS_MAX: u32 = 200;

/// Something that is computed once: a node of the graph of references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    /// A variable, by index.
    Variable(usize),
    /// A local, by index.
    Local(usize),
    /// A key of a config block without `for_each`: the block and the attribute.
    ConfigKey(usize, usize),
    /// A config block with `for_each`, as a whole.
    ConfigMap(usize),
    /// The `for_each` of a block that is no config.
    ForEach(&'static str, usize),
}

/// What a name with its first steps means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Variable(usize),
    Local(usize),
    ConfigKey(usize, usize),
    Config(usize),
    Block(&'static str, usize),
}

/// The instances of a block with `for_each`: key and value.
pub(crate) type Elements = Arc<BTreeMap<Arc<str>, Value>>;

/// All names of a stack, with the values that are known so far.
pub(crate) struct Resolver<'a> {
    pub(crate) declared: &'a Declarations<'a>,
    pub(crate) stack: StackName,
    values: RefCell<BTreeMap<Node, Option<Value>>>,
    elements: RefCell<BTreeMap<Node, Option<Elements>>>,
    suggestions: Cell<u32>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(declared: &'a Declarations<'a>, stack: StackName) -> Self {
        Self {
            declared,
            stack,
            values: RefCell::default(),
            elements: RefCell::default(),
            suggestions: Cell::new(0),
        }
    }

    /// Records a value; nothing where it could not be computed.
    pub(crate) fn set(&self, node: Node, value: Option<Value>) {
        self.values.borrow_mut().insert(node, value);
    }

    pub(crate) fn set_elements(&self, node: Node, elements: Option<Elements>) {
        self.elements.borrow_mut().insert(node, elements);
    }

    /// The recorded value. What has none is silent: its problem was reported where it is.
    pub(crate) fn value(&self, node: Node) -> Result<Value, Problems> {
        self.values.borrow().get(&node).cloned().flatten().ok_or_else(Vec::new)
    }

    /// The elements of a block's `for_each`.
    pub(crate) fn elements(&self, kind: &'static str, block: usize) -> Option<Elements> {
        let node = if kind == "config" { Node::ConfigMap(block) } else { Node::ForEach(kind, block) };
        self.elements.borrow().get(&node).cloned().flatten()
    }

    /// The nodes that must be computed before a target can be used.
    pub(crate) fn needs(&self, target: Target) -> Vec<Node> {
        match target {
            Target::Variable(i) => vec![Node::Variable(i)],
            Target::Local(i) => vec![Node::Local(i)],
            Target::ConfigKey(block, key) => vec![Node::ConfigKey(block, key)],
            Target::Config(block) => {
                let declared = &self.declared.of_kind("config")[block];
                match declared.for_each {
                    Some(_) => vec![Node::ConfigMap(block)],
                    None => {
                        (0..declared.block.body.attributes.len()).map(|k| Node::ConfigKey(block, k)).collect()
                    }
                }
            }
            Target::Block(kind, block) => match self.declared.of_kind(kind)[block].for_each {
                Some(_) => vec![Node::ForEach(kind, block)],
                None => Vec::new(),
            },
        }
    }

    /// Finds what a name means, and how many steps belong to it.
    pub(crate) fn target(&self, root: &str, span: Span, steps: &[Step]) -> Result<(Target, usize), Problem> {
        let name = |i: usize| match steps.get(i).map(|s| &s.kind) {
            Some(StepKind::Attr(name)) => Some((&**name, steps[i].span)),
            _ => None,
        };
        let declared = self.declared;
        if root == "base" {
            let Some((kind, kind_span)) = name(0) else {
                return Err(needs_name(root, span, "base.debian.NAME"));
            };
            if kind != "debian" {
                let message = format!("there is no kind of base `{kind}`");
                return Err(Problem::new("unknown-name", kind_span, message).help("the kind is `debian`"));
            }
            let Some((name, at)) = name(1) else { return Err(needs_name(root, span, "base.debian.NAME")) };
            return match declared.block("base", name) {
                Some(block) => Ok((Target::Block("base", block), 2)),
                None => Err(self.unknown("base.debian", name, at, || self.names_of("base"))),
            };
        }
        let first = |form: &str| name(0).ok_or_else(|| needs_name(root, span, form));
        match root {
            "var" => {
                let (name, at) = first("var.NAME")?;
                match declared.variable(name) {
                    Some(i) => Ok((Target::Variable(i), 1)),
                    None => Err(self
                        .unknown("var", name, at, || declared.variables.iter().map(|v| &*v.name).collect())),
                }
            }
            "local" => {
                let (name, at) = first("local.NAME")?;
                match declared.local(name) {
                    Some(i) => Ok((Target::Local(i), 1)),
                    None => Err(self
                        .unknown("local", name, at, || declared.locals.iter().map(|v| &*v.name).collect())),
                }
            }
            root => match NAMED.into_iter().find(|k| *k == root) {
                Some("route") => Err(Problem::new("unknown-name", span, "a route can't be referred to")),
                Some("notify") => Err(Problem::new("unknown-name", span, "a webhook can't be referred to")),
                Some(kind) => {
                    let (name, at) = first(&format!("{kind}.NAME"))?;
                    match declared.block(kind, name) {
                        Some(block) if kind == "config" => Ok(self.config_target(block, steps)?),
                        Some(block) => Ok((Target::Block(kind, block), 1)),
                        None => Err(self.unknown_block(kind, name, at)),
                    }
                }
                None => Err(self.unknown_root(root, span)),
            },
        }
    }

    fn config_target(&self, block: usize, steps: &[Step]) -> Result<(Target, usize), Problem> {
        let declared = &self.declared.of_kind("config")[block];
        let Some(Step { kind: StepKind::Attr(key), span }) = steps.get(1) else {
            return Ok((Target::Config(block), 1));
        };
        if declared.for_each.is_some() {
            return Ok((Target::Config(block), 1));
        }
        let attributes = &declared.block.body.attributes;
        match attributes.iter().position(|a| a.name == *key) {
            Some(at) => Ok((Target::ConfigKey(block, at), 2)),
            None => {
                let known = || attributes.iter().map(|a| &*a.name).collect();
                Err(self.unknown(&format!("config.{}", declared.name), key, *span, known))
            }
        }
    }

    fn names_of(&self, kind: &str) -> Vec<&str> {
        self.declared.of_kind(kind).iter().map(|d| &*d.name).collect()
    }

    fn suggestion(&self, name: &str, known: &[&str]) -> Option<String> {
        self.suggestions.set(self.suggestions.get().saturating_add(1));
        if self.suggestions.get() > SUGGESTIONS_MAX {
            return None;
        }
        did_you_mean(name, known.iter().copied())
    }

    fn unknown<'n>(&self, of: &str, name: &str, span: Span, known: impl Fn() -> Vec<&'n str>) -> Problem {
        let problem = Problem::new("unknown-name", span, format!("there is no `{of}.{name}`"));
        // Listing every name for every mistake would take quadratic time.
        if self.suggestions.get() > SUGGESTIONS_MAX {
            return problem;
        }
        let mut names = known();
        let help = self.suggestion(name, &names).or_else(|| {
            names.sort_unstable();
            (1..=8).contains(&names.len()).then(|| format!("declared are: {}", names.join(", ")))
        });
        problem.maybe_help(help)
    }

    fn unknown_block(&self, kind: &'static str, name: &str, span: Span) -> Problem {
        let twin = ["service", "worker", "job"]
            .into_iter()
            .find(|k| *k != kind && NAMED.contains(k) && self.declared.block(k, name).is_some());
        let problem = self.unknown(kind, name, span, || self.names_of(kind));
        match twin {
            Some(twin) if matches!(kind, "service" | "worker" | "job") => {
                problem.help(format!("it is a {twin}: `{twin}.{name}`"))
            }
            _ => problem,
        }
    }

    fn unknown_root(&self, root: &str, span: Span) -> Problem {
        let declared = self.declared;
        let help = match root {
            "each" => Some("`each` is known in blocks with `for_each` only".to_owned()),
            "count" => Some("there is no `count`; use `replicas` or `for_each`".to_owned()),
            "path" => Some("paths are relative to the stack folder as they are".to_owned()),
            "data" | "module" | "terraform" | "self" => {
                Some("that is Terraform's, a stack has none".to_owned())
            }
            root if declared.variable(root).is_some() => Some(format!("did you mean `var.{root}`?")),
            root if declared.local(root).is_some() => Some(format!("did you mean `local.{root}`?")),
            root => match NAMED.into_iter().find(|k| declared.block(k, root).is_some()) {
                Some(kind) => Some(format!("did you mean `{kind}.{root}`?")),
                None => self
                    .suggestion(
                        root,
                        &["var", "local", "config", "secret", "base", "image", "service", "volume"],
                    )
                    .or_else(|| Some("text is written in quotes".to_owned())),
            },
        };
        Problem::new("unknown-name", span, format!("there is no `{root}`")).maybe_help(help)
    }

    /// The value of a block: what it can be referred to as.
    fn block_value(&self, kind: &'static str, block: usize) -> Result<Value, Problems> {
        let declared: &Declared<'_> = &self.declared.of_kind(kind)[block];
        match declared.for_each {
            None => Ok(block_reference(declared, block, declared.name.clone())),
            Some(_) => self.value(Node::ForEach(kind, block)),
        }
    }

    /// The value of a block with `for_each`: a reference for each key.
    pub(crate) fn references(
        &self,
        kind: &'static str,
        block: usize,
        elements: &Elements,
    ) -> Result<Value, Problems> {
        let declared: &Declared<'_> = &self.declared.of_kind(kind)[block];
        let each = |key: &Arc<str>| {
            (key.clone(), block_reference(declared, block, instance_name(&declared.name, Some(key))))
        };
        Value::object(elements.keys().map(each).collect())
            .map_err(|_| vec![crate::eval::too_large(declared.block.header())])
    }

    fn config_value(&self, block: usize) -> Result<Value, Problems> {
        let declared = &self.declared.of_kind("config")[block];
        if declared.for_each.is_some() {
            return self.value(Node::ConfigMap(block));
        }
        if let Some(Some(whole)) = self.values.borrow().get(&Node::ConfigMap(block)) {
            return Ok(whole.clone());
        }
        let mut keys = BTreeMap::new();
        for (i, attribute) in declared.block.body.attributes.iter().enumerate() {
            keys.insert(attribute.name.clone(), self.value(Node::ConfigKey(block, i))?);
        }
        let whole = Value::object(keys).map_err(|_| vec![crate::eval::too_large(declared.block.header())])?;
        self.set(Node::ConfigMap(block), Some(whole.clone()));
        Ok(whole)
    }

    /// The names of a service's ports, as they stand in its block.
    pub(crate) fn port_names(&self, kind: &str, block: usize) -> Vec<Arc<str>> {
        let blocks = &self.declared.of_kind(kind)[block].block.body.blocks;
        let ports = blocks.iter().filter(|b| &*b.kind == "port");
        ports.filter_map(|b| b.labels.first().map(|l| l.0.clone())).collect()
    }

    fn url(&self, reference: &Reference, span: Span) -> Result<Value, Problems> {
        let ports = self.port_names(reference.kind, reference.block);
        if !(ports.len() == 1 || ports.iter().any(|p| &**p == "http")) {
            let problem = Problem::new("no-port", span, format!("{} has no `url`", reference.describe()))
                .label("a url needs a port named `http`, or one port only");
            let block = self.declared.of_kind(reference.kind)[reference.block].block.header();
            return Err(vec![problem.also(block, "declared here")]);
        }
        let Ok(service) = ServiceName::new(&*reference.name) else { return Err(Vec::new()) };
        let url = format!("http://{service}.{}.kiln", self.stack);
        let marks = Marks { sensitive: false, uses: Some(Arc::new(BTreeSet::from([service]))) };
        Ok(Value::string(url).at(span).marked(&marks))
    }
}

fn block_reference(declared: &Declared<'_>, block: usize, name: Arc<str>) -> Value {
    let reference = Reference { kind: declared.kind, name, block, port: None };
    Value::new(Kind::Ref(reference)).at(declared.block.header())
}

/// The name of an instance of a block with `for_each`.
pub(crate) fn instance_name(name: &Arc<str>, key: Option<&Arc<str>>) -> Arc<str> {
    match key {
        Some(key) => format!("{name}-{key}").into(),
        None => name.clone(),
    }
}

fn needs_name(root: &str, span: Span, form: &str) -> Problem {
    Problem::new("unknown-name", span, format!("`{root}` alone is no value")).help(format!("write `{form}`"))
}

impl Names for Resolver<'_> {
    fn resolve(&self, root: &str, span: Span, steps: &[Step]) -> Result<(Value, usize), Problems> {
        let (target, used) = self.target(root, span, steps).map_err(|p| vec![p])?;
        let value = match target {
            Target::Variable(i) => self.value(Node::Variable(i))?,
            Target::Local(i) => self.value(Node::Local(i))?,
            Target::ConfigKey(block, key) => self.value(Node::ConfigKey(block, key))?,
            Target::Config(block) => self.config_value(block)?,
            Target::Block(kind, block) => self.block_value(kind, block)?,
        };
        Ok((value, used))
    }

    fn attribute(&self, reference: &Reference, name: &str, span: Span) -> Result<Value, Problems> {
        let is_service = reference.kind == "service" && reference.port.is_none();
        let ports = if is_service { self.port_names("service", reference.block) } else { Vec::new() };
        if is_service && name == "url" {
            return self.url(reference, span);
        }
        if let Some(port) = ports.iter().find(|p| &***p == name) {
            let port = Reference { port: Some(port.clone()), ..reference.clone() };
            return Ok(Value::new(Kind::Ref(port)).at(span));
        }
        let message = format!("{} has no attribute `{name}`", reference.describe());
        let mut known: Vec<&str> = ports.iter().map(|p| &**p).collect();
        if is_service {
            known.push("url");
        }
        let help = self.suggestion(name, &known).or_else(|| match (is_service, reference.kind) {
            (true, _) => Some(format!("it has: {}", known.join(", "))),
            (false, "secret") => Some(
                "a secret's value is never seen by a stack; use `secrets = { PATH = secret.NAME }`"
                    .to_owned(),
            ),
            _ => None,
        });
        Err(vec![Problem::new("unknown-attribute", span, message).maybe_help(help)])
    }
}
