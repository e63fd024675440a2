//! Strings. Lengths and offsets count what a reader sees as one character, as Terraform does.

use std::sync::Arc;

use regex::{Captures, Regex, RegexBuilder};
use unicode_segmentation::UnicodeSegmentation;

use super::{Args, Failure, Function, MANY, Run, row};
use crate::value::Value;

/// A compiled pattern may not take more memory.
const PATTERN_BYTES_MAX: usize = 1 << 20;

pub(super) static ROWS: &[Function] = &[
    row(
        "chomp",
        "chomp(string)",
        (1, 1),
        Run::Whole(chomp),
        "Without newlines at the end.",
        "chomp(\"hello\\n\")",
        "\"hello\"",
    ),
    row(
        "endswith",
        "endswith(string, suffix)",
        (2, 2),
        Run::Whole(endswith),
        "Whether it ends so.",
        "endswith(\"web.hcl\", \".hcl\")",
        "true",
    ),
    row(
        "indent",
        "indent(spaces, string)",
        (2, 2),
        Run::Whole(indent),
        "All lines but the first, indented.",
        "indent(2, \"a\\nb\")",
        "\"a\\n  b\"",
    ),
    row(
        "join",
        "join(separator, list, …)",
        (2, MANY),
        Run::Whole(join),
        "The strings of lists, joined.",
        "join(\", \", [\"a\", \"b\"])",
        "\"a, b\"",
    ),
    row("lower", "lower(string)", (1, 1), Run::Whole(lower), "In lower case.", "lower(\"Kiln\")", "\"kiln\""),
    row(
        "regex",
        "regex(pattern, string)",
        (2, 2),
        Run::Whole(regex_first),
        "The first match: its text, or its groups as a list or map. Fails where nothing matches.",
        "regex(\"([a-z]+)-([0-9]+)\", \"web-12\")",
        "[\"web\", \"12\"]",
    ),
    row(
        "regexall",
        "regexall(pattern, string)",
        (2, 2),
        Run::Whole(regex_all),
        "All matches.",
        "regexall(\"[0-9]+\", \"1 and 22\")",
        "[\"1\", \"22\"]",
    ),
    row(
        "replace",
        "replace(string, search, replacement)",
        (3, 3),
        Run::Whole(replace),
        "With each occurrence replaced; a search between slashes is a pattern.",
        "replace(\"a1b2\", \"/[0-9]/\", \"\")",
        "\"ab\"",
    ),
    row(
        "split",
        "split(separator, string)",
        (2, 2),
        Run::Whole(split),
        "The pieces between separators.",
        "split(\",\", \"a,b\")",
        "[\"a\", \"b\"]",
    ),
    row(
        "startswith",
        "startswith(string, prefix)",
        (2, 2),
        Run::Whole(startswith),
        "Whether it begins so.",
        "startswith(\"web-1\", \"web\")",
        "true",
    ),
    row(
        "strcontains",
        "strcontains(string, search)",
        (2, 2),
        Run::Whole(strcontains),
        "Whether it occurs within.",
        "strcontains(\"webshop\", \"shop\")",
        "true",
    ),
    row("strrev", "strrev(string)", (1, 1), Run::Whole(strrev), "Backwards.", "strrev(\"abc\")", "\"cba\""),
    row(
        "substr",
        "substr(string, offset, length)",
        (3, 3),
        Run::Whole(substr),
        "A part; a negative offset counts from the end, a negative length takes all the rest.",
        "substr(\"hello\", 1, 3)",
        "\"ell\"",
    ),
    row(
        "title",
        "title(string)",
        (1, 1),
        Run::Whole(title),
        "Each word with a capital.",
        "title(\"hello world\")",
        "\"Hello World\"",
    ),
    row(
        "trim",
        "trim(string, characters)",
        (2, 2),
        Run::Whole(trim),
        "Without these characters at both ends.",
        "trim(\"?!hi?!\", \"!?\")",
        "\"hi\"",
    ),
    row(
        "trimprefix",
        "trimprefix(string, prefix)",
        (2, 2),
        Run::Whole(trimprefix),
        "Without this prefix.",
        "trimprefix(\"v1.2\", \"v\")",
        "\"1.2\"",
    ),
    row(
        "trimspace",
        "trimspace(string)",
        (1, 1),
        Run::Whole(trimspace),
        "Without blanks at both ends.",
        "trimspace(\" hi\\n\")",
        "\"hi\"",
    ),
    row(
        "trimsuffix",
        "trimsuffix(string, suffix)",
        (2, 2),
        Run::Whole(trimsuffix),
        "Without this suffix.",
        "trimsuffix(\"a.hcl\", \".hcl\")",
        "\"a\"",
    ),
    row("upper", "upper(string)", (1, 1), Run::Whole(upper), "In upper case.", "upper(\"kiln\")", "\"KILN\""),
];

fn chomp(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(args.str(0)?.trim_end_matches(['\n', '\r'])))
}

fn endswith(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::bool(args.str(0)?.ends_with(&*args.str(1)?)))
}

fn startswith(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::bool(args.str(0)?.starts_with(&*args.str(1)?)))
}

fn strcontains(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::bool(args.str(0)?.contains(&*args.str(1)?)))
}

fn indent(args: &Args<'_>) -> Result<Value, Failure> {
    let (spaces, text) = (args.int::<u16>(0)?, args.str(1)?);
    let lines = text.matches('\n').count();
    args.room(text.len() + lines * usize::from(spaces))?;
    Ok(Value::string(text.replace('\n', &format!("\n{}", " ".repeat(usize::from(spaces))))))
}

