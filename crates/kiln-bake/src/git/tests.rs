//! Commits of repositories that the tests make.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Runs the machine's git in a bare repository, with nothing of its settings.
fn git(folder: &Path, words: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("git");
    command.args(words).current_dir(folder).env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_DIR", folder);
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "a").env(format!("GIT_{who}_EMAIL"), "a@example.org");
        command.env(format!("GIT_{who}_DATE"), "1000000000 +0000");
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("these tests need git");
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {words:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository in a folder of its own.
struct World {
    folder: tempfile::TempDir,
    cancel: Cancel,
}

impl World {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), cancel: Cancel::default() }
    }

    fn repository(&self) -> Repository<'_> {
        Repository::new(self.folder.path().join("bare"), &self.cancel).unwrap()
    }

    fn git(&self, words: &[&str], input: &[u8]) -> String {
        git(&self.folder.path().join("bare"), words, input)
    }

    /// Commits a tree of lines as `git mktree` reads them.
    fn commit(&self, lines: &[String]) -> String {
        let tree = self.git(&["mktree", "-z"], lines.join("\0").as_bytes());
        self.git(&["commit-tree", "-m", "x", &tree], b"")
    }

    fn blob(&self, content: &[u8]) -> String {
        self.git(&["hash-object", "-w", "--stdin"], content)
    }
}

fn snapshot_of(repository: &Repository<'_>, commit: &str, folder: &str) -> Result<Vec<u8>, GitError> {
    let mut bytes = Vec::new();
    let folder = kiln_store::TreePath::parse(folder).unwrap();
    snapshot::write(repository, commit, &folder, Path::new("archive"), &mut bytes).map(|()| bytes)
}

#[test]
fn the_archive_of_a_commit_is_golden() {
    let world = World::new();
    let repository = world.repository();
    let [text, link] = [&b"text\r\n"[..], b"../outside"].map(|content| world.blob(content));
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(120));
    // An attribute has no say: nothing is checked out.
    let attributes = world.blob(b"* text eol=lf\n*.x filter=lfs\n");
    let inner = world.git(&["mktree", "-z"], format!("100755 blob {text}\t{}", "n".repeat(120)).as_bytes());
    let commit = world.commit(&[
        format!("100644 blob {attributes}\t.gitattributes"),
        format!("100644 blob {text}\ta.x"),
        format!("040000 tree {inner}\t{}", "d".repeat(120)),
        format!("120000 blob {link}\tlink"),
    ]);
    let bytes = snapshot_of(&repository, &commit, "").unwrap();
    let digest = crate::hashing::sha256(&bytes).to_string();
    assert_eq!(
        digest, "sha256:400e213b1ab19956ca43f16a2706b7d9d016192978587be5c6a61cc3f8284b16",
        "what is locked in every kiln.lock would not be found again"
    );
    let mut archive = tar::Archive::new(&bytes[..]);
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let target = entry.link_name_bytes().map(|name| String::from_utf8(name.into_owned()).unwrap());
        found.push((path, entry.header().mode().unwrap(), entry.size(), target));
    }
    let expected = [
        (".gitattributes".to_owned(), 0o644, 29, None),
        ("a.x".to_owned(), 0o644, 6, None),
        (long, 0o755, 6, None),
        ("link".to_owned(), 0o777, 0, Some("../outside".to_owned())),
    ];
    assert_eq!(found, expected);
    // A folder alone, by its own names.
    let bytes = snapshot_of(&repository, &commit, &"d".repeat(120)).unwrap();
    assert_eq!(tar::Archive::new(&bytes[..]).entries().unwrap().count(), 1);
    for missing in ["nowhere", "a.x", "link"] {
        let error = snapshot_of(&repository, &commit, missing).unwrap_err();
        assert!(matches!(error, GitError::NoFolder { .. }), "{missing}: {error}");
    }
}

#[test]
fn trees_that_mean_harm_are_refused() {
    let world = World::new();
    let repository = world.repository();
    let blob = world.blob(b"x");
    let raw: Vec<u8> = (0..20).map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).unwrap()).collect();
    let entry = |mode: &str, name: &[u8]| [mode.as_bytes(), b" ", name, b"\0", &raw].concat();
    let tree = |content: Vec<u8>| {
        world.git(&["hash-object", "-w", "--literally", "-t", "tree", "--stdin"], &content)
    };
    let refused = |tree: &str| {
        let commit = world.git(&["commit-tree", "-m", "x", tree], b"");
        snapshot_of(&repository, &commit, "").unwrap_err().to_string()
    };
    let cases = [
        (entry("100644", b".."), "`..` leads out of it"),
        (entry("100644", b".GiT"), "no repository has a `.git` of its own"),
        (entry("100644", b"a/../../b"), "`..` leads out of it"),
        (entry("100644", b"/etc/passwd"), "a name is empty or `.`"),
        (entry("100644", &[b'n'; 300]), "a name has more than 255 bytes"),
        ([entry("100644", b"a"), entry("100644", b"a")].concat(), "it is there twice"),
        ([entry("120000", b"a"), entry("100644", b"a/b")].concat(), "it leads through what is no folder"),
        (entry("160000", b"other"), "`other` is a submodule"),
    ];
    for (content, expected) in cases {
        let said = refused(&tree(content));
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let deep = world.git(&["mktree", "-z"], format!("100644 blob {blob}\tconfig").as_bytes());
    let said = refused(&world.git(&["mktree", "-z"], format!("040000 tree {deep}\t.git").as_bytes()));
    assert!(said.contains("no repository has a `.git` of its own"), "{said}");
    let empty = world.blob(b"");
    let said = refused(&world.git(&["mktree", "-z"], format!("120000 blob {empty}\tlink").as_bytes()));
    assert!(said.contains("it is a link to nothing that can be"), "{said}");
}

#[test]
fn a_tree_that_unfolds_without_end_is_too_large() {
    let world = World::new();
    let repository = world.repository();
    let blob = world.blob(b"x");
    // Sixteen of the one before, sixteen times: nobody waits for the end of the list.
    let lines = |kind: &str, object: &str| {
        (0..16).map(|at| format!("{kind} {object}\t{at:02}")).collect::<Vec<_>>().join("\0")
    };
    let mut tree = world.git(&["mktree", "-z"], lines("100644 blob", &blob).as_bytes());
    for _ in 0..15 {
        tree = world.git(&["mktree", "-z"], lines("040000 tree", &tree).as_bytes());
    }
    let mut listing = repository.talk(&["ls-tree", "-r", "-z", "--full-tree", &tree]).unwrap();
    let error = snapshot::list(&mut listing.answers, 5000).unwrap_err();
    assert!(matches!(error, GitError::TooLarge(_)), "{error}");
}

#[test]
fn what_was_called_off_ends_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PackageCache::open(folder.path().join("cache")).unwrap();
    let cancel = Cancel::default();
    cancel.set();
    // Nobody answers there: whoever waited would wait for long.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/a.git", silent.local_addr().unwrap());
    let checkouts = Checkouts { cache: &cache, cancel: &cancel };
    let error = checkouts.learn(&Address::parse(&address).unwrap(), None).unwrap_err();
    assert!(matches!(error, GitError::Cancelled), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("cache")).unwrap().count(), 0);
}
