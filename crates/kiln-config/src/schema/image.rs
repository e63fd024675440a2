//! Bases and images.

use super::{AttributeSchema, BlockSchema, FOR_EACH, NestedBlock, attribute};

pub(super) static BASE: BlockSchema = BlockSchema {
    name: "base",
    labels: &["kind", "name"],
    summary: "A golden base image, made from locked packages and referred to as `base.KIND.NAME`. The kind is `debian`. Nothing that an environment decides may be used in it.",
    attributes: &[
        attribute("suite", "string", "", "The suite, such as `bookworm`."),
        attribute("packages", "list of strings", "[]", "Packages beside what every system needs."),
        attribute("mirror", "URL", "the one of the machine's apt", "The archive."),
        attribute("components", "list of strings", "[\"main\"]", "The archive's components."),
        attribute(
            "variant",
            "`\"essential\"` or `\"minbase\"`",
            "\"essential\"",
            "What is there beside `packages`: Debian's Essential packages, or these and apt.",
        ),
    ],
    blocks: &[],
    any_attribute: None,
    example: "base \"debian\" \"slim\" {\n  suite    = \"bookworm\"\n  packages = [\"ca-certificates\", \"python3-minimal\"]\n}",
};

pub(super) static REGISTRY: BlockSchema = BlockSchema {
    name: "registry",
    labels: &["name"],
    summary: "What is wanted of images of a registry that images of the stack start from: of all whose name is this or begins with it and `/`, such as `ghcr.io`, `docker.io/library` or `ghcr.io/shop/os`, and of all with `*`. The block that says most of a name counts. Nothing that an environment decides may be used in it.",
    attributes: &[attribute(
        "signed_by",
        "list of strings",
        "",
        "Public keys in PEM. One of them must have signed the image, or the list for several machines that it is in, as `kiln image sign` and `cosign sign --key` do; else nothing is locked and nothing baked.",
    )],
    blocks: &[],
    any_attribute: None,
    example: "registry \"ghcr.io/shop\" {\n  signed_by = [file(\"keys/release.pub\")]\n}",
};

pub(super) static IMAGE: BlockSchema = BlockSchema {
    name: "image",
    labels: &["name"],
    summary: "An image, referred to as `image.NAME`. `copy`, `run` and `provision` are done in the order in which they stand. Nothing that an environment decides may be used in it.",
    attributes: &[
        attribute(
            "from",
            "base, image, name in a registry or `\"scratch\"`",
            "`dockerfile`",
            "What it starts from: `base.KIND.NAME`, `image.NAME`, an image of a registry such as `\"docker.io/library/debian:12\"`, which `kiln lock` pins, as it does an image of a folder in OCI's layout, `\"oci:DIR:TAG\"`, or of a file of `docker save`, `\"docker-archive:FILE:NAME:TAG\"`; or `\"scratch\"` for nothing.",
        ),
        attribute(
            "dockerfile",
            "path",
            "`from`",
            "A folder of the stack folder that holds a `Dockerfile`, or the path of a Dockerfile. An image has this or `from`. See [dockerfile.md](dockerfile.md).",
        ),
        attribute(
            "context",
            "path",
            "the folder of the Dockerfile",
            "With `dockerfile`: the folder whose files it may copy.",
        ),
        attribute(
            "target",
            "string",
            "the last stage",
            "With `dockerfile`: the stage that the image is, by name or number.",
        ),
        attribute("args", "map of strings", "{}", "With `dockerfile`: values of its ARGs."),
        attribute(
            "contexts",
            "map of what `from` takes",
            "{}",
            "With `dockerfile`: what a name means that it uses in `FROM`, `COPY --from` or a mount.",
        ),
        attribute(
            "secrets",
            "map of id to secret",
            "{}",
            "With `dockerfile`: what its `RUN --mount=type=secret,id=…` gives its command: `{ npm = secret.npm_token }`. Values are no part of the image.",
        ),
        attribute(
            "ssh",
            "bool",
            "false",
            "With `dockerfile`: whether its `RUN --mount=type=ssh` may use the SSH agent of whoever bakes.",
        ),
        attribute(
            "network",
            "bool",
            "false",
            "With `dockerfile`: whether its commands may use the network. What they fetch makes the image unproven.",
        ),
        attribute(
            "command",
            "list of strings",
            "that of `from`",
            "The program and its arguments, or the arguments where there is an entrypoint.",
        ),
        attribute(
            "entrypoint",
            "list of strings",
            "that of `from`",
            "The program that is always started; the command follows it.",
        ),
        attribute("env", "map of strings", "{}", "Environment variables, laid over those of `from`."),
        attribute("workdir", "absolute path", "that of `from`, or `/`", "The working folder."),
        attribute("user", "string", "that of `from`, or root", "`user`, `user:group`, `uid` or `uid:gid`."),
        attribute("labels", "map of strings", "{}", "Labels of the OCI image."),
        attribute("expose", "list of ports", "[]", "Ports, such as `8080` or `\"53/udp\"`."),
        attribute(
            "volumes",
            "list of absolute paths",
            "[]",
            "Paths that are writable: bounded memory unless a service mounts a volume there.",
        ),
        attribute("stop_signal", "signal", "\"SIGTERM\"", "What asks the program to stop."),
        FOR_EACH,
    ],
    blocks: &[
        NestedBlock { schema: &COPY, many: true },
        NestedBlock { schema: &RUN, many: true },
        NestedBlock { schema: &PROVISION, many: true },
        NestedBlock { schema: &TEST, many: true },
        NestedBlock { schema: &SCAN, many: false },
    ],
    any_attribute: None,
    example: "image \"web\" {\n  from    = base.debian.slim\n  command = [\"python3\", \"/app/server.py\"]\n  user    = \"www-data\"\n\n  copy {\n    from = \"./web\"\n    to   = \"/app\"\n  }\n}",
};

