//! iproute2, asked for JSON.

use sandbox::command;
use serde_json::Value;

/// What `ip -j -d -N ARGS` prints. Numbers are left as numbers (`-N`).
pub fn ip(args: &str) -> Value {
    let output = command("ip").args(["-j", "-d", "-N"]).args(args.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    if output.stdout.is_empty() {
        return Value::Array(Vec::new());
    }
    serde_json::from_slice(&output.stdout).expect("ip -j prints JSON")
}

/// The only object that `ip -j ARGS` prints.
pub fn ip_one(args: &str) -> Value {
    let mut list = match ip(args) {
        Value::Array(list) => list,
        other => panic!("ip {args}: not a list: {other}"),
    };
    assert_eq!(list.len(), 1, "ip {args}: {list:?}");
    list.remove(0)
}

/// Changes something with `ip ARGS`.
pub fn set(args: &str) {
    let output = command("ip").args(args.split(' ')).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The index of an interface, as iproute2 sees it.
pub fn index_of(name: &str) -> u32 {
    index(&ip_one(&format!("link show dev {name}")))
}

/// `ifindex` of one of iproute2's objects.
pub fn index(link: &Value) -> u32 {
    link["ifindex"].as_u64().and_then(|index| index.try_into().ok()).expect("an interface index")
}
