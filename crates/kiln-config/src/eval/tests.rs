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

/// Expressions of one type each, of what hcl-rs gets right: no division (it panics), no short circuit, no conversions, keys
/// in order (it doesn't sort), and only strings without markers.
mod oracle {
    use hcl::eval::{Context, Evaluate};
    use proptest::prelude::*;

    use super::json;

    fn number() -> BoxedStrategy<String> {
        let leaf = prop_oneof!["[1-9][0-9]{0,3}", "[1-9][0-9]{0,2}\\.5", "-[1-9]"];
        leaf.prop_recursive(4, 16, 3, |inner| {
            prop_oneof![
                (inner.clone(), "[+*-]", inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
                (inner.clone(), inner.clone(), inner.clone())
                    .prop_map(|(a, b, c)| format!("({a} < {b} ? {c} : {a})")),
                (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}][1]")),
                (inner.clone(), inner).prop_map(|(a, b)| format!("{{ x = {a}, y = {b} }}.y")),
            ]
        })
        .boxed()
    }

    fn boolean() -> BoxedStrategy<String> {
        let compare = (number(), prop_oneof!["==", "!=", "<=", ">=", "<", ">"], number())
            .prop_map(|(a, op, b)| format!("{a} {op} {b}"));
        compare
            .prop_recursive(3, 8, 2, |inner| {
                prop_oneof![
                    (inner.clone(), prop_oneof!["&&", "\\|\\|"], inner.clone())
                        .prop_map(|(a, op, b)| format!("({a}) {op} ({b})")),
                    inner.prop_map(|a| format!("!({a})")),
                ]
            })
            .boxed()
    }

    fn string() -> BoxedStrategy<String> {
        let inner = prop_oneof![
            "[a-z ]{0,5}",
            "[1-9]{1,3}".prop_map(|n| format!("${{{n}}}")),
            ("[a-z]{1,3}", boolean()).prop_map(|(t, c)| format!("%{{ if {c} }}{t}%{{ else }}-%{{ endif }}")),
            "[a-z]{1,3}"
                .prop_map(|t| format!("%{{ for v in [\\\"{t}\\\", \\\"y\\\"] }}<${{v}}>%{{ endfor }}")
                    .replace('\\', "")),
        ];
        proptest::collection::vec(inner, 0..4).prop_map(|parts| format!("\"{}\"", parts.concat())).boxed()
    }

    fn collection() -> BoxedStrategy<String> {
        let item = prop_oneof![number(), boolean(), string()];
        prop_oneof![
            proptest::collection::vec(item, 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            proptest::collection::vec(number(), 0..4)
                .prop_map(|items| format!("[for i, v in [{}] : v + i if v > 3]", items.join(", "))),
            proptest::collection::vec(number(), 0..4)
                .prop_map(|items| format!("{{for i, v in [{}] : \"k${{i}}\" => v}}", items.join(", "))),
            proptest::collection::vec(number(), 0..4).prop_map(|items| {
                let objects: Vec<String> = items.iter().map(|v| format!("{{ a = [{v}] }}")).collect();
                format!("[{}][*].a[0]", objects.join(", "))
            }),
        ]
        .boxed()
    }

    /// Numbers as doubles: whether `1` or `1.0` is written is a matter of taste.
    fn flat(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Number(n) => serde_json::json!(n.as_f64()),
            serde_json::Value::Array(items) => items.iter().map(flat).collect(),
            serde_json::Value::Object(items) => {
                serde_json::Value::Object(items.iter().map(|(k, v)| (k.clone(), flat(v))).collect())
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn hcl_rs_agrees(text in prop_oneof![number(), boolean(), string(), collection()]) {
            let parsed: hcl::Expression = text.parse().unwrap();
            let expected = parsed.evaluate(&Context::new()).unwrap();
            let expected = flat(&serde_json::to_value(&expected).unwrap());
            let found = flat(&serde_json::from_str(&json(&text)).unwrap());
            prop_assert_eq!(found, expected, "{}", text);
        }
    }
}
