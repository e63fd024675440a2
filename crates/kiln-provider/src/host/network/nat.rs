//! The way out: a table of nftables per Kiln that masquerades what leaves its subnet.
//!
//! The numbers are those of linux/netfilter/nf_tables.h.

use std::io;

use super::netlink::{Message, NLM_F_CREATE, NLM_F_DUMP, Socket, attributes, text_of};
use super::subnet::Subnet;

const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES;
const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES | 1;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES | 2;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES | 3;
const NFT_MSG_NEWRULE: u16 = NFNL_SUBSYS_NFTABLES | 6;
const NFT_MSG_GETRULE: u16 = NFNL_SUBSYS_NFTABLES | 7;
const NLM_F_APPEND: u16 = 0x800;

const NFPROTO_IPV4: u8 = 2;
const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const POSTROUTING: u32 = 4;
/// Where nftables and iptables put source NAT.
const PRIORITY_SRCNAT: u32 = 100;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEM: u16 = 1;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
/// The first 16-byte register.
const REGISTER: u32 = 1;
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const META_OIFNAME: u32 = 7;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const IPV4_SOURCE_OFFSET: u32 = 12;
/// Names of links are compared over their whole field.
const IFNAMSIZ: usize = 16;

const CHAIN: &str = "outbound";

/// Returns the name of a Kiln's table.
pub(crate) fn table_name(state_id: &str) -> String {
    format!("kiln-{state_id}")
}

/// Makes the table anew, whatever was there under its name.
pub(crate) fn install(state_id: &str, bridge: &str, subnet: Subnet) -> io::Result<()> {
    let table = table_name(state_id);
    // In one batch, so that there is no moment without the rule: create, delete and create again is how a table is replaced.
    let messages = vec![
        new_table(&table),
        Message::new(NFT_MSG_DELTABLE, 0, &generation(NFPROTO_IPV4, 0)).text(TABLE_NAME, &table),
        new_table(&table),
        Message::new(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &generation(NFPROTO_IPV4, 0))
            .text(CHAIN_TABLE, &table)
            .text(CHAIN_NAME, CHAIN)
            .nest(CHAIN_HOOK, |m| {
                m.number_be(HOOK_NUMBER, POSTROUTING).number_be(HOOK_PRIORITY, PRIORITY_SRCNAT)
            })
            .text(CHAIN_TYPE, "nat"),
        masquerade_rule(&table, bridge, subnet),
    ];
    commit(messages)
}

/// Removes the table; that there is none is no error.
pub(crate) fn remove(state_id: &str) -> io::Result<()> {
    let message = Message::new(NFT_MSG_DELTABLE, 0, &generation(NFPROTO_IPV4, 0));
    match commit(vec![message.text(TABLE_NAME, &table_name(state_id))]) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Returns how many rules a Kiln's table has; none if there is no table.
pub(crate) fn rule_count(state_id: &str) -> io::Result<Option<usize>> {
    let table = table_name(state_id);
    let mut socket = Socket::netfilter()?;
    let mut found = false;
    socket.dump(Message::new(NFT_MSG_GETTABLE, NLM_F_DUMP, &generation(NFPROTO_IPV4, 0)), &mut |body| {
        found |= named(body, TABLE_NAME, &table);
    })?;
    let mut rules = 0;
    socket.dump(Message::new(NFT_MSG_GETRULE, NLM_F_DUMP, &generation(NFPROTO_IPV4, 0)), &mut |body| {
        rules += usize::from(named(body, RULE_TABLE, &table));
    })?;
    Ok(found.then_some(rules))
}

fn named(body: &[u8], attribute: u16, wanted: &str) -> bool {
    let rest = body.get(4..).unwrap_or_default();
    attributes(rest).any(|(kind, value)| kind == attribute && text_of(value) == wanted)
}

fn new_table(table: &str) -> Message {
    Message::new(NFT_MSG_NEWTABLE, NLM_F_CREATE, &generation(NFPROTO_IPV4, 0)).text(TABLE_NAME, table)
}

/// `ip saddr SUBNET oifname != BRIDGE masquerade`
fn masquerade_rule(table: &str, bridge: &str, subnet: Subnet) -> Message {
    let mut name = [0; IFNAMSIZ];
    name[..bridge.len()].copy_from_slice(bridge.as_bytes());
    let mask = subnet.mask().octets();
    Message::new(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &generation(NFPROTO_IPV4, 0))
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, CHAIN)
        .nest(RULE_EXPRESSIONS, |m| {
            let m = expression(m, "payload", |m| {
                m.number_be(1, REGISTER)
                    .number_be(2, PAYLOAD_NETWORK_HEADER)
                    .number_be(3, IPV4_SOURCE_OFFSET)
                    .number_be(4, 4)
            });
            let m = expression(m, "bitwise", |m| {
                m.number_be(1, REGISTER)
                    .number_be(2, REGISTER)
                    .number_be(3, 4)
                    .nest(4, |m| m.attribute(DATA_VALUE, &mask))
                    .nest(5, |m| m.attribute(DATA_VALUE, &[0; 4]))
            });
            let m = compare(m, CMP_EQ, &subnet.base().octets());
            let m = expression(m, "meta", |m| m.number_be(1, REGISTER).number_be(2, META_OIFNAME));
            let m = compare(m, CMP_NEQ, &name);
            expression(m, "masq", |m| m)
        })
}

/// Goes on with the rule only if the register compares to the value as `operator` says.
fn compare(message: Message, operator: u32, value: &[u8]) -> Message {
    expression(message, "cmp", |m| {
        m.number_be(1, REGISTER).number_be(2, operator).nest(3, |m| m.attribute(DATA_VALUE, value))
    })
}

fn expression(message: Message, name: &str, fill: impl FnOnce(Message) -> Message) -> Message {
    message.nest(LIST_ELEM, |m| m.text(EXPR_NAME, name).nest(EXPR_DATA, fill))
}

/// `struct nfgenmsg`.
fn generation(family: u8, subsystem: u16) -> [u8; 4] {
    let [high, low] = subsystem.to_be_bytes();
    [family, 0, high, low]
}

fn commit(messages: Vec<Message>) -> io::Result<()> {
    let edge = |kind| Message::new(kind, 0, &generation(0, NFNL_SUBSYS_NFTABLES >> 8));
    let mut batch = vec![edge(NFNL_MSG_BATCH_BEGIN)];
    batch.extend(messages);
    batch.push(edge(NFNL_MSG_BATCH_END));
    // The first and the last are not answered by older kernels.
    let answered = 1..batch.len() - 1;
    Socket::netfilter()?.execute_batch(batch, answered)
}
