//! Giving out addresses.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ADDRESSING, IPAM, cases, disjoint};
use crate::host::Host;
use crate::host::shape::{bare, bare_addresses, family, list, text};
use crate::verdict::{Verdict, ensure, skip};

cases! { "ipam":
    "IPA-1" since "0.1.0" in "4, Plugin Delegation" for ADDRESSING => all_differ,
        "Twelve containers get twelve addresses",
        "The IPAM plugin must determine the interface IP/subnet.",
        "ADD of twelve containers; no address may be given out twice.";
    "IPA-2" since "0.1.0" in "4, Plugin Delegation" for ADDRESSING => gateway_is_not_given_out,
        "The gateway is not given out",
        "gateway: the default gateway for this subnet, if one exists.",
        "A small pool is used up; no container may have an address that is another's gateway.";
    "IPA-3" since "0.1.0" in "5, Error" for ADDRESSING => used_up,
        "A pool that is used up is an error",
        "If the plugin encounters an error, it should output an \"error\" result structure.",
        "A small pool is used up; the ADD after that must fail with an error object, again and again.";
    "IPA-4" since "0.1.0" in "2, ADD" for ADDRESSING => used_up_does_no_harm,
        "An ADD that finds no address takes none",
        "A delete must still be executed even if the add fails.",
        "A small pool is used up, one ADD and its DEL fail to find more, one container is DELeted; the next ADD must succeed.";
    "IPA-5" since "0.1.0" in "4, Plugin Delegation" for IPAM => needs_no_namespace,
        "An IPAM plugin does not need the namespace",
        "Release an IP allocation and return success even if the container network namespace no longer exists, unless that network namespace is critical for IPAM management.",
        "ADD and DEL with a CNI_NETNS that does not exist; both must succeed.";
    "IPA-6" since "0.4.0" in "CONVENTIONS, ips" for ADDRESSING => asked_for,
        "An address that is asked for is given out",
        "ips: Dynamically allocate IPs for container interface. Runtime config: a list of IP addresses in CIDR notation.",
        "An address is learnt by ADD and DEL; ADD with it in runtimeConfig.ips must give it out.";
    "IPA-7" since "0.4.0" in "CONVENTIONS, ips" for ADDRESSING => asked_for_and_taken,
        "An address that is asked for and taken is refused",
        "ips: a plugin should error if an expected field cannot be honoured.",
        "ADD of one container, ADD of another with the first's address in runtimeConfig.ips; it must fail.";
    "IPA-8" since "0.4.0" in "CONVENTIONS, ips" for ADDRESSING => asked_for_elsewhere,
        "An address that is asked for and not in the pool is refused",
        "ips: a plugin should error if an expected field cannot be honoured.",
        "ADD with 203.0.113.250 in runtimeConfig.ips; it must fail.";
    "IPA-9" since "0.4.0" in "CONVENTIONS, ips" for ADDRESSING => asked_for_nonsense,
        "An address that is asked for and none at all is refused",
        "A plugin should error if an expected field is malformed.",
        "ADD with a word in runtimeConfig.ips; it must fail with an error object.";
    "IPA-10" since "0.1.0" in "practice: ARP caches and policies outlive a container" for ADDRESSING => not_at_once,
        "An address is not given out again at once",
        "An address that has just been released is the last to be given out again.",
        "ADD, DEL, ADD of another container; it must get other addresses.";
    "IPA-11" since "0.1.0" in "4, Plugin Delegation" for ADDRESSING => prefix_is_whole,
        "All addresses of a network have the same prefix length",
        "address: an IP address in CIDR notation.",
        "ADD of four containers; the prefix lengths of each family must be the same.";
    "IPA-12" since "0.1.0" in "4, Plugin Delegation" for ADDRESSING => families_are_promised,
        "Every container gets an address of each family that is promised",
        "ips: IPs assigned by this attachment.",
        "ADD of four containers; each must have the families that the target file promises.";
}

fn all_differ(host: &Host) -> Verdict {
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        for address in bare_addresses(&host.attach(&host.pod()?)?) {
            ensure!(seen.insert(address.clone()), "{address} was given out twice");
        }
    }
    Ok(())
}

