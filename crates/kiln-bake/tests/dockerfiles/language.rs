//! The language: what settings, variables and stages come to, and what is refused where.

use serde_json::json;

use crate::kitchen::{Kitchen, dockerfile};

#[test]
fn settings_become_what_buildkit_makes_of_them() {
    let kitchen = Kitchen::new();
    let dish = kitchen.of(
        "FROM os\nENV Z=1 A=\"two words\"\nENV old style value\nENV Z=3\nLABEL b=2 a=\"1\"\nWORKDIR /srv\nWORKDIR app\n\
         USER app:extra\nEXPOSE 80 53/udp 9000-9001\nVOLUME /data\nVOLUME [\"/more\"]\nSTOPSIGNAL SIGQUIT\n\
         SHELL [\"/bin/sh\", \"-ec\"]\nMAINTAINER somebody\nHEALTHCHECK --interval=5s --retries=3 CMD wget -q localhost\n\
         ENTRYPOINT exec top -b\nCMD [\"-x\"]\nONBUILD RUN echo hi\n",
    );
    assert_eq!(dish.env(), ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "Z=3", "A=two words", "old=style value"]);
    assert_eq!(
        dish.config,
        json!({
            "Cmd": ["-x"],
            "Entrypoint": ["/bin/sh", "-ec", "exec top -b"],
            "Env": dish.env(),
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}, "9000/tcp": {}, "9001/tcp": {}},
            "Healthcheck": {"Interval": 5_000_000_000_u64, "Retries": 3, "Test": ["CMD-SHELL", "wget -q localhost"]},
            "Labels": {"a": "1", "b": "2"},
            "OnBuild": ["RUN echo hi"],
            "Shell": ["/bin/sh", "-ec"],
            "StopSignal": "SIGQUIT",
            "User": "app:extra",
            "Volumes": {"/data": {}, "/more": {}},
            "WorkingDir": "/srv/app",
        })
    );
    assert_eq!(dish.whole["author"], "somebody");
    assert_eq!((dish.meta("srv"), dish.meta("srv/app")), ("755 0:0".into(), "755 0:0".into()));
}

#[test]
fn nothing_has_a_path_and_a_working_folder() {
    let dish = Kitchen::new().of("FROM scratch\nCMD [\"/x\"]\n");
    assert_eq!(
        dish.config,
        json!({
            "Cmd": ["/x"],
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "WorkingDir": "/",
        })
    );
    assert!(dish.tree.is_empty());
}

#[test]
fn an_entrypoint_drops_the_command_of_the_base_and_keeps_its_own() {
    let kitchen = Kitchen::new();
    let base = "FROM os AS base\nENTRYPOINT [\"a\"]\nCMD [\"b\"]\n";
    for (rest, entrypoint, command) in [
        ("FROM base", vec!["a"], vec!["b"]),
        ("FROM base\nENTRYPOINT [\"c\"]", vec!["c"], vec![]),
        ("FROM base\nCMD [\"d\"]\nENTRYPOINT [\"c\"]", vec!["c"], vec!["d"]),
        ("FROM base\nENTRYPOINT [\"c\"]\nCMD d e", vec!["c"], vec!["/bin/sh", "-c", "d e"]),
        ("FROM base\nENTRYPOINT []", vec![], vec![]),
        ("FROM base\nCMD []", vec!["a"], vec![]),
    ] {
        let dish = kitchen.of(&format!("{base}{rest}\n"));
        assert_eq!(
            (dish.strings("Entrypoint"), dish.strings("Cmd")),
            (strings(&entrypoint), strings(&command)),
            "{rest}"
        );
    }
}

