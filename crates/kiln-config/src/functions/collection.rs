//! Lists and maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Args, Failure, Function, MANY, Run, row};
use crate::number::Number;
use crate::types::{Type, unify_all};
use crate::value::{Kind, MapKind, SeqKind, Value};

pub(super) static ROWS: &[Function] = &[
    row(
        "alltrue",
        "alltrue(list)",
        (1, 1),
        Run::Whole(alltrue),
        "Whether all elements are true.",
        "alltrue([true, true])",
        "true",
    ),
    row(
        "anytrue",
        "anytrue(list)",
        (1, 1),
        Run::Whole(anytrue),
        "Whether one element is true.",
        "anytrue([false, true])",
        "true",
    ),
    row(
        "coalesce",
        "coalesce(value, …)",
        (1, MANY),
        Run::Parts(coalesce),
        "The first that is neither null nor \"\".",
        "coalesce(\"\", \"b\")",
        "\"b\"",
    ),
    row(
        "coalescelist",
        "coalescelist(list, …)",
        (1, MANY),
        Run::Parts(coalescelist),
        "The first list that isn't empty.",
        "coalescelist([], [1])",
        "[1]",
    ),
    row(
        "compact",
        "compact(list)",
        (1, 1),
        Run::Parts(compact),
        "Without null and \"\".",
        "compact([\"a\", \"\", null])",
        "[\"a\"]",
    ),
    row(
        "concat",
        "concat(list, …)",
        (1, MANY),
        Run::Parts(concat),
        "Lists one after the other.",
        "concat([1], [2, 3])",
        "[1, 2, 3]",
    ),
    row(
        "contains",
        "contains(list, value)",
        (2, 2),
        Run::Whole(contains),
        "Whether the value is an element.",
        "contains([\"a\", \"b\"], \"b\")",
        "true",
    ),
    row(
        "distinct",
        "distinct(list)",
        (1, 1),
        Run::Parts(distinct),
        "Each element once, in order.",
        "distinct([1, 2, 1])",
        "[1, 2]",
    ),
    row(
        "element",
        "element(list, index)",
        (2, 2),
        Run::Parts(element),
        "An element; the index wraps around.",
        "element([\"a\", \"b\"], 3)",
        "\"b\"",
    ),
    row(
        "flatten",
        "flatten(list)",
        (1, 1),
        Run::Parts(flatten),
        "Lists within the list, dissolved.",
        "flatten([[1], [2, [3]]])",
        "[1, 2, 3]",
    ),
    row(
        "index",
        "index(list, value)",
        (2, 2),
        Run::Whole(index),
        "Where the value first occurs.",
        "index([\"a\", \"b\"], \"b\")",
        "1",
    ),
    row(
        "keys",
        "keys(map)",
        (1, 1),
        Run::Parts(keys),
        "The keys, sorted.",
        "keys({ b = 1, a = 2 })",
        "[\"a\", \"b\"]",
    ),
    row(
        "length",
        "length(value)",
        (1, 1),
        Run::Parts(length),
        "How many elements or characters.",
        "length([1, 2])",
        "2",
    ),
    row(
        "lookup",
        "lookup(map, key, default)",
        (2, 3),
        Run::Parts(lookup),
        "The value of a key, or the default.",
        "lookup({ a = 1 }, \"b\", 0)",
        "0",
    ),
    row(
        "matchkeys",
        "matchkeys(values, keys, wanted)",
        (3, 3),
        Run::Parts(matchkeys),
        "The values whose key, at the same index, is wanted.",
        "matchkeys([1, 2], [\"a\", \"b\"], [\"b\"])",
        "[2]",
    ),
    row(
        "merge",
        "merge(map, …)",
        (0, MANY),
        Run::Parts(merge),
        "One map of all; later ones win.",
        "merge({ a = 1 }, { a = 2, b = 3 })",
        "{ a = 2, b = 3 }",
    ),
    row(
        "one",
        "one(list)",
        (1, 1),
        Run::Parts(one),
        "The only element, or null of none.",
        "one([\"a\"])",
        "\"a\"",
    ),
    row(
        "sort",
        "sort(list)",
        (1, 1),
        Run::Whole(sort),
        "Strings, sorted.",
        "sort([\"b\", \"a\"])",
        "[\"a\", \"b\"]",
    ),
    row("sum", "sum(list)", (1, 1), Run::Whole(sum), "The numbers added.", "sum([1, 2.5])", "3.5"),
    row(
        "transpose",
        "transpose(map)",
        (1, 1),
        Run::Whole(transpose),
        "A map of lists of strings, turned round.",
        "transpose({ a = [\"x\"], b = [\"x\"] })",
        "{ x = [\"a\", \"b\"] }",
    ),
    row(
        "values",
        "values(map)",
        (1, 1),
        Run::Parts(values),
        "The values, sorted by key.",
        "values({ b = 1, a = 2 })",
        "[2, 1]",
    ),
    row(
        "zipmap",
        "zipmap(keys, values)",
        (2, 2),
        Run::Parts(zipmap),
        "A map of two lists.",
        "zipmap([\"a\", \"b\"], [1, 2])",
        "{ a = 1, b = 2 }",
    ),
];

