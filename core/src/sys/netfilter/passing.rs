//! Which interfaces other people's rules let pass. That is as much as can be told of rules without a packet: a rule that
//! names an interface and accepts was most likely made for that interface.

use super::encode::{NF_ACCEPT, NFPROTO_INET, NFT_MSG_GETRULE, NFTA_RULE_EXPRESSIONS, NFTA_RULE_TABLE};
use super::expressions::{
    IIFNAME, NFPROTO_IPV4, NFPROTO_IPV6, NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_EXPR_DATA, NFTA_EXPR_NAME,
    NFTA_VERDICT_CODE,
};
use super::list::{attributes, dump, find, number, text};
use super::{Error, Family};

const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFT_CMP_EQ: u32 = 0;
const NFTA_IMMEDIATE_DATA: u16 = 2;

/// Returns the interfaces that some rule of a table names, where it lets pass what comes in by them. Names that end in an
/// asterisk mean all that begin so.
pub fn let_in(family: Family, table: &str) -> Result<Vec<String>, Error> {
    let wanted = match family {
        Family::Inet => NFPROTO_INET,
        Family::Ip => NFPROTO_IPV4,
        Family::Ip6 => NFPROTO_IPV6,
    };
    let mut names = Vec::new();
    dump(NFT_MSG_GETRULE, |family, attributes| {
        let of_table = find(attributes, NFTA_RULE_TABLE).map(text).as_deref() == Some(table);
        if family == wanted && of_table {
            names.extend(find(attributes, NFTA_RULE_EXPRESSIONS).and_then(let_in_by));
        }
    })?;
    Ok(names)
}

/// Returns the interface by which packets come in that a rule of these expressions lets pass.
fn let_in_by(expressions: &[u8]) -> Option<String> {
    let mut name = None;
    let mut accepts = false;
    // What the expression before has put into the register.
    let mut by = false;
    for (_, expression) in attributes(expressions) {
        let data = find(expression, NFTA_EXPR_DATA).unwrap_or_default();
        let value = |of| find(data, of).and_then(number);
        match find(expression, NFTA_EXPR_NAME).map(text)?.as_str() {
            "meta" => by = value(NFTA_META_KEY) == Some(IIFNAME),
            "cmp" if by && value(NFTA_CMP_OP) == Some(NFT_CMP_EQ) => {
                let bytes = find(find(data, NFTA_CMP_DATA)?, NFTA_DATA_VALUE)?;
                // A name that does not end is one that others begin with.
                let all = if bytes.contains(&0) { "" } else { "*" };
                name = Some(text(bytes) + all);
            }
            "immediate" => {
                let verdict = find(data, NFTA_IMMEDIATE_DATA).and_then(|data| find(data, NFTA_DATA_VERDICT));
                let code = verdict.and_then(|verdict| find(verdict, NFTA_VERDICT_CODE));
                accepts = code.and_then(number) == Some(NF_ACCEPT);
            }
            _ => {}
        }
    }
    name.filter(|_| accepts)
}
