//! How long it takes from asking for an instance to the first instruction in it, and how long a hundred of them take.
//!
//! `cargo run --release -p kiln-provider --example spawn_bench [ROUNDS]`, as root. Where `crun` is installed, it is measured on
//! the same image in the same run, without the network and the control groups that Kiln's figure includes.
#![allow(clippy::print_stdout, reason = "it is a benchmark")]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::instance::{InstanceSpec, Limits, Security, StopPolicy};
use kiln_model::route::Listener;
use kiln_model::{ByteSize, Digest, EnvKey, Fence, InstanceId, MilliCpu, Millis, Position, Term};
use kiln_provider::host::{
    Client, FolderImages, HostConfig, Listeners, Server, ZYGOTE_COMMAND, ZygoteProgram, run_zygote,
};
use kiln_provider::{
    CreateRequest, DestroyRequest, LogCursor, LogNext, Provider, Transition, Transitions, Watched,
};
use rustix::time::{ClockId, clock_gettime};

const IMAGE: Digest = Digest::new([7; 32]);
const ROUNDS_DEFAULT: usize = 50;
const CROWD: usize = 100;
/// What is removed in the background must not be measured with the next one.
const PAUSE: Duration = Duration::from_millis(250);

/// Runs the rest of the command line with the unified tree alone in sight: crun refuses a hybrid host.
const CRUN_VIEW: &str = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"";
const CRUN_COMMAND: &str = "measure-crun";

struct NoEdge;

impl Listeners for NoEdge {
    fn open(&self, _listener: Listener, _address: SocketAddr) -> Result<(), String> {
        Ok(())
    }

    fn close(&self, _listener: Listener) -> Result<(), String> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        Some(ZYGOTE_COMMAND) => return Ok(run_zygote()?),
        Some(CRUN_COMMAND) => return measure_crun(Path::new(&std::env::args().nth(2).unwrap_or_default())),
        _ => {}
    }
    let rounds = argument.map_or(Ok(ROUNDS_DEFAULT), |text| text.parse())?;
    let folder = tempfile::tempdir_in("/var/tmp")?;
    let root = make_image(folder.path())?;
    let state = folder.path().join("state");
    fs::create_dir_all(&state)?;
    let server = Server::start(HostConfig {
        state_dir: state.clone(),
        images: Box::new(FolderImages::new(folder.path())),
        listeners: Box::new(NoEdge),
        zygote: ZygoteProgram::default(),
    })?;
    let client = Client::new(state.join("run/host.sock"));
    let mut bench = Bench { watch: client.watch(client.list()?.cursor)?, client, next: 1 };

    let mut first = Vec::new();
    for _ in 0..rounds {
        first.push(bench.one()?);
    }
    println!("kiln, one at a time:         {}", describe(&mut first));
    let (all, mut each) = bench.crowd()?;
    println!("kiln, {CROWD} at once:           {:.0} ms for all; each {}", ms(all), describe(&mut each));
    server.stop();
    server.host().remove_traces()?;
    if Command::new("crun").arg("--version").stdout(Stdio::null()).status().is_ok() {
        make_bundle(folder.path(), &root)?;
        Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", CRUN_VIEW])
            .arg("sh")
            .arg(std::env::current_exe()?)
            .arg(CRUN_COMMAND)
            .arg(folder.path().join("bundle"))
            .status()?;
    }
    Ok(())
}

fn make_image(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let root = folder.join(IMAGE.hex());
    for name in ["dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(root.join(name))?;
    }
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(root.join("etc").join(name), "")?;
    }
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/program.c");
    let built = Command::new("gcc")
        .args(["-static", "-O1", "-w", "-o"])
        .arg(root.join("app"))
        .arg(source)
        .status()?;
    if built.success() { Ok(root) } else { Err("the program does not compile".into()) }
}

fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}

fn describe(spans: &mut [Duration]) -> String {
    spans.sort();
    let at = |share: f64| ms(spans[((spans.len() - 1) as f64 * share) as usize]);
    format!("median {:.1} ms, p90 {:.1} ms, least {:.1} ms", at(0.5), at(0.9), at(0.0))
}

struct Bench {
    client: Client,
    watch: Box<dyn Transitions>,
    next: u64,
}

impl Bench {
    fn create(&mut self) -> Result<(InstanceId, i64), Box<dyn Error>> {
        let id = InstanceId::from_seed(self.next);
        self.next += 1;
        let request = CreateRequest {
            id,
            spec: Arc::new(spec()),
            fence: Fence { term: Term(1), position: Position(1) },
            env: EnvKey { stack: "bench".parse()?, env: "dev".parse()? },
            service: "clock".parse()?,
            internal: None,
        };
        let asked = now_ns();
        self.client.create(&request)?;
        Ok((id, asked))
    }

