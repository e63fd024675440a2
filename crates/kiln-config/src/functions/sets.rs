//! Sets, ranges and slices.

use super::collection::{common_type, like};
use super::{Args, Failure, Function, MANY, Run, row};
use crate::number::Number;
use crate::value::{SeqKind, Value};

/// `range` makes at most this many: Terraform stops at 1,024, which is short for ports.
const RANGE_MAX: usize = 65_536;

/// `setproduct` multiplies; more would be an accident.
const PRODUCT_MAX: usize = 100_000;

pub(super) static ROWS: &[Function] = &[
    row(
        "chunklist",
        "chunklist(list, size)",
        (2, 2),
        Run::Parts(chunklist),
        "Lists of at most this many elements.",
        "chunklist([1, 2, 3], 2)",
        "[[1, 2], [3]]",
    ),
    row(
        "range",
        "range(start, limit, step)",
        (1, 3),
        Run::Whole(range),
        "Numbers up to a limit, which is left out.",
        "range(1, 4)",
        "[1, 2, 3]",
    ),
    row("reverse", "reverse(list)", (1, 1), Run::Parts(reverse), "Backwards.", "reverse([1, 2])", "[2, 1]"),
    row(
        "setintersection",
        "setintersection(set, …)",
        (1, MANY),
        Run::Parts(setintersection),
        "What is in all.",
        "setintersection([\"a\", \"b\"], [\"b\"])",
        "toset([\"b\"])",
    ),
    row(
        "setproduct",
        "setproduct(set, …)",
        (1, MANY),
        Run::Parts(setproduct),
        "All combinations.",
        "setproduct([\"a\"], [1, 2])",
        "[[\"a\", 1], [\"a\", 2]]",
    ),
    row(
        "setsubtract",
        "setsubtract(set, minus)",
        (2, 2),
        Run::Parts(setsubtract),
        "What is in the first alone.",
        "setsubtract([\"a\", \"b\"], [\"b\"])",
        "toset([\"a\"])",
    ),
    row(
        "setunion",
        "setunion(set, …)",
        (1, MANY),
        Run::Parts(setunion),
        "What is in any.",
        "setunion([\"a\"], [\"b\"])",
        "toset([\"a\", \"b\"])",
    ),
    row(
        "slice",
        "slice(list, start, end)",
        (3, 3),
        Run::Parts(slice),
        "The elements from start up to end, which is left out.",
        "slice([1, 2, 3], 0, 2)",
        "[1, 2]",
    ),
];

fn chunklist(args: &Args<'_>) -> Result<Value, Failure> {
    let (seq, size) = (args.seq(0)?, args.int::<usize>(1)?);
    if seq.items.is_empty() {
        return Ok(Value::list(Vec::new())?);
    }
    let size = if size == 0 { seq.items.len() } else { size };
    let chunks = seq.items.chunks(size).map(|c| like(seq.kind, c.to_vec()));
    Ok(Value::list(chunks.collect::<Result<_, Failure>>()?)?)
}

fn range(args: &Args<'_>) -> Result<Value, Failure> {
    let zero = Number::ZERO;
    let (start, limit) = match args.len() {
        1 => (zero, args.number(0)?),
        _ => (args.number(0)?, args.number(1)?),
    };
    let down = limit < start;
    let step = match args.len() {
        3 => args.number(2)?,
        _ if down => Number::from(-1_i128),
        _ => Number::from(1_u64),
    };
    if step.is_zero() || (step.is_negative() != down && limit != start) {
        return args.bad(args.len() - 1, "the step never reaches the limit");
    }
    let mut items = Vec::new();
    let mut at = start;
    while if down { at > limit } else { at < limit } {
        if items.len() >= RANGE_MAX {
            return Err(format!("it would have more than {RANGE_MAX} numbers").into());
        }
        items.push(Value::number(at));
        at = at.add(step).ok_or("it is out of range")?;
    }
    args.spend(items.len())?;
    Ok(Value::list(items)?)
}

