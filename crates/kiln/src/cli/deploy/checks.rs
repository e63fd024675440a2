//! Image tests and scans: the image holds what is asked, boots as an unrouted instance and answers, before anything refers to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_model::image::Image;
use kiln_model::instance::{HealthCheck, Limits, Probe, StopPolicy};
use kiln_model::recipe::ImageTest;
use kiln_model::stack::Stack;
use kiln_model::{Digest, EnvKey, ImageName, InstanceSpec, Millis};
use kiln_store::Store;
use kiln_store::canonical::spec_digest;

use super::{inspections, scans};
use crate::api::client::Client;
use crate::api::wire;
use crate::cli::failure::{Failure, Kind};
use crate::cli::follow::advice;
use crate::cli::interrupt::Interrupt;
use crate::cli::logs::last_words;
use crate::cli::screen::Screen;
use crate::cli::table::span;
use crate::runtime::StateDir;

/// How often a verdict is asked for: a tiny server answers within some tens of milliseconds.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How much longer than the test itself its verdict may take: the instance is created and the log is synced.
const VERDICT_SLACK: Duration = Duration::from_secs(60);
/// How much later than the test itself its check is given up: the instance, whose start the test counts from, is created before,
/// and the last probe tells what is wrong. Less than [`VERDICT_SLACK`].
const CREATE_SLACK: Millis = Millis::from_secs(30);
/// A test probes often: it is over with the first answer.
const PROBE_EVERY: Millis = Millis(200);
/// One probe of a test; a server that hangs is asked again.
const PROBE_WITHIN: Millis = Millis(2_000);
/// Nothing is in flight to a test's instance.
const STOP_WITHIN: Millis = Millis(1_000);

/// A test that is to be run.
struct Pending {
    title: String,
    image: Digest,
    test: String,
    spec: Digest,
    within: Duration,
    since: Instant,
}

