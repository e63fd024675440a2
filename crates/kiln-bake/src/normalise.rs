//! What a configured system holds that no package decided, and what becomes of it.
//!
//! Each rule is named and says why: the list in `docs/bake.md` is this table.

use kiln_store::tree::TreeError;
use kiln_store::{Batch, Entry, Kind, Meta, Mtime, Objects, PutError, ReadError, Tree, TreePath};

use crate::calendar::DAY_SECS;
use crate::glob::Glob;

/// The account files have a few kilobytes.
const ACCOUNTS_BYTES_MAX: u64 = 16 << 20;

/// What becomes of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It is removed.
    Remove,
    /// All that is in the folder is removed; the folder stays.
    Clear,
    /// The file stays, without content.
    Empty,
    /// The dates of last password changes become the lock's day.
    ShadowDates,
}

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Normaliser {
    /// Its name.
    pub name: &'static str,
    /// Globs of absolute paths.
    pub paths: &'static [&'static str],
    /// What becomes of them.
    pub treatment: Treatment,
    /// Whether it also holds after a `run` step; the others hold for bases only, where nobody's own files are.
    pub after_steps: bool,
    /// Why.
    pub why: &'static str,
}

/// All rules, in the order in which they are applied to a base.
pub const NORMALISERS: &[Normaliser] = &[
    Normaliser {
        name: "logs",
        paths: &[
            "/var/log/*.log",
            "/var/log/apt/*",
            "/var/log/*/*.log",
            "/var/log/btmp",
            "/var/log/wtmp",
            "/var/log/lastlog",
        ],
        treatment: Treatment::Remove,
        after_steps: false,
        why: "they say when and how the bake ran",
    },
    Normaliser {
        name: "package-logs",
        paths: &[
            "/var/log/apt/*",
            "/var/log/dpkg.log",
            "/var/log/alternatives.log",
            "/var/log/bootstrap.log",
        ],
        treatment: Treatment::Remove,
        after_steps: true,
        why: "they say when packages were installed",
    },
    Normaliser {
        name: "apt",
        paths: &["/var/lib/apt/lists", "/var/cache/apt"],
        treatment: Treatment::Clear,
        after_steps: true,
        why: "caches of an index that the lock already pins",
    },
    Normaliser {
        name: "caches",
        paths: &["/var/cache/ldconfig", "/var/cache/man", "/var/cache/fontconfig"],
        treatment: Treatment::Clear,
        after_steps: true,
        why: "rebuilt when needed; they hold inode numbers and times of the bake",
    },
    Normaliser {
        name: "dpkg-backups",
        paths: &[
            "/var/lib/dpkg/*-old",
            "/var/cache/debconf/*-old",
            "/var/lib/dpkg/lock",
            "/var/lib/dpkg/lock-frontend",
            "/var/lib/dpkg/triggers/Lock",
            "/etc/passwd-",
            "/etc/group-",
            "/etc/shadow-",
            "/etc/gshadow-",
            "/etc/subuid-",
            "/etc/subgid-",
        ],
        treatment: Treatment::Remove,
        after_steps: true,
        why: "states between two steps of the installation",
    },
    Normaliser {
        name: "machine-id",
        paths: &["/etc/machine-id", "/var/lib/dbus/machine-id"],
        treatment: Treatment::Empty,
        after_steps: false,
        why: "random, and an instance's own: empty means that it is to be made at boot",
    },
    Normaliser {
        name: "seeds",
        paths: &["/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/etc/ssh/ssh_host_*"],
        treatment: Treatment::Remove,
        after_steps: false,
        why: "random, and a secret that all instances would share",
    },
    Normaliser {
        name: "names",
        paths: &["/etc/hostname", "/etc/resolv.conf", "/etc/hosts"],
        treatment: Treatment::Remove,
        after_steps: false,
        why: "an instance gets its own",
    },
    Normaliser {
        name: "temporary",
        paths: &["/tmp", "/var/tmp", "/run"],
        treatment: Treatment::Clear,
        after_steps: false,
        why: "empty at every start of an instance",
    },
    Normaliser {
        name: "shadow-dates",
        paths: &["/etc/shadow"],
        treatment: Treatment::ShadowDates,
        after_steps: true,
        why: "the day on which the bake ran",
    },
];

