//! ADD of plugins that make an interface.

use serde_json::{Value, json};

use super::{ADDRESSING, ANY, CALLED, MAIN, cases, disjoint};
use crate::host::Host;
use crate::host::observe;
use crate::host::pod::Pod;
use crate::host::shape::{bare, bare_addresses, list, text};
use crate::verdict::{Verdict, ensure, fail};

cases! { "add":
    "ADD-1a" since "0.1.0" in "2, ADD" for MAIN => the_interface_is_up,
        "The interface is in the container, and up",
        "A CNI plugin, upon receiving an ADD command, should create the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "ADD; `ip -j address` in the namespace shows CNI_IFNAME with the flag UP.";
    "ADD-1b" since "0.1.0" in "4, Plugin Delegation" for MAIN => has_its_addresses,
        "The interface has the addresses of the result",
        "A CNI plugin is expected to assign (and maintain) an IP address to the interface.",
        "ADD; `ip -j address` in the namespace shows each address of the result on CNI_IFNAME.";
    "ADD-1c" since "0.3.0" in "5, ADD Success" for MAIN => has_no_other_addresses,
        "The interface has no other addresses",
        "ips: IPs assigned by this attachment.",
        "ADD; every global address that `ip -j address` shows on CNI_IFNAME must be in the result.";
    "ADD-1d" since "0.1.0" in "4, Plugin Delegation" for MAIN => has_its_routes,
        "The routes of the result are in the container",
        "A CNI plugin is expected to install any necessary routes relevant for that interface.",
        "ADD; `ip -j route show table all` in the namespace shows each dst of the result's routes.";
    "ADD-1e" since "0.1.0" in "2, ADD" for MAIN => leaves_others_alone,
        "Other interfaces in the container stay as they are",
        "Create the interface defined by CNI_IFNAME inside the container.",
        "A veth pair with an address is put into the namespace first; after ADD `ip -j address` must show it unchanged.";
    "ADD-1f" since "0.1.0" in "2, ADD" for MAIN => leaves_the_host_alone,
        "The host's other interfaces stay as they are",
        "Create the interface defined by CNI_IFNAME inside the container.",
        "A veth pair with an address is put on the host first; after ADD and DEL `ip -j address` must show it unchanged.";
    "ADD-4a" since "1.0.0" in "2, ADD" for MAIN => name_is_taken,
        "ADD fails if the interface's name is taken",
        "If an interface of the requested name already exists in the container, the CNI plugin MUST return with an error.",
        "An interface called CNI_IFNAME is put into the namespace first; ADD must fail.";
    "ADD-4b" since "1.0.0" in "2, ADD" for MAIN => the_taker_is_unharmed,
        "ADD does not touch the interface that has the name",
        "If an interface of the requested name already exists in the container, the CNI plugin MUST return with an error.",
        "The same; afterwards `ip -j address` must show that interface as it was.";
    "ADD-5a" since "0.3.0" in "5, ADD Success" for CALLED => lists_the_interface,
        "The result lists the container's interface",
        "interfaces: An array of all interfaces created by the attachment.",
        "ADD; interfaces must have an entry with the name CNI_IFNAME and a sandbox.";
    "ADD-5b" since "0.3.0" in "5, ADD Success" for MAIN => lists_host_interfaces,
        "The result lists the interfaces that are new on the host",
        "interfaces: An array of all interfaces created by the attachment, including any host-level interfaces.",
        "ADD; every interface that `ip -j link` shows on the host and did not show before must be listed without a sandbox.";
    "ADD-5c" since "0.3.0" in "5, ADD Success" for CALLED => host_interfaces_exist,
        "Interfaces that are listed without a sandbox are on the host",
        "sandbox: The isolation domain reference for the interface, or empty if on the host.",
        "ADD; `ip -j link` on the host must show each of them.";
    "ADD-5d" since "0.3.0" in "5, ADD Success" for CALLED => sandbox_is_cni_netns,
        "The sandbox is the value of CNI_NETNS",
        "For interfaces created inside the container, this should be the value passed via CNI_NETNS.",
        "ADD with CNI_NETNS spelled through /var/run; the sandbox of CNI_IFNAME must be spelled the same.";
    "ADD-5e" since "0.3.0" in "5, ADD Success" for CALLED => macs_are_true,
        "The hardware addresses are those of the interfaces",
        "mac: The hardware address of the interface (if applicable).",
        "ADD; every mac of the result must be what `ip -j link` shows, on the host and in the container.";
    "ADD-5f" since "1.1.0" in "5, ADD Success" for CALLED => mtus_are_true,
        "The MTUs are those of the interfaces",
        "mtu: The MTU of the interface (if applicable).",
        "ADD; every mtu of the result must be what `ip -j link` shows, on the host and in the container.";
    "ADD-9a" since "0.3.0" in "2, ADD" for ADDRESSING => twice,
        "A second ADD fails, or answers the same",
        "A runtime should not call ADD twice (without an intervening DEL) for the same (CNI_CONTAINERID, CNI_IFNAME) tuple.",
        "ADD twice; if the second succeeds, its addresses must be those of the first.";
    "ADD-9b" since "0.3.0" in "2, ADD" for MAIN => twice_does_no_harm,
        "A second ADD leaves what the first made",
        "A runtime should not call ADD twice (without an intervening DEL) for the same (CNI_CONTAINERID, CNI_IFNAME) tuple.",
        "ADD twice; afterwards the interface must have the first's addresses.";
    "ADD-11a" since "0.1.0" in "2, ADD" for MAIN => no_namespace,
        "ADD fails if there is no namespace",
        "Create the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "ADD with a CNI_NETNS that does not exist; it must fail.";
    "ADD-11b" since "0.1.0" in "3, Lifecycle & Ordering" for MAIN => failed_add_leaves_nothing,
        "A failed ADD and its DEL leave nothing",
        "A delete must still be executed even if the add fails.",
        "ADD with a CNI_NETNS that does not exist, then DEL; the host must be as before.";
    "ADD-11c" since "0.1.0" in "5, Error" for MAIN => no_namespace_is_not_code_3,
        "A failed ADD does not say that no DEL is needed",
        "3: Container unknown or does not exist. This error implies the runtime does not need to perform any container network cleanup.",
        "ADD with a CNI_NETNS that does not exist; code must not be 3, unless the host is as before without a DEL.";
    "ADD-12a" since "0.1.0" in "2, Parameters" for MAIN => |host| not_a_namespace(host, "/run/not-a-namespace"),
        "ADD fails if CNI_NETNS is an ordinary file",
        "CNI_NETNS: a path to the network namespace.",
        "ADD with the path of an empty file; it must fail.";
    "ADD-12b" since "0.1.0" in "2, Parameters" for MAIN => |host| not_a_namespace(host, "/proc/self/ns/uts"),
        "ADD fails if CNI_NETNS is a namespace of another kind",
        "CNI_NETNS: a path to the network namespace.",
        "ADD with the path of a UTS namespace; it must fail.";
    "ADD-13a" since "0.1.0" in "3, Lifecycle & Ordering" for MAIN => the_hosts_namespace,
        "ADD refuses the host's own namespace",
        "The container runtime must create a new network namespace for the container before invoking any plugins.",
        "ADD with CNI_NETNS=/proc/self/ns/net; it must fail with one error object.";
    "ADD-13b" since "0.1.0" in "3, Lifecycle & Ordering" for MAIN => the_host_is_unchanged,
        "A refused ADD into the host's namespace changes nothing there",
        "The container runtime must create a new network namespace for the container before invoking any plugins.",
        "The same; the interfaces that `ip -j link` shows must be those from before.";
    "ADD-14" since "0.1.0" in "4, Plugin Delegation" for ADDRESSING => two_pods,
        "Two containers get different addresses",
        "The IPAM plugin must determine the interface IP/subnet.",
        "ADD of two containers; no address must be in both results.";
    "ADD-15" since "0.1.0" in "2, ADD" for ADDRESSING => two_interfaces,
        "A container can be added twice under two interface names",
        "A given container ID may be added to a specific network more than once only if each addition is done with a different interface name.",
        "ADD of eth0 and net1 of one container; both must succeed, and no address be in both results.";
    "ADD-16" since "0.1.0" in "1, Configuration format" for MAIN => two_networks,
        "A container can be added to two networks",
        "name: Network name. This should be unique across all network configurations on a host.",
        "ADD of eth0 to one network and net1 to another; both must succeed.";
    "ADD-17" since "0.1.0" in "2, Parameters" for MAIN => namespace_of_a_process,
        "CNI_NETNS may be the namespace of a process",
        "CNI_NETNS: a path to the network namespace (e.g. /run/netns/[nsname]).",
        "ADD with /proc/PID/ns/net of a process inside; the interface must be there.";
    "ADD-18" since "0.1.0" in "practice: runtimes give paths through /var/run" for ANY => path_through_a_link,
        "CNI_NETNS may lead through a symbolic link",
        "CNI_NETNS: a path to the network namespace (e.g. /run/netns/[nsname]).",
        "ADD and DEL with /var/run/netns/NAME; both must succeed.";
}

