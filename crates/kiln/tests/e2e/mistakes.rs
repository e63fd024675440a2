//! What users do wrong: a clear error that says where, why and what to do, and nothing is lost.

use std::collections::BTreeSet;
use std::net::TcpListener;

use crate::machine::{Machine, wait_for};

#[test]
fn a_port_in_use_is_said_before_anything_is_created_and_once_it_is_free_up_works() {
    let machine = Machine::new();
    let taken = TcpListener::bind(machine.address).unwrap();
    machine.write_tiny("v1", 1, "");
    let said = machine.kiln(&["up"]).fails_with("is in use by another process").err;
    let lines = [format!("cause: can't listen on {}", machine.address), "hint:  free the port".to_owned()];
    assert!(lines.iter().all(|line| said.contains(line)), "{said}");
    assert!(machine.instances().is_empty(), "nothing was created");
    drop(taken);
    machine.kiln(&["up"]).ok();
    machine.wait_page("v1");
}

#[test]
fn two_stacks_that_want_one_route_are_told_apart() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    let other = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::write(folder.path().join("stack.hcl"), other.replace("stack \"tiny\"", "stack \"other\""))
        .unwrap();
    std::fs::copy(machine.stack().join("tiny"), folder.path().join("tiny")).unwrap();
    let up = machine.command(&["up"]).current_dir(folder.path()).output().unwrap();
    assert_eq!(up.status.code(), Some(3));
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    let route = format!("error: {} is answered by a route of tiny/dev already", machine.address);
    assert!(said.contains(&route) && said.contains("hint:  give the route another listen"), "{said}");
    machine.wait_page("v1");
}

#[test]
fn another_folder_needs_adopt_to_change_a_stack() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    machine.kiln(&["up"]).ok();
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::copy(machine.stack().join("tiny"), folder.path().join("tiny")).unwrap();
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    std::fs::write(folder.path().join("stack.hcl"), stack.replace("\"v1\"", "\"v2\"")).unwrap();
    let up = |words: &[&str]| machine.command(words).current_dir(folder.path()).output().unwrap();
    let refused = up(&["up"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--adopt"));
    assert!(up(&["up", "--adopt"]).status.success());
    machine.wait_page("v2");
}

#[test]
fn a_stale_plan_is_refused() {
    let machine = Machine::new();
    for version in ["v1", "v2"] {
        machine.write_tiny(version, 1, "");
        machine.kiln(&["up"]).ok();
    }
    machine.write_tiny("v3", 1, "");
    machine.kiln(&["plan", "--out", "plan.kiln"]).ok();
    let refused = |cause: &str| {
        let ran = machine.kiln(&["up", "plan.kiln"]).fails_with("error: the plan is stale");
        assert_eq!(ran.code, 3, "{}", ran.err);
        assert!(ran.err.contains(cause) && ran.err.contains("hint:  `kiln plan`"), "{}", ran.err);
    };
    machine.write_tiny("v4", 1, "");
    refused("cause: a file of the stack folder changed");
    machine.write_tiny("v3", 1, "");
    machine.kiln(&["rollback"]).ok();
    refused("cause: it was made against #2, but #1 is there now");
    machine.wait_page("v1");
    // What is planned anew is carried out.
    machine.kiln(&["plan", "--out", "plan.kiln"]).ok();
    machine.kiln(&["up", "plan.kiln"]).ok();
    machine.wait_page("v3");
}

#[test]
fn two_ups_at_once_both_end_and_one_of_them_is_served() {
    let machine = Machine::new();
    machine.write_tiny("v1", 2, "");
    machine.kiln(&["up"]).ok();
    machine.write_tiny("v2", 2, "");
    let up = || machine.command(&["up"]).spawn().unwrap();
    let ended: Vec<_> = [up(), up()].into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    // The same revision twice: one seals it, and both see it complete.
    assert!(ended.iter().all(|output| output.status.success()), "{ended:?}");
    machine.wait_page("v2");
    // Two that want different things: the later one supersedes, and the earlier one says so.
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    std::fs::copy(machine.stack().join("tiny"), other.path().join("tiny")).unwrap();
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    std::fs::write(other.path().join("stack.hcl"), stack.replace("\"v2\"", "\"other\"")).unwrap();
    machine.write_tiny("v3", 2, "");
    let adopt = machine.command(&["up", "--adopt"]).current_dir(other.path()).spawn().unwrap();
    let ended = [up(), adopt].map(|child| child.wait_with_output().unwrap().status);
    assert!(ended.iter().any(std::process::ExitStatus::success), "{ended:?}");
    wait_for("one of them is served by all", || {
        let pages: BTreeSet<String> = (0..20).filter_map(|_| machine.get("/page").ok()).collect();
        let versions: BTreeSet<_> = pages.iter().filter_map(|page| page.split_whitespace().next()).collect();
        (versions.len() == 1 && pages.len() == 2).then_some(())
    });
}

#[test]
fn a_test_that_fails_shows_what_its_instance_printed() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let test = "command = [\"/tiny\"]\n\n  test \"boots\" {\n    env = { MODE = \"exit\" }\n\n    tcp {\n      port = 8080\n    }\n  }";
    machine.write("stack.hcl", stack.replacen("command = [\"/tiny\"]", test, 1));
    let up = machine.kiln(&["up"]).fails_with("test tiny.boots failed");
    assert!(up.err.contains("the test's instance") && up.err.contains("printed:"), "{}", up.err);
    assert!(up.err.contains("tiny: asked to exit"), "{}", up.err);
}

