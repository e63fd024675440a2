//! What is to be made for some images, and what each of it is made from.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::ImageName;
use kiln_model::recipe::{ImageRecipe, ImageSource, RecipeStep};
use kiln_model::stack::Stack;

use super::Part;
use super::stages::Dockerfile;
use crate::bake_error::BakeError;
use crate::dockerfile::Origin;

fn recipe<'a>(stack: &'a Stack, name: &ImageName) -> Result<&'a ImageRecipe, BakeError> {
    stack.images.get(name).ok_or_else(|| BakeError::UnknownImage(name.clone()))
}

/// Finds images with all that they may be made from; a Dockerfile may need less than what it is given.
pub(super) fn reached(stack: &Stack, names: &BTreeSet<ImageName>) -> Result<BTreeSet<ImageName>, BakeError> {
    let above = |name: &ImageName| -> Result<Vec<ImageName>, BakeError> {
        let image = |source: &ImageSource| match source {
            ImageSource::Image(name) => Some(name.clone()),
            _ => None,
        };
        Ok(recipe(stack, name)?.from.parents().filter_map(image).collect())
    };
    let mut reached = BTreeSet::new();
    for name in names {
        let mut path = vec![(name.clone(), above(name)?)];
        while let Some((name, left)) = path.last_mut() {
            let Some(next) = left.pop() else {
                reached.insert(name.clone());
                path.pop();
                continue;
            };
            if path.iter().any(|(on_the_way, _)| *on_the_way == next) {
                return Err(BakeError::Circle(next));
            }
            if !reached.contains(&next) {
                let further = above(&next)?;
                path.push((next, further));
            }
        }
    }
    Ok(reached)
}

/// Whether an image is made by a Dockerfile.
pub(super) fn has_dockerfile(stack: &Stack, name: &ImageName) -> bool {
    stack.images.get(name).is_some_and(|recipe| matches!(recipe.from, ImageSource::Dockerfile(_)))
}

/// Whether an image is made of files of the stack folder.
pub(super) fn reads_files(stack: &Stack, name: &ImageName) -> bool {
    let Some(recipe) = stack.images.get(name) else { return false };
    matches!(recipe.from, ImageSource::Dockerfile(_))
        || recipe.steps.iter().any(|step| !matches!(step, RecipeStep::Run(_)))
}

/// Finds all that images are made from.
pub(super) fn parts(
    stack: &Stack,
    names: &BTreeSet<ImageName>,
    dockerfiles: &BTreeMap<ImageName, Dockerfile>,
) -> Result<BTreeMap<Part, BTreeSet<Part>>, BakeError> {
    let mut parts = BTreeMap::new();
    let mut next: Vec<Part> = names.iter().cloned().map(Part::Image).collect();
    while let Some(part) = next.pop() {
        if parts.contains_key(&part) {
            continue;
        }
        let from: BTreeSet<Part> = match &part {
            Part::Base(base) if stack.bases.contains_key(base) => BTreeSet::new(),
            Part::Base(base) => return Err(BakeError::UnknownBase(base.clone())),
            Part::Registry(_) => BTreeSet::new(),
            Part::Image(name) => {
                let recipe = recipe(stack, name)?;
                let tools = recipe.provisions().map(|step| Part::Base(step.tools.clone()));
                of_source(name, &recipe.from, dockerfiles).into_iter().chain(tools).collect()
            }
            Part::Stage(image, index) => {
                let stage = &dockerfiles[image].plan.stages[*index];
                stage.needs().filter_map(|origin| of_origin(image, origin)).collect()
            }
        };
        next.extend(from.iter().cloned());
        parts.insert(part, from);
    }
    Ok(parts)
}

/// What an image is made from; none is nothing.
pub(super) fn of_source(
    name: &ImageName,
    source: &ImageSource,
    dockerfiles: &BTreeMap<ImageName, Dockerfile>,
) -> Option<Part> {
    match source {
        ImageSource::Dockerfile(_) => Some(Part::Stage(name.clone(), dockerfiles[name].plan.target)),
        source => outside(source),
    }
}

/// What a stage of an image's Dockerfile takes files from; none is nothing.
pub(super) fn of_origin(image: &ImageName, origin: &Origin) -> Option<Part> {
    match origin {
        Origin::Scratch => None,
        Origin::Stage(index) => Some(Part::Stage(image.clone(), *index)),
        Origin::Outside(source) => outside(source),
    }
}

fn outside(source: &ImageSource) -> Option<Part> {
    match source {
        ImageSource::Base(base) => Some(Part::Base(base.clone())),
        ImageSource::Image(image) => Some(Part::Image(image.clone())),
        ImageSource::Registry(name) => Some(Part::Registry(name.clone())),
        // A Dockerfile is never what a name means: only an image has one.
        ImageSource::Scratch | ImageSource::Dockerfile(_) => None,
    }
}
