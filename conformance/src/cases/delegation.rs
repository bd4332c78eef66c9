//! What a main plugin does with its IPAM plugin. The suite's own takes that place: it writes down how it was called.

use serde_json::{Value, json};

use super::stand_in::{answering, attached, call, commands, done, failing, of_type, spied};
use super::{MAIN, cases, nothing_is_left, sorry};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::pod::Pod;
use crate::host::shape::{bare_addresses, list, text};
use crate::spy::{self, Script};
use crate::verdict::{Finding, Verdict, ensure};

cases! { "delegation":
    "IPAM-1a" since "0.1.0" in "4, Delegated Plugin protocol" for MAIN => is_executed,
        "The IPAM plugin is found in CNI_PATH and executed",
        "Look up the plugin binary by searching the directories provided in CNI_PATH environment variable.",
        "ADD with the suite's IPAM plugin in the last of CNI_PATH's folders, after one that has a folder of that name; it must have been called once, with CNI_COMMAND=ADD.";
    "IPAM-1b" since "0.1.0" in "4, Delegated Plugin protocol" for MAIN => |host| same_environment(host, "ADD"),
        "The IPAM plugin gets the same environment on ADD",
        "The delegated plugin must receive all the same environment variables that were passed in to the CNI plugin.",
        "ADD with every variable set, and TRACEPARENT and a foreign one besides; the IPAM plugin must have got the same values, of TRACEPARENT the same trace.";
    "IPAM-1c" since "0.1.0" in "4, Delegated Plugin protocol" for MAIN => |host| same_environment(host, "DEL"),
        "The IPAM plugin gets the same environment on DEL",
        "The delegated plugin must receive all the same environment variables that were passed in to the CNI plugin.",
        "DEL with every variable set, and TRACEPARENT and a foreign one besides; the IPAM plugin must have got the same values, of TRACEPARENT the same trace.";
    "IPAM-1d" since "0.1.0" in "4, Delegated Plugin protocol" for MAIN => complete_config,
        "The IPAM plugin gets the complete config",
        "Delegated plugins are provided the complete network configuration passed to the upper plugin. In other words, in the IPAM case, not just the ipam section.",
        "ADD with args of another project in the config; what the IPAM plugin read must be the same JSON.";
    "IPAM-2" since "1.0.0" in "4, Delegated plugin execution procedure" for MAIN => stderr_is_passed_on,
        "The IPAM plugin's stderr comes out",
        "Ensure that the delegated plugin's stderr is output to the calling plugin's stderr.",
        "ADD with an IPAM plugin that writes a line to stderr; that line must be in the plugin's stderr.";
    "IPAM-5a" since "0.1.0" in "4, Plugin Delegation" for MAIN => address_is_applied,
        "The IPAM plugin's address is put on the interface",
        "The IPAM plugin must determine the interface IP/subnet, Gateway and Routes and return this information to the main plugin to apply.",
        "ADD with an IPAM plugin that gives out 10.111.0.7; `ip -j address` in the namespace must show it, and the result too.";
    "IPAM-5b" since "0.1.0" in "4, Plugin Delegation" for MAIN => routes_are_applied,
        "The IPAM plugin's routes are put into the container",
        "The IPAM plugin must determine the interface IP/subnet, Gateway and Routes and return this information to the main plugin to apply.",
        "ADD with an IPAM plugin that gives out a route to 198.51.100.0/24; `ip -j route` in the namespace must show it, and the result too.";
    "IPAM-5c" since "0.3.0" in "4, Plugin Delegation" for MAIN => both_families_are_applied,
        "Several addresses of both families are put on the interface",
        "ips: IPs assigned by this attachment.",
        "ADD with an IPAM plugin that gives out two IPv4 addresses and an IPv6 address; the interface must have all three.";
    "IPAM-5d" since "0.3.0" in "5, ADD Success" for MAIN => addresses_get_their_interface,
        "The IPAM plugin's addresses get an index in the result",
        "interface: the index into the interfaces list for a CNI Plugin Result indicating which interface this IP configuration should be applied to.",
        "ADD; every entry of ips must lead to CNI_IFNAME.";
    "IPAM-6a" since "0.1.0" in "5, ADD Success" for MAIN => dns_is_handed_on,
        "The IPAM plugin's dns is handed on",
        "dns: a dictionary consisting of DNS configuration information.",
        "ADD with an IPAM plugin that answers with dns; the result must have the same nameservers, search and domain.";
    "IPAM-6b" since "0.3.0" in "1, Plugin configuration objects" for MAIN => own_dns_wins,
        "The config's dns is respected",
        "Plugins that consume any of these configuration keys should respect their intended semantics. dns: nameservers.",
        "ADD with dns.nameservers in the config; the result must have these.";
    "IPAM-7a" since "0.1.0" in "4, Delegated plugin execution procedure" for MAIN => |host| refuses(host, |call| call.merge(&of_type("not-a-plugin"))),
        "An IPAM plugin that is not there is an error",
        "Look up the plugin binary by searching the directories provided in CNI_PATH environment variable.",
        "ADD with an ipam.type that no folder has; it must fail with an error object.";
    "IPAM-7b" since "0.1.0" in "4, Plugin Delegation" for MAIN => |host| refuses_answer(host, "this is not JSON"),
        "An answer of the IPAM plugin that is not JSON is an error",
        "Success is indicated by a zero return code and a Success result type output to stdout.",
        "ADD with an IPAM plugin that prints a sentence; it must fail with an error object.";
    "IPAM-7c" since "0.1.0" in "4, Plugin Delegation" for MAIN => |host| refuses_answer(host, ""),
        "No answer of the IPAM plugin is an error",
        "Success is indicated by a zero return code and a Success result type output to stdout.",
        "ADD with an IPAM plugin that prints nothing; it must fail with an error object.";
    "IPAM-7d" since "1.0.0" in "1, Plugin configuration objects" for MAIN => type_with_a_path,
        "An ipam.type with a slash is refused",
        "type: Must not contain characters disallowed in file paths for the system (e.g. / or \\).",
        "ADD with a path as ipam.type; it must fail, and the program not be run.";
    "IPAM-7e" since "0.1.0" in "4, Delegated plugin execution procedure" for MAIN => error_is_handed_on,
        "The IPAM plugin's error on ADD is handed on",
        "If any of the delegated plugins return error, error should be returned by the upper plugin.",
        "ADD with an IPAM plugin that fails with a code and a text of its own; the plugin's error must have both.";
    "IPAM-8a" since "0.3.0" in "practice: libcni fills in the version" for MAIN => answer_without_version,
        "An IPAM answer without cniVersion is of the config's version",
        "Delegated plugins may omit irrelevant sections.",
        "ADD with an IPAM plugin whose answer has no cniVersion; it must succeed with the address.";
    "IPAM-8b" since "0.3.0" in "practice: results are converted" for MAIN => older_answer,
        "An IPAM answer in an older version is understood",
        "The protocol follows Semantic Versioning principles.",
        "ADD with an IPAM plugin that answers in the shape of 0.2.0; it must succeed with the address.";
    "ADD-8a" since "1.0.0" in "4, Delegated plugin execution procedure" for MAIN => failed_add_is_undone,
        "The IPAM plugin's failed ADD is followed by its DEL",
        "If, on ADD, a delegated plugin fails, the upper plugin should execute again with DEL before returning failure.",
        "ADD with an IPAM plugin that fails; it must have been called with ADD and then with DEL.";
    "ADD-8b" since "1.0.0" in "4, Delegated plugin execution procedure" for MAIN => useless_answer_is_undone,
        "An ADD that fails after the IPAM plugin's gives the lease back",
        "If, on ADD, a delegated plugin fails, the upper plugin should execute again with DEL before returning failure.",
        "ADD with an IPAM plugin whose answer has no addresses; the plugin must fail, and have called DEL.";
    "ADD-8c" since "1.0.0" in "4, Delegated plugin execution procedure" for MAIN => failed_add_leaves_no_interface,
        "An ADD that the IPAM plugin fails leaves no interface",
        "If, on ADD, a delegated plugin fails, the upper plugin should execute again with DEL before returning failure.",
        "ADD with an IPAM plugin that fails; there must be no interface in the container and nothing new on the host.";
    "DEL-6a" since "0.1.0" in "4, Delegated plugin execution procedure" for MAIN => del_is_delegated,
        "DEL is delegated",
        "If a plugin is executed with CNI_COMMAND=CHECK, DEL, or GC, it must also execute any delegated plugins.",
        "ADD and DEL; the IPAM plugin must have been called with DEL.";
    "DEL-6b" since "1.0.0" in "4, Delegated plugin execution procedure" for MAIN => del_error_is_handed_on,
        "The IPAM plugin's error on DEL is handed on",
        "If any of the delegated plugins return error, error should be returned by the upper plugin.",
        "ADD, DEL with an IPAM plugin that fails; DEL must fail.";
    "DEL-6c" since "0.4.0" in "2, DEL" for MAIN => del_without_namespace_is_delegated,
        "DEL is delegated if the namespace is gone",
        "The bridge plugin should delegate the DEL action to the IPAM plugin even if the container network namespace and/or container network interface no longer exist.",
        "ADD, the namespace is removed, DEL with an empty CNI_NETNS; the IPAM plugin must have been called with DEL.";
    "DEL-6d" since "1.1.0" in "2, DEL" for MAIN => del_error_stops_nothing,
        "The IPAM plugin's error on DEL does not keep the interface",
        "DEL command invocations are always considered best-effort: to the fullest extent possible.",
        "ADD, DEL with an IPAM plugin that fails; the interface must be gone.";
    "CHK-7a" since "0.4.0" in "2, CHECK" for MAIN => check_is_delegated,
        "CHECK is delegated",
        "The plugin should call CHECK on any delegated (e.g. IPAM) plugins and pass any errors on to its caller.",
        "ADD and CHECK; the IPAM plugin must have been called with CHECK.";
    "CHK-7b" since "0.4.0" in "2, CHECK" for MAIN => check_error_is_handed_on,
        "The IPAM plugin's error on CHECK is handed on",
        "The plugin should call CHECK on any delegated (e.g. IPAM) plugins and pass any errors on to its caller.",
        "ADD, CHECK with an IPAM plugin that fails; CHECK must fail.";
    "GC-4a" since "1.1.0" in "2, GC" for MAIN => gc_is_delegated,
        "GC is delegated with its list",
        "Plugins MUST, additionally, forward any GC calls to delegated plugins they are configured to use.",
        "GC; the IPAM plugin must have been called with GC and the same valid attachments.";
    "GC-4b" since "1.1.0" in "2, GC" for MAIN => gc_error_is_handed_on,
        "The IPAM plugin's error on GC is handed on",
        "If an error is encountered, a plugin should continue; removing as many resources as possible, and report the errors back to the runtime.",
        "GC with an IPAM plugin that fails; GC must fail.";
    "STA-4a" since "1.1.0" in "2, STATUS" for MAIN => status_is_delegated,
        "STATUS is delegated",
        "If a plugin relies on a delegated plugin (e.g. IPAM) to service ADD requests, it must also execute a STATUS request to that plugin.",
        "STATUS; the IPAM plugin must have been called with STATUS.";
    "STA-4b" since "1.1.0" in "2, STATUS" for MAIN => status_error_is_handed_on,
        "The IPAM plugin's error on STATUS is handed on",
        "If the delegated plugin return an error result, the executing plugin should return an error result.",
        "STATUS with an IPAM plugin that fails; STATUS must fail.";
    "STA-3" since "1.1.0" in "2, STATUS" for MAIN => add_despite_status,
        "ADD is tried even if STATUS has failed",
        "Plugins should always expect other CNI operations (like ADD, DEL, etc) even if STATUS returns an error.",
        "STATUS with an IPAM plugin that fails at STATUS only, then ADD and DEL; both must succeed.";
}

