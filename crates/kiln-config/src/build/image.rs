//! Bases and images.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::image::ImageConfig;
use kiln_model::instance::Probe;
use kiln_model::recipe::{
    BaseRecipe, CopyStep, DebianBase, DebianVariant, DockerfileSource, ImageRecipe, ImageSource, RecipeStep,
    RunStep,
};
use kiln_model::{BaseName, ImageName};

use super::image_provision::{Asked, provision, tools};
use super::image_scan::scan;
use super::image_test::test;
use super::instances;
use crate::diagnostic::Problem;
use crate::files::{glob_pattern, inside};
use crate::reader::{Context, Reader, absolute_path};
use crate::source::Span;
use crate::value::{Kind, Value};

/// The images, with the tests that still need a port.
pub(super) struct Images {
    recipes: BTreeMap<ImageName, ImageRecipe>,
    /// Image, index of the test, and where it is.
    pub(super) portless: Vec<(ImageName, usize, Span)>,
}

impl Images {
    pub(super) fn into_recipes(self) -> BTreeMap<ImageName, ImageRecipe> {
        self.recipes
    }

    /// Gives a test the port that the service of its image has.
    pub(super) fn set_port(&mut self, image: &ImageName, test: usize, number: u16) {
        let tests = self.recipes.get_mut(image).map(|r| &mut r.tests);
        if let Some(test) = tests.and_then(|t| t.get_mut(test)) {
            match &mut test.probe {
                Some(Probe::Http { port, .. } | Probe::Tcp { port }) => *port = number,
                Some(Probe::Command { .. }) | None => {}
            }
        }
    }
}

pub(super) fn bases(context: &Context<'_>) -> BTreeMap<BaseName, BaseRecipe> {
    let mut out = BTreeMap::new();
    for base in instances(context, "base") {
        let (kind, kind_span) = &base.declared.block.labels[0];
        if &**kind != "debian" {
            let message = format!("there is no kind of base `{kind}`");
            context.report(Problem::new("wrong-value", *kind_span, message).help("the kind is \"debian\""));
            continue;
        }
        let name: Option<BaseName> = context.name(&base.name, base.declared.name_span);
        let recipe = base.read(context, |r| debian(r.sealed())).0;
        if let Some((name, recipe)) = name.zip(recipe) {
            out.insert(name, BaseRecipe::Debian(recipe));
        }
    }
    out
}

fn debian(reader: Reader<'_>) -> Option<DebianBase> {
    let suite = reader.parsed("suite", "\"bookworm\"", |text| word(text, "suite"));
    let mirror = reader.parsed("mirror", "\"http://deb.debian.org/debian\"", |text| {
        let known =
            text.starts_with("http://") || text.starts_with("https://") || text.starts_with("file:///");
        if known && !text.contains(char::is_whitespace) {
            Ok(text.trim_end_matches('/').to_owned())
        } else {
            Err(format!("\"{text}\" is no URL of http, https or file"))
        }
    });
    let variant = reader.parsed("variant", "\"minbase\"", |text| match text {
        "essential" => Ok(DebianVariant::Essential),
        "minbase" => Ok(DebianVariant::MinBase),
        other => Err(format!("there is no variant \"{other}\"; there are \"essential\" and \"minbase\"")),
    });
    let words = |name: &str, what: &str| {
        let list = reader.strings(name)?;
        for text in &list {
            if let Err(reason) = word(text, what) {
                let message = format!("`{name}` of {}: {reason}", reader.owner);
                reader.report(Problem::new("wrong-value", reader.span(name), message));
            }
        }
        Some(list)
    };
    let components = words("components", "component").unwrap_or_else(|| vec!["main".into()]);
    let packages = words("packages", "package").unwrap_or_default();
    let variant = variant.unwrap_or(DebianVariant::Essential);
    Some(DebianBase { suite: suite?, mirror, components, packages, variant })
}

