//! A transaction as bytes: messages of nfnetlink between a begin and an end, each with nested attributes. Numbers are
//! those of linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h; all in attributes are
//! big-endian.

use std::net::IpAddr;

use super::{Action, Chain, Hook, Kind, Match, Ports, Protocol, Rule, Subnet, Table};

// linux/netlink.h
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_HEADER: usize = 16;
pub(super) const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;

// linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
pub(super) const NFNL_SUBSYS_NFTABLES: u16 = 10;
/// `struct nfgenmsg`.
pub(super) const GENERIC_HEADER: usize = 4;

// enum nf_tables_msg_types
const NFT_MSG_NEWTABLE: u16 = 0;
pub(super) const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
pub(super) const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;

// linux/netfilter.h
pub(super) const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;

const NFT_TABLE_F_OWNER: u32 = 0x2;
pub(super) const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
pub(super) const NFTA_CHAIN_TABLE: u16 = 1;
pub(super) const NFTA_CHAIN_NAME: u16 = 3;
pub(super) const NFTA_CHAIN_HOOK: u16 = 4;
pub(super) const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
pub(super) const NFTA_HOOK_HOOKNUM: u16 = 1;
pub(super) const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_REG_2: u32 = 2;
const NFT_REG_3: u32 = 3;

/// A transaction that grows.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// What each message does, in the order of their numbers, which count from 0.
    commands: Vec<Command>,
    /// Where the newest message begins.
    newest: usize,
}

/// What a message does: enough to say it in words, should it be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Begin,
    MakeTable,
    RemoveTable,
    MakeChain(usize),
    MakeRule(usize, usize),
    End,
}

impl Batch {
    /// Returns the transaction that makes `table`; one that is not owned takes the place of what has its name.
    pub(super) fn make(table: &Table) -> Self {
        let mut batch = Self::begin();
        if table.owned {
            batch.table(
                Command::MakeTable,
                NLM_F_CREATE | NLM_F_EXCL,
                &table.name,
                NFT_TABLE_F_OWNER,
            );
        } else {
            // Only a table that is there can be removed.
            batch.table(Command::MakeTable, NLM_F_CREATE, &table.name, 0);
            batch.table(Command::RemoveTable, 0, &table.name, 0);
            batch.table(Command::MakeTable, NLM_F_CREATE, &table.name, 0);
        }
        for (at, chain) in table.chains.iter().enumerate() {
            batch.chain(at, chain, &table.name);
        }
        for (at, chain) in table.chains.iter().enumerate() {
            for (number, rule) in chain.rules.iter().enumerate() {
                batch.rule(Command::MakeRule(at, number), rule, chain.name, &table.name);
            }
        }
        batch.end()
    }