fn is_executed(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let mut path = host.cni_path();
    path.push(":");
    path.push(spy::decoy()?);
    path.push(":");
    path.push(spy::folder());
    let answer = call(host, "ADD", &pod)?.env("CNI_PATH", path).run()?;
    let seen = commands(&spy::records()?);
    done(host, &pod)?;
    answer.success()?;
    ensure!(seen == ["ADD"], "the IPAM plugin was called with {seen:?}");
    Ok(())
}

fn same_environment(host: &Host, command: &str) -> Verdict {
    let (pod, result) = attached(host)?;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    if command == "ADD" {
        call(host, "DEL", &pod)?.prev(&result).run()?.success()?;
        spy::records()?;
    }
    call(host, command, &pod)?.env("TRACEPARENT", trace).env(spy::FOREIGN, "kept").run()?.success()?;
    let records = spy::records()?;
    done(host, &pod)?;
    let Some(record) = records.iter().find(|record| record.var("CNI_COMMAND") == command) else {
        return Err(Finding::Failed(format!("the IPAM plugin was not called with {command}")));
    };
    let due = [
        ("CNI_CONTAINERID", pod.id.as_str()),
        ("CNI_NETNS", &pod.path),
        ("CNI_IFNAME", &pod.ifname),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
        (spy::FOREIGN, "kept"),
    ];
    for (key, value) in due {
        ensure!(record.var(key) == value, "{key} was {:?} instead of {value:?}", record.var(key));
    }
    // A plugin that takes part in the trace is the parent of what it calls (W3C Trace Context); the trace is the same.
    let (id, got) = (trace.get(..35).unwrap_or_default(), record.var("TRACEPARENT"));
    ensure!(got.starts_with(id), "TRACEPARENT was {got:?}, which is not of {id:?}");
    ensure!(record.var("CNI_PATH").contains("cni-conformance"), "CNI_PATH was {:?}", record.var("CNI_PATH"));
    Ok(())
}

