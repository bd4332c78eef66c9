//! Plans in `ip`, `sysctl` and `nft` text. A case is a folder: `config.json` (the network config) and
//! `ipam.json` (what the IPAM plugin answered) make `plan.txt`; in `repair`, what `iptables -t nat -S` listed (`.rules`, of iptables 1.8.9) makes
//! what puts it right (`.restore`). `UPDATE_GOLDEN=1` rewrites them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use cni_spec::{Attachment, CniResult, NetConf, SpecVersion};
use nft_model::Family;
use podwire::masquerade::iptables::{Frame, Seen};
use podwire::{Config, Guard, OtherDefault, Wiring, guard, masquerade};
use serde_json::Value;

/// The MTU of the route to the outside on the node of these cases, in bytes.
const OUTSIDE_MTU: u32 = 1450;

fn plan(case: &Path) -> String {
    let conf = NetConf::from_bytes(fs::read(case.join("config.json")).unwrap()).unwrap();
    let ipam: Value = serde_json::from_slice(&fs::read(case.join("ipam.json")).unwrap()).unwrap();
    let leased = CniResult::from_json(&ipam, conf.cni_version).unwrap();
    let config = Config::for_pod(&conf, &"".parse().unwrap()).unwrap();
    let attachment = Attachment {
        network: conf.name.clone(),
        container_id: "c0ffee".parse().unwrap(),
        ifname: "eth0".parse().unwrap(),
    };
    let netns = Path::new("/run/netns/blue");
    let wiring = Wiring::of(&attachment, &config, netns, config.mtu.or(Some(OUTSIDE_MTU))).unwrap();

    let mut text = String::from("# while an address is leased\n");
    print(&mut text, &wiring.link_steps());
    let wiring = wiring.with_addresses(&leased).beside(others(case));
    text.push_str("\n# with the address\n");
    print(&mut text, &wiring.address_steps());
    if let Some(frame) = &wiring.masquerade_frame {
        text.push_str("\n# masquerade, as the first pod's iptables-restore and ip6tables-restore read it\n");
        for family in Family::ALL {
            let new: Vec<_> = wiring.members().into_iter().filter(|member| member.family() == family).collect();
            text.push_str(&frame.addition(family, &Seen::new(&conf.name, BTreeMap::new()), &new));
        }
    } else if let Some(rules) = &config.masquerade {
        text.push_str("\n# masquerade, once for the network\n");
        for family in Family::ALL {
            let _ = writeln!(text, "{}", masquerade::table(&conf.name, family, rules).unwrap());
        }
    }
    if config.guard != Guard::Off {
        text.push_str("\n# what pods may send, once for the node: see guard.nft\n");
    }
    let result = wiring.result(&config, &leased, conf.prev_result).to_json(SpecVersion::LATEST).unwrap();
    let _ = writeln!(text, "\n# the result\n{result:#}");
    text
}

/// What puts rules right of which `c1` and `c2` are pods that are there: by the list, and where nothing can be listed.
fn repair(rules: &Path, config: &Path) -> String {
    let conf = NetConf::from_bytes(fs::read(config).unwrap()).unwrap();
    let masquerade = Config::for_pod(&conf, &"".parse().unwrap()).unwrap().masquerade.unwrap();
    let frame = Frame::new(&conf.name, &masquerade);
    let member = |(address, owner): (&str, &str)| frame.member(address.parse().unwrap(), owner);
    let members = [("10.244.1.2", "podnet c1 eth0"), ("10.244.1.3", "podnet c2 eth0")].map(member);
    let listing: Vec<String> = fs::read_to_string(rules).unwrap().lines().map(str::to_owned).collect();
    let seen = Seen::new(&conf.name, comments(&listing));
    let mut text = String::new();
    for (how, listing) in [("compared whole", Some(&listing[..])), ("by comments alone", None)] {
        let _ = match frame.repair(Family::Ip, &seen, listing, &members) {
            None => writeln!(text, "# {how}: all is right"),
            Some(repair) => {
                let owners = repair.members.iter().map(|member| member.owner.as_str());
                let wrong: Vec<&str> = owners.chain(repair.shared.then_some("what pods share")).collect();
                write!(text, "# {how}: {}\n{}", wrong.join(", "), repair.text)
            }
        };
    }
    text
}

/// The comments of each rule, as the kernel's answer has them.
fn comments(listing: &[String]) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut chains: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    for rule in listing.iter().filter_map(|line| line.strip_prefix("-A ")) {
        let comment = |text: &str| match text.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap().to_owned(),
            None => text.split(' ').next().unwrap().to_owned(),
        };
        let chain = rule.split(' ').next().unwrap().to_owned();
        chains.entry(chain).or_default().push(rule.split("--comment ").skip(1).map(comment).collect());
    }
    chains
}

/// `default-routes.txt`: default routes that another network gave the pod, a line each: LINK GATEWAY ADDRESS.
fn others(case: &Path) -> Vec<OtherDefault> {
    let text = fs::read_to_string(case.join("default-routes.txt")).unwrap_or_default();
    let other = |line: &str| {
        let [link, gateway, address] = line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let gateway: IpAddr = gateway.parse().unwrap();
        let addresses = vec![address.parse().unwrap()];
        OtherDefault { family: Family::of(gateway), link: link.to_owned(), gateway: Some(gateway), addresses }
    };
    text.lines().map(other).collect()
}

fn print(text: &mut String, steps: &[podwire::Step]) {
    for step in steps {
        let _ = writeln!(text, "{step}");
    }
}

#[test]
fn plans_are_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    #[expect(clippy::disallowed_methods, reason = "how golden files are rewritten")]
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut differing = Vec::new();
    let mut cases = 0;
    let guard: String = Family::ALL.map(|family| guard::table(family).unwrap().to_string()).join("\n");
    let mut plans = vec![(folder.join("guard.nft"), guard)];
    let entries = |folder: &Path| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    for case in entries(&folder).filter(|case| case.join("config.json").exists()) {
        plans.push((case.join("plan.txt"), plan(&case)));
    }
    let config = folder.join("masquerade-iptables/config.json");
    for rules in entries(&folder.join("repair")).filter(|path| path.extension().is_some_and(|end| end == "rules")) {
        plans.push((rules.with_extension("restore"), repair(&rules, &config)));
    }
    for (golden, found) in plans {
        cases += 1;
        if update {
            fs::write(&golden, &found).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != found {
            differing.push(format!("{}:\n{found}", golden.display()));
        }
    }
    assert!(cases > 20, "there are but {cases} cases");
    assert!(
        differing.is_empty(),
        "{} cases differ; this is what they are now:\n{}",
        differing.len(),
        differing.join("\n")
    );
}