    /// Returns the transaction that removes the table `name` with all that is in it.
    pub(super) fn remove(name: &str) -> Self {
        let mut batch = Self::begin();
        batch.table(Command::RemoveTable, 0, name, 0);
        batch.end()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the number of the last message that is answered when all goes well.
    pub(super) fn last(&self) -> u32 {
        (self.commands.len() as u32).saturating_sub(2)
    }

    /// Returns what the message of this number does.
    pub(super) fn command(&self, number: u32) -> Option<Command> {
        self.commands.get(number as usize).copied()
    }

    fn begin() -> Self {
        let mut batch = Self::default();
        batch.message(Command::Begin, NFNL_MSG_BATCH_BEGIN, 0, |_| {});
        batch
    }

    fn end(mut self) -> Self {
        self.message(Command::End, NFNL_MSG_BATCH_END, 0, |_| {});
        self
    }

    fn table(&mut self, command: Command, flags: u16, name: &str, table_flags: u32) {
        let kind = match command {
            Command::RemoveTable => NFT_MSG_DELTABLE,
            _ => NFT_MSG_NEWTABLE,
        };
        self.message(command, kind, flags, |out| {
            text(out, NFTA_TABLE_NAME, name);
            if table_flags != 0 {
                number(out, NFTA_TABLE_FLAGS, table_flags);
            }
        });
    }

    fn chain(&mut self, at: usize, chain: &Chain, table: &str) {
        self.message(Command::MakeChain(at), NFT_MSG_NEWCHAIN, NLM_F_CREATE, |out| {
            text(out, NFTA_CHAIN_TABLE, table);
            text(out, NFTA_CHAIN_NAME, chain.name);
            nest(out, NFTA_CHAIN_HOOK, |out| {
                number(out, NFTA_HOOK_HOOKNUM, chain.hook.number());
                number(out, NFTA_HOOK_PRIORITY, chain.priority as u32);
            });
            number(out, NFTA_CHAIN_POLICY, NF_ACCEPT);
            text(
                out,
                NFTA_CHAIN_TYPE,
                match chain.kind {
                    Kind::Filter => "filter",
                    Kind::Nat => "nat",
                },
            );
        });
    }

    fn rule(&mut self, command: Command, rule: &Rule, chain: &str, table: &str) {
        self.message(command, NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, |out| {
            text(out, NFTA_RULE_TABLE, table);
            text(out, NFTA_RULE_CHAIN, chain);
            nest(out, NFTA_RULE_EXPRESSIONS, |out| expressions(out, rule));
        });
    }

    /// Appends a message.
    fn message(&mut self, command: Command, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let framing = matches!(command, Command::Begin | Command::End);
        if command == Command::End {
            // The flags of the message before, whose answer comes when the whole is done.
            self.bytes[self.newest + 6] |= NLM_F_ACK as u8;
        }
        self.newest = self.bytes.len();
        let (kind, family, resource) = match framing {
            true => (kind, 0, NFNL_SUBSYS_NFTABLES),
            false => (NFNL_SUBSYS_NFTABLES << 8 | kind, NFPROTO_INET, 0),
        };
        let number = self.commands.len() as u32;
        self.commands.push(command);
        message(
            &mut self.bytes,
            kind,
            flags,
            number,
            [family, 0, 0, resource as u8],
            body,
        );
    }
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

/// Appends a netlink message with nfnetlink's header in front of `body`.
pub(super) fn message(
    out: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    number: u32,
    generic: [u8; GENERIC_HEADER],
    body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    out.extend_from_slice(&number.to_ne_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&generic);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

/// Appends an attribute with what `body` writes, padded to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    body(out);
    let length = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

fn nest(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    attribute(out, kind | NLA_F_NESTED, body);
}

fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, |out| out.extend_from_slice(&value.to_be_bytes()));
}

fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(out, kind, |out| {
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    });
}

fn data(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nest(out, kind, |out| {
        attribute(out, NFTA_DATA_VALUE, |out| out.extend_from_slice(value));
    });
}

fn expression(out: &mut Vec<u8>, name: &str, body: impl FnOnce(&mut Vec<u8>)) {
    nest(out, NFTA_LIST_ELEM, |out| {
        text(out, NFTA_EXPR_NAME, name);
        nest(out, NFTA_EXPR_DATA, body);
    });
}

/// Writes what a rule is made of. What must hold before a header can be read (the family, the protocol) comes before
/// the first that reads it, and once.
fn expressions(out: &mut Vec<u8>, rule: &Rule) {
    let (mut family, mut protocol) = (None, None);
    for one in &rule.matches {
        match one {
            Match::Input(name) => interface(out, IIFNAME, Is::Equal, name),
            Match::NotInput(name) => interface(out, IIFNAME, Is::Other, name),
            Match::Output(name) => interface(out, OIFNAME, Is::Equal, name),
            Match::NotOutput(name) => interface(out, OIFNAME, Is::Other, name),
            Match::Source(subnet) => address(out, End::Source, Is::Equal, subnet, &mut family),
            Match::NotSource(subnet) => address(out, End::Source, Is::Other, subnet, &mut family),
            Match::Destination(subnet) => address(out, End::Destination, Is::Equal, subnet, &mut family),
            Match::NotDestination(subnet) => address(out, End::Destination, Is::Other, subnet, &mut family),
            Match::LocalDestination => local_destination(out),
            Match::Port(wanted, ports) => destination_port(out, *wanted, *ports, &mut protocol),
            Match::Established => connection(out, CT_STATE, CT_ESTABLISHED | CT_RELATED),
            Match::Translated => connection(out, CT_STATUS, IPS_DST_NAT),
        }
    }
    match rule.action {
        Action::Accept => verdict(out, NF_ACCEPT),
        Action::Drop => verdict(out, NF_DROP),
        Action::Masquerade => expression(out, "masq", |_| {}),
        Action::Dnat(to, ports) => destination_nat(out, to, ports),
    }
}

#[derive(Clone, Copy)]
enum Is {
    Equal,
    Other,
    AtLeast,
    AtMost,
}

fn compare(out: &mut Vec<u8>, is: Is, value: &[u8]) {
    const NFTA_CMP_SREG: u16 = 1;
    const NFTA_CMP_OP: u16 = 2;
    const NFTA_CMP_DATA: u16 = 3;
    // enum nft_cmp_ops
    let operation = match is {
        Is::Equal => 0,
        Is::Other => 1,
        Is::AtMost => 3,
        Is::AtLeast => 5,
    };
    expression(out, "cmp", |out| {
        number(out, NFTA_CMP_SREG, NFT_REG_1);
        number(out, NFTA_CMP_OP, operation);
        data(out, NFTA_CMP_DATA, value);
    });
}