/// Why a tree can't be normalised.
#[derive(Debug, thiserror::Error)]
pub enum NormaliseError {
    /// A file of it can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file of it can't be stored.
    #[error(transparent)]
    Put(#[from] PutError),
    /// Its new form can't be.
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// When rules are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// A base was configured.
    Base,
    /// A `run` step has run.
    Step,
}

/// Applies the rules of an occasion, and lets no time be later than `latest`, in seconds since the epoch.
///
/// `objects` holds the tree's files; what is new goes to `batch`.
pub(crate) fn normalise(
    tree: &mut Tree,
    occasion: Occasion,
    objects: &Objects,
    batch: &Batch,
    latest: u64,
) -> Result<(), NormaliseError> {
    for rule in NORMALISERS.iter().filter(|rule| occasion == Occasion::Base || rule.after_steps) {
        for pattern in rule.paths {
            for path in hits(tree, pattern) {
                treat(tree, &path, rule.treatment, objects, batch, latest)?;
            }
        }
    }
    clamp(tree, latest)
}

/// Finds what a pattern means; only what is below its plain folders is looked at.
fn hits(tree: &Tree, pattern: &str) -> Vec<TreePath> {
    let pattern = pattern.trim_start_matches('/');
    let plain = pattern.find(['*', '?', '[', '{', '\\']).unwrap_or(pattern.len());
    let folder = if plain == pattern.len() {
        pattern
    } else {
        pattern[..plain].rsplit_once('/').map_or("", |(folder, _)| folder)
    };
    let folder = TreePath::parse(folder).expect("the table's paths are well-formed");
    let glob = Glob::new(pattern).expect("the table's globs are well-formed");
    tree.within(&folder).map(|(path, _)| path).filter(|path| glob.matches(path.as_bytes())).cloned().collect()
}

fn treat(
    tree: &mut Tree,
    path: &TreePath,
    treatment: Treatment,
    objects: &Objects,
    batch: &Batch,
    latest: u64,
) -> Result<(), NormaliseError> {
    let Some(entry) = tree.get(path).cloned() else { return Ok(()) };
    match (treatment, &entry.kind) {
        (Treatment::Remove, _) => drop(tree.remove(path)),
        (Treatment::Clear, _) => {
            let children: Vec<TreePath> = tree.children(path).map(|(child, _)| child.clone()).collect();
            for child in children {
                tree.remove(&child);
            }
        }
        (Treatment::Empty, Kind::File { .. }) => {
            let stored = batch.put_bytes(b"")?;
            let kind = Kind::File { digest: stored.digest, size: stored.size };
            tree.insert(path, Entry { meta: entry.meta, kind })?;
        }
        (Treatment::ShadowDates, Kind::File { digest, .. }) => {
            let text = objects.read_verified(digest, ACCOUNTS_BYTES_MAX)?;
            let stored = batch.put_bytes(&shadow_dates(&text, latest / DAY_SECS))?;
            let kind = Kind::File { digest: stored.digest, size: stored.size };
            tree.insert(path, Entry { meta: entry.meta, kind })?;
        }
        // A link in the place of a file belongs to whoever put it there.
        (Treatment::Empty | Treatment::ShadowDates, _) => {}
    }
    Ok(())
}

/// Sets the third field of each line, the day of the last change, where there is one.
fn shadow_dates(text: &[u8], day: u64) -> Vec<u8> {
    let line = |line: &[u8]| {
        let mut fields: Vec<Vec<u8>> = line.split(|&byte| byte == b':').map(<[u8]>::to_vec).collect();
        if let Some(changed) = fields.get_mut(2).filter(|changed| !changed.is_empty()) {
            *changed = day.to_string().into_bytes();
        }
        fields.join(&b':')
    };
    text.split(|&byte| byte == b'\n').map(line).collect::<Vec<_>>().join(&b'\n')
}

/// Lets no time be later than `latest`, and gives folders that changed under a rule the time that everything has.
fn clamp(tree: &mut Tree, latest: u64) -> Result<(), NormaliseError> {
    let latest = Mtime { secs: latest as i64, nanos: 0 };
    let late: Vec<(TreePath, Meta)> = tree
        .iter()
        .filter(|(_, entry)| entry.meta.mtime > latest || entry.meta.mtime.nanos != 0)
        .map(|(path, entry)| {
            let mtime = Mtime { secs: entry.meta.mtime.secs.min(latest.secs), nanos: 0 };
            (path.clone(), Meta { mtime, ..entry.meta.clone() })
        })
        .collect();
    for (path, meta) in late {
        tree.set_meta(&path, meta)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shadow_dates_become_the_locks_day_and_empty_ones_stay() {
        let text = b"root:*:20414:0:99999:7:::\nlocked:!::0:99999:7:::\n";
        let expected = b"root:*:20000:0:99999:7:::\nlocked:!::0:99999:7:::\n";
        assert_eq!(shadow_dates(text, 20000), expected);
    }

    #[test]
    fn the_documentation_lists_every_rule() {
        let text = include_str!("../../../docs/bake.md");
        for rule in NORMALISERS {
            let paths: Vec<String> = rule.paths.iter().map(|path| format!("`{path}`")).collect();
            let becomes = match rule.treatment {
                Treatment::Remove => "removed",
                Treatment::Clear => "emptied folder",
                Treatment::Empty => "empty file",
                Treatment::ShadowDates => "the lock's day",
            };
            let when = if rule.after_steps { "bases, steps" } else { "bases" };
            let row = format!("| {} | {when} | {} | {becomes} | {} |", rule.name, paths.join(" "), rule.why);
            assert!(text.contains(&row), "docs/bake.md lacks: {row}");
        }
    }

    #[test]
    fn every_rule_of_the_table_is_a_glob_of_absolute_paths() {
        for rule in NORMALISERS {
            for path in rule.paths {
                assert!(path.starts_with('/') && Glob::new(&path[1..]).is_ok(), "{}: {path}", rule.name);
            }
        }
    }
}
