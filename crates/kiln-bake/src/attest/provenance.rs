//! Where an image came from: SLSA's provenance, as an in-toto statement.
//!
//! Source: slsa.dev's "Provenance" 1.0, and in-toto's attestation framework 1.0. The statement follows from recipe, lock and copied
//! files: it has no time and no name of the machine.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::image::{Image, ImageConfig};
use kiln_model::recipe::{
    CopyStep, DockerfileSource, ImageRecipe, ImageSource, ProvisionStep, RecipeStep, RunStep,
};
use kiln_model::stack::Stack;
use kiln_model::{BaseName, Digest, ImageName};
use serde_json::{Value, json};

use super::{AttestError, PROVENANCE};
use crate::bake::outside_of;
use crate::calendar;
use crate::copy::{Input, Pick};
use crate::git::LockedCommit;
use crate::hashing::sha256;
use crate::inventory::purl;
use crate::lock::{Lock, LockedBase};
use crate::normalise::NORMALISERS;
use crate::oci::{canonical, canonical_with};
use crate::provision::folder_of;
use crate::source::{SourceError, SourceFiles};
use crate::stage::inputs;

/// The words of this kind of provenance.
const BUILD_TYPE: &str = "urn:kiln:bake:v1";

/// Who bakes: Kiln, on whatever machine. Which machine is told by whose key signs.
const BUILDER: &str = "urn:kiln:builder";

/// A step that copies more files than this is described by one digest over all of them.
const FILES_MAX: usize = 10_000;

/// What an image was made from, as a statement lists it, written: known before the image is.
#[derive(Debug)]
pub(crate) struct Materials(Vec<u8>);

/// Where a statement lists them.
const MATERIALS_PATH: [&str; 3] = ["predicate", "buildDefinition", "resolvedDependencies"];

impl Materials {
    /// Gathers them. The stack's files are opened once at the most.
    pub(crate) fn of(
        stack: &Stack,
        lock: &Lock,
        name: &ImageName,
        open: impl Fn() -> Result<Arc<SourceFiles>, SourceError>,
    ) -> Result<Self, AttestError> {
        let opened = OnceCell::new();
        let files = || match opened.get() {
            Some(files) => Ok(Arc::clone(files)),
            None => open().map(|files| Arc::clone(opened.get_or_init(|| files))),
        };
        let (recipes, bases) = chain(stack, name)?;
        let locked = bases.iter().filter_map(|base| Some((base, lock.bases.get(base)?)));
        let mut materials = Written::default();
        locked.for_each(|(base, locked)| materials.extend(of_base(base.as_str(), locked)));
        materials.extend(of_outside(stack, lock, name, files)?);
        of_files(&recipes, files, &mut materials)?;
        Ok(Self(materials.end()))
    }
}

/// A list as it is written: of thousands of files, each would take longer to put together than to write.
struct Written(Vec<u8>);

impl Default for Written {
    fn default() -> Self {
        Self(b"[".to_vec())
    }
}

impl Written {
    fn push(&mut self, value: &Value) {
        let written = canonical(value);
        self.push_written(|text| text.extend_from_slice(&written));
    }

    fn push_written(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        write(&mut self.0);
    }

    fn extend(&mut self, values: impl IntoIterator<Item = Value>) {
        values.into_iter().for_each(|value| self.push(&value));
    }

    /// A file by its path.
    fn push_file(&mut self, path: &str, digest: &Digest) {
        self.push_written(|text| {
            text.extend_from_slice(b"{\"digest\":{\"sha256\":\"");
            text.extend_from_slice(&digest.digits());
            text.extend_from_slice(b"\"},\"name\":");
            text.extend_from_slice(&canonical(&Value::from(path)));
            text.push(b'}');
        });
    }

    fn end(mut self) -> Vec<u8> {
        self.0.push(b']');
        self.0
    }
}

