//! Blocks to the model.

mod access;
mod analysis;
mod audience;
mod checks;
mod gates;
mod image;
mod image_provision;
mod image_scan;
mod image_test;
mod misplaced;
mod notify;
mod outside;
mod registry;
mod rollout;
mod route;
mod service;
mod steps;
mod waves;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kiln_model::stack::{SecretSource, Stack};
use kiln_model::{EnvName, ServiceName};

use crate::declare::Declared;
use crate::diagnostic::Problem;
use crate::eval::Scope;
use crate::files::inside;
use crate::reader::{Context, Reader};
use crate::resolve::instance_name;
use crate::value::Value;
use crate::variables::Holes;

/// A stack has at most this many services, images, routes and volumes, with all that `for_each` makes.
const INSTANCES_MAX: usize = 50_000;

/// A block as it is read, once for each element of its `for_each`.
pub(crate) struct Instance<'a> {
    pub(crate) declared: &'a Declared<'a>,
    pub(crate) name: Arc<str>,
    each: Option<Value>,
}

/// Builds the stack from blocks that were declared. What is wrong is in the context's sink.
pub(crate) fn stack(context: &Context<'_>, env: &EnvName, holes: Holes) -> Stack {
    let declared = context.resolver.declared;
    let environments = declared.environments.iter().filter_map(|b| b.labels.first());
    let environments = environments.filter_map(|(name, span)| context.name(name, *span)).collect();
    for variable in &declared.variables {
        let span = variable.block.labels[0].1;
        let _: Option<kiln_model::VariableName> = context.name(&variable.name, span);
    }
    for config in declared.of_kind("config") {
        let _: Option<kiln_model::ConfigName> = context.name(&config.name, config.name_span);
    }
    let mut bases = image::bases(context);
    let mut images = image::images(context, &mut bases);
    let registries = registry::registries(context);
    let volumes = volumes(context);
    let secrets = secrets(context);
    let services = service::services(context, &mut images);
    let routes = route::routes(context, &services.definitions);
    Stack {
        name: context.resolver.stack.clone(),
        env: env.clone(),
        environments,
        bases,
        images: images.into_recipes(),
        registries,
        secrets,
        volumes,
        services: services.definitions,
        routes,
        holes: holes.holes,
        bound: holes.bound,
        given: holes.given,
        gates: gates::gates(context, env),
        webhooks: notify::webhooks(context),
    }
}

/// The instances of all blocks of a kind. Blocks whose `for_each` failed have none.
pub(crate) fn instances<'a>(context: &Context<'a>, kind: &'static str) -> Vec<Instance<'a>> {
    let mut out = Vec::new();
    for (block, declared) in context.resolver.declared.of_kind(kind).iter().enumerate() {
        if declared.for_each.is_none() {
            out.push(Instance { declared, name: declared.name.clone(), each: None });
        } else if let Some(elements) = context.resolver.elements(kind, block) {
            for (key, value) in elements.iter() {
                let each = BTreeMap::from([
                    (Arc::from("key"), Value::string(key)),
                    (Arc::from("value"), value.clone()),
                ]);
                let each = Value::object(each).unwrap_or_else(|_| Value::null());
                let name = instance_name(&declared.name, Some(key));
                out.push(Instance { declared, name, each: Some(each) });
            }
        }
        if out.len() > INSTANCES_MAX {
            let message = format!("the stack has more than {INSTANCES_MAX} blocks of this kind");
            context.report(Problem::new("too-large", declared.block.header(), message));
            return Vec::new();
        }
    }
    out
}

impl Instance<'_> {
    /// Reads the block, and returns what was made of it with the services whose `url` it uses.
    pub(crate) fn read<T>(
        &self,
        context: &Context<'_>,
        build: impl FnOnce(Reader<'_>) -> T,
    ) -> (T, BTreeSet<ServiceName>) {
        let uses = RefCell::default();
        let owner = format!("{} \"{}\"", self.declared.kind, self.name);
        let scope = self.each.as_ref().map(|value| Scope { outer: None, name: "each", value });
        let reader = Reader::new(context, self.declared.block, scope.as_ref(), &owner, &uses);
        let built = build(reader);
        (built, uses.into_inner())
    }
}

fn volumes(context: &Context<'_>) -> BTreeSet<kiln_model::VolumeName> {
    let all = instances(context, "volume");
    all.iter().filter_map(|v| context.name(&v.name, v.declared.name_span)).collect()
}

fn secrets(context: &Context<'_>) -> BTreeMap<kiln_model::SecretName, SecretSource> {
    let mut out = BTreeMap::new();
    for secret in instances(context, "secret") {
        let source = secret.read(context, secret_source).0;
        if let Some((name, source)) = context.name(&secret.name, secret.declared.name_span).zip(source) {
            out.insert(name, source);
        }
    }
    out
}

fn secret_source(reader: Reader<'_>) -> Option<SecretSource> {
    match (reader.has("file"), reader.has("env")) {
        (true, false) => {
            let path = reader.string("file")?;
            let kept = if path.starts_with('/') { Some(path.clone()) } else { inside(&path) };
            match kept.filter(|p| !p.is_empty()) {
                Some(path) => Some(SecretSource::File(path)),
                None => {
                    let message = format!("\"{path}\" leaves the stack folder");
                    reader.report(
                        Problem::new("path-escapes", reader.span("file"), message)
                            .help("a secret outside of it has an absolute path"),
                    );
                    None
                }
            }
        }
        (false, true) => {
            let name = reader.string("env")?;
            if name.is_empty() || name.contains('=') {
                let message = format!("\"{name}\" can't be an environment variable");
                reader.report(Problem::new("wrong-value", reader.span("env"), message));
                return None;
            }
            Some(SecretSource::Environment(name))
        }
        (both, _) => {
            let message = match both {
                true => format!("{} has two sources", reader.owner),
                false => format!("{} has no source", reader.owner),
            };
            let help = "set `file` or `env`, and not both";
            reader.report(Problem::new("missing-attribute", reader.header, message).help(help));
            None
        }
    }
}
