//! What runtimes really send, in the order in which they send it.

use serde_json::{Value, json};

use super::{ANY, CALLED, cases, nothing_is_left};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::pod::Pod;
use crate::verdict::{Verdict, ensure};

cases! { "runtimes":
    "WIRE-1" since "0.3.0" in "practice: containerd" for ANY => containerd,
        "A pod's life under containerd",
        "The runtime provides parameters via environment variables and configuration.",
        "ADD with a 64-digit id, /var/run, CNI_ARGS in map order, capabilities left in, annotations, and portMappings with keys in capitals; DEL, and a second DEL with an empty CNI_NETNS and no prevResult; all must succeed and nothing be left.";
    "WIRE-2" since "0.4.0" in "practice: CRI-O" for ANY => crio,
        "A pod's life under CRI-O",
        "A runtime may execute CHECK from immediately after a successful ADD.",
        "ADD with CNI_ARGS in fixed order, CHECK at once and again, DEL; all must succeed and nothing be left.";
    "WIRE-3" since "0.3.0" in "practice: podman" for ANY => podman,
        "A container's life under podman",
        "The runtime provides parameters via environment variables and configuration.",
        "VERSION with dummies, ADD with IgnoreUnknown and K8S_POD_NAME, DEL; all must succeed and nothing be left.";
    "WIRE-4" since "0.3.0" in "practice: ctr and nerdctl" for ANY => ctr,
        "A container's life under ctr and nerdctl",
        "Optional environment parameters: CNI_NETNS.",
        "ADD into /proc/PID/ns/net by a `default-` id with empty CNI_ARGS, the process ends, DEL with an empty CNI_NETNS; all must succeed and nothing be left.";
    "WIRE-5" since "0.3.0" in "3, Deriving runtimeConfig" for ANY => foreign_capabilities,
        "Capability arguments that the plugin does not know are ignored",
        "any capability supported by the plugin configuration and provided by the runtime should be inserted in the runtimeConfig.",
        "ADD and DEL with cgroupPath, dns, aliases and pod annotations in runtimeConfig; both must succeed.";
    "WIRE-6" since "0.1.0" in "1, Plugin configuration objects" for ANY => sorted_keys,
        "The order of the config's keys does not matter",
        "Configuration and results are encoded in JSON.",
        "ADD with the keys sorted as Go prints them, DEL with them in reverse; both must succeed.";
    "WIRE-7" since "0.3.0" in "3, Lifecycle & Ordering" for ANY => after_failed_add,
        "DEL after an ADD that failed, as runtimes send it",
        "A delete must still be executed even if the add fails.",
        "ADD with a namespace that is not there, DEL three times, with and without that path; all DELs must succeed and nothing be left.";
    "WIRE-8" since "1.1.0" in "practice: libcni" for ANY => libcni_gc,
        "GC as libcni sends it",
        "Required environment parameters: CNI_COMMAND, CNI_PATH.",
        "ADD; GC with both spellings of the list, and the other variables set to nothing. GC and CHECK must succeed.";
    "WIRE-9" since "0.4.0" in "3, Checking an attachment" for ANY => check_sees_the_final_result,
        "CHECK with the cached result, which has been through JSON again",
        "The previous result provided is always the final result of the add operation.",
        "ADD, CHECK with the result's keys sorted and empty fields filled in as libcni's cache does; it must succeed.";
    "WIRE-10" since "0.3.0" in "3, Lifecycle & Ordering" for CALLED => two_attachments_go_one_by_one,
        "Two attachments go one by one",
        "Plugins must handle being executed concurrently across different containers.",
        "ADD of two containers, DEL of the first, DEL of the second; nothing must be left.";
}

