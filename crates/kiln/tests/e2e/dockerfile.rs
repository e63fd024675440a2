//! A stack whose image is a team's own Dockerfile.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::machine::{Machine, ran, tiny, tiny_stack};

/// Two stages, a heredoc, and what runs.
const DOCKERFILE: &str = "FROM scratch AS files\nCOPY --chmod=755 tiny /tiny\n\nFROM scratch\nARG NOTE=none\nLABEL note=$NOTE\n\
    COPY --from=files /tiny /bin/tiny\nCOPY <<EOF /etc/note\n$NOTE\nEOF\nENTRYPOINT [\"/bin/tiny\"]\n";

#[test]
fn a_dockerfile_comes_up_and_one_with_a_mistake_is_refused_at_its_line_while_the_old_one_serves() {
    let machine = Machine::new();
    let bounds = "rollout \"blue_green\" {\n    progress_deadline = \"5s\"\n  }";
    let stack = tiny_stack(machine.address, "v1", 1, bounds);
    let (head, rest) = stack.split_once("  from    = \"scratch\"").unwrap();
    let (_, tail) = rest.split_once("  copy {").unwrap();
    let (_, tail) = tail.split_once("  }\n").unwrap();
    let image = "  dockerfile = \"./web\"\n  args       = { NOTE = \"of the stack\" }\n";
    machine.write("stack.hcl", format!("{head}{image}{tail}"));
    machine.write("web/Dockerfile", DOCKERFILE);
    machine.write("web/tiny", std::fs::read(tiny()).unwrap());
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
    let found = machine.kiln(&["bake"]).ok();
    assert!(found.out.contains("sha256:"), "{}", found.out);

    machine.write("web/Dockerfile", DOCKERFILE.replace("COPY --from=files", "COPY --form=files"));
    // Whoever only checks is told the same.
    let checked = machine.kiln(&["check"]);
    assert_eq!(checked.code, 4, "{}", checked.err);
    assert!(checked.err.contains("--> web/Dockerfile:7:6"), "{}", checked.err);
    let said = machine.kiln(&["up"]).fails_with("the stack has an error").err;
    assert!(said.contains("error[dockerfile]: COPY has no flag `--form`"), "{said}");
    assert!(said.contains("--> web/Dockerfile:7:6"), "{said}");
    assert!(said.contains("7 | COPY --form=files /tiny /bin/tiny"), "{said}");
    assert!(said.contains("= help: did you mean `from`?"), "{said}");
    machine.wait_page("v1");

    // The image says how health is asked where the service does not.
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let (head, rest) = stack.split_once("  health {").unwrap();
    let (_, tail) = rest.split_once("  }\n").unwrap();
    machine.write("stack.hcl", format!("{head}{tail}"));
    let failing = "HEALTHCHECK --interval=200ms --retries=2 CMD [\"/no-such-probe\"]\n";
    machine.write("web/Dockerfile", format!("{DOCKERFILE}{failing}"));
    machine.kiln(&["up"]).fails_with("healthy");
    machine.wait_page("v1");

    machine.edit_stack("\"v1\"", "\"v2\"");
    machine.write("web/Dockerfile", DOCKERFILE.replace("none", "nothing"));
    machine.kiln(&["plan"]).ok();
    machine.kiln(&["up"]).ok();
    machine.wait_page("v2");
}

/// Stands for ssh: notes how it was called, and runs the command where it is.
const SSH: &str = "#!/bin/sh\necho \"$*\" >> \"${0%/*}/calls\"\nfor last; do :; done\ncase \"$*\" in *nobody*) \
    echo 'Permission denied (publickey).' >&2; exit 255;; esac\neval \"$last\"\n";

#[test]
fn a_repository_is_added_over_ssh_which_asks_nobody_for_a_password() {
    let machine = Machine::new();
    let tools = tempfile::tempdir().unwrap();
    let ssh = tools.path().join("ssh");
    std::fs::write(&ssh, SSH).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let origin = tempfile::tempdir().unwrap();
    let git = |words: &[&str]| {
        let who = ["-c", "user.name=a", "-c", "user.email=a@example.org"];
        let done = Command::new("git").args(who).args(words).current_dir(origin.path()).output().unwrap();
        assert!(done.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    };
    std::fs::write(origin.path().join("page"), "of the repository\n").unwrap();
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "page"]);
    git(&["commit", "--quiet", "--message=x"]);

    let bounds = "rollout \"blue_green\" {\n    progress_deadline = \"5s\"\n  }";
    let stack = tiny_stack(machine.address, "v1", 1, bounds);
    let (head, rest) = stack.split_once("  from    = \"scratch\"").unwrap();
    let (_, tail) = rest.split_once("mode = \"0755\"\n  }\n").unwrap();
    machine.write("stack.hcl", format!("{head}  dockerfile = \"./web\"\n{tail}"));
    machine.write("web/tiny", std::fs::read(tiny()).unwrap());
    let path = origin.path().display();
    let add = |address: &str| {
        let text = format!(
            "FROM scratch AS added\nADD {address} /added\nFROM scratch\nCOPY --chmod=755 tiny /bin/tiny\n\
             COPY --from=added /added/page /etc/page\nENTRYPOINT [\"/bin/tiny\"]\n"
        );
        machine.write("web/Dockerfile", text);
    };
    let paths = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let kiln = |words: &[&str]| ran(machine.command(words).env("PATH", &paths).output().unwrap());
    for address in
        [format!("ssh://deploy@forge.example:2222{path}#main"), format!("deploy@forge.example:{path}#main")]
    {
        add(&address);
        kiln(&["lock"]).ok();
        let lock = std::fs::read_to_string(machine.stack().join("kiln.lock")).unwrap();
        assert!(lock.contains(&git(&["rev-parse", "HEAD"])), "{lock}");
        kiln(&["bake"]).ok();
    }
    let calls = std::fs::read_to_string(tools.path().join("calls")).unwrap();
    assert!(calls.contains("-p 2222") && calls.contains("deploy@forge.example git-upload-pack"), "{calls}");
    let is_safe = |call: &str| {
        call.contains("-oBatchMode=yes")
            && call.contains("-oStrictHostKeyChecking=yes")
            && call.contains("-oForwardAgent=no")
    };
    assert!(calls.lines().all(is_safe), "{calls}");

    add(&format!("nobody@forge.example:{path}"));
    let said = kiln(&["lock"]).fails_with("Permission denied (publickey).").err;
    assert!(said.contains("web/Dockerfile:2") && said.contains("ssh needs a key of an agent"), "{said}");
}
