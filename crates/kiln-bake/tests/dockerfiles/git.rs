//! ADD of Git repositories, from a server of this machine.

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::fixture::causes;
use crate::kitchen::Kitchen;
use crate::origin::Origin;

#[test]
fn a_repository_is_locked_to_a_commit_and_added_as_buildkit_adds_it() {
    let (kitchen, origin) = (Kitchen::new(), Origin::new());
    origin.write("run.sh", "#!/bin/sh\n").write("docs/en/a.md", "first\n").write(".gitignore", "x\n");
    symlink("/etc/passwd", origin.path("link")).unwrap();
    let program = std::fs::Permissions::from_mode(0o744);
    std::fs::set_permissions(origin.path("run.sh"), program).unwrap();
    let first = origin.commit();
    origin.git(&["tag", "--annotate", "--message=x", "v1"]);
    let second = origin.write("docs/en/a.md", "second\n").write("new", "").commit();
    let url = origin.server.url();
    let text = format!(
        "FROM os AS unused\nADD {url}#unused /x\nFROM os\nARG V=v1\nRUN mkdir /there\n\
         ADD {url}#$V /tool/\nADD --chown=1000:1001 --chmod=700 {url}#$V:docs/en /there\n\
         ADD --exclude=docs --link --keep-git-dir=false {url} /latest\nADD --checksum={first} {url}#{first}:docs /whole\n"
    );
    kitchen.write("web/Dockerfile", &text);
    let lock = kitchen.lock(None, false).unwrap();
    let commits: Vec<_> = lock.commits.iter().map(|(key, it)| (&key[url.len()..], &it.commit)).collect();
    let [docs, tag, one] = [format!("#{first}:docs"), "#v1".to_owned(), "#v1:docs/en".to_owned()];
    assert_eq!(commits, [("", &second), (&*docs, &first), (&*tag, &first), (&*one, &first)]);
    assert_eq!(kiln_bake::Lock::parse(&lock.to_string()).as_ref(), Ok(&lock));
    // What was fetched to lock it is kept, as files of URLs are: the server may be gone.
    let asked = origin.server.asked();
    let dish = kitchen.bake_locked(&lock).unwrap();
    assert_eq!(origin.server.asked(), asked);
    assert_eq!([dish.text("tool/docs/en/a.md"), dish.text("there/a.md")], ["first\n", "first\n"]);
    assert_eq!([dish.meta("tool/run.sh"), dish.meta("tool/docs/en/a.md")], ["755 0:0", "644 0:0"]);
    assert_eq!([dish.meta("tool"), dish.meta("tool/docs")], ["755 0:0", "755 0:0"]);
    assert_eq!(dish.meta("there/a.md"), "700 1000:1001");
    assert_eq!(dish.text("whole/en/a.md"), "first\n");
    assert!(dish.has("tool/link") && dish.has("tool/.gitignore") && !dish.has("tool/.git"));
    assert!(dish.has("latest/new") && !dish.has("latest/docs"));
    assert!(dish.image.unproven.is_empty());
    // Nothing moves by itself, and everything when that is asked for.
    let third = origin.write("new", "more").commit();
    assert_eq!(kitchen.lock(Some(&lock), false).unwrap(), lock);
    let upgraded = kitchen.lock(Some(&lock), true).unwrap();
    assert_eq!(
        (&upgraded.commits[&url].commit, &upgraded.commits[&format!("{url}#v1")].commit),
        (&third, &first)
    );
    // Another store has nothing of it: the commit is fetched by its name, though no branch has it any more.
    origin.git(&["update-ref", "refs/heads/main", &first]);
    let elsewhere = kitchen.bake_locked_in(&lock, "elsewhere").unwrap();
    assert_eq!(elsewhere.image.manifest, dish.image.manifest);
    assert!(origin.server.asked() > asked);
}

