//! `fmt`: one layout, the same meaning.
#![allow(clippy::unwrap_used, reason = "a test that panics fails")]

use kiln_config::fmt;
use proptest::prelude::*;

#[test]
fn the_layout_is_that_of_terraform() {
    // Written by `terraform fmt` 1.11, but for two lines: what is within a string stays as it is, and `if (x)` keeps its
    // blank.
    let formatted = fmt(include_str!("fmt/input.hcl")).unwrap();
    assert_eq!(formatted, include_str!("fmt/output.hcl"));
    assert_eq!(fmt(&formatted).unwrap(), formatted);
}

#[test]
fn a_carriage_return_at_the_end_of_the_text_is_a_lines_end() {
    for text in ["a {\n} #\n\r", "a {\n}\n\r"] {
        let once = fmt(text).unwrap();
        assert!(!once.contains('\r'), "{once:?}");
        assert_eq!(fmt(&once).unwrap(), once);
    }
}

#[test]
fn every_scenario_is_formatted_once_for_all() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut formatted_some = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let Ok(once) = fmt(&text) else { continue };
        assert_eq!(fmt(&once).unwrap(), once);
        assert_same_meaning(&text, &once);
        formatted_some += 1;
    }
    assert!(formatted_some > 50, "{formatted_some}");
}

#[test]
fn a_heredoc_stays_as_it_is_and_line_endings_become_one() {
    let text = "a {\r\nb=<<EOT\r\n  x\r\n\ty = 1\r\nEOT\r\n}\r\n";
    assert_eq!(fmt(text).unwrap(), "a {\n  b = <<EOT\r\n  x\r\n\ty = 1\r\nEOT\n}\n");
}

#[test]
fn what_cannot_be_parsed_is_not_touched() {
    let error = fmt("a = {\n").unwrap_err();
    assert_eq!((error.labels[0].line, error.labels[0].column), (1, 5));
    assert_eq!(fmt("").unwrap(), "");
}

#[test]
fn an_error_shows_no_sensitive_value_under_whatever_name_the_file_gets() {
    let text = "variable \"a\" {\n  sensitive = true\n  default = \"hunter2\" x\n}\n";
    let mut error = fmt(text).unwrap_err();
    error.labels.iter_mut().for_each(|l| l.file = "stack.hcl".into());
    let shown = error.render(&[("stack.hcl", text)].into_iter().collect(), false);
    assert!(shown.contains("stack.hcl:3:") && shown.contains("(sensitive)"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}

fn assert_same_meaning(before: &str, after: &str) {
    assert_eq!(hcl::parse(before).unwrap(), hcl::parse(after).unwrap(), "{before}\n----\n{after}");
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        "[a-z]{1,4}".prop_filter("a keyword", |w| !matches!(w.as_str(), "for" | "in" | "if" | "null")),
        "-?[0-9]{1,3}(\\.[0-9])?",
        "\"[a-z ={}#]{0,6}\"",
        Just("\"${ a  +b }\"".to_owned()),
        Just("null".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let blank = || prop_oneof![Just(""), Just(" "), Just("   ")];
        let operator = prop_oneof!["==", "!=", "&&", "[+*/%<>-]"];
        prop_oneof![
            (inner.clone(), blank(), operator, blank(), inner.clone())
                .prop_map(|(a, x, op, y, b)| format!("{a}{x}{op}{y}{b}")),
            (blank(), proptest::collection::vec(inner.clone(), 0..4), blank())
                .prop_map(|(x, items, y)| format!("[{x}{}{y}]", items.join(","))),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| format!(
                "[\n{}\n]",
                items.iter().map(|i| format!("{i},\n")).collect::<String>()
            )),
            (blank(), proptest::collection::vec(inner.clone(), 0..3)).prop_map(|(x, items)| {
                let items = items.iter().enumerate().map(|(i, v)| format!("k{i}{x}={v}"));
                format!("{{{x}{}{x}}}", items.collect::<Vec<_>>().join(", "))
            }),
            (blank(), inner.clone(), inner.clone()).prop_map(|(x, a, b)| format!("f({x}{a},{x}{b}{x})")),
            (inner.clone(), blank()).prop_map(|(a, x)| format!("({x}{a}{x})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a}?{b}:{c}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[for x in {a} : x if {b}]")),
            (inner, blank()).prop_map(|(a, x)| format!("!{x}{a}")),
        ]
    })
}

fn body() -> impl Strategy<Value = String> {
    let comment = prop_oneof![Just(""), Just(" # c"), Just("   // d"), Just(" /* e */")];
    let blank = prop_oneof![Just(""), Just("  "), Just("\t"), Just("      ")];
    let name = "[a-z]{1,12}";
    let line = (blank, name, expression(), comment)
        .prop_map(|(indent, name, value, comment)| (indent, name, format!("= {value}{comment}")));
    let lines = proptest::collection::vec((line, any::<bool>()), 0..6);
    lines.prop_map(|lines| {
        let mut out = String::from("b \"x\" {\n");
        for (i, ((indent, name, rest), gap)) in lines.into_iter().enumerate() {
            out.push_str(&format!("{indent}{name}{i} {rest}\n"));
            if gap {
                out.push_str("\n   # on its own\n");
            }
        }
        out + "}\n"
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn formatting_twice_changes_nothing_and_once_not_the_meaning(text in body()) {
        if let Ok(once) = fmt(&text) {
            prop_assert_eq!(fmt(&once).unwrap(), once.clone());
            assert_same_meaning(&text, &once);
            let comments = |t: &str| t.matches("# c").count() + t.matches("// d").count() + t.matches("# on").count();
            prop_assert_eq!(comments(&text), comments(&once));
        }
    }
}
