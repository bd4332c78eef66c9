//! Network configs: what is accepted, and exactly what is said about what is not.

use crate::support::{Place, ips, net_conf};
use cni_spec::CniError;
use ipam::Ipam;
use serde_json::{Value, json};

/// The error for a config with this `ipam` object: code and message.
fn refused(conf: &Value) -> String {
    match Ipam::from_config(&net_conf(conf)) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => {
            let error = CniError::from(error);
            format!("{} {}", error.code.number(), error.msg)
        }
    }
}

fn with_ipam(ipam: &Value) -> Value {
    json!({ "cniVersion": "1.0.0", "name": "n", "type": "podwire", "ipam": ipam })
}

/// Compares all cases before it fails.
fn all_are_refused(cases: &[(Value, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .map(|(conf, expected)| (conf, expected, refused(conf)))
        .filter(|(_, expected, said)| said != *expected)
        .map(|(conf, expected, said)| format!("{conf}\n  expected {expected}\n  said     {said}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bad_subnets_are_named() {
    let cases = [
        (
            json!({ "podCIDR": "10.244.1.5/24" }),
            "7 invalid network config: ipam.podCIDR=\"10.244.1.5/24\" has bits set beyond its prefix length; the subnet is 10.244.1.0/24",
        ),
        (
            json!({ "podCIDR": "10.244.1.0" }),
            "7 invalid network config: ipam.podCIDR=\"10.244.1.0\" is not a subnet in CIDR notation, such as 10.244.1.0/24 or fd00:10:244:1::/64",
        ),
        (
            json!({ "podCIDR": ["10.244.1.0/24", "fd00::1/64"] }),
            "7 invalid network config: ipam.podCIDR[1]=\"fd00::1/64\" has bits set beyond its prefix length; the subnet is fd00::/64",
        ),
        (json!({ "podCIDR": [] }), "7 invalid network config: ipam.podCIDR has no range"),
        (
            json!({ "podCIDR": 7 }),
            "7 invalid network config: ipam.podCIDR=7: a subnet in CIDR notation or a list of them",
        ),
        (
            json!({ "podCIDR": "10.0.0.0/24", "subnet": "10.1.0.0/24" }),
            "7 invalid network config: ipam.podCIDR cannot stand beside ipam.subnet",
        ),
        (
            json!({ "podCIDR": "10.0.0.0/24", "ranges": [] }),
            "7 invalid network config: ipam.podCIDR cannot stand beside ipam.ranges",
        ),
        (
            json!({ "subnet": "10.0.0.0/33" }),
            "7 invalid network config: ipam.subnet=\"10.0.0.0/33\" is not a subnet in CIDR notation, such as 10.244.1.0/24 or fd00:10:244:1::/64",
        ),
        (json!({ "rangeStart": "10.0.0.4" }), "7 invalid network config: ipam.subnet is missing"),
        (
            json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }], [{}]] }),
            "7 invalid network config: ipam.ranges[1][0].subnet is missing",
        ),
        (
            json!({ "ranges": [[{ "subnet": 10 }]] }),
            "7 invalid network config: ipam.ranges[0][0].subnet=10: invalid type: integer `10`, expected a string",
        ),
        (
            json!({ "ranges": [[null]] }),
            "7 invalid network config: ipam.ranges[0][0]=null: invalid type: null, expected an object with subnet",
        ),
        (json!({ "ranges": [[]] }), "7 invalid network config: ipam.ranges[0] has no range"),
        (json!({}), "7 invalid network config: ipam has none of podCIDR, subnetFile, ranges and subnet"),
    ];
    all_are_refused(&cases.map(|(ipam, expected)| (with_ipam(&ipam), expected)));
}