// enum nft_meta_keys
const IIFNAME: u32 = 6;
const OIFNAME: u32 = 7;
const NFPROTO: u32 = 15;
const L4PROTO: u32 = 16;

fn meta(out: &mut Vec<u8>, key: u32) {
    const NFTA_META_DREG: u16 = 1;
    const NFTA_META_KEY: u16 = 2;
    expression(out, "meta", |out| {
        number(out, NFTA_META_DREG, NFT_REG_1);
        number(out, NFTA_META_KEY, key);
    });
}

fn interface(out: &mut Vec<u8>, key: u32, is: Is, name: &str) {
    // IFNAMSIZ, with the NUL at the end.
    let mut padded = [0; 16];
    let length = name.len().min(padded.len() - 1);
    padded[..length].copy_from_slice(&name.as_bytes()[..length]);
    meta(out, key);
    compare(out, is, &padded);
}

#[derive(Clone, Copy)]
enum End {
    Source,
    Destination,
}

// enum nft_payload_bases
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;

fn payload(out: &mut Vec<u8>, base: u32, offset: u32, length: usize) {
    const NFTA_PAYLOAD_DREG: u16 = 1;
    const NFTA_PAYLOAD_BASE: u16 = 2;
    const NFTA_PAYLOAD_OFFSET: u16 = 3;
    const NFTA_PAYLOAD_LEN: u16 = 4;
    expression(out, "payload", |out| {
        number(out, NFTA_PAYLOAD_DREG, NFT_REG_1);
        number(out, NFTA_PAYLOAD_BASE, base);
        number(out, NFTA_PAYLOAD_OFFSET, offset);
        number(out, NFTA_PAYLOAD_LEN, length as u32);
    });
}

fn address(out: &mut Vec<u8>, end: End, is: Is, subnet: &Subnet, known: &mut Option<u8>) {
    // Where the addresses are in the headers of RFC 791 and RFC 8200.
    let (family, bytes, offset) = match (subnet.address, end) {
        (IpAddr::V4(address), End::Source) => (NFPROTO_IPV4, address.octets().to_vec(), 12),
        (IpAddr::V4(address), End::Destination) => (NFPROTO_IPV4, address.octets().to_vec(), 16),
        (IpAddr::V6(address), End::Source) => (NFPROTO_IPV6, address.octets().to_vec(), 8),
        (IpAddr::V6(address), End::Destination) => (NFPROTO_IPV6, address.octets().to_vec(), 24),
    };
    if known.replace(family) != Some(family) {
        compare_family(out, Is::Equal, family);
    }
    let (whole, rest) = (usize::from(subnet.prefix / 8), subnet.prefix % 8);
    if rest == 0 {
        if whole > 0 {
            payload(out, NETWORK_HEADER, offset, whole);
            compare(out, is, &bytes[..whole]);
        } else if let Is::Other = is {
            // Every address of the family is in it, so none is outside.
            compare_family(out, is, family);
        }
        return;
    }
    let mut mask = vec![0; bytes.len()];
    mask[..whole].fill(0xff);
    mask[whole] = !(0xff >> rest);
    payload(out, NETWORK_HEADER, offset, bytes.len());
    and(out, &mask);
    compare(out, is, &bytes);
}

fn compare_family(out: &mut Vec<u8>, is: Is, family: u8) {
    meta(out, NFPROTO);
    compare(out, is, &[family]);
}

