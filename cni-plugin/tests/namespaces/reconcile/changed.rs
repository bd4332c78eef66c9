//! Rules of iptables that somebody has changed, and that have our comments still: as an ADD makes them after the next run.

use serde_json::{Value, json};

use super::{added, keep, lines, reconcile, reconcile_apart};
use crate::common::{TestPod, exchange, text};
use crate::flavour::Flavour;
use crate::masquerade::{address, outside_machine};
use crate::masquerade_iptables::by_iptables;

on_both_flavours!(rules_that_were_changed_are_made_anew, a_rule_that_leads_elsewhere_is_made_anew);

const PODS: &str = "PODWIRE-PODS";
const CHAIN: &str = "PODWIRE-MASQ-podnet";

fn iptables(arguments: &[&str]) -> String {
    text("iptables", &[&["-t", "nat"], arguments].concat())
}

/// The rules of a chain as arguments, without `-A CHAIN`.
fn rules(chain: &str) -> Vec<Vec<String>> {
    // Of what our rules have in quotes, only owners have spaces in them.
    let words = |line: &str| -> Vec<String> {
        let parts = line.split('"').enumerate();
        let quoted = |(at, part): (usize, &str)| match at % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        };
        parts.flat_map(quoted).skip(2).collect()
    };
    let listed = iptables(&["-S", chain]);
    listed.lines().filter(|line| line.starts_with("-A ")).map(words).collect()
}

/// Puts a rule in the place of the one with that number, from 1, after changing it.
fn replace(chain: &str, number: usize, change: impl Fn(&mut Vec<String>)) {
    let mut rule = rules(chain)[number - 1].clone();
    change(&mut rule);
    let number = number.to_string();
    let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
    iptables(&[&["-R", chain, &number], &rule[..]].concat());
}

/// The last word of a rule is its target.
fn lead_to(target: &str) -> impl Fn(&mut Vec<String>) + '_ {
    move |rule| *rule.last_mut().unwrap() = target.to_owned()
}

fn rules_that_were_changed_are_made_anew(flavour: Flavour) {
    let pods = ["one", "two"].map(|id| {
        let pod = TestPod::new(id);
        let result = pod.add(&by_iptables()).ok().json();
        keep(&pod, &by_iptables(), &json!({}));
        (pod, result)
    });
    let are_right = || pods.iter().all(|(pod, result)| pod.check(&by_iptables(), result).success);
    let sorted = || lines(&flavour.rules().join("\n")).into_iter().map(str::to_owned).collect::<Vec<_>>();
    let before = sorted();
    assert_eq!(reconcile(&["--quiet"]), (0, String::new()));
    type Spoil = Box<dyn Fn()>;
    let spoilt: [(&str, Spoil); 8] = [
        ("who is led", Box::new(|| replace(PODS, 1, lead_to("RETURN")))),
        ("an exception before all pods", Box::new(|| drop(iptables(&["-I", PODS, "-j", "RETURN"])))),
        ("an exception before the network", Box::new(|| drop(iptables(&["-I", CHAIN, "-j", "RETURN"])))),
        ("the translation", Box::new(|| replace(CHAIN, rules(CHAIN).len(), lead_to("ACCEPT")))),
        ("where packets go without translation", Box::new(|| replace(CHAIN, 1, |rule| rule.insert(0, "!".to_owned())))),
        (
            "the order",
            Box::new(|| {
                let last = rules(CHAIN).len();
                let rule = rules(CHAIN)[last - 1].clone();
                let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
                iptables(&["-D", CHAIN, &last.to_string()]);
                iptables(&[&["-I", CHAIN], &rule[..]].concat());
            }),
        ),
        (
            "one rule too many",
            Box::new(|| {
                let mut rule = rules(PODS)[0].clone();
                lead_to("ACCEPT")(&mut rule);
                let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
                iptables(&[&["-I", PODS], &rule[..]].concat());
            }),
        ),
        (
            "what leads to all",
            Box::new(|| {
                let number =
                    rules("POSTROUTING").iter().position(|rule| rule.contains(&"podwire-masq".to_owned())).unwrap() + 1;
                replace("POSTROUTING", number, |rule| {
                    rule.splice(0..0, ["-o".to_owned(), "lo".to_owned()]).for_each(drop);
                });
            }),
        ),
    ];
    for (what, spoil) in spoilt {
        spoil();
        assert!(!are_right(), "{what}");
        let spoilt = flavour.rules();
        let (code, told) = reconcile(&["--dry-run"]);
        assert!(code == 0 && told.contains("to be restored") && flavour.rules() == spoilt, "{what}: {told}");
        let (code, told) = reconcile(&["--quiet"]);
        assert!(code == 0 && told.contains(" eth0: restored"), "{what}: {told}");
        assert_eq!(sorted(), before, "{what}: {told}");
        assert!(are_right(), "{what}: {:?}", flavour.rules());
        assert_eq!(reconcile(&["--quiet"]), (0, String::new()), "{what}");
    }
}