/// A name as Debian writes them (policy, section 5.6.7, and suites with `/` and `-`).
pub(super) fn word(text: &str, what: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'/' | b'_');
    let bad =
        text.is_empty() || !text.bytes().all(good) || text.split('/').any(|p| p == ".." || p.is_empty());
    if bad { Err(format!("\"{text}\" is no name of a {what}")) } else { Ok(text.to_owned()) }
}

pub(super) fn images(context: &Context<'_>, bases: &mut BTreeMap<BaseName, BaseRecipe>) -> Images {
    let mut asked = Vec::new();
    let mut images = Images { recipes: BTreeMap::new(), portless: Vec::new() };
    let mut places: BTreeMap<ImageName, Span> = BTreeMap::new();
    for image in instances(context, "image") {
        if let Some(for_each) = image.declared.for_each {
            let owner = format!("image \"{}\"", image.declared.name);
            let mut sink = context.sink.borrow_mut();
            context.graph.refuse_environment(context.resolver, &owner, for_each, &mut sink);
        }
        let name: Option<ImageName> = context.name(&image.name, image.declared.name_span);
        let read =
            image.read(context, |r| recipe(r.sealed(), name.as_ref(), &mut images.portless, &mut asked)).0;
        if let Some((name, recipe)) = name.zip(read) {
            places.insert(name.clone(), image.declared.block.header());
            images.recipes.insert(name, recipe);
        }
    }
    refuse_cycles(context, &images.recipes, &places);
    tools(context, bases, &mut images.recipes, asked);
    images
}

/// An image may start from another, not from itself.
fn refuse_cycles(
    context: &Context<'_>,
    recipes: &BTreeMap<ImageName, ImageRecipe>,
    places: &BTreeMap<ImageName, Span>,
) {
    let mut checked = BTreeSet::new();
    for start in recipes.keys() {
        // Each with what it is made from and has not been looked at.
        let mut path: Vec<(ImageName, Vec<ImageName>)> = vec![(start.clone(), parents(recipes, start))];
        while let Some((name, left)) = path.last_mut() {
            let Some(next) = left.pop() else {
                checked.insert(name.clone());
                path.pop();
                continue;
            };
            if let Some(from) = path.iter().position(|(name, _)| *name == next) {
                let on_the_way = path[from..].iter().map(|(name, _)| name);
                let names: Vec<String> =
                    on_the_way.chain([&next]).map(|name| format!("image.{name}")).collect();
                let message = format!("{} starts from itself: {}", names[0], names.join(" -> "));
                let mut problem = Problem::new("cycle", places[&next], message);
                for (name, _) in &path[from + 1..] {
                    problem = problem.also(places[name], "starts from it");
                }
                context.report(problem);
                checked.extend(path.into_iter().map(|(name, _)| name));
                break;
            }
            if !checked.contains(&next) {
                let above = parents(recipes, &next);
                path.push((next, above));
            }
        }
    }
}

/// The images that an image is made from.
fn parents(recipes: &BTreeMap<ImageName, ImageRecipe>, name: &ImageName) -> Vec<ImageName> {
    let image = |source: &ImageSource| match source {
        ImageSource::Image(name) => Some(name.clone()),
        _ => None,
    };
    recipes.get(name).into_iter().flat_map(|recipe| recipe.from.parents().filter_map(image)).collect()
}

