//! Rules that iptables-nft wrote: matches of x_tables inside nf_tables.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
};
use nft_model::Family;

use super::Nft;
use super::message::Content;
use super::value;
use crate::Error;

/// `NFTA_MATCH_NAME` and `NFTA_MATCH_INFO` of linux/netfilter/nf_tables_compat.h.
const NAME: u16 = 1;
const INFO: u16 = 3;

impl Nft {
    /// The comments of each rule of a chain: those that are a match, as iptables-nft writes them, and the rule's own.
    /// Nothing if there is no such chain.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn xt_comments(&mut self, family: Family, table: &str, chain: &str) -> Result<Vec<Vec<String>>, Error> {
        let attributes = || vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
        let request = || NfTablesMessage::GetRule(RuleMessage { attributes: attributes() });
        let contents = self.socket.dump(&format!("the rules of chain {family} {table} {chain}"), family, request)?;
        let comments = contents.iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewRule(message)) => rule(table, chain, &message.attributes),
            _ => None,
        });
        Ok(comments.collect())
    }
}

/// `None` for a rule of another chain: kernels before 4.10 give those too.
fn rule(table: &str, chain: &str, attributes: &[RuleAttribute]) -> Option<Vec<String>> {
    let mut comments = Vec::new();
    for attribute in attributes {
        match attribute {
            RuleAttribute::Table(name) if name != table => return None,
            RuleAttribute::Chain(name) if name != chain => return None,
            RuleAttribute::Expressions(expressions) => comments.extend(expressions.iter().filter_map(comment)),
            RuleAttribute::UserData(bytes) => comments.extend(value::decode_comment(bytes)),
            _ => {}
        }
    }
    Some(comments)
}

fn comment(expression: &ListAttribute<ExpressionAttribute>) -> Option<String> {
    let ListAttribute::Element(attributes) = expression else { return None };
    let attributes = attributes.iter().find_map(|attribute| match attribute {
        ExpressionAttribute::Data(Expressions::Other { expression_type, attributes }) if expression_type == "match" => {
            Some(attributes)
        }
        _ => None,
    })?;
    let text = |kind: u16| attributes.iter().find(|attribute| attribute.kind() == kind).map(before_nul);
    text(NAME).filter(|name| name == "comment")?;
    text(INFO)
}

fn before_nul(attribute: &DefaultNla) -> String {
    let mut bytes = vec![0; attribute.value_len()];
    attribute.emit_value(&mut bytes);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
