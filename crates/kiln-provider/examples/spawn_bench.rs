//! How long it takes from asking for an instance to the first instruction in it, and how long a hundred of them take.
//!
//! `cargo run --release -p kiln-provider --example spawn_bench [ROUNDS]`, as root. Where `crun` is installed, it is measured on
//! the same image in the same run, without the network and the control groups that Kiln's figure includes.
//!
//! Prints a line per measurement, its name and the samples in microseconds, for `cargo xtask bench start` to read.
#![allow(clippy::print_stdout, reason = "it is a benchmark")]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use kiln_model::instance::{InstanceSpec, Limits};
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
    print_samples("kiln one", &first);
    print_samples("kiln crowd", &[bench.crowd()?]);
    server.stop();
    server.host().remove_traces()?;
    if Command::new("crun").arg("--version").stdout(Stdio::null()).status().is_ok() {
        make_bundle(&folder.path().join("one"), &root, &["/app", "clock", "once"])?;
        make_bundle(&folder.path().join("crowd"), &root, &["/app", "clock"])?;
        Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", CRUN_VIEW])
            .arg("sh")
            .arg(std::env::current_exe()?)
            .arg(CRUN_COMMAND)
            .arg(folder.path())
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

fn print_samples(name: &str, samples: &[Duration]) {
    let samples: Vec<String> = samples.iter().map(|sample| sample.as_micros().to_string()).collect();
    println!("{name}\t{}", samples.join(","));
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

    /// From the first request to the word that the last of a hundred has started.
    fn crowd(&mut self) -> Result<Duration, Box<dyn Error>> {
        let began = Instant::now();
        let ids: Vec<InstanceId> =
            (0..CROWD).map(|_| Ok(self.create()?.0)).collect::<Result<_, Box<dyn Error>>>()?;
        self.wait_for(ids.iter().copied().collect(), |t| matches!(t, Transition::Started { .. }))?;
        let all = began.elapsed();
        self.destroy(&ids)?;
        Ok(all)
    }
}

fn spec() -> InstanceSpec {
    InstanceSpec {
        limits: Limits { memory: Some(ByteSize::from_mib(64)), cpu: Some(MilliCpu(1000)), pids: 64 },
        ..InstanceSpec::plain(IMAGE, vec!["/app".into(), "clock".into()])
    }
}

/// Writes crun's own default spec for the same root.
fn make_bundle(bundle: &Path, root: &Path, argv: &[&str]) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(bundle)?;
    Command::new("crun").arg("spec").current_dir(bundle).status()?;
    let path = bundle.join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["process"]["args"] = argv.into();
    config["process"]["terminal"] = false.into();
    config["root"] = serde_json::json!({"path": root, "readonly": true});
    config["linux"]["resources"] = serde_json::json!({});
    if let Some(mounts) = config["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
    }
    Ok(fs::write(&path, config.to_string())?)
}

/// Runs in a view of its own, in which crun finds the control groups that it accepts.
fn measure_crun(folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut one = Vec::new();
    for _ in 0..ROUNDS_DEFAULT {
        let asked = now_ns();
        let output =
            crun().args(["run", "--bundle"]).arg(folder.join("one")).arg("kiln-spawn-bench").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let began: i64 =
            text.trim().parse().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned())?;
        one.push(Duration::from_nanos((began - asked) as u64));
        thread::sleep(PAUSE);
    }
    print_samples("crun one", &one);
    print_samples("crun crowd", &[crun_crowd(&folder.join("crowd"))?]);
    Ok(())
}

/// Starts a hundred in the background, as many side by side as gave crun its best figure.
fn crun_crowd(bundle: &Path) -> Result<Duration, Box<dyn Error>> {
    const SIDE_BY_SIDE: usize = 4;
    let name = |index: usize| format!("kiln-spawn-bench-{index}");
    let start = |index: usize| {
        let mut command = crun();
        command.args(["run", "--detach", "--bundle"]).arg(bundle).arg(name(index));
        command.stdin(Stdio::null()).stdout(Stdio::null()).status()
    };
    let began = Instant::now();
    let started = thread::scope(|scope| {
        let lanes: Vec<_> = (0..SIDE_BY_SIDE)
            .map(|lane| {
                scope.spawn(move || (lane..CROWD).step_by(SIDE_BY_SIDE).map(start).collect::<Vec<_>>())
            })
            .collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap_or_default()).filter(is_success).count()
    });
    let all = began.elapsed();
    for index in 0..CROWD {
        crun().args(["delete", "--force", &name(index)]).status()?;
    }
    if started == CROWD { Ok(all) } else { Err(format!("crun started {started} of {CROWD}").into()) }
}

fn crun() -> Command {
    let mut command = Command::new("crun");
    command.arg("--cgroup-manager=disabled");
    command
}

fn is_success(status: &std::io::Result<std::process::ExitStatus>) -> bool {
    status.as_ref().is_ok_and(std::process::ExitStatus::success)
}
