//! What the images of a bake were made from, each as a manifest: so two bakes can be compared step by step, also where the steps are of a
//! stage that is in no image.

use std::collections::{BTreeMap, BTreeSet};

use kiln_model::image::Image;
use kiln_model::{Digest, ImageName};

use super::{Bake, Made, Part, Place};
use crate::attest::Materials;
use crate::bake_error::BakeError;
use crate::hashing::sha256;
use crate::inventory::Bills;
use crate::oci;

/// An earlier stage, or another image, that an image was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadePart {
    /// What people call it: `stage build`, `image tools`.
    pub name: String,
    /// The manifest that an image of it would have, in the store as long as the bake's lease is held.
    pub manifest: Digest,
}

/// What a bake found out about an image beside its steps, for what is said about it.
#[derive(Debug, Default)]
pub struct Known {
    /// Its bills of materials, if it is new.
    pub(crate) bills: Option<Bills>,
    /// What it was made from, if it is new.
    pub(crate) materials: Option<Materials>,
}

/// What a bake came to.
#[derive(Debug, Default)]
pub struct Baked {
    /// The images.
    pub images: BTreeMap<ImageName, Image>,
    /// What the bake found out about each.
    pub known: BTreeMap<ImageName, Known>,
    /// What each was made from, everything after what it was made from itself, if that was asked for.
    pub parts: BTreeMap<ImageName, Vec<MadePart>>,
}

impl Bake<'_> {
    /// Writes manifests for all that the images were made from, each after what it was made from itself.
    pub(crate) fn made_from(
        &self,
        made: &BTreeMap<Part, Made>,
    ) -> Result<BTreeMap<ImageName, Vec<MadePart>>, BakeError> {
        let mut manifests = BTreeMap::new();
        let mut all = BTreeMap::new();
        for name in self.names {
            let mut parts = Vec::new();
            for part in self.ancestry(&Part::Image(name.clone())) {
                let Some(called) = self.called(part, name) else { continue };
                let manifest = match manifests.get(part) {
                    Some(manifest) => *manifest,
                    None => self.write_part(&called, &made[part])?,
                };
                manifests.insert(part.clone(), manifest);
                parts.push(MadePart { name: called, manifest });
            }
            all.insert(name.clone(), parts);
        }
        Ok(all)
    }

    /// All that a part is made from, each once and after what it is made from itself.
    fn ancestry<'b>(&'b self, part: &'b Part) -> Vec<&'b Part> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        let mut path = vec![(part, self.parts[part].iter())];
        while let Some((part, left)) = path.last_mut() {
            match left.next() {
                Some(next) if seen.insert(next) => path.push((next, self.parts[next].iter())),
                Some(_) => {}
                None => {
                    order.push(*part);
                    path.pop();
                }
            }
        }
        order.pop();
        order
    }

    /// What a part is called where it is told about an image; bases and images of registries are in what is made from them.
    fn called(&self, part: &Part, image: &ImageName) -> Option<String> {
        match part {
            Part::Base(_) | Part::Registry(_) => None,
            Part::Image(name) => Some(format!("image {name}")),
            Part::Stage(of, index) => {
                let stage = &self.dockerfiles[of].plan.stages[*index];
                let stage = stage.name.clone().unwrap_or_else(|| index.to_string());
                Some(if of == image {
                    format!("stage {stage}")
                } else {
                    format!("stage {stage} of image {of}")
                })
            }
        }
    }

    fn write_part(&self, called: &str, made: &Made) -> Result<Digest, BakeError> {
        let steps = made.history.len();
        let what = "write the manifest".to_owned();
        let place = Place { subject: called.to_owned(), step: steps, steps, what };
        let config = oci::config(&made.config, &made.history, made.time);
        let manifest = oci::manifest(&sha256(&config), config.len(), &made.history);
        let blobs = &self.baker.store.blobs;
        let stored = blobs.put_bytes(&config).and_then(|_| blobs.put_bytes(&manifest));
        stored.map_err(|error| place.failed(error.into()))
    }
}
