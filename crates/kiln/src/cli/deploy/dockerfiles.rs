//! What is wrong with Dockerfiles, shown as what is wrong with the stack is.

use std::collections::BTreeMap;
use std::path::Path;

use kiln_bake::{BakeError, DockerfileProblem, OutsideInputs, check_dockerfiles};
use kiln_config::{Diagnostic, SourceSet};
use kiln_model::stack::Stack;

use crate::cli::failure::{Failure, Kind};

/// How a mistake in a Dockerfile is called in answers.
const CODE: &str = "dockerfile";

/// Returns what is wrong with a stack's Dockerfiles, and their texts. A folder that can't be read is told by whoever needs it.
pub(crate) fn check(stack: &Stack, folder: &Path) -> (Vec<Diagnostic>, Vec<(String, Vec<u8>)>) {
    match check_dockerfiles(stack, folder) {
        Err(BakeError::Dockerfile { problems }) => {
            let texts = texts(&problems);
            let sources: SourceSet = texts.iter().cloned().collect();
            (problems.iter().map(|problem| diagnostic(&sources, problem)).collect(), texts)
        }
        Err(error @ BakeError::NoDockerfile { .. }) => {
            let told = (error.to_string(), error.hint());
            (vec![Diagnostic::of_text(&SourceSet::default(), "", 0..0, CODE, &told.0, told.1)], Vec::new())
        }
        _ => (Vec::new(), Vec::new()),
    }
}

/// Returns what a stack's images are made from beside its folder and its bases.
///
/// # Errors
/// A Dockerfile is wrong or missing, or the folder can't be read.
pub(crate) fn outside_inputs(stack: &Stack, folder: &Path) -> Result<OutsideInputs, Failure> {
    let all = stack.images.keys().cloned().collect();
    kiln_bake::outside_inputs(stack, folder, &all).map_err(|error| match &error {
        BakeError::Dockerfile { problems } => failure(problems),
        error => {
            let kind = match error {
                BakeError::NoDockerfile { .. } => Kind::Config,
                _ => Kind::External,
            };
            let failure = Failure::new(kind, "what the images are made from can't be read").caused_by(error);
            match error.hint() {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
    })
}

/// What a bake found wrong.
pub(crate) fn failure(problems: &[DockerfileProblem]) -> Failure {
    let sources: SourceSet = texts(problems).into_iter().collect();
    let report: Vec<String> =
        problems.iter().map(|problem| diagnostic(&sources, problem).render(&sources, false)).collect();
    Failure::diagnostics(report.join("\n"), problems.len())
}

fn texts(problems: &[DockerfileProblem]) -> Vec<(String, Vec<u8>)> {
    let texts = problems.iter().map(|problem| (problem.file.clone(), problem.text.to_string().into_bytes()));
    texts.collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn diagnostic(sources: &SourceSet, problem: &DockerfileProblem) -> Diagnostic {
    let DockerfileProblem { file, span, message, help, .. } = problem;
    Diagnostic::of_text(sources, file, span.clone(), CODE, message, help.clone())
}
