//! Dockerfiles that reach for what is outside of their root, or for more than there is: at COPY, at mounts, and at what is cleaned
//! up after a command. Archives that do are beside, in `archives`.

use std::fs;
use std::path::Path;

use crate::kitchen::Kitchen;

/// What nobody may touch, outside of the stack folder and of the store.
const CANARY: &str = "nobody touched it\n";

/// It bakes, and what it reaches for is within its own root.
const WITHIN: &str = "";

/// A name or a path that Linux does not have.
const LONG: &str = "bytes";

/// A Dockerfile by what it tries, and why it is refused. `OUT` is the path of a folder of the host, `OUT/canary` a file in it.
type Vector = (&'static str, &'static str, String);

fn own(text: &str) -> String {
    format!("FROM os\n{text}")
}

/// With links that lead to the folder, in an image that has such a folder of its own.
fn with(text: &str) -> String {
    let links = "mkdir -p OUT && ln -s OUT /l && ln -s ../../../../../..OUT /up && mkdir /d";
    format!("FROM os AS a\nRUN {links}\n{text}")
}

/// What is copied, and where to.
fn copied() -> Vec<Vector> {
    let name = "n".repeat(256);
    let path = "n/".repeat(2100);
    vec![
        ("COPY of a parent", "leaves the build context", own("COPY ../f /x")),
        ("COPY of a parent in the middle", "leaves the build context", own("COPY d/../../f /x")),
        ("COPY of an absolute name", "not in the build context", own("COPY /etc/passwd /x")),
        ("COPY through a link out of the context", "not in the build context", own("COPY out/canary /x")),
        ("COPY through an absolute link", "not in the build context", own("COPY abs/canary /x")),
        ("COPY of a circle", "circle", own("COPY circle/f /x")),
        ("COPY to a parent", WITHIN, own("COPY f ../../../../x")),
        ("COPY to where a link leads", WITHIN, with("COPY f /l/x")),
        ("COPY to where a link leads up", WITHIN, with("COPY f /up/x")),
        ("COPY over a link", WITHIN, with("COPY f /l")),
        ("COPY of a link of a stage", "canary", with("FROM os\nCOPY --from=a /l/canary /x")),
        ("COPY of a link up of a stage", "canary", with("FROM os\nCOPY --from=a /up/canary /x")),
        ("COPY from a parent of a stage", "canary", with("FROM os\nCOPY --from=a ../../OUT/canary /x")),
        ("COPY from a folder of the host", "OUT", own("COPY --from=OUT canary /x")),
        ("COPY to a long name", LONG, own(&format!("COPY f /{name}"))),
        ("COPY to a long path", LONG, own(&format!("COPY f /{path}"))),
        ("an owner out of the file of users", "has no user", own("COPY --chown=../../x f /x")),
        ("an owner beyond Linux", "has no user", own("COPY --chown=99999999999 f /x")),
        ("a mode beyond Linux", "is no mode", own("COPY --chmod=99999 f /x")),
        ("a heredoc to a long name", LONG, own(&format!("COPY <<E /{name}\nE"))),
        ("a heredoc out", WITHIN, own("COPY <<../../x /\n../../x")),
        ("WORKDIR of parents", WITHIN, own("WORKDIR ../../../..\nCOPY f x")),
        ("WORKDIR through a link", WITHIN, with("WORKDIR /l/w\nCOPY f x")),
        ("WORKDIR that is long", LONG, own(&format!("WORKDIR /{path}"))),
    ]
}

/// What commands are given.
fn mounted() -> Vec<Vector> {
    vec![
        ("VOLUME of a parent", "no absolute path", own("VOLUME ../x")),
        (
            "a bound parent",
            "not there to be mounted",
            own("RUN --mount=type=bind,source=../..,target=/m true"),
        ),
        (
            "a bound link out",
            "not there to be mounted",
            own("RUN --mount=type=bind,source=out,target=/m cat /m/canary"),
        ),
        (
            "a bound link of a stage",
            "can't open '/m/canary'",
            with("FROM os\nRUN --mount=type=bind,from=a,source=/l,target=/m cat /m/canary"),
        ),
        ("a bind to a parent", WITHIN, own("RUN --mount=type=bind,source=d,target=../../m true")),
        ("a bind to where a link leads", WITHIN, with("RUN --mount=type=bind,source=d,target=/l/m true")),
        ("a bind over a link", WITHIN, with("RUN --mount=type=bind,source=d,target=/l true")),
        ("a cache over a link", WITHIN, with("RUN --mount=type=cache,target=/l touch /l/x")),
        ("a cache where a link leads up", WITHIN, with("RUN --mount=type=cache,target=/up/c touch /up/c/x")),
        (
            "a cache by a parent's name",
            WITHIN,
            own("RUN --mount=type=cache,id=../../../x,target=/c touch /c/x"),
        ),
        ("a cache of a parent", WITHIN, own("RUN --mount=type=cache,target=../../c test -d /../c")),
        (
            "a cache with a link in it",
            "ended with",
            own(
                "RUN --mount=type=cache,id=k,target=/c ln -sfn OUT /c/l\nRUN --mount=type=cache,id=k,target=/c touch /c/l/canary",
            ),
        ),
        (
            "a cache that begins at a link",
            WITHIN,
            with("FROM os\nRUN --mount=type=cache,id=m,from=a,source=/l,target=/c touch /c/canary"),
        ),
        ("memory over a link", WITHIN, with("RUN --mount=type=tmpfs,target=/l touch /l/canary")),
        (
            "a secret of a parent",
            WITHIN,
            own("RUN --mount=type=secret,id=../../../OUT/canary,target=/s true"),
        ),
    ]
}

