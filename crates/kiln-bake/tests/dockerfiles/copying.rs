//! COPY and ADD of files: where they go, whose they are, and what of them is taken.

use kiln_store::Kind;

use crate::kitchen::{Kitchen, at};

fn kitchen() -> Kitchen {
    let kitchen = Kitchen::new();
    for name in [
        "web/src/a.txt",
        "web/src/sub/b.md",
        "web/src/sub/deep/c.txt",
        "web/one",
        "web/two.txt",
        "web/skip/x",
    ] {
        kitchen.write(name, name);
    }
    kitchen.put("web/tool", b"#!/bin/sh\n", 0o700).link("web/src/link", "a.txt").link("web/to-src", "src");
    kitchen
}

#[test]
fn files_go_where_buildkit_puts_them() {
    let kitchen = kitchen();
    let dish = kitchen.of(
        "FROM os\nCOPY src /folder\nCOPY one /renamed\nCOPY one /into/\nCOPY one /etc\nCOPY one two.txt /both/\nCOPY *.txt /globbed/\n\
         COPY src/**/*.txt /flat/\nCOPY nothing* one /optional/\nCOPY to-src /through\nCOPY to-src/a.txt /through.txt\nCOPY [\"two.txt\", \"/json file\"]\n\
         WORKDIR /work\nCOPY one .\nCOPY src sub\nCOPY two.txt ./renamed.txt\nCOPY . /all\n",
    );
    for there in [
        "folder/a.txt",
        "folder/sub/deep/c.txt",
        "renamed",
        "into/one",
        "etc/one",
        "both/one",
        "both/two.txt",
        "globbed/two.txt",
        "flat/a.txt",
        "flat/c.txt",
        "optional/one",
        "through/a.txt",
        "through.txt",
        "json file",
        "work/one",
        "work/sub/a.txt",
        "work/renamed.txt",
        "all/Dockerfile",
        "all/src/sub/b.md",
    ] {
        assert!(dish.has(there), "{there}");
    }
    assert!(!dish.has("folder/src") && !dish.has("flat/sub"));
    assert!(matches!(&dish.entry("folder/link").kind, Kind::Symlink { target } if target == b"a.txt"));
    assert!(matches!(&dish.entry("all/to-src").kind, Kind::Symlink { target } if target == b"src"));
    assert_eq!(
        (dish.meta("all/tool"), dish.meta("renamed"), dish.meta("folder/sub")),
        ("755 0:0".into(), "644 0:0".into(), "755 0:0".into())
    );
}

#[test]
fn owners_and_modes_are_those_that_the_instruction_gives() {
    let dish = kitchen().of(
        "FROM os\nARG WHO=app\nCOPY --chown=$WHO src /a\nCOPY --chown=app:extra one /b\nCOPY --chown=55 one /c\nCOPY --chown=7:8 one /new/d\n\
         COPY --chmod=600 src /e\nCOPY --chmod=u=rwX,go=rX tool src/sub /f/\nCOPY --chmod=4711 one /g\nADD --chown=app one /h\n",
    );
    for (path, expected) in [
        ("a", "755 1000:1001"),
        ("a/sub/b.md", "644 1000:1001"),
        ("a/link", "777 1000:1001"),
        ("b", "644 1000:50"),
        ("c", "644 55:55"),
        ("new", "755 7:8"),
        ("new/d", "644 7:8"),
        ("e", "755 0:0"),
        ("e/sub", "600 0:0"),
        ("e/a.txt", "600 0:0"),
        ("e/link", "777 0:0"),
        ("f/tool", "755 0:0"),
        ("f/b.md", "644 0:0"),
        ("f/deep", "755 0:0"),
        ("g", "4711 0:0"),
        ("h", "644 1000:1001"),
    ] {
        assert_eq!(dish.meta(path), expected, "{path}");
    }
}

#[test]
fn files_of_a_stage_keep_what_they_were() {
    let dish = kitchen().of(
        "FROM os AS build\nRUN mkdir -p /out/sub && echo x > /out/file && ln /out/file /out/sub/hard && ln -s /out/file /out/soft && \
         chown -R 1000:1001 /out && chmod 750 /out/sub && chmod 4755 /out/file && ln -s out /alias\n\
         FROM scratch\nCOPY --from=build /out /copied\nCOPY --from=build /alias/file /one\nCOPY --from=build --chown=5:6 --chmod=644 /out/soft /followed\n\
         COPY --from=build /out/sub/h*d /globbed/\nCOPY --from=build / /root\n",
    );
    assert_eq!(dish.meta("copied/file"), "4755 1000:1001");
    assert_eq!(dish.meta("copied/sub"), "750 1000:1001");
    assert_eq!(
        dish.tree.inode(&at("copied/file")),
        dish.tree.inode(&at("copied/sub/hard")),
        "hard links stay linked"
    );
    assert!(matches!(&dish.entry("copied/soft").kind, Kind::Symlink { target } if target == b"/out/file"));
    assert_eq!(dish.meta("one"), "4755 1000:1001");
    assert_eq!(dish.meta("followed"), "644 5:6");
    assert!(dish.has("globbed/hard") && dish.has("root/bin/busybox") && dish.has("root/out/sub/hard"));
}