fn complete_config(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let call = call(host, "ADD", &pod)?.key("args", json!({ "org.example/own": { "a": [1, 2.5, null, "ü"] } }));
    let config = Value::Object(call.config().clone());
    call.run()?.success()?;
    let records = spy::records()?;
    done(host, &pod)?;
    for record in &records {
        let read: Value = serde_json::from_str(&record.stdin)
            .map_err(|error| Finding::Failed(format!("the IPAM plugin's stdin was not JSON: {error}")))?;
        ensure!(read == config, "the IPAM plugin got {read} instead of {config}");
    }
    ensure!(!records.is_empty(), "the IPAM plugin was not called");
    Ok(())
}

fn stderr_is_passed_on(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let line = "a line from the IPAM plugin";
    let result = crate::host::shape::reshape(&spy::lease(), host.version());
    spy::script("ADD", &Script { stderr: format!("{line}\n"), ..answering(&result) })?;
    let answer = call(host, "ADD", &pod)?.run()?;
    done(host, &pod)?;
    answer.success()?;
    let stderr = String::from_utf8_lossy(&answer.finished.stderr);
    ensure!(stderr.contains(line), "stderr has {stderr:?}");
    Ok(())
}

/// ADD with an IPAM plugin that answers so (in the newest shape); then what the kernel and the result have.
fn applied(host: &Host, lease: &Value) -> Verdict<(Pod, Value)> {
    let pod = host.pod()?;
    let version = host.version();
    spy::script("ADD", &answering(&crate::host::shape::reshape(lease, version)))?;
    let result = call(host, "ADD", &pod)?.run()?.result()?;
    Ok((pod, result))
}