fn interface<'a>(result: &'a Value, name: &str) -> Option<&'a Value> {
    let matches = |interface: &&Value| text(interface, "name") == name && !text(interface, "sandbox").is_empty();
    list(result, "interfaces").iter().find(matches)
}

fn the_interface_is_up(host: &Host) -> Verdict {
    let pod = host.pod()?;
    host.attach(&pod)?;
    let Some(link) = pod.link()? else { fail!("there is no {} in the namespace", pod.ifname) };
    ensure!(list(&link, "flags").iter().any(|flag| flag == "UP"), "{} is not up", pod.ifname);
    Ok(())
}

/// Global addresses of the pod's interface.
pub(super) fn kernel_addresses(pod: &Pod) -> Verdict<Vec<String>> {
    let link = pod.link()?.unwrap_or_default();
    let global = list(&link, "addr_info").iter().filter(|address| text(address, "scope") == "global");
    Ok(global.map(|address| text(address, "local").to_owned()).collect())
}

fn has_its_addresses(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    holds_addresses(&pod, &result)
}

pub(super) fn holds_addresses(pod: &Pod, result: &Value) -> Verdict {
    let found = kernel_addresses(pod)?;
    for address in bare_addresses(result) {
        ensure!(found.contains(&address), "{} has {found:?}, but not {address}", pod.ifname);
    }
    Ok(())
}