fn reverse(args: &Args<'_>) -> Result<Value, Failure> {
    let seq = args.seq(0)?;
    let kind = if seq.kind == SeqKind::Set { SeqKind::List } else { seq.kind };
    like(kind, seq.items.iter().rev().cloned().collect())
}

/// The elements of each argument as sets.
fn all_sets(args: &Args<'_>) -> Result<Vec<Value>, Failure> {
    let lists: Result<Vec<&[Value]>, Failure> =
        (0..args.len()).map(|i| Ok(&args.seq(i)?.items[..])).collect();
    let lists = lists?;
    let common = common_type(args, lists.iter().copied().flatten())?;
    let convert = |v: &Value| common.convert(v.clone()).map_err(Failure::Call);
    let set = |items: &&[Value]| {
        let items: Vec<Value> = items.iter().map(convert).collect::<Result<_, _>>()?;
        Ok(Value::set(items)?)
    };
    lists.iter().map(set).collect()
}

fn items_of(value: &Value) -> &[Value] {
    value.as_seq().map_or(&[], |s| &s.items)
}

fn holds(set: &Value, wanted: &Value) -> bool {
    items_of(set).binary_search_by(|v| v.order(wanted)).is_ok()
}

fn setintersection(args: &Args<'_>) -> Result<Value, Failure> {
    let sets = all_sets(args)?;
    let (first, rest) = sets.split_first().ok_or("a set is missing")?;
    let in_all = |v: &&Value| rest.iter().all(|s| holds(s, v));
    Ok(Value::set(items_of(first).iter().filter(in_all).cloned().collect())?)
}

fn setsubtract(args: &Args<'_>) -> Result<Value, Failure> {
    let sets = all_sets(args)?;
    let kept = items_of(&sets[0]).iter().filter(|v| !holds(&sets[1], v));
    Ok(Value::set(kept.cloned().collect())?)
}

fn setunion(args: &Args<'_>) -> Result<Value, Failure> {
    let sets = all_sets(args)?;
    Ok(Value::set(sets.iter().flat_map(|s| items_of(s).iter().cloned()).collect())?)
}

fn setproduct(args: &Args<'_>) -> Result<Value, Failure> {
    let lists: Result<Vec<&[Value]>, Failure> =
        (0..args.len()).map(|i| Ok(&args.seq(i)?.items[..])).collect();
    let lists = lists?;
    let count = lists.iter().try_fold(1_usize, |n, l| n.checked_mul(l.len()));
    if count.is_none_or(|n| n > PRODUCT_MAX) {
        return Err(format!("it would have more than {PRODUCT_MAX} combinations").into());
    }
    let mut rows: Vec<Vec<Value>> = vec![Vec::new()];
    for list in &lists {
        args.spend(rows.len() * list.len().max(1))?;
        let longer = |row: Vec<Value>| {
            list.iter().map(move |v| row.iter().cloned().chain([v.clone()]).collect::<Vec<_>>())
        };
        rows = rows.into_iter().flat_map(longer).collect();
    }
    let all_sets = args.rest(0).iter().all(|v| v.as_seq().is_some_and(|s| s.kind == SeqKind::Set));
    let rows: Result<Vec<Value>, Failure> = rows.into_iter().map(|r| Ok(Value::tuple(r)?)).collect();
    like(if all_sets { SeqKind::Set } else { SeqKind::List }, rows?)
}

fn slice(args: &Args<'_>) -> Result<Value, Failure> {
    let seq = args.seq(0)?;
    if seq.kind == SeqKind::Set {
        return args.bad(0, "a set has no order; use `tolist(…)`");
    }
    let (start, end) = (args.int::<usize>(1)?, args.int::<usize>(2)?);
    match seq.items.get(start..end) {
        Some(items) => like(seq.kind, items.to_vec()),
        None => args.bad(2, format!("there is no part {start} to {end} of {} elements", seq.items.len())),
    }
}