/// What commands do.
fn run() -> Vec<Vector> {
    let doubled = "ENV A=$A$A$A$A$A$A$A$A$A$A\n".repeat(12);
    vec![
        ("a device", "ended with", own("RUN mknod /disk b 254 0")),
        ("a mount", "ended with", own("RUN mount -t tmpfs none /mnt")),
        ("the host's files", "ended with", own("RUN cat OUT/canary")),
        ("the host's files by the first process", "ended with", own("RUN cat /proc/1/rootOUT/canary")),
        ("the host's files by parents", "ended with", own("RUN cat ../../../../../..OUT/canary")),
        ("the kernel's switches", "ended with", own("RUN echo 1 > /proc/sys/kernel/sysrq")),
        (
            "a link in the place of a folder that is cleaned up",
            WITHIN,
            own("RUN rm -r /home && ln -s OUT /home\nRUN rm -f /home/app/x; true"),
        ),
        (
            "folders that nobody may enter",
            WITHIN,
            own("RUN mkdir -p /deep/a && touch /deep/a/f && chmod 0 /deep/a /deep"),
        ),
        (
            "folders in folders",
            WITHIN,
            own(
                "RUN cd /d 2>/dev/null || mkdir /d && cd /d && for i in $(seq 200); do mkdir d && cd d; done",
            ),
        ),
        ("a command that stays", WITHIN, own("RUN (sleep 1000 &) ; true")),
        (
            "a hard link of what is bound",
            "ended with",
            own("RUN --mount=type=bind,source=f,target=/m ln /m /x"),
        ),
        ("a variable that grows", "longer than 128 KiB", own(&format!("ENV A=aaaaaaaaaa\n{doubled}"))),
        ("ports without end", "is no port", own("EXPOSE 1-99999999999")),
        ("a NUL", "nul byte", own("RUN echo a\0b")),
        ("a stage of itself", "b", own("FROM b AS b")),
    ]
}

#[test]
fn nothing_outside_of_its_root_is_touched_by_a_hostile_dockerfile() {
    let kitchen = Kitchen::new();
    let folder = kitchen.path("..").canonicalize().unwrap();
    let out = folder.join("outside");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("canary"), CANARY).unwrap();
    kitchen.write("web/f", "f").write("web/d/f", "f");
    kitchen.link("web/out", "../../outside").link("web/abs", out.to_str().unwrap());
    kitchen.link("web/circle", "circle");
    let vectors = [copied(), mounted(), run()].concat();
    assert!(vectors.len() >= 40);
    let mut wrong = String::new();
    for (what, expected, text) in vectors {
        let out = out.to_str().unwrap();
        kitchen.write("web/Dockerfile", &text.replace("OUT", out));
        let said = match kitchen.try_bake(crate::kitchen::dockerfile("web")) {
            Ok(_) => String::new(),
            Err(error) => format!("{}\n{}", crate::fixture::causes(&error), error.log()),
        };
        let expected = expected.replace("OUT", out);
        if said.is_empty() != expected.is_empty() || !said.contains(&expected) {
            wrong += &format!("{what}: expected `{expected}`, and it says `{said}`\n");
        }
        assert_eq!(fs::read_to_string(Path::new(out).join("canary")).unwrap(), CANARY, "{what}");
        assert_eq!(fs::read_dir(out).unwrap().count(), 1, "{what} wrote there");
        let around: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(around.len(), 3, "{what}: beside the stack, the store and the canary there is {around:?}");
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(
        !fs::read_to_string("/proc/self/mounts").unwrap().contains(folder.to_str().unwrap()),
        "mounts are left"
    );
}