/// What comes neither from the stack's folder nor from a base.
fn of_outside(
    stack: &Stack,
    lock: &Lock,
    name: &ImageName,
    files: impl FnOnce() -> Result<Arc<SourceFiles>, SourceError>,
) -> Result<Vec<Value>, AttestError> {
    let outside = outside_of(stack, &[name.clone()].into(), files).map_err(Box::new)?;
    let mut dependencies = Vec::new();
    for image in outside.images {
        let locked = lock.images.get(&image);
        dependencies.extend(locked.map(|it| json!({ "digest": { "sha256": it.hex() }, "name": image })));
    }
    let locked_urls = outside.urls.into_iter().filter_map(|url| Some((lock.urls.get(&url).copied()?, url)));
    let checked_urls = outside.checked_urls.into_iter().map(|(url, digest)| (digest, url));
    for (digest, url) in locked_urls.chain(checked_urls) {
        dependencies.push(json!({ "digest": { "sha256": digest.hex() }, "uri": url }));
    }
    for address in outside.repositories.into_keys() {
        let locked = lock.commits.get(&address);
        dependencies.extend(locked.map(|LockedCommit { commit, files }| {
            json!({ "digest": { "gitCommit": commit, "sha256": files.hex() }, "uri": format!("git+{address}") })
        }));
    }
    Ok(dependencies)
}

/// Writes the statement about an image.
pub(super) fn statement(
    stack: &Stack,
    lock: &Lock,
    name: &ImageName,
    image: &Image,
    Materials(materials): &Materials,
) -> Result<Vec<u8>, AttestError> {
    let (recipes, bases) = chain(stack, name)?;
    let locked: Vec<_> = bases.iter().filter_map(|base| lock.bases.get(base)).collect();
    // A Dockerfile may have a RUN: what would be normalised after one is listed.
    let has_runs = recipes.iter().any(|(_, recipe)| {
        matches!(recipe.from, ImageSource::Dockerfile(_))
            || recipe.steps.iter().any(|step| !matches!(step, RecipeStep::Copy(_)))
    });
    let normalisers: Vec<&str> = NORMALISERS
        .iter()
        .filter(|rule| !locked.is_empty() || has_runs && rule.after_steps)
        .map(|rule| rule.name)
        .collect();
    let recipe: Vec<Value> = recipes.iter().map(|(name, recipe)| of_recipe(name, recipe)).collect();
    let recipe = Value::Array(recipe);
    let digest = sha256(&canonical(&recipe)).hex();
    let mut internal = json!({ "normalisers": normalisers, "unproven": image.unproven });
    if let Some(latest) = locked.iter().map(|locked| locked.locked_at).max() {
        internal["clock"] = json!(calendar::iso(latest));
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
                "resolvedDependencies": null,
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
    Ok(canonical_with(&statement, &[(&MATERIALS_PATH, materials)]))
}

type Recipes<'a> = Vec<(&'a ImageName, &'a ImageRecipe)>;

/// Returns the recipes that led to an image, the first first, and the bases that they began with or had their tools from.
fn chain<'a>(
    stack: &'a Stack,
    name: &'a ImageName,
) -> Result<(Recipes<'a>, BTreeSet<BaseName>), AttestError> {
    let mut recipes: Recipes<'a> = Vec::new();
    let (mut next, mut bases) = (vec![name], BTreeSet::new());
    while let Some(name) = next.pop() {
        let (name, recipe) =
            stack.images.get_key_value(name).ok_or_else(|| AttestError::UnknownImage(name.clone()))?;
        // Several may be made from one: it stands before all of them. A bake has found that none is made from itself; the bound
        // is for whoever did not bake.
        if recipes.len() > stack.images.len().pow(2) {
            break;
        }
        recipes.push((name, recipe));
        bases.extend(recipe.provisions().map(|step| step.tools.clone()));
        for source in recipe.from.parents() {
            match source {
                ImageSource::Base(from) => drop(bases.insert(from.clone())),
                ImageSource::Image(parent) => next.push(parent),
                ImageSource::Scratch | ImageSource::Registry(_) | ImageSource::Dockerfile(_) => {}
            }
        }
    }
    recipes.reverse();
    let mut seen = BTreeSet::new();
    recipes.retain(|(name, _)| seen.insert(*name));
    Ok((recipes, bases))
}

