//! JSON, as `jsonencode` writes and `jsondecode` reads it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::number::Number;
use crate::value::{Kind, STRING_BYTES_MAX, Value};

/// Encodes with sorted keys and no blanks. `<`, `>` and `&` are escaped, as Terraform does, so that the text fits in HTML.
///
/// # Errors
/// In words: what is declared by a block has no JSON, and the text is bounded.
pub(crate) fn encode(value: &Value) -> Result<String, String> {
    let mut out = String::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut String) -> Result<(), String> {
    if out.len() > STRING_BYTES_MAX {
        return Err(format!("the text would have more than {} MiB", STRING_BYTES_MAX >> 20));
    }
    match &value.kind {
        Kind::Null => out.push_str("null"),
        Kind::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Kind::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Kind::String(text) => out.push_str(&encode_string(text)),
        Kind::Seq(seq) => {
            out.push('[');
            for (i, item) in seq.items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Kind::Map(map) => {
            out.push('{');
            for (i, (key, item)) in map.items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                out.push_str(&encode_string(key));
                out.push(':');
                write(item, out)?;
            }
            out.push('}');
        }
        Kind::Ref(reference) => return Err(format!("{} has no JSON", reference.describe())),
    }
    Ok(())
}

pub(crate) fn encode_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Decodes. Numbers keep every digit.
///
/// # Errors
/// In words, with the place in the text.
pub(crate) fn decode(text: &str) -> Result<Value, String> {
    // serde_json refuses nesting beyond 128 by itself, and Value beyond its own limit.
    let parsed: serde_json::Value = serde_json::from_str(text)
        .map_err(|e| format!("it is not JSON: at line {}, column {}", e.line(), e.column()))?;
    from_json(parsed)
}

fn from_json(json: serde_json::Value) -> Result<Value, String> {
    let too_large = |_| "the value is too large".to_owned();
    Ok(match json {
        serde_json::Value::Null => Value::null(),
        serde_json::Value::Bool(value) => Value::bool(value),
        serde_json::Value::Number(number) => {
            Value::number(Number::parse(&number.to_string()).ok_or("a number is out of range")?)
        }
        serde_json::Value::String(text) => Value::string(text),
        serde_json::Value::Array(items) => {
            let items: Result<Vec<_>, String> = items.into_iter().map(from_json).collect();
            Value::tuple(items?).map_err(too_large)?
        }
        serde_json::Value::Object(items) => {
            let mut map = BTreeMap::new();
            for (key, item) in items {
                map.insert(key.into(), from_json(item)?);
            }
            Value::object(map).map_err(too_large)?
        }
    })
}
