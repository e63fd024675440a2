//! Links, addresses and routes.

use std::io;
use std::net::Ipv4Addr;

use rustix::fd::OwnedFd;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use super::netlink::{Message, NLM_F_CREATE, NLM_F_CREATE_NEW, NLM_F_DUMP, Socket, attributes, text_of};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_BR_FORWARD_DELAY: u16 = 1;
const IFLA_BR_MCAST_SNOOPING: u16 = 23;
const VETH_INFO_PEER: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;

const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RTN_UNICAST: u8 = 1;
/// The name of an instance's link inside the instance.
pub(crate) const INSIDE: &str = "eth0";

/// What an instance needs to be reachable.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Wiring {
    /// The link's name on the host.
    pub(crate) link: String,
    /// The index of the bridge.
    pub(crate) bridge: u32,
    /// The instance's address.
    pub(crate) address: Ipv4Addr,
    /// The length of the subnet's prefix.
    pub(crate) prefix: u8,
    /// Where everything else is reached.
    pub(crate) gateway: Ipv4Addr,
    /// The size of the largest packet that leaves the machine whole.
    pub(crate) mtu: u32,
}

/// `struct ifinfomsg`.
fn link_fixed(index: u32, up: bool) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        fixed[8..12].copy_from_slice(&IFF_UP.to_ne_bytes());
        fixed[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
    }
    fixed
}

/// Returns a locally administered hardware address for an address, so that a neighbour's cache stays right when the address is
/// given to another instance.
fn hardware_address(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x6b, a, b, c, d]
}

/// Makes a bridge. Its hardware address is fixed: left alone, it would change with the ports, and break neighbours' caches.
pub(crate) fn create_bridge(socket: &mut Socket, name: &str, address: Ipv4Addr, mtu: u32) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE_NEW, &link_fixed(0, true))
        .text(IFLA_IFNAME, name)
        .number(IFLA_MTU, mtu)
        .attribute(IFLA_ADDRESS, &hardware_address(address))
        .nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "bridge").nest(IFLA_INFO_DATA, |m| {
                m.number(IFLA_BR_FORWARD_DELAY, 0).attribute(IFLA_BR_MCAST_SNOOPING, &[0])
            })
        });
    socket.execute(message)
}

/// Makes the pair of links of the instance that the caller runs in, one end on the bridge. `outside` speaks to the host's namespace.
pub(crate) fn create_pair(outside: &mut Socket, wiring: &Wiring) -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, NLM_F_CREATE_NEW, &link_fixed(0, true))
        .text(IFLA_IFNAME, &wiring.link)
        .number(IFLA_MTU, wiring.mtu)
        .number(IFLA_MASTER, wiring.bridge)
        .nest(IFLA_LINKINFO, |m| {
            m.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |m| {
                m.nest(VETH_INFO_PEER, |m| {
                    // Not up: the kernel joins the two ends only after it has made both.
                    m.raw(&link_fixed(0, false))
                        .text(IFLA_IFNAME, INSIDE)
                        .number(IFLA_MTU, wiring.mtu)
                        .attribute(IFLA_ADDRESS, &hardware_address(wiring.address))
                        // The kernel looks the number up as the sender sees it: the caller is process 1 of its namespace.
                        .number(IFLA_NET_NS_PID, 1)
                })
            })
        });
    outside.execute(message)
}

/// Sets the instance's own end up: loopback, address and default route.
pub(crate) fn configure_inside(inside: &mut Socket, wiring: &Wiring) -> io::Result<()> {
    let index = index_of(INSIDE)?;
    let loopback = Message::new(RTM_NEWLINK, 0, &link_fixed(1, true));
    let link = Message::new(RTM_NEWLINK, 0, &link_fixed(index, true));
    let address = address_message(index, wiring.address, wiring.prefix);
    let route = Message::new(
        RTM_NEWROUTE,
        NLM_F_CREATE,
        &[AF_INET, 0, 0, 0, RT_TABLE_MAIN, RTPROT_BOOT, 0, RTN_UNICAST, 0, 0, 0, 0],
    )
    .attribute(RTA_GATEWAY, &wiring.gateway.octets())
    .number(RTA_OIF, index);
    inside.execute_batch(vec![loopback, link, address, route], 0..4)
}

/// Gives a link an address; that it has it is no error.
pub(crate) fn add_address(socket: &mut Socket, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    match socket.execute(address_message(index, address, prefix)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn address_message(index: u32, address: Ipv4Addr, prefix: u8) -> Message {
    let mut fixed = [AF_INET, prefix, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new(RTM_NEWADDR, NLM_F_CREATE, &fixed)
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets())
}

/// Removes a link; that it is gone is no error.
pub(crate) fn delete(socket: &mut Socket, name: &str) -> io::Result<()> {
    let message = Message::new(RTM_DELLINK, 0, &link_fixed(0, false)).text(IFLA_IFNAME, name);
    match socket.execute(message) {
        Err(error) if is_absent(&error) => Ok(()),
        other => other,
    }
}

fn is_absent(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

/// Returns the index of a link in the caller's namespace.
pub(crate) fn index_of(name: &str) -> io::Result<u32> {
    let socket: OwnedFd = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    Ok(name_to_index(&socket, name)?)
}

/// Returns the names of all links.
pub(crate) fn names(socket: &mut Socket) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    socket.dump(Message::new(RTM_GETLINK, NLM_F_DUMP, &link_fixed(0, false)), &mut |body| {
        let name = attributes(body.get(16..).unwrap_or_default()).find(|(kind, _)| *kind == IFLA_IFNAME);
        names.extend(name.map(|(_, value)| text_of(value)));
    })?;
    Ok(names)
}

/// A range of addresses that is in use on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// An address in it.
    pub(crate) address: Ipv4Addr,
    /// The length of its prefix.
    pub(crate) prefix: u8,
    /// The link that it is on.
    pub(crate) index: u32,
}

/// Returns every range that an address or a route of the host covers, the default route left out.
pub(crate) fn taken(socket: &mut Socket) -> io::Result<Vec<Taken>> {
    let mut taken = Vec::new();
    socket.dump(Message::new(RTM_GETADDR, NLM_F_DUMP, &[AF_INET, 0, 0, 0, 0, 0, 0, 0]), &mut |body| {
        let Some((fixed, rest)) = body.split_at_checked(8) else { return };
        let index = fixed[4..8].try_into().map_or(0, u32::from_ne_bytes);
        if let Some(address) = address_in(rest, IFA_LOCAL) {
            taken.push(Taken { address, prefix: fixed[1], index });
        }
    })?;
    let mut fixed = [0; 12];
    fixed[0] = AF_INET;
    socket.dump(Message::new(RTM_GETROUTE, NLM_F_DUMP, &fixed), &mut |body| {
        let Some((fixed, rest)) = body.split_at_checked(12) else { return };
        let on = attributes(rest).find(|(kind, _)| *kind == RTA_OIF).and_then(|(_, v)| v.try_into().ok());
        let index = on.map_or(0, u32::from_ne_bytes);
        if let Some(address) = address_in(rest, RTA_DST) {
            taken.push(Taken { address, prefix: fixed[1], index });
        }
    })?;
    Ok(taken)
}

fn address_in(body: &[u8], wanted: u16) -> Option<Ipv4Addr> {
    let (_, value) = attributes(body).find(|(kind, _)| *kind == wanted)?;
    Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?))
}
