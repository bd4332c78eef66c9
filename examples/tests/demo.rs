//! The whole demo with the real executables, and what it says when one thing at a time is broken.

#![cfg(test)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cni_spec::Environment;
use podwire_examples::conflist::Conflist;
use podwire_examples::demo::{Demo, Settings};
use podwire_examples::manifest;
use podwire_examples::proof::Outcome;
use podwire_examples::swap::{Reference, swap_all};

/// The folder with this project's executables, and the reference plugins behind it.
fn plugin_path() -> Vec<PathBuf> {
    let environment = Environment::of_process();
    let Some(folder) = environment.get("PODWIRE_BIN_DIR") else {
        panic!("PODWIRE_BIN_DIR must name the folder with the executables: run `cargo xtask test`");
    };
    vec![folder.into(), "/usr/lib/cni".into()]
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The demo with its pods attached.
fn demo(conflist: &str, pods: &str, swap: &[Reference]) -> Demo {
    let list = Conflist::read(&folder("conflists").join(conflist)).unwrap();
    demo_of(swap_all(list, swap.to_vec()), pods)
}

fn demo_of(list: Conflist, pods: &str) -> Demo {
    let settings = Settings {
        list,
        pods: manifest::read_folder(&folder(pods)).unwrap(),
        plugin_path: plugin_path(),
        environment: Environment::of_process(),
    };
    let mut demo = Demo::set_up(settings).unwrap();
    demo.attach().unwrap();
    demo
}

/// Attaches, proves, detaches; every line must be ok. Returns the lines' ids.
fn play(conflist: &str, pods: &str, swap: &[Reference]) -> BTreeSet<String> {
    let mut demo = demo(conflist, pods, swap);
    let mut outcomes = demo.verbs();
    outcomes.extend(demo.prove().unwrap());
    outcomes.extend(demo.leases().unwrap().map(|(_, outcome)| outcome));
    outcomes.extend(end(&mut demo));
    all_ok(&outcomes);
    outcomes.into_iter().map(|outcome| outcome.id).collect()
}

fn end(demo: &mut Demo) -> Vec<Outcome> {
    let (_, again) = demo.detach().unwrap();
    let gone = demo.leases().unwrap().map(|(_, outcome)| outcome);
    let (residue, outcome) = demo.residue().unwrap();
    assert_eq!(residue.left, Vec::<String>::new());
    [Some(again), gone, Some(outcome)].into_iter().flatten().collect()
}

fn all_ok(outcomes: &[Outcome]) {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// The ids of every line that the shipped pods allow in both families.
const BOTH: [&str; 13] = [
    "pod-pod-tcp",
    "pod-node-tcp",
    "node-pod-tcp",
    "client-hostport-tcp",
    "client-source-tcp",
    "pod-hostport-tcp",
    "hairpin-tcp",
    "node-hostport-tcp",
    "client-hostport-udp",
    "client-source-udp",
    "pod-outside-tcp",
    "unmapped-port-tcp",
    "client-pod-tcp",
];

fn ids(families: &[u8], others: &[&str]) -> BTreeSet<String> {
    let packets = BOTH.iter().flat_map(|name| families.iter().map(move |family| format!("{name}{family}")));
    let others = others.iter().map(|id| (*id).to_owned());
    let always = ["cni-check", "cni-del-again", "leases", "leases-gone", "residue"].map(str::to_owned);
    packets.chain(others).chain(always).collect()
}

const V4_ONLY: [&str; 3] = ["localhost-hostport-tcp4", "hostip-reached-tcp4", "hostip-only-tcp4"];

#[test]
fn the_shipped_chain_passes_every_line() {
    sandbox::private_host(|| assert_eq!(play("10-podwire.conflist", "pods", &[]), ids(&[4, 6], &V4_ONLY)));
}

#[test]
fn status_and_gc_are_asked_from_1_1_0_on() {
    sandbox::private_host(|| {
        let others = [&V4_ONLY[..], &["cni-status", "cni-gc"]].concat();
        assert_eq!(play("cni-1.1.0/10-podwire.conflist", "pods", &[]), ids(&[4, 6], &others));
    });
}

#[test]
fn an_ipv4_node_passes_every_line_of_its_family() {
    sandbox::private_host(|| assert_eq!(play("10-podwire-ipv4.conflist", "pods", &[]), ids(&[4], &V4_ONLY)));
}

#[test]
fn an_ipv6_node_passes_every_line_of_its_family() {
    sandbox::private_host(|| {
        let others = ["hostip-reached-tcp6", "hostip-only-tcp6"];
        assert_eq!(play("10-podwire-ipv6.conflist", "pods-ipv6", &[]), ids(&[6], &others));
    });
}

/// As on a node without nf_tables, or whose administrator wants it so: what each plugin's CHECK finds are its own rules, though
/// those of both name the same owner in the same table.
fn both_by_iptables() {
    let mut list = Conflist::read(&folder("conflists").join("10-podwire.conflist")).unwrap();
    for (plugin, key) in list.plugins.iter_mut().zip(["ipMasqBackend", "backend"]) {
        plugin.json.insert(key.to_owned(), "iptables".into());
    }
    let mut demo = demo_of(list, "pods");
    let verbs = demo.verbs();
    assert!(verbs.iter().any(|outcome| outcome.id == "cni-check"), "{verbs:#?}");
    all_ok(&verbs);
    all_ok(&demo.prove().unwrap());
    demo.detach().unwrap();
    // Tables that iptables makes when it is first asked stay, and the lock.
    let left = demo.residue().unwrap().0.left;
    let ours = left.iter().filter(|line| line.to_lowercase().contains("podwire") && !line.ends_with("iptables.lock"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn iptables_masquerades_and_maps_ports_in_one_table() {
    sandbox::private_host(|| {
        both_by_iptables();
    });
}

#[test]
fn iptables_legacy_masquerades_and_maps_ports_in_one_table() {
    sandbox::private_host(|| {
        run("mount", &["-t", "tmpfs", "none", "/usr/local/sbin"]);
        for name in ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"] {
            std::os::unix::fs::symlink("/usr/sbin/xtables-legacy-multi", format!("/usr/local/sbin/{name}")).unwrap();
        }
        both_by_iptables();
    });
}

#[test]
fn a_ledger_elsewhere_is_found_and_left_without_leases() {
    sandbox::private_host(|| {
        let mut list = Conflist::read(&folder("conflists").join("10-podwire.conflist")).unwrap();
        list.plugins[0].json["ipam"]["dataDir"] = "/run/elsewhere/ledger".into();
        let mut demo = demo_of(list, "pods");
        let (leases, outcome) = demo.leases().unwrap().unwrap();
        assert_eq!(leases.source, "ipam list --network podnet --dir /run/elsewhere/ledger");
        all_ok(&[outcome]);
        all_ok(&end(&mut demo));
    });
}

#[test]
fn the_reference_ptp_plays_podwire() {
    sandbox::private_host(|| {
        assert_eq!(play("10-podwire.conflist", "pods", &[Reference::Ptp]), ids(&[4, 6], &V4_ONLY));
    });
}

/// It answers before the kernel has looked for duplicates of the node's ends.
#[test]
fn pods_of_the_reference_ptp_are_attached_once_the_nodes_addresses_are_in_force() {
    sandbox::private_host(|| {
        let _demo = demo("10-podwire.conflist", "pods", &[Reference::Ptp]);
        assert_eq!(run("ip", &["-6", "-o", "address", "show", "tentative"]), "");
    });
}

#[test]
fn the_reference_host_local_plays_podwire_ipam() {
    sandbox::private_host(|| {
        assert_eq!(play("10-podwire.conflist", "pods", &[Reference::HostLocal]), ids(&[4, 6], &V4_ONLY));
    });
}

#[test]
fn the_reference_portmap_plays_podwire_portmap() {
    sandbox::private_host(|| {
        assert_eq!(play("10-podwire.conflist", "pods", &[Reference::Portmap]), ids(&[4, 6], &V4_ONLY));
    });
}

#[test]
fn the_reference_plugins_play_all_three() {
    sandbox::private_host(|| {
        let all = [Reference::Ptp, Reference::HostLocal, Reference::Portmap];
        assert_eq!(play("10-podwire.conflist", "pods", &all), ids(&[4, 6], &V4_ONLY));
    });
}

/// One thing that is broken, and the lines that must tell.
struct Sabotage {
    /// As the lines name it.
    need: &'static str,
    object: Object,
    fails: &'static [&'static str],
}

enum Object {
    /// Family, table, set and the element's key, as nft(8) prints them.
    Element(&'static str, &'static str, &'static str, &'static str),
    /// ip(8)'s family option and the destination.
    Route(&'static str, &'static str),
}

const SABOTAGES: [Sabotage; 9] = [
    Sabotage {
        need: "host port 8080/tcp of nginx IPv4",
        object: Object::Element("ip", "podwire-hostport", "exact", "192.168.50.3 . tcp . 8080"),
        fails: &["hostip-reached-tcp4"],
    },
    Sabotage {
        need: "host port 8086/tcp of influxdb IPv4",
        object: Object::Element("ip", "podwire-hostport", "wildcard", "tcp . 8086"),
        fails: &[
            "client-hostport-tcp4",
            "client-source-tcp4",
            "pod-hostport-tcp4",
            "hairpin-tcp4",
            "node-hostport-tcp4",
            "localhost-hostport-tcp4",
        ],
    },
    Sabotage {
        need: "host port 5353/udp of dns IPv6",
        object: Object::Element("ip6", "podwire-hostport", "wildcard", "udp . 5353"),
        fails: &["client-hostport-udp6", "client-source-udp6"],
    },
    Sabotage {
        need: "host route to influxdb IPv4",
        object: Object::Route("-4", "10.244.1.3"),
        fails: &[
            "pod-pod-tcp4",
            "node-pod-tcp4",
            "client-hostport-tcp4",
            "client-source-tcp4",
            "pod-hostport-tcp4",
            "hairpin-tcp4",
            "node-hostport-tcp4",
            "localhost-hostport-tcp4",
        ],
    },
    Sabotage {
        need: "host route to toolbox IPv6",
        object: Object::Route("-6", "fd00:10:244:1::5"),
        fails: &["pod-pod-tcp6", "pod-node-tcp6", "pod-hostport-tcp6", "pod-outside-tcp6"],
    },
    Sabotage {
        need: "masquerade of toolbox IPv4",
        object: Object::Element("ip", "podwire-masq-podnet", "pods", "10.244.1.5"),
        fails: &["pod-outside-tcp4"],
    },
    Sabotage {
        need: "masquerade of toolbox IPv6",
        object: Object::Element("ip6", "podwire-masq-podnet", "pods", "fd00:10:244:1::5"),
        fails: &["pod-outside-tcp6"],
    },
    Sabotage {
        need: "hairpin of influxdb IPv4",
        object: Object::Element("ip", "podwire-hostport", "hairpin", "10.244.1.3 . 10.244.1.3"),
        fails: &["hairpin-tcp4", "localhost-hostport-tcp4"],
    },
    Sabotage {
        need: "hairpin of influxdb IPv6",
        object: Object::Element("ip6", "podwire-hostport", "hairpin", "fd00:10:244:1::3 . fd00:10:244:1::3"),
        fails: &["hairpin-tcp6"],
    },
];

impl Object {
    /// What it looks like now, so that it can be put back as it was, comment and all.
    fn read(&self) -> String {
        match self {
            Self::Element(family, table, set, key) => {
                let kind = if matches!(*set, "exact" | "wildcard") { "map" } else { "set" };
                let text = run("nft", &["list", kind, family, table, set]);
                let elements = text.split_once("elements = {").unwrap().1.split_once('}').unwrap().0.to_owned();
                let mut elements = elements.split(',').map(str::trim);
                let is_wanted =
                    |element: &&str| element.strip_prefix(key).is_some_and(|rest| !rest.starts_with(|c| c != ' '));
                elements.find(is_wanted).unwrap_or_else(|| panic!("no {key} in {text}")).to_owned()
            }
            Self::Route(family, to) => run("ip", &[family, "route", "show", to]).trim().to_owned(),
        }
    }

    fn remove(&self) {
        match self {
            Self::Element(family, table, set, key) => {
                run("nft", &["delete", "element", family, table, set, "{", key, "}"]);
            }
            Self::Route(family, to) => {
                run("ip", &[family, "route", "delete", to]);
            }
        }
    }

    fn put_back(&self, text: &str) {
        match self {
            Self::Element(family, table, set, _) => {
                run("nft", &["add", "element", family, table, set, "{", text, "}"]);
            }
            Self::Route(family, _) => {
                let words: Vec<&str> = text.split_whitespace().collect();
                run("ip", &[&[*family, "route", "add"], words.as_slice()].concat());
            }
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = sandbox::command(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the README's table says about these lines, both families in one row.
fn table(outcomes: &[Outcome]) -> BTreeSet<(String, String)> {
    let row = |outcome: &Outcome| {
        let needs =
            outcome.needs.iter().map(|need| need.trim_end_matches(" IPv4").trim_end_matches(" IPv6").to_owned());
        (outcome.id.trim_end_matches(['4', '6']).to_owned(), needs.collect::<Vec<_>>().join(", "))
    };
    outcomes.iter().map(row).collect()
}

#[test]
fn the_readme_names_every_line_and_what_it_stands_on() {
    sandbox::private_host(|| {
        let readme = include_str!("../README.md");
        let rows = readme.lines().filter_map(|line| line.strip_prefix("| `")?.strip_suffix('|')?.split_once("` |"));
        let packets = rows.filter_map(|(id, rest)| Some((id, rest.rsplit_once('|')?.1)));
        let written: BTreeSet<(String, String)> = packets
            .map(|(id, needs)| (id.to_owned(), needs.trim().to_owned()))
            .filter(|(id, _)| id.ends_with("-tcp") || id.ends_with("-udp"))
            .collect();
        let demo = demo("10-podwire.conflist", "pods", &[]);
        assert_eq!(written, table(&demo.prove().unwrap()));
    });
}

#[test]
fn lists_of_both_versions_are_the_same_but_for_the_version() {
    let folder = folder("conflists");
    for name in
        ["10-podwire.conflist", "10-podwire-ipv4.conflist", "10-podwire-ipv6.conflist", "20-podwire-layer2.conflist"]
    {
        let mut old = Conflist::read(&folder.join(name)).unwrap();
        let new = Conflist::read(&folder.join("cni-1.1.0").join(name)).unwrap();
        assert_eq!((old.version.as_str(), new.version.as_str()), ("1.0.0", "1.1.0"));
        old.version = new.version;
        old.json["cniVersion"] = new.json["cniVersion"].clone();
        assert_eq!(old, new);
    }
}

#[test]
fn exactly_the_lines_that_stand_on_it_fail_when_a_thing_is_broken() {
    sandbox::private_host(|| {
        let mut demo = demo("10-podwire.conflist", "pods", &[]);
        let whole = demo.prove().unwrap();
        all_ok(&whole);
        let mut wrong = Vec::new();
        for Sabotage { need, object, fails } in &SABOTAGES {
            let documented: Vec<&str> = whole
                .iter()
                .filter(|outcome| outcome.needs.iter().any(|named| named == need))
                .map(|outcome| outcome.id.as_str())
                .collect();
            let before = object.read();
            object.remove();
            let failed = demo.prove().unwrap().into_iter().filter(|outcome| !outcome.passed).map(|outcome| outcome.id);
            let failed: BTreeSet<String> = failed.collect();
            object.put_back(&before);
            assert_eq!(object.read(), before, "{need}");
            if failed != set(fails) {
                wrong.push(format!("without {need} failed {failed:?}, not {fails:?}"));
            }
            if set(&documented) != set(fails) {
                wrong.push(format!("on {need} stand by their own words {documented:?}, not {fails:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        all_ok(&demo.prove().unwrap());
        all_ok(&end(&mut demo));
    });
}

#[test]
fn three_nodes_reach_each_others_pods() {
    sandbox::private_host(|| {
        let settings = podwire_examples::cluster::Settings {
            nodes: 3,
            list: Conflist::read(&folder("conflists").join("10-podwire.conflist")).unwrap(),
            plugin_path: plugin_path(),
            environment: Environment::of_process(),
        };
        let mut cluster = podwire_examples::cluster::Cluster::build(&settings).unwrap();
        cluster.attach().unwrap();
        let mut outcomes = cluster.prove().unwrap();
        outcomes.extend(cluster.detach().unwrap());
        all_ok(&outcomes);
        let ids: BTreeSet<String> = outcomes.into_iter().map(|outcome| outcome.id).collect();
        for line in [
            "node1-node2-pod-pod-tcp4",
            "node3-node1-pod-pod-mtu-udp6",
            "node2-node3-pod-hostport-tcp6",
            "node3-residue",
        ] {
            assert!(ids.contains(line), "{ids:?}");
        }
        assert_eq!(ids.len(), 3 + 3 * 10 + 3, "{ids:?}");
    });
}
