//! `format` and `formatlist`: Go's verbs, as Terraform has them.

use super::{Args, Failure, Function, MANY, Run, json, row};
use crate::number::Number;
use crate::types::Type;
use crate::value::{Kind, Value};

/// A width beyond this only makes blanks.
const WIDTH_MAX: usize = 10_000;

pub(super) static ROWS: &[Function] = &[
    row(
        "format",
        "format(spec, value, …)",
        (1, MANY),
        Run::Whole(format),
        "A string with values put in: `%s` text, `%d` a whole number, `%f` a decimal, `%q` quoted, `%v` any, `%x` hexadecimal, `%05.2f` with width and precision.",
        "format(\"%s has %03d\", \"web\", 7)",
        "\"web has 007\"",
    ),
    row(
        "formatlist",
        "formatlist(spec, list, …)",
        (1, MANY),
        Run::Whole(formatlist),
        "`format` for each element of lists of one length.",
        "formatlist(\"%s:%d\", [\"a\", \"b\"], [1, 2])",
        "[\"a:1\", \"b:2\"]",
    ),
];

/// One `%…x`.
#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
    index: Option<usize>,
    letter: char,
}

fn format(args: &Args<'_>) -> Result<Value, Failure> {
    let spec = args.str(0)?;
    args.text(apply(args, &spec, args.rest(1))?)
}

fn formatlist(args: &Args<'_>) -> Result<Value, Failure> {
    let spec = args.str(0)?;
    let lists: Vec<Option<&[Value]>> =
        args.rest(1).iter().map(|v| v.as_seq().map(|s| &s.items[..])).collect();
    let mut length = None;
    for (i, list) in lists.iter().enumerate() {
        let Some(list) = list else { continue };
        if length.is_some_and(|l| l != list.len()) {
            return args.bad(i + 1, "all lists must have the same length");
        }
        length = Some(list.len());
    }
    let row = |at: usize| {
        let pick = |(value, list): (&Value, &Option<&[Value]>)| {
            list.map_or_else(|| value.clone(), |l| l[at].clone())
        };
        let values: Vec<Value> = args.rest(1).iter().zip(&lists).map(pick).collect();
        args.text(apply(args, &spec, &values)?)
    };
    let rows: Result<Vec<Value>, Failure> = (0..length.unwrap_or(1)).map(row).collect();
    Ok(Value::list(rows?)?)
}

fn apply(args: &Args<'_>, spec: &str, values: &[Value]) -> Result<String, Failure> {
    let mut out = String::new();
    let mut next = 0;
    let mut most = 0;
    let mut rest = spec;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let (verb, after) = parse_verb(&rest[at + 1..])
            .ok_or_else(|| Failure::Argument(0, format!("`%` at \"{}\" is no verb", clip(&rest[at..]))))?;
        rest = after;
        if verb.letter == '%' {
            out.push('%');
            continue;
        }
        let index = verb.index.unwrap_or(next);
        let Some(value) = values.get(index) else {
            return args.bad(
                0,
                format!("`%{}` needs value {}, but {} are given", verb.letter, index + 1, values.len()),
            );
        };
        next = index + 1;
        most = most.max(next);
        let text = one(&verb, value).map_err(|e| Failure::Argument(index + 1, e))?;
        pad(&mut out, &text, &verb);
        args.room(out.len() + rest.len())?;
    }
    out.push_str(rest);
    if most < values.len() {
        return args.bad(0, format!("{} values are given, but {most} are used", values.len()));
    }
    Ok(out)
}

fn clip(text: &str) -> String {
    text.chars().take(6).collect()
}

fn parse_verb(text: &str) -> Option<(Verb, &str)> {
    let mut verb = Verb::default();
    let mut chars = text.char_indices().peekable();
    loop {
        let (_, c) = *chars.peek()?;
        match c {
            '-' => verb.minus = true,
            '+' => verb.plus = true,
            ' ' => verb.space = true,
            '0' => verb.zero = true,
            '#' => verb.sharp = true,
            _ => break,
        }
        chars.next();
    }
    let number = |chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>| {
        let mut value = None;
        while let Some((_, c)) = chars.peek().copied().filter(|(_, c)| c.is_ascii_digit()) {
            let digit = c as usize - '0' as usize;
            value = Some((value.unwrap_or(0_usize) * 10 + digit).min(WIDTH_MAX));
            chars.next();
        }
        value
    };
    verb.width = number(&mut chars).unwrap_or(0);
    if chars.peek().is_some_and(|(_, c)| *c == '.') {
        chars.next();
        verb.precision = Some(number(&mut chars).unwrap_or(0));
    }
    if chars.peek().is_some_and(|(_, c)| *c == '[') {
        chars.next();
        verb.index = Some(number(&mut chars)?.checked_sub(1)?);
        chars.next().filter(|(_, c)| *c == ']')?;
    }
    let (at, letter) = chars.next()?;
    verb.letter = letter;
    Some((verb, &text[at + letter.len_utf8()..]))
}