fn recipe(
    reader: Reader<'_>,
    name: Option<&ImageName>,
    portless: &mut Vec<(ImageName, usize, Span)>,
    asked: &mut Vec<Asked>,
) -> Option<ImageRecipe> {
    let from = source(reader);
    let config = ImageConfig {
        env: reader.env("env").unwrap_or_default(),
        entrypoint: reader.argv("entrypoint").unwrap_or_default(),
        command: reader.argv("command").unwrap_or_default(),
        workdir: reader.absolute_path("workdir").unwrap_or_default(),
        user: user(reader, "user").unwrap_or_default(),
        labels: reader.string_map("labels").unwrap_or_default(),
        expose: expose(reader),
        volumes: volumes(reader),
        stop_signal: reader.parsed("stop_signal", "\"SIGTERM\"", super::service::signal).unwrap_or_default(),
        // A service says it, or a Dockerfile.
        health: None,
    };
    let mut steps = Vec::new();
    let mut tests = Vec::new();
    let mut scanned = None;
    for block in reader.all_blocks() {
        let inner = reader.within(block);
        match &*block.kind {
            "copy" => steps.extend(copy(inner).map(RecipeStep::Copy)),
            "run" => steps.extend(run(inner).map(RecipeStep::Run)),
            "provision" => {
                let Some((kind, span)) = block.labels.first() else { continue };
                let Some((step, suite)) = provision(inner, kind, *span) else { continue };
                asked.extend(name.map(|image| Asked {
                    image: image.clone(),
                    step: steps.len(),
                    suite,
                    at: block.header(),
                }));
                steps.push(RecipeStep::Provision(step));
            }
            "test" => {
                let Some((label, span)) = block.labels.first() else { continue };
                let Some(probed) = test(inner, label, *span, &config.expose) else { continue };
                if probed.1 {
                    portless.extend(name.map(|n| (n.clone(), tests.len(), block.header())));
                }
                tests.push(probed.0);
            }
            "scan" => scanned = scan(inner),
            _ => {}
        }
    }
    Some(ImageRecipe { from: from?, steps, config, tests, scan: scanned })
}

/// What belongs to a Dockerfile alone.
const OF_DOCKERFILES: [&str; 7] = ["context", "target", "args", "contexts", "secrets", "ssh", "network"];

fn source(reader: Reader<'_>) -> Option<ImageSource> {
    if reader.has("dockerfile") {
        if reader.has("from") {
            let message = format!("{} has both `from` and `dockerfile`", reader.owner);
            let help = "a Dockerfile says itself what it starts from; `contexts` gives it bases and images";
            reader.report(Problem::new("wrong-value", reader.span("from"), message).help(help));
        }
        return dockerfile(reader).map(|source| ImageSource::Dockerfile(Box::new(source)));
    }
    for name in OF_DOCKERFILES.into_iter().filter(|name| reader.has(name)) {
        let message = format!("`{name}` of {} means nothing without `dockerfile`", reader.owner);
        reader.report(Problem::new("wrong-value", reader.span(name), message));
    }
    if !reader.has("from") {
        let message = format!("{} does not say what it starts from", reader.owner);
        let help = "set `from`, or `dockerfile`";
        reader.report(Problem::new("missing-attribute", reader.header, message).help(help));
        return None;
    }
    let (value, expr) = reader.value("from")?;
    part(reader, "from", &value, expr.span)
}

/// A base, an image, one of a registry, or nothing.
fn part(reader: Reader<'_>, name: &str, value: &Value, span: Span) -> Option<ImageSource> {
    match &value.kind {
        Kind::String(text) if &**text == "scratch" => Some(ImageSource::Scratch),
        Kind::String(text) if FILES.iter().any(|kind| text.starts_with(kind)) => match of_files(text) {
            Ok(name) => {
                reader.context.sink.borrow_mut().image_files.push((name.clone(), span));
                Some(ImageSource::Registry(name))
            }
            Err(reason) => {
                let message = format!("`{name}` of {}: {reason}", reader.owner);
                let help = "write \"oci:DIR:TAG\" or \"docker-archive:FILE:NAME:TAG\"; the tag or the name may be left out where \
                            there is one image";
                reader.report(Problem::new("wrong-value", span, message).help(help));
                None
            }
        },
        Kind::String(text) => {
            if let Err(reason) = of_registry(text) {
                let message = format!("`{name}` of {}: {reason}", reader.owner);
                let help = "start from `base.debian.NAME`, `image.NAME`, \"scratch\", or an image of a registry, as \
                            \"docker.io/library/debian:12\"";
                reader.report(Problem::new("wrong-value", span, message).help(help));
                return None;
            }
            Some(ImageSource::Registry(text.to_string()))
        }
        _ => {
            let kinds = ["base", "image"];
            let reference = reader.expect_reference(name, value, span, &kinds, "base.debian.NAME")?;
            if reference.kind == "base" {
                reference.name.parse().ok().map(ImageSource::Base)
            } else {
                reference.name.parse().ok().map(ImageSource::Image)
            }
        }
    }
}