fn has_no_other_addresses(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let named = bare_addresses(&host.attach(&pod)?);
    let other: Vec<_> = kernel_addresses(&pod)?.into_iter().filter(|address| !named.contains(address)).collect();
    ensure!(other.is_empty(), "{} also has {other:?}", pod.ifname);
    Ok(())
}

pub(super) fn kernel_routes(pod: &Pod) -> Verdict<Vec<Value>> {
    let mut all = Vec::new();
    for family in ["-4", "-6"] {
        let routes = pod.ip(&[family, "route", "show", "table", "all"])?;
        all.extend(routes.as_array().cloned().unwrap_or_default());
    }
    Ok(all)
}

fn has_its_routes(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    let found = kernel_routes(&pod)?;
    for route in list(&result, "routes") {
        let dst = text(route, "dst");
        let wanted = if bare(dst) == "0.0.0.0" || bare(dst) == "::" { "default" } else { dst };
        let six = dst.contains(':');
        let there = found.iter().any(|route| {
            let said = text(route, "dst");
            let family_fits =
                said != "default" || text(route, "gateway").contains(':') == six || text(route, "gateway").is_empty();
            family_fits && (said == wanted || format!("{said}/32") == wanted || format!("{said}/128") == wanted)
        });
        ensure!(there, "the route to {dst} is not in the container");
    }
    Ok(())
}

