//! Plugins that are killed, or called under poor conditions.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use serde_json::json;

use super::protocol::coded;
use super::{ADDRESSING, ANY, cases, nothing_is_left};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::exec;
use crate::host::strace::{self, Point};
use crate::verdict::{Finding, Verdict, ensure, skip};

cases! { "robustness":
    "KILL-1" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => killed_add,
        "An ADD that is killed anywhere is cleared by DEL",
        "A delete must still be executed even if the add fails. (libcni kills by SIGKILL when its caller's time is up.)",
        "ADD is run under strace and killed before each system call that changes something (of those, at most as many as --points says); each time DEL must succeed, and the host be as before.";
    "KILL-2" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => killed_del,
        "A DEL that is killed anywhere is finished by the next",
        "delete may be followed by additional deletes.",
        "DEL is run under strace and killed before each system call that changes something (of those, at most as many as --points says); each time the next DEL must succeed, and the host be as before.";
    "KILL-3" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => add_after_killed_add,
        "After an ADD that is killed anywhere, DEL and ADD work",
        "A runtime should not call ADD twice (without an intervening DEL).",
        "ADD is killed before an eighth of those system calls; each time DEL and ADD of another container must succeed.";
    "KILL-4" since "0.1.0" in "3, Lifecycle & Ordering" for ADDRESSING => no_address_is_lost,
        "No address is lost to ADDs that are killed",
        "A plugin should release an IP allocation.",
        "ADD from a small pool is killed before an eighth of those system calls, each time followed by DEL; then the pool must still have all its addresses.";
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

/// Where this call can be killed. It is made once for that. The order spreads the points, so that however few of them are
/// tried, they were taken from everywhere.
fn points(call: &Call<'_>) -> Verdict<Vec<Point>> {
    let found = strace::points(call)?;
    ensure!(!found.is_empty(), "strace saw no system call that changes something");
    Ok(spread(found))
}

/// First every 16th, then those half-way between, and so on.
fn spread(points: Vec<Point>) -> Vec<Point> {
    let mut numbered: Vec<_> = points.into_iter().enumerate().collect();
    numbered.sort_by_key(|(index, _)| (std::cmp::Reverse((index | 16).trailing_zeros()), *index));
    numbered.into_iter().map(|(_, point)| point).collect()
}

/// Kills at each point, or at as many as were asked for.
fn each_point(points: &[Point], most: usize, mut attempt: impl FnMut(&Point) -> Verdict) -> Verdict {
    for point in points.iter().take(most.max(1)) {
        attempt(point).map_err(|finding| finding.during(&format!("killed at {} {}", point.name, point.number)))?;
    }
    Ok(())
}

fn killed_add(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let points = points(&host.call_for("ADD", &pod))?;
    host.detach(&pod, pod.scaffold.as_ref())?;
    each_point(&points, host.points, |point| {
        let pod = super::busy_pod(host)?;
        strace::kill_at(&host.call_for("ADD", &pod), point)?;
        host.detach(&pod, pod.scaffold.as_ref())?;
        nothing_is_left(host)?;
        pod.remove_namespace()
    })
}

fn killed_del(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    let points = points(&host.call_for("DEL", &pod).prev(&result))?;
    host.detach(&pod, Some(&result))?;
    each_point(&points, host.points, |point| {
        let pod = super::busy_pod(host)?;
        let result = host.attach(&pod)?;
        strace::kill_at(&host.call_for("DEL", &pod).prev(&result), point)?;
        host.detach(&pod, Some(&result))?;
        nothing_is_left(host)?;
        pod.remove_namespace()
    })
}

fn add_after_killed_add(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let points = points(&host.call_for("ADD", &pod))?;
    host.detach(&pod, pod.scaffold.as_ref())?;
    each_point(&points, host.points / 8, |point| {
        let (killed, other) = (super::busy_pod(host)?, super::busy_pod(host)?);
        strace::kill_at(&host.call_for("ADD", &killed), point)?;
        host.detach(&killed, killed.scaffold.as_ref())?;
        let result = host.attach(&other)?;
        host.detach(&other, Some(&result))
    })
}

fn no_address_is_lost(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let all = super::gc::fill(host, patch)?;
    for pod in &all {
        host.call_for("DEL", pod).merge(patch).run()?.success()?;
    }
    host.settle()?;
    let pod = host.pod()?;
    let points = points(&host.call_for("ADD", &pod).merge(patch))?;
    host.call_for("DEL", &pod).merge(patch).run()?.success()?;
    each_point(&points, host.points / 8, |point| {
        let pod = host.pod()?;
        strace::kill_at(&host.call_for("ADD", &pod).merge(patch), point)?;
        host.call_for("DEL", &pod).merge(patch).run()?.success()?;
        host.settle()?;
        pod.remove_namespace()
    })?;
    let left = super::gc::fill(host, patch)?;
    ensure!(left.len() == all.len(), "the pool had {} addresses for containers and has {}", all.len(), left.len());
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_spread_and_none_is_lost() {
        let points: Vec<_> = (0..40).map(|number| Point { name: "write".to_owned(), number }).collect();
        let order: Vec<_> = spread(points).into_iter().map(|point| point.number).collect();
        assert_eq!(order[..4], [0, 16, 32, 8]);
        let mut all = order;
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>());
    }
}
