//! What blocks there are and what they hold: one table that checks stacks, suggests names and writes the reference.

mod image;
mod service;
mod stack;

use crate::diagnostic::{Problem, Sink};
use crate::suggest::did_you_mean;
use crate::syntax::{Block, Body};

/// A kind of block.
#[derive(Debug)]
pub struct BlockSchema {
    /// Its word.
    pub name: &'static str,
    /// What its labels name, such as `name`.
    pub labels: &'static [&'static str],
    /// What it is for, one or two sentences.
    pub summary: &'static str,
    /// What it holds.
    pub attributes: &'static [AttributeSchema],
    /// The blocks within.
    pub blocks: &'static [NestedBlock],
    /// What attributes of any name mean, where they are allowed.
    pub any_attribute: Option<&'static str>,
    /// A whole block, or the part of one.
    pub example: &'static str,
}

/// An attribute of a block.
#[derive(Debug)]
pub struct AttributeSchema {
    /// Its name.
    pub name: &'static str,
    /// What it takes, in words.
    pub takes: &'static str,
    /// What it is when it isn't set; empty where it must be.
    pub default: &'static str,
    /// What it means.
    pub summary: &'static str,
}

/// A block within a block.
#[derive(Debug)]
pub struct NestedBlock {
    /// Its kind.
    pub schema: &'static BlockSchema,
    /// Whether there may be several.
    pub many: bool,
}

impl AttributeSchema {
    /// Whether it must be set.
    pub const fn is_required(&self) -> bool {
        self.default.is_empty()
    }
}

/// Makes an attribute. An empty default makes it required.
const fn attribute(
    name: &'static str,
    takes: &'static str,
    default: &'static str,
    summary: &'static str,
) -> AttributeSchema {
    AttributeSchema { name, takes, default, summary }
}

const FOR_EACH: AttributeSchema = attribute(
    "for_each",
    "map or set of strings",
    "one block",
    "One block for each element, named `NAME-KEY`. Within, `each.key` and `each.value` are known; from outside, `KIND.NAME[\"KEY\"]` refers to one.",
);

/// Blocks within one block are compared with each other; a service of a thousand ports is a mistake.
const NESTED_BLOCKS_MAX: usize = 1_000;

static TOP_LEVEL: &[&BlockSchema] = &[
    &stack::STACK,
    &stack::VARIABLE,
    &stack::LOCALS,
    &stack::CONFIG,
    &stack::SECRET,
    &image::BASE,
    &image::IMAGE,
    &image::REGISTRY,
    &service::SERVICE,
    &service::WORKER,
    &service::JOB,
    &stack::VOLUME,
    &stack::ROUTE,
    &stack::NOTIFY,
    &stack::ENVIRONMENT,
];

/// Returns the blocks that stand at the top of a file, in the order of the reference.
pub fn blocks() -> impl Iterator<Item = &'static BlockSchema> {
    TOP_LEVEL.iter().copied()
}

pub(crate) fn find(name: &str) -> Option<&'static BlockSchema> {
    blocks().find(|b| b.name == name)
}

/// Checks the names in a file against the table.
pub(crate) fn check_file(body: &Body, sink: &mut Sink) {
    for attribute in &body.attributes {
        let message = format!("`{}` can't stand outside of a block", attribute.name);
        let help = match find(&attribute.name) {
            Some(schema) => block_form(schema),
            None => "values with a name go into `locals { … }`".to_owned(),
        };
        sink.push(Problem::new("unknown-attribute", attribute.name_span, message).help(help));
    }
    for block in &body.blocks {
        match find(&block.kind) {
            Some(schema) => check_block(block, schema, sink),
            None => sink.push(unknown_block(block)),
        }
    }
}

fn unknown_block(block: &Block) -> Problem {
    let help = match &*block.kind {
        "resource" | "data" | "module" | "provider" | "output" | "terraform" => Some(
            "that is Terraform's; a stack is made of `image`, `service`, `route` and the other blocks of `docs/language.md`"
                .to_owned(),
        ),
        "variables" => Some("one `variable \"name\" { … }` declares one variable".to_owned()),
        "local" => Some("did you mean `locals`?".to_owned()),
        "env" => Some("did you mean `environment`?".to_owned()),
        kind => did_you_mean(kind, blocks().map(|b| b.name)),
    };
    let message = format!("there is no block `{}`", block.kind);
    Problem::new("unknown-block", block.kind_span, message).maybe_help(help)
}

