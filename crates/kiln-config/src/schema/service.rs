//! Services, workers and jobs.

use super::{AttributeSchema, BlockSchema, FOR_EACH, NestedBlock, attribute};

const IMAGE: AttributeSchema =
    attribute("image", "image", "", "What it boots: `image.NAME`. A changed image replaces the instances.");
const REPLICAS: AttributeSchema =
    attribute("replicas", "number", "1", "How many instances run. A changed number replaces none.");
const COMMAND: AttributeSchema =
    attribute("command", "list of strings", "the image's", "Replaces the image's command.");
const ENTRYPOINT: AttributeSchema = attribute(
    "entrypoint",
    "list of strings",
    "the image's",
    "Replaces the image's entrypoint, and drops its command.",
);
const ENV: AttributeSchema = attribute(
    "env",
    "map of strings",
    "{}",
    "Environment variables, laid over the image's. Nothing sensitive: it is stored in clear.",
);
const WORKDIR: AttributeSchema = attribute("workdir", "absolute path", "the image's", "The working folder.");
const USER: AttributeSchema =
    attribute("user", "string", "the image's", "`user`, `user:group`, `uid` or `uid:gid`.");
const SECRETS: AttributeSchema = attribute(
    "secrets",
    "map of path to secret",
    "{}",
    "Secrets as files that only the user can read: `{ \"/run/secrets/db\" = secret.db }`.",
);
const VOLUMES: AttributeSchema = attribute(
    "volumes",
    "map of path to volume",
    "{}",
    "Volumes by path: `volume.NAME`, or `{ volume = volume.NAME, read_only = true }`.",
);
const SCRATCH: AttributeSchema = attribute(
    "scratch",
    "map of path to size",
    "{}",
    "Writable memory by path, beside `/tmp`, `/run` and `/dev/shm`. All else is read-only.",
);
const DEPENDS_ON: AttributeSchema = attribute(
    "depends_on",
    "list of services, workers and jobs",
    "[]",
    "What is created first. A service whose `url` is used is so already.",
);

const RESOURCES_BLOCK: NestedBlock = NestedBlock { schema: &RESOURCES, many: false };
const SECURITY_BLOCK: NestedBlock = NestedBlock { schema: &SECURITY, many: false };
const STOP_BLOCK: NestedBlock = NestedBlock { schema: &STOP, many: false };
const PORT_BLOCK: NestedBlock = NestedBlock { schema: &PORT, many: true };
const HEALTH_BLOCK: NestedBlock = NestedBlock { schema: &HEALTH, many: false };
const ROLLOUT_BLOCK: NestedBlock = NestedBlock { schema: &ROLLOUT, many: false };

pub(super) static SERVICE: BlockSchema = BlockSchema {
    name: "service",
    labels: &["name"],
    summary: "A workload that answers requests. Others of the stack reach it as `service.NAME.url`, which is `http://NAME.STACK.kiln`; routes reach it as `service.NAME.PORT`. Its name is part of a host name: lower-case letters, digits and hyphens.",
    attributes: &[
        IMAGE, REPLICAS, COMMAND, ENTRYPOINT, ENV, WORKDIR, USER, SECRETS, VOLUMES, SCRATCH, DEPENDS_ON,
        FOR_EACH,
    ],
    blocks: &[PORT_BLOCK, HEALTH_BLOCK, RESOURCES_BLOCK, SECURITY_BLOCK, STOP_BLOCK, ROLLOUT_BLOCK],
    any_attribute: None,
    example: "service \"web\" {\n  image    = image.web\n  replicas = var.replicas\n  env      = { ORDERS = service.orders.url }\n\n  port \"http\" {\n    number = 8080\n  }\n\n  health {\n    http = \"/healthz\"\n  }\n}",
};

