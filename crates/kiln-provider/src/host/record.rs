//! What the host writes down about an instance before it makes anything of it.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_model::instance::VolumeMount;
use kiln_model::{InstanceId, InstanceSpec};
use serde::{Deserialize, Serialize};

use super::boot::{Boot, Program, Volume};
use super::capability;
use super::cgroup::Group;
use super::durable;
use super::images::Place;
use super::log::Collector;
use super::network::Network;
use super::network::link::Wiring;
use crate::port::CreateRequest;
use crate::wire::CreateWire;

/// The format of the file. A later one converts this.
const VERSION: u32 = 1;
const FILE: &str = "record.json";
/// Its presence means that the instance can't be created; its content says why.
const REFUSED: &str = "refused";
/// A host name of Linux has 64 bytes.
const HOSTNAME_BYTES_MAX: usize = 63;

/// An accepted instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) request: CreateRequest,
    pub(crate) address: Ipv4Addr,
}

#[derive(Serialize, Deserialize)]
struct RecordFile {
    version: u32,
    address: Ipv4Addr,
    request: CreateWire,
}

impl Record {
    /// Makes the instance's folder with the record in it. Not flushed: after a power failure there is no process it would describe,
    /// and the controller asks again for what is not in the list.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let file =
            RecordFile { version: VERSION, address: self.address, request: CreateWire::from(&self.request) };
        durable::replace_unsynced(&folder.join(FILE), &serde_json::to_vec(&file).map_err(io::Error::other)?)
    }

    /// Reads a record back.
    ///
    /// # Errors
    /// `NotFound` or `UnexpectedEof`: it was never written, or not to its end. Anything else says nothing about whether an
    /// instance runs: another Kiln may have written it, or the disk may fail.
    pub(crate) fn read(folder: &Path) -> io::Result<Self> {
        let bytes = fs::read(folder.join(FILE))?;
        let file: RecordFile = serde_json::from_slice(&bytes).map_err(|error| match error.classify() {
            // A power failure leaves the beginning of a file, or zeros.
            serde_json::error::Category::Eof | serde_json::error::Category::Syntax => {
                io::Error::new(io::ErrorKind::UnexpectedEof, error)
            }
            _ => io::Error::other(error),
        })?;
        if file.version != VERSION {
            return Err(io::Error::other(format!("records of version {} are not known", file.version)));
        }
        let request = file.request.try_into().map_err(io::Error::other)?;
        Ok(Self { request, address: file.address })
    }

    /// Returns the instance's id.
    pub(crate) const fn id(&self) -> InstanceId {
        self.request.id
    }

    fn spec(&self) -> &Arc<InstanceSpec> {
        &self.request.spec
    }

    /// Returns the name that the instance has for itself.
    pub(crate) fn hostname(&self) -> String {
        let mut name = format!("{}-{}", self.request.service, self.request.id);
        name.truncate(HOSTNAME_BYTES_MAX);
        name
    }

    /// Returns the paths that must be there to be mounted on, beside those that every image has.
    pub(crate) fn places(&self) -> Vec<Place> {
        let spec = self.spec();
        let folder = |path: &String| Place { path: path.clone(), is_folder: true };
        let volumes = spec.volumes.keys().map(folder);
        let scratch = spec.scratch.keys().map(folder);
        // In memory they are made where they are needed.
        let is_in_memory = |path: &&String| ["/run/", "/tmp/", "/dev/"].iter().any(|m| path.starts_with(m));
        let secrets = spec.secrets.keys().filter(|path| !is_in_memory(path));
        let secrets = secrets.map(|path| Place { path: path.clone(), is_folder: false });
        volumes.chain(scratch).filter(|place| !is_in_memory(&&place.path)).chain(secrets).collect()
    }

    /// Returns what is executed.
    pub(crate) fn program(&self) -> Result<Program, String> {
        let spec = self.spec();
        let granted = capability::grant(&spec.security)?;
        Ok(Program {
            argv: spec.argv.clone(),
            env: spec.env.clone().into_iter().collect(),
            workdir: if spec.workdir.is_empty() { "/".into() } else { spec.workdir.clone() },
            user: spec.user.clone(),
            bounding: granted.bounding,
            added: granted.added,
        })
    }

    /// Makes what an instance needs in its folder and its volumes.
    pub(crate) fn make_places(&self, places: &Places<'_>) -> io::Result<()> {
        Collector::make_fifos(&places.folder(self.id()))?;
        self.volumes(places).iter().try_for_each(|volume| fs::create_dir_all(&volume.source))
    }

    fn volumes(&self, places: &Places<'_>) -> Vec<Volume> {
        let env = &self.request.env;
        let folder = places.volumes.join(env.stack.as_str()).join(env.env.as_str());
        let volume = |(target, mount): (&String, &VolumeMount)| Volume {
            source: folder.join(mount.volume.as_str()),
            target: target.clone(),
            read_only: mount.read_only,
        };
        self.spec().volumes.iter().map(volume).collect()
    }

    /// Returns what its init is told.
    pub(crate) fn boot(
        &self,
        places: &Places<'_>,
        group: &Group,
        secrets: Vec<(String, Vec<u8>)>,
    ) -> Result<Boot, String> {
        let (spec, hostname) = (self.spec(), self.hostname());
        Ok(Boot {
            folder: places.folder(self.id()),
            stage: places.stage.to_owned(),
            generated: self.generated(&hostname, places.network),
            hostname,
            join: group.join_files(),
            oom_file: group.oom_file(),
            show_cgroups: group.join_files().is_empty(),
            wiring: self.wiring(places.network),
            program: self.program()?,
            volumes: self.volumes(places),
            scratch: spec.scratch.iter().map(|(path, size)| (path.clone(), size.0)).collect(),
            secrets,
        })
    }

    /// Returns what connects the instance.
    pub(crate) fn wiring(&self, network: &Network) -> Wiring {
        Wiring {
            link: network.link_name(self.id()),
            bridge: network.bridge,
            address: self.address,
            prefix: super::network::subnet::PREFIX,
            gateway: network.subnet.gateway(),
            mtu: network.mtu,
        }
    }

    fn generated(&self, hostname: &str, network: &Network) -> Vec<(String, Vec<u8>)> {
        let mut hosts = format!(
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\t{hostname}\n",
            self.address
        );
        if let Some(index) = self.request.internal {
            let address = network.subnet.internal(index);
            for service in &self.spec().uses {
                hosts.push_str(&format!("{address}\t{service}.{}.kiln\n", self.request.env.stack));
            }
        }
        let resolver = resolver(&["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"].map(Path::new));
        vec![
            ("/etc/hosts".into(), hosts.into_bytes()),
            ("/etc/hostname".into(), format!("{hostname}\n").into_bytes()),
            ("/etc/resolv.conf".into(), resolver),
        ]
    }
}