/// A veth pair in the pod that the plugin has nothing to do with.
fn stranger(pod: &Pod, name: &str) -> Verdict {
    pod.change(&["link", "add", name, "type", "veth", "peer", "name", "strange-peer"])?;
    pod.change(&["address", "add", "198.51.100.9/24", "dev", name])?;
    pod.change(&["link", "set", name, "up"])
}

/// Of an interface what plugins could spoil.
fn essence(links: &Value, name: &str) -> Option<String> {
    let link = links.as_array()?.iter().find(|link| text(link, "ifname") == name)?;
    let addresses: Vec<_> = list(link, "addr_info").iter().map(|address| text(address, "local").to_owned()).collect();
    let global: Vec<_> = addresses.into_iter().filter(|address| !address.starts_with("fe80")).collect();
    Some(format!("{} mtu {} {global:?}", text(link, "address"), link.get("mtu")?))
}

fn leaves_others_alone(host: &Host) -> Verdict {
    let pod = host.pod()?;
    stranger(&pod, "stranger")?;
    let before = essence(&pod.ip(&["address", "show"])?, "stranger");
    host.attach(&pod)?;
    let after = essence(&pod.ip(&["address", "show"])?, "stranger");
    ensure!(before == after, "it was {before:?} and is {after:?}");
    Ok(())
}

fn leaves_the_host_alone(host: &Host) -> Verdict {
    let tool = crate::host::exec::tool;
    tool("ip", &["link", "add", "stranger", "type", "veth", "peer", "name", "strange-peer"])?;
    tool("ip", &["address", "add", "198.51.100.9/24", "dev", "stranger"])?;
    let before = essence(&observe::ip(&["address", "show"])?, "stranger");
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    let after = essence(&observe::ip(&["address", "show"])?, "stranger");
    tool("ip", &["link", "delete", "stranger"])?;
    ensure!(before == after, "it was {before:?} and is {after:?}");
    Ok(())
}

fn name_is_taken(host: &Host) -> Verdict {
    let pod = host.pod()?;
    stranger(&pod, &pod.ifname)?;
    host.call_for("ADD", &pod).run()?.error().map(drop)
}

fn the_taker_is_unharmed(host: &Host) -> Verdict {
    let pod = host.pod()?;
    stranger(&pod, &pod.ifname)?;
    let before = essence(&pod.ip(&["address", "show"])?, &pod.ifname);
    host.call_for("ADD", &pod).run()?;
    let after = essence(&pod.ip(&["address", "show"])?, &pod.ifname);
    ensure!(before == after, "it was {before:?} and is {after:?}");
    Ok(())
}

fn lists_the_interface(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    ensure!(interface(&result, &pod.ifname).is_some(), "{} with a sandbox is not listed: {result}", pod.ifname);
    Ok(())
}

fn lists_host_interfaces(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let before = observe::link_names()?;
    let result = host.attach(&pod)?;
    let listed: Vec<_> = list(&result, "interfaces").iter().filter(|one| text(one, "sandbox").is_empty()).collect();
    for name in observe::link_names()?.iter().filter(|name| !before.contains(name)) {
        ensure!(
            listed.iter().any(|one| text(one, "name") == name),
            "{name} is new on the host and not listed: {result}"
        );
    }
    Ok(())
}

fn host_interfaces_exist(host: &Host) -> Verdict {
    let result = host.attach(&host.pod()?)?;
    let present = observe::link_names()?;
    for one in list(&result, "interfaces").iter().filter(|one| text(one, "sandbox").is_empty()) {
        ensure!(present.iter().any(|name| name == text(one, "name")), "{one} is not on the host");
    }
    Ok(())
}

