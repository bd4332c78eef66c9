//! Capability arguments other than ports: what a plugin declares, it acts on, or it refuses.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::packets::{NODE, connecting, outside};
use super::{CALLED, IPAM, cases, remembered, sorry};
use crate::host::Host;
use crate::host::net::{Protocol, Server, ask_for};
use crate::host::pod::Pod;
use crate::host::shape::{bare_addresses, list, text};
use crate::verdict::{Finding, Verdict, ensure, fail, skip};

cases! { "capabilities":
    "CAP-1a" since "0.3.0" in "CONVENTIONS, mac" for CALLED => mac_is_set,
        "The hardware address that is asked for is the interface's",
        "mac: Dynamically assign MAC. Runtime can pass this to plugins which need MAC as input.",
        "ADD with runtimeConfig.mac; `ip -j link` in the namespace must show it, and the result too.";
    "CAP-1b" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, "mac", &json!("nonsense")),
        "A hardware address that is none is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with a word as runtimeConfig.mac; it must fail with an error object.";
    "CAP-2a" since "0.3.0" in "CONVENTIONS, bandwidth" for CALLED => shaped_in,
        "Traffic into the pod is held to ingressRate",
        "bandwidth: Dynamically configure interface bandwidth limits. ingressRate in bits per second.",
        "ADD with 8 Mbit/s and a burst of 0.1 MB; 2 MB go from the host to the pod, for which less than a second is too short.";
    "CAP-2b" since "0.3.0" in "CONVENTIONS, bandwidth" for CALLED => shaped_out,
        "Traffic out of the pod is held to egressRate",
        "bandwidth: Dynamically configure interface bandwidth limits. egressRate in bits per second.",
        "ADD with 8 Mbit/s and a burst of 0.1 MB; 2 MB go from the pod to the host, for which less than a second is too short.";
    "CAP-2c" since "0.3.0" in "CONVENTIONS" for CALLED => |host| refused(host, "bandwidth", &json!({ "ingressRate": "fast", "ingressBurst": 1000 })),
        "A rate that is no number is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with a word as ingressRate; it must fail with an error object.";
    "CAP-3" since "0.3.0" in "CONVENTIONS, dns" for CALLED => dns_is_used,
        "The DNS servers that the runtime gives are in the result",
        "dns: Dynamically configure dns according to runtime. List of servers, searches and options.",
        "ADD with runtimeConfig.dns; the result's nameservers and search must be those.";
    "CAP-4" since "0.3.0" in "CONVENTIONS, ipRanges" for IPAM => ranges_are_used,
        "The ranges that the runtime gives are used",
        "ipRanges: Dynamically configure the IP range(s) for address allocation.",
        "ADD with runtimeConfig.ipRanges of 10.123.0.0/24; the result must have an address of it.";
    "CAP-5" since "0.3.0" in "3, Deriving runtimeConfig" for CALLED => undeclared,
        "What the config does not declare may be left out",
        "any capability supported by the plugin configuration and provided by the runtime should be inserted in the runtimeConfig.",
        "ADD and DEL with an empty runtimeConfig; both must succeed.";
}

/// The place of the plugin in the chain that declares the capability; skips if none does.
fn declaring(host: &Host, name: &str) -> Verdict<usize> {
    let plugins = host.target.plugins.iter();
    match plugins.enumerate().find(|(_, plugin)| crate::target::declares(plugin, name)) {
        Some((index, _)) => Ok(index),
        None => skip!("the target does not declare the capability {name}"),
    }
}

fn attached(host: &Host, name: &str, value: Value) -> Verdict<(Pod, Value)> {
    declaring(host, name)?;
    let pod = remembered(host, host.pod()?.with(name, value));
    let result = host.attach(&pod)?;
    Ok((pod, result))
}