fn address_is_applied(host: &Host) -> Verdict {
    let (pod, result) = applied(host, &spy::lease())?;
    let found = super::add::kernel_addresses(&pod)?;
    done(host, &pod)?;
    ensure!(found.iter().any(|address| address == "10.111.0.7"), "the interface has {found:?}");
    ensure!(bare_addresses(&result) == ["10.111.0.7"], "the result has {:?}", bare_addresses(&result));
    Ok(())
}

fn routes_are_applied(host: &Host) -> Verdict {
    let mut lease = spy::lease();
    lease["routes"] = json!([{ "dst": "0.0.0.0/0" }, { "dst": "198.51.100.0/24", "gw": "10.111.0.1" }]);
    let (pod, result) = applied(host, &lease)?;
    let routes = super::add::kernel_routes(&pod)?;
    done(host, &pod)?;
    for dst in ["default", "198.51.100.0/24"] {
        ensure!(routes.iter().any(|route| text(route, "dst") == dst), "the container has no route to {dst}");
    }
    let said = list(&result, "routes").iter().any(|route| text(route, "dst") == "198.51.100.0/24");
    ensure!(said, "the result has no route to 198.51.100.0/24: {result}");
    Ok(())
}

fn both_families_are_applied(host: &Host) -> Verdict {
    let mut lease = spy::lease();
    lease["ips"] = json!([
        { "address": "10.111.0.7/24", "gateway": "10.111.0.1" },
        { "address": "10.112.0.7/24", "gateway": "10.112.0.1" },
        { "address": "fd00:111::7/64", "gateway": "fd00:111::1" },
    ]);
    lease["routes"] = json!([]);
    let (pod, result) = applied(host, &lease)?;
    let found = super::add::kernel_addresses(&pod)?;
    done(host, &pod)?;
    let due = ["10.111.0.7", "10.112.0.7", "fd00:111::7"];
    for address in due {
        ensure!(found.iter().any(|one| one == address), "{address} is not on the interface: {found:?}");
    }
    ensure!(bare_addresses(&result) == due, "the result has {:?}", bare_addresses(&result));
    Ok(())
}