fn one(verb: &Verb, value: &Value) -> Result<String, String> {
    let number = || match Type::Number.convert(value.clone())?.kind {
        Kind::Number(number) => Ok(number),
        _ => Err(format!("`%{}` can't take null", verb.letter)),
    };
    let text = || match Type::String.convert(value.clone())?.as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(format!("`%{}` can't take null", verb.letter)),
    };
    let clipped = |text: String| match verb.precision {
        Some(most) => text.chars().take(most).collect(),
        None => text,
    };
    let decimals = verb.precision.unwrap_or(6);
    match verb.letter {
        's' => Ok(clipped(text()?)),
        'q' => Ok(json::encode_string(&clipped(text()?))),
        'v' => match &value.kind {
            Kind::Null => Ok("null".into()),
            Kind::Bool(_) | Kind::Number(_) | Kind::String(_) if !verb.sharp => text(),
            _ => json::encode(value),
        },
        't' => match Type::Bool.convert(value.clone())?.kind {
            Kind::Bool(value) => Ok(value.to_string()),
            _ => Err("`%t` can't take null".into()),
        },
        'd' => whole(number()?).map(|n| signed(verb, n, |n| n.to_string())),
        'b' => whole(number()?).map(|n| signed(verb, n, |n| radix(n, 2))),
        'o' => whole(number()?).map(|n| signed(verb, n, |n| radix(n, 8))),
        'x' => whole(number()?).map(|n| signed(verb, n, |n| radix(n, 16))),
        'X' => whole(number()?).map(|n| signed(verb, n, |n| radix(n, 16).to_uppercase())),
        'f' => Ok(signed(verb, number()?, |n| format!("{:.decimals$}", n.to_f64()))),
        'e' => Ok(signed(verb, number()?, |n| exponent(n.to_f64(), decimals))),
        'g' => Ok(signed(verb, number()?, shortest)),
        other => Err(format!("there is no verb `%{other}`")),
    }
}

fn whole(number: Number) -> Result<Number, String> {
    number.to_i128().map(Number::from).ok_or_else(|| format!("expected a whole number, found {number}"))
}

fn radix(number: Number, base: u32) -> String {
    let value = number.to_i128().unwrap_or_default().unsigned_abs();
    match base {
        2 => format!("{value:b}"),
        8 => format!("{value:o}"),
        _ => format!("{value:x}"),
    }
}

/// Rust writes `1e2`, Go `1.000000e+02`.
fn exponent(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// Go's `%g`: an exponent for what is below 10^-4 or from 10^6 on.
fn shortest(number: Number) -> String {
    let text = format!("{:e}", number.to_f64());
    let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = power.parse().unwrap_or(0);
    if (-4..6).contains(&power) {
        return number.to_string();
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.unsigned_abs())
}

fn signed(verb: &Verb, number: Number, show: impl Fn(Number) -> String) -> String {
    let (sign, positive) = match number.is_negative() {
        true => ("-", number.negate()),
        false if verb.plus => ("+", number),
        false if verb.space => (" ", number),
        false => ("", number),
    };
    let digits = show(positive);
    let zeros = match verb.zero && !verb.minus {
        true => verb.width.saturating_sub(sign.len() + digits.len()),
        false => 0,
    };
    format!("{sign}{}{digits}", "0".repeat(zeros))
}

fn pad(out: &mut String, text: &str, verb: &Verb) {
    let blanks = " ".repeat(verb.width.saturating_sub(text.chars().count()));
    if verb.minus {
        out.push_str(text);
        out.push_str(&blanks);
    } else {
        out.push_str(&blanks);
        out.push_str(text);
    }
}
