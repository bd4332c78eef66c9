//! Matches and targets of x_tables inside nf_tables: which the kernel has, and rules that iptables-nft wrote with them.

use netlink_packet_core::{DecodeError, DefaultNla, NetlinkBuffer, NlasIterator};
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleAttribute, RuleMessage};
use netlink_packet_netfilter::{NetfilterMessageInner, NetfilterSubsystem};
use nft_model::Family;
use nix::errno::Errno;

use super::message::{Content, NFGENMSG_LEN};
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

/// `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWRULE`, and what it holds, of linux/netfilter/nf_tables.h.
const NEWRULE: u16 = 10 << 8 | 6;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const EXPR_NAME: u16 = 1;
const EXPR_DATA: u16 = 2;

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
        let answers =
            self.socket.dump_answers(&format!("the rules of chain {family} {table} {chain}"), family, request)?;
        let comments = answers.iter().filter_map(|answer| comments_of(table, chain, answer).transpose());
        comments.collect::<Result<_, _>>().map_err(Error::NftDecode)
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
            |content| matches!(content, Content::Message(NfTablesMessage::NewRule(message)) if is_in(table, chain, &message.attributes)),
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

/// Kernels before 4.10 give rules of other chains too.
fn is_in(table: &str, chain: &str, attributes: &[RuleAttribute]) -> bool {
    attributes.iter().all(|attribute| match attribute {
        RuleAttribute::Table(name) => name == table,
        RuleAttribute::Chain(name) => name == chain,
        _ => true,
    })
}

/// `None` for what is no rule of the chain. By hand: most of what a rule holds is of no interest here, and there are thousands
/// of them where iptables is in use.
fn comments_of(table: &str, chain: &str, message: &[u8]) -> Result<Option<Vec<String>>, DecodeError> {
    let message = NetlinkBuffer::new_checked(message)?;
    if message.message_type() != NEWRULE {
        return Ok(None);
    }
    let mut comments = Vec::new();
    for attribute in NlasIterator::new(message.payload().get(NFGENMSG_LEN..).unwrap_or_default()) {
        let attribute = attribute?;
        match attribute.kind() {
            RULE_TABLE if before_nul(attribute.value()) != table => return Ok(None),
            RULE_CHAIN if before_nul(attribute.value()) != chain => return Ok(None),
            RULE_EXPRESSIONS => {
                for expression in NlasIterator::new(attribute.value()) {
                    comments.extend(comment(expression?.value())?);
                }
            }
            RULE_USERDATA => comments.extend(value::decode_comment(attribute.value())),
            _ => {}
        }
    }
    Ok(Some(comments))
}

/// The comment that an expression is, if it is a match of that name.
fn comment(expression: &[u8]) -> Result<Option<String>, DecodeError> {
    let (kind, data) = pair(expression, EXPR_NAME, EXPR_DATA)?;
    let Some(data) = data.filter(|_| kind.is_some_and(|kind| before_nul(&kind) == "match")) else { return Ok(None) };
    let (name, info) = pair(&data, NAME, INFO)?;
    let info = info.filter(|_| name.is_some_and(|name| before_nul(&name) == "comment"));
    Ok(info.map(|info| before_nul(&info)))
}

type Value = Option<Vec<u8>>;

/// The attributes of two kinds.
fn pair(attributes: &[u8], first: u16, second: u16) -> Result<(Value, Value), DecodeError> {
    let (mut one, mut other) = (None, None);
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute?;
        match attribute.kind() {
            kind if kind == first => one = Some(attribute.value().to_vec()),
            kind if kind == second => other = Some(attribute.value().to_vec()),
            _ => {}
        }
    }
    Ok((one, other))
}

fn before_nul(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
