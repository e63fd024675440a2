//! Every Dockerfile of the test projects is proven, or said to be unproven where it had the network.
//!
//! All of them are images of one stack, so one command bakes them twice and what they start from is made once a bake.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::World;

/// One static program that is a whole system; Debian's `busybox-static`.
const BUSYBOX: &str = "/bin/busybox";

/// What the projects start from: the system alone, and with the script that stands in for their toolchains.
const BASES: &str = r#"stack "projects" {}

image "os" {
  from = "scratch"
  env  = { PATH = "/usr/sbin:/usr/bin:/sbin:/bin" }

  copy {
    from    = "./os"
    to      = "/"
    exclude = [".keep"]
  }

  run {
    command = ["/bin/busybox", "sh", "-ec", "/bin/busybox --install -s && mkdir -p /tmp /home/app && chmod 1777 /tmp && chown 1000:1001 /home/app"]
  }
}

image "tools" {
  from = image.os

  copy {
    from = "./toolchain.sh"
    to   = "/usr/bin/toolchain"
    mode = "0755"
  }

  run {
    command = ["/usr/bin/toolchain"]
  }
}
"#;

#[test]
fn the_dockerfiles_of_the_projects_are_proven_and_those_with_the_network_are_unproven() {
    let world = World::new();
    let projects = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kiln-bake/tests/dockerfiles");
    let mut stack = BASES.to_owned();
    for (name, text) in lay_bases(&world, &projects) {
        stack.push_str(&lay_out(&world, &name, &text));
    }
    world.write("stack.hcl", &stack);
    let proof = world.kiln(&["--json", "bake", "--prove"]);
    let answer: Value = serde_json::from_str(&proof.out)
        .unwrap_or_else(|_| panic!("{}\n{}\n{}", proof.code, proof.out, proof.err));
    let verdicts = answer["proof"].as_object().unwrap();
    assert!(verdicts.len() >= 62, "there are {}", verdicts.len());
    let mut wrong = String::new();
    for (name, verdict) in verdicts {
        let expected = if name.as_str() == "network-fetch" { "unproven" } else { "proven" };
        if verdict["verdict"] != expected {
            writeln!(wrong, "{name} should be {expected}: {verdict:#}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Writes what the bases are made of, and returns the projects by name, each as its file has it.
fn lay_bases(world: &World, projects: &Path) -> Vec<(String, String)> {
    let busybox = fs::read(BUSYBOX).expect("this test needs Debian's busybox-static");
    put(world, "os/bin/busybox", &busybox, 0o755);
    put(world, "toolchain.sh", &fs::read(projects.join("toolchain.sh")).unwrap(), 0o755);
    world.write("os/etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n");
    world.write("os/etc/group", "root:x:0:\napp:x:1001:\nextra:x:50:app\n");
    for folder in ["usr/bin", "usr/sbin", "sbin", "var", "root"] {
        world.write(&format!("os/{folder}/.keep"), "");
    }
    let mut found: Vec<PathBuf> =
        fs::read_dir(projects.join("projects")).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_str().unwrap().replace('_', "-");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

fn put(world: &World, name: &str, bytes: &[u8], mode: u32) {
    let path = world.stack().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes a project's Dockerfile and files into the folder of its name, and returns its image as a stack has it.
fn lay_out(world: &World, name: &str, text: &str) -> String {
    let (head, _) = text.split_once("#: expect\n").unwrap();
    let (mut lines, mut args, mut more) = (String::new(), String::new(), String::new());
    let mut contexts = "    \"os\" = image.os\n".to_owned();
    for line in head.lines() {
        let Some(directive) = line.strip_prefix("#: ") else {
            writeln!(lines, "{line}").unwrap();
            continue;
        };
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
        match word {
            "file" => world.write(&format!("{name}/{key}"), &value.replace("\\n", "\n")),
            "names" => {
                for from in rest.split_whitespace() {
                    writeln!(contexts, "    {from:?} = image.tools").unwrap();
                }
            }
            "target" => writeln!(more, "  target = {rest:?}").unwrap(),
            "arg" => writeln!(args, "    {key:?} = {value:?}").unwrap(),
            "network" => more.push_str("  network = true\n"),
            other => panic!("unknown directive {other} in {name}"),
        }
    }
    world.write(&format!("{name}/Dockerfile"), &lines);
    format!(
        "\nimage {name:?} {{\n  dockerfile = \"./{name}\"\n{more}\n  args = {{\n{args}  }}\n\n  contexts = {{\n{contexts}  }}\n}}\n"
    )
}