/// A list of the kind that the arguments have: elements of one type make a list, others a tuple.
pub(super) fn like(kind: SeqKind, items: Vec<Value>) -> Result<Value, Failure> {
    Ok(match kind {
        SeqKind::Set => Value::set(items)?,
        kind => Value::seq(kind, items)?,
    })
}

/// The type that all values have in common; anything where there is none.
pub(super) fn common_type<'v>(
    args: &Args<'_>,
    values: impl Iterator<Item = &'v Value>,
) -> Result<Type, Failure> {
    args.weigh()?;
    let types: Vec<Type> = values.map(Type::of).collect();
    Ok(unify_all(types.iter()).unwrap_or(Type::Any))
}

fn bools(args: &Args<'_>) -> Result<Vec<bool>, Failure> {
    let one = |(i, value): (usize, &Value)| {
        let converted = Type::Bool.convert(value.clone());
        let converted = converted.map_err(|e| Failure::Argument(0, format!("at element {i}: {e}")))?;
        Ok(matches!(converted.kind, Kind::Bool(true)))
    };
    args.seq(0)?.items.iter().enumerate().map(one).collect()
}

fn alltrue(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::bool(bools(args)?.into_iter().all(|b| b)))
}

fn anytrue(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::bool(bools(args)?.into_iter().any(|b| b)))
}

fn coalesce(args: &Args<'_>) -> Result<Value, Failure> {
    let found = args.rest(0).iter().find(|v| !v.is_null() && v.as_str() != Some(""));
    let Some(found) = found else { return Err("all values are null or empty".into()) };
    let common = common_type(args, args.rest(0).iter())?;
    common.convert(found.clone()).map_err(Failure::Call)
}

fn coalescelist(args: &Args<'_>) -> Result<Value, Failure> {
    for i in 0..args.len() {
        if !args.get(i).is_null() && !args.seq(i)?.items.is_empty() {
            return Ok(args.get(i).clone());
        }
    }
    Err("all lists are empty".into())
}

fn compact(args: &Args<'_>) -> Result<Value, Failure> {
    let keep = |v: &&Value| !v.is_null() && v.as_str() != Some("");
    Ok(Value::list(args.seq(0)?.items.iter().filter(keep).cloned().collect())?)
}

fn concat(args: &Args<'_>) -> Result<Value, Failure> {
    let mut items = Vec::new();
    let mut all_lists = true;
    for i in 0..args.len() {
        let seq = args.seq(i)?;
        all_lists &= seq.kind != SeqKind::Tuple;
        items.extend(seq.items.iter().cloned());
    }
    like(if all_lists { SeqKind::List } else { SeqKind::Tuple }, items)
}

fn contains(args: &Args<'_>) -> Result<Value, Failure> {
    args.weigh()?;
    let wanted = args.get(1);
    Ok(Value::bool(args.seq(0)?.items.iter().any(|v| v.order(wanted).is_eq())))
}

fn distinct(args: &Args<'_>) -> Result<Value, Failure> {
    let seq = args.seq(0)?;
    let common = common_type(args, seq.items.iter())?;
    let converted = seq.items.iter().map(|v| common.convert(v.clone()).map_err(Failure::Call));
    let items: Vec<Value> = converted.collect::<Result<_, _>>()?;
    let mut order: Vec<usize> = (0..items.len()).collect();
    order.sort_by(|a, b| items[*a].order(&items[*b]).then(a.cmp(b)));
    order.dedup_by(|a, b| items[*a].order(&items[*b]).is_eq());
    order.sort_unstable();
    Ok(Value::list(order.into_iter().map(|i| items[i].clone()).collect())?)
}

fn element(args: &Args<'_>) -> Result<Value, Failure> {
    let (seq, index) = (args.seq(0)?, args.int::<i64>(1)?);
    if seq.items.is_empty() {
        return args.bad(0, "the list is empty");
    }
    Ok(seq.items[index.rem_euclid(seq.items.len() as i64) as usize].clone())
}

fn flatten(args: &Args<'_>) -> Result<Value, Failure> {
    let mut out = Vec::new();
    flatten_into(args, &args.seq(0)?.items, &mut out)?;
    Ok(Value::tuple(out)?)
}

fn flatten_into(args: &Args<'_>, items: &[Value], out: &mut Vec<Value>) -> Result<(), Failure> {
    args.spend(items.len())?;
    for item in items {
        match item.as_seq() {
            Some(inner) => {
                // The marks of a list that is dissolved go on with its elements.
                let inner: Vec<Value> = inner.items.iter().map(|v| v.clone().marked(&item.marks)).collect();
                flatten_into(args, &inner, out)?;
            }
            None => out.push(item.clone()),
        }
    }
    Ok(())
}

fn index(args: &Args<'_>) -> Result<Value, Failure> {
    args.weigh()?;
    let wanted = args.get(1);
    let found = args.seq(0)?.items.iter().position(|v| v.order(wanted).is_eq());
    found.map(Value::number).ok_or_else(|| "the value is not in the list".into())
}

