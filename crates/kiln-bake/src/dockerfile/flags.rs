//! The flags of instructions: which there are, and what they may be.

use super::instruction::Word;
use super::problem::Problem;
use super::words::{Flag, Rest};
use crate::nearest::nearest;

/// The flags that one instruction has.
#[derive(Debug)]
pub(super) struct Flags(Vec<Flag>);

/// The flags of an instruction; the second list is of those that may be there several times.
fn known(instruction: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match instruction {
        "FROM" => (&["platform"], &[]),
        "COPY" => (&["from", "chown", "chmod", "link", "parents"], &["exclude"]),
        "ADD" => (&["chown", "chmod", "link", "unpack", "checksum", "keep-git-dir"], &["exclude"]),
        "RUN" => (&["network", "security"], &["mount"]),
        "HEALTHCHECK" => (&["interval", "timeout", "start-period", "start-interval", "retries"], &[]),
        _ => (&[], &[]),
    }
}

/// Flags that BuildKit has and that are refused, with the reason.
fn refused(instruction: &str, flag: &str) -> Option<&'static str> {
    match (instruction, flag) {
        ("RUN", "device") => Some("a step of a bake sees no device of this machine"),
        _ => None,
    }
}

impl Flags {
    /// Takes an instruction's flags off.
    pub(super) fn split<'a>(instruction: &str, rest: Rest<'a>) -> Result<(Self, Rest<'a>), Problem> {
        let (once, many) = known(instruction);
        if once.is_empty() && many.is_empty() {
            return match instruction {
                // A program may be called with options only.
                "CMD" | "ENTRYPOINT" | "MAINTAINER" | "ONBUILD" | "ENV" | "LABEL" | "ARG" | "SHELL" => {
                    Ok((Self(Vec::new()), rest))
                }
                _ => match rest.flags() {
                    (flags, rest) if flags.is_empty() => Ok((Self(flags), rest)),
                    (flags, _) => Err(Problem::new(flags[0].span, format!("{instruction} has no flags"))),
                },
            };
        }
        let (flags, rest) = rest.flags();
        for (index, flag) in flags.iter().enumerate() {
            let name = flag.name.as_str();
            if let Some(reason) = refused(instruction, name) {
                return Err(Problem::new(flag.span, format!("`--{name}` is not supported: {reason}")));
            }
            if !once.contains(&name) && !many.contains(&name) {
                let message = format!("{instruction} has no flag `--{}`", name.escape_debug());
                let all = once.iter().chain(many).copied();
                return Err(Problem::new(flag.span, message).meant(nearest(name, all)));
            }
            if once.contains(&name) && flags[..index].iter().any(|other| other.name == flag.name) {
                return Err(Problem::new(flag.span, format!("`--{name}` is there twice")));
            }
            let is_switch = matches!(name, "link" | "parents" | "unpack" | "keep-git-dir");
            if !is_switch && flag.value.is_none() {
                let problem = Problem::new(flag.span, format!("`--{name}` needs a value"));
                return Err(problem.help(format!("write `--{name}=…`")));
            }
        }
        Ok((Self(flags), rest))
    }

    pub(super) fn get(&self, name: &str) -> Option<&Flag> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Flag> {
        self.0.iter().filter(move |flag| flag.name == name)
    }

    pub(super) fn word(&self, name: &str) -> Option<Word> {
        self.words(name).into_iter().next()
    }

    pub(super) fn words(&self, name: &str) -> Vec<Word> {
        let word = |flag: &Flag| Word { text: flag.value.clone().unwrap_or_default(), span: flag.value_span };
        self.all(name).map(word).collect()
    }

    pub(super) fn bool(&self, name: &str) -> Result<Option<bool>, Problem> {
        let Some(flag) = self.get(name) else { return Ok(None) };
        match flag.value.as_deref() {
            None => Ok(Some(true)),
            Some(value) if value.eq_ignore_ascii_case("true") || value == "1" => Ok(Some(true)),
            Some(value) if value.eq_ignore_ascii_case("false") || value == "0" => Ok(Some(false)),
            Some(_) => Err(Problem::new(flag.value_span, format!("`--{name}` is `true` or `false`"))),
        }
    }
}
