//! Plugins that are called under poor conditions.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use serde_json::json;

use super::protocol::coded;
use super::{ANY, cases, nothing_is_left};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::exec;
use crate::verdict::{Finding, Verdict, ensure};

cases! { "robustness":
    "ROB-1" since "0.1.0" in "practice: big annotations" for ANY => big_config,
        "A config of half a megabyte is taken",
        "args: optional metadata which a plugin may ignore.",
        "ADD and DEL with half a megabyte of args of another project in the config; both must succeed.";
    "ROB-2" since "0.1.0" in "2, Overview" for ANY => narrow_stdin,
        "A config that comes in pieces is taken",
        "It supplies configuration via stdin.",
        "ADD through a pipe that holds one page, with a config of five: the plugin must read on until the end; it must succeed.";
    "ROB-3" since "0.1.0" in "practice: hardened systems" for ANY => narrow_umask,
        "A umask of 077 does no harm",
        "Plugins are executed with the runtime's settings.",
        "ADD and DEL under umask 077; both must succeed.";
    "ROB-4" since "0.1.0" in "2, Overview" for ANY => white_space,
        "White space around the config does no harm",
        "Configuration is encoded in JSON.",
        "ADD and DEL with line breaks and tabs before and after the config; both must succeed.";
    "ROB-5" since "0.1.0" in "2, Overview" for ANY => nested_config,
        "Deep args of others do no harm",
        "args: optional metadata which a plugin may ignore.",
        "ADD and DEL with args of another project that are nested 100 deep; both must succeed.";
    "ROB-6" since "1.0.0" in "5, Error" for ANY => |host| text_refused(host, "\"a text\""),
        "A config that is a text is refused",
        "6: Failed to decode content. 7: Invalid network config.",
        "ADD with a JSON text on stdin; code must be 6 or 7.";
    "ROB-7" since "0.1.0" in "practice: variables are bytes" for ANY => odd_bytes,
        "Variables that are not UTF-8 do not crash the plugin",
        "If the plugin encounters an error, it should output an \"error\" result structure.",
        "ADD with a foreign variable and CNI_ARGS that are not UTF-8; the plugin must succeed, or fail with an error object.";
    "ROB-8" since "0.1.0" in "practice: limits of service managers" for ANY => few_descriptors,
        "A limit of 64 open files does no harm",
        "Plugins are executed with the runtime's settings.",
        "ADD and DEL under `prlimit --nofile=64`; both must succeed.";
    "ROB-9" since "0.1.0" in "practice: a runtime that went away" for ANY => nobody_reads,
        "An ADD whose stdout nobody reads is cleared by DEL",
        "A delete must still be executed even if the add fails.",
        "ADD with a stdout that is closed at the other end, DEL; the host must be as before.";
}

/// ADD and DEL, both changed alike.
fn both(host: &Host, change: impl Fn(Call<'_>) -> Call<'_>) -> Verdict {
    let pod = host.pod()?;
    let result = change(host.call_for("ADD", &pod)).run()?.result()?;
    change(host.call_for("DEL", &pod).prev(&result)).run()?.success().map(drop)
}

/// ADD and DEL under another program.
fn both_under(host: &Host, wrapper: &[&str]) -> Verdict {
    let wrapper: Vec<_> = wrapper.iter().map(|word| (*word).to_owned()).collect();
    let pod = host.pod()?;
    for command in ["ADD", "DEL"] {
        let call = host.call_for(command, &pod);
        let finished = exec::run(&mut call.wrapped(&wrapper)?, &call.input(), crate::host::call::CALL_LIMIT)?;
        let text = String::from_utf8_lossy(&finished.stdout).into_owned();
        ensure!(finished.status.success(), "{command}: {}: {}", finished.ending(), crate::host::call::shorten(&text));
    }
    Ok(())
}

fn big_config(host: &Host) -> Verdict {
    both(host, |call| call.key("args", json!({ "org.example/big": "x".repeat(512 * 1024) })))
}

/// A pipe that holds one page: what comes after that is written when the plugin has read it, and not before.
fn narrow_stdin(host: &Host) -> Verdict {
    use nix::fcntl::{FcntlArg, fcntl};
    let trouble = |what: &str, error: &dyn std::fmt::Display| Finding::Trouble(format!("cannot {what}: {error}"));
    let pod = host.pod()?;
    let call = host.call_for("ADD", &pod);
    let (reader, mut writer) = std::io::pipe().map_err(|error| trouble("make a pipe", &error))?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).map_err(|error| trouble("narrow a pipe", &error))?;
    let mut command = call.command()?;
    command.stdin(reader).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let child = command.spawn().map_err(|error| trouble("start the plugin", &error))?;
    // The command keeps the reading end, on which a plugin that has ended would be waited for.
    drop(command);
    let spread = String::from_utf8_lossy(&call.input()).replacen('{', &format!("{{{}", " ".repeat(4 * 4096)), 1);
    // A plugin that ends early shows it by its exit code.
    let _ = writer.write_all(spread.as_bytes());
    drop(writer);
    let output = child.wait_with_output().map_err(|error| trouble("wait", &error))?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stdout));
    Ok(())
}

fn narrow_umask(host: &Host) -> Verdict {
    // The umask is this process's, which plugins inherit; it serves this case only.
    let mask = nix::sys::stat::Mode::from_bits_truncate(0o077);
    nix::sys::stat::umask(mask);
    both(host, |call| call)
}

fn white_space(host: &Host) -> Verdict {
    both(host, |call| {
        let bytes = [b"\n\t \r\n".to_vec(), call.input(), b"\n\n\t \n".to_vec()].concat();
        call.stdin(bytes)
    })
}

fn nested_config(host: &Host) -> Verdict {
    let nested = (0..100).fold(json!(1), |inner, _| json!([inner]));
    both(host, |call| call.key("args", json!({ "org.example/deep": nested.clone() })))
}

fn text_refused(host: &Host, text: &str) -> Verdict {
    let pod = host.pod()?;
    coded(&host.call_for("ADD", &pod).stdin(text).run()?, &[6, 7])
}

fn odd_bytes(host: &Host) -> Verdict {
    use std::os::unix::ffi::OsStringExt;
    let odd = std::ffi::OsString::from_vec(b"IgnoreUnknown=1;A=\xff\xfe".to_vec());
    let pod = host.pod()?;
    let answer = host.call_for("ADD", &pod).env("CNI_ARGS", odd.clone()).env("SOMETHING", odd).run()?;
    if answer.succeeded() { answer.result().map(drop) } else { super::sorry(&answer).map(drop) }
}

fn few_descriptors(host: &Host) -> Verdict {
    both_under(host, &["prlimit", "--nofile=64"])
}

fn nobody_reads(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let call = host.call_for("ADD", &pod);
    let (reader, writer) = std::io::pipe().map_err(|error| Finding::Trouble(format!("cannot make a pipe: {error}")))?;
    drop(reader);
    let mut command = call.command()?;
    command.stdin(Stdio::piped()).stdout(writer).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn().map_err(|error| Finding::Trouble(format!("cannot start the plugin: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(&call.input());
    }
    child.wait().map_err(|error| Finding::Trouble(format!("cannot wait: {error}")))?;
    host.detach(&pod, None)?;
    nothing_is_left(host)
}
