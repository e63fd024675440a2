//! The plan of addresses: which subnet is ours, and what each part of it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use kiln_model::InstanceId;

use super::link::Taken;

/// 4,096 addresses: a bridge takes 1,023 instances, and an address may rest for a while after its instance is gone.
pub(crate) const PREFIX: u8 = 20;
const SIZE: u32 = 1 << (32 - PREFIX);

/// The pool: 10.128.0.0/10, the half of 10/8 that the defaults of docker, flannel, k3s and kubeadm stay out of.
const POOL_BASE: u32 = 0x0a80_0000;
const POOL_SUBNETS: u32 = (1 << 22) / SIZE;

/// The bridge's own address, the instances' gateway.
const GATEWAY_OFFSET: u32 = 1;
/// One address per environment, for the names of its services.
const INTERNAL_OFFSET: u32 = 256;
/// The rest is for instances; the last address is the broadcast.
const INSTANCE_OFFSET: u32 = 512;

/// A Kiln's own subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(u32);

impl Subnet {
    /// Returns the first address.
    pub(crate) const fn base(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0)
    }

    /// Returns the mask.
    pub(crate) const fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(!(SIZE - 1))
    }

    /// Returns the bridge's address.
    pub(crate) const fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + GATEWAY_OFFSET)
    }

    /// Returns the address that `Listener::Internal(index)` binds.
    pub(crate) const fn internal(self, index: u8) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + INTERNAL_OFFSET + index as u32)
    }

    fn instances(self) -> impl Iterator<Item = Ipv4Addr> {
        (INSTANCE_OFFSET..SIZE - 1).map(move |offset| Ipv4Addr::from_bits(self.0 + offset))
    }

    fn overlaps(self, other: &Taken) -> bool {
        let prefix = u32::from(other.prefix.min(PREFIX));
        // A default route covers everything and takes nothing.
        prefix > 0 && (self.0 ^ other.address.to_bits()) >> (32 - prefix) == 0
    }

    /// Chooses the first subnet from `start` on that nothing overlaps.
    pub(crate) fn choose(start: u32, taken: &[Taken]) -> Option<Self> {
        let nth = |n: u32| Self(POOL_BASE + start.wrapping_add(n) % POOL_SUBNETS * SIZE);
        (0..POOL_SUBNETS).map(nth).find(|subnet| subnet.is_free(taken))
    }

    /// Whether nothing on the host overlaps it.
    pub(crate) fn is_free(self, taken: &[Taken]) -> bool {
        !taken.iter().any(|other| self.overlaps(other))
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{PREFIX}", self.base())
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = || format!("`{text}` is not a subnet of Kiln's pool");
        let address: Ipv4Addr =
            text.strip_suffix(&format!("/{PREFIX}")).ok_or_else(fail)?.parse().map_err(|_| fail())?;
        let offset = address.to_bits().wrapping_sub(POOL_BASE);
        if offset >= POOL_SUBNETS * SIZE || !offset.is_multiple_of(SIZE) {
            return Err(fail());
        }
        Ok(Self(address.to_bits()))
    }
}

/// Which instance has which address. An address is taken until its instance is destroyed, whatever became of its processes: as
/// long as the edge may know it, nobody else gets it.
#[derive(Debug)]
pub(crate) struct Addresses {
    subnet: Subnet,
    taken: BTreeMap<InstanceId, Ipv4Addr>,
    used: BTreeSet<Ipv4Addr>,
    /// The one that was given last: going round makes the rest after a destroy as long as can be.
    last: Ipv4Addr,
}

impl Addresses {
    /// Begins with what the instances' records say.
    pub(crate) fn new(subnet: Subnet, taken: BTreeMap<InstanceId, Ipv4Addr>) -> Self {
        let last = taken.values().max().copied().unwrap_or(subnet.base());
        let used = taken.values().copied().collect();
        Self { subnet, taken, used, last }
    }

    /// Gives an instance an address: the same one if it has one. None if all are taken.
    pub(crate) fn take(&mut self, id: InstanceId) -> Option<Ipv4Addr> {
        if let Some(address) = self.taken.get(&id) {
            return Some(*address);
        }
        let free = |address: &Ipv4Addr| !self.used.contains(address);
        let after = self.subnet.instances().filter(|address| *address > self.last).find(free);
        let address = after.or_else(|| self.subnet.instances().find(free))?;
        self.taken.insert(id, address);
        self.used.insert(address);
        self.last = address;
        Some(address)
    }

    /// Takes an address back.
    pub(crate) fn release(&mut self, id: InstanceId) {
        if let Some(address) = self.taken.remove(&id) {
            self.used.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str, prefix: u8) -> Taken {
        Taken { address: text.parse().unwrap(), prefix, index: 1 }
    }

    #[test]
    fn a_subnet_that_overlaps_anything_is_not_chosen() {
        let free = Subnet::choose(0, &[]).unwrap();
        assert_eq!(free.to_string(), "10.128.0.0/20");
        let default = range("0.0.0.0", 0);
        assert_eq!(Subnet::choose(0, &[default]), Some(free));
        assert_eq!(Subnet::choose(0, &[range("10.128.3.7", 32)]).unwrap().to_string(), "10.128.16.0/20");
        assert_eq!(Subnet::choose(0, &[range("10.128.0.0", 16)]).unwrap().to_string(), "10.129.0.0/20");
        assert_eq!(Subnet::choose(0, &[range("10.0.0.0", 8)]), None);
    }

    #[test]
    fn a_subnet_reads_back_what_it_prints_and_nothing_else() {
        let subnet = Subnet::choose(77, &[]).unwrap();
        assert_eq!(subnet.to_string().parse(), Ok(subnet));
        for bad in ["10.128.1.0/20", "192.168.0.0/20", "10.128.0.0/16", "x"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }

    #[test]
    fn gateway_environments_and_instances_do_not_meet() {
        let subnet = Subnet::choose(0, &[]).unwrap();
        assert_eq!(subnet.gateway().to_string(), "10.128.0.1");
        assert_eq!(subnet.internal(0).to_string(), "10.128.1.0");
        assert_eq!(subnet.internal(255).to_string(), "10.128.1.255");
        assert_eq!(subnet.instances().next().unwrap().to_string(), "10.128.2.0");
        assert_eq!(subnet.instances().last().unwrap().to_string(), "10.128.15.254");
    }

    #[test]
    fn an_address_is_given_again_only_when_all_others_had_their_turn() {
        let mut addresses = Addresses::new(Subnet::choose(0, &[]).unwrap(), BTreeMap::new());
        let id = InstanceId::from_seed;
        let first = addresses.take(id(1)).unwrap();
        assert_eq!(addresses.take(id(1)), Some(first));
        addresses.release(id(1));
        assert_ne!(addresses.take(id(2)), Some(first));
        let count = addresses.subnet.instances().count() as u64;
        let rest: Vec<_> = (3..count + 2).map(|n| addresses.take(id(n)).unwrap()).collect();
        assert_eq!(rest.last(), Some(&first));
        assert_eq!(addresses.take(id(99_999)), None);
    }
}
