//! Matches and targets of x_tables inside nf_tables: which the kernel has, and rules that iptables-nft wrote with them.

use netlink_packet_core::{DefaultNla, Nla};
use netlink_packet_netfilter::nftables::{
    ExpressionAttribute, Expressions, ListAttribute, NfTablesMessage, RuleAttribute, RuleMessage,
};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterSubsystem};
use nft_model::Family;
use nix::errno::Errno;

use super::message::Content;
use super::{Nft, Refusal, value};
use crate::Error;
use crate::iptables::{Extension, Known};

/// `NFNL_SUBSYS_NFT_COMPAT` of linux/netfilter/nfnetlink.h, and `NFNL_MSG_COMPAT_GET` of nf_tables_compat.h.
const NFT_COMPAT: u8 = 11;
const COMPAT_GET: u8 = 0;
/// `NFTA_COMPAT_NAME`, `NFTA_COMPAT_REV` and `NFTA_COMPAT_TYPE`.
const COMPAT_NAME: u16 = 1;
const COMPAT_REV: u16 = 2;
const COMPAT_TYPE: u16 = 3;

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

    /// Whether a chain has rules, without reading all of them. `false` if there is no such chain.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub(crate) fn has_rules(&mut self, family: Family, table: &str, chain: &str) -> Result<bool, Error> {
        let attributes = vec![RuleAttribute::Table(table.to_owned()), RuleAttribute::Chain(chain.to_owned())];
        let request = NfTablesMessage::GetRule(RuleMessage { attributes });
        self.socket.dump_has(
            &format!("the rules of chain {family} {table} {chain}"),
            family,
            request,
            |content| matches!(content, Content::Message(NfTablesMessage::NewRule(message)) if rule(table, chain, &message.attributes).is_some()),
        )
    }

    /// Whether rules can have an extension, as iptables-nft asks (`nfnl_compat_get_rcu` of net/netfilter/nft_compat.c). It
    /// changes no rule; the kernel loads the module if there is one.
    pub(crate) fn extension(&mut self, family: Family, extension: Extension<'_>) -> Result<Known, Error> {
        let number = |number: u32| number.to_be_bytes().to_vec();
        let name = [extension.name().as_bytes(), b"\0"].concat();
        let attributes = vec![
            DefaultNla::new(COMPAT_NAME, name),
            DefaultNla::new(COMPAT_REV, number(0)),
            DefaultNla::new(COMPAT_TYPE, number(extension.kind())),
        ];
        let subsys = NetfilterSubsystem::Other(NFT_COMPAT);
        let request = NetfilterMessageInner::Other { subsys, message_type: COMPAT_GET, attributes };
        match self.socket.get(&extension.to_string(), Some(family), request) {
            // EPROTONOSUPPORT: there is one of another revision.
            Ok(Some(_)) | Err(Error::NftRead { source: Refusal::NotSupported, .. }) => Ok(Known::Yes),
            Ok(None) => Ok(Known::No),
            // What nfnetlink says of a part that is not there.
            Err(Error::NftRead { source: Refusal::Errno(Errno::EINVAL), .. }) => Ok(Known::NoneAtAll),
            Err(error) => Err(error),
        }
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