fn sandbox_is_cni_netns(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    pod.path = format!("/var{}", pod.path);
    if let Some(scaffold) = pod.scaffold.as_mut() {
        *scaffold =
            serde_json::from_str(&scaffold.to_string().replace("/run/netns", "/var/run/netns")).unwrap_or_default();
    }
    let result = host.attach(&pod)?;
    let sandbox = interface(&result, &pod.ifname).map(|one| text(one, "sandbox"));
    ensure!(sandbox == Some(&pod.path), "CNI_NETNS is {}, the sandbox {sandbox:?}", pod.path);
    Ok(())
}

/// Compares a field of every listed interface with the kernel's.
fn field_is_true(host: &Host, field: &str, kernel_field: &str) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    let (on_host, in_pod) = (observe::ip(&["link", "show"])?, pod.ip(&["link", "show"])?);
    for one in list(&result, "interfaces") {
        let Some(said) = one.get(field).filter(|said| **said != json!("")) else { continue };
        let links = if text(one, "sandbox").is_empty() { &on_host } else { &in_pod };
        let link = links.as_array().into_iter().flatten().find(|link| text(link, "ifname") == text(one, "name"));
        let real = link.and_then(|link| link.get(kernel_field));
        ensure!(real == Some(said), "{one}: {field} is {real:?} in the kernel");
    }
    Ok(())
}

fn macs_are_true(host: &Host) -> Verdict {
    field_is_true(host, "mac", "address")
}

fn mtus_are_true(host: &Host) -> Verdict {
    field_is_true(host, "mtu", "mtu")
}

fn twice(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let first = host.attach(&pod)?;
    let second = host.call_for("ADD", &pod).run()?;
    if !second.succeeded() {
        return second.error().map(drop);
    }
    let (first, second) = (bare_addresses(&first), bare_addresses(&second.result()?));
    ensure!(first == second, "the first got {first:?}, the second {second:?}");
    Ok(())
}

fn twice_does_no_harm(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let first = host.attach(&pod)?;
    host.call_for("ADD", &pod).run()?;
    holds_addresses(&pod, &first)
}

/// A pod whose namespace is not there.
fn nowhere(host: &Host) -> Verdict<Pod> {
    let mut pod = host.pod()?;
    pod.path = "/run/netns/not-there".to_owned();
    Ok(pod)
}

fn no_namespace(host: &Host) -> Verdict {
    let pod = nowhere(host)?;
    host.call_for("ADD", &pod).run()?.error().map(drop)
}

fn failed_add_leaves_nothing(host: &Host) -> Verdict {
    let pod = nowhere(host)?;
    host.call_for("ADD", &pod).run()?.failure()?;
    host.detach(&pod, None)?;
    super::nothing_is_left(host)
}

fn no_namespace_is_not_code_3(host: &Host) -> Verdict {
    let pod = nowhere(host)?;
    let (code, text) = host.call_for("ADD", &pod).run()?.code()?;
    let left = host.residue()?;
    ensure!(code != 3 || left.is_empty(), "code 3 ({text}), but there is {left:?}");
    Ok(())
}

fn not_a_namespace(host: &Host, path: &str) -> Verdict {
    let mut pod = host.pod()?;
    observe::write("/run/not-a-namespace", "")?;
    pod.path = path.to_owned();
    let answer = host.call_for("ADD", &pod).run();
    let _ = std::fs::remove_file("/run/not-a-namespace");
    answer?.error().map(drop)
}

fn the_hosts_namespace(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    pod.path = "/proc/self/ns/net".to_owned();
    let answer = host.call_for("ADD", &pod).run()?;
    let _ = crate::host::exec::tool("ip", &["link", "delete", &pod.ifname]);
    answer.error().map(drop)
}

