//! `.dockerignore`: what of a build context is not there for a Dockerfile.
//!
//! Source: moby's `patternmatcher`. A later rule wins over an earlier one, also for what is in a folder that is left out.

use crate::glob::{Glob, GlobError};

/// The rules of one file, or of `--exclude`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct DockerIgnore(Vec<Rule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    negated: bool,
}

impl DockerIgnore {
    /// Reads the text of a `.dockerignore`.
    pub(super) fn new(text: &str) -> Result<Self, GlobError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Self::of_patterns(text.lines().filter(|line| !line.starts_with('#')))
    }

    /// Reads rules that stand by themselves.
    pub(super) fn of_patterns<'a>(patterns: impl Iterator<Item = &'a str>) -> Result<Self, GlobError> {
        let rules = patterns.filter_map(|line| rule(line).transpose());
        Ok(Self(rules.collect::<Result<_, _>>()?))
    }

    /// Tells whether a path is left out, itself or with a folder that it is in. Paths have no slash at either end.
    pub(super) fn leaves_out(&self, path: &[u8]) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        let parts: Vec<&[u8]> = ends.map(|end| &path[..end]).chain([path]).collect();
        self.0.iter().fold(false, |out, rule| {
            // A rule that could only say what is so already is not asked.
            if rule.negated == out && parts.iter().any(|part| rule.glob.matches(part)) {
                !rule.negated
            } else {
                out
            }
        })
    }
}

fn rule(line: &str) -> Result<Option<Rule>, GlobError> {
    let line = line.trim();
    let (negated, rest) = match line.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, line),
    };
    let pattern = clean(rest);
    if pattern.is_empty() {
        return Ok(None);
    }
    let glob = pattern_of(&pattern).map_err(|error| GlobError { pattern: line.into(), ..error })?;
    Ok(Some(Rule { glob, negated }))
}

/// Resolves `.` and `..`, and drops slashes at both ends.
fn clean(pattern: &str) -> String {
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Reads a pattern as Go has it: braces are characters like others.
pub(super) fn pattern_of(pattern: &str) -> Result<Glob, GlobError> {
    let mut text = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                text.push(c);
                text.extend(chars.next());
            }
            '{' | '}' => text.extend(['\\', c]),
            c => text.push(c),
        }
    }
    Glob::new(&text).map_err(|error| GlobError { pattern: pattern.into(), ..error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_as_docker_has_them() {
        let rules = DockerIgnore::new(
            "# comment\n/top\n*.md\n!README.md\n**/*.log\nnode_modules\n!node_modules/keep\n  spaced  \n\n./dot/../a{b}\ntemp?\n",
        )
        .unwrap();
        for (path, expected) in [
            ("top", true),
            ("top/x", true),
            ("deep/top", false),
            ("a.md", true),
            ("README.md", false),
            ("docs/a.md", false),
            ("a.log", true),
            ("x/y/a.log", true),
            ("node_modules/x", true),
            ("node_modules/keep", false),
            ("node_modules/keep/x", false),
            ("deep/node_modules", false),
            ("spaced", true),
            ("a{b}", true),
            ("ab", false),
            ("temp1", true),
            ("temp", false),
        ] {
            assert_eq!(rules.leaves_out(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn all_but_some_can_be_left_out() {
        let rules = DockerIgnore::new("*\n!src\n!Cargo.toml\nsrc/*.tmp\n").unwrap();
        for (path, expected) in [
            ("x", true),
            ("src", false),
            ("src/a", false),
            ("src/a.tmp", true),
            ("Cargo.toml", false),
            (".git", true),
        ] {
            assert_eq!(rules.leaves_out(path.as_bytes()), expected, "{path}");
        }
    }
}
