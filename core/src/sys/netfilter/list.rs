//! What is there: the tables, and the chains that packets come to by themselves, of whoever made them.

use super::encode::{
    GENERIC_HEADER, NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_GETCHAIN, NFT_MSG_GETTABLE, NFTA_CHAIN_HOOK,
    NFTA_CHAIN_NAME, NFTA_CHAIN_POLICY, NFTA_CHAIN_TABLE, NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY,
    NFTA_TABLE_NAME, NLM_F_DUMP, NLMSG_DONE, NLMSG_ERROR, message,
};
use super::socket::{Progress, open, receive, send, told};
use super::{Error, Hook};
use crate::sys::{Errno, SysError};

/// A chain that packets come to by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseChain {
    /// The packets that its table sees.
    pub family: Family,
    /// Its table.
    pub table: String,
    /// Its name.
    pub name: String,
    /// Where packets come to it.
    pub hook: Hook,
    /// Lowest first.
    pub priority: i32,
    /// Whether it drops what none of its rules decides on.
    pub drops: bool,
}

/// The packets that a table sees; others than these are not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 and IPv6.
    Inet,
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Inet => "inet",
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        })
    }
}

/// Returns the names of all tables of the `inet` family.
pub fn tables() -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    dump(NFT_MSG_GETTABLE, |family, attributes| {
        let name = find(attributes, NFTA_TABLE_NAME).map(text);
        if family == NFPROTO_INET {
            names.extend(name);
        }
    })?;
    Ok(names)
}

/// Returns the chains that IPv4 and IPv6 packets come to by themselves.
pub fn base_chains() -> Result<Vec<BaseChain>, Error> {
    let mut chains = Vec::new();
    dump(NFT_MSG_GETCHAIN, |family, attributes| {
        chains.extend(base_chain(family, attributes));
    })?;
    Ok(chains)
}

fn base_chain(family: u8, attributes: &[u8]) -> Option<BaseChain> {
    let hook = find(attributes, NFTA_CHAIN_HOOK)?;
    Some(BaseChain {
        family: match family {
            1 => Family::Inet,
            2 => Family::Ip,
            10 => Family::Ip6,
            _ => return None,
        },
        table: find(attributes, NFTA_CHAIN_TABLE).map(text)?,
        name: find(attributes, NFTA_CHAIN_NAME).map(text)?,
        hook: match number(find(hook, NFTA_HOOK_HOOKNUM)?)? {
            0 => Hook::Prerouting,
            1 => Hook::Input,
            2 => Hook::Forward,
            3 => Hook::Output,
            4 => Hook::Postrouting,
            _ => return None,
        },
        priority: number(find(hook, NFTA_HOOK_PRIORITY)?)? as i32,
        drops: find(attributes, NFTA_CHAIN_POLICY).and_then(number) == Some(0),
    })
}

/// Asks for everything of one kind; `see` gets the family and the attributes of each.
pub(super) fn dump(kind: u16, mut see: impl FnMut(u8, &[u8])) -> Result<(), Error> {
    let socket = open()?;
    let mut request = Vec::new();
    let kind = NFNL_SUBSYS_NFTABLES << 8 | kind;
    message(&mut request, kind, NLM_F_DUMP, 1, [0; GENERIC_HEADER], |_| {});
    send(&socket, &request)?;
    receive(&socket, |kind, _, body| {
        if let Some(errno) = told(kind, body) {
            let failed = SysError::new(errno, "recv(nfnetlink)");
            return Err(match errno {
                Errno::INVAL | Errno::OPNOTSUPP => Error::NotThere(failed),
                _ => Error::Sys(failed),
            });
        }
        if matches!(kind, NLMSG_DONE | NLMSG_ERROR) {
            return Ok(Progress::Done);
        }
        if let (Some(family), Some(attributes)) = (body.first(), body.get(GENERIC_HEADER..)) {
            see(*family, attributes);
        }
        Ok(Progress::More)
    })
}

/// Returns what the first attribute of this kind holds.
pub(super) fn find(list: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(list).find_map(|(kind, body)| (kind == wanted).then_some(body))
}

/// Returns the attributes that stand in `list`, each with its kind.
pub(super) fn attributes(mut list: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const HEADER: usize = 4;
    // The two highest bits are flags (NLA_TYPE_MASK in linux/netlink.h).
    const KIND: u16 = 0x3fff;
    std::iter::from_fn(move || {
        let header = list.get(..HEADER)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let body = list.get(HEADER..length)?;
        list = list.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([header[2], header[3]]) & KIND, body))
    })
}

pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_be_bytes)
}
