//! `.kilnignore`: what of the stack folder never gets into an image, nor into a snapshot.
//!
//! Source: gitignore(5). A later rule wins over an earlier one; what is in an ignored folder can't be taken back. Whoever
//! asks what a stack folder holds asks here: two readers of the same rules would differ.

use kiln_store::TreePath;

use crate::glob::{Glob, GlobError};

/// The file in the stack folder.
pub const IGNORE_FILE: &str = ".kilnignore";

/// Rules are written by hand; a larger file is something else.
pub const IGNORE_BYTES_MAX: u64 = 1 << 20;

/// What is left out whatever the rules say, at any depth as a submodule has it: a repository's history differs between
/// clones of the same commit.
const NEVER: &[u8] = b".git";

/// The rules of one file, or of a step's `exclude`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    glob: Glob,
    negated: bool,
    folders_only: bool,
}

impl Ignore {
    /// Reads the text of a `.kilnignore`.
    ///
    /// # Errors
    /// A rule is no pattern.
    pub fn new(text: &str) -> Result<Self, GlobError> {
        Self::of_rules(text.lines())
    }

    /// Reads rules that stand by themselves, as in a step's `exclude`.
    ///
    /// # Errors
    /// A rule is no pattern.
    pub fn of_patterns(patterns: &[String]) -> Result<Self, GlobError> {
        Self::of_rules(patterns.iter().map(String::as_str))
    }

    fn of_rules<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, GlobError> {
        let rules = lines.filter_map(|line| Rule::parse(line).transpose());
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// Tells whether a path below the stack folder, or a folder that it is in, is left out. Paths have no slash at either
    /// end.
    pub fn leaves_out(&self, path: &[u8], is_folder: bool) -> bool {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        ends.map(|end| (&path[..end], true))
            .chain([(path, is_folder)])
            .any(|(part, is_folder)| self.decides(part, is_folder))
    }

    pub(crate) fn matches(&self, path: &TreePath, is_folder: bool) -> bool {
        self.leaves_out(path.as_bytes(), is_folder)
    }

    fn decides(&self, path: &[u8], is_folder: bool) -> bool {
        if path.rsplit(|byte| *byte == b'/').next() == Some(NEVER) {
            return true;
        }
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
        // Shown as it was written.
        let glob = Glob::new(&pattern).map_err(|error| GlobError { pattern: line.into(), ..error })?;
        Ok(Some(Self { glob, negated, folders_only }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_hold_as_git_has_them() {
        let rules = Ignore::new(
            "# comment\r\n*.log\n/top\nbuild/\nsub/x\n!keep.log\n\\#odd\ndoc/**/*.html\nspace\\ \n!.git\n",
        )
        .unwrap();
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
            ("doc/a.html", false, true),
            ("doc/b/c/a.html", false, true),
            ("docs/a.html", false, false),
            ("space ", false, true),
            ("space", false, false),
            (".git/config", false, true),
            ("module/.git", false, true),
            (".gitignore", false, false),
        ];
        for (path, is_folder, expected) in cases {
            assert_eq!(rules.matches(&TreePath::parse(path).unwrap(), is_folder), expected, "{path}");
        }
    }
}
