//! DEL: everything goes, again and again, whatever is missing.

use std::thread;

use serde_json::{Value, json};

use super::{ADDRESSING, ANY, MAIN, cases, nothing_is_left, sorry};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::pod::Pod;
use crate::verdict::{Finding, Verdict, ensure};

cases! { "del":
    "DEL-1a" since "0.1.0" in "2, DEL" for MAIN => interface_goes,
        "DEL removes the container's interface",
        "A CNI plugin, upon receiving a DEL command, should delete the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "ADD and DEL; `ip -j link` in the namespace must not show CNI_IFNAME.";
    "DEL-1b" since "0.1.0" in "2, DEL" for ANY => everything_goes,
        "DEL leaves nothing on the host",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "ADD and DEL; links, addresses, routes, rules, firewall and files must be as before.";
    "DEL-1c" since "0.1.0" in "2, DEL" for ADDRESSING => addresses_come_back,
        "DEL gives the addresses back",
        "An IPAM plugin should generally release an IP allocation and return success.",
        "ADD and DEL, more often than the pool has addresses; every ADD must succeed.";
    "DEL-2a" since "0.4.0" in "2, DEL" for ANY => twice,
        "A second DEL succeeds",
        "Plugins MUST accept multiple DEL calls for the same (CNI_CONTAINERID, CNI_IFNAME) pair.",
        "ADD, then DEL twice with the same parameters; both must succeed.";
    "DEL-2b" since "0.4.0" in "2, DEL" for ANY => never_added,
        "DEL of what was never added succeeds",
        "Return success if the interface in question, or any modifications added, are missing.",
        "DEL without an ADD, on a host that the plugin has never run on; it must succeed.";
    "DEL-2c" since "0.4.0" in "3, Lifecycle & Ordering" for ANY => again_after_the_namespace,
        "A DEL after DEL and the end of the namespace succeeds",
        "delete may be followed by additional deletes.",
        "ADD, DEL, the namespace is removed, DEL; it must succeed.";
    "DEL-3a" since "0.3.0" in "2, DEL" for ANY => namespace_is_gone,
        "DEL succeeds if the namespace is gone",
        "Plugins should always complete a DEL action without error to the fullest extent possible, even if some resources or state are missing.",
        "ADD, the namespace is removed, DEL with its path; it must succeed.";
    "DEL-3b" since "0.3.0" in "2, DEL" for ANY => namespace_is_gone_and_all_goes,
        "DEL leaves nothing if the namespace is gone",
        "Clean up its own resources even if the container network namespace and/or container network interface no longer exist.",
        "ADD, the namespace is removed, DEL with its path; the host must be as before.";
    "DEL-3c" since "0.3.0" in "2, DEL" for MAIN => interface_is_gone,
        "DEL succeeds if the interface is gone",
        "Return success if the interface in question, or any modifications added, are missing.",
        "ADD, `ip link delete` in the namespace, DEL; it must succeed and leave nothing.";
    "DEL-3d" since "0.3.0" in "2, DEL" for ADDRESSING => namespace_is_gone_and_addresses_come_back,
        "DEL gives the addresses back if the namespace is gone",
        "An IPAM plugin should generally release an IP allocation and return success even if the container network namespace no longer exists.",
        "ADD, the namespace is removed, DEL, more often than the pool has addresses; every ADD must succeed.";
    "DEL-4a" since "0.4.0" in "2, DEL" for ANY => |host| with_prev(host, None),
        "DEL without prevResult succeeds",
        "Plugins should still return without error if prevResult is empty for a DEL command.",
        "ADD, DEL without the key; it must succeed and leave nothing.";
    "DEL-4b" since "0.4.0" in "2, DEL" for ANY => |host| with_prev(host, Some(&Value::Null)),
        "DEL with a prevResult of null succeeds",
        "Plugins should still return without error if prevResult is empty for a DEL command.",
        "ADD, DEL with \"prevResult\": null; it must succeed.";
    "DEL-5a" since "0.4.0" in "2, DEL" for ANY => |host| without_netns(host, |call| call.env("CNI_NETNS", "")),
        "DEL with an empty CNI_NETNS succeeds",
        "Optional environment parameters: CNI_NETNS.",
        "ADD, the namespace is removed, DEL with CNI_NETNS set to nothing, as ctr and nerdctl send it; it must succeed.";
    "DEL-5b" since "0.4.0" in "2, DEL" for ANY => |host| without_netns(host, |call| call.without_env("CNI_NETNS")),
        "DEL without CNI_NETNS succeeds",
        "Optional environment parameters: CNI_NETNS.",
        "ADD, the namespace is removed, DEL without the variable; it must succeed.";
    "DEL-5c" since "0.4.0" in "2, DEL" for ANY => empty_netns_leaves_nothing,
        "DEL with an empty CNI_NETNS leaves nothing",
        "Clean up its own resources even if the container network namespace and/or container network interface no longer exist.",
        "ADD, the namespace is removed, DEL with CNI_NETNS set to nothing; the host must be as before.";
    "DEL-5d" since "0.4.0" in "2, DEL" for ANY => knowing_nothing_leaves_nothing,
        "DEL with an empty CNI_NETNS and no prevResult leaves nothing",
        "Plugins should always complete a DEL action without error to the fullest extent possible, even if some resources or state are missing.",
        "ADD, the namespace is removed, DEL with nothing but id, interface name and config; the host must be as before.";
    "DEL-5e" since "0.4.0" in "2, DEL" for ADDRESSING => empty_netns_and_addresses_come_back,
        "DEL with an empty CNI_NETNS gives the addresses back",
        "An IPAM plugin should generally release an IP allocation and return success even if the container network namespace no longer exists.",
        "ADD, the namespace is removed, DEL with CNI_NETNS set to nothing, more often than the pool has addresses; every ADD must succeed.";
    "DEL-8a" since "0.1.0" in "2, DEL" for ANY => other_container_stays,
        "DEL of one container leaves the other's things",
        "Delete the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "ADD of two containers, one's id being the beginning of the other's; what the host has after ADD, ADD, DEL must be what it has after ADD.";
    "DEL-8b" since "0.3.0" in "3, Execution of Network Configurations" for ADDRESSING => other_interface_stays,
        "DEL of one interface leaves the container's other one",
        "An attachment may be uniquely identified by the (CNI_CONTAINERID, CNI_IFNAME) tuple.",
        "ADD of eth0 and net1 of one container, DEL of net1; a third container must not get eth0's addresses, and eth0 must be there.";
    "DEL-8c" since "0.3.0" in "1, Configuration format" for ADDRESSING => other_network_stays,
        "DEL from one network leaves the other's attachment",
        "name: Network name. This should be unique across all network configurations on a host.",
        "ADD to one network, DEL with the same id and interface name from another; a second container must not get the first's addresses.";
    "DEL-9" since "0.1.0" in "5, Error" for ANY => bad_config,
        "DEL with a config that is not JSON fails",
        "6: Failed to decode content.",
        "DEL with such a config; it must fail with an error object: success would end the runtime's attempts.";
    "DEL-10" since "0.3.0" in "practice: kubelet and containerd repeat DEL in parallel" for ANY => in_parallel,
        "Three DELs of one attachment at a time succeed",
        "Plugins MUST accept multiple DEL calls for the same (CNI_CONTAINERID, CNI_IFNAME) pair.",
        "ADD, then three DELs at the same time; all must succeed, and nothing be left.";
    "DEL-11" since "0.3.0" in "3, Lifecycle & Ordering" for ANY => add_after_del,
        "ADD works again after DEL",
        "A runtime should not call ADD twice (without an intervening DEL).",
        "ADD, DEL, ADD with the same parameters; all must succeed.";
}

