//! Stack, variables, values, secrets, volumes, routes and environments.

use super::{BlockSchema, FOR_EACH, NestedBlock, attribute};

pub(super) static STACK: BlockSchema = BlockSchema {
    name: "stack",
    labels: &["name"],
    summary: "Names the stack. Exactly one in a folder. The name is part of the services' host names: lower-case letters, digits and hyphens.",
    attributes: &[],
    blocks: &[],
    any_attribute: None,
    example: "stack \"shop\" {}",
};

pub(super) static VARIABLE: BlockSchema = BlockSchema {
    name: "variable",
    labels: &["name"],
    summary: "A value from outside, referred to as `var.NAME`. The first of these sets it: `-var NAME=…`, the `environment` block, the environment variable `KILN_VAR_NAME`, the default.",
    attributes: &[
        attribute(
            "type",
            "type",
            "any",
            "`string`, `number`, `bool`, `any`, `list(…)`, `set(…)`, `map(…)`, `tuple([…])`, or `object({…})` with `optional(type, default)`. What is given is converted to it.",
        ),
        attribute(
            "default",
            "value without references",
            "none: it must be set",
            "What it is when nothing sets it.",
        ),
        attribute(
            "scope",
            "`\"stack\"` or `\"environment\"`",
            "\"stack\"",
            "Whether each environment decides it. What an environment decides can't reach a `base`, an `image` or a `test`, so that a release stays the same everywhere.",
        ),
        attribute(
            "sensitive",
            "bool",
            "false",
            "Whether it is never shown, and refused where it would be stored in clear.",
        ),
        attribute("description", "string", "none", "What it is for."),
    ],
    blocks: &[NestedBlock { schema: &VALIDATION, many: true }],
    any_attribute: None,
    example: "variable \"replicas\" {\n  type    = number\n  default = 2\n  scope   = \"environment\"\n\n  validation {\n    condition     = var.replicas >= 1\n    error_message = \"At least one replica must run.\"\n  }\n}",
};