fn gateway_is_not_given_out(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let (mut addresses, mut gateways) = (Vec::new(), BTreeSet::new());
    for _ in 0..40 {
        let answer = host.call_for("ADD", &host.pod()?).merge(patch).run()?;
        if !answer.succeeded() {
            break;
        }
        let result = answer.result()?;
        addresses.extend(bare_addresses(&result));
        gateways.extend(list(&result, "ips").iter().map(|ip| text(ip, "gateway").to_owned()));
    }
    let given: Vec<_> = addresses.iter().filter(|address| gateways.contains(*address)).collect();
    ensure!(!addresses.is_empty() && given.is_empty(), "gateways were given out: {given:?}");
    Ok(())
}

fn used_up(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    super::gc::fill(host, patch)?;
    for _ in 0..2 {
        super::sorry(&host.call_for("ADD", &host.pod()?).merge(patch).run()?)?;
    }
    Ok(())
}

fn used_up_does_no_harm(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let pods = super::gc::fill(host, patch)?;
    let late = host.pod()?;
    for command in ["ADD", "DEL"] {
        host.call_for(command, &late).merge(patch).run()?;
    }
    for pod in pods.iter().take(1) {
        host.call_for("DEL", pod).merge(patch).run()?.success()?;
    }
    host.attach_with(&late, patch).map(drop)
}

fn needs_no_namespace(host: &Host) -> Verdict {
    let mut pod = host.pod()?;
    pod.path = "/run/netns/not-there".to_owned();
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))
}

/// A call with runtimeConfig.ips.
fn asking(host: &Host, addresses: &[String]) -> Verdict<crate::host::call::Answer> {
    if !host.target.has_capability("ips") {
        skip!("the target does not declare the capability ips");
    }
    host.call_for("ADD", &host.pod()?).capability("ips", json!(addresses)).run()
}

fn asked_for(host: &Host) -> Verdict {
    let pod = host.pod()?;
    host.attach(&pod)?;
    let second = host.pod()?;
    let result = host.attach(&second)?;
    host.detach(&second, Some(&result))?;
    let wanted: Vec<_> = crate::host::shape::addresses(&result);
    let got = crate::host::shape::addresses(&asking(host, &wanted)?.result()?);
    ensure!(got == wanted, "asked for {wanted:?}, got {got:?}");
    Ok(())
}

fn asked_for_and_taken(host: &Host) -> Verdict {
    let result = host.attach(&host.pod()?)?;
    asking(host, &crate::host::shape::addresses(&result))?.error().map(drop)
}

fn asked_for_elsewhere(host: &Host) -> Verdict {
    asking(host, &["203.0.113.250/24".to_owned()])?.error().map(drop)
}

fn asked_for_nonsense(host: &Host) -> Verdict {
    super::sorry(&asking(host, &["nonsense".to_owned()])?).map(drop)
}

fn not_at_once(host: &Host) -> Verdict {
    if host.target.traits.one_address {
        skip!("all pods get the same address");
    }
    let pod = host.pod()?;
    let first = host.attach(&pod)?;
    host.detach(&pod, Some(&first))?;
    disjoint(&first, &host.attach(&host.pod()?)?)
}

fn results(host: &Host) -> Verdict<Vec<Value>> {
    (0..4).map(|_| host.attach(&host.pod()?)).collect()
}

fn prefix_is_whole(host: &Host) -> Verdict {
    let mut prefixes = BTreeSet::new();
    for result in results(host)? {
        for address in crate::host::shape::addresses(&result) {
            let prefix = address.split('/').nth(1).unwrap_or_default().to_owned();
            prefixes.insert((family(bare(&address)), prefix));
        }
    }
    let families: BTreeSet<_> = prefixes.iter().map(|(family, _)| *family).collect();
    ensure!(families.len() == prefixes.len(), "there are several prefix lengths: {prefixes:?}");
    Ok(())
}

fn families_are_promised(host: &Host) -> Verdict {
    for result in results(host)? {
        let found: BTreeSet<_> = bare_addresses(&result).iter().map(|address| family(address)).collect();
        for (promised, name) in [(host.target.traits.ipv4, "4"), (host.target.traits.ipv6, "6")] {
            ensure!(!promised || found.contains(name), "there is no IPv{name} address: {result}");
        }
    }
    Ok(())
}
