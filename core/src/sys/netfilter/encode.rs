//! A transaction as bytes: messages of nfnetlink between a begin and an end, each with nested attributes. Numbers are
//! those of linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h; all in attributes are
//! big-endian.

use super::expressions::expressions;
use super::{Chain, Hook, Kind, Rule, Table};

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
pub(super) const NFT_MSG_GETRULE: u16 = 7;

// linux/netfilter.h
pub(super) const NFPROTO_INET: u8 = 1;
pub(super) const NF_ACCEPT: u32 = 1;

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
pub(super) const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
pub(super) const NFTA_RULE_EXPRESSIONS: u16 = 4;

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
                    Kind::Route => "route",
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
pub(super) fn attribute(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&kind.to_ne_bytes());
    body(out);
    let length = (out.len() - start) as u16;
    out[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    out.resize(out.len().next_multiple_of(4), 0);
}

pub(super) fn nest(out: &mut Vec<u8>, kind: u16, body: impl FnOnce(&mut Vec<u8>)) {
    attribute(out, kind | NLA_F_NESTED, body);
}

pub(super) fn number(out: &mut Vec<u8>, kind: u16, value: u32) {
    attribute(out, kind, |out| out.extend_from_slice(&value.to_be_bytes()));
}

pub(super) fn text(out: &mut Vec<u8>, kind: u16, value: &str) {
    attribute(out, kind, |out| {
        out.extend_from_slice(value.as_bytes());
        out.push(0);
    });
}