/// What names of folders and files of images begin with.
const FILES: [&str; 2] = ["oci:", "docker-archive:"];

/// Reads the name of an image in a folder or a file. The path of one in the stack folder begins with `./`: no name of a registry has
/// such a one behind a colon.
fn of_files(text: &str) -> Result<String, String> {
    let (kind, rest) = text.split_once(':').expect("it begins with a kind and a colon");
    let (path, image) = match kind {
        "oci" => rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')),
        _ => rest.split_once(':'),
    }
    .map_or((rest, None), |(path, image)| (path, Some(image)));
    if path.is_empty() || image.is_some_and(|image| image.is_empty() || kind != "oci" && !image.contains(':'))
    {
        return Err(format!("\"{text}\" names no image"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) || text.len() > REGISTRY_NAME_CHARS_MAX {
        return Err(format!("\"{text}\" can't stand in kiln.lock"));
    }
    let path = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("./{}", inside(path).ok_or_else(|| format!("\"{path}\" leaves the stack folder"))?),
    };
    Ok(image.map_or_else(|| format!("{kind}:{path}"), |image| format!("{kind}:{path}:{image}")))
}

/// The longest name that clients take, with a tag and a digest.
const REGISTRY_NAME_CHARS_MAX: usize = 512;

/// Checks that a name says its registry: without it a slip of the pen would be fetched from whoever has that name. The rest
/// is for the client of registries to understand.
fn of_registry(text: &str) -> Result<(), String> {
    let host = text.split_once('/').map(|(host, _)| host);
    if !host.is_some_and(|host| host.contains(['.', ':']) || host == "localhost") {
        return Err(format!("\"{text}\" does not say which registry has it"));
    }
    let good = text.bytes().all(|b| b.is_ascii_graphic()) && text.len() <= REGISTRY_NAME_CHARS_MAX;
    if good { Ok(()) } else { Err(format!("\"{text}\" names no image in a registry")) }
}

fn dockerfile(reader: Reader<'_>) -> Option<DockerfileSource> {
    let path = |name: &str| {
        reader.parsed(name, "\"./web\"", |text| {
            inside(text).ok_or_else(|| format!("\"{text}\" leaves the stack folder"))
        })
    };
    let mut contexts = BTreeMap::new();
    if reader.has("contexts") {
        for (key, value, span) in reader.entries("contexts", "a map of bases and images")? {
            let name = format!("contexts.{key}");
            contexts.extend(part(reader, &name, &value, span).map(|source| (key, source)));
        }
    }
    let mut secrets = BTreeMap::new();
    if reader.has("secrets") {
        for (id, value, span) in reader.entries("secrets", "a map of id to secret")? {
            let name = format!("secrets.{id}");
            let found = reader.expect_reference(&name, &value, span, &["secret"], "secret.NAME");
            secrets.extend(found.and_then(|found| Some((id, found.name.parse().ok()?))));
        }
    }
    let target = reader.parsed("target", "\"release\"", |text| match text {
        "" => Err("it names no stage".to_owned()),
        text => Ok(text.to_owned()),
    });
    Some(DockerfileSource {
        path: path("dockerfile")?,
        context: path("context"),
        target,
        args: reader.env("args").unwrap_or_default(),
        contexts,
        secrets,
        ssh: reader.bool("ssh").unwrap_or(false),
        network: reader.bool("network").unwrap_or(false),
    })
}

/// `user`, `user:group`, `uid` or `uid:gid`.
pub(super) fn user(reader: Reader<'_>, name: &str) -> Option<String> {
    let (value, _) = reader.value(name)?;
    let text = match &value.kind {
        Kind::Number(number) => number.to_string(),
        _ => reader.string(name)?,
    };
    let part = |p: &str| {
        !p.is_empty()
            && p.len() <= 64
            && p.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b':' | b'/' | b','))
    };
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 2 || !parts.iter().all(|p| part(p)) {
        let message =
            format!("`{name}` of {}: \"{text}\" is no user like \"www-data\" or \"1000:1000\"", reader.owner);
        reader.report(Problem::new("wrong-value", reader.span(name), message));
        return None;
    }
    Some(text)
}

