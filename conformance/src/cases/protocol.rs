//! Streams, exit codes, error objects and their codes.

use serde_json::{Value, json};

use super::{ANY, cases, sorry};
use crate::host::Host;
use crate::host::call::{Answer, Call};
use crate::verdict::{Verdict, ensure, skip};

cases! { "protocol":
    "IO-1a" since "0.1.0" in "2, Parameters" for ANY => foreign_variables,
        "Variables that the protocol does not know are ignored",
        "Protocol parameters are passed to the plugins via OS environment variables.",
        "ADD and DEL with TRACEPARENT, CNI_SOMETHING_ELSE and others set besides; both must succeed.";
    "IO-1b" since "0.1.0" in "2, Parameters" for ANY => bare_environment,
        "The protocol's variables and PATH are enough",
        "Protocol parameters are passed to the plugins via OS environment variables.",
        "ADD and DEL with an environment of nothing but CNI_* and PATH; both must succeed.";
    "IO-2a" since "0.1.0" in "2, Overview" for ANY => add_prints_one_document,
        "ADD prints exactly one JSON document",
        "The plugin returns a result on stdout on success.",
        "ADD; stdout must hold one JSON object and nothing else.";
    "IO-2b" since "0.1.0" in "2, Errors" for ANY => failure_prints_one_document,
        "A failing ADD prints exactly one JSON document",
        "If the plugin encounters an error, it should output an \"error\" result structure.",
        "ADD with a config that is not JSON; stdout must hold one JSON object and nothing else.";
    "IO-2c" since "0.1.0" in "practice: libcni reads to the end of both streams" for ANY => streams_are_closed,
        "stdout and stderr are closed when the plugin ends",
        "The plugin returns a result on stdout on success.",
        "ADD and DEL; a process that keeps a stream open after the plugin has ended would block the runtime.";
    "IO-2d" since "0.1.0" in "2, Errors" for ANY => success_is_no_error_object,
        "A result is not an error object",
        "A plugin must exit with a return code of 0 on success, and non-zero on failure.",
        "ADD; where the exit code is 0 the document must not have the error's keys code and msg.";
    "IO-3a" since "0.1.0" in "2, Errors" for ANY => |host| fails(host, "ADD"),
        "A failing ADD exits with another code than 0",
        "A plugin must exit with a return code of 0 on success, and non-zero on failure.",
        "ADD with a config that is not JSON; the exit code must not be 0, and no signal may have ended the plugin.";
    "IO-3b" since "0.1.0" in "2, Errors" for ANY => |host| fails(host, "DEL"),
        "A failing DEL exits with another code than 0",
        "A plugin must exit with a return code of 0 on success, and non-zero on failure.",
        "DEL with a config that is not JSON; the exit code must not be 0, and no signal may have ended the plugin.";
    "IO-3c" since "0.1.0" in "2, Errors" for ANY => unknown_command_fails,
        "An unknown command exits with another code than 0",
        "A plugin must exit with a return code of 0 on success, and non-zero on failure.",
        "A call with CNI_COMMAND=FROBNICATE; the exit code must not be 0.";
    "IO-4a" since "0.1.0" in "2, Errors" for ANY => |host| sorry(&undecodable(host, "DEL", "{ not json")?).map(drop),
        "A failing DEL prints an error object",
        "If the plugin encounters an error, it should output an \"error\" result structure.",
        "DEL with a config that is not JSON; stdout must hold one object with code and msg.";
    "IO-4b" since "0.4.0" in "2, Errors" for ANY => |host| sorry(&undecodable(host, "CHECK", "{ not json")?).map(drop),
        "A failing CHECK prints an error object",
        "If the plugin encounters an error, it should output an \"error\" result structure.",
        "CHECK with a config that is not JSON; stdout must hold one object with code and msg.";
    "IO-5a" since "0.1.0" in "5, Error" for ANY => error_code_is_a_number,
        "The error's code is a positive number",
        "code: A numeric error code.",
        "ADD with a config that is not JSON; code must be an integer above 0.";
    "IO-5b" since "0.1.0" in "5, Error" for ANY => error_has_a_message,
        "The error has a message",
        "msg: A short message characterizing the error.",
        "ADD with a config that is not JSON; msg must be a string that is not empty.";
    "IO-5c" since "0.1.0" in "5, Error" for ANY => error_details_are_text,
        "The error's details are text",
        "details: A longer message describing the error.",
        "ADD without a network name and with a bad version; where there are details they must be a string.";
    "IO-5d" since "0.1.0" in "5, Error" for ANY => error_has_the_version,
        "The error says which version it speaks",
        "cniVersion: The protocol version in use.",
        "ADD without CNI_IFNAME, in every version of the plugin; the error's cniVersion must be the config's.";
    "IO-6a" since "1.0.0" in "5, Error" for ANY => |host| coded(&undecodable(host, "ADD", "{ not json")?, &[6]),
        "A config that is not JSON has code 6",
        "6: Failed to decode content. For example, failed to unmarshal network config from bytes.",
        "ADD with `{ not json` on stdin; code must be 6.";
    "IO-6b" since "1.0.0" in "5, Error" for ANY => |host| coded(&with_stdin(host, "")?, &[5, 6, 7]),
        "An empty config has code 6",
        "6: Failed to decode content. For example, failed to unmarshal network config from bytes.",
        "ADD with nothing on stdin; code must be 6 (or 5 or 7, which fit as well).";
    "IO-6c" since "1.0.0" in "5, Error" for ANY => |host| coded(&with_stdin(host, "[1, 2]")?, &[6, 7]),
        "A config that is no object is refused",
        "6: Failed to decode content. 7: Invalid network config.",
        "ADD with a JSON list on stdin; code must be 6 or 7.";
    "IO-6d" since "1.0.0" in "5, Error" for ANY => |host| coded(&with_stdin(host, "null")?, &[6, 7]),
        "A config that is null is refused",
        "6: Failed to decode content. 7: Invalid network config.",
        "ADD with `null` on stdin; code must be 6 or 7.";
    "IO-6e" since "1.0.0" in "5, Error" for ANY => no_name,
        "A config without a name has code 7",
        "7: Invalid network config. If some validations on network configs do not pass, this error will be raised.",
        "ADD with a config whose name is missing; code must be 7.";
    "IO-6f" since "1.0.0" in "5, Error" for ANY => version_of_another_type,
        "A cniVersion that is no text is refused",
        "6: Failed to decode content. 7: Invalid network config.",
        "ADD with \"cniVersion\": 1; code must be 1, 6 or 7.";
    "IO-6g" since "0.4.0" in "5, Error" for ANY => reserved_codes,
        "Codes below 100 are those of the table",
        "Error codes 0-99 are reserved for well-known errors. Values of 100+ can be freely used for plugin specific errors.",
        "Nine ways to fail; every code must be 1 to 7, 11, 50, 51, or at least 100.";
    "IO-6h" since "1.0.0" in "5, Error" for ANY => trailing_garbage,
        "A config with something after it is refused",
        "6: Failed to decode content. For example, failed to unmarshal network config from bytes.",
        "ADD with a valid config and `}{` after it; code must be 6 or 7.";
    "IO-7a" since "0.2.0" in "5, Error" for ANY => unsupported_field,
        "An unsupported field has code 2, with its key and value",
        "2: Unsupported field in network configuration. The error message must contain the key and value of the unsupported field.",
        "ADD with the field that the target file names as unsupported; code must be 2, and the text must hold key and value.";
    "IO-7b" since "1.0.0" in "5, Error" for ANY => invalid_field,
        "An invalid value has code 7",
        "7: Invalid network config. If some validations on network configs do not pass, this error will be raised.",
        "ADD with the value that the target file names as invalid; code must be 7.";
    "IO-9a" since "0.2.0" in "1, Reserved keys" for ANY => args_are_ignored,
        "`args` that mean nothing to the plugin are ignored",
        "args: optional metadata which a plugin may ignore.",
        "ADD and DEL with args of another project in the config; both must succeed.";
    "IO-9b" since "0.3.0" in "3, Deriving request configuration" for ANY => capabilities_are_tolerated,
        "`capabilities` in the config do no harm",
        "capabilities: must not be set. (libcni leaves it in.)",
        "ADD and DEL with capabilities still in the config; both must succeed.";
}

