//! RUN: its shell, its heredocs, its mounts, its user, and what is left of it.

use crate::kitchen::{Kitchen, dockerfile};

#[test]
fn commands_run_by_the_shell_that_is_set_or_by_none() {
    let dish = Kitchen::new().of(
        "FROM os\nRUN echo \"$0\" a   b > /shell\nRUN [\"touch\", \"/a b\"]\nSHELL [\"/bin/sh\", \"-euc\"]\nRUN set -o | grep nounset > /set\n\
         RUN echo one \\\n    two \\\n# comment\n  three > /lines\n",
    );
    assert_eq!(dish.text("shell"), "/bin/sh a b\n");
    assert!(dish.has("a b"));
    assert!(dish.text("set").contains("on"));
    assert_eq!(dish.text("lines"), "one two three\n");
}

#[test]
fn heredocs_are_scripts_or_the_shells_own() {
    let dish = Kitchen::new().of(
        "FROM os\nARG who=me\nRUN <<EOF\necho first > /a\necho $who >> /a\nEOF\nRUN <<-EOF\n\techo tab > /b\n\tEOF\n\
         RUN <<'SCRIPT'\n#!/usr/bin/awk -f\nBEGIN { print \"awk\" > \"/c\" }\nSCRIPT\nRUN cat <<one > /d && cat <<'two' >> /d\n$who\none\n$who\ntwo\n\
         RUN sh <<EOF > /e\necho piped\nEOF\n",
    );
    for (path, expected) in
        [("a", "first\nme\n"), ("b", "tab\n"), ("c", "awk\n"), ("d", "me\n$who\n"), ("e", "piped\n")]
    {
        assert_eq!(dish.text(path), expected, "{path}");
    }
    assert!(!dish.has(".kiln"), "the script is not in the image");
}

#[test]
fn users_and_folders_are_those_of_the_stage() {
    let dish = Kitchen::new().of(
        "FROM os\nUSER app\nWORKDIR /home/app/work\nRUN id -u > id && id -g >> id && id -G >> id && echo $HOME >> id\nUSER 1234\nRUN id -u > /tmp/other\n\
         USER root\nRUN id -u > /root-id\n",
    );
    assert_eq!(dish.text("home/app/work/id"), "1000\n1001\n1001 50\n/home/app\n");
    assert_eq!(dish.meta("home/app/work"), "755 1000:1001");
    assert_eq!(dish.text("tmp/other"), "1234\n");
    assert_eq!(dish.text("root-id"), "0\n");
}

#[test]
fn mounts_are_seen_and_leave_nothing() {
    let kitchen = Kitchen::new();
    kitchen.write("web/ctx/file", "of the context").write("web/ctx/sub/x", "x").write("web/ctx/skip.md", "x");
    kitchen.write("web/.dockerignore", "**/*.md\n");
    let dish = kitchen.of(
        "FROM os AS build\nRUN mkdir /made && echo made > /made/it\nFROM os\nWORKDIR /w\n\
         RUN --mount=type=bind,source=ctx,target=/mnt/ctx --mount=from=build,source=/made/it,dst=one \\\n\
             --mount=type=tmpfs,target=/scratch --mount=type=secret,id=none --mount=type=bind,from=build,target=/rw,rw \\\n\
             cat /mnt/ctx/file one > /seen && ls /mnt/ctx >> /seen && touch /scratch/gone && touch /rw/written && cat /rw/made/it >> /seen && \\\n\
             ! touch /mnt/ctx/x 2>/dev/null && ! test -e /run/secrets/none && stat -f -c %T /scratch >> /seen\n\
         RUN --mount=target=. cp ctx/sub/x /from-context\n",
    );
    assert_eq!(dish.text("seen"), "of the contextmade\nfile\nsub\nmade\ntmpfs\n");
    for gone in ["mnt", "w/one", "scratch", "rw", "run"] {
        assert!(!dish.has(gone), "{gone}");
    }
    assert_eq!(dish.text("from-context"), "x");
}

#[test]
fn a_cache_survives_and_is_in_no_image() {
    let kitchen = Kitchen::new();
    let text = |n: u32| {
        format!(
            "FROM os\nRUN --mount=type=cache,target=/cache,id=shared,uid=1000,mode=0750 echo {n} >> /cache/log && cat /cache/log > /seen && stat -c '%a %u' /cache >> /seen\n\
            RUN --mount=type=cache,id=shared,target=/other,ro cat /other/log > /again; ! touch /other/x 2>/dev/null\n"
        )
    };
    assert_eq!(kitchen.of(&text(1)).text("seen"), "1\n750 1000\n");
    let dish = kitchen.of(&text(2));
    assert_eq!(dish.text("seen"), "1\n2\n750 1000\n");
    assert_eq!(dish.text("again"), "1\n2\n");
    assert!(!dish.has("cache") && !dish.has("other"));
}