pub(super) static WORKER: BlockSchema = BlockSchema {
    name: "worker",
    labels: &["name"],
    summary: "A workload without requests. By default the old instances are gone before new ones start.",
    attributes: &[
        IMAGE, REPLICAS, COMMAND, ENTRYPOINT, ENV, WORKDIR, USER, SECRETS, VOLUMES, SCRATCH, DEPENDS_ON,
        FOR_EACH,
    ],
    blocks: &[PORT_BLOCK, HEALTH_BLOCK, RESOURCES_BLOCK, SECURITY_BLOCK, STOP_BLOCK, ROLLOUT_BLOCK],
    any_attribute: None,
    example: "worker \"mailer\" {\n  image   = image.web\n  command = [\"python3\", \"/app/mailer.py\"]\n}",
};

pub(super) static JOB: BlockSchema = BlockSchema {
    name: "job",
    labels: &["name"],
    summary: "Runs to its end once for each revision that changes it, before anything of the revision is created, or where a [`step`](#step-in-rollout) runs it. A failed job ends the rollout.",
    attributes: &[
        IMAGE, COMMAND, ENTRYPOINT, ENV, WORKDIR, USER, SECRETS, VOLUMES, SCRATCH, DEPENDS_ON, FOR_EACH,
    ],
    blocks: &[RESOURCES_BLOCK, SECURITY_BLOCK, STOP_BLOCK],
    any_attribute: None,
    example: "job \"migrate\" {\n  image   = image.web\n  command = [\"python3\", \"/app/migrate.py\"]\n}",
};

static PORT: BlockSchema = BlockSchema {
    name: "port",
    labels: &["name"],
    summary: "A port that it listens on. The one named `http`, or the only one, is that of its `url`.",
    attributes: &[attribute("number", "number", "", "1 to 65535.")],
    blocks: &[],
    any_attribute: None,
    example: "port \"http\" {\n  number = 8080\n}",
};

static HEALTH: BlockSchema = BlockSchema {
    name: "health",
    labels: &[],
    summary: "How it proves to be alive. Exactly one of `http`, `tcp` and `command` is set; without the block, running is enough.",
    attributes: &[
        attribute("http", "path", "none", "A GET of this path must be answered."),
        attribute("tcp", "bool", "false", "A connect must succeed."),
        attribute("command", "list of strings", "none", "A command inside must exit with 0."),
        attribute(
            "port",
            "name or number of a port",
            "the port named `http`, or the only one",
            "Where `http` or `tcp` asks.",
        ),
        attribute("status", "number", "any of 200 to 399", "The status that counts for `http`."),
        attribute("interval", "duration", "\"2s\"", "How often, once it has started up."),
        attribute("timeout", "duration", "\"1s\"", "How long one probe may take."),
        attribute(
            "startup",
            "duration",
            "\"60s\"",
            "How long it may take to become healthy first. Failures do not count until then.",
        ),
        attribute("healthy_after", "number", "1", "Successes in a row that make it healthy."),
        attribute(
            "unhealthy_after",
            "number",
            "3",
            "Failures in a row that make it unhealthy, and replaced.",
        ),
    ],
    blocks: &[],
    any_attribute: None,
    example: "health {\n  http     = \"/healthz\"\n  interval = \"1s\"\n}",
};