/// Returns the first file that names a server which an instance can reach: one on the host's loopback is not, and where there is
/// one, systemd-resolved keeps the real ones in a file of its own. If none does, the first.
fn resolver(files: &[&Path]) -> Vec<u8> {
    let is_reachable = |text: &str| {
        let servers = text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim);
        servers.into_iter().any(|server| !server.starts_with("127.") && server != "::1")
    };
    let texts: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    let best = texts.iter().find(|text| is_reachable(text)).or_else(|| texts.first());
    best.cloned().unwrap_or_default().into_bytes()
}

/// Where things are on this host.
pub(crate) struct Places<'a> {
    pub(crate) instances: &'a Path,
    pub(crate) volumes: &'a Path,
    pub(crate) stage: &'a Path,
    pub(crate) network: &'a Network,
}

impl Places<'_> {
    fn folder(&self, id: InstanceId) -> PathBuf {
        self.instances.join(id.as_str())
    }
}

/// Writes down that an instance can't be created.
pub(crate) fn write_refusal(folder: &Path, reason: &str) -> io::Result<()> {
    durable::replace_unsynced(&folder.join(REFUSED), reason.as_bytes())
}

/// Returns why an instance can't be created, if so.
pub(crate) fn read_refusal(folder: &Path) -> Option<String> {
    fs::read_to_string(folder.join(REFUSED)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_on_the_hosts_loopback_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let (stub, real) = (folder.path().join("stub"), folder.path().join("real"));
        fs::write(&stub, "nameserver 127.0.0.53\nsearch x\n").unwrap();
        assert!(resolver(&[&stub, &real]).starts_with(b"nameserver 127"));
        fs::write(&real, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(resolver(&[&stub, &real]), b"nameserver 192.0.2.1\n");
        assert_eq!(resolver(&[&real, &stub]), b"nameserver 192.0.2.1\n");
    }
}