/// The files of the stack folder that went into recipes, or may have through a Dockerfile.
fn of_files(
    recipes: &Recipes<'_>,
    files: impl Fn() -> Result<Arc<SourceFiles>, SourceError>,
    dependencies: &mut Written,
) -> Result<(), AttestError> {
    for (_, recipe) in recipes {
        let copies = recipe.steps.iter().filter_map(|step| match step {
            RecipeStep::Copy(copy) => Some(copy.clone()),
            RecipeStep::Provision(step) => Some(folder_of(step)),
            RecipeStep::Run(_) => None,
        });
        let copies: Vec<CopyStep> = copies.collect();
        if copies.is_empty() && !matches!(recipe.from, ImageSource::Dockerfile(_)) {
            continue;
        }
        let files = &files()?;
        if let ImageSource::Dockerfile(source) = &recipe.from {
            of_dockerfile(source, files, dependencies)?;
        }
        for copy in &copies {
            dependencies.extend(of_copy(copy, &Pick::new(copy, files)?));
        }
    }
    Ok(())
}

/// A Dockerfile, and all that it may copy.
fn of_dockerfile(
    source: &DockerfileSource,
    files: &Arc<SourceFiles>,
    dependencies: &mut Written,
) -> Result<(), AttestError> {
    let inputs = inputs(files, source)?;
    if inputs.len() <= FILES_MAX {
        inputs.iter().for_each(|(path, digest)| dependencies.push_file(path, digest));
        return Ok(());
    }
    let lines: String = inputs.iter().map(|(path, digest)| format!("{path} {digest}\n")).collect();
    let name = format!("{} files of the context of `{}`", inputs.len(), source.path);
    dependencies.push_file(&name, &sha256(lines.as_bytes()));
    Ok(())
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
    let from = of_source(&recipe.from);
    let steps: Vec<Value> = recipe.steps.iter().map(of_step).collect();
    json!({ "config": of_config(&recipe.config), "from": from, "image": name.as_str(), "steps": steps })
}

fn of_source(source: &ImageSource) -> Value {
    match source {
        ImageSource::Scratch => json!("scratch"),
        ImageSource::Base(base) => json!(format!("base {base}")),
        ImageSource::Image(image) => json!(format!("image {image}")),
        ImageSource::Registry(name) => json!(format!("registry image {name}")),
        ImageSource::Dockerfile(source) => {
            let DockerfileSource { path, context, target, args, contexts, secrets, ssh, network } =
                source.as_ref();
            let secrets: BTreeMap<&String, String> =
                secrets.iter().map(|(id, name)| (id, format!("secret {name}"))).collect();
            let contexts: BTreeMap<&String, Value> =
                contexts.iter().map(|(name, source)| (name, of_source(source))).collect();
            json!({
                "args": args,
                "context": context,
                "contexts": contexts,
                "dockerfile": path,
                "network": network,
                "secrets": secrets,
                "ssh": ssh,
                "target": target,
            })
        }
    }
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
        RecipeStep::Provision(ProvisionStep { playbook, vars, tags, groups, network, tools }) => json!({
            "provision": {
                "groups": groups,
                "network": network,
                "playbook": playbook,
                "tags": tags,
                "tools": format!("base {tools}"),
                "vars": vars,
            }
        }),
    }
}

fn of_config(config: &ImageConfig) -> Value {
    // How health is asked is said by a Dockerfile, never by a recipe.
    let ImageConfig {
        env,
        entrypoint,
        command,
        workdir,
        user,
        labels,
        expose,
        volumes,
        stop_signal,
        health: _,
    } = config;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_written_piece_by_piece_is_the_one_that_is_put_together() {
        let digest = sha256(b"content");
        let (mut written, mut whole) = (Written::default(), Vec::new());
        assert_eq!(Written::default().end(), canonical(&json!([])));
        for name in ["srv/a", "srv/\"quoted\"\\ \n\u{1}", "srv/umläut \u{1f980}", ""] {
            let file = json!({ "digest": { "sha256": digest.hex() }, "name": name });
            written.push_file(name, &digest);
            written.push(&json!({ "uri": name, "name": [1, null] }));
            whole.extend([file, json!({ "uri": name, "name": [1, null] })]);
        }
        assert_eq!(written.end(), canonical(&Value::Array(whole)));
    }
}
