//! What the workers do: make an instance, stop it, and remove all that is left of it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use kiln_model::{InstanceId, Millis};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, pidfd_send_signal};

use super::boot::{Failure, GO, InitIdentity, read_exit};
use super::cgroup::Group;
use super::images::ImageError;
use super::instance::{Leaving, Phase};
use super::launcher::Launcher;
use super::log::LOG_FOLDER;
use super::network::{link, netlink::Socket};
use super::probe::ProbeHost;
use super::provide::{memory_file, open_init};
use super::record::{Places, Record, write_refusal};
use super::watcher::Happened;
use super::zygote::Request;
use super::{Host, Job};
use crate::port::Transition;

/// An init is ready within milliseconds; one that is not by then hangs in the kernel or on a dead disk.
const START_WITHIN: Duration = Duration::from_secs(30);
/// What fails for want of memory or processes may go through a little later; what fails this often will not.
const START_ATTEMPTS: u32 = 3;
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The logs of that many instances are kept when the instances are gone: enough to see why a rollout failed.
const ENDED_LOGS_KEPT: usize = 256;

/// What a start comes to.
enum Started {
    /// It runs; its end is told through this.
    Running(OwnedFd),
    /// Its program ran and has ended already.
    Over,
}

/// The host's ends of what connects it with a new init.
struct Launched {
    report: OwnedFd,
    go: OwnedFd,
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Refused(reason) => Self::Refused(reason),
            ImageError::Failed(reason) => Self::Failed(reason),
        }
    }
}

impl Host {
    /// Works until the host stops.
    pub(super) fn work(&self) {
        while let Some(job) = self.jobs.next() {
            match job {
                Job::Start(id) => self.start_instance(id),
                Job::Stop(id) => self.stop_instance(id),
                Job::Remove(id) => self.remove_instance(id),
            }
        }
    }

    /// Takes notice of ends and deadlines until the host stops.
    pub(super) fn notice(&self) {
        while let Some(happened) = self.watcher.next() {
            for happened in happened {
                match happened {
                    Happened::Ended(id) => self.ended(id),
                    Happened::GraceOver(id) => self.jobs.push(Job::Remove(id)),
                    Happened::Retry(id) => self.retry(id),
                }
            }
        }
    }

    fn start_instance(&self, id: InstanceId) {
        let record = {
            let mut registry = self.registry();
            let Some(instance) = registry.instances.get_mut(&id) else { return };
            if instance.phase != Phase::Queued || instance.leaving != Leaving::No {
                return;
            }
            instance.phase = Phase::Starting;
            instance.record.clone()
        };
        match self.make(&record) {
            Ok(started) => self.started(&record, started),
            Err(failure) => {
                // Nothing of it may be in the way of another attempt.
                let _ = self.unmake(id);
                self.failed(id, failure);
            }
        }
    }

    /// Makes everything of an instance and waits until its program is executed.
    fn make(&self, record: &Record) -> Result<Started, Failure> {
        let (id, spec) = (record.id(), &record.request.spec);
        let mut secrets = Vec::new();
        for (path, secret) in &spec.secrets {
            secrets.push((path.clone(), self.images.secret(&record.request.env.stack, secret)?));
        }
        let root = self.images.root(&spec.image, &record.places())?;
        let places = Places {
            instances: &self.folders.instances,
            volumes: &self.folders.volumes,
            stage: &self.folders.stage,
            network: &self.network,
        };
        let launcher = self.launchers.take();
        let group = self
            .cgroups
            .create(id, &spec.limits, launcher.as_ref().map(|launcher| launcher.spare.as_str()))
            .map_err(Failure::step_io("make the control groups"))?;
        let mut boot = record.boot(&places, &group, secrets).map_err(Failure::Refused)?;
        if launcher.is_some() {
            boot.join.clear();
        }
        let text = serde_json::to_vec(&boot).map_err(|error| Failure::Failed(error.to_string()))?;
        let text = memory_file(&text).map_err(Failure::step_io("write the request"))?;
        let Launched { report, go } = self.launch(launcher, &group, &text, &root)?;
        // While the kernel makes namespaces and links.
        record.make_places(&places).map_err(Failure::step_io("prepare the instance's folder"))?;
        let folder = self.folders.instance(id);
        self.logs.add(id, &folder).map_err(Failure::step_io("open the log"))?;
        // An init that is gone has said why.
        let _ = rustix::io::write(&go, GO);
        wait_for_report(&report)?;
        let identity = InitIdentity::read(&folder)
            .map_err(|_| Failure::Failed("the instance's init ended before it began".into()))?;
        Ok(open_init(&identity).map_or(Started::Over, Started::Running))
    }