fn addresses_get_their_interface(host: &Host) -> Verdict {
    let (pod, result) = applied(host, &spy::lease())?;
    done(host, &pod)?;
    for ip in list(&result, "ips") {
        let index = ip.get("interface").and_then(Value::as_u64).and_then(|index| usize::try_from(index).ok());
        let name = index.and_then(|index| list(&result, "interfaces").get(index)).map(|one| text(one, "name"));
        ensure!(name == Some(&pod.ifname), "{ip} leads to {name:?}");
    }
    Ok(())
}

fn dns_is_handed_on(host: &Host) -> Verdict {
    let (pod, result) = applied(host, &spy::lease())?;
    done(host, &pod)?;
    for key in ["nameservers", "search", "domain"] {
        let (due, got) = (&spy::lease()["dns"][key], result.get("dns").and_then(|dns| dns.get(key)));
        ensure!(got == Some(due), "dns.{key} is {got:?} instead of {due}");
    }
    Ok(())
}

fn own_dns_wins(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let call = call(host, "ADD", &pod)?.key("dns", json!({ "nameservers": ["203.0.113.53"] }));
    let result = call.run()?.result()?;
    done(host, &pod)?;
    let got = result.get("dns").and_then(|dns| dns.get("nameservers"));
    ensure!(got == Some(&json!(["203.0.113.53"])), "dns.nameservers is {got:?}");
    Ok(())
}

