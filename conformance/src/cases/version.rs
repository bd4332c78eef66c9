//! VERSION, and the versions themselves.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::protocol::coded;
use super::{ANY, cases};
use crate::host::Host;
use crate::host::shape::{VERSIONS, list};
use crate::verdict::{Verdict, ensure};

cases! { "version":
    "VER-1a" since "0.1.0" in "5, VERSION Success" for ANY => names_versions,
        "VERSION names the versions that are supported",
        "supportedVersions: A list of supported specification versions.",
        "VERSION; the one document must have a list of version strings, none of them twice.";
    "VER-1b" since "0.1.0" in "5, VERSION Success" for ANY => has_cni_version,
        "VERSION has a cniVersion",
        "cniVersion: The value of cniVersion specified on input.",
        "VERSION; the document must have cniVersion as a version string.";
    "VER-2" since "1.0.0" in "5, VERSION Success" for ANY => echoes,
        "VERSION answers in the version that it was asked in",
        "cniVersion: The value of cniVersion specified on input.",
        "VERSION with every version that the plugin supports; cniVersion must be the same each time.";
    "VER-3a" since "0.1.0" in "2, VERSION" for ANY => needs_the_command_only,
        "VERSION needs CNI_COMMAND only",
        "Required environment parameters: CNI_COMMAND.",
        "VERSION with no other CNI_* variable set; it must succeed.";
    "VER-3b" since "0.1.0" in "practice: libcni sends dummies" for ANY => takes_dummies,
        "VERSION is not disturbed by libcni's dummies",
        "Required environment parameters: CNI_COMMAND.",
        "VERSION with CNI_NETNS, CNI_IFNAME and CNI_PATH set to `dummy` and nothing but cniVersion on stdin; it must succeed.";
    "VER-4" since "0.1.0" in "2, VERSION" for ANY => newer_runtime,
        "VERSION answers a runtime that is newer than the plugin",
        "The plugin should output via standard-out a json-serialized version result object.",
        "VERSION with \"cniVersion\": \"9.9.0\"; it must succeed and name what the plugin supports.";
    "VER-5" since "0.1.0" in "1, Version considerations" for ANY => every_version_works,
        "Every version that VERSION names works",
        "Plugins indicate their set of supported versions through the VERSION command.",
        "ADD and DEL in each of them; all must succeed.";
    "VER-6a" since "1.0.0" in "5, Error" for ANY => |host| refuses(host, "ADD"),
        "ADD refuses a version that VERSION does not name",
        "1: Incompatible CNI version.",
        "ADD with a config of version 77.0.0 and of every known version that the plugin does not name; code must be 1.";
    "VER-6b" since "1.0.0" in "5, Error" for ANY => |host| refuses(host, "DEL"),
        "DEL refuses a version that VERSION does not name",
        "1: Incompatible CNI version.",
        "DEL with a config of version 77.0.0; code must be 1.";
    "VER-7" since "0.1.0" in "practice: a missing cniVersion is 0.1.0" for ANY => without_version,
        "A config without cniVersion is one of 0.1.0",
        "cniVersion: version of CNI specification to which this configuration conforms.",
        "ADD and DEL without the key; they must work as in 0.1.0, or fail with code 1 where that is not supported.";
}

fn ask(host: &Host, version: &str) -> Verdict<Value> {
    host.call("VERSION").stdin(json!({ "cniVersion": version }).to_string()).run()?.result()
}

fn is_version(text: &str) -> bool {
    text.split('.').count() == 3
        && text.split('.').all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
}

fn names_versions(host: &Host) -> Verdict {
    let answer = ask(host, host.version())?;
    let named = list(&answer, "supportedVersions");
    ensure!(!named.is_empty(), "supportedVersions is missing or empty: {answer}");
    let texts: BTreeSet<_> = named.iter().filter_map(Value::as_str).filter(|text| is_version(text)).collect();
    ensure!(texts.len() == named.len(), "not all are versions, each once: {answer}");
    Ok(())
}

fn has_cni_version(host: &Host) -> Verdict {
    let answer = ask(host, host.version())?;
    let said = answer.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    ensure!(is_version(said), "cniVersion is no version: {answer}");
    Ok(())
}

fn echoes(host: &Host) -> Verdict {
    for version in &host.profile.versions {
        let answer = ask(host, version)?;
        let said = answer.get("cniVersion").and_then(Value::as_str);
        ensure!(said == Some(version), "asked in {version}, answered in {said:?}");
    }
    Ok(())
}

fn needs_the_command_only(host: &Host) -> Verdict {
    let call = host.call("VERSION").without_env("CNI_PATH");
    call.stdin(json!({ "cniVersion": host.version() }).to_string()).run()?.result().map(drop)
}

fn takes_dummies(host: &Host) -> Verdict {
    let call = host.call("VERSION").env("CNI_NETNS", "dummy").env("CNI_IFNAME", "dummy").env("CNI_PATH", "dummy");
    let call = call.env("CNI_CONTAINERID", "").env("CNI_ARGS", "");
    call.stdin(json!({ "cniVersion": host.version() }).to_string()).run()?.result().map(drop)
}

fn newer_runtime(host: &Host) -> Verdict {
    let answer = ask(host, "9.9.0")?;
    ensure!(!list(&answer, "supportedVersions").is_empty(), "supportedVersions is missing or empty: {answer}");
    Ok(())
}

fn every_version_works(host: &Host) -> Verdict {
    let answer = ask(host, host.version())?;
    for version in list(&answer, "supportedVersions").iter().filter_map(Value::as_str) {
        if !VERSIONS.contains(&version) {
            continue;
        }
        let pod = host.pod()?;
        for command in ["ADD", "DEL"] {
            let answer = host.call_for(command, &pod).version(version).run()?;
            answer.success().map_err(|finding| finding.during(version))?;
        }
    }
    Ok(())
}

fn refuses(host: &Host, command: &str) -> Verdict {
    let pod = host.pod()?;
    let answer = ask(host, host.version())?;
    let named: Vec<_> = list(&answer, "supportedVersions").iter().filter_map(Value::as_str).collect();
    let unknown = VERSIONS.into_iter().filter(|version| !named.contains(version) && command == "ADD");
    for version in unknown.chain(["77.0.0"]) {
        let answer = host.call_for(command, &pod).version(version).run()?;
        coded(&answer, &[1]).map_err(|finding| finding.during(version))?;
    }
    Ok(())
}

fn without_version(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let old = host.profile.versions.iter().any(|version| version == "0.1.0");
    for command in ["ADD", "DEL"] {
        let answer = host.call_for(command, &pod).version("0.1.0").without_key("cniVersion").run()?;
        if !old {
            coded(&answer, &[1])?;
        } else if command == "ADD" {
            let result = answer.result()?;
            ensure!(result.get("ip4").is_some() || result.get("ip6").is_some(), "not in the shape of 0.1.0: {result}");
        } else {
            answer.success()?;
        }
    }
    Ok(())
}