fn interface_goes(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    ensure!(pod.link()?.is_none(), "{} is still there", pod.ifname);
    Ok(())
}

fn everything_goes(host: &Host) -> Verdict {
    let pod = super::named_pod(host)?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    nothing_is_left(host)
}

/// Attaches and releases by `release` until a pool that leaks would be empty.
pub(super) fn cycles(host: &Host, release: impl Fn(&Pod, &Value) -> Verdict) -> Verdict {
    let Some(patch) = &host.target.small_pool else {
        crate::verdict::skip!("the target file has no small_pool");
    };
    for round in 1..=20 {
        let pod = host.pod()?;
        let result = host.attach_with(&pod, patch).map_err(|finding| finding.during(&format!("round {round}")))?;
        release(&pod, &result)?;
        let _ = pod.remove_namespace();
    }
    Ok(())
}

fn addresses_come_back(host: &Host) -> Verdict {
    cycles(host, |pod, result| host.detach(pod, Some(result)))
}

fn twice(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    host.detach(&pod, Some(&result)).map_err(|finding| finding.during("the second DEL"))
}

fn never_added(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    host.detach(&pod, None)
}

fn again_after_the_namespace(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    pod.remove_namespace()?;
    host.detach(&pod, None)
}

/// A pod that was attached, and whose namespace is gone.
fn orphan(host: &Host) -> Verdict<(Pod, Value)> {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    pod.remove_namespace()?;
    Ok((pod, result))
}

fn namespace_is_gone(host: &Host) -> Verdict {
    let (pod, result) = orphan(host)?;
    host.detach(&pod, Some(&result))
}

fn namespace_is_gone_and_all_goes(host: &Host) -> Verdict {
    let (pod, result) = orphan(host)?;
    host.detach(&pod, Some(&result))?;
    nothing_is_left(host)
}

