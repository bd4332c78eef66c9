//! CHECK: says yes right after ADD, and no when something is missing.

use serde_json::{Value, json};

use super::{ANY, CALLED, IPAM, MAIN, cases};
use crate::host::call::Answer;
use crate::host::exec::tool;
use crate::host::pod::Pod;
use crate::host::residue;
use crate::host::shape::{bare, list, text};
use crate::host::{Host, observe};
use crate::verdict::{Finding, Verdict, ensure, skip};

cases! { "check":
    "CHK-1a" since "0.4.0" in "2, CHECK" for ANY => right_after_add,
        "CHECK succeeds immediately after ADD",
        "The plugin must handle CHECK being called immediately after an ADD.",
        "ADD, CHECK; it must succeed, as CRI-O calls it.";
    "CHK-1b" since "0.4.0" in "2, CHECK" for ANY => without_prev_result,
        "CHECK without prevResult fails",
        "The plugin must consult the prevResult to determine the expected interfaces and addresses.",
        "ADD, CHECK without the key; it must fail.";
    "CHK-2a" since "0.4.0" in "2, CHECK" for MAIN => |host| tolerates(host, &["route", "add", "198.51.100.0/24", "dev", "IFNAME"]),
        "CHECK allows a route that a later plugin has added",
        "The plugin must allow for a later chained plugin to have modified networking resources, e.g. routes, on ADD.",
        "ADD, a route is added in the container, CHECK; it must succeed.";
    "CHK-2b" since "0.4.0" in "2, CHECK" for MAIN => |host| tolerates(host, &["address", "add", "198.51.100.7/32", "dev", "IFNAME"]),
        "CHECK allows an address that a later plugin has added",
        "The plugin must allow for a later chained plugin to have modified networking resources, e.g. routes, on ADD.",
        "ADD, an address is added to the interface, CHECK; it must succeed.";
    "CHK-2c" since "0.4.0" in "2, CHECK" for CALLED => interface_of_a_later_plugin,
        "CHECK allows an interface that a later plugin has added to the result",
        "prevResult: the final result of the previous ADD command.",
        "ADD, CHECK with one more interface in prevResult, as bandwidth adds it; it must succeed.";
    "CHK-2d" since "0.4.0" in "2, CHECK" for MAIN => mac_of_a_later_plugin,
        "CHECK allows a hardware address that a later plugin has set",
        "The plugin must allow for a later chained plugin to have modified networking resources.",
        "ADD (with the target file's changing_mac, if the plugin must be told), the interface gets another mac, which prevResult has as well, as tuning does it; CHECK must succeed.";
    "CHK-3a" since "0.4.0" in "2, CHECK" for MAIN => |host| notices(host, &["link", "delete", "IFNAME"]),
        "CHECK notices that the interface is gone",
        "The plugin should return an error if a resource included in the CNI Result type (interface, address or route) was created by the plugin, and is listed in prevResult, but is missing.",
        "ADD, `ip link delete`, CHECK; it must fail.";
    "CHK-3b" since "0.4.0" in "2, CHECK" for MAIN => |host| notices(host, &["address", "flush", "dev", "IFNAME", "scope", "global"]),
        "CHECK notices that the addresses are gone",
        "The plugin should return an error if a resource included in the CNI Result type (interface, address or route) was created by the plugin, and is listed in prevResult, but is missing.",
        "ADD, `ip address flush`, CHECK; it must fail.";
    "CHK-3c" since "0.4.0" in "2, CHECK" for MAIN => notices_routes,
        "CHECK notices that a route is gone",
        "The plugin should return an error if a resource included in the CNI Result type (interface, address or route) was created by the plugin, and is listed in prevResult, but is missing.",
        "ADD, the default routes are deleted, CHECK; it must fail.";
    "CHK-3d" since "0.4.0" in "2, CHECK" for MAIN => another_address,
        "CHECK notices that prevResult has another address",
        "The plugin must consult the prevResult to determine the expected interfaces and addresses.",
        "ADD, CHECK with another address in prevResult; it must fail.";
    "CHK-4a" since "0.4.0" in "2, CHECK" for IPAM => |host| no_lease(host, false),
        "CHECK notices that the reservation is gone",
        "The plugin should return an error if IP reservations are missing or are in an invalid state.",
        "ADD, DEL, CHECK with ADD's result; it must fail.";
    "CHK-4b" since "0.4.0" in "2, CHECK" for IPAM => |host| no_lease(host, true),
        "CHECK of a container that has no reservation fails",
        "The plugin should return an error if IP reservations are missing or are in an invalid state.",
        "ADD of one container, CHECK of another with that result; it must fail.";
    "CHK-4c" since "0.4.0" in "2, CHECK" for CALLED => firewall_is_gone,
        "CHECK notices that its firewall rules are gone",
        "The plugin should return an error if firewall rules are missing or are in an invalid state.",
        "ADD, `nft flush ruleset`, CHECK; it must fail if ADD had made rules.";
    "CHK-4d" since "0.4.0" in "2, CHECK" for CALLED => shaping_is_gone,
        "CHECK notices that its traffic shaping is gone",
        "The plugin should return an error if traffic shaping controls are missing or are in an invalid state.",
        "ADD, `tc qdisc delete` of what ADD had made, CHECK; it must fail.";
    "CHK-5a" since "0.4.0" in "2, CHECK" for MAIN => host_side_is_down,
        "CHECK notices that the host's end is down",
        "The plugin should return an error if it is aware of a condition where the container is generally unreachable.",
        "ADD, `ip link set HOST-END down`, CHECK; it must fail.";
    "CHK-5b" since "0.4.0" in "2, CHECK" for MAIN => host_route_is_gone,
        "CHECK notices that the host's routes to the container are gone",
        "The plugin should return an error if it is aware of a condition where the container is generally unreachable.",
        "ADD, the host's routes to the container's addresses are deleted, CHECK; it must fail.";
    "CHK-5c" since "0.4.0" in "2, CHECK" for MAIN => |host| notices(host, &["link", "set", "IFNAME", "down"]),
        "CHECK notices that the interface is down",
        "The plugin should return an error if it is aware of a condition where the container is generally unreachable.",
        "ADD, `ip link set down` in the container, CHECK; it must fail.";
    "CHK-8" since "0.4.0" in "2, CHECK" for ANY => prints_nothing,
        "CHECK prints nothing when all is well",
        "For CHECK no result is defined: the exit code is the answer.",
        "ADD, CHECK; stdout must be empty.";
    "CHK-9" since "0.4.0" in "0.4.0, CHECK" for ANY => older_config,
        "CHECK with a config before 0.4.0 has code 1",
        "1: Incompatible CNI version. (CHECK came with 0.4.0.)",
        "CHECK with a config of 0.3.1; it must fail with code 1.";
    "CHK-10" since "0.4.0" in "2, CHECK" for ANY => changes_nothing,
        "CHECK changes nothing",
        "CHECK is a way for a runtime to probe the status of an existing container.",
        "ADD, CHECK; links, addresses, routes, firewall and files of the host, and the container's, must be the same.";
    "CHK-12" since "0.4.0" in "2, CHECK" for MAIN => namespace_is_gone,
        "CHECK notices that the namespace is gone",
        "The plugin should return an error if it is aware of a condition where the container is generally unreachable.",
        "ADD, the namespace is removed, CHECK; it must fail.";
    "CHK-13" since "0.4.0" in "2, CHECK" for ADDRESSING_TOO => after_del,
        "CHECK fails after DEL",
        "A runtime may execute CHECK from immediately after a successful ADD, up until the container is DELeted from the network.",
        "ADD, DEL, CHECK; it must fail.";
}

