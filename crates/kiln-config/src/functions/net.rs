//! Networks.

use std::net::IpAddr;

use super::{Args, Failure, Function, Run, row};
use crate::value::Value;

pub(super) static ROWS: &[Function] = &[
    row(
        "cidrhost",
        "cidrhost(prefix, number)",
        (2, 2),
        Run::Whole(cidrhost),
        "The address of a host within a network; a negative number counts from the end.",
        "cidrhost(\"10.1.0.0/16\", 5)",
        "\"10.1.0.5\"",
    ),
    row(
        "cidrnetmask",
        "cidrnetmask(prefix)",
        (1, 1),
        Run::Whole(cidrnetmask),
        "The mask of an IPv4 network.",
        "cidrnetmask(\"10.0.0.0/12\")",
        "\"255.240.0.0\"",
    ),
    row(
        "cidrsubnet",
        "cidrsubnet(prefix, bits, number)",
        (3, 3),
        Run::Whole(cidrsubnet),
        "A network within a network, longer by some bits.",
        "cidrsubnet(\"10.0.0.0/8\", 8, 2)",
        "\"10.2.0.0/16\"",
    ),
];

/// A network: its address as a number, the bits of an address and of the prefix.
struct Network {
    address: u128,
    width: u32,
    prefix: u32,
}

fn network(args: &Args<'_>) -> Result<Network, Failure> {
    let text = args.str(0)?;
    let parts = text.split_once('/');
    let parsed = parts.and_then(|(a, p)| Some((a.parse::<IpAddr>().ok()?, p.parse::<u32>().ok()?)));
    let Some((address, prefix)) = parsed else {
        return args.bad(0, format!("\"{text}\" is no network like 10.0.0.0/8"));
    };
    let (address, width) = match address {
        IpAddr::V4(a) => (u128::from(u32::from(a)), 32),
        IpAddr::V6(a) => (u128::from(a), 128),
    };
    if prefix > width {
        return args.bad(0, format!("a prefix has at most {width} bits"));
    }
    let host_bits = width - prefix;
    let address = if host_bits == 128 { 0 } else { address >> host_bits << host_bits };
    Ok(Network { address, width, prefix })
}

fn show(address: u128, width: u32) -> String {
    match width {
        32 => std::net::Ipv4Addr::from(address as u32).to_string(),
        _ => std::net::Ipv6Addr::from(address).to_string(),
    }
}

fn cidrhost(args: &Args<'_>) -> Result<Value, Failure> {
    let network = network(args)?;
    let number = args.int::<i128>(1)?;
    let host_bits = network.width - network.prefix;
    let size = 1_u128.checked_shl(host_bits);
    let offset = match (number < 0, size) {
        (false, _) => Some(number.unsigned_abs()),
        (true, Some(size)) => size.checked_sub(number.unsigned_abs()),
        (true, None) => Some(0_u128.wrapping_sub(number.unsigned_abs())),
    };
    match offset.filter(|o| size.is_none_or(|s| *o < s)) {
        Some(offset) => Ok(Value::string(show(network.address | offset, network.width))),
        None => args.bad(1, format!("a network of {host_bits} host bits has no host {number}")),
    }
}

fn cidrnetmask(args: &Args<'_>) -> Result<Value, Failure> {
    let network = network(args)?;
    if network.width != 32 {
        return args.bad(0, "only IPv4 networks have a mask");
    }
    let mask = u32::MAX.checked_shl(32 - network.prefix).unwrap_or(0);
    Ok(Value::string(std::net::Ipv4Addr::from(mask).to_string()))
}

fn cidrsubnet(args: &Args<'_>) -> Result<Value, Failure> {
    let network = network(args)?;
    let (bits, number) = (args.int::<u32>(1)?, args.int::<u128>(2)?);
    let prefix = network.prefix.saturating_add(bits);
    if prefix > network.width {
        return args
            .bad(1, format!("the network would have a prefix of {prefix} bits, of {}", network.width));
    }
    if 1_u128.checked_shl(bits).is_some_and(|count| number >= count) {
        return args.bad(2, format!("{bits} bits can't hold the number {number}"));
    }
    let part = number.checked_shl(network.width - prefix).unwrap_or(0);
    Ok(Value::string(format!("{}/{prefix}", show(network.address | part, network.width))))
}
