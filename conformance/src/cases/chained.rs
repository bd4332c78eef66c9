//! What a plugin does with the result of the one before it.

use serde_json::{Value, json};

use super::{CHAINED, cases};
use crate::host::Host;
use crate::host::shape::{at_least, list, text};
use crate::verdict::{Verdict, ensure};

cases! { "chained":
    "ADD-3a" since "0.3.0" in "2, ADD" for CHAINED => |host| kept(host, "ips"),
        "The addresses of prevResult are handed on",
        "If the plugin was supplied a prevResult as part of its input configuration, it MUST handle prevResult by either passing it through, or modifying it appropriately.",
        "ADD with a prevResult of two addresses; both must be in the result, with their gateways.";
    "ADD-3b" since "0.3.0" in "2, ADD" for CHAINED => |host| kept(host, "routes"),
        "The routes of prevResult are handed on",
        "If the plugin was supplied a prevResult as part of its input configuration, it MUST handle prevResult by either passing it through, or modifying it appropriately.",
        "ADD with a prevResult of two routes; both must be in the result.";
    "ADD-3c" since "0.3.0" in "2, ADD" for CHAINED => |host| kept(host, "interfaces"),
        "The interfaces of prevResult are handed on in their order",
        "Plugins provided a prevResult key as part of their request configuration must output it as their result, with any possible modifications made by that plugin included.",
        "ADD with a prevResult of two interfaces; the result's list must begin with their names, or the indexes in ips would be wrong.";
    "ADD-3d" since "0.3.0" in "2, ADD" for CHAINED => dns_is_kept,
        "The dns of prevResult is handed on",
        "Plugins provided a prevResult key as part of their request configuration must output it as their result, with any possible modifications made by that plugin included.",
        "ADD with a prevResult with dns; nameservers and search must be in the result.";
    "ADD-3e" since "0.3.0" in "5, ADD Success" for CHAINED => indexes_are_kept,
        "Addresses stay with their interface",
        "interface: the index into the interfaces list.",
        "ADD with a prevResult whose ips have interface 1; the result's must lead to the same name.";
    "ADD-3f" since "0.4.0" in "2, ADD" for CHAINED => every_version_is_kept,
        "A prevResult of every version is handed on",
        "If the plugin was supplied a prevResult as part of its input configuration, it MUST handle prevResult.",
        "ADD in every version from 0.3.0 with a prevResult of that version; the addresses must be in each result.";
    "ADD-3g" since "0.3.0" in "3, Adding an attachment" for CHAINED => without_prev_result,
        "Without a prevResult there is no crash",
        "If the plugin encounters an error, it should output an \"error\" result structure.",
        "ADD without prevResult; the plugin must fail with an error object, or succeed with a result.";
    "ADD-3h" since "0.3.0" in "practice: prevResult may be of any plugin" for CHAINED => address_without_interface,
        "An address without an interface does no harm",
        "interface: the index into the interfaces list. Plugins may include IPs assigned external to the container.",
        "ADD with a third address in prevResult that has no interface; it must be in the result.";
    "ADD-3i" since "0.3.0" in "5, Error" for CHAINED => broken_prev_result,
        "A prevResult that is none is refused",
        "6: Failed to decode content. 7: Invalid network config.",
        "ADD with a text as prevResult; the plugin must fail with an error object.";
    "ADD-6" since "0.3.0" in "5, ADD Success" for CHAINED => interface_is_unharmed,
        "The interface keeps its addresses and stays up",
        "Adjust the configuration of the interface defined by CNI_IFNAME inside the container at CNI_NETNS.",
        "ADD; `ip -j address` in the namespace must show the addresses of prevResult and the flag UP.";
    "DEL-1d" since "0.1.0" in "2, DEL" for CHAINED => del_keeps_the_interface,
        "DEL of a chained plugin leaves the interface to the one that made it",
        "Undo any modifications applied in the plugin's ADD functionality.",
        "ADD and DEL; `ip -j address` in the namespace must still show the interface with its addresses.";
}

