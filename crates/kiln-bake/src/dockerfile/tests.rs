//! Odd and hostile texts: each is read as BuildKit reads it, or refused at its place.

use std::collections::BTreeMap;

use kiln_model::recipe::{DockerfileSource, ImageSource};
use proptest::prelude::*;

use super::instruction::{Action, CommandLine, CopySource};
use super::parse::parse;
use super::plan::Plan;

fn source() -> DockerfileSource {
    DockerfileSource {
        path: "web".into(),
        context: None,
        target: None,
        args: BTreeMap::new(),
        contexts: BTreeMap::from([("os".into(), ImageSource::Scratch)]),
        secrets: Default::default(),
        ssh: false,
        network: false,
    }
}

/// The instructions of a text, one a line, without their places.
fn read(text: &str) -> String {
    let parsed = parse(text);
    let mut out: Vec<String> = parsed.instructions.iter().map(|one| shown(&one.action)).collect();
    out.extend(
        parsed.problems.iter().map(|one| format!("{}..{}: {}", one.span.start, one.span.end, one.message)),
    );
    out.join("\n")
}

fn shown(action: &Action) -> String {
    let line = |line: &CommandLine| match line {
        CommandLine::Shell(text) => format!("{text:?}"),
        CommandLine::Exec(words) => format!("{words:?}"),
    };
    match action {
        Action::From(from) => {
            format!("from {} as {:?}", from.image.text, from.name.as_ref().map(|name| &name.text))
        }
        Action::Run(run) => {
            let documents: Vec<_> = run.heredocs.iter().map(|one| (&one.name, one.chomped())).collect();
            format!("run {} {documents:?}", line(&run.command))
        }
        Action::Copy(copy) => {
            let source = |source: &CopySource| match source {
                CopySource::Path(word) => word.text.clone(),
                CopySource::File(document, _) => format!("<<{} {:?}", document.name, document.content),
            };
            let sources: Vec<String> = copy.sources.iter().map(source).collect();
            format!("copy {sources:?} {}", copy.to.text)
        }
        Action::Env(pairs) | Action::Label(pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(name, value)| (&name.text, &value.text)).collect();
            format!("pairs {pairs:?}")
        }
        Action::Arg(args) => {
            let args: Vec<_> =
                args.iter().map(|(name, value)| (&name.text, value.as_ref().map(|v| &v.text))).collect();
            format!("arg {args:?}")
        }
        Action::Cmd(cmd) => format!("cmd {}", line(cmd)),
        Action::OnBuild(_, text) => format!("onbuild {text:?}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn odd_texts_are_read_as_buildkit_reads_them() {
    let mut wrong = String::new();
    for (text, expected) in [
        ("FROM a\\\n  b\n", "5..11: FROM takes an image, and a name after `AS`"),
        ("FROM a aS B", "from a as Some(\"b\")"),
        ("RUN a \\\n\n\n b", "run \"a  b\" []"),
        ("RUN a \\ \t\n# c\n  # d \\\n b \\", "run \"a  b\" []"),
        ("RUN a \\\\\nRUN b", "run \"a \\\\\\\\\" []\nrun \"b\" []"),
        ("RUN \\\n", "0..3: RUN needs an argument"),
        ("\\\nRUN a", "run \"a\" []"),
        ("RUN [\"a\",\"b\" ]", "run [\"a\", \"b\"] []"),
        ("RUN [\"a\", \"b\"", "run \"[\\\"a\\\", \\\"b\\\"\" []"),
        ("RUN ['a']", "run \"['a']\" []"),
        ("RUN [ -f /x ] && y", "run \"[ -f /x ] && y\" []"),
        ("CMD", "cmd []"),
        ("CMD []", "cmd []"),
        ("CMD --flag x", "cmd \"--flag x\""),
        ("ENV a b c", "pairs [(\"a\", \"b c\")]"),
        (
            "ENV a=b\\ c d='e f' g=\"h \\\" i\" j=",
            "pairs [(\"a\", \"b\\\\ c\"), (\"d\", \"'e f'\"), (\"g\", \"\\\"h \\\\\\\" i\\\"\"), (\"j\", \"\")]",
        ),
        ("ENV =x", "4..6: ENV has a value without a name"),
        ("ARG a b=c d=\"e f\"", "arg [(\"a\", None), (\"b\", Some(\"c\")), (\"d\", Some(\"\\\"e f\\\"\"))]"),
        ("COPY [\"a b\", \"c\"]", "copy [\"a b\"] c"),
        ("COPY a\tb  c/", "copy [\"a\", \"b\"] c/"),
        ("COPY <<a <<'b' /\n1\na\n2\nb\n", "copy [\"<<a \\\"1\\\\n\\\"\", \"<<b \\\"2\\\\n\\\"\"] /"),
        ("COPY x <<a\na\n", "7..10: a heredoc can't be where something is copied to"),
        (
            "RUN <<-a cat && <<b dog\n\t# no comment\n\ta\nx \\\nb",
            "run \"<<-a cat && <<b dog\" [(\"a\", \"# no comment\\n\"), (\"b\", \"x \\\\\\n\")]",
        ),
        ("RUN <<EOF\r\nx\r\nEOF\r\nRUN y", "run \"<<EOF\" [(\"EOF\", \"x\\n\")]\nrun \"y\" []"),
        ("RUN echo \"<<EOF\"\nRUN b", "run \"echo \\\"<<EOF\\\"\" []\nrun \"b\" []"),
        ("ONBUILD RUN <<a\nx\na", "onbuild \"RUN <<a\\nx\\na\""),
        ("# escape=`\n# escape=`\n", "20..21: the directive `escape` is there twice"),
        (
            "# Syntax=docker/dockerfile:1.7-labs\n#check=skip=all\n# escape = `\nRUN a `\n b",
            "run \"a  b\" []",
        ),
        ("#\n# escape=`\nRUN a `\n", "run \"a `\" []"),
        ("\u{1b}[31mRUN x", "0..8: there is no instruction `\\u{1b}[31mRUN`"),
        ("RUN --mount=type=bnd,target=/x y", "12..30: there is no mount of type `bnd`"),
        ("RUN --mount=tpye=bind,target=/x y", "12..31: a mount has no `tpye`"),
        ("RUN --mount y", "4..11: `--mount` needs a value"),
        ("RUN --network=none --network=none y", "19..33: `--network` is there twice"),
        ("USER --x y", "5..8: USER has no flags"),
        ("COPY --link=maybe a b", "12..17: `--link` is `true` or `false`"),
    ] {
        if read(text) != expected {
            wrong.push_str(&format!("{text:?}\n  expected {expected}\n  found    {}\n", read(text)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_text_that_never_ends_is_read_in_bounds() {
    for text in [
        "\\\n".repeat(50_000),
        "RUN x \\\n".repeat(50_000),
        "# c\n".repeat(99_000),
        format!("FROM os\n{}", "LABEL a=b\n".repeat(20_000)),
        format!("FROM os\nRUN {}", "<<a ".repeat(10_000)),
        format!("FROM os\nENV {}", "a=$b ".repeat(20_000)),
        format!("FROM os\nCOPY {} /", "[".repeat(100_000)),
        format!("FROM os\nCMD {}", "[".repeat(100_000)),
        "x".repeat(1 << 20),
    ] {
        let _ = Plan::new("web/Dockerfile", &text, &source());
    }
    let long = Plan::new("web/Dockerfile", &"\n".repeat(200_000), &source()).unwrap_err();
    assert!(long[0].message.contains("at most 100000 lines"), "{}", long[0]);
}

fn piece() -> impl Strategy<Value = String> {
    let words = [
        "FROM",
        "os",
        "AS",
        "a",
        "RUN",
        "COPY",
        "--from=a",
        "--mount=type=bind,target=/x",
        "<<EOF",
        "<<-'E F'",
        "EOF",
        "\n",
        "\\\n",
        "$",
        "${",
        "}",
        "${a:-",
        "${a#*}",
        "\"",
        "'",
        "\\",
        "ENV",
        "=",
        "ARG",
        "[",
        "]",
        "[\"a\"]",
        "#",
        " ",
        "\t",
        "\r\n",
        "ONBUILD",
        "HEALTHCHECK",
        "CMD",
        "--interval=1s",
        "\u{fc}",
        "\u{feff}",
        "\0",
        "EXPOSE",
        "80-90",
        "escape=`",
    ];
    prop_oneof![4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => "\\PC{0,6}"]
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused_at_a_place_within_it(pieces in prop::collection::vec(piece(), 0..40)) {
        let text = pieces.join(if pieces.len() % 2 == 0 { " " } else { "" });
        for text in [text.clone(), format!("FROM os\n{text}")] {
            if let Err(problems) = Plan::new("web/Dockerfile", &text, &source()) {
                prop_assert!(!problems.is_empty());
                for problem in problems {
                    prop_assert!(problem.span.start <= problem.span.end && problem.span.end <= text.len());
                    let (line, column) = problem.position();
                    prop_assert!(line >= 1 && column >= 1);
                }
            }
        }
    }
}

#[test]
fn what_the_stack_gives_and_no_arg_of_any_stage_declares_is_found() {
    let text = "ARG BASE=os\nFROM $BASE AS unused\nARG ELSEWHERE\nFROM os\nARG A B=1\nONBUILD ARG LATER\n";
    let names = ["A", "B", "BASE", "ELSEWHERE", "HTTP_PROXY", "LATER", "a", "TARGETARCH"];
    let args = names.iter().map(|name| ((*name).to_owned(), "os".to_owned())).collect();
    let plan = Plan::new("Dockerfile", text, &DockerfileSource { args, ..source() }).unwrap();
    assert_eq!(plan.unused_args, ["TARGETARCH", "a"]);
}