fn the_host_is_unchanged(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    let before = observe::link_names()?;
    pod.path = "/proc/self/ns/net".to_owned();
    host.call_for("ADD", &pod).run()?;
    let after = observe::link_names()?;
    let _ = crate::host::exec::tool("ip", &["link", "delete", &pod.ifname]);
    let stable = |names: &[String]| names.iter().filter(|name| !name.starts_with("cni")).cloned().collect::<Vec<_>>();
    ensure!(stable(&before) == stable(&after), "the host had {before:?} and has {after:?}");
    Ok(())
}

fn two_pods(host: &Host) -> Verdict {
    let (one, two) = (host.pod()?, host.pod()?);
    disjoint(&host.attach(&one)?, &host.attach(&two)?)
}

fn two_interfaces(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let other = pod.second_interface("net1");
    host.remember(&other);
    // Default routes of both would clash; that is the operator's business, not the plugin's.
    let first = host.attach(&pod)?;
    disjoint(
        &first,
        &host.call_for("ADD", &other).merge(&super::object(json!({ "ipam": { "routes": [] } }))).run()?.result()?,
    )
}

fn two_networks(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let other = pod.second_interface("net1");
    host.attach(&pod)?;
    // Another network has another pool: the suite's own IPAM plugin gives out its address.
    let mut path = host.cni_path();
    path.push(":");
    path.push(crate::spy::folder());
    let ipam = json!({ "type": crate::spy::NAME });
    crate::spy::script("ADD", &crate::spy::Script { stdout: address_only(host.version()), ..Default::default() })?;
    let call = |command| {
        let call = host.call_for(command, &other).key("name", json!(crate::host::OTHER_NETWORK));
        let call = call.merge(&host.target.second_network.clone().unwrap_or_default());
        call.key("ipam", ipam.clone()).env("CNI_PATH", path.clone())
    };
    call("ADD").run()?.success()?;
    let there = other.link()?.is_some();
    call("DEL").run()?.success()?;
    ensure!(there, "there is no net1 in the container");
    ensure!(pod.link()?.is_some(), "the DEL from the other network took eth0");
    Ok(())
}

/// A lease without routes.
fn address_only(version: &str) -> String {
    let mut lease = crate::spy::lease();
    lease["routes"] = json!([]);
    crate::host::shape::reshape(&lease, version).to_string()
}

/// A process in the pod's namespace.
pub(super) fn inhabitant(pod: &Pod) -> Verdict<std::process::Child> {
    let mut command = sandbox::command("ip");
    command.args(["netns", "exec", &pod.netns, "sleep", "60"]).stdin(std::process::Stdio::null());
    let child = command.stdout(std::process::Stdio::null()).spawn();
    let child = child.map_err(|error| crate::verdict::Finding::Trouble(format!("cannot start sleep: {error}")))?;
    super::until("a process in the namespace", || {
        let own = std::fs::metadata(format!("/proc/{}/ns/net", child.id()))
            .map(|meta| std::os::linux::fs::MetadataExt::st_ino(&meta));
        let wanted = std::fs::metadata(format!("/run/netns/{}", pod.netns))
            .map(|meta| std::os::linux::fs::MetadataExt::st_ino(&meta));
        Ok(matches!((own, wanted), (Ok(own), Ok(wanted)) if own == wanted))
    })?;
    Ok(child)
}

fn namespace_of_a_process(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    let mut child = inhabitant(&pod)?;
    pod.path = format!("/proc/{}/ns/net", child.id());
    let answer = host.call_for("ADD", &pod).run();
    let link = pod.link();
    let undone = host.call_for("DEL", &pod).run();
    let _ = child.kill();
    let _ = child.wait();
    answer?.success()?;
    ensure!(link?.is_some(), "there is no {} in the namespace", pod.ifname);
    undone?.success().map(drop)
}

fn path_through_a_link(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    pod.path = format!("/var{}", pod.path);
    for command in ["ADD", "DEL"] {
        host.call_for(command, &pod).run()?.success()?;
    }
    Ok(())
}