#[test]
fn a_test_whose_instance_is_slow_to_end_is_waited_for_by_a_stop() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let test = "command = [\"/tiny\"]\n\n  test \"boots\" {\n    env = { MODE = \"deaf\" }\n\n    tcp {\n      port   = 9\n      within = \"1s\"\n    }\n  }";
    machine.edit_stack("command = [\"/tiny\"]", test);
    machine.kiln(&["up"]).fails_with("test tiny.boots failed");
    // The machine's own end stops Kiln by force at once, and looks for what is left behind.
}

#[test]
fn an_image_that_does_not_hold_what_its_tests_ask_is_not_released_and_one_that_does_is() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let test = r#"command = ["/tiny"]
  user    = "USER"

  test "hardened" {
    no_root   = true
    no_setuid = true

    file {
      path  = "/tiny"
      owner = "0:0"
      mode  = "MODE"
    }

    file {
      path   = "/bin/sh"
      absent = true
    }

    package {
      name   = "openssl"
      absent = true
    }

    tcp {
      port = 8080
    }
  }

  test "lean" {
    package {
      name    = "openssl"
      absent  = true
    }
  }"#;
    let write = |user: &str, mode: &str| {
        let test = test.replace("USER", user).replace("MODE", mode);
        machine.write("stack.hcl", stack.replacen("command = [\"/tiny\"]", &test, 1));
    };
    write("0", "0644");
    let up = machine.kiln(&["up"]).fails_with("test tiny.hardened failed");
    assert!(up.err.contains("/tiny has mode 0755, not 0644; its user 0 is root"), "{}", up.err);
    assert!(machine.get("/page").is_err(), "nothing was released");
    let events = machine.kiln(&["events", "--all"]).ok();
    assert!(events.out.contains("test hardened:inspection of image"), "{}", events.out);

    write("7", "0755");
    let up = machine.kiln(&["up"]).ok();
    assert!(up.err.contains("test tiny.lean passed"), "{}", up.err);
    machine.wait_page("v1");
    machine.edit_stack("replicas = 1", "replicas = 2");
    let again = machine.kiln(&["up"]).ok();
    assert!(again.err.contains("test tiny.lean passed before"), "{}", again.err);
    let verdicts = machine.kiln(&["events", "--all"]).ok().out.matches("test lean of image").count();
    assert_eq!(verdicts, 2, "one for each image");
}

#[test]
fn an_image_whose_command_prints_something_else_is_not_released() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    let write = |stdout: &str, within: &str| {
        let test = format!(
            r#"command = ["/tiny"]

  test "prints" {{
    exec {{
      command = ["/tiny", "version 2.1", "3"]
      exit    = 3
      stdout  = "{stdout}"
      matches = ["^version \\d"]
      within  = "{within}"
    }}
  }}

  test "closed" {{
    closed_ports = [22]

    tcp {{
      port = 8080
    }}
  }}"#
        );
        machine.write("stack.hcl", stack.replacen("command = [\"/tiny\"]", &test, 1));
    };
    write("version 2.2", "2s");
    let up = machine.kiln(&["up"]).fails_with("test tiny.prints failed");
    assert!(up.err.contains("tiny.prints: the instance was not healthy in time: the command"), "{}", up.err);
    assert!(up.err.contains("test tiny.closed passed"), "{}", up.err);
    assert!(machine.get("/page").is_err(), "nothing was released");

    write("version 2.1", "30s");
    let up = machine.kiln(&["up"]).ok();
    assert!(up.err.contains("test tiny.prints passed"), "{}", up.err);
    machine.wait_page("v1");
}