/// One rule that nft made there keeps `iptables -S` from listing anything of table nat.
#[test]
fn what_a_flush_took_is_there_again_in_a_table_that_iptables_cannot_list() {
    const OF_OTHERS: &str = "dnat to 198.51.100.80";
    sandbox::private_host(|| {
        Flavour::Nft.chosen();
        let outside = outside_machine();
        let pod = added("one", &by_iptables());
        let seen = |to: &str| exchange(&outside, &pod.netns, address(to)).unwrap().ip();
        text("nft", &["flush", "ruleset"]);
        let hook = "{ type nat hook prerouting priority dstnat; }";
        for rule in [
            "add table ip nat".to_owned(),
            format!("add chain ip nat PREROUTING {hook}"),
            format!("add rule ip nat PREROUTING ip daddr 203.0.113.7 tcp dport {{ 80, 443 }} {OF_OTHERS}"),
        ] {
            text("nft", &[&rule]);
        }
        let listed = sandbox::command("iptables").args(["-t", "nat", "-S"]).output().unwrap();
        assert!(!listed.status.success(), "it can be listed: {listed:?}");
        assert_eq!(seen("198.51.100.1"), address("10.244.1.2"), "nothing masquerades");

        let table = || text("nft", &["list", "table", "ip", "nat"]);
        let before = table();
        let (code, told) = reconcile(&["--dry-run"]);
        assert!(code == 0 && told.contains("# -A PODWIRE-PODS -s 10.244.1.2/32"), "{told}");
        assert_eq!(table(), before, "{told}");
        let (code, told) = reconcile(&["--quiet"]);
        assert!(code == 0 && told.contains("podnet one eth0: restored"), "{told}");
        // Of IPv6 nothing is beside ours.
        assert_eq!(told.matches("by their comments alone").count(), 1, "{told}");
        assert_eq!(seen("198.51.100.1"), address("192.168.50.1"));
        assert_eq!(seen("2001:db8:51::1"), address("fd50::1"));
        assert!(table().contains(OF_OTHERS), "{}", table());

        let before = table();
        let document: Value = serde_json::from_str(&reconcile_apart(&["-o", "json"]).1).unwrap();
        assert_eq!(document["items"][0]["done"], "nothing", "{document}");
        assert_eq!(document["remarks"].as_array().unwrap().len(), 1, "{document}");
        assert_eq!(table(), before, "{document}");
        // Such a rule among those of pods is one of nobody, and goes by its number.
        text("nft", &["insert rule ip nat PODWIRE-PODS ip saddr { 10.0.0.0/8, 192.168.0.0/16 } masquerade"]);
        assert_eq!(reconcile(&[]).0, 0);
        let of_all = text("nft", &["list", "chain", "ip", "nat", PODS]);
        assert!(of_all.contains(CHAIN) && !of_all.contains("192.168.0.0/16"), "{of_all}");
    });
}

/// By packets, and rules of others beside ours stay.
fn a_rule_that_leads_elsewhere_is_made_anew(_flavour: Flavour) {
    let outside = outside_machine();
    let pod = added("one", &by_iptables());
    let seen = || exchange(&outside, &pod.netns, address("198.51.100.1")).unwrap().ip();
    iptables(&[
        "-A",
        "POSTROUTING",
        "-d",
        "203.0.113.7",
        "-m",
        "comment",
        "--comment",
        "of an administrator",
        "-j",
        "ACCEPT",
    ]);
    assert_eq!(seen(), address("192.168.50.1"));
    replace(CHAIN, rules(CHAIN).len(), lead_to("ACCEPT"));
    assert_eq!(seen(), address("10.244.1.2"), "nothing masquerades");
    assert_eq!(reconcile(&[]).0, 0);
    assert_eq!(seen(), address("192.168.50.1"));
    assert!(iptables(&["-S", "POSTROUTING"]).contains("of an administrator"));
}