#[test]
fn subnets_that_no_pod_can_live_in_are_named() {
    let cases = [
        ("127.0.0.0/8", "127.0.0.0/8, which every host keeps to itself (loopback)"),
        ("127.3.0.0/16", "127.0.0.0/8, which every host keeps to itself (loopback)"),
        ("126.0.0.0/7", "127.0.0.0/8, which every host keeps to itself (loopback)"),
        ("0.0.0.0/0", "0.0.0.0/32, which stands for any address"),
        ("224.0.0.0/24", "224.0.0.0/4, which is multicast"),
        ("239.255.255.255/32", "224.0.0.0/4, which is multicast"),
        ("169.254.0.0/16", "169.254.0.0/16, which is link-local and holds the pods' gateway 169.254.1.1"),
        ("169.254.7.0/24", "169.254.0.0/16, which is link-local and holds the pods' gateway 169.254.1.1"),
        ("::/0", "::/128, which stands for any address"),
        ("::1/128", "::1/128, which every host keeps to itself (loopback)"),
        ("::ffff:10.0.0.0/120", "::ffff:0.0.0.0/96, which stands for IPv4 addresses"),
        ("fe80::/64", "fe80::/10, which is link-local and holds the pods' gateway fe80::1"),
        ("febf::/64", "fe80::/10, which is link-local and holds the pods' gateway fe80::1"),
        ("ff00::/8", "ff00::/8, which is multicast"),
        ("ff3e::/64", "ff00::/8, which is multicast"),
    ];
    for (key, conf) in [
        ("ipam.podCIDR[0]", (|subnet| json!({ "podCIDR": [subnet] })) as fn(&str) -> Value),
        ("ipam.subnet", |subnet| json!({ "subnet": subnet })),
        ("ipam.ranges[0][0].subnet", |subnet| json!({ "ranges": [[{ "subnet": subnet }]] })),
    ] {
        let said = cases.map(|(subnet, why)| {
            let said = format!("7 invalid network config: {key}={subnet:?} has addresses of {why}");
            (with_ipam(&conf(subnet)), said)
        });
        let said: Vec<(Value, &str)> = said.iter().map(|(conf, said)| (conf.clone(), said.as_str())).collect();
        all_are_refused(&said);
    }
    let accepted = [
        "126.255.255.0/24",
        "128.0.0.0/16",
        "223.255.255.0/24",
        "169.253.0.0/16",
        "169.255.0.0/16",
        "100.64.0.0/10",
        "::2:0/112",
        "fe00::/64",
        "fec0::/64",
        "64:ff9b::/96",
        "feff:ffff::/32",
    ];
    all_are_refused(&accepted.map(|subnet| (with_ipam(&json!({ "podCIDR": subnet })), "accepted")));
    let excluded = json!({ "podCIDR": "10.0.0.0/24", "exclude": ["127.0.0.0/8"] });
    all_are_refused(&[(with_ipam(&excluded), "accepted")]);
}

#[test]
fn bad_ranges_are_named() {
    let range = |more: Value| {
        let mut range = json!({ "subnet": "10.1.2.0/24" });
        range.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with_ipam(&json!({ "ranges": [[range]] }))
    };
    all_are_refused(&[
        (
            range(json!({ "rangeStart": "10.1.3.1" })),
            "7 invalid network config: ipam.ranges[0][0].rangeStart=\"10.1.3.1\" is not in subnet 10.1.2.0/24",
        ),
        (
            range(json!({ "rangeEnd": "fd00::1" })),
            "7 invalid network config: ipam.ranges[0][0].rangeEnd=\"fd00::1\" is not in subnet 10.1.2.0/24",
        ),
        (
            range(json!({ "rangeStart": "ten" })),
            "7 invalid network config: ipam.ranges[0][0].rangeStart=\"ten\" is not an IP address",
        ),
        (
            range(json!({ "rangeStart": "10.1.2.9", "rangeEnd": "10.1.2.8" })),
            "7 invalid network config: ipam.ranges[0][0].rangeEnd=\"10.1.2.8\" is before rangeStart 10.1.2.9",
        ),
        (
            range(json!({ "rangeStart": "10.1.2.255" })),
            "7 invalid network config: ipam.ranges[0][0].rangeStart=\"10.1.2.255\" leaves no address to lease",
        ),
        (
            range(json!({ "gateway": "10.1.3.1" })),
            "7 invalid network config: ipam.ranges[0][0].gateway=\"10.1.3.1\" is not in subnet 10.1.2.0/24",
        ),
        (
            range(json!({ "gateway": "fe80::1" })),
            "7 invalid network config: ipam.ranges[0][0].gateway=\"fe80::1\" is not in subnet 10.1.2.0/24",
        ),
        (
            with_ipam(&json!({ "subnet": "fd00::/64", "gateway": "fd01::1" })),
            "7 invalid network config: ipam.gateway=\"fd01::1\" is not in subnet fd00::/64",
        ),
        (with_ipam(&json!({ "subnet": "fd00::/64", "gateway": "fe80::1" })), "accepted"),
        (
            with_ipam(&json!({ "subnet": "10.1.2.7/32", "gateway": "10.1.2.7" })),
            "7 invalid network config: ipam=\"10.1.2.7/32\" leaves no address to lease",
        ),
        (
            with_ipam(&json!({ "podCIDR": "10.1.2.0/30", "exclude": ["10.1.2.2"] })),
            "7 invalid network config: ipam.podCIDR=\"10.1.2.0/30\" leaves no address to lease",
        ),
        (
            with_ipam(&json!({ "podCIDR": "10.1.2.0/24", "exclude": ["10.1.2.8/28"] })),
            "7 invalid network config: ipam.exclude[0]=\"10.1.2.8/28\" has bits set beyond its prefix length; the subnet is 10.1.2.0/28",
        ),
    ]);
}

