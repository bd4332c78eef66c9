//! What an ADD changes, given what is there: as nft(8) text, without a kernel.
#![expect(clippy::expect_used, reason = "tests fail by panicking, in their helpers too")]

use cni_spec::{Attachment, CniResult, NetConf};
use nft_model::{Change, Element, Family};
use portmap::Error;
use portmap::claim::{Batch, Observed, batch};
use portmap::config::Config;
use portmap::ruleset::{self, Realm};
use serde_json::json;

fn config(container: &str, pod: &str, host_port: u16) -> Result<Config, Error> {
    let json = json!({
        "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap",
        "runtimeConfig": { "portMappings": [{ "hostPort": host_port, "containerPort": 80 }] },
        "prevResult": { "cniVersion": "1.1.0", "ips": [{ "address": pod }] },
    });
    let conf = NetConf::from_bytes(json.to_string().into_bytes()).map_err(Error::Config)?;
    let attachment = Attachment {
        network: conf.name.clone(),
        container_id: container.parse().expect("an id"),
        ifname: "eth0".parse().expect("a name"),
    };
    let prev_result = conf.prev_result.clone().unwrap_or_default();
    Config::new(&attachment, &conf, &prev_result).map(|config| config.expect("there is a mapping"))
}

/// The first of two claimants has all its elements in the table; the second one looks.
fn observed_by(second: &Config, first: &Config) -> Observed {
    let held: Vec<_> = ruleset::entries(first, Family::Ip);
    let holder = |set: &str, element: &Element| {
        held.iter()
            .find(|entry| entry.set == set && entry.element.key == element.key)
            .map(|entry| entry.element.clone())
    };
    let entries = ruleset::entries(second, Family::Ip).into_iter();
    let entries = entries.map(|entry| (entry.clone(), holder(entry.set, &entry.element))).collect();
    let own = if first.owner == second.owner { held.clone() } else { Vec::new() };
    Observed { realm: Realm::common(Family::Ip), table: true, entries, own }
}

fn steps(batch: &Batch) -> Vec<String> {
    batch.changes.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_node_gets_the_frame_and_the_elements_at_once() -> Result<(), Error> {
    let config = config("c1", "10.88.0.2/32", 8080)?;
    let entries = ruleset::entries(&config, Family::Ip).into_iter().map(|entry| (entry, None)).collect();
    let batch = batch(
        &config.owner,
        &[],
        &[Observed { realm: Realm::common(Family::Ip), table: false, entries, own: Vec::new() }],
    )?;
    let [Change::AddTable(frame), elements @ ..] = batch.changes.as_slice() else { panic!("{:?}", batch.changes) };
    assert_eq!(frame, &ruleset::frame(&Realm::common(Family::Ip)).map_err(Error::RuleSet)?);
    assert_eq!(
        elements.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "add element ip podwire-hostport wildcard \
             { tcp . 8080 comment \"podnet c1 eth0\" : 10.88.0.2 . 80 }",
            "add element ip podwire-hostport hairpin { 10.88.0.2 . 10.88.0.2 comment \"podnet c1 eth0\" }",
            "add element ip podwire-hostport owners { 245.86.202.9 . 251.113.60.39 comment \"podnet c1 eth0\" }",
        ]
    );
    assert!(batch.if_unchanged);
    Ok(())
}

#[test]
fn elements_alone_need_no_standstill() -> Result<(), Error> {
    let config = config("c1", "10.88.0.2/32", 8080)?;
    let entries = ruleset::entries(&config, Family::Ip).into_iter().map(|entry| (entry, None)).collect();
    let batch = batch(
        &config.owner,
        &[],
        &[Observed { realm: Realm::common(Family::Ip), table: true, entries, own: Vec::new() }],
    )?;
    assert_eq!(batch.changes.len(), 3);
    assert!(!batch.if_unchanged);
    Ok(())
}

#[test]
fn what_is_there_already_changes_nothing() -> Result<(), Error> {
    let config = config("c1", "10.88.0.2/32", 8080)?;
    assert_eq!(batch(&config.owner, &[], &[observed_by(&config, &config)])?, Batch::default());
    Ok(())
}

#[test]
fn own_elements_are_replaced_if_nothing_moved_since() -> Result<(), Error> {
    let (lost, again) = (config("c1", "10.88.0.2/32", 8080)?, config("c1", "10.88.0.3/32", 8080)?);
    let batch = batch(&again.owner, &[], &[observed_by(&again, &lost)])?;
    assert_eq!(
        steps(&batch),
        [
            "destroy element ip podwire-hostport wildcard { tcp . 8080 }",
            "add element ip podwire-hostport wildcard \
             { tcp . 8080 comment \"podnet c1 eth0\" : 10.88.0.3 . 80 }",
            "destroy element ip podwire-hostport hairpin { 10.88.0.2 . 10.88.0.2 }",
            "add element ip podwire-hostport hairpin { 10.88.0.3 . 10.88.0.3 comment \"podnet c1 eth0\" }",
        ]
    );
    assert!(batch.if_unchanged);
    Ok(())
}

#[test]
fn a_port_of_somebody_else_is_not_taken() -> Result<(), Error> {
    let (first, second) = (config("c1", "10.88.0.2/32", 8080)?, config("c2", "10.88.0.3/32", 8080)?);
    let refusal = batch(&second.owner, &[], &[observed_by(&second, &first)]).expect_err("the port is held");
    assert_eq!(
        refusal.to_string(),
        "host port 8080/tcp on every IPv4 address is held by container c1 (eth0) of network podnet, for 10.88.0.2:80"
    );
    Ok(())
}

#[test]
fn a_hairpin_goes_to_whom_the_address_was_given_last() -> Result<(), Error> {
    let (first, second) = (config("c1", "10.88.0.2/32", 8080)?, config("c2", "10.88.0.2/32", 9090)?);
    let batch = batch(&second.owner, &[], &[observed_by(&second, &first)])?;
    assert_eq!(
        steps(&batch)[1..],
        [
            "destroy element ip podwire-hostport hairpin { 10.88.0.2 . 10.88.0.2 }",
            "add element ip podwire-hostport hairpin { 10.88.0.2 . 10.88.0.2 comment \"podnet c2 eth0\" }",
            "add element ip podwire-hostport owners { 84.6.182.233 . 199.206.91.49 comment \"podnet c2 eth0\" }",
        ]
    );
    assert!(batch.if_unchanged);
    Ok(())
}

#[test]
fn an_address_of_no_interface_is_the_pods() {
    let result = CniResult::from_json(
        &json!({ "cniVersion": "0.2.0", "ip4": { "ip": "10.88.0.2/24" } }),
        cni_spec::SpecVersion::V0_2_0,
    );
    let pod = portmap::pod::Pod::of(&result.expect("a result"), &"eth0".parse().expect("a name"));
    assert_eq!(pod.v4, Some([10, 88, 0, 2].into()));
    assert_eq!(pod.v6, None);
}
