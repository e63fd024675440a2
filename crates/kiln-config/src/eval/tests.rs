//! Expressions against what Terraform gives, and against hcl-rs where that is right.

use std::collections::BTreeMap;

use kiln_model::Timestamp;

use super::Evaluator;
use crate::files::MemoryFiles;
use crate::functions::{encode_json, functions};
use crate::value::Value;
use crate::variables::NoNames;

/// The time and files that the functions' examples speak of.
pub(crate) fn files() -> MemoryFiles {
    MemoryFiles(BTreeMap::from([
        ("motd.txt".into(), b"hello\n".to_vec()),
        ("greet.tpl".into(), b"Hello ${name}\n".to_vec()),
        ("loop.tpl".into(), b"%{ for x in xs ~}\n- ${x}\n%{ endfor ~}\n".to_vec()),
    ]))
}

fn eval(text: &str) -> Result<Value, String> {
    let expr = crate::parse::parse_expression(text)?;
    let (names, files) = (NoNames("a test"), files());
    // 2026-01-02T03:04:05Z
    let evaluator = Evaluator::new(&names, &files, Timestamp(1_767_323_045_000));
    evaluator
        .eval(&expr, None)
        .map_err(|problems| problems.into_iter().map(|p| p.message).collect::<Vec<_>>().join("; "))
}

fn json(text: &str) -> String {
    match eval(text).and_then(|v| encode_json(&v)) {
        Ok(json) => json,
        Err(message) => format!("error: {message}"),
    }
}

/// Each case is an expression and, on the next line, its JSON or error. What Terraform 1.11 gives was compared when the
/// file was made; where it differs, a comment says why.
#[test]
fn expressions_evaluate_as_in_terraform() {
    let text = include_str!("../../tests/expressions.txt");
    let mut lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with("# "));
    let mut wrong = Vec::new();
    let mut count = 0;
    while let Some(expr) = lines.next() {
        let expected = lines.next().expect("an expression is followed by its result");
        let found = json(expr);
        count += 1;
        if expected.trim_start() != found {
            wrong.push(format!("{expr}\n  expected {}\n     found {found}", expected.trim_start()));
        }
    }
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 150, "{count}");
}

#[test]
fn every_functions_example_gives_its_result() {
    let mut wrong = Vec::new();
    for (_, list) in functions() {
        for function in list {
            let (found, expected) = (json(function.example), json(function.result));
            if found != expected || expected.starts_with("error") {
                wrong.push(format!("{} gives {found}, not {expected}", function.example));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