fn check_block(block: &Block, schema: &'static BlockSchema, sink: &mut Sink) {
    check_labels(block, schema, sink);
    for attribute in &block.body.attributes {
        let known = schema.attributes.iter().any(|a| a.name == &*attribute.name);
        if known || schema.any_attribute.is_some() {
            continue;
        }
        let nested = schema.blocks.iter().find(|b| b.schema.name == &*attribute.name);
        let help = match nested {
            Some(nested) => Some(block_form(nested.schema)),
            None => {
                misplaced(&attribute.name, schema).or_else(|| did_you_mean(&attribute.name, names(schema)))
            }
        };
        let message = format!("`{}` has no attribute `{}`", schema.name, attribute.name);
        sink.push(Problem::new("unknown-attribute", attribute.name_span, message).maybe_help(help));
    }
    for required in schema.attributes.iter().filter(|a| a.is_required()) {
        if !block.body.attributes.iter().any(|a| &*a.name == required.name) {
            let message = format!("`{}` needs the attribute `{}`", schema.name, required.name);
            let help = format!("{} = … ({}): {}", required.name, required.takes, required.summary);
            sink.push(Problem::new("missing-attribute", block.header(), message).help(help));
        }
    }
    check_nested(block, schema, sink);
}

fn check_labels(block: &Block, schema: &BlockSchema, sink: &mut Sink) {
    let (found, wanted) = (block.labels.len(), schema.labels.len());
    if found == wanted {
        return;
    }
    let span = match block.labels.get(wanted) {
        Some((_, extra)) => *extra,
        None => block.header(),
    };
    let message = match wanted {
        0 => format!("`{}` takes no label", schema.name),
        1 => format!("`{}` takes one label, the {}", schema.name, schema.labels[0]),
        n => format!("`{}` takes {n} labels: {}", schema.name, schema.labels.join(" and ")),
    };
    sink.push(Problem::new("wrong-labels", span, message).help(block_form(schema)));
}

fn check_nested(block: &Block, schema: &BlockSchema, sink: &mut Sink) {
    if block.body.blocks.len() > NESTED_BLOCKS_MAX {
        let message = format!("this holds more than {NESTED_BLOCKS_MAX} blocks");
        return sink.push(Problem::new("too-large", block.header(), message));
    }
    for (i, inner) in block.body.blocks.iter().enumerate() {
        let Some(nested) = schema.blocks.iter().find(|b| b.schema.name == &*inner.kind) else {
            let is_attribute = schema.attributes.iter().any(|a| a.name == &*inner.kind);
            let help = match is_attribute {
                true => Some(format!("write `{} = …`", inner.kind)),
                false => misplaced(&inner.kind, schema).or_else(|| did_you_mean(&inner.kind, names(schema))),
            };
            let message = format!("`{}` has no block `{}`", schema.name, inner.kind);
            sink.push(Problem::new("unknown-block", inner.kind_span, message).maybe_help(help));
            continue;
        };
        check_block(inner, nested.schema, sink);
        let same = |other: &&Block| {
            // A kind is no name: an image may have two playbooks.
            let named = nested.schema.labels.first().is_some_and(|label| *label != "kind");
            other.kind == inner.kind
                && (!nested.many
                    || named && other.labels.iter().map(|l| &l.0).eq(inner.labels.iter().map(|l| &l.0)))
        };
        if let Some(first) = block.body.blocks[..i].iter().find(same) {
            let message = match nested.many {
                true => format!("`{} \"{}\"` is declared twice", inner.kind, inner.labels[0].0),
                false => format!("`{}` can stand in `{}` once only", inner.kind, schema.name),
            };
            let problem = Problem::new("duplicate", inner.header(), message).label("again here");
            sink.push(problem.also(first.header(), "first here"));
        }
    }
}

fn names(schema: &BlockSchema) -> impl Iterator<Item = &'static str> {
    let blocks = schema.blocks.iter().map(|b| b.schema.name);
    schema.attributes.iter().map(|a| a.name).chain(blocks)
}

/// Where a name stands that is known elsewhere, or by another name in other tools.
fn misplaced(name: &str, schema: &BlockSchema) -> Option<String> {
    let holder = schema.blocks.iter().find(|b| b.schema.attributes.iter().any(|a| a.name == name));
    if let Some(holder) = holder {
        return Some(format!("`{name}` stands in the block `{}`", holder.schema.name));
    }
    let other = match name {
        "count" => {
            "there is no `count`: a shifted index would replace everything; use `replicas` or `for_each`"
        }
        "environment" | "environment_variables" | "envs" => "did you mean `env`?",
        "ports" | "expose" if schema.name == "service" => {
            "declare each port: `port \"http\" { number = 8080 }`"
        }
        "memory_limit" | "mem" => "did you mean `resources { memory = … }`?",
        "instances" | "scale" => "did you mean `replicas`?",
        "cmd" | "args" => "did you mean `command`?",
        "dockerfile" | "build" | "context" => {
            "a Dockerfile is not supported by this version; use `copy` and `run`"
        }
        "replicas" | "port" | "health" | "rollout" if schema.name == "job" => {
            "a job runs once to its end; a `service` or `worker` goes on"
        }
        _ => return None,
    };
    Some(other.to_owned())
}

fn block_form(schema: &BlockSchema) -> String {
    let labels: String = schema.labels.iter().map(|l| format!(" \"{}\"", l.to_uppercase())).collect();
    format!("write `{}{labels} {{ … }}`", schema.name)
}
