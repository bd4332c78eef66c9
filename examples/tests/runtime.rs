//! The runtime's behaviour towards plugins, told by a plugin that writes down what it gets.

#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use cni_spec::{Environment, ValidAttachment};
use podwire_examples::conflist::Conflist;
use podwire_examples::runtime::{Container, Runtime};
use serde_json::{Value, json};

/// A runtime whose plugin folder holds the recording plugin under several names.
struct Bench {
    folder: tempfile::TempDir,
    runtime: Runtime,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let plugins = folder.path().join("bin");
        fs::create_dir(&plugins).unwrap();
        for name in ["first", "second", "third"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_podwire-record"), plugins.join(name)).unwrap();
        }
        let environment = Environment::default();
        let runtime = Runtime::new(vec![plugins], folder.path().join("cache"), environment);
        Self { folder, runtime }
    }

    /// A list of plugins, each an object without `type` and `recordTo`.
    fn list(&self, version: &str, plugins: &[(&str, Value)]) -> Conflist {
        let plugin = |(name, keys): &(&str, Value)| {
            let mut json = keys.clone();
            json["type"] = json!(name);
            json["recordTo"] = json!(self.record());
            json
        };
        let plugins: Vec<Value> = plugins.iter().map(plugin).collect();
        let text = json!({ "cniVersion": version, "name": "podnet", "plugins": plugins }).to_string();
        Conflist::parse(Path::new("test.conflist"), text.as_bytes()).unwrap()
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("record.jsonl")
    }

    /// What was recorded since the last call, without the paths of this run.
    fn recorded(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.record()).unwrap_or_default();
        let _ = fs::remove_file(self.record());
        let text = text.replace(self.folder.path().to_str().unwrap(), "TMP");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// `VERB type` of each call.
    fn calls(&self) -> Vec<String> {
        let call = |entry: &Value| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            format!("{} {}", text(&entry["environment"]["CNI_COMMAND"]), text(&entry["stdin"]["type"]))
        };
        self.recorded().iter().map(call).collect()
    }

    fn cached(&self) -> bool {
        self.folder.path().join("cache/results/podnet-c1-eth0").exists()
    }
}

fn container(id: &str) -> Container {
    let mappings = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "" }]);
    Container {
        id: id.parse().unwrap(),
        netns: "/run/netns/cni-1".into(),
        ifname: "eth0".parse().unwrap(),
        args: vec![("IgnoreUnknown".to_owned(), "1".to_owned()), ("K8S_POD_NAME".to_owned(), "web".to_owned())],
        capability_args: BTreeMap::from([
            ("portMappings".to_owned(), mappings),
            ("ips".to_owned(), json!(["10.0.0.9"])),
        ]),
    }
}

/// An answer in the shape of 0.4.0 and of 1.x alike, as far as those go.
fn answer(address: &str) -> Value {
    json!({ "answer": { "interfaces": [{ "name": "eth0", "sandbox": "/run/netns/cni-1" }],
                        "ips": [{ "version": "4", "address": address, "interface": 0 }] } })
}

fn chain(bench: &Bench, version: &str) -> Conflist {
    let mut first = answer("10.0.0.5/32");
    first["capabilities"] = json!({ "ips": false });
    let second = json!({ "capabilities": { "portMappings": true, "bandwidth": true } });
    bench.list(version, &[("first", first), ("second", second)])
}

/// Compares with `tests/golden/NAME`, or writes it if UPDATE_GOLDEN is set.
fn golden(name: &str, actual: &[Value]) -> Result<(), String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let actual = format!("{}\n", serde_json::to_string_pretty(actual).unwrap());
    if Environment::of_process().get("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &actual).unwrap();
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == actual { Ok(()) } else { Err(format!("{name}: expected\n{expected}\nbut got\n{actual}")) }
}

