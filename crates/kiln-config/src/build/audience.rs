//! Which requests a canary gets, beside its share of all.

use kiln_model::route::{Aim, Group, HeaderMatch, Mirror, Sticky};
use kiln_model::service::Audience;
use kiln_model::{Millis, Weight};

use crate::diagnostic::Problem;
use crate::reader::Reader;
use crate::units::{parse_millis, parse_weight};

/// How long a browser is to keep the cookie: longer than most canaries take.
const MAX_AGE: Millis = Millis::from_secs(7 * 24 * 3600);

/// Browsers keep no cookie for longer (RFC 6265bis §5.5).
const MAX_AGE_MAX: Millis = Millis::from_secs(400 * 24 * 3600);

/// Every request of the service is compared with each of them.
const MATCHES_MAX: usize = 32;

pub(super) fn audience(rollout: Reader<'_>) -> Audience {
    let aim: Vec<Aim> = rollout.blocks("match").filter_map(|block| aim(rollout.within(block))).collect();
    if aim.len() > MATCHES_MAX {
        wrong(rollout, &format!("a canary has at most {MATCHES_MAX} `match` blocks"), "");
    }
    Audience {
        sticky: rollout.block("sticky").and_then(sticky),
        aim,
        mirror: rollout.block("mirror").and_then(mirror),
    }
}

fn sticky(block: Reader<'_>) -> Option<Sticky> {
    let by_address = block.bool("address").unwrap_or(false);
    let max_age = block.parsed("max_age", "\"7d\"", |text| match parse_millis(text)? {
        Millis(..1000) => Err("it must be at least a second".to_owned()),
        millis if millis > MAX_AGE_MAX => Err("no browser keeps a cookie longer than 400 days".to_owned()),
        millis => Ok(millis),
    });
    if block.has("max_age") && !block.has("cookie") {
        wrong(block, "`max_age` is for a `cookie`", "");
    }
    match (block.has("cookie"), block.has("header"), by_address) {
        (true, false, false) => {
            let name = block.parsed("cookie", "\"kiln-web\"", token)?;
            Some(Sticky::Cookie { name, max_age: max_age.unwrap_or(MAX_AGE) })
        }
        (false, true, false) => Some(Sticky::Header { name: block.parsed("header", "\"X-User\"", token)? }),
        (false, false, true) => Some(Sticky::Address),
        _ => {
            let help = "as in `sticky { cookie = \"kiln-web\" }`";
            wrong(block, "one thing stands for a user: `cookie`, `header` or `address = true`", help);
            None
        }
    }
}

fn aim(block: Reader<'_>) -> Option<Aim> {
    if !block.has("header") {
        wrong(block, "a `match` says which `header` it looks at", "as in `header = \"X-Version\"`");
        return None;
    }
    let header = block.parsed("header", "\"X-Version\"", token);
    let value = match (block.has("equals"), block.has("prefix")) {
        (true, true) => {
            wrong(block, "a header's value is compared with `equals` or with `prefix`, not with both", "");
            None
        }
        (true, false) => block.string("equals").map(HeaderMatch::Exact),
        (false, true) => block.string("prefix").map(HeaderMatch::Prefix),
        (false, false) => Some(HeaderMatch::Present),
    };
    let group = match block.has("to") {
        false => Some(Group::Canary),
        true => block.parsed("to", "\"canary\"", |text| match text {
            "canary" => Ok(Group::Canary),
            "stable" => Ok(Group::Stable),
            other => Err(format!("there is no \"{other}\"; there are \"canary\" and \"stable\"")),
        }),
    };
    Some(Aim { header: header?, value: value?, group: group? })
}

fn mirror(block: Reader<'_>) -> Option<Mirror> {
    let share = block.parsed("share", "\"10%\"", |text| match parse_weight(text)? {
        Weight::ZERO => Err("a share must be more than nothing".to_owned()),
        share => Ok(share),
    });
    let share = if block.has("share") { share? } else { Weight::FULL };
    Some(Mirror { share })
}

/// The name of a header or a cookie (RFC 9110 §5.6.2).
fn token(text: &str) -> Result<String, String> {
    let is_fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(is_fine) {
        return Ok(text.to_owned());
    }
    Err("a name has 1 to 64 letters, digits and characters such as `-` and `_`".to_owned())
}

fn wrong(reader: Reader<'_>, message: &str, help: &str) {
    let problem = Problem::new("wrong-value", reader.header, message);
    reader.report(if help.is_empty() { problem } else { problem.help(help) });
}
