//! Hashes.

use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::encode::to_base64;
use super::file::content;
use super::{Args, Failure, Function, Run, row};
use crate::value::Value;

pub(super) static ROWS: &[Function] = &[
    row(
        "base64sha256",
        "base64sha256(string)",
        (1, 1),
        Run::Whole(base64sha256),
        "SHA-256 as base64.",
        "base64sha256(\"kiln\")",
        "\"zf6a1YtGIm1j6zItrNNfT3rDgJYYDIcljBQuS8qaPPU=\"",
    ),
    row(
        "filesha256",
        "filesha256(path)",
        (1, 1),
        Run::Whole(filesha256),
        "SHA-256 of a file, in hexadecimal.",
        "filesha256(\"motd.txt\")",
        "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\"",
    ),
    row(
        "sha1",
        "sha1(string)",
        (1, 1),
        Run::Whole(sha1),
        "SHA-1 in hexadecimal: to match what others wrote, not to protect.",
        "sha1(\"kiln\")",
        "\"7908ea50dacbb9a91898af51d70a054211d46dee\"",
    ),
    row(
        "sha256",
        "sha256(string)",
        (1, 1),
        Run::Whole(sha256),
        "SHA-256 in hexadecimal.",
        "sha256(\"\")",
        "\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"",
    ),
    row(
        "sha512",
        "sha512(string)",
        (1, 1),
        Run::Whole(sha512),
        "SHA-512 in hexadecimal.",
        "substr(sha512(\"\"), 0, 8)",
        "\"cf83e135\"",
    ),
    row(
        "uuidv5",
        "uuidv5(namespace, name)",
        (2, 2),
        Run::Whole(uuidv5),
        "A UUID that follows from a name (RFC 9562); the namespace is dns, url, oid, x500 or a UUID.",
        "uuidv5(\"dns\", \"www.example.com\")",
        "\"2ed6657d-e927-568b-95e1-2665a8aea6a2\"",
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes_of(args: &Args<'_>) -> Result<Vec<u8>, Failure> {
    let text = args.str(0)?;
    args.spend(text.len() / 16)?;
    Ok(text.as_bytes().to_vec())
}

fn sha1(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(hex(&Sha1::digest(bytes_of(args)?))))
}

fn sha256(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(hex(&Sha256::digest(bytes_of(args)?))))
}

fn sha512(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(hex(&Sha512::digest(bytes_of(args)?))))
}

fn base64sha256(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(to_base64(&Sha256::digest(bytes_of(args)?))))
}

fn filesha256(args: &Args<'_>) -> Result<Value, Failure> {
    Ok(Value::string(hex(&Sha256::digest(content(args, 0)?))))
}

fn uuidv5(args: &Args<'_>) -> Result<Value, Failure> {
    // RFC 9562, section 6.6: the well-known namespaces differ in one byte.
    let well_known = |last: u8| {
        let mut id = *b"\x6b\xa7\xb8\x00\x9d\xad\x11\xd1\x80\xb4\x00\xc0\x4f\xd4\x30\xc8";
        id[3] = last;
        id.to_vec()
    };
    let namespace = args.str(0)?;
    let namespace = match &*namespace {
        "dns" => well_known(0x10),
        "url" => well_known(0x11),
        "oid" => well_known(0x12),
        "x500" => well_known(0x14),
        text => match parse_uuid(text) {
            Some(id) => id,
            None => return args.bad(0, "expected dns, url, oid, x500 or a UUID"),
        },
    };
    let name = args.str(1)?;
    let mut hash = Sha1::new();
    hash.update(&namespace);
    hash.update(name.as_bytes());
    let mut id = hash.finalize()[..16].to_vec();
    id[6] = id[6] & 0x0f | 0x50;
    id[8] = id[8] & 0x3f | 0x80;
    let text = hex(&id);
    let parts = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    Ok(Value::string(parts.join("-")))
}

fn parse_uuid(text: &str) -> Option<Vec<u8>> {
    let digits = text.replace('-', "");
    if digits.len() != 32 || !digits.is_ascii() {
        return None;
    }
    (0..16).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).ok()).collect()
}
