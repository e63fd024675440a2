//! The host's part of the network: the bridge, the way out, and who has which address.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};

use self::netlink::Socket;
use self::subnet::{PREFIX, Subnet};
use super::durable;

pub(crate) mod link;
pub(crate) mod nat;
pub(crate) mod netlink;
pub(crate) mod subnet;

/// The kernel's limit of ports of one bridge (BR_MAX_PORTS less one).
pub(crate) const BRIDGE_PORTS_MAX: u32 = 1023;

/// Held while a subnet is chosen and put on a bridge: two Kilns that start at once must not choose the same.
const CHOICE_LOCK: &str = "/run/kiln-network.lock";

/// What an Ethernet link carries unless it is told otherwise.
const MTU_DEFAULT: u32 = 1500;

/// Why the host's network can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A step failed.
    #[error("cannot {step}")]
    Step {
        /// What was being done.
        step: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// All of 10.128.0.0/10 overlaps with routes of the host.
    #[error("no free subnet of {PREFIX} bits in 10.128.0.0/10: every one overlaps a route of this machine")]
    NoSubnet,
}

fn step(step: &'static str) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Step { step, source }
}

/// The bridge of one Kiln.
#[derive(Debug)]
pub(crate) struct Network {
    state_id: String,
    pub(crate) subnet: Subnet,
    pub(crate) bridge: u32,
    pub(crate) mtu: u32,
}

impl Network {
    /// Makes the bridge and the rule, or finds them, and switches forwarding on if it is off.
    ///
    /// The subnet is kept in `file`. If it collides with something that came to the host later and no bridge has it yet, another
    /// one is chosen; addresses of instances that ended with the last boot then are worth nothing, as the instances are.
    pub(crate) fn open(state_id: &str, file: &Path) -> Result<Self, NetworkError> {
        let lock = open(CHOICE_LOCK, OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC, Mode::from(0o600))
            .map_err(|e| step("open the lock on the choice of subnets")(e.into()))?;
        flock(&lock, FlockOperation::LockExclusive)
            .map_err(|e| step("lock the choice of subnets")(e.into()))?;
        let mut socket = Socket::route().map_err(step("open a netlink socket"))?;
        let name = bridge_name(state_id);
        let mtu = way_out_mtu();
        let existing = link::index_of(&name).ok();
        let subnet = choose_subnet(&mut socket, state_id, file, existing)?;
        let bridge = match existing {
            Some(index) => index,
            None => {
                link::create_bridge(&mut socket, &name, subnet.gateway(), mtu)
                    .map_err(step("make the bridge"))?;
                link::index_of(&name).map_err(step("find the bridge"))?
            }
        };
        link::add_address(&mut socket, bridge, subnet.gateway(), PREFIX)
            .map_err(step("give the bridge its address"))?;
        nat::install(state_id, &name, subnet).map_err(step("install the masquerading rule"))?;
        forward().map_err(step("switch forwarding on"))?;
        Ok(Self { state_id: state_id.to_owned(), subnet, bridge, mtu })
    }

    /// Puts the address of an internal listener on the bridge and returns it.
    pub(crate) fn internal_address(&self, index: u8) -> io::Result<Ipv4Addr> {
        let address = self.subnet.internal(index);
        link::add_address(&mut Socket::route()?, self.bridge, address, 32)?;
        Ok(address)
    }

    /// Returns the name of an instance's link.
    pub(crate) fn link_name(&self, id: kiln_model::InstanceId) -> String {
        format!("k{}{id}", self.state_id)
    }

    /// Removes the bridge and the rule.
    pub(crate) fn remove(&self) -> io::Result<()> {
        nat::remove(&self.state_id)?;
        link::delete(&mut Socket::route()?, &bridge_name(&self.state_id))
    }
}

/// Returns the name of a Kiln's bridge.
pub(crate) fn bridge_name(state_id: &str) -> String {
    format!("k{state_id}br")
}

fn choose_subnet(
    socket: &mut Socket,
    state_id: &str,
    file: &Path,
    bridge: Option<u32>,
) -> Result<Subnet, NetworkError> {
    let mut taken = link::taken(socket).map_err(step("list the addresses and routes of this machine"))?;
    taken.retain(|other| Some(other.index) != bridge);
    let kept = fs::read_to_string(file).ok().and_then(|text| text.trim().parse::<Subnet>().ok());
    if let Some(subnet) = kept.filter(|subnet| bridge.is_some() || subnet.is_free(&taken)) {
        return Ok(subnet);
    }
    // Begins at a place of its own, so that a new Kiln seldom gets the addresses that another one just left.
    let start = state_id.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let subnet = Subnet::choose(start, &taken).ok_or(NetworkError::NoSubnet)?;
    durable::replace(file, format!("{subnet}\n").as_bytes()).map_err(step("write down the subnet"))?;
    Ok(subnet)
}

/// Returns the MTU of the link of the default route: a larger one on our side would cost every connection a discovery.
fn way_out_mtu() -> u32 {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace();
        let (link, destination) = (words.next()?, words.next()?);
        (destination == "00000000").then(|| link.to_owned())
    });
    let mtu = default.and_then(|link| fs::read_to_string(format!("/sys/class/net/{link}/mtu")).ok());
    mtu.and_then(|text| text.trim().parse().ok()).unwrap_or(MTU_DEFAULT)
}

fn forward() -> io::Result<()> {
    const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
    // Writing it resets other settings of every link, so it is written only where it changes something.
    if fs::read_to_string(SWITCH)?.trim() == "0" {
        fs::write(SWITCH, "1")?;
    }
    Ok(())
}