#[test]
fn ranges_must_not_meet() {
    let cases = [
        (
            json!([[{ "subnet": "10.0.0.0/24" }, { "subnet": "10.0.0.128/25" }]]),
            "7 invalid network config: ipam.ranges[0][1].subnet=\"10.0.0.128/25\" overlaps ipam.ranges[0][0].subnet=\"10.0.0.0/24\"",
        ),
        (
            json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.0.0/16" }]]),
            "7 invalid network config: ipam.ranges[1][0].subnet=\"10.0.0.0/16\" overlaps ipam.ranges[0][0].subnet=\"10.0.0.0/24\"",
        ),
        (
            json!([[{ "subnet": "10.0.0.0/24" }, { "subnet": "fd00::/64" }]]),
            "7 invalid network config: ipam.ranges[0][1].subnet=\"fd00::/64\" is not of the same address family as ipam.ranges[0][0].subnet=\"10.0.0.0/24\"",
        ),
        (
            json!([[{ "subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.99" }, { "subnet": "10.0.0.0/24", "rangeStart": "10.0.0.100" }]]),
            "accepted",
        ),
        (json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.1.0/24" }]]), "accepted"),
    ];
    all_are_refused(&cases.map(|(ranges, expected)| (with_ipam(&json!({ "ranges": ranges })), expected)));
    let pod_cidrs = with_ipam(&json!({ "podCIDR": ["10.0.0.0/24", "10.0.0.0/25"] }));
    let said = "7 invalid network config: ipam.podCIDR[1]=\"10.0.0.0/25\" overlaps ipam.podCIDR[0]=\"10.0.0.0/24\"";
    all_are_refused(&[(pod_cidrs, said)]);
}

#[test]
fn other_keys_are_named_too() {
    let ipam = |more: Value| {
        let mut ipam = json!({ "subnet": "10.1.2.0/24" });
        ipam.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        with_ipam(&ipam)
    };
    all_are_refused(&[
        (
            ipam(json!({ "routes": [{ "dst": "0.0.0.0/0" }, {}] })),
            "7 invalid network config: ipam.routes[1].dst is missing",
        ),
        (
            ipam(json!({ "routes": [{ "dst": "default" }] })),
            "7 invalid network config: ipam.routes[0].dst=\"default\" is not a subnet in CIDR notation, such as 10.244.1.0/24 or fd00:10:244:1::/64",
        ),
        (
            ipam(json!({ "routes": [{ "dst": "::/0", "gw": "10.1.2.1" }] })),
            "7 invalid network config: ipam.routes[0].gw=\"10.1.2.1\" is not of the same address family as dst ::/0",
        ),
        (
            ipam(json!({ "routes": ["::/0"] })),
            "7 invalid network config: ipam.routes[0]=\"::/0\": invalid type: string \"::/0\", expected an object with dst",
        ),
        (
            ipam(json!({ "routes": [{ "dst": "::/0", "gw": "x" }] })),
            "7 invalid network config: ipam.routes[0].gw=\"x\" is not an IP address",
        ),
        (
            ipam(json!({ "dataDir": "ledger" })),
            "7 invalid network config: ipam.dataDir=\"ledger\" is not an absolute path",
        ),
        (
            ipam(json!({ "dataDir": 1 })),
            "7 invalid network config: ipam.dataDir=1: invalid type: integer `1`, expected a string",
        ),
        (
            ipam(json!({ "cooldownSeconds": -1 })),
            "7 invalid network config: ipam.cooldownSeconds=-1: invalid value: integer `-1`, expected u32",
        ),
        (
            ipam(json!({ "resolvConf": "/nowhere/resolv.conf" })),
            "5 cannot read ipam.resolvConf=\"/nowhere/resolv.conf\"",
        ),
        (
            ipam(json!({ "routes": null, "ranges": null, "gateway": null, "dataDir": null, "resolvConf": "" })),
            "accepted",
        ),
    ]);
}

#[test]
fn what_the_runtime_adds_is_named_too() {
    let with_runtime = |runtime: Value| {
        let mut conf = with_ipam(&json!({ "subnet": "10.1.2.0/24" }));
        conf["runtimeConfig"] = runtime;
        conf
    };
    all_are_refused(&[
        (
            with_runtime(json!({ "ips": ["10.1.2.300"] })),
            "7 invalid network config: runtimeConfig.ips[0]=\"10.1.2.300\" is not an IP address",
        ),
        (
            with_runtime(json!({ "ips": ["10.1.2.3/64"] })),
            "7 invalid network config: runtimeConfig.ips[0]=\"10.1.2.3/64\" is not an IP address",
        ),
        (
            with_runtime(json!({ "ipRanges": [[{ "subnet": "10.1.2.0/25" }]] })),
            "7 invalid network config: ipam.subnet=\"10.1.2.0/24\" overlaps runtimeConfig.ipRanges[0][0].subnet=\"10.1.2.0/25\"",
        ),
        (
            with_runtime(json!({ "ipRanges": [[{ "Subnet": "10.3.2.0/25", "RangeStart": "10.3.2.200" }]] })),
            "7 invalid network config: runtimeConfig.ipRanges[0][0].rangeStart=\"10.3.2.200\" is not in subnet 10.3.2.0/25",
        ),
        (
            with_runtime(json!({ "ipRanges": [[{ "subnet": 7 }]] })),
            "7 invalid network config: runtimeConfig.ipRanges[0][0].subnet=7: invalid type: integer `7`, expected a string",
        ),
        (with_runtime(json!({ "ips": null, "ipRanges": null })), "accepted"),
        (
            with_runtime(json!({ "io.kubernetes.cri.pod-annotations": ["podwire/ips"] })),
            "7 invalid network config: runtimeConfig[\"io.kubernetes.cri.pod-annotations\"]=\"[\\\"podwire/ips\\\"]\" is not an object",
        ),
        (with_runtime(json!({ "io.kubernetes.cri.pod-annotations": null })), "accepted"),
    ]);
}

#[test]
fn the_runtime_may_spell_its_ranges_in_any_case() {
    for (key, subnet, start, end, gateway) in [
        ("ipRanges", "subnet", "rangeStart", "rangeEnd", "gateway"),
        ("IPRanges", "Subnet", "RangeStart", "RangeEnd", "Gateway"),
        ("IPranges", "SUBNET", "RANGESTART", "RANGEEND", "GATEWAY"),
        ("IPRANGES", "sUBNET", "rangestart", "Rangeend", "gateWay"),
    ] {
        let place = Place::new();
        let mut conf = place.json("n", &json!({}));
        let range = json!({ subnet: "10.3.2.0/24", start: "10.3.2.20", end: "10.3.2.20", gateway: "10.3.2.9" });
        conf["runtimeConfig"] = json!({ key: [[range]] });
        let ipam = Ipam::from_config(&net_conf(&conf)).unwrap_or_else(|error| panic!("{key}: {error}"));
        let lease = ipam.lease(&place.request("n", "c1")).unwrap();
        assert_eq!(ips(&lease), ["10.3.2.20"], "{key}");
        assert_eq!(lease.addresses[0].gateway.unwrap().to_string(), "10.3.2.9", "{key}");
        assert_eq!(ipam.lease(&place.request("n", "c2")).unwrap_err().code(), ipam::code::EXHAUSTED, "{key}");
    }
}

#[test]
fn old_results_carry_one_address_of_each_family() {
    let conf = |version: &str, ranges: Value| json!({ "cniVersion": version, "name": "n", "type": "podwire", "ipam": { "ranges": ranges } });
    let both = json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "fd00::/64" }]]);
    let twice = json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.1.0/24" }]]);
    let said = "7 invalid network config: ipam asks for several addresses of one family, which results of CNI spec 0.2.0 cannot carry";
    all_are_refused(&[
        (conf("0.2.0", both), "accepted"),
        (conf("0.2.0", twice.clone()), said),
        (conf("0.3.0", twice), "accepted"),
    ]);
}

