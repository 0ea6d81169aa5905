//! What a rule is made of, as the attributes of its message (linux/netfilter/nf_tables.h).

use std::net::{IpAddr, Ipv6Addr};

use super::encode::{NF_ACCEPT, attribute, nest, number, text};
use super::{Action, End, Match, Ports, Protocol, Rule, Subnet};

// linux/netfilter.h
const NF_DROP: u32 = 0;
pub(super) const NFPROTO_IPV4: u8 = 2;
pub(super) const NFPROTO_IPV6: u8 = 10;

const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
pub(super) const NFTA_DATA_VERDICT: u16 = 2;
pub(super) const NFTA_VERDICT_CODE: u16 = 1;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_REG_2: u32 = 2;
const NFT_REG_3: u32 = 3;

/// Writes what a rule is made of. What must hold before a header can be read (the family, the protocol) comes before
/// the first that reads it, and once.
pub(super) fn expressions(out: &mut Vec<u8>, rule: &Rule) {
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
            Match::Port(wanted, ports) => port(out, End::Destination, *wanted, *ports, &mut protocol),
            Match::SourcePort(wanted, from) => {
                port(out, End::Source, *wanted, Ports::one(*from), &mut protocol);
            }
            Match::Answer => answer(out),
            Match::Established => connection(out, CT_STATE, CT_ESTABLISHED | CT_RELATED),
            Match::Translated => connection(out, CT_STATUS, IPS_DST_NAT),
        }
    }
    match rule.action {
        Action::Accept => verdict(out, NF_ACCEPT),
        Action::Drop => verdict(out, NF_DROP),
        Action::Masquerade => expression(out, "masq", |_| {}),
        Action::Dnat(to, ports) => destination_nat(out, to, ports),
        Action::Rewrite {
            source,
            destination,
            protocol,
            end,
            port,
        } => {
            rewrite_address(out, End::Source, source);
            rewrite_address(out, End::Destination, destination);
            rewrite_port(out, end, protocol, port);
        }
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
pub(super) const IIFNAME: u32 = 6;
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

fn port(out: &mut Vec<u8>, end: End, protocol: Protocol, ports: Ports, known: &mut Option<Protocol>) {
    if known.replace(protocol) != Some(protocol) {
        // IPPROTO_*, of ip(7).
        let number = match protocol {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
        };
        meta(out, L4PROTO);
        compare(out, Is::Equal, &[number]);
    }
    payload(out, TRANSPORT_HEADER, port_offset(end), 2);
    if ports.first == ports.last {
        compare(out, Is::Equal, &ports.first.to_be_bytes());
    } else {
        compare(out, Is::AtLeast, &ports.first.to_be_bytes());
        compare(out, Is::AtMost, &ports.last.to_be_bytes());
    }
}

/// Where a port is in the headers of RFC 768 and RFC 9293.
fn port_offset(end: End) -> u32 {
    match end {
        End::Source => 0,
        End::Destination => 2,
    }
}

/// How a checksum is kept right when what it covers changes.
enum Checksum {
    /// It covers the addresses, too, and is in another header.
    Pseudo,
    /// It is in the same header, this many bytes behind its start.
    At(u32),
}

/// Writes the first `length` bytes of the first register into a header.
fn rewrite(out: &mut Vec<u8>, base: u32, offset: u32, length: u32, checksum: Checksum) {
    const NFTA_PAYLOAD_BASE: u16 = 2;
    const NFTA_PAYLOAD_OFFSET: u16 = 3;
    const NFTA_PAYLOAD_LEN: u16 = 4;
    const NFTA_PAYLOAD_SREG: u16 = 5;
    const NFTA_PAYLOAD_CSUM_TYPE: u16 = 6;
    const NFTA_PAYLOAD_CSUM_OFFSET: u16 = 7;
    const NFTA_PAYLOAD_CSUM_FLAGS: u16 = 8;
    // enum nft_payload_csum_types, enum nft_payload_csum_flags
    let (kind, at, flags) = match checksum {
        Checksum::Pseudo => (0, 0, 1),
        Checksum::At(at) => (1, at, 0),
    };
    expression(out, "payload", |out| {
        number(out, NFTA_PAYLOAD_SREG, NFT_REG_1);
        number(out, NFTA_PAYLOAD_BASE, base);
        number(out, NFTA_PAYLOAD_OFFSET, offset);
        number(out, NFTA_PAYLOAD_LEN, length);
        number(out, NFTA_PAYLOAD_CSUM_TYPE, kind);
        number(out, NFTA_PAYLOAD_CSUM_OFFSET, at);
        number(out, NFTA_PAYLOAD_CSUM_FLAGS, flags);
    });
}

fn rewrite_address(out: &mut Vec<u8>, end: End, address: Ipv6Addr) {
    let offset = match end {
        End::Source => 8,
        End::Destination => 24,
    };
    value(out, NFT_REG_1, &address.octets());
    rewrite(out, NETWORK_HEADER, offset, 16, Checksum::Pseudo);
}

fn rewrite_port(out: &mut Vec<u8>, end: End, protocol: Protocol, port: u16) {
    let checksum = match protocol {
        Protocol::Tcp => 16,
        Protocol::Udp => 6,
    };
    value(out, NFT_REG_1, &port.to_be_bytes());
    rewrite(out, TRANSPORT_HEADER, port_offset(end), 2, Checksum::At(checksum));
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

/// Holds for packets in the direction opposite to that of the first (`IP_CT_DIR_REPLY`).
fn answer(out: &mut Vec<u8>) {
    const CT_DIRECTION: u32 = 1;
    connection_key(out, CT_DIRECTION);
    compare(out, Is::Equal, &[1]);
}

fn connection_key(out: &mut Vec<u8>, key: u32) {
    const NFTA_CT_DREG: u16 = 1;
    const NFTA_CT_KEY: u16 = 2;
    expression(out, "ct", |out| {
        number(out, NFTA_CT_DREG, NFT_REG_1);
        number(out, NFTA_CT_KEY, key);
    });
}

/// Holds where any of `bits` is set.
fn connection(out: &mut Vec<u8>, key: u32, bits: u32) {
    connection_key(out, key);
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
