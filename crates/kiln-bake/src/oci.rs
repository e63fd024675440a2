//! The manifest and the config of an OCI image, in one spelling only: the same image always has the same digest.
//!
//! Source: the OCI image specification 1.1, `manifest.md` and `config.md`.

use kiln_model::Digest;
use kiln_model::instance::DockerHealth;
use kiln_store::{Blobs, ReadError};
use serde_json::{Map, Value, json};

use crate::calendar;
use crate::debian::ARCH;
use crate::layer::Layer;
use crate::settings::Settings;

/// The media type of a manifest.
pub(crate) const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// One line of an image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryLine {
    /// The step, as the recipe has it.
    pub(crate) what: String,
    /// Its layer; none where it changed nothing.
    pub(crate) layer: Option<Layer>,
}

/// Returns the bytes of an image's config.
pub(crate) fn config(settings: &Settings, history: &[HistoryLine], created: u64) -> Vec<u8> {
    let created = calendar::iso(created);
    let lines: Vec<Value> = history
        .iter()
        .map(|line| match line.layer {
            Some(_) => json!({ "created": created, "created_by": line.what }),
            None => json!({ "created": created, "created_by": line.what, "empty_layer": true }),
        })
        .collect();
    let diff_ids: Vec<String> = layers(history).map(|layer| layer.diff_id.to_string()).collect();
    let mut value = json!({
        "architecture": ARCH,
        "config": run_config(settings),
        "created": created,
        "history": lines,
        "os": "linux",
        "rootfs": { "diff_ids": diff_ids, "type": "layers" },
    });
    if !settings.author.is_empty() {
        value["author"] = json!(settings.author);
    }
    canonical(&value)
}

/// Returns the bytes of an image's manifest.
pub(crate) fn manifest(config: &Digest, config_size: usize, history: &[HistoryLine]) -> Vec<u8> {
    let layers: Vec<Value> = layers(history)
        .map(|layer| {
            let media_type = layer.compression.media_type();
            json!({ "digest": layer.digest.to_string(), "mediaType": media_type, "size": layer.size })
        })
        .collect();
    let value = json!({
        "config": { "digest": config.to_string(), "mediaType": CONFIG_TYPE, "size": config_size },
        "layers": layers,
        "mediaType": MANIFEST_TYPE,
        "schemaVersion": 2,
    });
    canonical(&value)
}

fn layers(history: &[HistoryLine]) -> impl Iterator<Item = &Layer> {
    history.iter().filter_map(|line| line.layer.as_ref())
}

/// What is empty is left out, as other tools do.
fn run_config(settings: &Settings) -> Value {
    let config = &settings.run;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        let empty = match &value {
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            Value::String(text) => text.is_empty(),
            _ => false,
        };
        if !empty {
            map.insert(key.into(), value);
        }
    };
    let set = |names: &[String]| -> Value {
        let mut names = names.to_vec();
        names.sort();
        Value::Object(names.into_iter().map(|name| (name, json!({}))).collect())
    };
    let env: Vec<String> = settings.env().map(|(name, value)| format!("{name}={value}")).collect();
    put("Cmd", json!(config.command));
    put("Entrypoint", json!(config.entrypoint));
    put("Env", json!(env));
    put("ExposedPorts", set(&config.expose));
    put("Healthcheck", settings.health.as_ref().map_or(json!(""), healthcheck));
    put("Labels", json!(config.labels));
    put("OnBuild", json!(settings.on_build));
    put("Shell", json!(settings.shell));
    put("StopSignal", json!(config.stop_signal));
    put("User", json!(config.user));
    put("Volumes", set(&config.volumes));
    put("WorkingDir", json!(config.workdir));
    Value::Object(map)
}

/// Reads when an image says that it was made, to the second; none where the manifest or its config is none.
pub(crate) fn created(blobs: &Blobs, manifest: &Digest) -> Result<Option<String>, ReadError> {
    let json = |digest: &Digest| -> Result<Value, ReadError> {
        Ok(serde_json::from_slice(&blobs.read_verified(digest)?).unwrap_or_default())
    };
    let config = json(manifest)?["config"]["digest"].as_str().and_then(|digest| digest.parse().ok());
    let Some(config) = config else { return Ok(None) };
    let Value::Object(config) = json(&config)? else { return Ok(None) };
    Ok(Some(calendar::iso(time(&config).unwrap_or(0))))
}

/// When a config says that its image was made. One of a registry need not say, and may say it to the nanosecond.
pub(crate) fn time(config: &Map<String, Value>) -> Option<u64> {
    let said = config.get("created").and_then(Value::as_str)?;
    let whole = said.split('.').next().unwrap_or_default().trim_end_matches('Z');
    calendar::parse_iso(&format!("{whole}Z"))
}