#[test]
fn addresses_that_are_asked_for_must_be_leasable() {
    let place = Place::new();
    let cases = [
        (json!(["10.1.2.9/24"]), "10.1.2.9"),
        (json!(["10.1.2.1"]), "102 address 10.1.2.1 was asked for, but is the gateway of 10.1.2.0/24"),
        (json!(["10.1.2.70"]), "102 address 10.1.2.70 was asked for, but is excluded from its pool"),
        (json!(["10.9.9.9"]), "102 address 10.9.9.9 was asked for, but is not in 10.1.2.0/24"),
        (json!(["fd00::7"]), "102 address fd00::7 was asked for, but the network has no IPv6 pool"),
        (
            json!(["10.1.2.5", "10.1.2.6"]),
            "7 invalid network config: requested address=\"10.1.2.5, 10.1.2.6\" asks for a second address of pool 10.1.2.0/24, which gives one",
        ),
    ];
    for (wanted, expected) in cases {
        let mut conf = place.json("n", &json!({ "subnet": "10.1.2.0/24", "exclude": ["10.1.2.64/27"] }));
        conf["runtimeConfig"] = json!({ "ips": wanted });
        let said = match Ipam::from_config(&net_conf(&conf)).unwrap().lease(&place.request("n", "c1")) {
            Ok(lease) => ips(&lease).join(" "),
            Err(error) => {
                let error = CniError::from(error);
                format!("{} {}", error.code.number(), error.msg)
            }
        };
        assert_eq!(said, expected, "{wanted}");
    }
}