fn keys(args: &Args<'_>) -> Result<Value, Failure> {
    let keys = args.map(0)?.items.keys().map(|k| Value::new(Kind::String(k.clone())));
    Ok(Value::list(keys.collect())?)
}

fn length(args: &Args<'_>) -> Result<Value, Failure> {
    use unicode_segmentation::UnicodeSegmentation;
    match &args.get(0).kind {
        Kind::Seq(seq) => Ok(Value::number(seq.items.len())),
        Kind::Map(map) => Ok(Value::number(map.items.len())),
        Kind::String(text) => {
            args.spend(text.len())?;
            Ok(Value::number(text.graphemes(true).count()))
        }
        _ => args.bad(0, format!("expected a list, map or string, found {}", args.get(0).describe())),
    }
}

fn lookup(args: &Args<'_>) -> Result<Value, Failure> {
    let key = args.str(1)?;
    // One key costs the same in any map.
    let Some(map) = args.get(0).as_map() else {
        return args.bad(0, format!("expected a map, found {}", args.get(0).describe()));
    };
    match (map.items.get(&key), args.len()) {
        (Some(value), _) => Ok(value.clone()),
        (None, 3) => Ok(args.get(2).clone()),
        (None, _) => args.bad(1, format!("there is no key \"{key}\", and no default is given")),
    }
}

fn matchkeys(args: &Args<'_>) -> Result<Value, Failure> {
    args.weigh()?;
    let (values, keys, wanted) = (args.seq(0)?, args.seq(1)?, args.seq(2)?);
    if values.items.len() != keys.items.len() {
        return args.bad(1, "there must be as many keys as values");
    }
    args.spend(keys.items.len().saturating_mul(wanted.items.len()))?;
    let is_wanted = |key: &Value| wanted.items.iter().any(|w| w.order(key).is_eq());
    let pairs = values.items.iter().zip(&keys.items).filter(|(_, key)| is_wanted(key));
    Ok(Value::list(pairs.map(|(value, _)| value.clone()).collect())?)
}

fn merge(args: &Args<'_>) -> Result<Value, Failure> {
    let mut items = BTreeMap::new();
    let mut all_maps = args.len() > 0;
    for i in 0..args.len() {
        // `merge(a, cond ? b : null)` is common.
        if args.get(i).is_null() {
            continue;
        }
        let map = args.map(i)?;
        all_maps &= map.kind == MapKind::Map;
        items.extend(map.items.iter().map(|(k, v)| (k.clone(), v.clone())));
    }
    Ok(Value::map(if all_maps { MapKind::Map } else { MapKind::Object }, items)?)
}

fn one(args: &Args<'_>) -> Result<Value, Failure> {
    match &args.seq(0)?.items[..] {
        [] => Ok(Value::null()),
        [only] => Ok(only.clone()),
        many => args.bad(0, format!("it has {} elements, not one or none", many.len())),
    }
}

fn sort(args: &Args<'_>) -> Result<Value, Failure> {
    let mut items = args.strings(0)?;
    items.sort();
    Ok(Value::list(items.into_iter().map(Value::string).collect())?)
}

fn sum(args: &Args<'_>) -> Result<Value, Failure> {
    let seq = args.seq(0)?;
    if seq.items.is_empty() {
        return args.bad(0, "the list is empty");
    }
    let mut total = Number::ZERO;
    for (i, value) in seq.items.iter().enumerate() {
        let converted = Type::Number.convert(value.clone());
        let Ok(Kind::Number(number)) = converted.map(|v| v.kind) else {
            return args.bad(0, format!("element {i} is no number"));
        };
        total = total.add(number).ok_or("the sum is out of range")?;
    }
    Ok(Value::number(total))
}

fn transpose(args: &Args<'_>) -> Result<Value, Failure> {
    let mut turned: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for (key, list) in &args.map(0)?.items {
        let Some(seq) = list.as_seq() else { return args.bad(0, "its values must be lists of strings") };
        args.spend(seq.items.len())?;
        for item in &seq.items {
            let Some(text) = item.as_str() else { return args.bad(0, "its values must be lists of strings") };
            turned.entry(text.into()).or_default().insert(key.clone());
        }
    }
    let lists = turned.into_iter().map(|(key, names)| {
        Ok((key, Value::list(names.into_iter().map(|n| Value::new(Kind::String(n))).collect())?))
    });
    Ok(Value::map(MapKind::Map, lists.collect::<Result<_, Failure>>()?)?)
}

fn values(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::tuple(args.map(0)?.items.values().cloned().collect())?)
}

fn zipmap(args: &Args<'_>) -> Result<Value, Failure> {
    let (keys, values) = (args.strings(0)?, args.seq(1)?);
    if keys.len() != values.items.len() {
        return args.bad(1, "there must be as many values as keys");
    }
    Ok(Value::object(keys.into_iter().zip(values.items.iter().cloned()).collect())?)
}