    fn launch(
        &self,
        launcher: Option<Launcher>,
        group: &Group,
        boot: &OwnedFd,
        root: &OwnedFd,
    ) -> Result<Launched, Failure> {
        let folder = rustix::fs::open(
            &group.unified,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(Failure::step("open the control group"))?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(Failure::step("make a pipe"));
        let ((report, their_report), (their_go, go)) = (pipe()?, pipe()?);
        let fds = [boot.as_fd(), their_report.as_fd(), root.as_fd(), folder.as_fd(), their_go.as_fd()];
        match launcher {
            Some(launcher) => launcher.spawn(&fds).map_err(Failure::step_io("reach the launcher"))?,
            None => self.zygote.send(Request::Spawn, &fds).map_err(Failure::step_io("reach the zygote"))?,
        }
        Ok(Launched { report, go })
    }

    fn started(&self, record: &Record, started: Started) {
        let (id, address) = (record.id(), record.address.into());
        let mut registry = self.registry();
        let Some(instance) = registry.instances.get_mut(&id) else { return };
        instance.phase = Phase::Running;
        self.feed.tell(id, Transition::Started { address });
        let (leaving, check) = (instance.leaving, &record.request.spec.health);
        match check {
            _ if leaving != Leaving::No => {}
            Some(check) => self.prober.add(id, address, check, Instant::now()),
            None => {
                let detail = "runs".to_owned();
                instance.health = Some((true, detail.clone()));
                self.feed.tell(id, Transition::Health { healthy: true, detail });
            }
        }
        drop(registry);
        let is_watched = match started {
            Started::Running(pidfd) => self.watcher.watch(id, pidfd).is_ok(),
            Started::Over => false,
        };
        if !is_watched {
            self.ended(id);
        }
        if leaving != Leaving::No {
            self.jobs.push(Job::Stop(id));
        }
    }

    fn failed(&self, id: InstanceId, failure: Failure) {
        let mut registry = self.registry();
        let Some(instance) = registry.instances.get_mut(&id) else { return };
        instance.failures += 1;
        let reason = match failure {
            Failure::Failed(_) if instance.failures < START_ATTEMPTS => {
                instance.phase = Phase::Queued;
                if instance.leaving == Leaving::No {
                    self.watcher.after(RETRY_AFTER * instance.failures, Happened::Retry(id));
                } else {
                    self.jobs.push(Job::Stop(id));
                }
                return;
            }
            Failure::Failed(reason) => format!("{reason} (after {START_ATTEMPTS} attempts)"),
            Failure::Refused(reason) => reason,
        };
        instance.phase = Phase::Refused(reason.clone());
        // Not written down, it is tried again by the next host, which finds out the same.
        let _ = write_refusal(&self.folders.instance(id), &reason);
        self.feed.tell(id, Transition::Refused { reason });
        if instance.leaving != Leaving::No {
            self.jobs.push(Job::Stop(id));
        }
    }

    fn retry(&self, id: InstanceId) {
        let leaving = self.registry().instances.get(&id).map(|instance| instance.leaving);
        match leaving {
            Some(Leaving::No) => self.jobs.push(Job::Start(id)),
            Some(Leaving::Asked(_) | Leaving::Removing) => self.jobs.push(Job::Remove(id)),
            None => {}
        }
    }

    /// The init of an instance is gone.
    pub(super) fn ended(&self, id: InstanceId) {
        let status = read_exit(&self.folders.instance(id));
        self.prober.remove(id);
        let mut registry = self.registry();
        let Some(instance) = registry.instances.get_mut(&id) else { return };
        if instance.phase != Phase::Running {
            return;
        }
        instance.phase = Phase::Ended(status);
        instance.health = None;
        self.feed.tell(id, Transition::Exited { status });
        if let Leaving::Asked(_) = instance.leaving {
            self.jobs.push(Job::Remove(id));
        }
    }

    fn stop_instance(&self, id: InstanceId) {
        let (grace, signal) = {
            let registry = self.registry();
            let Some(instance) = registry.instances.get(&id) else { return };
            match (instance.leaving, &instance.phase) {
                (Leaving::Asked(grace), Phase::Running) => {
                    (grace, instance.record.request.spec.stop.signal.clone())
                }
                (Leaving::Asked(_), _) => {
                    self.jobs.push(Job::Remove(id));
                    return;
                }
                (Leaving::No | Leaving::Removing, _) => return,
            }
        };
        let init = InitIdentity::read(&self.folders.instance(id)).and_then(|identity| open_init(&identity));
        // Where it can't be asked it is gone or about to be told so; where it does not listen, the grace ends.
        if let Ok(init) = init {
            let _ = pidfd_send_signal(&init, signal_named(&signal).unwrap_or(Signal::TERM));
        }
        if grace == Millis(0) {
            self.jobs.push(Job::Remove(id));
        } else {
            self.watcher.after(grace.as_duration(), Happened::GraceOver(id));
        }
    }

    fn remove_instance(&self, id: InstanceId) {
        {
            let mut registry = self.registry();
            let Some(instance) = registry.instances.get_mut(&id) else { return };
            match instance.leaving {
                Leaving::Asked(_) => instance.leaving = Leaving::Removing,
                Leaving::No | Leaving::Removing => return,
            }
        }
        if let Err(error) = self.remove_all(id) {
            let mut registry = self.registry();
            if let Some(instance) = registry.instances.get_mut(&id) {
                instance.leaving = Leaving::Asked(Millis(0));
                instance.health = Some((false, format!("can't be removed yet: {error}")));
            }
            drop(registry);
            // For ever: what is left holds an address and memory, and nobody else will remove it.
            self.watcher.after(RETRY_AFTER, Happened::Retry(id));
            return;
        }
        let mut registry = self.registry();
        registry.instances.remove(&id);
        registry.addresses.release(id);
        drop(registry);
        self.feed.tell(id, Transition::Destroyed);
    }

    fn remove_all(&self, id: InstanceId) -> io::Result<()> {
        self.unmake(id)?;
        self.logs.finish(id);
        let folder = self.folders.instance(id);
        fs::create_dir_all(&self.folders.ended)?;
        match fs::rename(folder.join(LOG_FOLDER), self.folders.ended.join(id.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.forget_old_logs()?,
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Kills everything of an instance and removes what it has in the kernel.
    pub(super) fn unmake(&self, id: InstanceId) -> io::Result<()> {
        let group = self.cgroups.group(id.as_str());
        group.kill()?;
        // Explicitly: the kernel removes a network namespace, and the links in it, some time after its last process.
        link::delete(&mut Socket::route()?, &self.network.link_name(id))?;
        group.remove()?;
        match fs::remove_file(self.folders.instance(id).join(InitIdentity::FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn forget_old_logs(&self) -> io::Result<()> {
        let mut kept = Vec::new();
        for entry in fs::read_dir(&self.folders.ended)? {
            let entry = entry?;
            kept.push((entry.metadata()?.modified()?, entry.path()));
        }
        kept.sort();
        let surplus = kept.len().saturating_sub(ENDED_LOGS_KEPT);
        kept.into_iter().take(surplus).try_for_each(|(_, path)| match fs::remove_dir_all(path) {
            // Another worker was faster.
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
    }
}

/// Waits for the silent end of a report, which means that the program is executed.
fn wait_for_report(report: &OwnedFd) -> Result<(), Failure> {
    let mut fds = [PollFd::new(report, PollFlags::IN)];
    let deadline = Instant::now() + START_WITHIN;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).expect("less than a minute");
        match poll(&mut fds, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            Ok(0) => {
                return Err(Failure::Failed(format!("the instance was not ready within {START_WITHIN:?}")));
            }
            other => other.map_err(Failure::step("wait for the instance"))?,
        };
        match rustix::io::read(report, &mut buffer) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&buffer[..count]),
            Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::step("read the instance's report")(error)),
        }
    }
    if text.is_empty() {
        return Ok(());
    }
    let told = serde_json::from_slice(&text);
    Err(told.unwrap_or_else(|error| Failure::Failed(format!("the instance's report can't be read: {error}"))))
}

/// Reads a signal's name, with or without `SIG`, or its number.
fn signal_named(name: &str) -> Option<Signal> {
    let number = match name.trim_start_matches("SIG") {
        "HUP" => libc::SIGHUP,
        "INT" => libc::SIGINT,
        "QUIT" => libc::SIGQUIT,
        "ABRT" => libc::SIGABRT,
        "KILL" => libc::SIGKILL,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "ALRM" => libc::SIGALRM,
        "TERM" => libc::SIGTERM,
        "CONT" => libc::SIGCONT,
        "WINCH" => libc::SIGWINCH,
        "IO" => libc::SIGIO,
        "PWR" => libc::SIGPWR,
        text => text.parse().ok()?,
    };
    Signal::from_named_raw(number)
}

impl ProbeHost for Host {
    fn start_command(
        &self,
        id: InstanceId,
        argv: &[String],
        timeout: Duration,
        captures: bool,
    ) -> Result<OwnedFd, String> {
        let null = || fs::OpenOptions::new().write(true).open("/dev/null").map_err(|e| e.to_string());
        let output = if captures { None } else { Some(null()?.into()) };
        let answer = self.begin_exec(id, argv, timeout, output)?;
        rustix::io::ioctl_fionbio(&answer, true).map_err(|error| io::Error::from(error).to_string())?;
        Ok(answer)
    }

    fn turned(&self, id: InstanceId, healthy: bool, detail: String) {
        let mut registry = self.registry();
        let Some(instance) = registry.instances.get_mut(&id) else { return };
        // The prober may have been asked to leave it alone in this very moment.
        if instance.phase == Phase::Running && instance.leaving == Leaving::No {
            instance.health = Some((healthy, detail.clone()));
            self.feed.tell(id, Transition::Health { healthy, detail });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_is_read_by_name_or_number() {
        for text in ["SIGQUIT", "QUIT", "3"] {
            assert_eq!(signal_named(text), Some(Signal::QUIT), "{text}");
        }
        assert_eq!(signal_named("SIGNOSE"), None);
    }
}
