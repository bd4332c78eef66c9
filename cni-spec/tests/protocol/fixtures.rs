//! Requests as runtimes are known to send them, with ids shortened.

use std::path::Path;

use cni_spec::{PortMapping, SpecVersion};
use serde_json::json;

use crate::support::{Outcome, Request, TestPlugin, environment, run};

const PREV_RESULT: &str = r#"{"cniVersion":"1.0.0","interfaces":[{"mac":"0e:1d:8f:00:00:01","name":"veth1"},
    {"mac":"0e:1d:8f:00:00:02","name":"eth0","sandbox":"/var/run/netns/cni-x"}],
    "ips":[{"address":"10.0.0.5/32","gateway":"169.254.1.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}"#;

fn tcp(host_port: i64, container_port: i64) -> PortMapping {
    PortMapping { host_port, container_port, protocol: "tcp".to_owned(), host_ip: String::new() }
}

/// containerd's second plugin of a chain: keys in Go's spelling, `capabilities` kept, `CNI_ARGS` in any order.
#[test]
fn containerd_add() {
    let stdin = format!(
        r#"{{"capabilities":{{"portMappings":true}},"cniVersion":"1.0.0","name":"n","prevResult":{PREV_RESULT},
        "runtimeConfig":{{"portMappings":[{{"ContainerPort":80,"HostIP":"","HostPort":8080,"Protocol":"tcp"}}]}},
        "type":"portmap"}}"#
    );
    let args = "K8S_POD_UID=u1;IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=c1";
    let mut outcome = run(&TestPlugin::default(), environment("ADD").with("CNI_ARGS", args), stdin);
    assert!(outcome.success, "{outcome:?}");
    let Some(Request::Add(request)) = outcome.seen.pop() else { panic!("not an ADD") };
    assert_eq!(request.config.cni_version, SpecVersion::V1_0_0);
    assert_eq!(request.config.plugin_type, "portmap");
    assert_eq!(request.config.runtime_config.port_mappings(), Ok(vec![tcp(8080, 80)]));
    let pod = request.args.pod();
    assert_eq!((pod.namespace, pod.name, pod.uid), (Some("ns"), Some("p"), Some("u1")));
    let prev_result = request.config.prev_result.expect("a prevResult");
    assert_eq!(prev_result.interfaces[1].sandbox.as_deref(), Some("/var/run/netns/cni-x"));
    assert_eq!(prev_result.ips, [crate::results::ip("10.0.0.5/32", Some("169.254.1.1"), Some(1))]);
}

/// podman spells keys as the convention does and leaves `hostIP` out.
#[test]
fn podman_add() {
    let stdin = r#"{"cniVersion":"0.4.0","name":"mynet","type":"portmap",
        "runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}}"#;
    let args = "IgnoreUnknown=1;K8S_POD_NAME=w2";
    let mut outcome = run(&TestPlugin::default(), environment("ADD").with("CNI_ARGS", args), stdin);
    let Some(Request::Add(request)) = outcome.seen.pop() else { panic!("not an ADD") };
    assert_eq!(request.config.runtime_config.port_mappings(), Ok(vec![tcp(8080, 80)]));
    assert_eq!(request.args.pod().name, Some("w2"));
}

/// containerd's second DEL of a pod: no namespace, no `prevResult`, ports null.
#[test]
fn containerd_del_without_anything() {
    let stdin = r#"{"cniVersion":"1.0.0","name":"n","runtimeConfig":{"portMappings":null},"type":"portmap"}"#;
    let outcome = run(&TestPlugin::default(), environment("DEL").with("CNI_NETNS", ""), stdin);
    let Request::Del(request) = outcome.only_request() else { panic!("not a DEL") };
    assert_eq!(request.netns, None);
    assert_eq!(request.config.prev_result, None);
    assert_eq!(request.config.runtime_config.port_mappings(), Ok(Vec::new()));
}

/// A DEL from a chain below 0.4.0, which never carries a `prevResult`.
#[test]
fn old_del() {
    let stdin = r#"{"cniVersion":"0.3.1","name":"cni-loopback","type":"loopback"}"#;
    let outcome = run(&TestPlugin::default(), environment("DEL"), stdin);
    assert!(matches!(outcome.only_request(), Request::Del(_)));
}

fn without_container(verb: &str, stdin: &str) -> Outcome {
    let empty = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"];
    let environment = empty.into_iter().fold(environment(verb), |environment, name| environment.with(name, ""));
    run(&TestPlugin::default(), environment, stdin)
}

/// libcni sends the list under both of its names.
#[test]
fn libcni_gc() {
    let stdin = r#"{"cni.dev/attachments":[{"containerID":"a","ifname":"eth0"}],
        "cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}],"cniVersion":"1.1.0","name":"n","type":"t"}"#;
    let Request::Gc(request) = without_container("GC", stdin).only_request() else { panic!("not a GC") };
    assert_eq!(request.valid.0.len(), 1);
}

/// CRI-O without a pod: Go's empty slice.
#[test]
fn cri_o_gc_of_an_empty_node() {
    let stdin = r#"{"cni.dev/attachments":null,"cni.dev/valid-attachments":null,"cniVersion":"1.1.0","name":"n"}"#;
    let Request::Gc(request) = without_container("GC", stdin).only_request() else { panic!("not a GC") };
    assert!(request.valid.0.is_empty());
}

#[test]
fn libcni_status() {
    let outcome = without_container("STATUS", r#"{"cniVersion":"1.1.0","name":"n","type":"t"}"#);
    let Request::Status(request) = outcome.only_request() else { panic!("not a STATUS") };
    assert_eq!(request.config.plugin_type, "t");
    assert_eq!(request.environment.cni_path().0, [Path::new("/opt/cni/bin")]);
}

/// podman and libcni fill in "dummy" for what VERSION does not need.
#[test]
fn libcni_version() {
    let dummies = ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];
    let environment =
        dummies.into_iter().fold(environment("VERSION"), |environment, name| environment.with(name, "dummy"));
    let outcome = run(&TestPlugin::default(), environment, r#"{"cniVersion":"1.0.0"}"#);
    assert_eq!(outcome.document()["cniVersion"], json!("1.0.0"));
}

/// CRI-O's CHECK comes directly after ADD, with the chain's final result.
#[test]
fn cri_o_check() {
    let stdin = format!(r#"{{"cniVersion":"1.0.0","name":"n","prevResult":{PREV_RESULT},"type":"t"}}"#);
    let Request::Check(request) = run(&TestPlugin::default(), environment("CHECK"), stdin).only_request() else {
        panic!("not a CHECK")
    };
    assert_eq!(request.prev_result.interfaces.len(), 2);
}
