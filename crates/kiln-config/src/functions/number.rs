//! Numbers.

use super::{Args, Failure, Function, MANY, Run, row};
use crate::number::Number;
use crate::value::Value;

pub(super) static ROWS: &[Function] = &[
    row("abs", "abs(number)", (1, 1), Run::Whole(abs), "The number without its sign.", "abs(-12.4)", "12.4"),
    row(
        "ceil",
        "ceil(number)",
        (1, 1),
        Run::Whole(ceil),
        "The next whole number, upwards.",
        "ceil(5.1)",
        "6",
    ),
    row(
        "floor",
        "floor(number)",
        (1, 1),
        Run::Whole(floor),
        "The next whole number, downwards.",
        "floor(5.9)",
        "5",
    ),
    row("log", "log(number, base)", (2, 2), Run::Whole(log), "The logarithm to a base.", "log(16, 2)", "4"),
    row("max", "max(number, …)", (1, MANY), Run::Whole(max), "The largest.", "max(5, 12, 9)", "12"),
    row("min", "min(number, …)", (1, MANY), Run::Whole(min), "The smallest.", "min(5, 12, 9)", "5"),
    row(
        "parseint",
        "parseint(string, base)",
        (2, 2),
        Run::Whole(parseint),
        "Reads a whole number in a base from 2 to 62.",
        "parseint(\"ff\", 16)",
        "255",
    ),
    row("pow", "pow(number, exponent)", (2, 2), Run::Whole(pow), "The power.", "pow(2, 10)", "1024"),
    row(
        "signum",
        "signum(number)",
        (1, 1),
        Run::Whole(signum),
        "-1, 0 or 1 for the sign.",
        "signum(-13)",
        "-1",
    ),
];

fn abs(args: &Args<'_>) -> Result<Value, Failure> {
    let number = args.number(0)?;
    Ok(Value::number(if number.is_negative() { number.negate() } else { number }))
}

fn ceil(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::number(args.number(0)?.ceil()))
}

fn floor(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::number(args.number(0)?.floor()))
}

fn log(args: &Args<'_>) -> Result<Value, Failure> {
    let (number, base) = (args.number(0)?.to_f64(), args.number(1)?.to_f64());
    finite(number.ln() / base.ln())
}

fn pow(args: &Args<'_>) -> Result<Value, Failure> {
    let (number, exponent) = (args.number(0)?, args.number(1)?);
    if let Some(exponent) = exponent.to_int::<u32>().filter(|e| *e <= 128) {
        let mut power = Some(Number::from(1_u64));
        for _ in 0..exponent {
            power = power.and_then(|p| p.multiply(number));
        }
        return power.map(Value::number).ok_or_else(|| "the result is out of range".into());
    }
    finite(number.to_f64().powf(exponent.to_f64()))
}

/// A float that comes within a rounding of a whole number is that number, as `log(8, 2)`.
fn finite(value: f64) -> Result<Value, Failure> {
    let rounded = value.round();
    let near = (value - rounded).abs() < 1e-12 * value.abs().max(1.0);
    let number = Number::from_f64(if near { rounded } else { value });
    number.map(Value::number).ok_or_else(|| "the result is no number".into())
}

fn numbers(args: &Args<'_>) -> Result<Vec<Number>, Failure> {
    (0..args.len()).map(|i| args.number(i)).collect()
}

fn max(args: &Args<'_>) -> Result<Value, Failure> {
    let largest = numbers(args)?.into_iter().max();
    largest.map(Value::number).ok_or_else(|| "there is nothing to compare".into())
}

fn min(args: &Args<'_>) -> Result<Value, Failure> {
    let smallest = numbers(args)?.into_iter().min();
    smallest.map(Value::number).ok_or_else(|| "there is nothing to compare".into())
}

fn parseint(args: &Args<'_>) -> Result<Value, Failure> {
    let (text, base) = (args.str(0)?, args.int::<u32>(1)?);
    if !(2..=62).contains(&base) {
        return args.bad(1, "the base is between 2 and 62");
    }
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, &*text),
    };
    let digit = |c: char| {
        let value = match c {
            '0'..='9' => c as u32 - '0' as u32,
            'a'..='z' => c as u32 - 'a' as u32 + 10,
            'A'..='Z' if base <= 36 => c as u32 - 'A' as u32 + 10,
            'A'..='Z' => c as u32 - 'A' as u32 + 36,
            _ => return None,
        };
        (value < base).then_some(i128::from(value))
    };
    let mut number = (!digits.is_empty()).then_some(0_i128);
    for c in digits.chars() {
        number = number
            .zip(digit(c))
            .and_then(|(n, d)| n.checked_mul(i128::from(base)).and_then(|n| n.checked_add(d)));
    }
    match number {
        Some(number) => Ok(Value::number(if negative { -number } else { number })),
        None => args.bad(0, format!("\"{text}\" is no whole number in base {base}")),
    }
}

fn signum(args: &Args<'_>) -> Result<Value, Failure> {
    let number = args.number(0)?;
    let sign: i128 = match (number.is_zero(), number.is_negative()) {
        (true, _) => 0,
        (false, true) => -1,
        (false, false) => 1,
    };
    Ok(Value::number(sign))
}
