//! The command `ipam`.

use std::process::Stdio;

use serde_json::{Value, json};

pub mod documents;
mod gone;
mod help;
mod history;
mod map;
mod mend;
mod nothing;
mod overlap;
mod reserve;
mod status;
mod transfer;
pub mod verify;

use crate::support::Place;

/// What the command printed, and its exit code.
#[derive(Debug)]
pub struct Printed {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the command without a terminal.
pub fn ipam(arguments: &[&str]) -> Printed {
    let mut process = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
    let output = process.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Printed { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

impl Place {
    /// Runs the command on this place's ledger, which may not be there yet, where no runtime and no network config is.
    pub fn cli(&self, arguments: &[&str]) -> Printed {
        let (dir, nothing) = (self.data_dir(), self.data_dir().with_file_name("nothing"));
        let mut all = arguments.to_vec();
        all.extend(["--dir", dir.to_str().unwrap(), "--timeout", "60"]);
        if ["reserve", "import"].contains(&arguments[0]) {
            all.push("--create");
        }
        if !arguments.contains(&"--conf-dir") {
            all.extend(["--conf-dir", nothing.to_str().unwrap()]);
        }
        ipam(&all)
    }

    /// The document that the command prints, which must fit its schema.
    pub fn document(&self, arguments: &[&str]) -> Value {
        let all: Vec<&str> = arguments.iter().copied().chain(["-o", "json"]).collect();
        let printed = self.cli(&all);
        let document: Value = serde_json::from_str(&printed.stdout).unwrap_or_else(|_| panic!("{printed:?}"));
        documents::assert_fits(&document);
        document
    }
}

/// Three pods in two networks. What is released rests for longer than any test takes.
pub fn populated() -> Place {
    let place = Place::new();
    let red = json!({ "podCIDR": ["10.1.2.0/24", "fd00::/64"], "cooldownSeconds": 3600 });
    for (network, conf, container, args) in [
        ("red", &red, "0a1b2c3d4e5f60718293", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=u-1"),
        ("red", &red, "1b2c3d4e", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=mail"),
        ("blue", &json!({ "podCIDR": "10.9.0.0/24" }), "plain", ""),
    ] {
        let mut request = place.request(network, container);
        request.args = args.parse().unwrap();
        place.ipam(network, conf).lease(&request).unwrap();
    }
    place
}

/// A table without its last column, which is an age.
fn without_age(table: &str) -> Vec<String> {
    table.lines().map(|line| line.rsplit_once("  ").unwrap().0.trim_end().to_owned()).collect()
}

#[test]
fn list_prints_a_line_for_each_address() {
    let place = populated();
    let listed = place.cli(&["list"]);
    assert_eq!((listed.code, listed.stderr.as_str()), (0, ""));
    let expected = [
        "ADDRESS   POD        CONTAINER     IF    NETWORK",
        "10.1.2.2  shop/cart  0a1b2c3d4e5f  eth0  red",
        "10.1.2.3  shop/mail  1b2c3d4e      eth0  red",
        "10.9.0.2  -          plain         eth0  blue",
        "fd00::2   shop/cart  0a1b2c3d4e5f  eth0  red",
        "fd00::3   shop/mail  1b2c3d4e      eth0  red",
    ];
    assert_eq!(without_age(&listed.stdout), expected);
    assert!(listed.stdout.starts_with("ADDRESS   POD        CONTAINER     IF    NETWORK  AGE\n"));
    assert_eq!(without_age(&place.cli(&["ls", "--no-headers"]).stdout), expected[1..]);
    let wide = place.cli(&["list", "-o", "wide"]).stdout;
    let header =
        "ADDRESS      STATE   POD        CONTAINER             IF    NETWORK  AGE  UNTIL  GATEWAY   ORIGIN  LEASE";
    assert!(wide.starts_with(header), "{wide}");
    assert!(wide.contains("\n10.1.2.2/24  active  shop/cart  0a1b2c3d4e5f60718293  eth0  red "), "{wide}");
    assert_eq!(
        place.cli(&["list", "--columns", "network,address", "--no-headers", "-n", "blue"]).stdout,
        "blue  10.9.0.2\n"
    );
    let refused = place.cli(&["list", "--columns", "colour"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("there is no column \"colour\"; there are address, state, pod"), "{refused:?}");
}

#[test]
fn list_narrows_down() {
    let place = populated();
    for (arguments, expected) in [
        (vec!["-n", "blue"], "10.9.0.2\n"),
        (vec!["-6"], "fd00::2\nfd00::3\n"),
        (vec!["-4", "--namespace", "shop"], "10.1.2.2\n10.1.2.3\n"),
        (vec!["--pod", "shop/mail"], "10.1.2.3\nfd00::3\n"),
        (vec!["--pod", "mail", "-4"], "10.1.2.3\n"),
        (vec!["--container", "0a1b"], "10.1.2.2\nfd00::2\n"),
        (vec!["--cidr", "10.1.2.2/31"], "10.1.2.2\n10.1.2.3\n"),
        (vec!["--state", "reserved"], ""),
    ] {
        let arguments: Vec<&str> = ["list", "-q"].into_iter().chain(arguments).collect();
        let listed = place.cli(&arguments);
        assert_eq!((listed.code, listed.stdout.as_str(), listed.stderr.as_str()), (0, expected, ""), "{arguments:?}");
    }
}

#[test]
fn json_and_yaml_carry_the_records() {
    let place = populated();
    let listed = place.document(&["list"]);
    assert_eq!((&listed["apiVersion"], &listed["kind"]), (&json!("ipam.podwire/v1"), &json!("LeaseList")));
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    let cart = &listed["items"][1];
    assert_eq!(
        cart["attachment"],
        json!({ "network": "red", "containerId": "0a1b2c3d4e5f60718293", "ifname": "eth0" })
    );
    assert_eq!(cart["pod"], json!({ "namespace": "shop", "name": "cart", "uid": "u-1" }));
    assert_eq!(cart["addresses"][1]["address"], "fd00::2/64");
    assert_eq!(cart["state"], "active");
    let lines = place.cli(&["list", "-o", "jsonl"]).stdout;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), listed["items"]);
    let shown = place.document(&["show", "fd00::2"]);
    let mut lease = cart.clone();
    lease.as_object_mut().unwrap().remove("state");
    assert_eq!(shown["items"][0]["lease"], lease);
    assert_eq!(shown["items"][0]["linkExists"], false);
    let yaml = place.cli(&["list", "-o", "yaml", "-n", "blue"]).stdout;
    assert!(yaml.starts_with("apiVersion: ipam.podwire/v1\nkind: LeaseList\nitems:\n"), "{yaml}");
    assert!(yaml.contains("containerId: plain\n"), "{yaml}");
}

#[test]
fn show_finds_by_address_pod_and_container() {
    let place = populated();
    for word in ["10.1.2.2", "fd00:0::2", "cart", "shop/cart", "0a1b2c", "0a1b2c3d4e5f60718293"] {
        let shown = place.cli(&["show", word]);
        assert_eq!((shown.code, shown.stderr.as_str()), (0, ""), "{word}");
        let expected = "Address:   10.1.2.2/24 via 10.1.2.1\nAddress:   fd00::2/64 via fd00::1\n\
                        Pod:       shop/cart (uid u-1)\nContainer: 0a1b2c3d4e5f60718293\n\
                        Interface: eth0 (no host link)\nNetwork:   red\nNamespace: ";
        assert!(shown.stdout.starts_with(expected), "{word}: {}", shown.stdout);
    }
    let missing = place.cli(&["show", "10.1.2.99"]);
    let text = format!(
        "ipam: no lease for \"10.1.2.99\" in {}; see what there is with: ipam list\n",
        place.data_dir().display()
    );
    assert_eq!((missing.code, missing.stdout.as_str(), missing.stderr), (3, "", text));
}

#[test]
fn release_asks_and_ends_leases_of_the_dead() {
    // Who is not the machine's root may not look into its processes, and takes nobody for gone: see `liveness`.
    sandbox::private_host(|| {
        let place = populated();
        let alive = place.cli(&["release", "--pod", "shop/cart", "--yes"]);
        assert_eq!(alive.code, 7);
        assert!(alive.stderr.contains("its network namespace is there"), "{alive:?}");
        for command in ["release", "history"] {
            let pod = place.cli(&[command, "shop/cart"]);
            assert_eq!((pod.code, pod.stderr.contains("is no IP address") && pod.stderr.contains("--pod")), (2, true));
        }
        std::fs::remove_file(place.netns("0a1b2c3d4e5f60718293")).unwrap();
        let what = "10.1.2.2 and fd00::2 of pod shop/cart, container 0a1b2c3d4e5f60718293, interface eth0, network red";
        let dry = place.cli(&["release", "10.1.2.2", "--dry-run"]);
        assert_eq!((dry.code, dry.stdout), (0, format!("would release {what}\n")), "{}", dry.stderr);
        let unasked = place.cli(&["release", "10.1.2.2"]);
        assert_eq!(unasked.code, 7);
        assert!(unasked.stderr.contains("add --yes"), "{unasked:?}");
        assert_eq!(place.leases().len(), 3);
        let released = place.cli(&["release", "--container", "0a1b", "--yes"]);
        assert_eq!((released.code, released.stdout), (0, format!("released {what}\n")));
        assert_eq!(place.leases().len(), 2);
        assert_eq!(place.cli(&["release", "10.1.2.2", "--yes"]).code, 3);
    });
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let place = populated();
    let mut process = sandbox::command(env!("CARGO_BIN_EXE_ipam"));
    process.args(["list", "--dir"]).arg(place.data_dir());
    let mut child = process.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_pod_cannot_command_the_terminal() {
    sandbox::private_host(|| {
        let place = Place::new();
        let mut request = place.request("red", "c1");
        request.args = "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=\u{1b}[2J\u{7}evil\nline".parse().unwrap();
        place.ipam("red", &json!({ "podCIDR": "10.1.2.0/24" })).lease(&request).unwrap();
        for arguments in [
            vec!["list"],
            vec!["list", "-o", "wide"],
            vec!["show", "10.1.2.2"],
            vec!["history"],
            vec!["watch", "--all", "--for", "0s"],
            vec!["verify"],
            vec!["release", "10.1.2.2", "--dry-run", "--force"],
            vec!["map", "-o", "svg"],
        ] {
            let printed = place.cli(&arguments);
            let text = format!("{}{}", printed.stdout, printed.stderr);
            let obeyed = text.chars().any(|it| it.is_control() && it != '\n');
            assert!(!obeyed && !text.contains("\nline"), "{arguments:?}: {text:?}");
        }
        assert_eq!(place.document(&["list"])["items"][0]["pod"]["name"], "\u{1b}[2J\u{7}evil\nline");
    });
}

#[test]
fn an_empty_list_tells_of_ledgers_elsewhere() {
    sandbox::private_host(|| {
        let place = populated();
        let conf_dir = place.data_dir().with_file_name("net.d");
        std::fs::create_dir_all(&conf_dir).unwrap();
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/24" }));
        std::fs::write(conf_dir.join("10-red.conf"), conf.to_string()).unwrap();
        let listed = ipam(&["list", "--conf-dir", conf_dir.to_str().unwrap()]);
        assert_eq!(listed.code, 0);
        assert!(listed.stderr.contains(&format!("ipam list --dir {}", place.data_dir().display())), "{listed:?}");
    });
}
