//! Images of registries, as what others are made from.

use std::sync::{Arc, PoisonError};

use kiln_model::Digest;
use kiln_model::image::Image;
use kiln_model::instance::DockerHealth;
use kiln_store::ReadError;
use serde_json::{Map, Value};

use super::{Bake, Made, MadeTree, Place, UNDATED};
use crate::bake_error::{BakeError, StepError};
use crate::layer::{Compression, Layer};
use crate::oci::{self, HistoryLine};
use crate::progress::StepState;
use crate::settings::Settings;
use crate::signed_bases::{self, Locked};
use crate::steps::{StepKey, StepRecord};

impl Bake<'_> {
    /// Takes an image of a registry from the store, or brings it there.
    pub(super) fn of_registry(&self, name: &str) -> Result<Made, BakeError> {
        let locked = self.lock.images[name];
        let what = format!("fetch {}", locked.short());
        let place = Place { subject: format!("image {name}"), step: 1, steps: 1, what };
        let failed = |error: StepError| place.failed(error);
        // Two names of one image, and one connection at a time to what may be one registry.
        let _turn = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        let began = self.begin(&place);
        let wanted = Locked { name, manifest: locked, list: self.lock.lists.get(name).copied() };
        signed_bases::check(
            &self.baker.store,
            &*self.baker.options.registries,
            &self.stack.registries,
            wanted,
        )
        .map_err(|error| failed(error.into()))?;
        let found = self.stored(&locked).map_err(failed)?;
        let cached = found.is_some();
        let (image, documents) = match found {
            Some(found) => found,
            None => self.fetched(name, &locked).map_err(failed)?,
        };
        let made = self.made_outside(name, image, &documents).map_err(failed)?;
        (self.report)(place.progress(StepState::Finished { cached, elapsed: began.elapsed() }));
        Ok(made)
    }

    /// Returns the image if all of it is in the store.
    fn stored(&self, manifest: &Digest) -> Result<Option<(Image, Documents)>, StepError> {
        let store = &self.baker.store;
        if !store.images.contains(manifest) {
            return Ok(None);
        }
        let image = store.images.get(manifest)?;
        let documents = match Documents::read(&store.blobs, manifest) {
            Ok(documents) => documents,
            Err(ReadError::Missing(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let whole = store.trees.contains(&image.tree)
            && documents.layers()?.iter().all(|it| store.blobs.size(&it.digest) == Some(it.size));
        Ok(whole.then_some((image, documents)))
    }

    fn fetched(&self, name: &str, manifest: &Digest) -> Result<(Image, Documents), StepError> {
        let baker = self.baker;
        if self.cancel.is_set() {
            return Err(StepError::Cancelled);
        }
        // What is there is not whole; a record would have it taken for whole.
        let failed = |source| StepError::Forget { manifest: *manifest, source };
        baker.store.images.remove(manifest).map_err(failed)?;
        let image = baker.options.registries.fetch(&baker.store, name, manifest)?;
        if image.manifest != *manifest {
            let (locked, found) = (*manifest, image.manifest);
            return Err(StepError::OtherImage { name: name.into(), locked, found });
        }
        Ok((image, Documents::read(&baker.store.blobs, manifest)?))
    }

    fn made_outside(&self, name: &str, image: Image, documents: &Documents) -> Result<Made, StepError> {
        // The name is no part of what an image is.
        let key = StepKey::new(None, &format!("image {}", image.manifest));
        let layers = documents.layers()?;
        // It is looked up by its manifest. The record is for the collector, which keeps what was made from it while its layers are
        // kept.
        let layer = layers.last().copied();
        let record = StepRecord { tree: image.tree, layer, after: None, taken: Vec::new() };
        self.baker.steps.set_step(key, &record);
        let mut made = Made::nothing(oci::time(&documents.config).unwrap_or(UNDATED).max(UNDATED));
        made.key = Some(key);
        made.tree = MadeTree { digest: Some(image.tree), loaded: Arc::default() };
        made.history = documents.history(name, &layers);
        made.config = documents.settings(image);
        Ok(made)
    }
}

/// What an image of a registry says about itself.
struct Documents {
    digest: Digest,
    manifest: Map<String, Value>,
    config: Map<String, Value>,
}

fn corrupt(digest: &Digest, reason: &str) -> ReadError {
    ReadError::Corrupt { digest: *digest, reason: reason.into() }
}

impl Documents {
    fn read(blobs: &kiln_store::Blobs, manifest: &Digest) -> Result<Self, ReadError> {
        let json = |digest: &Digest| -> Result<Map<String, Value>, ReadError> {
            serde_json::from_slice(&blobs.read_verified(digest)?)
                .map_err(|error| corrupt(digest, &error.to_string()))
        };
        let digest = *manifest;
        let manifest = json(manifest)?;
        let config = manifest.get("config").and_then(|it| it["digest"].as_str()?.parse().ok());
        let config = config.ok_or_else(|| corrupt(&digest, "it names no config"))?;
        Ok(Self { digest, manifest, config: json(&config)? })
    }

    fn layers(&self) -> Result<Vec<Layer>, ReadError> {
        let bad = || corrupt(&self.digest, "a layer is not described in full");
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let rootfs = self.config.get("rootfs");
        let diff_ids = list(rootfs.and_then(|rootfs| rootfs.get("diff_ids")));
        let layers = list(self.manifest.get("layers"));
        if layers.len() != diff_ids.len() {
            return Err(bad());
        }
        let digest = |value: &Value| value.as_str().and_then(|text| text.parse::<Digest>().ok());
        let layer = |(layer, diff_id): (&Value, &Value)| {
            let compression = Compression::of(layer["mediaType"].as_str()?);
            let (size, diff_id) = (layer["size"].as_u64()?, digest(diff_id)?);
            Some(Layer { digest: digest(&layer["digest"])?, size, diff_id, compression })
        };
        layers.iter().zip(&diff_ids).map(|pair| layer(pair).ok_or_else(bad)).collect()
    }

    /// The lines of its history with their layers; where it has none that fits, a line for each layer.
    fn history(&self, name: &str, layers: &[Layer]) -> Vec<HistoryLine> {
        let said = self.config.get("history").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let is_empty = |line: &Value| line["empty_layer"].as_bool().unwrap_or(false);
        if said.iter().filter(|line| !is_empty(line)).count() != layers.len() {
            let line = |layer: &Layer| HistoryLine { what: name.to_owned(), layer: Some(*layer) };
            return layers.iter().map(line).collect();
        }
        let mut layers = layers.iter().copied();
        let line = |line: &Value| HistoryLine {
            what: line["created_by"].as_str().unwrap_or(name).to_owned(),
            layer: if is_empty(line) { None } else { layers.next() },
        };
        said.iter().map(line).collect()
    }

    /// How it runs, and what of its config only another bake or another tool uses.
    fn settings(&self, image: Image) -> Settings {
        let nothing = Value::Null;
        let config = self.config.get("config").unwrap_or(&nothing);
        let words = |value: &Value| -> Vec<String> {
            let words = value.as_array().into_iter().flatten().filter_map(Value::as_str);
            words.map(str::to_owned).collect()
        };
        let name = |pair: String| pair.split('=').next().unwrap_or_default().to_owned();
        let health = &config["Healthcheck"];
        let number = |key: &str| health[key].as_u64().unwrap_or(0);
        let health = health.is_object().then(|| DockerHealth {
            test: words(&health["Test"]),
            interval: number("Interval"),
            timeout: number("Timeout"),
            start_period: number("StartPeriod"),
            start_interval: number("StartInterval"),
            retries: number("Retries").try_into().unwrap_or(0),
        });
        Settings {
            run: image.config,
            order: words(&config["Env"]).into_iter().map(name).collect(),
            health,
            shell: words(&config["Shell"]),
            on_build: words(&config["OnBuild"]),
            author: self.config.get("author").and_then(Value::as_str).unwrap_or_default().to_owned(),
        }
    }
}
