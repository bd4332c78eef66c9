use std::collections::BTreeSet;

use netlink_packet_route::rule::{RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use sandbox::private_host;

use crate::parts::list_rtnl;
use crate::{batch, missing};

fn priority_in(object: &RouteNetlinkMessage) -> Option<u32> {
    let RouteNetlinkMessage::NewRule(message) = object else { return None };
    message.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Priority(priority) => Some(*priority),
        _ => None,
    })
}

/// Those of a pod are in one message, which is of one moment.
#[test]
fn lists_of_rules_leave_one_out_of_which_nothing_is_said() {
    private_host(|| {
        let all: BTreeSet<u32> = (1000..1300).collect();
        batch("ip", all.iter().map(|priority| format!("rule add from 10.0.0.1 lookup 100 priority {priority}")));
        let mut request = RuleMessage::default();
        request.header.family = AddressFamily::Inet;
        let listed = list_rtnl(RouteNetlinkMessage::GetRule(request), |_| batch("ip", ["rule del priority 1000"]));
        let missing = missing(&all, &BTreeSet::new(), listed.all.iter().filter_map(priority_in));
        assert!(!missing.is_empty() && !listed.interrupted, "{missing:?} {}", listed.interrupted);
    });
}
