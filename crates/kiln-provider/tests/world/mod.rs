//! A Kiln host with its own state folder, and images that hold one static C program.
#![allow(dead_code, unreachable_pub, reason = "every test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "it is a part of the tests")]

use std::collections::BTreeMap;
use std::hash::{Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use std::{fs, thread};

use kiln_model::instance::{ExitStatus, InstanceSpec};
use kiln_model::route::Listener;
use kiln_model::{Digest, EnvKey, Fence, InstanceId, Millis, Position, Term};
use kiln_provider::host::{
    FolderImages, Host, HostConfig, Images, Listeners, Server, ZYGOTE_COMMAND, ZygoteProgram,
};
use kiln_provider::{
    CreateRequest, DestroyRequest, LogCursor, LogNext, Provider, ProviderError, Transition, Transitions,
    Watched,
};

pub const HOST_PROGRAM: &str = env!("CARGO_BIN_EXE_kiln-provider-host");
/// Nothing here takes longer, however busy the machine is: beyond it a test has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The one image: `/app` is the program.
pub const IMAGE: Digest = Digest::new([7; 32]);

fn scratch_root() -> PathBuf {
    let root = PathBuf::from("/var/tmp/kiln-provider-tests");
    fs::create_dir_all(&root).unwrap();
    root
}

/// Returns the program that tests run inside. It is compiled once for all of them: each is a process of its own.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let mut hasher = std::hash::DefaultHasher::new();
        include_str!("program.c").hash(&mut hasher);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(folder).unwrap();
        let path = folder.join(format!("program-{:016x}", hasher.finish()));
        if !path.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/world/program.c");
            // Another process may be at it: whoever is done last puts the same file into place.
            let new = path.with_extension(std::process::id().to_string());
            let built =
                Command::new("gcc").args(["-static", "-O1", "-w", "-o"]).arg(&new).arg(source).status();
            assert!(built.unwrap().success());
            fs::rename(new, &path).unwrap();
        }
        path
    })
}