static RESOURCES: BlockSchema = BlockSchema {
    name: "resources",
    labels: &[],
    summary: "What each instance may use.",
    attributes: &[
        attribute("memory", "size", "no limit", "More ends it."),
        attribute("cpu", "number of cores", "no limit", "Processor time, such as `0.5`."),
        attribute("pids", "number", "512", "Processes and threads."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "resources {\n  memory = \"128MiB\"\n  cpu    = 0.5\n}",
};

static SECURITY: BlockSchema = BlockSchema {
    name: "security",
    labels: &[],
    summary: "What each instance may do beyond an ordinary process.",
    attributes: &[
        attribute(
            "add_capabilities",
            "list of strings",
            "[]",
            "Linux capabilities beside the default set, such as `\"NET_ADMIN\"`.",
        ),
        attribute("drop_capabilities", "list of strings", "[]", "Those taken away; `\"ALL\"` takes all."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "security {\n  drop_capabilities = [\"ALL\"]\n  add_capabilities  = [\"NET_BIND_SERVICE\"]\n}",
};

static STOP: BlockSchema = BlockSchema {
    name: "stop",
    labels: &[],
    summary: "How it is asked to end, after it has no requests left.",
    attributes: &[
        attribute("signal", "signal", "the image's, or \"SIGTERM\"", "What it gets."),
        attribute("grace", "duration", "\"10s\"", "How long it has before SIGKILL."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "stop {\n  signal = \"SIGINT\"\n  grace  = \"30s\"\n}",
};

static ROLLOUT: BlockSchema = BlockSchema {
    name: "rollout",
    labels: &["strategy"],
    summary: "How it moves from one revision to another. `blue_green`: all new instances beside the old ones, then one switch. `rolling`: a few at a time. `canary`: a small share of the requests first, then more. `stop_then_start`: the old ones are gone before new ones start. A service without the block is `blue_green`, a worker `stop_then_start`.",
    attributes: &[
        attribute(
            "max_surge",
            "number",
            "1, or no bound for `canary`",
            "For `rolling` and `canary`: how many more than the replicas may exist at once. A canary's shares must do with it, its baseline included; after the last share the rest is replaced so many at a time, and nothing is kept warm.",
        ),
        attribute(
            "max_unavailable",
            "number",
            "0",
            "For `rolling`: how many fewer than the replicas may be healthy.",
        ),
        attribute(
            "waves",
            "list of numbers or shares",
            "none",
            "For `rolling`: how many instances are new after each wave, as in `[\"1\", \"25%\", \"100%\"]`; then all. Shares are of those that are to be replaced, rounded up.",
        ),
        attribute(
            "soak",
            "duration",
            "\"10m\"",
            "For `rolling` with `waves`: how long each wave is watched before the next. A new instance of the waves before that fails meanwhile takes the rollout back.",
        ),
        attribute(
            "warm_for",
            "duration",
            "\"10m\"",
            "How long the old instances are kept for a quick way back.",
        ),
        attribute(
            "drain_deadline",
            "duration",
            "\"30s\"",
            "How long requests in flight may take before they are cut.",
        ),
        attribute(
            "progress_deadline",
            "duration",
            "\"2m\"",
            "How long new instances may take to become healthy before the rollout goes back.",
        ),
        attribute(
            "min_healthy_time",
            "duration",
            "\"0s\"",
            "For how long, without a break, a new instance must have been healthy before the rollout goes on. Less than `progress_deadline`.",
        ),
        attribute(
            "auto_promote",
            "bool",
            "true",
            "For `blue_green`: whether traffic moves to the new instances as soon as they are healthy. Otherwise `kiln rollout promote` lets it, within a day; then the rollout goes back.",
        ),
        attribute(
            "auto_revert",
            "bool",
            "true",
            "Whether a rollout that fails goes back by itself. Otherwise it stops where it is, what served before keeps the requests, and somebody decides, within a day; then it goes back.",
        ),
        attribute(
            "steps",
            "list of shares",
            "[\"5%\", \"25%\"]",
            "For `canary`: the shares of the requests that the new instances get, one after the other; then all. The first one may be `\"0%\"`, for testers alone.",
        ),
        attribute(
            "hold",
            "duration",
            "\"1m\", or none with an `analysis`",
            "For `canary`: how long each share is held at least.",
        ),
    ],
    blocks: &[
        NestedBlock { schema: &STEP, many: true },
        NestedBlock { schema: &ANALYSIS, many: false },
        NestedBlock { schema: &STICKY, many: false },
        NestedBlock { schema: &MATCH, many: true },
        NestedBlock { schema: &MIRROR, many: false },
    ],
    any_attribute: None,
    example: "rollout \"rolling\" {\n  max_surge = 2\n  warm_for  = \"30m\"\n}",
};

static STICKY: BlockSchema = BlockSchema {
    name: "sticky",
    labels: &[],
    summary: "For `canary`: what stands for a user, who then stays with one version: while the canary's share grows, users only come to it. Exactly one of `cookie`, `header` and `address` is set. Without the block each request is drawn for itself, which tells an analysis more.",
    attributes: &[
        attribute(
            "cookie",
            "string",
            "none",
            "The name of a cookie that the edge sets where it is missing: a random id, `HttpOnly`.",
        ),
        attribute("max_age", "duration", "\"7d\"", "How long a browser is to keep the cookie."),
        attribute(
            "header",
            "string",
            "none",
            "The name of a header, such as one with an account's number. Requests without it are drawn.",
        ),
        attribute(
            "address",
            "bool",
            "false",
            "Whether the address stands for a user that the connection comes from. Behind another proxy that is the proxy's.",
        ),
    ],
    blocks: &[],
    any_attribute: None,
    example: "sticky {\n  cookie = \"kiln-web\"\n}",
};

static MATCH: BlockSchema = BlockSchema {
    name: "match",
    labels: &[],
    summary: "For `canary`: requests with a header go to one version whatever the shares are, so that testers see it. The first block that matches holds. No analysis counts these requests. Anybody who knows the header can send it.",
    attributes: &[
        attribute("header", "string", "needed", "The header's name."),
        attribute("equals", "string", "none", "The value that it must have."),
        attribute(
            "prefix",
            "string",
            "none",
            "What its value must begin with. With neither, any value will do.",
        ),
        attribute("to", "\"canary\" or \"stable\"", "\"canary\"", "Where the requests go."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "match {\n  header = \"X-Version\"\n  equals = \"next\"\n}",
};

static MIRROR: BlockSchema = BlockSchema {
    name: "mirror",
    labels: &[],
    summary: "For `canary`: copies of GET and HEAD requests without a body that an old instance answers are sent to a new one, too. Their answers are dropped. A copy has the header `kiln-mirror: 1`.",
    attributes: &[attribute("share", "share", "\"100%\"", "How many of those requests are copied.")],
    blocks: &[],
    any_attribute: None,
    example: "mirror {\n  share = \"10%\"\n}",
};

static STEP: BlockSchema = BlockSchema {
    name: "step",
    labels: &[],
    summary: "One step, in the order in which they stand; exactly one attribute is set, beside `within` and `for`, or a `check` block. The strategy moves in this order: `create`, `wait`, `shift`, `drain`, `retire`; where old instances go first, `drain`, `retire`, `create`, `wait`. A move that is not written is made where it has to be. What stands before any move comes once the new instances are healthy, unless it is a `run` at the beginning, or `create` or `wait` stand further down. `rolling` goes through all of it with each batch, but for what comes before the first move. With `canary`, `step` blocks are in place of `steps` and `hold`. See [rollouts](rollouts.md#steps).",
    attributes: &[
        attribute(
            "run",
            "job",
            "none",
            "Runs `job.NAME` to its end, in each rollout that replaces instances of the service; it runs nowhere else then. If it fails, the rollout goes back.",
        ),
        attribute("create", "bool", "none", "`true`: creates the new instances."),
        attribute("wait", "\"healthy\"", "none", "Waits until they are healthy."),
        attribute(
            "mirror",
            "share",
            "none",
            "For `blue_green` and `canary`, before the first `shift`: copies this share of the safe requests to the new instances, which get no others. Answers are dropped, differences are counted. `\"0%\"` ends it.",
        ),
        attribute(
            "for",
            "duration",
            "until it is ended",
            "For `mirror`: how long. Without it, it goes on until `mirror = \"0%\"` or the next `shift`.",
        ),
        attribute(
            "shift",
            "share",
            "none",
            "Sends this share of the requests to the new instances. Less than `\"100%\"` is for `canary`; `\"0%\"`, as its first one, is for those whom a `match` aims at them, and for copies.",
        ),
        attribute("hold", "duration", "none", "Waits."),
        attribute(
            "analyse",
            "duration",
            "none",
            "For `canary`: waits for the analysis to pass, for this long at most.",
        ),
        attribute(
            "approve",
            "list of strings",
            "none",
            "Waits for `kiln rollout promote` by one of these; an empty list means by anybody.",
        ),
        attribute(
            "drain",
            "bool",
            "none",
            "`true`: waits until the old instances have no request in flight.",
        ),
        attribute("retire", "bool", "none", "`true`: removes the old instances, or keeps them warm."),
        attribute(
            "within",
            "duration",
            "\"1d\", or \"10m\" for `run`",
            "For `approve` and `run`: how long before the rollout goes back.",
        ),
    ],
    blocks: &[NestedBlock { schema: &CHECK, many: false }],
    any_attribute: None,
    example: "step {\n  run    = job.migrate\n  within = \"5m\"\n}",
};

static CHECK: BlockSchema = BlockSchema {
    name: "check",
    labels: &[],
    summary: "What decides whether the rollout goes on: a command that must exit with 0, or a question over HTTP; either `exec` or an `http` block. A command runs in an instance of its own, made as the service's of the new revision are, that gets no requests and can only read the volumes: a job named `SERVICE-check-1`, `-2` and so on.",
    attributes: &[
        attribute(
            "exec",
            "list of strings",
            "none",
            "The program in the service's image, with its arguments.",
        ),
        attribute(
            "timeout",
            "duration",
            "\"1m\", or \"10s\" for `http`",
            "How long an attempt may take. Then it is ended, and has failed.",
        ),
        attribute("attempts", "number", "1", "How often it is tried before the rollout goes back."),
        attribute(
            "interval",
            "duration",
            "\"5s\"",
            "How long after an attempt that failed the next one begins.",
        ),
    ],
    blocks: &[NestedBlock { schema: &ASK, many: false }],
    any_attribute: None,
    example: "check {\n  exec    = [\"/app/smoke\", \"--fast\"]\n  timeout = \"30s\"\n}",
};

static ASK: BlockSchema = BlockSchema {
    name: "http",
    labels: &[],
    summary: "A question over HTTP that the controller asks; either `url` or `path` is set. Redirects are answers, and not followed.",
    attributes: &[
        attribute(
            "url",
            "URL",
            "none",
            "Whoever answers there, with `http` or `https`. It is stored in clear.",
        ),
        attribute(
            "path",
            "path",
            "none",
            "Each healthy new instance of the service is asked for it, past the routes: it may have no requests yet. All must answer as they should.",
        ),
        attribute("port", "port", "the one named `http`, or the only one", "Where a `path` is asked for."),
        attribute("method", "\"GET\", \"HEAD\" or \"POST\"", "\"GET\"", "How; POST has an empty body."),
        attribute("status", "number", "any of 200 to 299", "The status that counts."),
        attribute("contains", "string", "none", "What the first MiB of the body must contain."),
        BEARER,
        ASKER,
        PASSWORD,
        CA,
    ],
    blocks: &[],
    any_attribute: None,
    example: "http {\n  path     = \"/ready\"\n  contains = \"ok\"\n}",
};

static ANALYSIS: BlockSchema = BlockSchema {
    name: "analysis",
    labels: &[],
    summary: "For `canary`: what the new instances are compared by with a baseline, which is fresh instances of the revision that served before with as large a share. See [statistics](statistics.md).",
    attributes: &[
        attribute(
            "within",
            "duration",
            "\"10m\"",
            "How long it may take at each share before it counts as inconclusive.",
        ),
        attribute(
            "alpha",
            "number",
            "0.05",
            "The chance that a canary that is no worse is stopped by any of all looks at it.",
        ),
        attribute(
            "inconclusive",
            "\"stop\", \"continue\", \"ask\" or \"extend\"",
            "\"stop\"",
            "What happens where the requests were too few to tell: go back, go on, wait as long again for an approval, or wait as long again for requests.",
        ),
        attribute(
            "extend_limit",
            "number",
            "3",
            "For `inconclusive = \"extend\"`: how often it takes the same time again.",
        ),
        attribute(
            "then",
            "\"stop\", \"continue\" or \"ask\"",
            "\"stop\"",
            "For `inconclusive = \"extend\"`: what happens where the requests were still too few after that.",
        ),
        attribute("dry_run", "bool", "false", "Whether verdicts are only written down."),
    ],
    blocks: &[NestedBlock { schema: &METRIC, many: true }, NestedBlock { schema: &SYNTHETIC, many: false }],
    any_attribute: Some(
        "What is compared: `error_rate`, `client_errors` (answers of 400 to 499), or a quantile of the latency such as `latency_p99`; `worse_by` says how much worse is accepted: a rate (`0.01`), a share of the baseline's (`\"20%\"`) or a duration (`\"50ms\"`).",
    ),
    example: "analysis {\n  error_rate = { worse_by = 0.01 }\n}",
};

const BEARER: AttributeSchema = attribute(
    "bearer",
    "secret",
    "none",
    "`secret.NAME`: goes with the question, as `Authorization: Bearer`.",
);
const ASKER: AttributeSchema = attribute(
    "user",
    "string",
    "none",
    "Goes with the question, with `password`, as `Authorization: Basic`.",
);
const PASSWORD: AttributeSchema = attribute("password", "secret", "none", "`secret.NAME`.");
const CA: AttributeSchema = attribute(
    "ca",
    "string",
    "none",
    "For `https`: certificates in PEM that vouch for whoever is asked, beside those that the machine trusts, as in `file(\"ca.pem\")`.",
);

static SYNTHETIC: BlockSchema = BlockSchema {
    name: "synthetic",
    labels: &[],
    summary: "Where too few requests come: while a step analyses, Kiln asks the canary and its baseline itself, as often the one as the other, with the header `kiln-synthetic: 1`. These requests are compared as all others are, and counted apart from what clients sent.",
    attributes: &[
        attribute(
            "path",
            "path",
            "needed",
            "What is asked for: something that does the work of real requests.",
        ),
        attribute(
            "rate",
            "number",
            "needed",
            "How many requests each of the two has in a second, 1 to 200. What comes of clients counts; the rest is made.",
        ),
        attribute("count", "number", "10000", "How many each of the two is sent at most, at each share."),
        attribute("method", "\"GET\" or \"HEAD\"", "\"GET\"", "How: what is safe to be done for nobody."),
        attribute("host", "string", "the service's name", "What the header `Host` says."),
        attribute("port", "port", "the one named `http`, or the only one", "Which port is asked."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "synthetic {\n  path = \"/search?q=kiln\"\n  rate = 20\n}",
};

static METRIC: BlockSchema = BlockSchema {
    name: "metric",
    labels: &["name"],
    summary: "Something that Prometheus measures. It is asked once after each interval since the requests were last split; each answer is a success, a failure, or tells nothing. NaN tells nothing. No result, more than one, or no answer is an error. At least one of `success` and `failure` is set: with one of them, all else is the other.",
    attributes: &[
        attribute(
            "prometheus",
            "URL",
            "needed",
            "Where it answers; `/api/v1/query` is added. The controller asks.",
        ),
        attribute("query", "string", "needed", "What it is asked: one number, so aggregate, as in `sum(…)`."),
        BEARER,
        ASKER,
        PASSWORD,
        CA,
        attribute(
            "success",
            "comparison",
            "none",
            "`\"result < 0.05\"`, with one of `<`, `<=`, `>`, `>=`, `==` and `!=`.",
        ),
        attribute("failure", "comparison", "none", "As `success`; it comes first where both hold."),
        attribute("interval", "duration", "\"30s\"", "How long before each measurement."),
        attribute("count", "number", "3", "How many values make it pass; errors are none."),
        attribute(
            "failure_limit",
            "number",
            "0",
            "How many failures are accepted; one more fails the canary.",
        ),
        attribute(
            "inconclusive_limit",
            "number",
            "0",
            "How many values that tell nothing are accepted; with one more the analysis is inconclusive.",
        ),
        attribute(
            "error_limit",
            "number",
            "4",
            "How many errors in a row are accepted; with one more the analysis is inconclusive.",
        ),
        attribute("dry_run", "bool", "false", "Whether its measurements are only written down."),
    ],
    blocks: &[],
    any_attribute: None,
    example: "metric \"queue\" {\n  prometheus = \"http://127.0.0.1:9090\"\n  query      = \"sum(queue_length)\"\n  success    = \"result < 100\"\n}",
};
