//! Where an image came from: SLSA's provenance, as an in-toto statement.
//!
//! Source: slsa.dev's "Provenance" 1.0, and in-toto's attestation framework 1.0. The statement follows from recipe, lock and copied
//! files: it has no time and no name of the machine.

use kiln_model::ImageName;
use kiln_model::image::{Image, ImageConfig};
use kiln_model::recipe::{CopyStep, ImageRecipe, ImageSource, RecipeStep, RunStep};
use kiln_model::stack::Stack;
use kiln_store::Store;
use serde_json::{Value, json};

use super::{AttestError, PROVENANCE};
use crate::calendar;
use crate::copy::{Input, Pick};
use crate::hashing::sha256;
use crate::inventory::purl;
use crate::lock::{Lock, LockedBase};
use crate::normalise::NORMALISERS;
use crate::oci::canonical;
use crate::source::{Source, SourceFiles};

/// The words of this kind of provenance.
const BUILD_TYPE: &str = "urn:kiln:bake:v1";

/// Who bakes: Kiln, on whatever machine. Which machine is told by whose key signs.
const BUILDER: &str = "urn:kiln:builder";

/// A step that copies more files than this is described by one digest over all of them.
const FILES_MAX: usize = 10_000;

/// Writes the statement about an image.
pub(super) fn statement(
    store: &Store,
    stack: &Stack,
    lock: &Lock,
    source: &Source,
    name: &ImageName,
    image: &Image,
) -> Result<Vec<u8>, AttestError> {
    let (recipes, base) = chain(stack, name)?;
    let mut dependencies = Vec::new();
    let locked = base.as_ref().and_then(|base| Some((base, lock.bases.get(base)?)));
    if let Some((base, locked)) = locked {
        dependencies.extend(of_base(base.as_str(), locked));
    }
    let mut files = None;
    for step in recipes.iter().flat_map(|(_, recipe)| &recipe.steps) {
        if let RecipeStep::Copy(copy) = step {
            let files = match &files {
                Some(files) => files,
                None => files.insert(SourceFiles::open(source, &store.snapshots)?),
            };
            dependencies.extend(of_copy(copy, &Pick::new(copy, files)?));
        }
    }
    let has_runs =
        recipes.iter().flat_map(|(_, recipe)| &recipe.steps).any(|step| matches!(step, RecipeStep::Run(_)));
    let normalisers: Vec<&str> = NORMALISERS
        .iter()
        .filter(|rule| locked.is_some() || has_runs && rule.after_steps)
        .map(|rule| rule.name)
        .collect();
    let recipe: Vec<Value> = recipes.iter().map(|(name, recipe)| of_recipe(name, recipe)).collect();
    let recipe = Value::Array(recipe);
    let digest = sha256(&canonical(&recipe)).hex();
    let mut internal = json!({ "normalisers": normalisers, "unproven": image.unproven });
    if let Some((_, locked)) = locked {
        internal["clock"] = json!(calendar::iso(locked.locked_at));
    }
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "image": name.as_str(),
                    "recipe": recipe,
                    "recipeDigest": { "sha256": digest },
                    "stack": stack.name.as_str(),
                },
                "internalParameters": internal,
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": BUILDER, "version": { "kiln": env!("CARGO_PKG_VERSION") } },
            },
        },
        "predicateType": PROVENANCE,
        "subject": [{
            "digest": { "sha256": image.manifest.hex() },
            "name": format!("{}/{name}", stack.name),
        }],
    });
    Ok(canonical(&statement))
}

type Recipes<'a> = Vec<(&'a ImageName, &'a ImageRecipe)>;

/// Returns the recipes that led to an image, the first first, and the base that they began with.
fn chain<'a>(
    stack: &'a Stack,
    name: &'a ImageName,
) -> Result<(Recipes<'a>, Option<kiln_model::BaseName>), AttestError> {
    let mut recipes = Vec::new();
    let (mut next, mut base) = (Some(name), None);
    // A bake has found that none is made from itself; the bound is for whoever did not bake.
    while let Some(name) = next.take().filter(|_| recipes.len() <= stack.images.len()) {
        let (name, recipe) =
            stack.images.get_key_value(name).ok_or_else(|| AttestError::UnknownImage(name.clone()))?;
        recipes.push((name, recipe));
        match &recipe.from {
            ImageSource::Scratch => {}
            ImageSource::Base(from) => base = Some(from.clone()),
            ImageSource::Image(parent) => next = Some(parent),
        }
    }
    recipes.reverse();
    Ok((recipes, base))
}

fn of_base<'a>(name: &'a str, locked: &'a LockedBase) -> impl Iterator<Item = Value> + 'a {
    let archives = locked.archives.iter().map(move |archive| {
        json!({
            "digest": { "sha256": archive.index.hex() },
            "name": format!("base {name}: index of {} of {}", archive.suite, calendar::iso(archive.released)),
        })
    });
    let packages = locked.packages.iter().map(|package| {
        let arch = [("arch", package.arch.as_str())];
        json!({
            "digest": { "sha256": package.digest.hex() },
            "name": package.path,
            "uri": purl("deb", "debian", &package.name, &package.version, &arch),
        })
    });
    archives.chain(packages)
}

fn of_copy(step: &CopyStep, pick: &Pick) -> Vec<Value> {
    let files: Vec<Value> = pick
        .inputs()
        .map(|(path, input)| (String::from_utf8_lossy(path.as_bytes()), input))
        .map(|(path, input)| match input {
            Input::File(digest) => json!({ "digest": { "sha256": digest.hex() }, "name": path }),
            Input::Symlink(target) => json!({
                "annotations": { "link": String::from_utf8_lossy(target) },
                "digest": { "sha256": sha256(target).hex() },
                "name": path,
            }),
        })
        .collect();
    if files.len() <= FILES_MAX {
        return files;
    }
    let digest = sha256(pick.describe().as_bytes()).hex();
    let name = format!("{} files of `copy {} {}`", files.len(), step.from, step.to);
    vec![json!({ "digest": { "sha256": digest }, "name": name })]
}

fn of_recipe(name: &ImageName, recipe: &ImageRecipe) -> Value {
    let from = match &recipe.from {
        ImageSource::Scratch => "scratch".to_owned(),
        ImageSource::Base(base) => format!("base {base}"),
        ImageSource::Image(image) => format!("image {image}"),
    };
    let steps: Vec<Value> = recipe.steps.iter().map(of_step).collect();
    json!({ "config": of_config(&recipe.config), "from": from, "image": name.as_str(), "steps": steps })
}

fn of_step(step: &RecipeStep) -> Value {
    match step {
        RecipeStep::Copy(CopyStep { from, to, owner, mode, exclude }) => {
            let mode = mode.map(|mode| format!("{mode:o}"));
            json!({ "copy": { "exclude": exclude, "from": from, "mode": mode, "owner": owner, "to": to } })
        }
        RecipeStep::Run(RunStep { argv, env, workdir, user, network }) => json!({
            "run": { "argv": argv, "env": env, "network": network, "user": user, "workdir": workdir }
        }),
    }
}

fn of_config(config: &ImageConfig) -> Value {
    let ImageConfig { env, entrypoint, command, workdir, user, labels, expose, volumes, stop_signal } =
        config;
    json!({
        "command": command,
        "entrypoint": entrypoint,
        "env": env,
        "expose": expose,
        "labels": labels,
        "stopSignal": stop_signal,
        "user": user,
        "volumes": volumes,
        "workdir": workdir,
    })
}
