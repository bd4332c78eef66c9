//! What rules of iptables need of the kernel. Nothing here does any I/O.

use nft_model::{Family, Statement};

use crate::settings::{Mark, Settings};

/// A match (`-m`) or target (`-j`) in our rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Whether it is a target.
    pub is_target: bool,
    /// As iptables(8) has it.
    pub name: &'static str,
    /// The module, and the setting of the kernel's build.
    pub module: &'static str,
}

const COMMENT: Piece = of_match("comment", "xt_comment (CONFIG_NETFILTER_XT_MATCH_COMMENT)");
const ADDRTYPE: Piece = of_match("addrtype", "xt_addrtype (CONFIG_NETFILTER_XT_MATCH_ADDRTYPE)");
const CONNTRACK: Piece = of_match("conntrack", "xt_conntrack (CONFIG_NETFILTER_XT_MATCH_CONNTRACK)");
const IPRANGE: Piece = of_match("iprange", "xt_iprange (CONFIG_NETFILTER_XT_MATCH_IPRANGE)");
const MARKED: Piece = of_match("mark", "xt_mark (CONFIG_NETFILTER_XT_MARK)");
const MARK: Piece = of_target("MARK", "xt_mark (CONFIG_NETFILTER_XT_MARK)");
const DNAT: Piece = of_target("DNAT", "xt_nat (CONFIG_NETFILTER_XT_NAT)");
const MASQUERADE: Piece = of_target("MASQUERADE", "xt_MASQUERADE (CONFIG_NETFILTER_XT_TARGET_MASQUERADE)");

const fn of_match(name: &'static str, module: &'static str) -> Piece {
    Piece { is_target: false, name, module }
}

const fn of_target(name: &'static str, module: &'static str) -> Piece {
    Piece { is_target: true, name, module }
}

/// The tables of ip_tables and ip6_tables that our rules are in, each with its module and the setting of the kernel's build.
#[must_use]
pub fn tables(family: Family) -> &'static [(&'static str, &'static str)] {
    match family {
        Family::Ip => &[("nat", "iptable_nat (CONFIG_IP_NF_NAT)"), ("raw", "iptable_raw (CONFIG_IP_NF_RAW)")],
        Family::Ip6 => &[("nat", "ip6table_nat (CONFIG_IP6_NF_NAT)")],
    }
}

/// Every match and target that the rules of attachments with these settings may have, but those of protocols: x_tables
/// has tcp and udp itself, and sctp is nobody's before a pod asks for it.
#[must_use]
pub fn pieces(settings: &Settings, family: Family) -> Vec<Piece> {
    let mut pieces = vec![COMMENT, ADDRTYPE, DNAT];
    if settings.snat {
        match settings.mark {
            None => {
                pieces.push(MASQUERADE);
                if settings.masq_all || settings.localhost {
                    pieces.push(CONNTRACK);
                }
            }
            Some(Mark::Bit(_)) => pieces.extend([MASQUERADE, MARKED, MARK]),
            // Somebody else masquerades.
            Some(Mark::Chain(_)) => {}
        }
    }
    let is_interface = |one: &Statement| matches!(one, Statement::Iifname(_) | Statement::IifnameNot(_));
    if settings.conditions(family).iter().any(|one| !is_interface(one)) {
        pieces.push(IPRANGE);
    }
    pieces
}
