use kernel::rtnl::{Rtnl, SourceRule};
use sandbox::private_host;

use crate::oracle::ip;

fn rule(from: &str, table: u32) -> SourceRule {
    SourceRule { from: from.parse().expect("an address"), table, priority: 1120, protocol: 112 }
}

#[test]
fn rules_are_added_once_listed_and_deleted() {
    private_host(|| {
        let rtnl = Rtnl::open().unwrap();
        let (four, six) = (rule("10.88.0.2", 70_000), rule("fd88::2", 123));
        for rule in [four, six] {
            assert!(rtnl.add_rule(&rule).unwrap(), "{rule:?}");
            assert!(!rtnl.add_rule(&rule).unwrap(), "{rule:?} twice");
        }
        for (family, from, table) in [("-4", "10.88.0.2", "70000"), ("-6", "fd88::2", "123")] {
            let shown = ip(&format!("{family} rule show priority 1120"));
            assert_eq!((&shown[0]["src"], &shown[0]["table"]), (&from.into(), &table.into()), "{shown}");
            assert_eq!(shown.as_array().unwrap().len(), 1, "{shown}");
        }
        assert_eq!(rtnl.rules().unwrap(), [four, six], "rules without one source are left out");
        for rule in [four, six] {
            assert!(rtnl.delete_rule(&rule).unwrap(), "{rule:?}");
            assert!(!rtnl.delete_rule(&rule).unwrap(), "{rule:?} is gone");
        }
        assert_eq!(rtnl.rules().unwrap(), []);
    });
}