fn add(host: &Host) -> Verdict<(Value, Value)> {
    let pod = host.pod()?;
    let before = pod.scaffold_result(host.version()).unwrap_or_default();
    Ok((before, host.attach(&pod)?))
}

/// The fields by which an entry of each list is known.
fn essence(key: &str, entry: &Value) -> Vec<String> {
    let fields: &[&str] = match key {
        "ips" => &["address", "gateway"],
        "routes" => &["dst", "gw"],
        _ => &["name", "sandbox"],
    };
    fields.iter().map(|field| text(entry, field).to_owned()).collect()
}

fn kept(host: &Host, key: &str) -> Verdict {
    let (before, after) = add(host)?;
    let given: Vec<_> = list(&before, key).iter().map(|entry| essence(key, entry)).collect();
    let got: Vec<_> = list(&after, key).iter().map(|entry| essence(key, entry)).collect();
    ensure!(got.starts_with(&given), "prevResult had {key} {given:?}, the result has {got:?}");
    Ok(())
}

fn dns_is_kept(host: &Host) -> Verdict {
    let (before, after) = add(host)?;
    for key in ["nameservers", "search"] {
        let (given, got) = (before["dns"].get(key), after.get("dns").and_then(|dns| dns.get(key)));
        ensure!(given == got, "prevResult had dns.{key} {given:?}, the result has {got:?}");
    }
    Ok(())
}

fn indexes_are_kept(host: &Host) -> Verdict {
    let (_, after) = add(host)?;
    let own = host.ifname.as_str();
    for ip in list(&after, "ips") {
        let index = ip.get("interface").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let name = index.and_then(|index| list(&after, "interfaces").get(index)).map(|one| text(one, "name"));
        ensure!(name == Some(own), "{ip} was of {own} and is of {name:?}");
    }
    Ok(())
}

fn every_version_is_kept(host: &Host) -> Verdict {
    for version in host.profile.versions.iter().filter(|version| at_least(version, "0.3.0")) {
        let pod = host.pod()?;
        let result = host.call_for("ADD", &pod).version(version).run()?.result()?;
        let due = crate::host::shape::addresses(&pod.scaffold_result(version).unwrap_or_default());
        let got = crate::host::shape::addresses(&result);
        ensure!(due == got, "{version}: prevResult had {due:?}, the result has {got:?}");
    }
    Ok(())
}

fn without_prev_result(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let answer = host.call_for("ADD", &pod).without_key("prevResult").run()?;
    if answer.succeeded() { answer.result().map(drop) } else { super::sorry(&answer).map(drop) }
}

fn address_without_interface(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    let ips = pod.scaffold.as_mut().and_then(|result| result.get_mut("ips")).and_then(Value::as_array_mut);
    ips.into_iter().for_each(|ips| ips.push(json!({ "address": "203.0.113.77/32" })));
    let result = host.attach(&pod)?;
    let found = crate::host::shape::addresses(&result);
    ensure!(found.iter().any(|address| address == "203.0.113.77/32"), "it is not in the result: {found:?}");
    Ok(())
}

fn broken_prev_result(host: &Host) -> Verdict {
    let pod = host.pod()?;
    super::sorry(&host.call_for("ADD", &pod).key("prevResult", json!("nonsense")).run()?).map(drop)
}

fn interface_is_unharmed(host: &Host) -> Verdict {
    let pod = host.pod()?;
    host.attach(&pod)?;
    still_whole(&pod)
}

fn still_whole(pod: &crate::host::pod::Pod) -> Verdict {
    super::add::holds_addresses(pod, &pod.scaffold_result("1.0.0").unwrap_or_default())?;
    let link = pod.link()?.unwrap_or_default();
    ensure!(list(&link, "flags").iter().any(|flag| flag == "UP"), "{} is not up", pod.ifname);
    Ok(())
}

fn del_keeps_the_interface(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    still_whole(&pod)
}