fn and(out: &mut Vec<u8>, mask: &[u8]) {
    const NFTA_BITWISE_SREG: u16 = 1;
    const NFTA_BITWISE_DREG: u16 = 2;
    const NFTA_BITWISE_LEN: u16 = 3;
    const NFTA_BITWISE_MASK: u16 = 4;
    const NFTA_BITWISE_XOR: u16 = 5;
    expression(out, "bitwise", |out| {
        number(out, NFTA_BITWISE_SREG, NFT_REG_1);
        number(out, NFTA_BITWISE_DREG, NFT_REG_1);
        number(out, NFTA_BITWISE_LEN, mask.len() as u32);
        data(out, NFTA_BITWISE_MASK, mask);
        data(out, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
    });
}

fn destination_port(out: &mut Vec<u8>, protocol: Protocol, ports: Ports, known: &mut Option<Protocol>) {
    if known.replace(protocol) != Some(protocol) {
        // IPPROTO_*, of ip(7).
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        meta(out, L4PROTO);
        compare(out, Is::Equal, &[number]);
    }
    // Both headers hold the destination's port in the bytes 2 and 3.
    payload(out, TRANSPORT_HEADER, 2, 2);
    if ports.first == ports.last {
        compare(out, Is::Equal, &ports.first.to_be_bytes());
    } else {
        compare(out, Is::AtLeast, &ports.first.to_be_bytes());
        compare(out, Is::AtMost, &ports.last.to_be_bytes());
    }
}

fn local_destination(out: &mut Vec<u8>) {
    const NFTA_FIB_DREG: u16 = 1;
    const NFTA_FIB_RESULT: u16 = 2;
    const NFTA_FIB_FLAGS: u16 = 3;
    const NFT_FIB_RESULT_ADDRTYPE: u32 = 3;
    const NFTA_FIB_F_DADDR: u32 = 2;
    // linux/rtnetlink.h
    const RTN_LOCAL: u32 = 2;
    expression(out, "fib", |out| {
        number(out, NFTA_FIB_DREG, NFT_REG_1);
        number(out, NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
        number(out, NFTA_FIB_FLAGS, NFTA_FIB_F_DADDR);
    });
    compare(out, Is::Equal, &RTN_LOCAL.to_ne_bytes());
}

// enum nft_ct_keys
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
// linux/netfilter/nf_conntrack_common.h
const CT_ESTABLISHED: u32 = 1 << 1;
const CT_RELATED: u32 = 1 << 2;
const IPS_DST_NAT: u32 = 1 << 5;

/// Holds where any of `bits` is set.
fn connection(out: &mut Vec<u8>, key: u32, bits: u32) {
    const NFTA_CT_DREG: u16 = 1;
    const NFTA_CT_KEY: u16 = 2;
    expression(out, "ct", |out| {
        number(out, NFTA_CT_DREG, NFT_REG_1);
        number(out, NFTA_CT_KEY, key);
    });
    and(out, &bits.to_ne_bytes());
    compare(out, Is::Other, &[0; 4]);
}

fn immediate(out: &mut Vec<u8>, register: u32, body: impl FnOnce(&mut Vec<u8>)) {
    const NFTA_IMMEDIATE_DREG: u16 = 1;
    const NFTA_IMMEDIATE_DATA: u16 = 2;
    expression(out, "immediate", |out| {
        number(out, NFTA_IMMEDIATE_DREG, register);
        nest(out, NFTA_IMMEDIATE_DATA, body);
    });
}

fn verdict(out: &mut Vec<u8>, code: u32) {
    immediate(out, NFT_REG_VERDICT, |out| {
        nest(out, NFTA_DATA_VERDICT, |out| number(out, NFTA_VERDICT_CODE, code));
    });
}

fn value(out: &mut Vec<u8>, register: u32, bytes: &[u8]) {
    immediate(out, register, |out| {
        attribute(out, NFTA_DATA_VALUE, |out| out.extend_from_slice(bytes));
    });
}

fn destination_nat(out: &mut Vec<u8>, to: IpAddr, ports: Option<Ports>) {
    const NFTA_NAT_TYPE: u16 = 1;
    const NFTA_NAT_FAMILY: u16 = 2;
    const NFTA_NAT_REG_ADDR_MIN: u16 = 3;
    const NFTA_NAT_REG_PROTO_MIN: u16 = 5;
    const NFTA_NAT_REG_PROTO_MAX: u16 = 6;
    const NFT_NAT_DNAT: u32 = 1;
    let family = match to {
        IpAddr::V4(to) => {
            value(out, NFT_REG_1, &to.octets());
            NFPROTO_IPV4
        }
        IpAddr::V6(to) => {
            value(out, NFT_REG_1, &to.octets());
            NFPROTO_IPV6
        }
    };
    let range = ports.filter(|ports| ports.first != ports.last);
    if let Some(ports) = ports {
        value(out, NFT_REG_2, &ports.first.to_be_bytes());
    }
    if let Some(ports) = range {
        value(out, NFT_REG_3, &ports.last.to_be_bytes());
    }
    expression(out, "nat", |out| {
        number(out, NFTA_NAT_TYPE, NFT_NAT_DNAT);
        number(out, NFTA_NAT_FAMILY, family.into());
        number(out, NFTA_NAT_REG_ADDR_MIN, NFT_REG_1);
        if ports.is_some() {
            number(out, NFTA_NAT_REG_PROTO_MIN, NFT_REG_2);
        }
        if range.is_some() {
            number(out, NFTA_NAT_REG_PROTO_MAX, NFT_REG_3);
        }
    });
}
