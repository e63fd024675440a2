//! `kiln bake --prove`

use std::ffi::OsString;
use std::process::ExitCode;

use kiln_bake::{FileDifference, Proof, ProofError, Verdict, run_elsewhere};
use kiln_model::ByteSize;
use serde_json::{Value, json};

use super::bake::{Baked, Oven};
use super::context::Context;
use super::exit::Exit;
use super::failure::{Failure, Kind, Outcome};
use super::interrupt::Interrupt;
use super::table::Table;

/// Bakes what was baked just now once more, elsewhere, and says whether it is the same.
pub(super) fn run(baked: &Baked, interrupt: &Interrupt, context: &mut Context<'_>) -> Outcome {
    let state = context.state();
    let folder = context.folder()?;
    let oven = Oven::open(&state, &folder)?;
    context.screen.note("baking a second time, in other surroundings");
    let mut options: Vec<OsString> = vec!["--env".into(), context.env().as_str().into()];
    for (name, value) in &context.globals.vars {
        options.extend(["--var".into(), format!("{name}={value}").into()]);
    }
    let (source, images, parts) = (baked.source, &baked.images, &baked.parts);
    let (baker, state) = (&oven.baker, state.path());
    let proof = Proof { baker, state, folder: &folder, source, images, parts, options };
    // Ctrl-C ends the second bake, too, which then says nothing of the images.
    let verdicts = proof.run().map_err(|error| match interrupt.is_set() {
        true => Failure::failed("called off; nothing is proven, and what runs was not touched"),
        false => failure(&error),
    })?;
    let is_proven = verdicts.values().all(|verdict| matches!(verdict, Verdict::Proven(_)));
    let exit = if is_proven { Exit::Done } else { Exit::Failed };
    if context.screen.json() {
        let verdicts = verdicts.iter().map(|(name, verdict)| (name.to_string(), answer(verdict)));
        let images = images.iter().map(|(name, image)| (name.to_string(), json!(image.manifest.to_string())));
        let (images, proof): (serde_json::Map<_, _>, serde_json::Map<_, _>) =
            (images.collect(), verdicts.collect());
        context.screen.answer(&json!({ "source": source.to_string(), "images": images, "proof": proof }));
        return Ok(exit);
    }
    let mut table = Table::bare();
    let mut details = String::new();
    for (name, verdict) in &verdicts {
        let image = &images[name];
        let (digest, size) = (image.manifest.to_string(), ByteSize(image.size_bytes).to_string());
        table.row([name.to_string(), digest, size, word(verdict)]);
        details.push_str(&detail(name.as_str(), verdict));
    }
    context.screen.print(&(table.render(0) + &details));
    Ok(exit)
}

/// The second bake's process.
pub(super) fn elsewhere(words: impl Iterator<Item = OsString>) -> ExitCode {
    match run_elsewhere(words) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            let failure = Failure::external("there was no second bake").caused_by(&error);
            super::screen::Screen::new(false).complain(&failure.text(super::screen::Paint::PLAIN));
            Exit::External.into()
        }
    }
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Proven(certificate) => format!("proven, certificate {}", certificate.short()),
        Verdict::Differs(_) => "differs".into(),
        Verdict::Unproven(_) => "unproven".into(),
    }
}

fn detail(name: &str, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Proven(_) => String::new(),
        Verdict::Unproven(reasons) => reasons.iter().map(|reason| format!("{name}: {reason}\n")).collect(),
        Verdict::Differs(steps) => {
            let mut text = String::new();
            for step in steps {
                let of = step.part.as_ref().map(|part| format!(" of {part}")).unwrap_or_default();
                text.push_str(&format!("{name} differs in step `{}`{of}:\n", step.step));
                for file in &step.files {
                    let copies = match &file.copies[..] {
                        [] => String::new(),
                        copies => format!(" (in the image: {})", copies.join(", ")),
                    };
                    text.push_str(&format!("  {}: {}{copies}\n", file.path, file.what));
                }
                if step.count > step.files.len() {
                    text.push_str(&format!("  and {} more\n", step.count - step.files.len()));
                }
            }
            text
        }
    }
}

fn answer(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Proven(certificate) => {
            json!({ "verdict": "proven", "certificate": certificate.to_string() })
        }
        Verdict::Unproven(reasons) => json!({ "verdict": "unproven", "reasons": reasons }),
        Verdict::Differs(steps) => {
            let steps = steps.iter().map(|step| {
                let file = |file: &FileDifference| {
                    json!({ "path": file.path, "what": file.what, "copies": file.copies })
                };
                let files: Vec<Value> = step.files.iter().map(file).collect();
                json!({ "step": step.step, "of": step.part, "count": step.count, "files": files })
            });
            json!({ "verdict": "differs", "steps": steps.collect::<Vec<_>>() })
        }
    }
}

fn failure(error: &ProofError) -> Failure {
    let failure = match error {
        // That it fails elsewhere only is an answer, too.
        ProofError::Failed { .. } => Failure::new(Kind::Failed, "the images are not proven"),
        _ => Failure::external("the images are not proven"),
    };
    failure.caused_by(error)
}
