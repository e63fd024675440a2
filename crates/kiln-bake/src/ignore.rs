//! `.kilnignore`: what of the stack folder never gets into an image.
//!
//! Source: gitignore(5). A later rule wins over an earlier one; what is in an ignored folder can't be taken back.

use kiln_store::TreePath;

use crate::glob::{Glob, GlobError};

/// The file in the stack folder.
pub const IGNORE_FILE: &str = ".kilnignore";

/// Rules are written by hand; a larger file is something else.
pub const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// What is left out although no rule says so: a repository's history differs between clones of the same commit.
const ALWAYS: &str = "/.git\n";

/// The rules of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    negated: bool,
    folders_only: bool,
}

impl Ignore {
    /// Reads the text of a `.kilnignore`, with what is always left out before it.
    pub(crate) fn new(text: &str) -> Result<Self, GlobError> {
        let rules = ALWAYS.lines().chain(text.lines()).filter_map(|line| Rule::parse(line).transpose());
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Reads rules that stand by themselves, as in a step's `exclude`.
    pub(crate) fn of_patterns(patterns: &[String]) -> Result<Self, GlobError> {
        let rules = patterns.iter().filter_map(|line| Rule::parse(line).transpose());
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Tells whether a path, or a folder that it is in, is left out.
    pub(crate) fn matches(&self, path: &TreePath, is_folder: bool) -> bool {
        let bytes = path.as_bytes();
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.map(|end| (&bytes[..end], true))
            .chain([(bytes, is_folder)])
            .any(|(part, is_folder)| self.decides(part, is_folder))
    }

    fn decides(&self, path: &[u8], is_folder: bool) -> bool {
        let last =
            self.rules.iter().rev().find(|rule| (is_folder || !rule.folders_only) && rule.glob.matches(path));
        last.is_some_and(|rule| !rule.negated)
    }
}

impl Rule {
    fn parse(line: &str) -> Result<Option<Self>, GlobError> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let line = if line.ends_with("\\ ") { line } else { line.trim_end() };
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let (negated, rest) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let (folders_only, rest) = match rest.strip_suffix('/') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let anchored = rest.contains('/');
        let rest = rest.strip_prefix('/').unwrap_or(rest);
        let rest = rest.strip_prefix("./").unwrap_or(rest);
        let pattern = if anchored { rest.to_owned() } else { format!("**/{rest}") };
        Ok(Some(Self { glob: Glob::new(&pattern)?, negated, folders_only }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_as_git_has_them() {
        let rules = Ignore::new("# comment\n*.log\n/top\nbuild/\nsub/x\n!keep.log\n\\#odd\n").unwrap();
        let cases = [
            ("a.log", false, true),
            ("deep/a.log", false, true),
            ("keep.log", false, false),
            ("top", false, true),
            ("deep/top", false, false),
            ("build", true, true),
            ("build", false, false),
            ("deep/build", true, true),
            ("build/keep.log", false, true),
            ("sub/x", false, true),
            ("deep/sub/x", false, false),
            ("#odd", false, true),
            (".git/config", false, true),
        ];
        for (path, is_folder, expected) in cases {
            assert_eq!(rules.matches(&TreePath::parse(path).unwrap(), is_folder), expected, "{path}");
        }
    }
}
