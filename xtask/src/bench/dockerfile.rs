//! A Dockerfile beside BuildKit, as Debian's `docker.io` has it, or else beside buildah.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::machine::Machine;
use super::table::Table;
use super::{installed, median};

/// How many files are copied.
const FILES: usize = 2_000;

/// How often each way of baking is measured.
const COLD_RUNS: usize = 3;
const WARM_RUNS: usize = 7;

/// A daemon that is not there by then does not come.
const DAEMON_WITHIN: Duration = Duration::from_secs(30);

const STACK: &str = r#"
stack "bench" {}

base "debian" "large" {
  suite    = "bookworm"
  packages = ["apt", "ca-certificates", "perl", "python3-minimal"]
}

image "base" {
  from    = base.debian.large
  command = ["/bin/true"]
}
"#;

const IMAGE: &str = r#"
image "web" {
  dockerfile = "./web"
  contexts   = { "base" = base.debian.large }
}
"#;

/// Installs one package, copies many files, and runs something over them. The package lies beside: what is measured is the
/// baker and not the network.
fn dockerfile(run: usize) -> String {
    format!(
        "FROM base\nCOPY tree.deb /tmp/tree.deb\nRUN echo {run} && apt-get install -y /tmp/tree.deb\n\
         COPY files /srv/files\nRUN find /srv/files -type f | sort | xargs sha256sum > /srv/sums\n\
         CMD [\"cat\", \"/srv/sums\"]\n"
    )
}

type Bake<'a> = &'a dyn Fn() -> Result<(), String>;

