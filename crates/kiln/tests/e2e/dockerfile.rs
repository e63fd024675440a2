//! A stack whose image is a team's own Dockerfile.

use crate::machine::{Machine, tiny, tiny_stack};

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