fn make_image(images: &Path) {
    let root = images.join(IMAGE.hex());
    for folder in ["dev", "etc", "proc", "run", "sys", "tmp", "bin"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        fs::write(root.join(file), "").unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:44::/home/web:/bin/sh\n")
        .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:44:\nextra:x:99:web\n").unwrap();
    fs::copy(program(), root.join("app")).unwrap();
    fs::copy(program(), root.join("bin/in-path")).unwrap();
    fs::write(root.join("not-a-program"), "hello").unwrap();
    fs::write(root.join("no-interpreter"), "#!/bin/absent\n").unwrap();
    use std::os::unix::fs::PermissionsExt;
    for name in ["not-a-program", "no-interpreter"] {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Remembers what was opened.
#[derive(Clone, Default)]
pub struct Opened(pub Arc<Mutex<BTreeMap<Listener, SocketAddr>>>);

impl Listeners for Opened {
    fn open(&self, listener: Listener, address: SocketAddr) -> Result<(), String> {
        self.0.lock().unwrap().insert(listener, address);
        Ok(())
    }

    fn close(&self, listener: Listener) -> Result<(), String> {
        self.0.lock().unwrap().remove(&listener);
        Ok(())
    }
}

/// A state folder with a host on it; everything that it makes is removed at the end.
pub struct World {
    pub folder: tempfile::TempDir,
    pub server: Option<Server>,
    pub opened: Opened,
    pub watch: Mutex<Option<Box<dyn Transitions>>>,
    seen: Mutex<Vec<(InstanceId, Transition)>>,
}

impl World {
    /// Makes the folders only.
    pub fn without_host() -> Self {
        let folder = tempfile::tempdir_in(scratch_root()).unwrap();
        for name in ["state", "images/secrets"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        make_image(&folder.path().join("images"));
        Self {
            folder,
            server: None,
            opened: Opened::default(),
            watch: Mutex::default(),
            seen: Mutex::default(),
        }
    }

    pub fn new() -> Self {
        let mut world = Self::without_host();
        world.start();
        world
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub fn images(&self) -> PathBuf {
        self.folder.path().join("images")
    }

    pub fn instance_folder(&self, id: InstanceId) -> PathBuf {
        self.state().join("host/instances").join(id.as_str())
    }

    /// Starts a host in this process.
    pub fn start(&mut self) {
        self.start_with(Box::new(FolderImages::new(self.images())));
    }

    /// Starts a host in this process with images from elsewhere.
    pub fn start_with(&mut self, images: Box<dyn Images>) {
        let config = HostConfig {
            state_dir: self.state(),
            images,
            listeners: Box::new(self.opened.clone()),
            zygote: ZygoteProgram {
                program: HOST_PROGRAM.into(),
                args: vec![ZYGOTE_COMMAND.into()],
                env: BTreeMap::new(),
            },
        };
        let server = Server::start(config).unwrap();
        let cursor = server.host().list().unwrap().cursor;
        *self.watch.lock().unwrap() = Some(server.host().watch(cursor).unwrap());
        self.server = Some(server);
    }

    pub fn stop(&mut self) {
        *self.watch.lock().unwrap() = None;
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    /// Starts a host in a process of its own, and waits until it answers.
    pub fn start_process(&self) -> Child {
        let child = Command::new(HOST_PROGRAM).arg(self.state()).arg(self.images()).spawn().unwrap();
        let client = self.client();
        eventually("the host answers", || client.list().is_ok());
        child
    }

    pub fn client(&self) -> kiln_provider::host::Client {
        kiln_provider::host::Client::new(self.state().join("run/host.sock"))
    }

    pub fn host(&self) -> &Arc<Host> {
        self.server.as_ref().unwrap().host()
    }

    pub fn state_id(&self) -> String {
        fs::read_to_string(self.state().join("id")).unwrap().trim().to_owned()
    }

    /// Creates an instance of the image.
    pub fn create(&self, spec: InstanceSpec) -> InstanceId {
        let id = fresh_id();
        self.host().create(&request(id, spec)).unwrap();
        id
    }

    pub fn run(&self, argv: &[&str]) -> InstanceId {
        self.create(spec(argv))
    }

    pub fn destroy(&self, id: InstanceId, grace: Millis) {
        self.host().destroy(&DestroyRequest { id, fence: fence(1), grace }).unwrap();
    }

    /// Waits for a transition of an instance that `pick` recognises; those of others are kept.
    pub fn wait<T>(&self, id: InstanceId, what: &str, pick: impl Fn(&Transition) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            {
                let mut seen = self.seen.lock().unwrap();
                let found = seen.iter().position(|(of, t)| *of == id && pick(t).is_some());
                if let Some(index) = found {
                    return pick(&seen.remove(index).1).unwrap();
                }
                assert!(Instant::now() < deadline, "{id} never {what}; seen: {seen:?}");
            }
            let mut watch = self.watch.lock().unwrap();
            let next = watch.as_mut().unwrap().next(Duration::from_millis(200)).unwrap();
            if let Some(Watched::Transition { id, transition, .. }) = next {
                self.seen.lock().unwrap().push((id, transition));
            }
        }
    }

    pub fn started(&self, id: InstanceId) -> IpAddr {
        self.wait(id, "started", |t| match t {
            Transition::Started { address } => Some(*address),
            Transition::Refused { reason } => panic!("refused: {reason}"),
            _ => None,
        })
    }

    pub fn exited(&self, id: InstanceId) -> ExitStatus {
        self.wait(id, "exited", |t| match t {
            Transition::Exited { status } => Some(*status),
            Transition::Refused { reason } => panic!("refused: {reason}"),
            _ => None,
        })
    }

    pub fn refused(&self, id: InstanceId) -> String {
        self.wait(id, "was refused", |t| match t {
            Transition::Refused { reason } => Some(reason.clone()),
            _ => None,
        })
    }

    pub fn destroyed(&self, id: InstanceId) {
        self.wait(id, "was destroyed", |t| matches!(t, Transition::Destroyed).then_some(()));
    }

    pub fn healthy(&self, id: InstanceId) -> (bool, String) {
        self.wait(id, "had a verdict", |t| match t {
            Transition::Health { healthy, detail } => Some((*healthy, detail.clone())),
            _ => None,
        })
    }

    /// Runs a program to its end and returns what it wrote, stdout and stderr.
    pub fn output(&self, spec: InstanceSpec) -> String {
        let id = self.create(spec);
        self.exited(id);
        self.log(id)
    }

    /// Returns all that is in an instance's log: it is complete once the instance was removed.
    pub fn log(&self, id: InstanceId) -> String {
        self.destroy(id, Millis(0));
        self.destroyed(id);
        lines(self.host(), id).join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.server.is_none() {
            if thread::panicking() {
                // A process that the test started may still hold the folder; what it left is swept by hand.
                return;
            }
            self.start();
        }
        let host = Arc::clone(self.host());
        if let Ok(listing) = host.list() {
            for instance in &listing.instances {
                let _ = host.destroy(&DestroyRequest {
                    id: instance.id,
                    fence: fence(u64::MAX),
                    grace: Millis(0),
                });
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while host.list().is_ok_and(|listing| !listing.instances.is_empty()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        self.stop();
        let _ = host.remove_traces();
    }
}

/// Returns every line of an instance's log that is there now.
pub fn lines(provider: &dyn Provider, id: InstanceId) -> Vec<String> {
    let Ok(mut log) = provider.logs(id, LogCursor(0), false) else { return Vec::new() };
    let mut lines = Vec::new();
    while let LogNext::Line(line) = log.next(Duration::from_secs(5)).unwrap() {
        lines.push(line.text);
    }
    lines
}

pub fn fence(term: u64) -> Fence {
    Fence { term: Term(term), position: Position(1) }
}

pub fn fresh_id() -> InstanceId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    InstanceId::from_seed(NEXT.fetch_add(1, Ordering::SeqCst))
}

pub fn request(id: InstanceId, spec: InstanceSpec) -> CreateRequest {
    CreateRequest {
        id,
        spec: Arc::new(spec),
        fence: fence(1),
        env: EnvKey { stack: "shop".parse().unwrap(), env: "dev".parse().unwrap() },
        service: "web".parse().unwrap(),
        internal: Some(3),
    }
}

pub fn spec(argv: &[&str]) -> InstanceSpec {
    let argv = ["/app"].into_iter().chain(argv.iter().copied()).map(str::to_owned).collect();
    InstanceSpec::plain(IMAGE, argv)
}

/// Waits until something holds.
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_tombstoned(result: &Result<(), ProviderError>) -> bool {
    matches!(result, Err(ProviderError::Tombstoned(_)))
}