#[test]
fn links_of_the_image_are_followed_unless_it_is_a_layer_of_its_own() {
    let dish = kitchen().of(
        "FROM os AS base\nRUN mkdir -p /usr/lib /target /data && ln -s usr/lib /lib && ln -s /target/file /link && chmod 1777 /data\n\
         FROM base\nCOPY src /lib/x\nCOPY one /link\nFROM base AS linked\nCOPY --link src /lib/x\nCOPY --link one /link\nCOPY --link one /data/one\nFROM scratch\n\
         COPY --from=1 / /followed/\nCOPY --from=linked / /linked/\n",
    );
    assert!(dish.has("followed/usr/lib/x/a.txt") && dish.has("followed/target/file"));
    assert!(dish.has("linked/lib/x/a.txt") && !dish.has("linked/usr/lib/x"));
    assert!(matches!(&dish.entry("linked/link").kind, Kind::File { .. }));
    assert_eq!(dish.meta("linked/data"), "1777 0:0", "a folder that was there stays as it is");
}

#[test]
fn some_is_left_out_and_some_keeps_its_folders() {
    let kitchen = kitchen();
    kitchen.write("web/.dockerignore", "skip\n# comment\n**/*.md\n!src/sub/b.md\n");
    let dish = kitchen.of(
        "FROM scratch\nCOPY . /all\nCOPY --exclude=*.txt --exclude=sub/deep src /some\nCOPY --exclude=t*.txt *.txt one /named/\n\
         COPY --parents src/sub/deep/c.txt src/a.txt /kept/\nCOPY --parents src/./sub/**/c.txt /pivoted/\nCOPY --parents ./src/sub /folders/\n",
    );
    assert!(!dish.has("all/skip") && dish.has("all/src/sub/b.md") && dish.has("all/.dockerignore"));
    assert!(dish.has("some/sub/b.md") && !dish.has("some/a.txt") && !dish.has("some/sub/deep"));
    assert!(dish.has("named/one") && !dish.has("named/two.txt"));
    assert!(dish.has("kept/src/sub/deep/c.txt") && dish.has("kept/src/a.txt") && !dish.has("kept/src/link"));
    assert!(dish.has("pivoted/sub/deep/c.txt") && !dish.has("pivoted/src"));
    assert!(dish.has("folders/src/sub/deep/c.txt"));
    let refused = kitchen.refused("FROM scratch\nCOPY skip /x\n");
    assert_eq!(
        refused,
        "web/Dockerfile:2:6: `skip` is not in the build context (.dockerignore leaves it out: add a rule that begins with `!`)"
    );
    let refused = kitchen.refused("FROM scratch\nCOPY tow.txt /x\n");
    assert_eq!(
        refused,
        "web/Dockerfile:2:6: `tow.txt` is not in the build context (did you mean `two.txt`?)"
    );
}

#[test]
fn heredocs_are_files() {
    let dish = kitchen().of(
        "FROM os\nARG name=value\nENV other=env\nCOPY <<EOF /expanded\n$name ${other} \\$name \"quoted\" 'too'\nEOF\n\
         COPY --chmod=755 --chown=app <<'EOF' /script\n#!/bin/sh\necho $name\nEOF\nCOPY <<-one <<two one /many/\n\tindented\n\t\ttwice\none\nsecond\ntwo\n\
         ADD <<EOF /etc/\nx\nEOF\n",
    );
    assert_eq!(dish.text("expanded"), "value env $name \"quoted\" 'too'\n");
    assert_eq!(
        (dish.text("script"), dish.meta("script")),
        ("#!/bin/sh\necho $name\n".into(), "755 1000:1001".into())
    );
    assert_eq!(dish.text("many/one"), "web/one", "a later source of the same name wins");
    assert_eq!(dish.text("many/two"), "second\n");
    assert_eq!((dish.text("etc/EOF"), dish.meta("etc/EOF")), ("x\n".into(), "644 0:0".into()));
}

#[test]
fn nothing_is_copied_from_outside_of_the_context_and_over_what_can_not_be_replaced() {
    let kitchen = kitchen();
    kitchen
        .write("secret", "secret")
        .link("web/out", "../secret")
        .link("web/abs", "/etc/hostname")
        .link("web/loop", "loop");
    for (text, reason) in [
        ("COPY out /x", "`out` is not in the build context"),
        ("COPY abs /x", "`abs` is not in the build context"),
        ("COPY loop /x", "too many links"),
        ("ARG up=..\nCOPY $up/secret /x", "leaves where it is copied from"),
        ("COPY --from=0 ../../etc/passwd /x", "leaves where it is copied from"),
        ("COPY src /etc/passwd", "is a file in the image, which a folder can't replace"),
        ("RUN mkdir -p /x/a.txt\nCOPY src /x", "is a folder in the image, which a file can't replace"),
        ("COPY --chown=nobody one /x", "has no user `nobody`"),
        ("COPY --chmod=999 one /x", "`999` is no mode"),
        ("COPY [z /x", "`[z` is not a glob"),
    ] {
        let refused = kitchen.refused(&format!("FROM os AS first\nFROM os\n{text}\n"));
        assert!(refused.contains(reason), "{text}: {refused}");
    }
}

#[test]
fn what_is_taken_from_a_stage_is_found_again_without_reading_the_stage() {
    let kitchen = Kitchen::new();
    let text = "FROM os AS tools\nRUN echo built > /built\nFROM os\nCOPY --from=tools /built /copied\n\
         RUN --mount=type=bind,from=tools,target=/tools cp /tools/built /mounted\n";
    let dish = kitchen.of(text);
    // Only the finished image's tree can still be read: whoever reads another one fails.
    let trees = dish.store.trees.list().unwrap();
    for tree in trees.iter().filter(|tree| **tree != dish.image.tree) {
        std::fs::write(dish.store.trees.path_of(tree), "damaged").unwrap();
    }
    assert_eq!(kitchen.bake().image, dish.image);
}
