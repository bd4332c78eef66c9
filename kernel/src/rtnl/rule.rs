//! Routing policy rules: which table is asked for which packets.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;

use super::Rtnl;
use super::route::Family;
use crate::error::{Error, Result};

/// `from ADDRESS lookup TABLE`: packets with that source address are routed by that table first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceRule {
    /// The source address.
    pub from: IpAddr,
    /// Routing table number.
    pub table: u32,
    /// Its turn among the rules, lowest first; the main table's is 32766.
    pub priority: u32,
    /// Who made it, as for routes.
    pub protocol: u8,
}

impl Rtnl {
    /// Adds a rule; `Ok(false)` if it is there.
    ///
    /// # Errors
    /// [`Error::ChangeRule`].
    pub fn add_rule(&self, rule: &SourceRule) -> Result<bool> {
        match self.change(RouteNetlinkMessage::NewRule(message(rule)), NLM_F_CREATE | NLM_F_EXCL) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::EEXIST]) => Ok(false),
            Err(source) => Err(Error::ChangeRule { change: "add", rule: *rule, source }),
        }
    }

    /// Deletes a rule; `Ok(false)` if there is none.
    ///
    /// # Errors
    /// [`Error::ChangeRule`].
    pub fn delete_rule(&self, rule: &SourceRule) -> Result<bool> {
        match self.change(RouteNetlinkMessage::DelRule(message(rule)), 0) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is(&[Errno::ENOENT]) => Ok(false),
            Err(source) => Err(Error::ChangeRule { change: "delete", rule: *rule, source }),
        }
    }

    /// The rules of both families that choose a table by one source address. None on a kernel without policy
    /// routing. Of more than some thirty, which the kernel lists by place, one may be left out while another goes.
    ///
    /// # Errors
    /// [`Error::ListRules`].
    pub fn rules(&self) -> Result<Vec<SourceRule>> {
        let mut rules = Vec::new();
        for family in [Family::Inet, Family::Inet6] {
            let mut request = RuleMessage::default();
            request.header = header(family);
            let objects = match self.list(&RouteNetlinkMessage::GetRule(request)) {
                Err(failure) if failure.is(&[Errno::EOPNOTSUPP, Errno::EAFNOSUPPORT]) => Vec::new(),
                listed => listed.map_err(Error::ListRules)?,
            };
            rules.extend(objects.into_iter().filter_map(|object| match object {
                RouteNetlinkMessage::NewRule(message) => rule_in(&message),
                _ => None,
            }));
        }
        Ok(rules)
    }
}

fn header(family: Family) -> RuleHeader {
    let family = match family {
        Family::Inet => AddressFamily::Inet,
        Family::Inet6 => AddressFamily::Inet6,
    };
    RuleHeader { family, ..RuleHeader::default() }
}

fn message(rule: &SourceRule) -> RuleMessage {
    let network = IpNetwork::from(rule.from);
    let mut header = header(Family::of(rule.from));
    header.src_len = network.prefix();
    header.action = RuleAction::ToTable;
    let mut message = RuleMessage::default();
    message.header = header;
    message.attributes = vec![
        RuleAttribute::Source(rule.from),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Protocol(RouteProtocol::from(rule.protocol)),
    ];
    message
}

/// `None` for a rule that looks at anything else.
fn rule_in(message: &RuleMessage) -> Option<SourceRule> {
    let (mut from, mut table, mut priority, mut protocol) = (None, u32::from(message.header.table), 0, 0);
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Source(address) => from = Some(*address),
            RuleAttribute::Table(number) => table = *number,
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Protocol(number) => protocol = u8::from(*number),
            RuleAttribute::SuppressPrefixLen(_) => {}
            RuleAttribute::Destination(_)
            | RuleAttribute::Iifname(_)
            | RuleAttribute::Oifname(_)
            | RuleAttribute::FwMark(_) => return None,
            _ => {}
        }
    }
    let from = from.filter(|from| message.header.src_len == IpNetwork::from(*from).prefix())?;
    (message.header.action == RuleAction::ToTable).then_some(SourceRule { from, table, priority, protocol })
}
