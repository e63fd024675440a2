//! A plan that was saved: what it was made from, so that carrying it out later does that or nothing.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use kiln_model::{Digest, EnvKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::cli::deploy::folder::{Content, Listing, PLAN_MAGIC};
use crate::cli::failure::Failure;

/// The version of the file.
const VERSION: u32 = 1;
/// It names digests and variables; a larger file is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A saved plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedPlan {
    /// Comes first: a file that begins with it is a plan, and no part of the stack that it is about.
    kiln_plan: u32,
    /// The stack.
    pub stack: String,
    /// The environment.
    pub env: String,
    /// The revision that it was made against; none for an empty environment.
    pub base: Option<u64>,
    /// The digest of the folder.
    pub source: String,
    /// The variables of the command line.
    #[serde(default)]
    pub vars: Vec<(String, String)>,
}

impl SavedPlan {
    /// What is to be saved.
    pub(crate) fn new(env: &EnvKey, base: Option<u64>, listing: &Listing, vars: &[(String, String)]) -> Self {
        Self {
            kiln_plan: VERSION,
            stack: env.stack.to_string(),
            env: env.env.to_string(),
            base,
            source: folder_digest(listing).to_string(),
            vars: vars.to_vec(),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_string(self).expect("a struct of text and numbers is JSON");
        debug_assert!(text.as_bytes().starts_with(PLAN_MAGIC));
        fs::write(path, text + "\n")
            .map_err(|error| Failure::external(format!("{} can't be written", path.display())).cause(error))
    }

    /// Reads it.
    ///
    /// # Errors
    /// It can't be read, or is no plan of this version.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let failed =
            |error: std::io::Error| Failure::usage(format!("plan {shown} can't be read")).cause(error);
        let mut text = String::new();
        let file = fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let none =
            || Failure::usage(format!("{shown} is no saved plan")).hint("`kiln plan --out FILE` saves one");
        let plan: Self = serde_json::from_str(&text).map_err(|error| none().cause(error))?;
        match plan.kiln_plan {
            VERSION => Ok(plan),
            other => Err(none().cause(format!("it has version {other}, this Kiln knows {VERSION}"))),
        }
    }

    /// Refuses a plan that the folder has left behind.
    ///
    /// # Errors
    /// A file changed since.
    pub(crate) fn require_same_folder(&self, listing: &Listing) -> Result<(), Failure> {
        if self.source == folder_digest(listing).to_string() {
            return Ok(());
        }
        Err(stale("a file of the stack folder changed since the plan was made"))
    }

    /// Refuses a plan that the environment has left behind; the controller checks once more.
    ///
    /// # Errors
    /// It is at another revision.
    pub(crate) fn require_base(&self, current: Option<u64>) -> Result<(), Failure> {
        if self.base == current {
            return Ok(());
        }
        let number =
            |number: Option<u64>| number.map_or_else(|| "nothing".into(), |number| format!("#{number}"));
        Err(stale(&format!(
            "it was made against {}, but {} is there now",
            number(self.base),
            number(current)
        )))
    }
}

fn stale(why: &str) -> Failure {
    Failure::refused("the plan is stale").cause(why).hint("`kiln plan` shows what would happen now")
}

/// One digest for a folder: its paths, modes and contents.
fn folder_digest(listing: &Listing) -> Digest {
    let mut hasher = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (path, item) in listing {
        put(path);
        put(&item.mode.to_le_bytes());
        match &item.content {
            Content::File { digest, .. } => put(digest.as_bytes()),
            Content::Symlink(target) => put(&[b"link", target.as_slice()].concat()),
            Content::EmptyFolder => put(b"folder"),
        }
    }
    Digest::new(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::deploy::folder::{Item, scan};
    use kiln_model::{EnvName, StackName};

    fn env() -> EnvKey {
        EnvKey { stack: StackName::new("shop").unwrap(), env: EnvName::new("prod").unwrap() }
    }

    fn listing(byte: u8) -> Listing {
        let content = Content::File { digest: Digest::new([byte; 32]), size: 1 };
        Listing::from([(b"stack.hcl".to_vec(), Item { mode: 0o644, content })])
    }

    #[test]
    fn a_plan_reads_back_and_is_no_part_of_the_folder_that_it_is_in() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(folder.path().join("stack.hcl"), "stack \"shop\" {}").unwrap();
        let before = scan(folder.path(), &crate::runtime::StateDir::new("/nowhere"), None).unwrap();
        let plan = SavedPlan::new(&env(), Some(4), &before, &[("a".into(), "b".into())]);
        let path = folder.path().join("next.plan");
        plan.write(&path).unwrap();
        assert_eq!(SavedPlan::read(&path).unwrap(), plan);
        plan.require_same_folder(
            &scan(folder.path(), &crate::runtime::StateDir::new("/nowhere"), None).unwrap(),
        )
        .unwrap();
    }

    #[test]
    fn a_plan_is_stale_when_a_file_or_the_revision_moved() {
        let plan = SavedPlan::new(&env(), Some(4), &listing(1), &[]);
        assert!(plan.require_same_folder(&listing(1)).is_ok());
        assert_eq!(plan.require_same_folder(&listing(2)).unwrap_err().exit().code(), 3);
        assert!(plan.require_base(Some(4)).is_ok());
        assert_eq!(plan.require_base(Some(5)).unwrap_err().exit().code(), 3);
        assert_eq!(plan.require_base(None).unwrap_err().exit().code(), 3);
    }

    #[test]
    fn what_is_no_plan_is_told_so() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "stack").unwrap();
        assert_eq!(SavedPlan::read(&path).unwrap_err().exit().code(), 2);
    }
}