#[test]
fn every_verb_sends_what_libcni_sends() {
    let mut wrong = Vec::new();
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let bench = Bench::new();
        let list = chain(&bench, version);
        let mut check =
            |verb: &str| wrong.extend(golden(&format!("runtime/{version}/{verb}.json"), &bench.recorded()).err());
        bench.runtime.status(&list).unwrap();
        check("status");
        bench.runtime.add(&list, &container("c1")).unwrap();
        check("add");
        let checked = bench.runtime.check(&list, &container("c1"));
        assert_eq!(checked.is_ok(), version != "0.3.1", "{checked:?}");
        check("check");
        let valid = ValidAttachment { container_id: "c1".parse().unwrap(), ifname: "eth0".parse().unwrap() };
        bench.runtime.gc(&list, &[valid]).unwrap();
        check("gc");
        bench.runtime.del(&list, &container("c1")).unwrap();
        check("del");
        assert!(!bench.folder.path().join("cache").exists(), "the cache's folders stay behind");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_failed_add_stops_the_chain_and_is_followed_by_a_whole_del_without_a_result() {
    let bench = Bench::new();
    let plugins = [("first", answer("10.0.0.5/32")), ("second", json!({ "failOn": ["ADD"] })), ("third", json!({}))];
    let list = bench.list("1.0.0", &plugins);
    let error = bench.runtime.attach(&list, &container("c1")).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(error.to_string(), "ADD of second");
    assert!(source.contains("failOn") && source.contains("code 100"), "{source}");
    let recorded = bench.recorded();
    let call =
        |entry: &Value| format!("{} {}", entry["environment"]["CNI_COMMAND"], entry["stdin"]["type"]).replace('"', "");
    assert_eq!(
        recorded.iter().map(call).collect::<Vec<_>>(),
        ["ADD first", "ADD second", "DEL third", "DEL second", "DEL first"]
    );
    assert!(recorded[2..].iter().all(|entry| entry["stdin"].get("prevResult").is_none()), "{recorded:#?}");
    assert!(!bench.cached());
}

#[test]
fn a_failed_del_stops_the_chain_and_keeps_the_result_for_the_next_try() {
    let bench = Bench::new();
    let plugins =
        |fail: Value| [("first", answer("10.0.0.5/32")), ("second", json!({ "failOn": fail })), ("third", json!({}))];
    let failing = bench.list("1.0.0", &plugins(json!(["DEL"])));
    bench.runtime.add(&failing, &container("c1")).unwrap();
    bench.recorded();
    assert_eq!(bench.runtime.del(&failing, &container("c1")).unwrap_err().to_string(), "DEL of second");
    assert_eq!(bench.calls(), ["DEL third", "DEL second"]);
    assert!(bench.cached());
    bench.runtime.del(&bench.list("1.0.0", &plugins(json!([]))), &container("c1")).unwrap();
    assert_eq!(bench.calls(), ["DEL third", "DEL second", "DEL first"]);
    assert!(!bench.cached());
}

#[test]
fn both_failures_are_told_when_add_and_the_del_after_it_fail() {
    let bench = Bench::new();
    let list = bench.list("1.0.0", &[("first", json!({ "failOn": ["ADD", "DEL"] }))]);
    let error = bench.runtime.attach(&list, &container("c1")).unwrap_err().to_string();
    assert!(error.starts_with("ADD of first: ") && error.contains("; the DEL after it: DEL of first: "), "{error}");
}

#[test]
fn gc_ends_what_is_kept_but_no_longer_valid_and_goes_on_after_a_failure() {
    let bench = Bench::new();
    let plugins = |fail: Value| [("first", json!({ "failOn": fail })), ("second", json!({}))];
    let list = bench.list("1.1.0", &plugins(json!([])));
    for id in ["c1", "c2"] {
        bench.runtime.add(&list, &container(id)).unwrap();
    }
    bench.recorded();
    let valid = ValidAttachment { container_id: "c2".parse().unwrap(), ifname: "eth0".parse().unwrap() };
    let failing = bench.list("1.1.0", &plugins(json!(["GC"])));
    let error = bench.runtime.gc(&failing, &[valid]).unwrap_err();
    assert_eq!(error.0.iter().map(ToString::to_string).collect::<Vec<_>>(), ["GC of first"]);
    assert_eq!(bench.calls(), ["DEL second", "DEL first", "GC first", "GC second"]);
    assert!(!bench.cached());
}

#[test]
fn disabled_verbs_are_not_called() {
    let bench = Bench::new();
    let mut list = bench.list("1.1.0", &[("first", json!({}))]);
    list.disable_check = true;
    list.disable_gc = true;
    assert_eq!(bench.runtime.check(&list, &container("c1")).unwrap(), []);
    bench.runtime.gc(&list, &[]).unwrap();
    assert_eq!(bench.calls(), Vec::<String>::new());
}

#[test]
fn a_missing_plugin_is_named_with_the_folders() {
    let bench = Bench::new();
    let list = bench.list("1.0.0", &[("fourth", json!({}))]);
    let error = bench.runtime.add(&list, &container("c1")).unwrap_err().to_string();
    assert_eq!(error, format!("no executable \"fourth\" in {}/bin", bench.folder.path().display()));
}

#[test]
fn a_damaged_cache_does_not_keep_del_from_running() {
    let bench = Bench::new();
    let list = bench.list("1.0.0", &[("first", json!({}))]);
    bench.runtime.add(&list, &container("c1")).unwrap();
    bench.recorded();
    fs::write(bench.folder.path().join("cache/results/podnet-c1-eth0"), "{\"kind\": \"cniCa").unwrap();
    bench.runtime.del(&list, &container("c1")).unwrap();
    assert_eq!(bench.calls(), ["DEL first"]);
    assert!(!bench.cached());
}
