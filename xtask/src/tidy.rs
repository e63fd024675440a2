//! What neither rustc nor clippy sees: crate edges, file sizes, banned calls and words.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::metadata;

/// A file beyond this is two things; lines of its `#[cfg(test)]` part do not count.
const FILE_LINES_MAX: usize = 800;
/// A map longer than this is not read.
const ARCHITECTURE_LINES_MAX: usize = 300;

/// A text that may not occur in some sources.
struct Ban {
    text: &'static str,
    /// Paths that begin with one of these are searched.
    within: &'static [&'static str],
    /// Paths that contain one of these are not.
    except: &'static [&'static str],
    why: &'static str,
}

/// Functions of their arguments alone.
const PURE: &[&str] =
    &["crates/kiln-core/src", "crates/kiln-model/src", "crates/kiln-config/src", "crates/kiln-stats/src"];

const BANS: &[Ban] = &[
    Ban { text: "SystemTime::now", within: PURE, except: &[], why: "the core gets its time with the input" },
    Ban { text: "Instant::now", within: PURE, except: &[], why: "the core gets its time with the input" },
    Ban {
        text: "std::fs",
        within: PURE,
        except: &[],
        why: "no I/O here: the shell reads and hands over bytes",
    },
    Ban {
        text: "HashMap",
        within: &["crates/kiln-core/src", "crates/kiln-model/src", "crates/kiln-stats/src"],
        except: &[],
        why: "its order differs from run to run; use BTreeMap",
    },
    Ban {
        text: "async fn",
        within: &[
            "crates/kiln-core/src",
            "crates/kiln-model/src",
            "crates/kiln-config/src",
            "crates/kiln-stats/src",
            "crates/kiln-store/src",
        ],
        except: &[],
        why: "decisions and stored bytes are synchronous",
    },
    Ban {
        text: "serde",
        within: &["crates/kiln-model/src", "crates/kiln-core/src"],
        except: &["lib.rs"],
        why: "wire formats belong to store, provider, edge and api",
    },
];

/// Words of unfinished work, spelt so that this file does not hold them.
const UNFINISHED: &[(&str, &str)] = &[
    ("to", "do!("),
    ("unimple", "mented!("),
    ("FIX", "ME"),
    ("in a real sys", "tem"),
    ("not yet imple", "mented"),
];

pub(crate) fn run() -> Result<(), String> {
    let root = metadata::root();
    let files = tracked(&root)?;
    let mut faults = edge_faults(&root)?;
    for file in &files {
        let Ok(text) = fs::read_to_string(root.join(file)) else { continue };
        let path = file.to_string_lossy();
        faults.extend(size_fault(&path, &text));
        faults.extend(ban_faults(&path, &text));
        faults.extend(unfinished_faults(&path, &text));
    }
    faults.extend(decision_faults(&files));
    if faults.is_empty() {
        println!("tidy: {} files", files.len());
        return Ok(());
    }
    Err(format!("tidy found:\n  {}", faults.join("\n  ")))
}

/// Files that git tracks or would track.
fn tracked(root: &Path) -> Result<Vec<PathBuf>, String> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cannot run git: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.split('\0').filter(|path| !path.is_empty()).map(PathBuf::from).collect())
}

/// Compares ARCHITECTURE.md's crate table with the manifests, both ways.
fn edge_faults(root: &Path) -> Result<Vec<String>, String> {
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md"))
        .map_err(|error| format!("ARCHITECTURE.md: {error}"))?;
    let mut faults = Vec::new();
    if architecture.lines().count() > ARCHITECTURE_LINES_MAX {
        faults.push(format!("ARCHITECTURE.md: more than {ARCHITECTURE_LINES_MAX} lines"));
    }
    let allowed = crate_table(&architecture);
    let packages = metadata::packages()?;
    let members: BTreeSet<&str> = packages.iter().filter(|p| p.is_member).map(|p| p.name.as_str()).collect();
    for package in packages.iter().filter(|package| package.is_member) {
        let Some(row) = allowed.get(&package.name) else {
            faults.push(format!("ARCHITECTURE.md: its crate table has no row for `{}`", package.name));
            continue;
        };
        let edges: BTreeSet<String> =
            package.dependencies.iter().filter(|name| members.contains(name.as_str())).cloned().collect();
        for extra in edges.difference(row) {
            faults.push(format!(
                "{} depends on {extra}: ARCHITECTURE.md's table has no such edge",
                package.name
            ));
        }
        for missing in row.difference(&edges) {
            faults.push(format!(
                "ARCHITECTURE.md lets {} depend on {missing}, which it does not",
                package.name
            ));
        }
    }
    let gone = allowed.keys().filter(|name| !members.contains(name.as_str()));
    faults.extend(
        gone.map(|name| format!("ARCHITECTURE.md: its crate table has `{name}`, which does not exist")),
    );
    Ok(faults)
}

