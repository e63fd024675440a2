//! Playbooks of images, and the bases that their tools are in.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::recipe::{
    BaseRecipe, DebianBase, DebianVariant, ImageRecipe, ImageSource, ProvisionStep, RecipeStep,
};
use kiln_model::{BaseName, ImageName};

use super::image::word;
use crate::diagnostic::Problem;
use crate::files::{FileError, inside};
use crate::reader::{Context, Reader};
use crate::source::Span;

/// What plays playbooks, and what its module `apt` sees installed packages with.
const PACKAGES: [&str; 2] = ["ansible-core", "python3-apt"];

/// What the bases of tools begin with; the suite follows.
const TOOLS: &str = "ansible";

/// Groups that Ansible makes itself, and the name of the image.
const TAKEN_GROUPS: [&str; 3] = ["all", "ungrouped", "localhost"];

/// A playbook whose tools are not known yet: an image that it starts from may be read after it.
pub(super) struct Asked {
    pub(super) image: ImageName,
    /// Which of the image's steps it is.
    pub(super) step: usize,
    /// The suite that it says.
    pub(super) suite: Option<String>,
    pub(super) at: Span,
}

/// Reads a playbook's block, with the suite that it says.
pub(super) fn provision(reader: Reader<'_>, kind: &str, at: Span) -> Option<(ProvisionStep, Option<String>)> {
    if kind != "ansible" {
        let message = format!("there is no kind of provision `{kind}`");
        reader.report(Problem::new("wrong-value", at, message).help("the kind is \"ansible\""));
        return None;
    }
    let suite = reader.parsed("suite", "\"bookworm\"", |text| word(text, "suite"));
    let step = ProvisionStep {
        playbook: playbook(reader)?,
        vars: vars(reader),
        tags: words(reader, "tags", "tag", |tag| !tag.is_empty() && !tag.contains([',', '\0'])),
        groups: words(reader, "groups", "group of hosts", |group| {
            is_identifier(group) && !TAKEN_GROUPS.contains(&group)
        }),
        network: reader.bool("network").unwrap_or(false),
        // Set by `tools` when all images are known.
        tools: TOOLS.parse().ok()?,
    };
    Some((step, suite))
}

fn playbook(reader: Reader<'_>) -> Option<String> {
    let text = reader.string("playbook")?;
    let problem = match inside(&text) {
        None => {
            let help =
                "a playbook and what it uses are in the stack folder: they are what is reviewed and hashed";
            let message = format!("\"{text}\" leaves the stack folder");
            Problem::new("path-escapes", reader.span("playbook"), message).help(help)
        }
        // Its folder is taken as `copy` takes one, where these have a meaning.
        Some(path) if path.is_empty() || path.contains(['*', '?', '[', '{', '\\']) => {
            let message = format!("`playbook` of {}: \"{text}\" names no file", reader.owner);
            Problem::new("wrong-value", reader.span("playbook"), message)
        }
        Some(path) => match reader.context.eval.files.read(&path) {
            Ok(_) | Err(FileError::TooLarge { .. }) => return Some(path),
            Err(FileError::NotFound) => {
                let message = format!("there is no playbook {path} in the stack folder");
                Problem::new("missing-file", reader.span("playbook"), message)
            }
            Err(error) => {
                let message = format!("the playbook {path} can't be read: {error}");
                Problem::new("missing-file", reader.span("playbook"), message)
            }
        },
    };
    reader.report(problem);
    None
}

fn vars(reader: Reader<'_>) -> BTreeMap<String, String> {
    let vars = reader.string_map("vars").unwrap_or_default();
    for name in vars.keys().filter(|name| !is_identifier(name)) {
        let message = format!("`vars` of {}: \"{name}\" can't be a variable of Ansible", reader.owner);
        let help = "letters, digits and `_`, beginning with no digit";
        reader.report(Problem::new("wrong-value", reader.span("vars"), message).help(help));
    }
    vars
}

fn words(reader: Reader<'_>, name: &str, what: &str, good: impl Fn(&str) -> bool) -> Vec<String> {
    let words = reader.strings(name).unwrap_or_default();
    for word in words.iter().filter(|word| !good(word)) {
        let message = format!("`{name}` of {}: \"{word}\" can't be a {what}", reader.owner);
        reader.report(Problem::new("wrong-value", reader.span(name), message));
    }
    words
}

fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Declares a base of tools for each suite that playbooks need one of.
pub(super) fn tools(
    context: &Context<'_>,
    bases: &mut BTreeMap<BaseName, BaseRecipe>,
    recipes: &mut BTreeMap<ImageName, ImageRecipe>,
    asked: Vec<Asked>,
) {
    let mut made = BTreeMap::new();
    for Asked { image, step, suite, at } in asked {
        let under = suite_under(&image, bases, recipes);
        let Some(suite) = suite.or_else(|| under.clone().flatten()) else {
            // What is wrong with what it starts from was told.
            if under.is_none() {
                continue;
            }
            let message = format!(
                "which Debian suite Ansible is from can't be told: image \"{image}\" starts from no base"
            );
            let help = "set `suite`, for example to \"bookworm\"";
            context.report(Problem::new("missing-attribute", at, message).help(help));
            continue;
        };
        let plain: String = suite.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let Some(name) = context.name::<BaseName>(&format!("{TOOLS}-{plain}"), at) else { continue };
        if bases.contains_key(&name) {
            let message = format!("`base.debian.{name}` has the name of what Ansible is in");
            context.report(Problem::new("duplicate", at, message).help("give the base another name"));
            continue;
        }
        let recipe = image_step(recipes, &image, step);
        recipe.into_iter().for_each(|step| step.tools = name.clone());
        made.entry(name).or_insert(suite);
    }
    for (name, suite) in made {
        let mirror = bases
            .values()
            .find_map(|BaseRecipe::Debian(base)| base.mirror.clone().filter(|_| base.suite == suite));
        let packages = PACKAGES.map(str::to_owned).into();
        let components = vec!["main".to_owned()];
        let base = DebianBase { suite, mirror, components, packages, variant: DebianVariant::Tools };
        bases.insert(name, BaseRecipe::Debian(base));
    }
}

fn image_step<'a>(
    recipes: &'a mut BTreeMap<ImageName, ImageRecipe>,
    image: &ImageName,
    step: usize,
) -> Option<&'a mut ProvisionStep> {
    match recipes.get_mut(image)?.steps.get_mut(step)? {
        RecipeStep::Provision(provision) => Some(provision),
        RecipeStep::Copy(_) | RecipeStep::Run(_) => None,
    }
}

/// Finds the suite of the base that an image starts from, itself or through others: none within where it is no base, and none
/// where it can't be known.
fn suite_under(
    image: &ImageName,
    bases: &BTreeMap<BaseName, BaseRecipe>,
    recipes: &BTreeMap<ImageName, ImageRecipe>,
) -> Option<Option<String>> {
    let (mut image, mut seen) = (image, BTreeSet::new());
    // Images that start from themselves are told of elsewhere.
    while seen.insert(image) {
        match &recipes.get(image)?.from {
            ImageSource::Image(from) => image = from,
            ImageSource::Base(base) => {
                let BaseRecipe::Debian(base) = bases.get(base)?;
                return Some(Some(base.suite.clone()));
            }
            ImageSource::Scratch | ImageSource::Registry(_) | ImageSource::Dockerfile(_) => {
                return Some(None);
            }
        }
    }
    None
}
