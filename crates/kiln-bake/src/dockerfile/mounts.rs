//! `RUN --mount=…`: a list of fields, as CSV has them.

use super::instruction::{Mount, MountKind, SecretMount, SshMount, Word};
use super::problem::{Problem, Span};
use super::words::Flag;
use crate::nearest::nearest;

const FIELDS: [&str; 19] = [
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
    "required",
    "env",
];

/// Where a step has files of its own, which a mount would hide or be hidden by.
const OWN: [&str; 3] = ["dev", "proc", ".kiln"];

/// What only its owner may read, as BuildKit has it.
const SECRET_MODE: u32 = 0o400;

/// As BuildKit has it.
const SOCKET_MODE: u32 = 0o600;

/// Says that a command can't be run for want of an SSH agent that the stack does not give.
pub(super) fn no_agent(id: &str, span: Span) -> Problem {
    if !matches!(id, "" | "default") {
        let problem = Problem::new(span, format!("there is no SSH agent `{}`", id.escape_debug()));
        return problem.help("the agent of whoever bakes is `default`");
    }
    let problem = Problem::new(span, "this needs an SSH agent, which the image is not given");
    problem.help("set `ssh = true` in the image, and `SSH_AUTH_SOCK` for the command that bakes")
}

/// Says that a command can't be run for want of a network that the stack does not give.
pub(super) fn no_network(span: Span) -> Problem {
    let problem = Problem::new(span, "this RUN has the host's network, and the image has none");
    problem.help("set `network = true` in the image")
}

/// Says that a command can't be run for want of a secret that the stack does not give.
pub(super) fn not_given<'a>(id: &str, span: Span, given: impl Iterator<Item = &'a str>) -> Problem {
    let problem = Problem::new(
        span,
        format!("this needs the secret `{}`, which the image is not given", id.escape_debug()),
    );
    match nearest(id, given) {
        None => problem.help("add it to `secrets` of the image: `secrets = { ID = secret.NAME }`"),
        near => problem.meant(near),
    }
}

/// Reads one mount.
pub(super) fn read(flag: &Flag) -> Result<Mount, Problem> {
    let fields = fields(flag.value.as_deref().unwrap_or_default());
    // The type says what the others may be, wherever it stands.
    let kind = fields.iter().rev().find_map(|field| field.trim_start().strip_prefix("type="));
    let kind = kind.unwrap_or("bind").to_ascii_lowercase();
    let mut draft = Draft { kind, mode: None, ..Draft::default() };
    for field in &fields {
        draft.take(flag, field)?;
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
    env: Option<String>,
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
            "type" => {}
            "target" | "dst" | "destination" => self.target = text.into(),
            "source" | "src" => self.source = text.into(),
            "from" => self.from = Some(text.into()),
            "id" => self.id = text.into(),
            "readonly" | "ro" => self.read_only = Some(switch()?),
            "readwrite" | "rw" => self.read_only = Some(!switch()?),
            "required" if matches!(self.kind.as_str(), "secret" | "ssh") => self.required = switch()?,
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
            "env" if self.kind == "secret" && is_variable(text) => self.env = Some(text.into()),
            "env" if self.kind == "secret" => return Err(needs("the name of a variable")),
            _ => {
                let problem = wrong(format!("a mount has no `{}`", name.escape_debug()));
                return Err(problem.meant(nearest(&name, FIELDS.into_iter())));
            }
        }
        Ok(())
    }

    fn finish(self, flag: &Flag) -> Result<Mount, Problem> {
        let refused = |message: &str| Problem::new(flag.span, message);
        let from = self.from.clone().map(|text| Word { text, span: flag.value_span });
        let (kind, read_only) = match self.kind.as_str() {
            "bind" => (MountKind::Bind { from, source: self.source.clone() }, self.read_only.unwrap_or(true)),
            "cache" if from.is_none() && !self.source.is_empty() => {
                let problem = refused("a cache has a `source` only with `from`: it begins empty");
                return Err(problem.help("name the stage or the image that it begins with"));
            }
            "cache" => {
                let (mode, id) = (self.mode.unwrap_or(0o755), self.id.clone());
                let seed = from.map(|from| (from, self.source.clone()));
                let kind = MountKind::Cache { id, mode, uid: self.uid, gid: self.gid, seed };
                (kind, self.read_only.unwrap_or(false))
            }
            "tmpfs" => (MountKind::Tmpfs { size: self.size }, false),
            "secret" => (MountKind::Secret(self.secret(flag)?), true),
            "ssh" => {
                let (id, mode) = (self.id.clone(), self.mode.unwrap_or(SOCKET_MODE));
                let Self { required, uid, gid, .. } = self;
                (MountKind::Ssh(SshMount { id, required, mode, uid, gid }), true)
            }
            other => {
                let message = format!("there is no mount of type `{}`", other.escape_debug());
                let types = ["bind", "cache", "tmpfs", "secret", "ssh"];
                return Err(Problem::new(flag.value_span, message).meant(nearest(other, types.into_iter())));
            }
        };
        let has_own_place = matches!(kind, MountKind::Secret(_) | MountKind::Ssh(_));
        if self.target.is_empty() && !has_own_place {
            return Err(refused("a mount needs a `target`"));
        }
        let first = self.target.trim_start_matches('/').split('/').next().unwrap_or_default();
        if OWN.contains(&first) || first.is_empty() && !has_own_place {
            let message = format!("nothing can be mounted at `{}`: a step has its own there", self.target);
            return Err(Problem::new(flag.value_span, message));
        }
        Ok(Mount { span: flag.span, kind, target: self.target, read_only })
    }

    fn secret(&self, flag: &Flag) -> Result<SecretMount, Problem> {
        // `source` is the name that it had before `id`.
        let id = if self.source.is_empty() { &self.id } else { &self.source };
        if id.is_empty() && self.target.is_empty() {
            let problem = Problem::new(flag.span, "a secret needs an `id` or a `target`");
            return Err(problem.help("write `--mount=type=secret,id=NAME`"));
        }
        Ok(SecretMount {
            id: id.clone(),
            env: self.env.clone(),
            required: self.required,
            mode: self.mode.unwrap_or(SECRET_MODE),
            uid: self.uid,
            gid: self.gid,
        })
    }
}

/// Whether a shell could name it.
fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
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