#[test]
fn an_image_with_a_known_vulnerability_is_not_released_unless_it_is_ignored_and_for_so_long() {
    let machine = Machine::new();
    machine.write_tiny("v1", 1, "");
    let stack = std::fs::read_to_string(machine.stack().join("stack.hcl")).unwrap();
    machine.write("files/var/lib/dpkg/status", "Package: zlib1g\nStatus: install ok installed\nSource: zlib\nArchitecture: amd64\nVersion: 1:1.2-1\n");
    machine.write("files/etc/os-release", "ID=debian\nVERSION_ID=12\n");
    machine.write(
        "files/app/package-lock.json",
        r#"{"packages":{"node_modules/left-pad":{"version":"1.3.0"}}}"#,
    );
    let entry = |id: &str, more: &str, package: &str, fixed: &str| {
        let events = format!(r#"[{{"introduced":"0"}},{{"fixed":"{fixed}"}}]"#);
        format!(
            r#"{{"id":"{id}","modified":"2026-05-01T00:00:00Z",{more}"affected":[{{"package":{package},"ranges":[{{"type":"ECOSYSTEM","events":{events}}}]}}]}}"#
        )
    };
    let zlib = r#"{"ecosystem":"Debian:12","name":"zlib"}"#;
    let score = r#""severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],"#;
    let upstream = format!(r#""upstream":["CVE-2026-1"],{score}"#);
    machine.write("osv/debian.json", entry("DEBIAN-CVE-2026-1", &upstream, zlib, "1:1.2-2"));
    let words = r#""aliases":["CVE-2026-2"],"database_specific":{"severity":"HIGH"},"#;
    machine
        .write("osv/npm.json", entry("GHSA-2", words, r#"{"ecosystem":"npm","name":"left-pad"}"#, "1.3.1"));
    let write = |ignores: &str| {
        let scan = format!(
            "command = [\"/tiny\"]\n\n  copy {{\n    from = \"./files\"\n    to   = \"/\"\n  }}\n\n  scan {{\n    database = \"./osv\"\n{ignores}  }}"
        );
        machine.write("stack.hcl", stack.replacen("command = [\"/tiny\"]", &scan, 1));
    };
    let ignore = |id: &str, expires: &str| {
        format!(
            "    ignore \"{id}\" {{\n      reason  = \"not reached\"\n      expires = \"{expires}\"\n    }}\n"
        )
    };
    write("");
    let up = machine.kiln(&["up"]).fails_with("it has known vulnerabilities");
    let worst = "CVE-2026-1 (critical) in zlib1g 1:1.2-1, fixed in 1:1.2-2; CVE-2026-2 (high) in left-pad 1.3.0, fixed in 1.3.1; by the database of 2026-05-01T00:00:00Z";
    assert!(up.err.contains(worst), "{}", up.err);
    assert!(machine.get("/page").is_err(), "nothing was released");
    let digest = || machine.kiln(&["image", "list"]).ok().out;
    let image = digest();
    let events = machine.kiln(&["events", "--all"]).ok();
    assert!(events.out.contains(" scan of image"), "{}", events.out);

    write(&(ignore("DEBIAN-CVE-2026-1", "2999-01-01") + &ignore("CVE-2026-2", "2020-01-01")));
    let up = machine.kiln(&["up"]).fails_with("it has known vulnerabilities");
    assert!(!up.err.contains("CVE-2026-1 (critical)"), "{}", up.err);
    assert!(up.err.contains("fixed in 1.3.1, its ignore expired on 2020-01-01"), "{}", up.err);

    write(&(ignore("DEBIAN-CVE-2026-1", "2999-01-01") + &ignore("CVE-2026-2", "2999-01-01")));
    let up = machine.kiln(&["up"]).ok();
    assert!(up.err.contains("scan tiny passed, by a database of 2026-05-01T00:00:00Z"), "{}", up.err);
    let events = machine.kiln(&["events", "--all"]).ok().out;
    assert!(events.contains(" passed, by a database of 2026-05-01T00:00:00Z"), "{events}");
    machine.wait_page("v1");

    // What becomes known later keeps the same image from the next release, and touches nothing that runs.
    machine.write("osv/later.json", entry("CVE-2026-3", score, zlib, "1:1.2-3"));
    let up = machine.kiln(&["up"]).fails_with("it has known vulnerabilities");
    assert!(up.err.contains("CVE-2026-3 (critical) in zlib1g"), "{}", up.err);
    assert_eq!(digest(), image, "a database is no part of an image");
    machine.wait_page("v1");
    // What was released says by which database it passed, also when the image was scanned again since.
    let shown = machine.kiln(&["release", "show"]).ok().out;
    assert!(shown.contains(", by a database of 2026-05-01T00:00:00Z\n"), "{shown}");
    let shown = machine.kiln(&["release", "show", "--json"]).ok().out;
    assert!(shown.contains("\"basis\": \"a database of 2026-05-01T00:00:00Z\""), "{shown}");
}