fn join(args: &Args<'_>) -> Result<Value, Failure> {
    let separator = args.str(0)?;
    let mut parts: Vec<Arc<str>> = Vec::new();
    for i in 1..args.len() {
        parts.extend(args.strings(i)?);
    }
    let bytes = parts.iter().map(|p| p.len() + separator.len()).sum();
    args.room(bytes)?;
    Ok(Value::string(parts.join(&separator)))
}

fn lower(args: &Args<'_>) -> Result<Value, Failure> {
    args.text(args.str(0)?.to_lowercase())
}

fn upper(args: &Args<'_>) -> Result<Value, Failure> {
    args.text(args.str(0)?.to_uppercase())
}

fn pattern(args: &Args<'_>, i: usize, text: &str) -> Result<Regex, Failure> {
    args.spend(100 + text.len())?;
    compile_pattern(text).map_err(|reason| Failure::Argument(i, reason))
}

/// Compiles a regular expression.
pub(crate) fn compile_pattern(text: &str) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build().map_err(|e| {
        let reason = e.to_string();
        let last = reason.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("the pattern is not valid: {last}")
    })
}

fn regex_first(args: &Args<'_>) -> Result<Value, Failure> {
    let (expression, text) = (args.str(0)?, args.str(1)?);
    let regex = pattern(args, 0, &expression)?;
    args.spend(text.len() / 16)?;
    match regex.captures(&text) {
        Some(captures) => capture(&regex, &captures),
        None => Err("the pattern does not match; `can` and `regexall` test for a match".into()),
    }
}

fn regex_all(args: &Args<'_>) -> Result<Value, Failure> {
    let (expression, text) = (args.str(0)?, args.str(1)?);
    let regex = pattern(args, 0, &expression)?;
    args.spend(text.len() / 16)?;
    let mut found = Vec::new();
    for captures in regex.captures_iter(&text) {
        args.spend(1)?;
        found.push(capture(&regex, &captures)?);
    }
    Ok(Value::list(found)?)
}

/// A match: its text without groups, a map of named groups, else a list of them.
fn capture(regex: &Regex, captures: &Captures<'_>) -> Result<Value, Failure> {
    let value = |m: Option<regex::Match<'_>>| m.map_or_else(Value::null, |m| Value::string(m.as_str()));
    if captures.len() == 1 {
        return Ok(value(captures.get(0)));
    }
    let names: Vec<Option<&str>> = regex.capture_names().skip(1).collect();
    if names.iter().all(Option::is_some) {
        let groups = names.into_iter().flatten().map(|n| (n.into(), value(captures.name(n))));
        return Ok(Value::object(groups.collect())?);
    }
    if names.iter().any(Option::is_some) {
        return Err("either all groups have names or none has".into());
    }
    Ok(Value::tuple(captures.iter().skip(1).map(value).collect())?)
}

fn replace(args: &Args<'_>) -> Result<Value, Failure> {
    let (text, search, replacement) = (args.str(0)?, args.str(1)?, args.str(2)?);
    let inner = search.strip_prefix('/').and_then(|s| s.strip_suffix('/'));
    match inner.filter(|_| search.len() > 2) {
        Some(inner) => {
            let regex = pattern(args, 1, inner)?;
            let mut out = String::new();
            let mut last = 0;
            for captures in regex.captures_iter(&text) {
                let whole = captures.get(0).expect("group 0 is the match");
                out.push_str(&text[last..whole.start()]);
                captures.expand(&replacement, &mut out);
                last = whole.end();
                args.room(out.len())?;
            }
            out.push_str(&text[last..]);
            args.text(out)
        }
        None => {
            let count = text.matches(&*search).count();
            args.room(text.len() + count * replacement.len())?;
            Ok(Value::string(text.replace(&*search, &replacement)))
        }
    }
}

fn split(args: &Args<'_>) -> Result<Value, Failure> {
    let (separator, text) = (args.str(0)?, args.str(1)?);
    args.spend(text.len())?;
    let parts: Vec<Value> = match separator.is_empty() {
        true => text.graphemes(true).map(Value::string).collect(),
        false => text.split(&*separator).map(Value::string).collect(),
    };
    Ok(Value::list(parts)?)
}

fn strrev(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    args.room(text.len())?;
    Ok(Value::string(text.graphemes(true).rev().collect::<String>()))
}

fn substr(args: &Args<'_>) -> Result<Value, Failure> {
    let (text, offset, length) = (args.str(0)?, args.int::<i64>(1)?, args.int::<i64>(2)?);
    args.room(text.len())?;
    let parts: Vec<&str> = text.graphemes(true).collect();
    let count = parts.len() as i64;
    let start = if offset < 0 { (count + offset).max(0) } else { offset.min(count) };
    let end = match length {
        length if length < 0 => count,
        length => start.saturating_add(length).min(count),
    };
    Ok(Value::string(parts[start as usize..end as usize].concat()))
}

fn title(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    let mut out = String::with_capacity(text.len());
    let mut in_word = false;
    for c in text.chars() {
        if in_word {
            out.push(c);
        } else {
            out.extend(c.to_uppercase());
        }
        in_word = c.is_alphanumeric() || c == '_';
    }
    args.text(out)
}

fn trim(args: &Args<'_>) -> Result<Value, Failure> {
    let characters: Vec<char> = args.str(1)?.chars().collect();
    Ok(Value::string(args.str(0)?.trim_matches(&characters[..])))
}

fn trimprefix(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    Ok(Value::string(text.strip_prefix(&*args.str(1)?).unwrap_or(&text)))
}

fn trimsuffix(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    Ok(Value::string(text.strip_suffix(&*args.str(1)?).unwrap_or(&text)))
}

fn trimspace(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(args.str(0)?.trim()))
}