#[test]
fn a_cache_may_begin_with_the_files_of_another_stage() {
    let kitchen = Kitchen::new();
    let text = |seed: &str, n: u32| {
        format!(
            "FROM os AS seed\nRUN mkdir -m 750 /s && mkdir /s/sub && echo {seed} > /s/sub/a && chmod 600 /s/sub/a && chown 1000:1001 /s/sub/a \\\n\
             && ln /s/sub/a /s/b && ln -s sub/a /s/l && mkfifo /s/f\nFROM os\n\
             RUN --mount=type=cache,target=/c,id=k,from=seed,source=/s echo {n} >> /c/log && cat /c/log /c/l > /seen && \\\n\
             stat -c '%a %u:%g %h' /c/sub/a /c/b >> /seen && stat -c '%a' /c >> /seen && test -p /c/f && rm /c/l && ln -s b /c/l\n"
        )
    };
    let files = "600 1000:1001 2\n600 1000:1001 2\n750\n";
    assert_eq!(kitchen.of(&text("x", 1)).text("seen"), format!("1\nx\n{files}"));
    // It stays as any cache does, and begins anew where what it begins with is another.
    assert_eq!(kitchen.of(&text("x", 2)).text("seen"), format!("1\n2\nx\n{files}"));
    assert_eq!(kitchen.of(&text("y", 2)).text("seen"), format!("2\ny\n{files}"));
    // Without it the name means a cache that begins empty.
    let dish = kitchen.of("FROM os\nRUN --mount=type=cache,target=/c,id=k ls -A /c > /seen\n");
    assert_eq!(dish.text("seen"), "");
    for (source, expected) in [("/nowhere", "not there to be mounted"), ("/s/sub/a", "begins with a folder")]
    {
        let refused = kitchen.refused(&text("x", 1).replace("source=/s ", &format!("source={source} ")));
        assert!(refused.starts_with("web/Dockerfile:5:5: ") && refused.contains(expected), "{refused}");
    }
}

#[test]
fn commands_have_no_network_unless_the_image_asks_and_the_image_is_then_unproven() {
    let kitchen = Kitchen::new();
    let seen = "grep -v -e lo: -e '|' /proc/net/dev | wc -l";
    kitchen.write("web/Dockerfile", &format!("FROM os\nRUN {seen} > /default\nRUN --network=none {seen} > /none\nRUN --network=default test -e /etc/resolv.conf; cat /etc/hosts > /hosts\n"));
    let dish = kitchen.bake();
    assert_eq!((dish.text("default"), dish.text("none")), ("0\n".into(), "0\n".into()));
    assert!(dish.image.unproven.is_empty());
    let dish = kitchen.bake_with(|source| source.network = true);
    assert_eq!(dish.text("none"), "0\n");
    assert_eq!(dish.image.unproven.len(), 2, "{:?}", dish.image.unproven);
    assert!(
        dish.text("hosts").contains("localhost") && !dish.has("etc/hosts") && !dish.has("etc/resolv.conf")
    );
    // What is copied from such a stage is no better.
    kitchen
        .write("web/Dockerfile", "FROM os AS fetch\nRUN echo x > /x\nFROM scratch\nCOPY --from=fetch /x /\n");
    assert_eq!(kitchen.bake_with(|source| source.network = true).image.unproven.len(), 1);
}

#[test]
fn a_command_that_fails_is_told_with_its_output() {
    let refused = Kitchen::new().refused("FROM os\nRUN echo before; echo why >&2; exit 7\n");
    assert!(refused.contains("step 1 of 1: RUN echo before; echo why >&2; exit 7"), "{refused}");
    assert!(refused.contains("ended with exit status: 7") && refused.ends_with("before\nwhy\n"), "{refused}");
    let refused = Kitchen::new().refused("FROM scratch\nRUN true\n");
    assert!(refused.contains("/bin/sh can't be started"), "{refused}");
}

#[test]
fn stages_that_take_the_same_caches_never_wait_for_each_other_for_ever() {
    let kitchen = Kitchen::new();
    let both = |name: &str, first: &str, second: &str| {
        format!(
            "FROM os AS {name}\nRUN --mount=type=cache,target=/1,id={first} --mount=type=cache,target=/2,id={second} \\\n\
             --mount=type=cache,target=/3,id={first} touch /1/{name} /2/{name} && ls /1 > /done-{name} && test -e /3/{name}\n"
        )
    };
    let (a, b) = (both("a", "x", "y"), both("b", "y", "x"));
    let text = format!("{a}{b}FROM scratch\nCOPY --from=a /done-a /\nCOPY --from=b /done-b /\n");
    kitchen.write("web/Dockerfile", &text);
    let (dish, steps) = kitchen.bake_stack(&Kitchen::stack(dockerfile("web")));
    let dish = dish.unwrap();
    assert!(dish.has("done-a") && dish.has("done-b"));
    assert_eq!(steps.len(), 4, "{steps:?}");
}