static VALIDATION: BlockSchema = BlockSchema {
    name: "validation",
    labels: &[],
    summary: "What must hold for a variable.",
    attributes: &[
        attribute("condition", "bool", "", "Must be true."),
        attribute("error_message", "string", "", "What is said if it isn't."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "validation {\n  condition     = var.replicas >= 1\n  error_message = \"At least one replica must run.\"\n}",
};

pub(super) static LOCALS: BlockSchema = BlockSchema {
    name: "locals",
    labels: &[],
    summary: "Values with a name, referred to as `local.NAME`. Several blocks are one.",
    attributes: &[],
    blocks: &[],
    any_attribute: Some("Any expression."),
    example: "locals {\n  domain = \"${var.region}.example.com\"\n}",
};

pub(super) static CONFIG: BlockSchema = BlockSchema {
    name: "config",
    labels: &["name"],
    summary: "Configuration of the stack's services, referred to as `config.NAME.KEY`. A changed key replaces only the services that use it.",
    attributes: &[FOR_EACH],
    blocks: &[],
    any_attribute: Some("Any expression; the name is the key."),
    example: "config \"shop\" {\n  greeting = \"Hello\"\n}",
};

pub(super) static SECRET: BlockSchema = BlockSchema {
    name: "secret",
    labels: &["name"],
    summary: "A secret value. `secret.NAME` can be used in `secrets` of a service, for which the value is captured when the stack is deployed, in `secrets` of an image with a `dockerfile`, whose commands may mount it, in `secret` of a `notify`, and in `bearer` or `password` of what a rollout asks over HTTP. Exactly one source is set.",
    attributes: &[
        attribute(
            "file",
            "path",
            "none",
            "A file below the stack folder, or an absolute path. One newline at the end is not part of the value.",
        ),
        attribute("env", "name", "none", "An environment variable of the command that deploys."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "secret \"db_password\" {\n  file = \"secrets/db\"\n}",
};

pub(super) static VOLUME: BlockSchema = BlockSchema {
    name: "volume",
    labels: &["name"],
    summary: "Storage that outlives instances, referred to as `volume.NAME` in `volumes` of a service.",
    attributes: &[FOR_EACH],
    blocks: &[],
    any_attribute: None,
    example: "volume \"data\" {}",
};

pub(super) static ROUTE: BlockSchema = BlockSchema {
    name: "route",
    labels: &["name"],
    summary: "A way in from outside, served by the edge. Among routes that match a request the longest path wins, and a host wins over none.",
    attributes: &[
        attribute(
            "listen",
            "address",
            "",
            "Where the edge listens: `\":8080\"` on all addresses, or `\"127.0.0.1:8080\"`.",
        ),
        attribute("host", "host name", "any host", "The host that it answers for."),
        attribute("path", "path", "\"/\"", "The path prefix that it answers for, by whole segments."),
        attribute(
            "to",
            "port of a service",
            "",
            "Where requests go: `service.NAME.PORT`, or `service.NAME` for the port named `http` or the only one.",
        ),
        FOR_EACH,
    ],
    blocks: &[],
    any_attribute: None,
    example: "route \"public\" {\n  listen = \":8080\"\n  host   = \"shop.localhost\"\n  to     = service.web.http\n}",
};

pub(super) static NOTIFY: BlockSchema = BlockSchema {
    name: "notify",
    labels: &["name"],
    summary: "Somebody who is told of rollouts by signed HTTP requests: see [rollouts](rollouts.md#notifications). The block of the revision that a rollout leads to counts.",
    attributes: &[
        attribute(
            "url",
            "URL",
            "",
            "Where the requests go: `http://` or `https://`, without a user and without `?`. Redirects are not followed.",
        ),
        attribute(
            "events",
            "list of strings",
            "all",
            "Of what: `\"started\"`, `\"waiting\"` (for somebody to decide), `\"analysed\"`, `\"completed\"`, `\"going_back\"`, `\"aborted\"`, `\"went_back\"`, `\"stuck\"`, `\"superseded\"`.",
        ),
        attribute(
            "secret",
            "secret",
            "",
            "`secret.NAME`: what signs the requests. One that begins with `whsec_` has the key in base64, as Standard Webhooks writes it.",
        ),
        FOR_EACH,
    ],
    blocks: &[],
    any_attribute: None,
    example: "notify \"chat\" {\n  url    = \"https://chat.example/hooks/kiln\"\n  events = [\"waiting\", \"completed\", \"went_back\"]\n  secret = secret.chat_hook\n}",
};

pub(super) static ENVIRONMENT: BlockSchema = BlockSchema {
    name: "environment",
    labels: &["name"],
    summary: "A place where the stack runs, chosen with `--env` (`dev` without it). It sets variables of the scope `environment`, and says what a release needs to come there.",
    attributes: &[attribute(
        "variables",
        "object of values without references",
        "{}",
        "The values of variables with `scope = \"environment\"`.",
    )],
    blocks: &[NestedBlock { schema: &PROMOTE, many: false }],
    any_attribute: None,
    example: "environment \"prod\" {\n  variables = { replicas = 6 }\n\n  promote {\n    from    = \"staging\"\n    soak    = \"1h\"\n    approve = [\"olga\"]\n  }\n}",
};

static PROMOTE: BlockSchema = BlockSchema {
    name: "promote",
    labels: &[],
    summary: "What must hold before the environment lets a release in, by `kiln promote` or `kiln up`; a rollback is never held up. The gates of the last release that was let in count, those of a new one from then on. See [rollouts](rollouts.md#gates).",
    attributes: &[
        attribute(
            "from",
            "name of an environment",
            "none",
            "The environment that must have been moved to the release before.",
        ),
        attribute(
            "soak",
            "duration",
            "none",
            "How long the release must have served there since it came or an instance of it failed.",
        ),
        attribute(
            "approve",
            "list of strings",
            "none",
            "Who may approve the release, with `kiln release approve`; an empty list means anybody.",
        ),
    ],
    blocks: &[NestedBlock { schema: &WINDOW, many: true }, NestedBlock { schema: &FREEZE, many: true }],
    any_attribute: None,
    example: "promote {\n  from    = \"staging\"\n  soak    = \"1h\"\n  approve = [\"olga\"]\n\n  window {\n    days = [\"mon\", \"tue\", \"wed\", \"thu\"]\n    from = \"09:00\"\n    to   = \"16:00\"\n  }\n}",
};

static WINDOW: BlockSchema = BlockSchema {
    name: "window",
    labels: &[],
    summary: "Hours in which a release may come; with several, any of them.",
    attributes: &[
        attribute("days", "list of strings", "every day", "Days of the week: `\"mon\"` to `\"sun\"`."),
        attribute("from", "time of the day", "", "When it opens, in UTC: `\"09:00\"`."),
        attribute(
            "to",
            "time of the day",
            "",
            "When it shuts, in UTC, on the same day: `\"24:00\"` is its end.",
        ),
    ],
    blocks: &[],
    any_attribute: None,
    example: "window {\n  days = [\"mon\", \"tue\"]\n  from = \"09:00\"\n  to   = \"16:00\"\n}",
};

static FREEZE: BlockSchema = BlockSchema {
    name: "freeze",
    labels: &[],
    summary: "A time in which no release may come.",
    attributes: &[
        attribute("from", "moment", "", "Its beginning: `\"2026-12-20T00:00:00Z\"`."),
        attribute("to", "moment", "", "Its end."),
        attribute("reason", "string", "", "Why: whoever is refused is told."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "freeze {\n  from   = \"2026-12-20T00:00:00Z\"\n  to     = \"2027-01-02T00:00:00Z\"\n  reason = \"nobody is there\"\n}",
};