    /// Returns what the program in the instance wrote first: the time.
    fn first_instruction(&self, id: InstanceId) -> Result<i64, Box<dyn Error>> {
        let mut log = self.client.logs(id, LogCursor(0), true)?;
        loop {
            match log.next(Duration::from_secs(10))? {
                LogNext::Line(line) => return Ok(line.text.trim().parse()?),
                LogNext::Quiet => {}
                LogNext::End => return Err("the instance said nothing".into()),
            }
        }
    }

    fn wait_for(
        &mut self,
        mut pending: BTreeSet<InstanceId>,
        is_it: fn(&Transition) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        while !pending.is_empty() {
            if let Some(Watched::Transition { id, transition, .. }) =
                self.watch.next(Duration::from_secs(60))?
            {
                if let Transition::Refused { reason } = transition {
                    return Err(reason.into());
                }
                if is_it(&transition) {
                    pending.remove(&id);
                }
            }
        }
        Ok(())
    }

    fn destroy(&mut self, ids: &[InstanceId]) -> Result<(), Box<dyn Error>> {
        for id in ids {
            let fence = Fence { term: Term(1), position: Position(2) };
            self.client.destroy(&DestroyRequest { id: *id, fence, grace: Millis(0) })?;
        }
        self.wait_for(ids.iter().copied().collect(), |t| matches!(t, Transition::Destroyed))
    }

    fn one(&mut self) -> Result<Duration, Box<dyn Error>> {
        let (id, asked) = self.create()?;
        let began = self.first_instruction(id)?;
        self.destroy(&[id])?;
        thread::sleep(PAUSE);
        Ok(Duration::from_nanos((began - asked) as u64))
    }

    fn crowd(&mut self) -> Result<(Duration, Vec<Duration>), Box<dyn Error>> {
        let began = Instant::now();
        let asked: BTreeMap<InstanceId, i64> = (0..CROWD).map(|_| self.create()).collect::<Result<_, _>>()?;
        self.wait_for(asked.keys().copied().collect(), |t| matches!(t, Transition::Started { .. }))?;
        let all = began.elapsed();
        let mut each = Vec::new();
        for (id, asked) in &asked {
            each.push(Duration::from_nanos((self.first_instruction(*id)? - asked) as u64));
        }
        self.destroy(&asked.keys().copied().collect::<Vec<_>>())?;
        Ok((all, each))
    }
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        image: IMAGE,
        argv: vec!["/app".into(), "clock".into()],
        env: BTreeMap::new(),
        workdir: "/".into(),
        user: String::new(),
        secrets: BTreeMap::new(),
        volumes: BTreeMap::new(),
        scratch: BTreeMap::new(),
        ports: BTreeMap::new(),
        health: None,
        limits: Limits { memory: Some(ByteSize::from_mib(64)), cpu: Some(MilliCpu(1000)), pids: 64 },
        security: Security::default(),
        stop: StopPolicy::default(),
        uses: BTreeSet::new(),
    }
}

/// Writes crun's own default spec for the same root.
fn make_bundle(folder: &Path, root: &Path) -> Result<(), Box<dyn Error>> {
    let bundle = folder.join("bundle");
    fs::create_dir_all(&bundle)?;
    Command::new("crun").arg("spec").current_dir(&bundle).status()?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["args"] = serde_json::json!(["/app", "clock", "once"]);
    config["process"]["terminal"] = false.into();
    config["root"] = serde_json::json!({"path": root, "readonly": true});
    config["linux"]["resources"] = serde_json::json!({});
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    }
    Ok(fs::write(&path, config.to_string())?)
}

/// Runs in a view of its own, in which crun finds the control groups that it accepts.
fn measure_crun(bundle: &Path) -> Result<(), Box<dyn Error>> {
    let mut spans = Vec::new();
    for _ in 0..ROUNDS_DEFAULT {
        let asked = now_ns();
        let output = Command::new("crun")
            .args(["--cgroup-manager=disabled", "run", "--bundle"])
            .arg(bundle)
            .arg("kiln-spawn-bench")
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let began: i64 =
            text.trim().parse().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        spans.push(Duration::from_nanos((began - asked) as u64));
        thread::sleep(PAUSE);
    }
    println!("crun, no network, no cgroup: {}", describe(&mut spans));
    Ok(())
}
