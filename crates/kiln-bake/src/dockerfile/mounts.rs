//! `RUN --mount=…`: a list of fields, as CSV has them.

use super::instruction::{Mount, MountKind, Word};
use super::problem::Problem;
use super::words::Flag;
use crate::nearest::nearest;

const FIELDS: [&str; 17] = [
    "type",
    "target",
    "dst",
    "destination",
    "source",
    "src",
    "from",
    "id",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "size",
    "mode",
    "uid",
    "gid",
    "sharing",
];

/// Where a step has files of its own, which a mount would hide or be hidden by.
const OWN: [&str; 3] = ["dev", "proc", ".kiln"];

/// Reads one mount.
pub(super) fn read(flag: &Flag) -> Result<Mount, Problem> {
    let text = flag.value.as_deref().unwrap_or_default();
    let mut draft = Draft { kind: "bind".into(), mode: None, ..Draft::default() };
    for field in fields(text) {
        draft.take(flag, &field)?;
    }
    draft.finish(flag)
}

#[derive(Default)]
struct Draft {
    kind: String,
    target: String,
    source: String,
    from: Option<String>,
    id: String,
    read_only: Option<bool>,
    required: bool,
    size: u64,
    mode: Option<u32>,
    uid: u32,
    gid: u32,
}

impl Draft {
    fn take(&mut self, flag: &Flag, field: &str) -> Result<(), Problem> {
        let wrong = |message: String| Problem::new(flag.value_span, message);
        let (name, value) = field.split_once('=').map_or((field, None), |(name, value)| (name, Some(value)));
        let name = name.trim().to_ascii_lowercase();
        let text = value.unwrap_or_default();
        let needs = |what: &str| wrong(format!("`{name}` of a mount is {what}"));
        let number = || text.parse::<u32>().map_err(|_| needs("a number"));
        let switch = || match text {
            "" | "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(needs("`true` or `false`")),
        };
        match name.as_str() {
            "type" => self.kind = text.to_ascii_lowercase(),
            "target" | "dst" | "destination" => self.target = text.into(),
            "source" | "src" => self.source = text.into(),
            "from" => self.from = Some(text.into()),
            "id" => self.id = text.into(),
            "readonly" | "ro" => self.read_only = Some(switch()?),
            "readwrite" | "rw" => self.read_only = Some(!switch()?),
            "required" => self.required = switch()?,
            "size" => self.size = size(text).ok_or_else(|| needs("a size such as `64m`"))?,
            "mode" => {
                let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| needs("an octal number"))?);
            }
            "uid" => self.uid = number()?,
            "gid" => self.gid = number()?,
            // All bakes of a machine see one cache, and one at a time has it: the strictest of the three.
            "sharing" if matches!(text, "shared" | "private" | "locked") => {}
            "sharing" => return Err(needs("`shared`, `private` or `locked`")),
            "env" if self.kind == "secret" => {}
            _ => {
                let problem = wrong(format!("a mount has no `{}`", name.escape_debug()));
                return Err(problem.meant(nearest(&name, FIELDS.into_iter())));
            }
        }
        Ok(())
    }

    fn finish(self, flag: &Flag) -> Result<Mount, Problem> {
        let refused = |message: &str| Problem::new(flag.span, message);
        let from = self.from.map(|text| Word { text, span: flag.value_span });
        let (kind, read_only) = match self.kind.as_str() {
            "bind" => (MountKind::Bind { from, source: self.source }, self.read_only.unwrap_or(true)),
            "cache" if from.is_some() || !self.source.is_empty() => {
                let problem = refused("a cache that begins with another image's files is not supported");
                return Err(problem.help("copy them in the command where the cache is empty"));
            }
            "cache" => {
                let mode = self.mode.unwrap_or(0o755);
                let kind = MountKind::Cache { id: self.id, mode, uid: self.uid, gid: self.gid };
                (kind, self.read_only.unwrap_or(false))
            }
            "tmpfs" => (MountKind::Tmpfs { size: self.size }, false),
            "secret" if self.required => {
                let problem = refused("a bake has no secrets, and this one is required");
                return Err(
                    problem.help("a service's secrets are mounted when it runs: see `secrets` of `service`")
                );
            }
            "secret" => (MountKind::Secret, true),
            "ssh" => {
                let problem = refused("a bake has no SSH agent: what it fetches with a key can't be locked");
                return Err(problem.help("fetch it before, into the build context"));
            }
            other => {
                let message = format!("there is no mount of type `{}`", other.escape_debug());
                let types = ["bind", "cache", "tmpfs", "secret"];
                return Err(Problem::new(flag.value_span, message).meant(nearest(other, types.into_iter())));
            }
        };
        let is_secret = kind == MountKind::Secret;
        if self.target.is_empty() && !is_secret {
            return Err(refused("a mount needs a `target`"));
        }
        let first = self.target.trim_start_matches('/').split('/').next().unwrap_or_default();
        if !is_secret && (OWN.contains(&first) || first.is_empty()) {
            let message = format!("nothing can be mounted at `{}`: a step has its own there", self.target);
            return Err(Problem::new(flag.value_span, message));
        }
        Ok(Mount { span: flag.span, kind, target: self.target, read_only })
    }
}

/// Splits at commas outside of double quotes.
fn fields(text: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            c => fields.last_mut().expect("there is always one field").push(c),
        }
    }
    fields
}

/// Reads a number of bytes as Docker writes it: `64m`, `1GB`, `512`.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let number: u64 = lower[..digits].parse().ok()?;
    let unit = match lower[digits..].trim_end_matches("ib").trim_end_matches('b') {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}