/// Reads the rows `| \`crate\` | … | edges |` of the first table whose header ends in `may depend on`.
fn crate_table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let rows = text.lines().skip_while(|line| !line.trim_end().ends_with("may depend on |")).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = cells(line);
            let name = cells[0].trim_matches('`').to_owned();
            let edges = cells.last().map(String::as_str).unwrap_or_default();
            let edges = edges.split(',').map(|edge| edge.trim().trim_matches('`').to_owned());
            (name, edges.filter(|edge| !edge.is_empty() && edge != "none").collect())
        })
        .collect()
}

fn size_fault(path: &str, text: &str) -> Option<String> {
    if !path.ends_with(".rs") {
        return None;
    }
    let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
    (lines > FILE_LINES_MAX).then(|| format!("{path}: {lines} lines; split it by noun at {FILE_LINES_MAX}"))
}

fn ban_faults(path: &str, text: &str) -> Vec<String> {
    let applies = |ban: &&Ban| {
        ban.within.iter().any(|prefix| path.starts_with(prefix))
            && !ban.except.iter().any(|part| path.contains(part))
    };
    let mut faults = Vec::new();
    for ban in BANS.iter().filter(applies) {
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(ban.text) {
                faults.push(format!("{path}:{}: `{}`: {}", index + 1, ban.text, ban.why));
            }
        }
    }
    faults
}

fn unfinished_faults(path: &str, text: &str) -> Vec<String> {
    if !(path.ends_with(".rs") || path.ends_with(".md") || path.ends_with(".hcl")) {
        return Vec::new();
    }
    let words = UNFINISHED.iter().map(|(head, tail)| format!("{head}{tail}"));
    words
        .filter(|word| text.contains(word))
        .map(|word| format!("{path}: `{word}`: finish it or take it out"))
        .collect()
}

fn decision_faults(files: &[PathBuf]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.starts_with("docs/decisions")) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.chars().take(4).collect::<String>();
        if let Some(first) = seen.insert(number.clone(), name.clone()) {
            faults.push(format!("docs/decisions: {first} and {name} share the number {number}"));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_crate_table_is_read_from_its_rows() {
        let text = "| crate | purpose | may depend on |\n|---|---|---|\n| `a` | x | none |\n| `b` | y | `a`, c |\n\n| `z` | |";
        let table = crate_table(text);
        assert_eq!(table.len(), 2);
        assert!(table["a"].is_empty());
        assert_eq!(table["b"], BTreeSet::from(["a".to_owned(), "c".to_owned()]));
    }

    #[test]
    fn tests_do_not_count_towards_a_files_size() {
        let code = "x\n".repeat(FILE_LINES_MAX);
        assert!(size_fault("a.rs", &format!("{code}#[cfg(test)]\nmod tests {{}}\n")).is_none());
        assert!(size_fault("a.rs", &format!("{code}x\n")).is_some());
    }

    #[test]
    fn a_banned_call_is_found_in_code_but_not_in_a_comment() {
        assert_eq!(ban_faults("crates/kiln-core/src/a.rs", "let t = Instant::now();").len(), 1);
        assert!(ban_faults("crates/kiln-core/src/a.rs", "// never Instant::now()").is_empty());
        assert!(ban_faults("crates/kiln/src/a.rs", "let t = Instant::now();").is_empty());
    }
}