fn life(host: &Host, pod: &Pod, change: fn(Call<'_>) -> Call<'_>) -> Verdict<Value> {
    let mut result: Option<Value> = None;
    for index in 0..host.target.plugins.len() {
        let mut call = host.call_at("ADD", index).pod(pod);
        if let Some(previous) = &result {
            call = call.prev(previous);
        }
        result = Some(change(call).run()?.result()?);
    }
    Ok(result.unwrap_or_default())
}

fn extra(call: Call<'_>) -> Call<'_> {
    let call = call.capability("io.kubernetes.cri.pod-annotations", json!({ "a": "b" }));
    call.capability("cgroupPath", json!("/kubepods/burstable/pod0a1b"))
}

/// Its type for port mappings has no JSON tags.
fn as_containerd_spells() -> Value {
    json!([{ "HostPort": 31000, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" }])
}

fn containerd(host: &Host) -> Verdict {
    let mut pod = super::busy_pod_called(host, &"5c1f0e9a".repeat(8))?;
    pod.path = format!("/var{}", pod.path);
    let pod = &mut super::remembered(host, pod.with("portMappings", as_containerd_spells()));
    pod.args = "K8S_POD_UID=0a1b;IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=5c1f"
        .to_owned();
    let result = life(host, pod, extra)?;
    host.detach_with(pod, Some(&result), extra)?;
    pod.remove_namespace()?;
    host.detach_with(pod, None, |call| extra(call).env("CNI_NETNS", "").without_key("prevResult"))?;
    nothing_is_left(host)
}

fn crio(host: &Host) -> Verdict {
    let mut pod = super::busy_pod_called(host, &"0e9a5c1f".repeat(8))?;
    pod.args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p;K8S_POD_INFRA_CONTAINER_ID=0e9a;K8S_POD_UID=0a1b"
        .to_owned();
    let result = host.attach(&pod)?;
    host.check(&pod, &result)?;
    host.check(&pod, &result)?;
    host.detach(&pod, Some(&result))?;
    nothing_is_left(host)
}

fn podman(host: &Host) -> Verdict {
    let version = host.call("VERSION").env("CNI_NETNS", "dummy").env("CNI_PATH", "dummy").env("CNI_IFNAME", "dummy");
    version.stdin("{\"cniVersion\":\"1.0.0\"}").run()?.result()?;
    let mut pod = super::busy_pod_called(host, &"9a0e5c1f".repeat(8))?;
    pod.args = "IgnoreUnknown=1;K8S_POD_NAME=w2".to_owned();
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    nothing_is_left(host)
}

fn ctr(host: &Host) -> Verdict {
    let mut pod = super::busy_pod_called(host, "default-c1")?;
    let mut child = super::add::inhabitant(&pod)?;
    pod.path = format!("/proc/{}/ns/net", child.id());
    if pod.scaffold.is_some() {
        pod.scaffold_is_at(&pod.path.clone());
    }
    let result = host.attach(&pod);
    let _ = child.kill();
    let _ = child.wait();
    let result = result?;
    pod.remove_namespace()?;
    host.detach_with(&pod, Some(&result), |call| call.env("CNI_NETNS", ""))?;
    nothing_is_left(host)
}

fn foreign(call: Call<'_>) -> Call<'_> {
    let call = call.capability("cgroupPath", json!("/a")).capability("aliases", json!({ "n": ["a"] }));
    call.capability("io.kubernetes.cri.pod-annotations", json!({ "a": "b" })).capability("org.example/own", Value::Null)
}

fn foreign_capabilities(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = life(host, &pod, foreign)?;
    host.detach_with(&pod, Some(&result), foreign)
}

fn sorted_keys(host: &Host) -> Verdict {
    let pod = host.pod()?;
    for (command, reverse) in [("ADD", false), ("DEL", true)] {
        let call = host.call_for(command, &pod);
        let mut pairs: Vec<_> = call.config().iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
        pairs.sort();
        if reverse {
            pairs.reverse();
        }
        call.clone().stdin(format!("{{{}}}", pairs.join(","))).run()?.success()?;
    }
    Ok(())
}

fn after_failed_add(host: &Host) -> Verdict {
    let mut pod = super::busy_pod(host)?;
    pod.path = "/run/netns/not-there".to_owned();
    host.call_for("ADD", &pod).run()?;
    host.detach(&pod, None)?;
    host.detach_with(&pod, None, |call| call.env("CNI_NETNS", ""))?;
    host.detach(&pod, None)?;
    nothing_is_left(host)
}

fn libcni_gc(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    let valid = json!([{ "containerID": pod.id, "ifname": pod.ifname }]);
    let call = host.call("GC").key("cni.dev/attachments", valid.clone()).key("cni.dev/valid-attachments", valid);
    let call = call.env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "").env("CNI_ARGS", "");
    call.run()?.success()?;
    host.check(&pod, &result)
}

fn check_sees_the_final_result(host: &Host) -> Verdict {
    let pod = super::named_pod(host)?;
    let mut result = host.attach(&pod)?;
    if let Some(result) = result.as_object_mut() {
        result.entry("dns").or_insert_with(|| json!({}));
    }
    ensure!(result.is_object(), "the result is no object");
    host.check(&pod, &result)
}

fn two_attachments_go_one_by_one(host: &Host) -> Verdict {
    let (one, two) = (super::busy(host, host.pod()?, 0), super::busy(host, host.pod()?, 1));
    let (first, second) = (host.attach(&one)?, host.attach(&two)?);
    host.detach(&one, Some(&first))?;
    host.detach(&two, Some(&second))?;
    nothing_is_left(host)
}