fn refuses(host: &Host, change: impl Fn(Call<'_>) -> Call<'_>) -> Verdict {
    let pod = host.pod()?;
    let answer = change(call(host, "ADD", &pod)?).run()?;
    let _ = done(host, &pod);
    sorry(&answer).map(drop)
}

fn refuses_answer(host: &Host, stdout: &str) -> Verdict {
    spy::script("ADD", &Script { stdout: stdout.to_owned(), ..Script::default() })?;
    refuses(host, |call| call)
}

fn type_with_a_path(host: &Host) -> Verdict {
    refuses(host, |call| call.merge(&of_type(&format!("../bin/{}", spy::NAME))))?;
    let seen = commands(&spy::records()?);
    ensure!(!seen.contains(&"ADD".to_owned()), "the program was run: {seen:?}");
    Ok(())
}

fn error_is_handed_on(host: &Host) -> Verdict {
    let pod = host.pod()?;
    spy::script("ADD", &failing(111, "no addresses on Mondays"))?;
    let answer = call(host, "ADD", &pod)?.run()?;
    done(host, &pod)?;
    let (code, text) = answer.code()?;
    ensure!(code == 111 && text.contains("no addresses on Mondays"), "code {code}, text: {text}");
    Ok(())
}

fn gets_the_address(host: &Host, answer: &Value) -> Verdict {
    let pod = host.pod()?;
    spy::script("ADD", &answering(answer))?;
    let answer = call(host, "ADD", &pod)?.run()?;
    done(host, &pod)?;
    let got = bare_addresses(&answer.result()?);
    ensure!(got == ["10.111.0.7"], "the result has {got:?}");
    Ok(())
}

fn answer_without_version(host: &Host) -> Verdict {
    let mut answer = crate::host::shape::reshape(&spy::lease(), host.version());
    answer.as_object_mut().map(|answer| answer.remove("cniVersion"));
    gets_the_address(host, &answer)
}

fn older_answer(host: &Host) -> Verdict {
    gets_the_address(host, &crate::host::shape::reshape(&spy::lease(), "0.2.0"))
}

/// The commands that the IPAM plugin saw in an ADD that failed.
fn seen_in_failed_add(host: &Host, script: &Script) -> Verdict<Vec<String>> {
    let pod = host.pod()?;
    spy::script("ADD", script)?;
    let answer = call(host, "ADD", &pod)?.run()?;
    let seen = commands(&spy::records()?);
    done(host, &pod)?;
    answer.failure()?;
    Ok(seen)
}

fn failed_add_is_undone(host: &Host) -> Verdict {
    let seen = seen_in_failed_add(host, &failing(11, "later"))?;
    ensure!(seen == ["ADD", "DEL"], "the IPAM plugin was called with {seen:?}");
    Ok(())
}

fn useless_answer_is_undone(host: &Host) -> Verdict {
    let mut lease = crate::host::shape::reshape(&spy::lease(), host.version());
    lease["ips"] = json!([]);
    let seen = seen_in_failed_add(host, &answering(&lease))?;
    ensure!(seen == ["ADD", "DEL"], "the IPAM plugin was called with {seen:?}");
    Ok(())
}

fn failed_add_leaves_no_interface(host: &Host) -> Verdict {
    let pod = host.pod()?;
    spy::script("ADD", &failing(11, "later"))?;
    let answer = call(host, "ADD", &pod)?.run()?;
    let there = pod.link()?.is_some();
    let left = nothing_is_left(host);
    done(host, &pod)?;
    answer.failure()?;
    ensure!(!there, "{} is in the container", pod.ifname);
    left
}

fn del_is_delegated(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    call(host, "DEL", &pod)?.prev(&result).run()?.success()?;
    let seen = commands(&spy::records()?);
    ensure!(seen.contains(&"DEL".to_owned()), "the IPAM plugin was called with {seen:?}");
    Ok(())
}

/// This command with an IPAM plugin that fails at it.
fn with_failing_ipam(host: &Host, command: &str) -> Verdict<(Pod, crate::host::call::Answer)> {
    let (pod, result) = attached(host)?;
    spy::script(command, &failing(50, "no"))?;
    let base =
        if matches!(command, "GC" | "STATUS") { spied(host, host.call(command))? } else { call(host, command, &pod)? };
    let base = match command {
        "GC" => base
            .env("CNI_CONTAINERID", "")
            .key("cni.dev/valid-attachments", json!([{ "containerID": pod.id, "ifname": pod.ifname }])),
        "STATUS" => base,
        _ => base.prev(&result),
    };
    let answer = base.run()?;
    Ok((pod, answer))
}

fn fails_with_ipam(host: &Host, command: &str) -> Verdict {
    let (pod, answer) = with_failing_ipam(host, command)?;
    done(host, &pod)?;
    answer.failure().map(drop)
}

fn del_error_is_handed_on(host: &Host) -> Verdict {
    fails_with_ipam(host, "DEL")
}

fn del_without_namespace_is_delegated(host: &Host) -> Verdict {
    let (pod, _) = attached(host)?;
    pod.remove_namespace()?;
    call(host, "DEL", &pod)?.env("CNI_NETNS", "").run()?.success()?;
    let seen = commands(&spy::records()?);
    ensure!(seen.contains(&"DEL".to_owned()), "the IPAM plugin was called with {seen:?}");
    Ok(())
}

fn del_error_stops_nothing(host: &Host) -> Verdict {
    let (pod, _) = with_failing_ipam(host, "DEL")?;
    let there = pod.link()?.is_some();
    done(host, &pod)?;
    ensure!(!there, "{} is still in the container", pod.ifname);
    Ok(())
}

fn check_is_delegated(host: &Host) -> Verdict {
    let (pod, result) = attached(host)?;
    call(host, "CHECK", &pod)?.prev(&result).run()?.success()?;
    let seen = commands(&spy::records()?);
    done(host, &pod)?;
    ensure!(seen == ["CHECK"], "the IPAM plugin was called with {seen:?}");
    Ok(())
}

fn check_error_is_handed_on(host: &Host) -> Verdict {
    fails_with_ipam(host, "CHECK")
}

fn gc_is_delegated(host: &Host) -> Verdict {
    let valid = json!([{ "containerID": "a", "ifname": "eth0" }]);
    spied(host, host.call("GC").env("CNI_CONTAINERID", "").key("cni.dev/valid-attachments", valid.clone()))?
        .run()?
        .success()?;
    let records = spy::records()?;
    ensure!(commands(&records) == ["GC"], "the IPAM plugin was called with {:?}", commands(&records));
    for record in records {
        let read: Value = serde_json::from_str(&record.stdin).unwrap_or_default();
        ensure!(read.get("cni.dev/valid-attachments") == Some(&valid), "the list did not arrive: {read}");
    }
    Ok(())
}

fn gc_error_is_handed_on(host: &Host) -> Verdict {
    fails_with_ipam(host, "GC")
}

fn status_is_delegated(host: &Host) -> Verdict {
    spied(host, host.call("STATUS"))?.run()?.success()?;
    let seen = commands(&spy::records()?);
    ensure!(seen == ["STATUS"], "the IPAM plugin was called with {seen:?}");
    Ok(())
}

fn status_error_is_handed_on(host: &Host) -> Verdict {
    fails_with_ipam(host, "STATUS")
}

fn add_despite_status(host: &Host) -> Verdict {
    spy::script("STATUS", &failing(50, "no"))?;
    spied(host, host.call("STATUS"))?.run()?;
    let (pod, result) = attached(host)?;
    call(host, "DEL", &pod)?.prev(&result).run()?.success().map(drop)
}