/// A call with a config that is no JSON. There are many ways of that.
pub(super) fn undecodable(host: &Host, command: &str, text: &str) -> Verdict<Answer> {
    let pod = host.pod()?;
    host.call_for(command, &pod).stdin(text).run()
}

fn with_stdin(host: &Host, text: &str) -> Verdict<Answer> {
    let pod = host.pod()?;
    host.call_for("ADD", &pod).stdin(text).run()
}

/// That the call failed with one of these codes.
pub(super) fn coded(answer: &Answer, codes: &[u64]) -> Verdict {
    let (code, text) = answer.code()?;
    ensure!(codes.contains(&code), "the code is {code} instead of one of {codes:?}: {text}");
    Ok(())
}

/// ADD and DEL, both changed alike, both of which must succeed.
fn both(host: &Host, change: impl Fn(Call<'_>) -> Call<'_>) -> Verdict {
    let pod = host.pod()?;
    let result = change(host.call_for("ADD", &pod)).run()?.result()?;
    change(host.call_for("DEL", &pod).prev(&result)).run()?.success().map(drop)
}

fn foreign_variables(host: &Host) -> Verdict {
    both(host, |call| {
        let call = call
            .env("TRACEPARENT", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
            .env("CNI_SOMETHING_ELSE", "1");
        call.env("KUBERNETES_SERVICE_HOST", "10.96.0.1").env("CNI_VERSION", "0.0.0")
    })
}

fn bare_environment(host: &Host) -> Verdict {
    both(host, |call| call.without_env("HOME").without_env("LANG"))
}

fn add_prints_one_document(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    host.call_for("ADD", &pod).run()?.result().map(drop)
}

fn failure_prints_one_document(host: &Host) -> Verdict {
    undecodable(host, "ADD", "no json")?.json().map(drop)
}

fn streams_are_closed(host: &Host) -> Verdict {
    let pod = super::named_pod(host)?;
    for command in ["ADD", "DEL"] {
        let answer = host.call_for(command, &pod).run()?;
        ensure!(!answer.finished.held_open, "{command}: something still holds stdout or stderr open");
        answer.success()?;
    }
    Ok(())
}

fn success_is_no_error_object(host: &Host) -> Verdict {
    let pod = super::named_pod(host)?;
    let answer = host.call_for("ADD", &pod).run()?;
    answer.success()?;
    for document in answer.documents()? {
        ensure!(document.get("code").is_none() && document.get("msg").is_none(), "exit code 0 with {document}");
    }
    Ok(())
}

fn fails(host: &Host, command: &str) -> Verdict {
    undecodable(host, command, "{\"name\": \"cut off")?.failure().map(drop)
}

fn unknown_command_fails(host: &Host) -> Verdict {
    let pod = host.pod()?;
    host.call_for("FROBNICATE", &pod).run()?.failure().map(drop)
}

fn error_code_is_a_number(host: &Host) -> Verdict {
    let error = undecodable(host, "ADD", "{ 'name': 'n' }")?.error()?;
    let code = error.get("code").and_then(Value::as_u64).unwrap_or_default();
    ensure!(code > 0, "code is not a number above 0: {error}");
    Ok(())
}

fn error_has_a_message(host: &Host) -> Verdict {
    let error = undecodable(host, "ADD", "<config/>")?.error()?;
    let msg = error.get("msg").and_then(Value::as_str).unwrap_or_default();
    ensure!(!msg.trim().is_empty(), "there is no msg: {error}");
    Ok(())
}

fn error_details_are_text(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let call = host.call_for("ADD", &pod);
    for call in [call.clone().without_key("name"), call.key("cniVersion", json!("77.0.0"))] {
        let error = call.run()?.error()?;
        ensure!(error.get("details").is_none_or(Value::is_string), "details are no text: {error}");
    }
    Ok(())
}

fn error_has_the_version(host: &Host) -> Verdict {
    let pod = host.pod()?;
    for version in &host.profile.versions {
        let error = host.call_for("ADD", &pod).version(version).without_env("CNI_IFNAME").run()?.error()?;
        let said = error.get("cniVersion").and_then(Value::as_str);
        ensure!(said == Some(version), "the error to a config of {version} has cniVersion {said:?}: {error}");
    }
    Ok(())
}

fn no_name(host: &Host) -> Verdict {
    let pod = host.pod()?;
    coded(&host.call_for("ADD", &pod).without_key("name").run()?, &[7])
}

fn version_of_another_type(host: &Host) -> Verdict {
    let pod = host.pod()?;
    coded(&host.call_for("ADD", &pod).key("cniVersion", json!(1)).run()?, &[1, 6, 7])
}

fn reserved_codes(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let call = || host.call_for("ADD", &pod);
    let calls = [
        call().stdin("{ not json"),
        call().stdin(""),
        call().without_key("name"),
        call().key("cniVersion", json!("77.0.0")),
        call().without_env("CNI_CONTAINERID"),
        call().without_env("CNI_IFNAME"),
        call().env("CNI_IFNAME", "much-too-long-for-linux"),
        call().env("CNI_CONTAINERID", "-"),
        call().env("CNI_COMMAND", "FROBNICATE"),
    ];
    for call in calls {
        let (code, text) = call.run()?.code()?;
        ensure!(matches!(code, 1..=7 | 11 | 50 | 51 | 100..), "code {code} is reserved and not in the table: {text}");
    }
    Ok(())
}

fn trailing_garbage(host: &Host) -> Verdict {
    let pod = host.pod()?;
    let call = host.call_for("ADD", &pod);
    let bytes = [call.input(), b"}{".to_vec()].concat();
    coded(&call.stdin(bytes).run()?, &[6, 7])
}

fn unsupported_field(host: &Host) -> Verdict {
    let Some(patch) = &host.target.unsupported else {
        skip!("the target file names no field as unsupported");
    };
    let pod = host.pod()?;
    let (code, text) = host.call_for("ADD", &pod).merge(patch).run()?.code()?;
    ensure!(code == 2, "the code is {code} instead of 2: {text}");
    for (key, value) in patch {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        ensure!(text.contains(key.as_str()) && text.contains(&value), "{key} or {value} is not in: {text}");
    }
    Ok(())
}

fn invalid_field(host: &Host) -> Verdict {
    let Some(patch) = &host.target.invalid else {
        skip!("the target file names no value as invalid");
    };
    let pod = host.pod()?;
    coded(&host.call_for("ADD", &pod).merge(patch).run()?, &[7])
}

fn args_are_ignored(host: &Host) -> Verdict {
    both(host, |call| {
        call.key("args", json!({ "labels": [{ "key": "app", "value": "x" }], "org.example/other": { "a": null } }))
    })
}

fn capabilities_are_tolerated(host: &Host) -> Verdict {
    both(host, |call| call.merge(&super::object(json!({ "capabilities": { "org.example.other": true } }))))
}
