//! The plugin under strace(1), which kills it or lets its system calls fail.

use std::process::Child;

use serde_json::Value;

use crate::support::Place;

/// Runs the plugin under strace(1), which kills it at the `nth` such call of a thread. False if there were fewer.
pub fn killed_at(place: &Place, command: &str, container: &str, conf: &Value, call: &str, nth: usize) -> bool {
    let inject = format!("inject={call}:signal=SIGKILL:when={nth}");
    let output = spawn_under_strace(place, command, container, conf, &inject, call).wait_with_output().unwrap();
    let killed = output.stdout.is_empty() && !output.status.success();
    assert!(killed || output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    killed
}

/// Starts the plugin under strace(1), which does something to its system calls.
pub fn spawn_under_strace(
    place: &Place,
    command: &str,
    container: &str,
    conf: &Value,
    inject: &str,
    call: &str,
) -> Child {
    let mut strace = sandbox::command("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null"]);
    strace.args(["-e", &format!("trace={call}"), "-e", inject]);
    strace.arg(env!("CARGO_BIN_EXE_podwire-ipam"));
    place.feed(strace, command, container, conf)
}