/// That the plugin which declares the capability refuses this argument.
fn refused(host: &Host, name: &str, value: &Value) -> Verdict {
    let index = declaring(host, name)?;
    let pod = remembered(host, host.pod()?.with(name, value.clone()));
    let call = host.call_at("ADD", index).pod(&pod);
    let call = if index == 0 { call } else { call.prev(&host.attach_until(&pod, index)?) };
    sorry(&call.run()?).map(drop)
}

fn mac_is_set(host: &Host) -> Verdict {
    let mac = "02:c0:f0:77:77:77";
    let (pod, result) = attached(host, "mac", json!(mac))?;
    let link = pod.link()?.unwrap_or_default();
    ensure!(text(&link, "address") == mac, "{} has {:?}", pod.ifname, text(&link, "address"));
    let own = list(&result, "interfaces").iter().find(|one| text(one, "name") == pod.ifname);
    let said = own.map(|one| text(one, "mac")).unwrap_or_default();
    ensure!(said.eq_ignore_ascii_case(mac), "the result has {said:?}");
    Ok(())
}

const BYTES: usize = 2_000_000;

/// A token bucket of this rate needs 1.9 s for the bytes. A slow machine needs longer, never shorter.
const AT_LEAST: Duration = Duration::from_secs(1);

fn limits() -> Value {
    json!({ "ingressRate": 8_000_000, "ingressBurst": 800_000, "egressRate": 8_000_000, "egressBurst": 800_000 })
}

fn takes_its_time(from: Option<&Pod>, to: &str) -> Verdict {
    let address = to.parse().map_err(|_| Finding::Trouble(format!("{to} is no address")))?;
    let start = Instant::now();
    let path = from.map(|pod| pod.path.as_str());
    let patience = Duration::from_secs(60);
    match ask_for(path, Protocol::Tcp, std::net::SocketAddr::new(address, 8080), BYTES, patience)? {
        Some(reply) if reply.bytes == BYTES => {}
        reply => fail!("{BYTES} bytes did not arrive: {reply:?}"),
    }
    let took = start.elapsed();
    ensure!(took >= AT_LEAST, "{BYTES} bytes took {} ms, at 8 Mbit/s they take 1900", took.as_millis());
    Ok(())
}

fn shaped_in(host: &Host) -> Verdict {
    connecting(host)?;
    let (pod, result) = attached(host, "bandwidth", limits())?;
    let _server = Server::start(Some(&pod.path), 8080, "pod")?;
    let Some(address) = bare_addresses(&result).first().cloned() else { fail!("the pod has no address: {result}") };
    takes_its_time(None, &address)
}

fn shaped_out(host: &Host) -> Verdict {
    connecting(host)?;
    let (pod, _) = attached(host, "bandwidth", limits())?;
    let _outside = outside()?;
    let _server = Server::start(None, 8080, "node")?;
    takes_its_time(Some(&pod), NODE[0])
}

fn dns_is_used(host: &Host) -> Verdict {
    let dns = json!({ "servers": ["198.51.100.53"], "searches": ["given.test"], "options": ["ndots:2"] });
    let (_, result) = attached(host, "dns", dns)?;
    let said = result.get("dns").cloned().unwrap_or_default();
    let fits = said["nameservers"] == json!(["198.51.100.53"]) && said["search"] == json!(["given.test"]);
    ensure!(fits, "the result's dns is {said}");
    Ok(())
}

fn ranges_are_used(host: &Host) -> Verdict {
    let (_, result) = attached(host, "ipRanges", json!([[{ "subnet": "10.123.0.0/24" }]]))?;
    let found = bare_addresses(&result);
    ensure!(found.iter().any(|address| address.starts_with("10.123.0.")), "the result has {found:?}");
    Ok(())
}

fn undeclared(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.call_for("ADD", &pod).key("runtimeConfig", json!({})).run()?.result()?;
    host.call_for("DEL", &pod).key("runtimeConfig", json!({})).prev(&result).run()?.success().map(drop)
}