use super::ADDRESSING as ADDRESSING_TOO;

fn attached(host: &Host) -> Verdict<(Pod, Value)> {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    Ok((pod, result))
}

fn right_after_add(host: &Host) -> Verdict {
    let pod = super::named_pod(host)?;
    let result = host.attach(&pod)?;
    host.check(&pod, &result)
}

/// Of a chain, one plugin's error is the chain's.
pub(super) fn denies(host: &Host, pod: &Pod, result: &Value) -> Verdict<Answer> {
    let answers = host.check_answers(pod, result)?;
    match answers.into_iter().find(|answer| !answer.succeeded()) {
        Some(answer) => {
            answer.failure()?;
            Ok(answer)
        }
        None => Err(Finding::Failed("CHECK succeeded where an error was due".to_owned())),
    }
}

fn without_prev_result(host: &Host) -> Verdict {
    let (pod, _) = attached(host)?;
    host.call_for("CHECK", &pod).without_key("prevResult").run()?.failure().map(drop)
}

/// The words with the pod's interface in the place of IFNAME.
fn own<'a>(pod: &'a Pod, words: &[&'a str]) -> Vec<&'a str> {
    words.iter().map(|word| if *word == "IFNAME" { pod.ifname.as_str() } else { word }).collect()
}

fn tolerates(host: &Host, change: &[&str]) -> Verdict {
    let (pod, result) = attached(host)?;
    pod.change(&own(&pod, change))?;
    host.check(&pod, &result)
}

fn notices(host: &Host, change: &[&str]) -> Verdict {
    let (pod, result) = attached(host)?;
    pod.change(&own(&pod, change))?;
    denies(host, &pod, &result).map(drop)
}

fn interface_of_a_later_plugin(host: &Host) -> Verdict {
    let (pod, mut result) = attached(host)?;
    if let Some(interfaces) = result.get_mut("interfaces").and_then(Value::as_array_mut) {
        interfaces.push(json!({ "name": "bwp1234567890ab", "mac": "02:00:00:00:00:01" }));
    }
    host.check(&pod, &result)
}

fn mac_of_a_later_plugin(host: &Host) -> Verdict {
    let patch = host.target.changing_mac.clone().unwrap_or_default();
    let pod = super::busy_pod(host)?;
    let mut result = host.attach_with(&pod, &patch)?;
    let mac = "02:c0:f0:12:34:56";
    pod.change(&["link", "set", &pod.ifname, "address", mac])?;
    for one in result.get_mut("interfaces").and_then(Value::as_array_mut).into_iter().flatten() {
        if text(one, "name") == pod.ifname
            && let Some(one) = one.as_object_mut()
        {
            one.insert("mac".to_owned(), json!(mac));
        }
    }
    for answer in host.check_answers_with(&pod, &result, &patch)? {
        answer.success()?;
    }
    Ok(())
}

fn notices_routes(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    let mut deleted = 0;
    for route in list(&result, "routes") {
        let family = if text(route, "dst").contains(':') { "-6" } else { "-4" };
        deleted += usize::from(pod.change(&[family, "route", "delete", text(route, "dst")]).is_ok());
    }
    if deleted == 0 {
        skip!("the result has no routes");
    }
    denies(host, &pod, &result).map(drop)
}

fn another_address(host: &Host) -> Verdict {
    let (pod, mut result) = attached(host)?;
    for ip in result.get_mut("ips").and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
    {
        let six = ip.get("address").and_then(Value::as_str).is_some_and(|address| address.contains(':'));
        ip.insert("address".to_owned(), json!(if six { "2001:db8:77::7/64" } else { "198.51.100.77/24" }));
    }
    denies(host, &pod, &result).map(drop)
}

fn no_lease(host: &Host, of_another: bool) -> Verdict {
    let (pod, result) = attached(host)?;
    if of_another {
        return denies(host, &host.pod()?, &result).map(drop);
    }
    host.detach(&pod, Some(&result))?;
    denies(host, &pod, &result).map(drop)
}

fn firewall_is_gone(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    if observe::nft()?.iter().all(|item| item.get("rule").is_none()) {
        skip!("ADD makes no firewall rules that nft shows");
    }
    tool("nft", &["flush", "ruleset"])?;
    denies(host, &pod, &result).map(drop)
}

fn shaping_is_gone(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    let output = tool("tc", &["-j", "qdisc", "show"])?;
    let all: Value = serde_json::from_slice(&output).map_err(|error| Finding::Trouble(format!("tc -j: {error}")))?;
    let shaped: Vec<_> = all.as_array().into_iter().flatten().filter(|qdisc| text(qdisc, "kind") == "tbf").collect();
    if shaped.is_empty() {
        skip!("ADD shapes no traffic");
    }
    for qdisc in shaped {
        tool("tc", &["qdisc", "delete", "dev", text(qdisc, "dev"), "root"])?;
    }
    denies(host, &pod, &result).map(drop)
}

fn host_end(host: &Host) -> Verdict<(Pod, Value, String)> {
    let (pod, result) = attached(host)?;
    let link = pod.link()?.unwrap_or_default();
    let index = link.get("link_index").and_then(Value::as_u64);
    let links = observe::ip(&["link", "show"])?;
    let peer = links.as_array().into_iter().flatten().find(|link| link.get("ifindex").and_then(Value::as_u64) == index);
    match (index, peer) {
        (Some(_), Some(peer)) => Ok((pod, result, text(peer, "ifname").to_owned())),
        _ => skip!("the interface has no other end on the host"),
    }
}

fn host_side_is_down(host: &Host) -> Verdict {
    let (pod, result, name) = host_end(host)?;
    tool("ip", &["link", "set", &name, "down"])?;
    denies(host, &pod, &result).map(drop)
}

fn host_route_is_gone(host: &Host) -> Verdict {
    let (pod, result, name) = host_end(host)?;
    let mut deleted = 0;
    for address in crate::host::shape::addresses(&result) {
        let family = if address.contains(':') { "-6" } else { "-4" };
        let routes = observe::ip(&[family, "route", "show", "dev", &name])?;
        for route in routes.as_array().into_iter().flatten().filter(|route| bare(text(route, "dst")) == bare(&address))
        {
            tool("ip", &[family, "route", "delete", text(route, "dst"), "dev", &name])?;
            deleted += 1;
        }
    }
    if deleted == 0 {
        skip!("the host has no route of its own to the container");
    }
    denies(host, &pod, &result).map(drop)
}

fn prints_nothing(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    for answer in host.check_answers(&pod, &result)? {
        answer.success()?;
        ensure!(answer.text().is_empty(), "stdout has: {}", answer.text());
    }
    Ok(())
}

fn older_config(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    if !host.profile.versions.iter().any(|version| version == "0.3.1") {
        skip!("the plugin does not support 0.3.1");
    }
    let answer = host.call_for("CHECK", &pod).prev(&result).version("0.3.1").run()?;
    super::protocol::coded(&answer, &[1])
}

fn changes_nothing(host: &Host) -> Verdict {
    let pod = super::named_pod(host)?;
    let result = host.attach(&pod)?;
    let before = (host.observe()?, inside_lines(&pod)?);
    host.check(&pod, &result)?;
    let after = (host.observe()?, inside_lines(&pod)?);
    let (more, less) = (residue::beyond(&after.0, &before.0), residue::beyond(&before.0, &after.0));
    ensure!(more.is_empty() && less.is_empty(), "new: {more:?}; gone: {less:?}");
    ensure!(before.1 == after.1, "the container had {:?} and has {:?}", before.1, after.1);
    Ok(())
}

/// Addresses and routes of the container, without those that the kernel makes by itself a moment later.
fn inside_lines(pod: &Pod) -> Verdict<Vec<String>> {
    let mut lines = super::add::kernel_addresses(pod)?;
    let own = |dst: &str| dst.starts_with("fe80") || dst.starts_with("ff00") || dst.starts_with("multicast");
    let routes = super::add::kernel_routes(pod)?;
    lines.extend(routes.iter().map(|route| text(route, "dst").to_owned()).filter(|dst| !own(dst)));
    lines.sort();
    Ok(lines)
}

fn namespace_is_gone(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    pod.remove_namespace()?;
    denies(host, &pod, &result).map(drop)
}

fn after_del(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    host.detach(&pod, Some(&result))?;
    denies(host, &pod, &result).map(drop)
}