fn strings(items: &[&str]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn variables_have_the_scope_that_they_have_in_docker() {
    let kitchen = Kitchen::new();
    kitchen.write(
        "web/Dockerfile",
        "ARG BASE=os\nARG VERSION=1\nARG UNSET\nFROM $BASE AS first\nARG VERSION\nARG OWN=${VERSION}-own\nENV E=${VERSION:-none}\n\
         ENV VERSION=of-env\nARG UNSET\nARG TARGETARCH\nARG TARGETOS\nRUN echo $E $OWN $VERSION [$UNSET] $TARGETOS > /out\n\
         LABEL l=$OWN arch=$TARGETARCH\nFROM first\nRUN echo [$OWN] $E > /second\nENV a=1\nENV a=2 b=$a\n",
    );
    let dish = kitchen.bake();
    assert_eq!(dish.text("out"), "1 1-own of-env [] linux\n");
    assert_eq!(dish.text("second"), "[] 1\n");
    assert_eq!(dish.config["Labels"]["l"], "1-own");
    assert_eq!(dish.config["Labels"]["arch"], kiln_bake::debian::ARCH);
    assert!(dish.env().contains(&"b=1".into()), "{:?}", dish.env());
    let dish = kitchen.bake_with(|source| {
        source.args = [("VERSION".into(), "9".into()), ("UNSET".into(), "set".into())].into();
    });
    assert_eq!(dish.text("out"), "9 9-own of-env [set] linux\n");
}

#[test]
fn a_target_is_a_stage_by_name_or_number_and_unused_ones_are_not_made() {
    let kitchen = Kitchen::new();
    kitchen.write(
        "web/Dockerfile",
        "FROM os AS Build\nRUN echo built > /built\nFROM os AS broken\nRUN exit 1\nFROM registry.example/nowhere AS far\n\
         RUN x\nFROM scratch\nCOPY --from=build /built /\nCOPY --from=0 /built /again\n",
    );
    let dish = kitchen.bake();
    assert_eq!((dish.text("built"), dish.text("again")), ("built\n".into(), "built\n".into()));
    for target in ["build", "BUILD", "0"] {
        assert!(
            kitchen.bake_with(|source| source.target = Some(target.into())).has("bin/busybox"),
            "{target}"
        );
    }
    let error = kitchen.try_bake({
        let mut source = dockerfile("web");
        source.target = Some("biuld".into());
        source
    });
    assert!(error.unwrap_err().to_string().contains("there is no stage `biuld`"));
}

#[test]
fn names_mean_what_the_stack_says() {
    let kitchen = Kitchen::new();
    kitchen.write("web/Dockerfile", "FROM docker.io/library/debian:latest AS build\nRUN echo 1 > /x\nFROM scratch\nCOPY --from=build /etc/group /\nCOPY --from=tools:1 /etc/passwd /\n");
    let os = || kiln_model::recipe::ImageSource::Image(crate::fixture::image("os"));
    let dish = kitchen
        .bake_with(|source| source.contexts = [("debian".into(), os()), ("tools:1".into(), os())].into());
    assert!(dish.has("group") && dish.has("passwd"));
    // A stage of that name is not made at all.
    let dish = kitchen
        .bake_with(|source| source.contexts = [("build".into(), os()), ("tools:1".into(), os())].into());
    assert!(dish.has("group"));
}

#[test]
fn what_an_image_says_for_its_children_is_done_in_them() {
    let kitchen = Kitchen::new();
    kitchen.write("web/app.txt", "app");
    let dish = kitchen.of(
        "FROM os AS base\nWORKDIR /app\nONBUILD COPY app.txt .\nONBUILD RUN cat app.txt > copied\nONBUILD ENV DONE=yes\n\
         FROM base\nRUN test \"$DONE\" = yes\n",
    );
    assert_eq!(dish.text("app/copied"), "app");
    assert_eq!(dish.config.get("OnBuild"), None);
}

#[test]
fn lines_go_on_and_comments_stand_anywhere() {
    let kitchen = Kitchen::new();
    let dish = kitchen.of(
        "\u{feff}# escape=`\r\n# a comment\r\n\r\nfrom os\r\nRUN echo one `\r\n  # in between\r\n\r\n  two > /out && `   \r\n  echo 'c:\\' >> /out\r\nrun echo three >> /out",
    );
    assert_eq!(dish.text("out"), "one two\nc:\\\nthree\n");
}

/// Texts, and all that is said about them.
const MISTAKES: &[(&str, &str)] = &[
    ("", "web/Dockerfile:1:1: the Dockerfile has no FROM"),
    ("# only a comment\n", "web/Dockerfile:1:1: the Dockerfile has no FROM"),
    ("RUN x\nFROM os\n", "web/Dockerfile:1:1: only ARG may stand before the first FROM"),
    ("FROM os\nRNU x\n", "web/Dockerfile:2:1: there is no instruction `RNU` (did you mean `RUN`?)"),
    ("FROM os\nCOPY a\n", "web/Dockerfile:2:6: COPY needs what to copy, and where to (write `COPY from to`)"),
    ("FROM os\nCOPY --form=x a b\n", "web/Dockerfile:2:6: COPY has no flag `--form` (did you mean `from`?)"),
    ("FROM os\nENV a\n", "web/Dockerfile:2:5: ENV needs a name and a value (write `ENV a=…`)"),
    (
        "FROM os\nENV a=1 b\n",
        "web/Dockerfile:2:9: `b` has no `=` (a value with a space is quoted: `NAME=\"two words\"`)",
    ),
    ("FROM os\nEXPOSE http\n", "web/Dockerfile:2:8: `http` is no port, such as 8080 or 53/udp"),
    ("FROM os\nCMD [1]\n", "web/Dockerfile:2:5: a list in the JSON form holds strings only"),
    (
        "FROM os\nSHELL sh\n",
        "web/Dockerfile:2:7: SHELL takes a list in the JSON form (write `SHELL [\"/bin/bash\", \"-c\"]`)",
    ),
    ("FROM os\nLABEL a=${b\n", "web/Dockerfile:2:9: a `${` is not closed: `}` is missing"),
    ("FROM os\nLABEL a=\"b\n", "web/Dockerfile:2:9: a `\"` is not closed"),
    ("FROM os\nARG V\nRUN x \\\n  y\nLABEL a=${V:?needed}\n", "web/Dockerfile:5:9: V: needed"),
    (
        "FROM os AS 1st\n",
        "web/Dockerfile:1:12: `1st` can't be the name of a stage (it begins with a letter; letters, digits, `-`, `_` and `.` follow)",
    ),
    (
        "FROM os AS build\nFROM biuld\n",
        "web/Dockerfile:2:6: `biuld` is neither a stage nor a context (did you mean `build`?)",
    ),
    (
        "FROM $NOTHING\n",
        "web/Dockerfile:1:6: FROM names nothing: its variables are not set (give a default before the first FROM, as in `ARG NAME=value`)",
    ),
    ("FROM os\nCOPY --from=2 a b\n", "web/Dockerfile:2:13: there is no stage 2: the stages are 0 to 0"),
    (
        "FROM os AS a\nCOPY --from=b /x /\nFROM a AS b\n",
        "web/Dockerfile:3:6: this stage is made from itself, through what it copies",
    ),
    (
        "FROM os\nRUN --network=host x\n",
        "web/Dockerfile:2:5: this RUN has the host's network, and the image has none (set `network = true` in the image)",
    ),
    (
        "FROM oci:./base\n",
        "web/Dockerfile:1:6: an image of a folder or a file is named by the stack alone (give it a name in `contexts` of the image: `{ NAME = \"oci:./base\" }`)",
    ),
    ("FROM os\nRUN --security=insecure x\n", "web/Dockerfile:2:5: a RUN can't leave the sandbox"),
    (
        "FROM os\nRUN --mount=type=ssh,required x\n",
        "web/Dockerfile:2:5: this needs an SSH agent, which the image is not given (set `ssh = true` in the image, and `SSH_AUTH_SOCK` for the command that bakes)",
    ),
    ("FROM os\nRUN --mount=type=cache x\n", "web/Dockerfile:2:5: a mount needs a `target`"),
    (
        "FROM os\nRUN --mount=type=cache,target=/c,source=/x x\n",
        "web/Dockerfile:2:5: a cache has a `source` only with `from`: it begins empty (name the stage or the image that it begins with)",
    ),
    (
        "FROM os\nRUN --mount=type=cache,target=/proc/x x\n",
        "web/Dockerfile:2:13: nothing can be mounted at `/proc/x`: a step has its own there",
    ),
    ("FROM os\nADD https://example.org/x /x\n", "the file of `https://example.org/x` is not locked\n"),
    (
        "FROM os\nARG FROM=https://example.org/x\nADD $FROM /x\n",
        "the file of `https://example.org/x` is not locked\n",
    ),
    (
        "FROM os\nADD https://example.org/x-${OF_THE_BASE}.tar /x\n",
        "web/Dockerfile:2:5: the file of this URL is not locked (run `kiln lock`; where a variable of the base image is in the URL, add `--checksum=sha256:…` to the ADD)",
    ),
    (
        "FROM os\nARG x=\"a b\"\nADD https://example.org/$x /x\n",
        "web/Dockerfile:3:5: a URL has no blanks, and no letters but those of ASCII",
    ),
    (
        "FROM os\nADD --checksum=sha256:12 https://example.org/x /x\n",
        "web/Dockerfile:2:16: the checksum is not a sha256 (write `--checksum=sha256:` and 64 hexadecimal digits)",
    ),
    (
        "FROM os\nADD --checksum=x https://example.org/x https://example.org/y /x/\n",
        "web/Dockerfile:2:18: a URL with a checksum is added alone: it is of one file (write an ADD for each)",
    ),
    (
        "FROM os\nADD --checksum=x Dockerfile /x\n",
        "web/Dockerfile:2:16: a checksum is of the file of a URL or of a commit, and none is added here",
    ),
    ("FROM os\nADD git@example.org:a/b.git /x\n", "the commit of `git@example.org:a/b.git` is not locked\n"),
    (
        "FROM os\nADD https://example.org/b.git#${OF_THE_BASE} /x\n",
        "web/Dockerfile:2:5: the commit of this repository is not locked (run `kiln lock`; an address can't have variables of the base image)",
    ),
    (
        "FROM os\nADD https://me:token@example.org/b.git /x\n",
        "web/Dockerfile:2:5: who you are would stand in kiln.lock for all to read",
    ),
    (
        "FROM os\nADD --keep-git-dir https://example.org/b.git /x\n",
        "web/Dockerfile:2:5: a `.git` can't be kept: what is in it differs with the version of Git (an ARG can have the version that is to be shown)",
    ),
    (
        "FROM os\nADD --checksum=sha256:12 https://example.org/b.git /x\n",
        "web/Dockerfile:2:16: the checksum of a repository is a commit (write `--checksum=` and the commit's 40 hexadecimal digits)",
    ),
    (
        "FROM os\nADD github.com/a/b.git#v1 /x\n",
        "web/Dockerfile:2:5: a Git repository needs its whole address (write `https://github.com/a/b.git`)",
    ),
    (
        "FROM os\nADD ftp://example.org/x /x\n",
        "web/Dockerfile:2:5: ADD of such a URL is not supported: it is neither http nor https nor Git (put the files into the build context, or fetch them in a RUN of an image with `network = true`)",
    ),
    (
        "FROM os\nCOPY ../x /\n",
        "web/Dockerfile:2:6: this leaves the build context (set `context` of the image to a folder that holds it)",
    ),
    ("FROM os\nCOPY nothing /\n", "web/Dockerfile:2:6: `nothing` is not in the build context"),
    ("FROM os\nRUN <<EOF\necho\n", "web/Dockerfile:2:1: the heredoc is not closed by a line `EOF`"),
    ("FROM os\nONBUILD FROM x\n", "web/Dockerfile:2:9: FROM can't be in an ONBUILD"),
    ("FROM os\nHEALTHCHECK ping\n", "web/Dockerfile:2:13: HEALTHCHECK takes `CMD` and a command, or `NONE`"),
    ("FROM os\nSTOPSIGNAL SIGNO\n", "web/Dockerfile:2:12: `SIGNO` is no signal"),
    ("FROM os\nVOLUME data\n", "web/Dockerfile:2:8: `data` is no absolute path"),
    (
        "# syntax=example.org/other\nFROM os\n",
        "web/Dockerfile:1:10: `example.org/other` is another language than Dockerfiles (Kiln reads Dockerfiles by itself and runs no front end from a registry)",
    ),
    ("# escape=x\nFROM os\n", "web/Dockerfile:1:10: the escape character is `\\` or a backquote"),
];

#[test]
fn every_mistake_is_told_at_its_place() {
    let kitchen = Kitchen::new();
    for (text, expected) in MISTAKES {
        assert_eq!(kitchen.refused(text), *expected, "{text}");
    }
    let platform = kitchen.refused("FROM --platform=windows/amd64 os\n");
    let ours = kiln_bake::debian::ARCH;
    let expected = format!("the platform `windows/amd64` is not this machine's, which is linux/{ours}");
    assert_eq!(platform, format!("web/Dockerfile:1:17: {expected}"));
    let both = kitchen.refused("FROM os\nRNU x\nEXPOSE\n");
    assert_eq!(both.lines().count(), 2, "all mistakes at once: {both}");
}

#[test]
fn a_dockerfile_may_lie_elsewhere_than_its_context() {
    let kitchen = Kitchen::new();
    kitchen
        .write("docker/web.Dockerfile", "FROM scratch\nCOPY src/ /src/\n")
        .write("src/a", "a")
        .write("src/b.tmp", "b");
    kitchen.write("docker/web.Dockerfile.dockerignore", "**/*.tmp\n").write(".dockerignore", "src\n");
    let dish = kitchen.try_bake({
        let mut source = dockerfile("docker/web.Dockerfile");
        source.context = Some(String::new());
        source
    });
    let dish = dish.unwrap();
    assert!(dish.has("src/a") && !dish.has("src/b.tmp"));
    let missing = kitchen.try_bake(dockerfile("nowhere")).unwrap_err();
    assert_eq!(missing.to_string(), "image `web`: there is no Dockerfile at nowhere");
}

#[test]
fn a_step_is_found_by_content_and_done_again_for_what_changed() {
    let kitchen = Kitchen::new();
    kitchen.write("web/a", "1").write("web/b", "1").write(
        "web/Dockerfile",
        "FROM os AS build\nCOPY a /a\nRUN cat /a > /made\nFROM os\nCOPY b /b\nCOPY --from=build /made /made\nRUN cat /made > /end\n",
    );
    let stack = Kitchen::stack(dockerfile("web"));
    let first = kitchen.bake_stack(&stack).0.unwrap();
    let all_found = |steps: &[(String, bool)]| steps.iter().all(|(_, found)| *found);
    let (second, steps) = kitchen.bake_stack(&stack);
    assert_eq!(second.unwrap().image, first.image);
    assert!(steps.len() == 5 && all_found(&steps), "{steps:?}");
    // Another time, the same content.
    let later = std::time::SystemTime::now() - std::time::Duration::from_secs(1000);
    std::fs::File::open(kitchen.path("web/a")).unwrap().set_modified(later).unwrap();
    let (third, steps) = kitchen.bake_stack(&stack);
    assert!(third.unwrap().image == first.image && all_found(&steps), "{steps:?}");
    kitchen.write("web/a", "2");
    let (fourth, steps) = kitchen.bake_stack(&stack);
    assert_ne!(fourth.unwrap().image, first.image);
    let mut again: Vec<&str> =
        steps.iter().filter(|(_, found)| !found).map(|(what, _)| what.as_str()).collect();
    again.sort_unstable();
    assert_eq!(
        again,
        ["COPY --from=build /made /made", "COPY a /a", "RUN cat /a > /made", "RUN cat /made > /end"]
    );
    kitchen.write("web/a", "1");
    assert_eq!(kitchen.bake_anew(dockerfile("web")).image, first.image, "another store gives the same image");
}

#[test]
fn a_healthcheck_is_how_a_service_is_asked() {
    let kitchen = Kitchen::new();
    let asked = |text: &str| {
        let dish = kitchen.of(&format!("FROM os\n{text}\n"));
        dish.image.config.health.map(|health| {
            (health.probe, health.interval.0, health.timeout.0, health.startup.0, health.unhealthy_after)
        })
    };
    let run = |argv: &[&str]| kiln_model::instance::Probe::Command { argv: strings(argv), expected: None };
    assert_eq!(
        asked("HEALTHCHECK CMD true"),
        Some((run(&["/bin/sh", "-c", "true"]), 30_000, 30_000, 90_000, 3))
    );
    let all =
        "HEALTHCHECK --interval=1s --timeout=200ms --start-period=5s --retries=2 CMD [\"/probe\", \"x\"]";
    assert_eq!(asked(all), Some((run(&["/probe", "x"]), 1000, 200, 7000, 2)));
    assert_eq!(
        asked("SHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nHEALTHCHECK CMD a b").unwrap().0,
        run(&["/bin/busybox", "sh", "-c", "a b"])
    );
    assert_eq!(asked("HEALTHCHECK CMD true\nHEALTHCHECK NONE"), None);
    assert_eq!(asked("CMD true"), None);
}