fn expose(reader: Reader<'_>) -> Vec<String> {
    let Some((value, expr)) = reader.value("expose") else { return Vec::new() };
    let Some(seq) = value.as_seq() else {
        let message =
            format!("`expose` of {}: expected a list of ports, found {}", reader.owner, value.describe());
        reader.report(Problem::new("wrong-type", expr.span, message).help("write `expose = [8080]`"));
        return Vec::new();
    };
    let port = |item: &Value| {
        let text = match &item.kind {
            Kind::Number(number) => number.to_string(),
            Kind::String(text) => text.to_string(),
            _ => String::new(),
        };
        let (number, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let good = number.parse::<u16>().is_ok_and(|n| n > 0) && matches!(protocol, "tcp" | "udp" | "sctp");
        if !good {
            let message = format!("`expose` of {}: expected a port such as 8080 or \"53/udp\"", reader.owner);
            reader.report(Problem::new("wrong-value", expr.span, message));
        }
        good.then(|| format!("{number}/{protocol}"))
    };
    seq.items.iter().filter_map(port).collect()
}

fn volumes(reader: Reader<'_>) -> Vec<String> {
    let check = |text: String| match absolute_path(&text) {
        Ok(path) => Some(path),
        Err(reason) => {
            let message = format!("`volumes` of {}: {reason}", reader.owner);
            reader.report(Problem::new("wrong-value", reader.span("volumes"), message));
            None
        }
    };
    reader.strings("volumes").unwrap_or_default().into_iter().filter_map(check).collect()
}

fn copy(reader: Reader<'_>) -> Option<CopyStep> {
    let from = reader.string("from").and_then(|text| match inside(&text) {
        Some(path) if glob_pattern(&path).is_some() => Some(if path.is_empty() { ".".into() } else { path }),
        Some(_) => {
            let message = format!("\"{text}\" is no valid glob");
            reader.report(Problem::new("wrong-value", reader.span("from"), message));
            None
        }
        None => {
            let message = format!("\"{text}\" leaves the stack folder");
            let help = "only files of the stack folder can be copied: they are what is reviewed and hashed";
            reader.report(Problem::new("path-escapes", reader.span("from"), message).help(help));
            None
        }
    });
    let to = reader.parsed("to", "\"/app\"", |text| {
        let path = absolute_path(text)?;
        // The `/` at the end says that it is a folder.
        Ok(if text.ends_with('/') && path != "/" { format!("{path}/") } else { path })
    });
    let mode = reader.parsed("mode", "\"0644\"", octal_mode);
    Some(CopyStep {
        from: from?,
        to: to?,
        owner: user(reader, "owner").unwrap_or_default(),
        mode,
        exclude: reader.strings("exclude").unwrap_or_default(),
    })
}

fn run(reader: Reader<'_>) -> Option<RunStep> {
    Some(RunStep {
        argv: reader.argv("command")?,
        env: reader.env("env").unwrap_or_default(),
        workdir: reader.absolute_path("workdir").unwrap_or_default(),
        user: user(reader, "user").unwrap_or_default(),
        network: reader.bool("network").unwrap_or(false),
    })
}

/// Permission bits in octal.
pub(super) fn octal_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 && text.len() >= 3 => Ok(mode),
        _ => Err(format!("\"{text}\" is no mode like \"0644\"")),
    }
}

/// The path of a probe, with its query.
pub(super) fn request_path(text: &str) -> Result<String, String> {
    let good = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if good { Ok(text.to_owned()) } else { Err(format!("\"{text}\" is no path like \"/healthz\"")) }
}