/// Docker's own; the specification knows of no health.
fn healthcheck(health: &DockerHealth) -> Value {
    let mut map = Map::new();
    map.insert("Test".into(), json!(health.test));
    let numbers = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
        ("Retries", health.retries.into()),
    ];
    for (key, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        map.insert(key.into(), json!(number));
    }
    Value::Object(map)
}

/// Sorted keys and no white space, whatever features of the JSON library another crate switched on.
pub(crate) fn canonical(value: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    write(value, &[], &mut text);
    text
}

/// A path of names, and what is written already of what is to be there.
pub(crate) type Written<'a> = (&'a [&'a str], &'a [u8]);

/// As [`canonical`], with something that is written already in the place of what is at each of some paths.
pub(crate) fn canonical_with(value: &Value, inserted: &[Written<'_>]) -> Vec<u8> {
    let bytes: usize = inserted.iter().map(|(_, written)| written.len()).sum();
    let mut text = Vec::with_capacity(bytes + 4096);
    write(value, inserted, &mut text);
    text
}

fn write(value: &Value, inserted: &[Written<'_>], text: &mut Vec<u8>) {
    if let Some((_, written)) = inserted.iter().find(|(path, _)| path.is_empty()) {
        return text.extend_from_slice(written);
    }
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().collect();
            keys.sort_by_key(|(key, _)| *key);
            text.push(b'{');
            for (index, (key, value)) in keys.into_iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                scalar(key, text);
                text.push(b':');
                let inner = inserted.iter().filter_map(|(path, written)| {
                    let (name, path) = path.split_first()?;
                    (name == key).then_some((path, *written))
                });
                write(value, &inner.collect::<Vec<_>>(), text);
            }
            text.push(b'}');
        }
        Value::Array(items) => {
            text.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(b',');
                }
                write(item, &[], text);
            }
            text.push(b']');
        }
        value => scalar(value, text),
    }
}

fn scalar(value: &impl serde::Serialize, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("a word or a number can be written, and memory takes all");
}

#[cfg(test)]
mod tests {
    use kiln_model::image::ImageConfig;

    use super::*;
    use crate::hashing::sha256;
    use crate::layer::Compression;

    #[test]
    fn what_is_written_already_takes_the_place_at_its_path_and_no_other() {
        let list = json!([{ "b": 1, "a": "\"x\"" }, null]);
        let with =
            |inner: Value| json!({ "z": { "list": inner, "y": [] }, "list": { "list": null }, "a": 1 });
        let mut gaps = with(Value::Null);
        gaps["a"] = Value::Null;
        let inserted: [Written<'_>; 2] = [(&["z", "list"], &canonical(&list)), (&["a"], b"1")];
        assert_eq!(
            String::from_utf8(canonical_with(&gaps, &inserted)),
            String::from_utf8(canonical(&with(list)))
        );
    }

    #[test]
    fn manifest_and_config_are_golden() {
        let digest = sha256(b"");
        let layer = Layer { digest, size: 5, diff_id: digest, compression: Compression::Zstd };
        let history = [
            HistoryLine { what: "base slim".into(), layer: Some(layer) },
            HistoryLine { what: "run true".into(), layer: None },
        ];
        let settings = ImageConfig {
            env: [("A".into(), "1".into())].into(),
            command: vec!["x\"y".into()],
            expose: vec!["80/tcp".into()],
            ..ImageConfig::default()
        };
        let settings = Settings { run: settings, ..Settings::default() };
        let text =
            String::from_utf8(config(&settings, &history, 0)).unwrap().replace(&digest.to_string(), "D");
        let arch = format!("\"architecture\":\"{ARCH}\"");
        assert_eq!(
            text.replace(&arch, "ARCH"),
            r#"{ARCH,"config":{"Cmd":["x\"y"],"Env":["A=1"],"ExposedPorts":{"80/tcp":{}}},"created":"1970-01-01T00:00:00Z","history":[{"created":"1970-01-01T00:00:00Z","created_by":"base slim"},{"created":"1970-01-01T00:00:00Z","created_by":"run true","empty_layer":true}],"os":"linux","rootfs":{"diff_ids":["D"],"type":"layers"}}"#
        );
        let text =
            String::from_utf8(manifest(&digest, 9, &history)).unwrap().replace(&digest.to_string(), "D");
        assert_eq!(
            text,
            r#"{"config":{"digest":"D","mediaType":"application/vnd.oci.image.config.v1+json","size":9},"layers":[{"digest":"D","mediaType":"application/vnd.oci.image.layer.v1.tar+zstd","size":5}],"mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#
        );
    }
}
