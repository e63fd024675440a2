//! Dockerfiles as real projects have them, written anew after their patterns; what each comes to is beside it.
//!
//! `projects/NAME.txt` holds directives (`#: file PATH=TEXT`, `#: names a b`, `#: target x`, `#: arg A=B`, `#: network`), a Dockerfile, and
//! the outcome after `#: expect`: the config, and what the image has beyond its base. Toolchains are one script. With `KILN_BLESS=1` in the
//! environment outcomes are written instead of compared; look at the difference before committing.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use kiln_model::recipe::{CopyStep, DockerfileSource, ImageSource, RecipeStep, RunStep};
use kiln_model::stack::Stack;
use kiln_store::{Entry, Kind, TreePath};

use crate::fixture::{causes, image, recipe};
use crate::kitchen::{Dish, Kitchen, dockerfile};

#[test]
fn dockerfiles_of_real_projects_bake_to_what_is_expected() {
    let names = projects();
    assert!(names.len() >= 60, "there are {}", names.len());
    let kitchen = with_toolchain();
    let mut wrong = String::new();
    for path in names {
        let text = fs::read_to_string(&path).unwrap();
        let (head, expected) = text.split_once("#: expect\n").unwrap_or((&text, ""));
        let outcome = outcome(&kitchen, head);
        if std::env::var_os("KILN_BLESS").is_some() {
            fs::write(&path, format!("{head}#: expect\n{outcome}")).unwrap();
        } else if outcome != expected {
            let name = path.file_name().unwrap().display();
            let _ = writeln!(wrong, "{name}\n--- expected\n{expected}--- found\n{outcome}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// The files of the projects, in the order of their names.
pub(crate) fn projects() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles/projects");
    let mut names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

pub(crate) fn with_toolchain() -> Kitchen {
    let kitchen = Kitchen::new();
    kitchen.put("toolchain.sh", include_bytes!("toolchain.sh"), 0o755);
    kitchen
}

/// Bakes one file, and describes what came of it.
fn outcome(kitchen: &Kitchen, head: &str) -> String {
    match bake(kitchen, prepare(kitchen, head)) {
        Ok(dish) => describe(&dish),
        Err(said) => format!("{said}\n"),
    }
}

/// Writes a project's Dockerfile and files into the folder `web`.
pub(crate) fn prepare(kitchen: &Kitchen, head: &str) -> DockerfileSource {
    fs::remove_dir_all(kitchen.path("web")).unwrap_or_default();
    let mut source = dockerfile("web");
    let mut text = String::new();
    for line in head.lines() {
        let Some(directive) = line.strip_prefix("#: ") else {
            writeln!(text, "{line}").unwrap();
            continue;
        };
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        let pair = || rest.split_once('=').unwrap_or((rest, ""));
        match word {
            "file" => drop(kitchen.write(&format!("web/{}", pair().0), &pair().1.replace("\\n", "\n"))),
            "names" => {
                let tools = |name: &str| (name.to_owned(), ImageSource::Image(image("tools")));
                source.contexts.extend(rest.split_whitespace().map(tools));
            }
            "target" => source.target = Some(rest.into()),
            "arg" => drop(source.args.insert(pair().0.into(), pair().1.into())),
            "network" => source.network = true,
            other => panic!("unknown directive {other}"),
        }
    }
    kitchen.write("web/Dockerfile", &text);
    source
}

pub(crate) fn bake(kitchen: &Kitchen, source: DockerfileSource) -> Result<Dish, String> {
    let stack = with_tools(source);
    kitchen.bake_stack(&stack).0.map_err(|error| format!("{}\n{}", causes(&error), error.log()))
}

/// A stack in which the image `tools` has every toolchain.
pub(crate) fn with_tools(source: DockerfileSource) -> Stack {
    let mut stack = Kitchen::stack(source);
    let copy = CopyStep {
        from: "toolchain.sh".into(),
        to: "/usr/bin/toolchain".into(),
        owner: String::new(),
        mode: Some(0o755),
        exclude: vec![],
    };
    let run = RunStep {
        argv: vec!["/usr/bin/toolchain".into()],
        env: [].into(),
        workdir: String::new(),
        user: String::new(),
        network: false,
    };
    let tools = recipe(ImageSource::Image(image("os")), vec![RecipeStep::Copy(copy), RecipeStep::Run(run)]);
    stack.images.insert(image("tools"), tools);
    stack
}

/// The config and the tree, without what every image here begins with.
fn describe(dish: &Dish) -> String {
    let mut out = String::new();
    for (key, value) in dish.config.as_object().unwrap() {
        writeln!(out, "{key} {value}").unwrap();
    }
    for reason in &dish.image.unproven {
        writeln!(out, "unproven: {reason}").unwrap();
    }
    let given = |path: &TreePath| {
        let text = path.to_string();
        ["/bin", "/usr/bin", "/usr/sbin", "/sbin"].iter().any(|folder| text.starts_with(folder))
            && !text.ends_with("/app")
    };
    for (path, entry) in dish.tree.iter().filter(|(path, _)| !path.is_root() && !given(path)) {
        let Entry { meta, kind } = entry;
        let what = match kind {
            Kind::Dir => continue,
            Kind::File { .. } => dish.text(&path.to_string()).lines().next().unwrap_or("").to_owned(),
            Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
            other => format!("{other:?}"),
        };
        writeln!(out, "{:o} {}:{} {path} {what}", meta.mode, meta.uid, meta.gid).unwrap();
    }
    out
}
