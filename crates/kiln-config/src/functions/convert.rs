//! Types and marks.

use super::{Args, Failure, Function, Lazy, MANY, Run, row};
use crate::types::Type;
use crate::value::{Kind, MapKind, SeqKind, Value};

pub(super) static ROWS: &[Function] = &[
    row(
        "can",
        "can(expression)",
        (1, 1),
        Run::Lazy(Lazy::Can),
        "Whether it evaluates without an error.",
        "can(tonumber(\"x\"))",
        "false",
    ),
    row(
        "issensitive",
        "issensitive(value)",
        (1, 1),
        Run::Marks(issensitive),
        "Whether it is sensitive.",
        "issensitive(sensitive(1))",
        "true",
    ),
    row(
        "nonsensitive",
        "nonsensitive(value)",
        (1, 1),
        Run::Marks(nonsensitive),
        "The value, no longer sensitive: only for what reveals nothing.",
        "nonsensitive(sensitive(\"a\") == \"b\")",
        "false",
    ),
    row(
        "sensitive",
        "sensitive(value)",
        (1, 1),
        Run::Marks(sensitive),
        "The value, never shown, and refused where it would be stored in clear.",
        "nonsensitive(sensitive(\"a\"))",
        "\"a\"",
    ),
    row("tobool", "tobool(value)", (1, 1), Run::Whole(tobool), "As a bool.", "tobool(\"true\")", "true"),
    row(
        "tolist",
        "tolist(value)",
        (1, 1),
        Run::Parts(tolist),
        "As a list: all elements of one type.",
        "tolist([1, \"b\"])",
        "tolist([\"1\", \"b\"])",
    ),
    row(
        "tomap",
        "tomap(value)",
        (1, 1),
        Run::Parts(tomap),
        "As a map: all values of one type.",
        "tomap({ a = 1, b = \"x\" })",
        "tomap({ a = \"1\", b = \"x\" })",
    ),
    row(
        "tonumber",
        "tonumber(value)",
        (1, 1),
        Run::Whole(tonumber),
        "As a number.",
        "tonumber(\"12\")",
        "12",
    ),
    row(
        "toset",
        "toset(value)",
        (1, 1),
        Run::Parts(toset),
        "As a set: sorted, each element once.",
        "toset([\"b\", \"a\", \"b\"])",
        "toset([\"a\", \"b\"])",
    ),
    row(
        "tostring",
        "tostring(value)",
        (1, 1),
        Run::Whole(tostring),
        "As a string.",
        "tostring(12)",
        "\"12\"",
    ),
    row(
        "try",
        "try(expression, …)",
        (1, MANY),
        Run::Lazy(Lazy::Try),
        "The first that evaluates without an error.",
        "try(tonumber(\"x\"), 0)",
        "0",
    ),
    row(
        "type",
        "type(value)",
        (1, 1),
        Run::Parts(type_of),
        "The type, as text.",
        "type([1, \"a\"])",
        "\"tuple([number, string])\"",
    ),
];

fn to(args: &Args<'_>, ty: &Type) -> Result<Value, Failure> {
    args.weigh()?;
    ty.convert(args.get(0).clone()).map_err(|e| Failure::Argument(0, e))
}

fn tobool(args: &Args<'_>) -> Result<Value, Failure> {
    to(args, &Type::Bool)
}

fn tonumber(args: &Args<'_>) -> Result<Value, Failure> {
    to(args, &Type::Number)
}

fn tostring(args: &Args<'_>) -> Result<Value, Failure> {
    to(args, &Type::String)
}

fn tolist(args: &Args<'_>) -> Result<Value, Failure> {
    to(args, &Type::List(Box::new(Type::Any)))
}

fn toset(args: &Args<'_>) -> Result<Value, Failure> {
    to(args, &Type::Set(Box::new(Type::Any)))
}

fn tomap(args: &Args<'_>) -> Result<Value, Failure> {
    to(args, &Type::Map(Box::new(Type::Any)))
}

fn sensitive(args: &Args<'_>) -> Result<Value, Failure> {
    let mut value = args.get(0).clone();
    value.marks.sensitive = true;
    Ok(value)
}

fn nonsensitive(args: &Args<'_>) -> Result<Value, Failure> {
    args.weigh()?;
    Ok(reveal(args.get(0))?)
}

/// Takes the mark from a value and from all in it.
fn reveal(value: &Value) -> Result<Value, crate::value::TooLarge> {
    let mut marks = value.marks.clone();
    marks.sensitive = false;
    let plain = match &value.kind {
        Kind::Seq(seq) if value.all_marks().sensitive => {
            let items: Result<Vec<_>, _> = seq.items.iter().map(reveal).collect();
            match seq.kind {
                SeqKind::Set => Value::set(items?)?,
                kind => Value::seq(kind, items?)?,
            }
        }
        Kind::Map(map) if value.all_marks().sensitive => {
            let item = |(k, v): (&std::sync::Arc<str>, &Value)| Ok((k.clone(), reveal(v)?));
            let items: Result<_, _> = map.items.iter().map(item).collect();
            let kind: MapKind = map.kind;
            Value::map(kind, items?)?
        }
        kind => Value::new(kind.clone()),
    };
    Ok(plain.at(value.origin).marked(&marks))
}

fn issensitive(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::bool(args.get(0).all_marks().sensitive))
}

fn type_of(args: &Args<'_>) -> Result<Value, Failure> {
    args.weigh()?;
    args.text(Type::of(args.get(0)).to_string())
}