static COPY: BlockSchema = BlockSchema {
    name: "copy",
    labels: &[],
    summary: "Files of the stack folder into the image. What `.kilnignore` lists is left out.",
    attributes: &[
        attribute(
            "from",
            "path or glob",
            "",
            "Below the stack folder: a file, a folder, or a glob with `*`, `**`, `?`, `[…]`, `{a,b}`.",
        ),
        attribute(
            "to",
            "absolute path",
            "",
            "Where to. A `/` at the end, or several sources, make it a folder.",
        ),
        attribute("owner", "string", "root", "`user:group` of the image, by name or number."),
        attribute(
            "mode",
            "octal string",
            "as in the folder",
            "The permissions of the files, such as `\"0644\"`; folders can be entered by who may read them.",
        ),
        attribute("exclude", "list of globs", "[]", "What is left out."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "copy {\n  from    = \"./web\"\n  to      = \"/app\"\n  owner   = \"www-data:www-data\"\n  exclude = [\"*.pyc\"]\n}",
};

static RUN: BlockSchema = BlockSchema {
    name: "run",
    labels: &[],
    summary: "A command in a sandbox on the image as it is so far.",
    attributes: &[
        attribute("command", "list of strings", "", "The program and its arguments."),
        attribute("env", "map of strings", "{}", "Environment variables for this step alone."),
        attribute("workdir", "absolute path", "the image's", "The working folder."),
        attribute("user", "string", "root", "Who runs it."),
        attribute(
            "network",
            "bool",
            "false",
            "Whether it may use the network. What it fetches makes the image unproven.",
        ),
    ],
    blocks: &[],
    any_attribute: None,
    example: "run {\n  command = [\"python3\", \"-m\", \"compileall\", \"/app\"]\n}",
};

static PROVISION: BlockSchema = BlockSchema {
    name: "provision",
    labels: &["kind"],
    summary: "A playbook, played in a sandbox on the image as it is so far. The kind is `ansible`. Ansible itself is pinned by `kiln lock`, and is not in the image. See [bake.md](bake.md).",
    attributes: &[
        attribute(
            "playbook",
            "path",
            "",
            "A playbook below the stack folder. Its folder, with roles, files, templates and collections, is what it can use, without what `.kilnignore` lists.",
        ),
        attribute("vars", "map of strings", "{}", "Variables for it. They win over its own."),
        attribute("tags", "list of strings", "[]", "Only what has one of these tags is played."),
        attribute(
            "groups",
            "list of strings",
            "[]",
            "Groups of hosts that the image is in. `hosts` may name these, `all` or `localhost`.",
        ),
        attribute(
            "network",
            "bool",
            "false",
            "Whether it may use the network. What it fetches makes the image unproven.",
        ),
        attribute(
            "suite",
            "string",
            "that of the base under the image",
            "The Debian suite that Ansible is from.",
        ),
    ],
    blocks: &[],
    any_attribute: None,
    example: "provision \"ansible\" {\n  playbook = \"./provision/site.yml\"\n  vars     = { workers = 4 }\n}",
};

static TEST: BlockSchema = BlockSchema {
    name: "test",
    labels: &["name"],
    summary: "What must hold before the image can be released. With one of `http`, `tcp` and `exec` the image boots, without routes, and must come to answer; all else but `closed_ports` is seen without a boot.",
    attributes: &[
        attribute("env", "map of strings", "{}", "Environment variables for the test alone."),
        attribute("memory", "size", "no limit", "Memory for the test alone."),
        attribute(
            "closed_ports",
            "list of numbers",
            "[]",
            "TCP ports that must refuse a connect from outside. They are looked at once `http`, `tcp` or `exec` holds: before, every port is closed.",
        ),
        attribute("no_root", "bool", "false", "Whether the image's user must be another than root."),
        attribute("no_setuid", "bool", "false", "Whether no file may have its setuid or setgid bit set."),
    ],
    blocks: &[
        NestedBlock { schema: &FILE, many: true },
        NestedBlock { schema: &PACKAGE, many: true },
        NestedBlock { schema: &HTTP, many: false },
        NestedBlock { schema: &TCP, many: false },
        NestedBlock { schema: &EXEC, many: false },
    ],
    any_attribute: None,
    example: "test \"starts\" {\n  no_root = true\n\n  http {\n    path   = \"/healthz\"\n    status = 200\n    within = \"5s\"\n  }\n}",
};

static SCAN: BlockSchema = BlockSchema {
    name: "scan",
    labels: &[],
    summary: "Which known vulnerabilities keep the image from being released, by a database in the OSV schema. See [supply-chain.md](supply-chain.md).",
    attributes: &[
        attribute(
            "database",
            "path",
            "",
            "A folder of JSON files, a JSON file, or a zip archive: below the stack folder, or an absolute path on the machine.",
        ),
        attribute(
            "severity",
            "`\"negligible\"`, `\"low\"`, `\"medium\"`, `\"high\"` or `\"critical\"`",
            "\"high\"",
            "From which on they count. What nobody scored counts as medium.",
        ),
    ],
    blocks: &[NestedBlock { schema: &IGNORE, many: true }],
    any_attribute: None,
    example: "scan {\n  database = \"./osv\"\n  severity = \"high\"\n\n  ignore \"CVE-2024-1234\" {\n    reason  = \"the module is not loaded\"\n    expires = \"2027-01-31\"\n  }\n}",
};

static IGNORE: BlockSchema = BlockSchema {
    name: "ignore",
    labels: &["id"],
    summary: "A vulnerability that is known and accepted for a while, by any of its names.",
    attributes: &[
        attribute("reason", "string", "", "Why it is accepted."),
        attribute("expires", "day", "", "The first day, in UTC, on which it counts again: `\"2027-01-31\"`."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "ignore \"CVE-2024-1234\" {\n  reason  = \"the module is not loaded\"\n  expires = \"2027-01-31\"\n}",
};

const TEST_PORT: AttributeSchema = attribute(
    "port",
    "number",
    "the only port of `expose`, or that of the service that uses the image",
    "Where.",
);
const WITHIN: AttributeSchema = attribute("within", "duration", "\"30s\"", "How long it may take.");

static HTTP: BlockSchema = BlockSchema {
    name: "http",
    labels: &[],
    summary: "A GET must be answered.",
    attributes: &[
        attribute("path", "path", "\"/\"", "What is asked for."),
        attribute("status", "number", "any of 200 to 399", "The status that counts."),
        TEST_PORT,
        WITHIN,
    ],
    blocks: &[],
    any_attribute: None,
    example: "http {\n  path   = \"/healthz\"\n  within = \"5s\"\n}",
};

static TCP: BlockSchema = BlockSchema {
    name: "tcp",
    labels: &[],
    summary: "A connect must succeed.",
    attributes: &[TEST_PORT, WITHIN],
    blocks: &[],
    any_attribute: None,
    example: "tcp {\n  port = 5432\n}",
};

static EXEC: BlockSchema = BlockSchema {
    name: "exec",
    labels: &[],
    summary: "A command inside must do what is expected. It is run again until it does.",
    attributes: &[
        attribute("command", "list of strings", "", "The program and its arguments."),
        attribute("exit", "number", "0", "The code that it exits with."),
        attribute(
            "stdout",
            "string",
            "any",
            "All that it prints on its standard output; newlines at the end don't count.",
        ),
        attribute(
            "contains",
            "list of strings",
            "[]",
            "Texts, each of which it prints on its standard output or its standard error.",
        ),
        attribute(
            "matches",
            "list of patterns",
            "[]",
            "Regular expressions, each of which matches what it prints on one of the two. Of either, 64 KiB are looked through; more fails.",
        ),
        WITHIN,
    ],
    blocks: &[],
    any_attribute: None,
    example: "exec {\n  command = [\"/app/server\", \"--version\"]\n  matches = [\"^server 2\\\\.\"]\n}",
};

static FILE: BlockSchema = BlockSchema {
    name: "file",
    labels: &[],
    summary: "A file or folder that must be in the image, or must not.",
    attributes: &[
        attribute("path", "absolute path", "", "Where. The image's links are followed."),
        attribute("absent", "bool", "false", "Whether nothing may be there."),
        attribute("owner", "string", "any", "`user`, `user:group`, by name or number."),
        attribute("mode", "octal string", "any", "The permissions, such as `\"0644\"`."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "file {\n  path  = \"/app/server.py\"\n  owner = \"root:root\"\n  mode  = \"0644\"\n}",
};

static PACKAGE: BlockSchema = BlockSchema {
    name: "package",
    labels: &[],
    summary: "A package that must be in the image, or must not, by its bill of materials.",
    attributes: &[
        attribute("name", "string", "", "Its name there, such as `openssl`, or `group:artifact` for Java."),
        attribute("absent", "bool", "false", "Whether it may not be there."),
        attribute("version", "string", "any", "The version that must, or may not, be there."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "package {\n  name   = \"gcc\"\n  absent = true\n}",
};