#[test]
fn what_a_repository_no_longer_has_or_never_had_is_told_at_its_line() {
    let (kitchen, origin) = (Kitchen::new(), Origin::new());
    let url = origin.server.url();
    let refused = |reference: &str| {
        kitchen.write("web/Dockerfile", &format!("FROM os\nRUN true\nADD {url}{reference} /x\n"));
        let error = kitchen.lock(None, false).unwrap_err();
        (causes(&error), error.hint().unwrap_or_default())
    };
    assert!(
        refused("")
            .0
            .contains(&format!("web/Dockerfile:3: cannot lock the commit of `{url}`: it has no commit"))
    );
    let commit = origin.write("file", "x").commit();
    let (said, hint) = refused("#nowhere");
    assert!(said.contains("it has no branch and no tag `nowhere`") && hint.contains("behind `#`"), "{said}");
    assert!(refused("#main:nowhere").0.contains(&format!("the commit {commit} has no folder `nowhere`")));
    let gone = "0123456789abcdef0123456789abcdef01234567";
    let (said, hint) = refused(&format!("#{gone}"));
    assert!(said.contains("git says: ") && said.contains(gone), "{said}");
    assert!(hint.contains("check the address"), "{hint}");
    // A submodule is another repository.
    origin.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{commit},vendor/other")]);
    origin.git(&["commit", "--quiet", "--message=x"]);
    let (said, hint) = refused("");
    assert!(said.contains("web/Dockerfile:3: ") && said.contains("`vendor/other` is a submodule"), "{said}");
    assert!(hint.contains("an ADD of its own"), "{hint}");
    // What a bake can't have any more is told with the line, too.
    kitchen.write("web/Dockerfile", &format!("FROM os\nRUN true\nADD {url}#main /x\n"));
    let mut lock = kiln_bake::Lock::default();
    let files = kiln_store::canonical::digest_of(b"x").to_string().parse().unwrap();
    for (commit, expected) in [(gone, "git says: "), (&*commit, "are not those that were locked")] {
        let locked = kiln_bake::LockedCommit { commit: commit.into(), files };
        lock.commits.insert(format!("{url}#main"), locked);
        let said = causes(&kitchen.bake_locked(&lock).unwrap_err());
        assert!(said.contains(&format!("web/Dockerfile:3: `{url}#main` can't be added")), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn a_checksum_holds_a_branch_to_its_commit() {
    let (kitchen, origin) = (Kitchen::new(), Origin::new());
    let first = origin.write("file", "first").commit();
    let url = origin.server.url();
    let write = |checksum: &str, reference: &str| {
        let text = format!("FROM os\nADD --checksum={checksum} {url}{reference} /x\n");
        kitchen.write("web/Dockerfile", &text);
    };
    write(&first[..10], "#main");
    let lock = kitchen.lock(None, false).unwrap();
    let second = origin.write("file", "second").commit();
    // The branch is somewhere else now.
    let said = causes(&kitchen.lock(Some(&lock), true).unwrap_err());
    assert!(said.contains(&format!("`main` is the commit {second} today, and the checksum is")), "{said}");
    // Without a branch the checksum alone says which.
    write(&first, "");
    assert_eq!(kitchen.lock(None, true).unwrap().commits[&url].commit, first);
    // Another checksum is another lock, without `--upgrade`.
    write(&second, "#main");
    let said = causes(&kitchen.bake_locked(&lock).unwrap_err());
    assert!(
        said.contains(&format!("is locked to the commit {first}, and its checksum is {second}")),
        "{said}"
    );
    let lock = kitchen.lock(Some(&lock), false).unwrap();
    assert_eq!(kitchen.bake_locked(&lock).unwrap().text("x/file"), "second");
}

/// As git's daemon answers: the repository is `x` of what it serves.
fn answer_as_daemon(stream: TcpStream, repository: &Path) -> std::io::Result<()> {
    let served = repository.parent().and_then(Path::parent).expect("a repository in a folder");
    let [input, output] = [stream.try_clone()?, stream].map(OwnedFd::from);
    let mut command = Command::new("git");
    command.args(["daemon", "--inetd", "--export-all"]).arg(format!("--base-path={}", served.display()));
    command.stdin(input).stdout(output).stderr(Stdio::null()).status().map(drop)
}

#[test]
fn the_protocol_of_git_itself_brings_the_same_files() {
    let (kitchen, origin) = (Kitchen::new(), Origin::served(answer_as_daemon));
    let commit = origin.write("docs/a.md", "first\n").commit();
    let url = format!("git://{}/x", origin.server.address());
    kitchen.write("web/Dockerfile", &format!("FROM os\nADD {url}#main:docs /docs\n"));
    let lock = kitchen.lock(None, false).unwrap();
    assert_eq!(lock.commits[&format!("{url}#main:docs")].commit, commit);
    // By its name alone, in a store that has nothing of it.
    origin.write("docs/a.md", "second\n").commit();
    let dish = kitchen.bake_locked_in(&lock, "elsewhere").unwrap();
    assert_eq!(dish.text("docs/a.md"), "first\n");
    let said = causes(&{
        kitchen.write("web/Dockerfile", &format!("FROM os\nADD {url}-elsewhere /docs\n"));
        kitchen.lock(None, false).unwrap_err()
    });
    assert!(said.contains("web/Dockerfile:2: ") && said.contains("git says: "), "{said}");
}