fn interface_is_gone(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    pod.change(&["link", "delete", &pod.ifname])?;
    host.detach(&pod, Some(&result))?;
    nothing_is_left(host)
}

fn namespace_is_gone_and_addresses_come_back(host: &Host) -> Verdict {
    cycles(host, |pod, result| {
        pod.remove_namespace()?;
        host.detach(pod, Some(result))
    })
}

fn with_prev(host: &Host, prev: Option<&Value>) -> Verdict {
    let pod = super::busy_pod(host)?;
    host.attach(&pod)?;
    host.detach_with(&pod, None, |call| {
        let call = call.without_key("prevResult");
        match prev {
            Some(prev) => call.key("prevResult", prev.clone()),
            None => call,
        }
    })
}

fn without_netns(host: &Host, change: fn(Call<'_>) -> Call<'_>) -> Verdict {
    let (pod, result) = orphan(host)?;
    host.detach_with(&pod, Some(&result), change)
}

fn empty_netns_leaves_nothing(host: &Host) -> Verdict {
    without_netns(host, |call| call.env("CNI_NETNS", ""))?;
    nothing_is_left(host)
}

fn knowing_nothing_leaves_nothing(host: &Host) -> Verdict {
    without_netns(host, |call| call.env("CNI_NETNS", "").without_key("prevResult"))?;
    nothing_is_left(host)
}

fn empty_netns_and_addresses_come_back(host: &Host) -> Verdict {
    cycles(host, |pod, result| {
        pod.remove_namespace()?;
        host.detach_with(pod, Some(result), |call| call.env("CNI_NETNS", ""))
    })
}

fn other_container_stays(host: &Host) -> Verdict {
    let one = super::busy(host, host.pod_called(|_| "suite-a".to_owned())?, 0);
    let two = super::busy(host, host.pod_called(|_| "suite-ab".to_owned())?, 1);
    let stays = host.attach_with(&two, &small_if_any(host))?;
    let before = host.attached_traces()?;
    let result = host.attach_with(&one, &small_if_any(host))?;
    host.detach_with(&one, Some(&result), |call| call.merge(&small_if_any(host)))?;
    let after = host.attached_traces()?;
    let lost: Vec<_> = before.iter().filter(|line| !after.contains(line)).collect();
    ensure!(lost.is_empty(), "the DEL of suite-a took from suite-ab: {lost:?}");
    if host.target.kind == crate::target::Kind::Ipam {
        // An IPAM plugin's state is its own business; what it gives out is not.
        nobody_else_gets(host, &stays)?;
    }
    Ok(())
}

fn other_interface_stays(host: &Host) -> Verdict {
    let patch = small_if_any(host);
    let pod = host.pod()?;
    let other = pod.second_interface("net1");
    let no_routes = super::object(json!({ "ipam": { "routes": [] } }));
    let first = host.attach_with(&pod, &patch)?;
    for command in ["ADD", "DEL"] {
        host.call_for(command, &other).merge(&patch).merge(&no_routes).run()?.success()?;
    }
    let gone = host.target.kind == crate::target::Kind::Main && pod.link()?.is_none();
    ensure!(!gone, "the DEL of net1 took eth0");
    nobody_else_gets(host, &first)
}

/// The target's small pool, if it has one: there a freed address is soon given out again.
pub(super) fn small_if_any(host: &Host) -> crate::target::Object {
    host.target.small_pool.clone().unwrap_or_default()
}

/// New containers must not get the addresses of one that is still there: as many as the small pool has, or twenty.
pub(super) fn nobody_else_gets(host: &Host, result: &Value) -> Verdict {
    let patch = small_if_any(host);
    for number in 0..20 {
        let answer = host.call_for("ADD", &host.pod()?).merge(&patch).run()?;
        if !answer.succeeded() && number > 0 && !patch.is_empty() {
            break;
        }
        super::disjoint(result, &answer.result()?)?;
    }
    Ok(())
}

fn other_network_stays(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let first = host.attach_with(&pod, &small_if_any(host))?;
    let mut elsewhere = pod.clone();
    elsewhere.path = String::new();
    let call = host.call_for("DEL", &elsewhere).merge(&small_if_any(host));
    call.key("name", json!(crate::host::OTHER_NETWORK)).run()?.success()?;
    nobody_else_gets(host, &first)
}

fn bad_config(host: &Host) -> Verdict {
    sorry(&super::protocol::undecodable(host, "DEL", "name: n")?).map(drop)
}

fn in_parallel(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    let outcomes = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| host.detach(&pod, Some(&result)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost_thread()))).collect::<Vec<_>>()
    });
    outcomes.into_iter().collect::<Verdict>()?;
    nothing_is_left(host)
}

pub(super) fn lost_thread() -> Finding {
    Finding::Trouble("a thread of the suite panicked".to_owned())
}

fn add_after_del(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    host.attach(&pod).map(drop)
}
