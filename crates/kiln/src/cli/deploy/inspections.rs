//! What tests ask of an image that is seen without booting it.

use kiln_bake::inspect;
use kiln_model::image::Image;
use kiln_model::recipe::{ExpectedFile, ExpectedPackage, ImageTest, Inspection};
use kiln_model::{Digest, EnvKey};
use kiln_store::Store;
use kiln_store::canonical::digest_of;
use serde_json::json;

use crate::api::client::Client;
use crate::api::wire;
use crate::cli::failure::Failure;
use crate::cli::screen::Screen;

/// Under which names the verdicts of a test are recorded: its own, and another for what is inspected before a boot. No test
/// can be named so.
pub(crate) fn names(test: &ImageTest) -> Vec<String> {
    let booted = test.probe.is_some().then(|| test.name.clone());
    inspected_as(test).into_iter().chain(booted).collect()
}

fn inspected_as(test: &ImageTest) -> Option<String> {
    match (&test.probe, test.inspection.is_empty()) {
        (None, _) => Some(test.name.clone()),
        (Some(_), false) => Some(format!("{}:inspection", test.name)),
        (Some(_), true) => None,
    }
}

/// Inspects an image unless the same was asked and held before, and has the verdict recorded. Returns why it failed, if it did.
///
/// # Errors
/// The image can't be read, or the verdict can't be recorded.
pub(crate) fn run(
    (client, store): (&Client, &Store),
    env: &EnvKey,
    title: &str,
    image: &Image,
    test: &ImageTest,
    screen: &mut Screen,
) -> Result<Option<String>, Failure> {
    let Some(name) = inspected_as(test) else { return Ok(None) };
    let question = question(image, &test.inspection);
    let says_so = test.probe.is_none();
    if client.verdict(&image.manifest, &name, &question)?.state == "passed" {
        if says_so {
            screen.note(&format!("test {title} passed before"));
        }
        return Ok(None);
    }
    let faults = inspect(store, image, &test.inspection).map_err(|error| {
        Failure::external(format!("test {title} can't read its image"))
            .caused_by(&error)
            .hint("`kiln bake` makes it again from the same inputs")
    })?;
    let failure = (!faults.is_empty()).then(|| faults.join("; "));
    let found = wire::Inspected {
        image: image.manifest.to_string(),
        test: name,
        question: question.to_string(),
        failure: failure.clone(),
        basis: None,
    };
    client.inspected(env, &found)?;
    if failure.is_none() && says_so {
        screen.note(&format!("test {title} passed"));
    }
    Ok(failure)
}

/// What is asked, as a digest. The destructuring is exhaustive, so that no new expectation passes for an old one.
fn question(image: &Image, asked: &Inspection) -> Digest {
    let Inspection { files, packages, no_root, no_setuid } = asked;
    let file = |ExpectedFile { path, absent, owner, mode }: &ExpectedFile| json!([path, absent, owner, mode]);
    let package =
        |ExpectedPackage { name, absent, version }: &ExpectedPackage| json!([name, absent, version]);
    let text = json!({
        "image": image.manifest.to_string(),
        "files": files.iter().map(file).collect::<Vec<_>>(),
        "packages": packages.iter().map(package).collect::<Vec<_>>(),
        "no_root": no_root,
        "no_setuid": no_setuid,
    });
    digest_of(text.to_string().as_bytes())
}