/// Runs every test that has not passed yet, side by side.
///
/// # Errors
/// A test failed: nothing is released.
pub(crate) fn run(
    (client, store): (&Client, &Store),
    state: &StateDir,
    env: &EnvKey,
    (stack, folder): (&Stack, &Path),
    images: &BTreeMap<ImageName, Image>,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<(), Failure> {
    scan((client, store), env, (stack, folder), images, screen)?;
    let (mut pending, mut failed) = (Vec::new(), Vec::new());
    for (name, image) in images {
        let tests = stack.images.get(name).map(|recipe| recipe.tests.as_slice()).unwrap_or_default();
        for test in tests {
            let title = format!("{name}.{}", test.name);
            if let Some(reason) = inspections::run((client, store), env, &title, image, test, screen)? {
                failed.push((title, reason));
            } else if let Some(probe) = &test.probe
                && let Some(started) = start(client, env, &title, image, (test, probe), screen)?
            {
                pending.push(started);
            }
        }
    }
    for test in &pending {
        if let Some(reason) = wait(client, test, screen, interrupt)? {
            failed.push((test.title.clone(), reason));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = failed.iter().map(|(title, _)| title.as_str()).collect();
    let mut failure =
        Failure::failed(format!("the image can't be released: test {} failed", names.join(", ")));
    for (title, reason) in &failed {
        failure = failure.cause(format!("{title}: {reason}"));
    }
    let words = last_words(client, state, env, client.health().position, "");
    let advice = failed.iter().find_map(|(_, reason)| advice::about(reason, &words));
    failure = words.into_iter().fold(failure, Failure::cause);
    if let Some(advice) = advice {
        failure = failure.hint(advice);
    }
    Err(failure.hint("what runs was not touched; change the image or its test, then run the command again"))
}

/// Scans every image that is to be scanned: before the tests, for what may not be released need not boot.
fn scan(
    (client, store): (&Client, &Store),
    env: &EnvKey,
    (stack, folder): (&Stack, &Path),
    images: &BTreeMap<ImageName, Image>,
    screen: &mut Screen,
) -> Result<(), Failure> {
    let mut failed = Vec::new();
    for (name, image) in images {
        let Some(scan) = stack.images.get(name).and_then(|recipe| recipe.scan.as_ref()) else { continue };
        if let Some(reason) = scans::run((client, store), env, folder, (name.as_str(), image), scan, screen)?
        {
            failed.push(format!("{name}: {reason}"));
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let failure = Failure::failed("the image can't be released: it has known vulnerabilities");
    Err(failed.into_iter().fold(failure, Failure::cause).hint(
        "what runs was not touched; take a version with the fix, or say in `ignore` why it is accepted and until when",
    ))
}

fn start(
    client: &Client,
    env: &EnvKey,
    title: &str,
    image: &Image,
    (test, probe): (&ImageTest, &Probe),
    screen: &mut Screen,
) -> Result<Option<Pending>, Failure> {
    let spec = spec(title, image, test, probe)?;
    let digest = spec_digest(&spec);
    if client.verdict(&image.manifest, &test.name, &digest)?.state == "passed" {
        screen.note(&format!("test {title} passed before"));
        return Ok(None);
    }
    let check = wire::Check {
        image: image.manifest.to_string(),
        test: test.name.clone(),
        spec: spec.as_ref().into(),
        spec_digest: digest.to_string(),
        within_ms: test.within.0.saturating_add(CREATE_SLACK.0),
    };
    client.check(env, &check)?;
    Ok(Some(Pending {
        title: title.into(),
        image: image.manifest,
        test: test.name.clone(),
        spec: digest,
        within: test.within.as_duration(),
        since: Instant::now(),
    }))
}

/// Returns why it failed, if it did.
fn wait(
    client: &Client,
    test: &Pending,
    screen: &mut Screen,
    interrupt: &Interrupt,
) -> Result<Option<String>, Failure> {
    let passed = || Millis(u64::try_from(test.since.elapsed().as_millis()).unwrap_or(u64::MAX));
    loop {
        if interrupt.is_set() {
            return Err(Failure::failed("called off").hint("nothing was released; what runs was not touched"));
        }
        let verdict = client.verdict(&test.image, &test.test, &test.spec)?;
        match verdict.state.as_str() {
            "passed" => {
                screen.note(&format!("test {} passed after {}", test.title, span(passed())));
                return Ok(None);
            }
            "failed" => return Ok(Some(verdict.reason)),
            _ if test.since.elapsed() > test.within + VERDICT_SLACK => {
                return Err(Failure::external(format!("test {} gave no answer", test.title))
                    .hint("`kiln status` shows whether the host runs; the command is safe to repeat"));
            }
            _ => {}
        }
        screen.draw(&[format!("test {}  {}", test.title, span(passed()))]);
        std::thread::sleep(ASK_EVERY);
    }
}

/// What the instance of a test sees: the image as it is, and what the test adds.
fn spec(title: &str, image: &Image, test: &ImageTest, probe: &Probe) -> Result<Arc<InstanceSpec>, Failure> {
    let config = &image.config;
    let argv: Vec<String> = config.entrypoint.iter().chain(&config.command).cloned().collect();
    if argv.is_empty() {
        return Err(Failure::new(Kind::Config, format!("test {title} can't boot its image"))
            .cause("the image has neither an entrypoint nor a command")
            .hint("set `command` in the image"));
    }
    let mut env = config.env.clone();
    env.extend(test.env.clone());
    let or = |text: &str, default: &str| if text.is_empty() { default.into() } else { text.to_owned() };
    Ok(Arc::new(InstanceSpec {
        env,
        workdir: or(&config.workdir, "/"),
        user: config.user.clone(),
        scratch: config
            .volumes
            .iter()
            .map(|path| (path.clone(), kiln_model::stack::IMAGE_VOLUME_SIZE))
            .collect(),
        health: Some(HealthCheck {
            probe: probe.clone(),
            interval: PROBE_EVERY,
            timeout: match probe {
                // It is the user's, and may take as long as the test.
                Probe::Command { .. } => test.within,
                Probe::Http { .. } | Probe::Tcp { .. } => PROBE_WITHIN.min(test.within),
            },
            startup: test.within,
            healthy_after: 1,
            unhealthy_after: 1,
            closed_ports: test.closed_ports.clone(),
        }),
        limits: Limits { memory: test.memory, ..Limits::default() },
        stop: StopPolicy { signal: or(&config.stop_signal, "SIGTERM"), grace: STOP_WITHIN },
        ..InstanceSpec::plain(image.manifest, argv)
    }))
}