pub(super) fn run(table: &mut Table) -> Result<(), String> {
    let machine = Machine::new();
    machine.write("stack.hcl", STACK);
    let text = |run: usize| move |number: usize| format!("{run} {number}\n").repeat(200 + number % 300);
    let files = |run: usize| {
        for number in 0..FILES {
            machine.write(&format!("web/files/{}/{number}.txt", number / 50), text(run)(number));
        }
    };
    files(0);
    download("tree", &machine.stack().join("web/tree.deb"))?;
    machine.kiln(&["lock"]).ok();
    machine.kiln(&["bake"]).ok();
    let peer = Peer::start(&machine)?;
    machine.write("stack.hcl", format!("{STACK}{IMAGE}"));
    let kiln = || {
        machine.kiln(&["bake"]).ok();
        Ok(())
    };
    let all: [(&str, Bake<'_>); 2] =
        [("kiln", &kiln), (peer.name(), &|| peer.build(&machine.stack().join("web")))];
    let bakers = &all[..if peer.name() == ABSENT { 1 } else { 2 }];
    let cold = in_turn(bakers, COLD_RUNS, |run, _| machine.write("web/Dockerfile", dockerfile(run)))?;
    let cached = in_turn(bakers, WARM_RUNS, |_, _| {})?;
    let changed = in_turn(bakers, WARM_RUNS, |run, name| {
        machine.write("web/files/7/350.txt", format!("changed for {name}, {run}\n"));
    })?;
    let measured = [cold, cached, changed];
    let rows = [
        "a Dockerfile (170 MB base, one package, 2,000 files), cold",
        "… fully cached",
        "… one file changed",
    ];
    for (index, what) in rows.into_iter().enumerate() {
        let beside = measured[index].get(1).map(|time| (peer.name(), *time));
        table.row(what, measured[index][0], beside);
    }
    if peer.name() == ABSENT {
        let how = "absent: `apt-get install --no-install-recommends docker.io`, or `buildah`";
        table.fact("… beside BuildKit", "-".into(), Some(how.into()));
    }
    Ok(())
}

/// Measures all of them again and again, one after the other, so that whatever else the machine does meets all alike; returns
/// the median of each.
fn in_turn(
    bakers: &[(&str, Bake<'_>)],
    runs: usize,
    prepare: impl Fn(usize, &str),
) -> Result<Vec<Duration>, String> {
    let mut times = vec![Vec::new(); bakers.len()];
    for run in 0..runs {
        for ((name, bake), times) in bakers.iter().zip(&mut times) {
            prepare(run, name);
            times.push(timed(bake)?);
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn timed(work: Bake<'_>) -> Result<Duration, String> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

/// Brings a package from where the host's apt has it from.
fn download(package: &str, to: &Path) -> Result<(), String> {
    let folder = tempfile::tempdir_in("/var/tmp").map_err(|error| error.to_string())?;
    quietly(Command::new("apt-get").args(["download", package]).current_dir(folder.path()))?;
    let file = fs::read_dir(folder.path()).map_err(|error| error.to_string())?.flatten().next();
    let file = file.ok_or_else(|| format!("apt-get brought no {package}"))?;
    fs::copy(file.path(), to).map(drop).map_err(|error| error.to_string())
}

/// Runs a command to its end; what it says is shown only if it fails.
fn quietly(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("cannot run {:?}: {error}", command.get_program()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

const ABSENT: &str = "absent";

/// Who bakes the same beside Kiln, with state of its own.
enum Peer {
    BuildKit { daemon: Daemon, folder: tempfile::TempDir },
    Buildah { folder: tempfile::TempDir },
    Absent,
}

impl Peer {
    /// Starts whoever is installed, and gives it the base.
    fn start(machine: &Machine) -> Result<Self, String> {
        let folder = || tempfile::Builder::new().prefix("kiln-peer-").tempdir_in("/var/tmp");
        let folder = folder().map_err(|error| error.to_string())?;
        let archive = folder.path().join("base.tar");
        if installed("dockerd") && installed("docker") {
            let daemon = Daemon::start(folder.path())?;
            push(machine, &format!("docker-archive:{}:base:latest", archive.display()));
            quietly(docker(folder.path()).arg("load").arg("--input").arg(&archive))?;
            return Ok(Self::BuildKit { daemon, folder });
        }
        if installed("buildah") {
            push(machine, &format!("docker-archive:{}:base:latest", archive.display()));
            quietly(buildah(folder.path()).arg("pull").arg(format!("docker-archive:{}", archive.display())))?;
            return Ok(Self::Buildah { folder });
        }
        Ok(Self::Absent)
    }

    fn name(&self) -> &'static str {
        match self {
            Self::BuildKit { .. } => "buildkit",
            Self::Buildah { .. } => "buildah",
            Self::Absent => ABSENT,
        }
    }

    fn build(&self, context: &Path) -> Result<(), String> {
        match self {
            Self::BuildKit { folder, .. } => quietly(
                docker(folder.path())
                    .env("DOCKER_BUILDKIT", "1")
                    .args(["build", "--network=none", "--tag=web"])
                    .arg(context),
            ),
            Self::Buildah { folder } => quietly(
                buildah(folder.path())
                    .args(["build", "--isolation=chroot", "--network=host", "--pull-never"])
                    .args(["--layers", "--tag=web"])
                    .arg(context),
            ),
            Self::Absent => Err("no peer is installed".into()),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        match self {
            Self::BuildKit { daemon, .. } => daemon.stop(),
            // What it mounted is in its own folder, and so is what says where.
            Self::Buildah { folder } => drop(quietly(buildah(folder.path()).args(["rm", "--all"]))),
            Self::Absent => {}
        }
    }
}

fn push(machine: &Machine, to: &str) {
    machine.kiln(&["image", "push", "bench/base", to]).ok();
}

fn docker(folder: &Path) -> Command {
    let mut command = Command::new("docker");
    command.arg("--config").arg(folder.join("config")).arg("--host").arg(socket(folder));
    command
}

fn buildah(folder: &Path) -> Command {
    let mut command = Command::new("buildah");
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command
}

fn socket(folder: &Path) -> String {
    format!("unix://{}", folder.join("docker.sock").display())
}

/// Docker's daemon, with BuildKit in it.
struct Daemon {
    process: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(folder: &Path) -> Result<Self, String> {
        let log = folder.join("log");
        let file = fs::File::create(&log).map_err(|error| error.to_string())?;
        let process = Command::new("dockerd")
            .arg("--data-root")
            .arg(folder.join("data"))
            .arg("--exec-root")
            .arg(folder.join("exec"))
            .arg("--pidfile")
            .arg(folder.join("pid"))
            .arg("--host")
            .arg(socket(folder))
            // Nothing of the host's network is touched.
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"])
            .arg("--bridge=none")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .map_err(|error| format!("cannot run dockerd: {error}"))?;
        let mut daemon = Self { process, log };
        let begin = Instant::now();
        while quietly(docker(folder).arg("version")).is_err() {
            let ended = daemon.process.try_wait().ok().flatten().is_some();
            if ended || begin.elapsed() > DAEMON_WITHIN {
                let said = fs::read_to_string(&daemon.log).unwrap_or_default();
                daemon.stop();
                return Err(format!("dockerd does not answer: {said}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    fn stop(&mut self) {
        // By SIGTERM it ends its containerd and its mounts.
        let pid = self.process.id().to_string();
        drop(quietly(Command::new("kill").args(["-TERM", &pid])));
        let _ = self.process.wait();
    }
}
