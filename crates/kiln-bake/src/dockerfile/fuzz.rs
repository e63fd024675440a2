//! Dockerfiles, and what else of lines users write, mutated.

use ::fuzz::Target;
use kiln_model::recipe::DockerfileSource;

use super::{Plan, parse_trigger};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn dockerfiles() {
    let source = DockerfileSource {
        path: "web".into(),
        context: None,
        target: None,
        args: [("VERSION".to_owned(), "1".to_owned())].into(),
        contexts: Default::default(),
        secrets: Default::default(),
        ssh: false,
        network: false,
    };
    let instructions = [
        "FROM scratch AS a\n",
        "ARG x=",
        "ENV a=",
        "COPY --from=a ",
        "RUN --mount=type=cache,target=",
        "ONBUILD ",
    ];
    let more = [
        "<<EOF\n",
        "EOF\n",
        "${x:-",
        "${x%%*",
        "}",
        "\\\n",
        "[\"",
        "\", \"",
        "\"]",
        "# syntax=",
        "# escape=`\n",
        "HEALTHCHECK ",
    ];
    let settings = ["!", "**", "*", "?", "[a-z]", "[^", "{a,b}", "../", "sha256:", "package ", "base "];
    let folder = std::path::Path::new(CRATE).join("tests/dockerfiles/projects");
    Target::new(CRATE, "dockerfiles")
        .seeds_of(folder, "")
        .words(&instructions)
        .words(&more)
        .words(&settings)
        .run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let first = text.lines().next().unwrap_or_default();
            let trigger = parse_trigger(first).map(|_| ()).is_ok();
            let plan = Plan::new("Dockerfile", &text, &source).map(|plan| plan.needed().len());
            let plan = plan.map_err(|problems| problems.iter().map(ToString::to_string).collect::<String>());
            format!("{plan:?} {trigger} {}", crate::stage::fuzz::settings(&text))
        });
}
