//! Encodings: base64, CSV, JSON, URL.

use std::collections::BTreeMap;

use super::{Args, Failure, Function, Run, json, row};
use crate::value::Value;

pub(super) static ROWS: &[Function] = &[
    row(
        "base64decode",
        "base64decode(string)",
        (1, 1),
        Run::Whole(base64decode),
        "The text behind base64.",
        "base64decode(\"a2lsbg==\")",
        "\"kiln\"",
    ),
    row(
        "base64encode",
        "base64encode(string)",
        (1, 1),
        Run::Whole(base64encode),
        "As base64.",
        "base64encode(\"kiln\")",
        "\"a2lsbg==\"",
    ),
    row(
        "csvdecode",
        "csvdecode(string)",
        (1, 1),
        Run::Whole(csvdecode),
        "A list of objects; the first line names the attributes.",
        "csvdecode(\"a,b\\n1,2\\n\")",
        "[{ a = \"1\", b = \"2\" }]",
    ),
    row(
        "jsondecode",
        "jsondecode(string)",
        (1, 1),
        Run::Whole(jsondecode),
        "The value behind JSON.",
        "jsondecode(\"{\\\"a\\\": [1]}\")",
        "{ a = [1] }",
    ),
    row(
        "jsonencode",
        "jsonencode(value)",
        (1, 1),
        Run::Whole(jsonencode),
        "As JSON, keys sorted.",
        "jsonencode({ b = 1, a = [true] })",
        "\"{\\\"a\\\":[true],\\\"b\\\":1}\"",
    ),
    row(
        "urlencode",
        "urlencode(string)",
        (1, 1),
        Run::Whole(urlencode),
        "Fit for a URL's query.",
        "urlencode(\"a b&c\")",
        "\"a+b%26c\"",
    ),
];

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// RFC 4648, section 4.
pub(super) fn to_base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(group >> (18 - 6 * i) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(body.len());
    let (mut group, mut bits) = (0_u32, 0);
    for byte in body.bytes() {
        let digit = ALPHABET.iter().position(|a| *a == byte)?;
        group = (group << 6 | digit as u32) & 0xff_ffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((group >> bits & 0xff) as u8);
        }
    }
    Some(out)
}

fn base64decode(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    args.room(text.len())?;
    let Some(bytes) = from_base64(&text) else { return args.bad(0, "it is not base64") };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Value::string(text)),
        Err(_) => args.bad(0, "what it encodes is not UTF-8 text"),
    }
}

fn base64encode(args: &Args<'_>) -> Result<Value, Failure> {
    args.text(to_base64(args.str(0)?.as_bytes()))
}

fn csvdecode(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    args.spend(text.len())?;
    let mut rows = csv_rows(&text).map_err(|e| Failure::Argument(0, e))?.into_iter();
    let Some(names) = rows.next() else { return args.bad(0, "the line with the names is missing") };
    let object = |(i, row): (usize, Vec<String>)| {
        if row.len() != names.len() {
            let message = format!("row {} has {} fields, expected {}", i + 2, row.len(), names.len());
            return args.bad(0, message);
        }
        let pairs = names.iter().zip(&row).map(|(n, v)| (n.as_str().into(), Value::string(v)));
        Ok(Value::object(pairs.collect::<BTreeMap<_, _>>())?)
    };
    let rows: Result<Vec<Value>, Failure> = rows.enumerate().map(object).collect();
    Ok(Value::list(rows?)?)
}

/// RFC 4180; blank lines are left out.
fn csv_rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    let mut started = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            c if quoted => field.push(c),
            '"' if field.is_empty() => (quoted, started) = (true, true),
            '"' => return Err(format!("row {} has a quote within a field", rows.len() + 1)),
            ',' => {
                row.push(std::mem::take(&mut field));
                started = true;
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\n' => {
                if started || !field.is_empty() {
                    row.push(std::mem::take(&mut field));
                    rows.push(std::mem::take(&mut row));
                }
                started = false;
            }
            c => field.push(c),
        }
    }
    if quoted {
        return Err("a quote is never closed".into());
    }
    if started || !field.is_empty() {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}

fn jsondecode(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    args.spend(text.len())?;
    json::decode(&text).map_err(|e| Failure::Argument(0, e))
}

fn jsonencode(args: &Args<'_>) -> Result<Value, Failure> {
    args.weigh()?;
    args.text(json::encode(args.get(0)).map_err(|e| Failure::Argument(0, e))?)
}

fn urlencode(args: &Args<'_>) -> Result<Value, Failure> {
    let text = args.str(0)?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    args.text(out)
}
