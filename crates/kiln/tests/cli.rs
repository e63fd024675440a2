//! What the command line says to those who need no root: scenarios as text files, input and expected output together.
//!
//! A scenario in `tests/cli/` has files (`=== NAME`, then the text) and commands (`$ kiln …`, or `$ nobody kiln …` for another
//! user), each followed by its exit code and what it printed. `KILN_BLESS=1` writes what is said now.

// A test that can't set its scene fails.
#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Debian's `nobody`.
const NOBODY: u32 = 65534;

fn scenario(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(name);
    let expected = fs::read_to_string(&path).unwrap();
    let folder = tempfile::Builder::new().prefix("kiln-cli-").tempdir_in("/var/tmp").unwrap();
    // Another user looks in, too.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let work = folder.path().join("demo");
    fs::create_dir(&work).unwrap();
    fs::set_permissions(&work, fs::Permissions::from_mode(0o777)).unwrap();
    let said = play(&expected, &work);
    if std::env::var_os("KILN_BLESS").is_some() {
        fs::write(&path, said).unwrap();
        return;
    }
    assert!(said == expected, "{name}: expected\n{expected}\n--- but it says\n{said}");
}

/// Writes the files, runs the commands, and returns the scenario with what they say now.
fn play(script: &str, folder: &Path) -> String {
    let mut said = String::new();
    let mut lines = script.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("=== ") {
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("=== ") && !line.starts_with("$ "))
            {
                text.push_str(line);
                text.push('\n');
            }
            write!(said, "=== {name}\n{text}").unwrap();
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // An empty line separates it from what follows, for readers.
            fs::write(path, text.strip_suffix("\n\n").map_or(text.clone(), |text| format!("{text}\n")))
                .unwrap();
        } else if let Some(command) = line.strip_prefix("$ ") {
            while lines.next_if(|line| !line.starts_with("=== ") && !line.starts_with("$ ")).is_some() {}
            writeln!(said, "$ {command}\n{}", run(command, folder)).unwrap();
        } else {
            writeln!(said, "{line}").unwrap();
        }
    }
    said
}

fn run(command: &str, folder: &Path) -> String {
    let mut words = command.split_whitespace();
    let first = words.next().unwrap();
    let (as_nobody, program) = if first == "nobody" { (true, words.next().unwrap()) } else { (false, first) };
    let mut command = match program {
        "kiln" => Command::new(binary(folder)),
        other => Command::new(other),
    };
    command
        .args(words)
        .current_dir(folder)
        .env_clear()
        .env("KILN_STATE", folder.parent().unwrap().join("state"));
    command.env("PATH", "/usr/bin:/bin");
    if as_nobody {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = command.output().unwrap();
    let here = folder.to_string_lossy().into_owned();
    let above = folder.parent().unwrap().to_string_lossy().into_owned();
    let text =
        |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&here, "[HERE]").replace(&above, "[TEMP]");
    let mut said = match output.status.code() {
        Some(0) => String::new(),
        code => format!("[exit {}]\n", code.map_or_else(|| "by a signal".into(), |code| code.to_string())),
    };
    said.push_str(&text(&output.stdout));
    if !output.stderr.is_empty() {
        write!(said, "[stderr]\n{}", text(&output.stderr)).unwrap();
    }
    said
}

/// A copy that another user can reach, wherever the target folder is.
fn binary(folder: &Path) -> PathBuf {
    let copy = folder.parent().unwrap().join("kiln");
    if !copy.exists() && fs::hard_link(env!("CARGO_BIN_EXE_kiln"), &copy).is_err() {
        fs::copy(env!("CARGO_BIN_EXE_kiln"), &copy).unwrap();
    }
    copy
}

#[test]
fn init_writes_a_stack_that_checks_and_refuses_to_write_another() {
    scenario("init.txt");
}

#[test]
fn check_shows_all_errors_at_once() {
    scenario("check.txt");
}

#[test]
fn what_is_wrong_in_a_stack_or_its_folder_is_told_with_its_place() {
    scenario("mistakes.txt");
}

#[test]
fn fmt_lays_out_and_keeps_comments() {
    scenario("fmt.txt");
}

#[test]
fn plan_names_what_up_would_do() {
    scenario("plan.txt");
}

#[test]
fn what_needs_root_says_so_to_others() {
    scenario("root.txt");
}

#[test]
fn a_senseless_command_line_is_told_how_it_is_meant() {
    scenario("usage.txt");
}

#[test]
fn every_command_helps() {
    scenario("help.txt");
}

#[test]
fn the_example_is_well_formed_and_laid_out() {
    let shop = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop");
    for words in [&["check"][..], &["check", "--env", "prod"], &["fmt", "--check"]] {
        let output =
            Command::new(env!("CARGO_BIN_EXE_kiln")).args(words).current_dir(&shop).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn an_answer_that_does_not_arrive_is_no_success_and_progress_that_nobody_reads_ends_nothing() {
    let folder = tempfile::Builder::new().prefix("kiln-cli-").tempdir_in("/var/tmp").unwrap();
    let kiln = |words: &[&str]| {
        let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
        kiln.args(words).current_dir(folder.path()).env("KILN_STATE", folder.path().join("state"));
        kiln
    };
    let nobody = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    assert!(kiln(&["init"]).output().unwrap().status.success());
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let check = kiln(&["check"]).stdout(full).output().unwrap();
    assert_eq!(check.status.code(), Some(5));
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(said.contains("the answer could not be written") && said.contains("No space left"), "{said}");
    assert_eq!(kiln(&["check"]).stdout(nobody()).output().unwrap().status.code(), Some(141));
    fs::write(folder.path().join("stack.hcl"), "nonsense\n").unwrap();
    assert_eq!(kiln(&["check"]).stderr(nobody()).output().unwrap().status.code(), Some(4));
}
