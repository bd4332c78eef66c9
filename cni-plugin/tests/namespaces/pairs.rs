//! Interfaces of different namespaces have the same numbers, so two links can each name the other's number and be no pair.

use serde_json::Value;

use crate::common::{TestPod, dual_stack, shown, text, traces};
use crate::inspect::by_hand;

fn ip(words: &str) -> String {
    text("ip", &words.split(' ').collect::<Vec<_>>())
}

/// The number of an interface, of a namespace or of this one.
fn number(netns: Option<&str>, link: &str) -> Value {
    let inside: Vec<&str> = netns.iter().flat_map(|id| ["-n", *id]).collect();
    shown("ip", &[&inside[..], &["-j", "link", "show", "dev", link]].concat())[0]["ifindex"].clone()
}

fn host_link(result: &Value) -> &str {
    result["interfaces"][0]["name"].as_str().unwrap()
}

/// The node's end is elsewhere, and in its place is another attachment's that leads to an interface of the same number: that is
/// not the one to be spared.
#[test]
fn a_link_that_was_moved_ends_though_anothers_looks_like_its_other_end() {
    sandbox::private_host(|| {
        let before = traces();
        let [one, _two, three] = ["one", "two", "three"].map(TestPod::new);
        let result = one.add(&dual_stack()).ok().json();
        let host = host_link(&result);
        let (outside, inside) = (number(None, host), number(Some("one"), "eth0"));
        ip(&format!("link set {host} netns two"));
        ip(&format!("link add other index {outside} type veth peer name eth0 index {inside} netns three"));
        text("ip", &["link", "set", "other", "alias", "podwire podnet three eth0"]);
        one.del(&dual_stack()).ok();
        assert!(!ip("-n one link show").contains("eth0") && !ip("-n two link show").contains(host));
        assert!(ip("link show").contains("other"));
        three.del(&dual_stack()).ok();
        before.unchanged("after both DELs");
    });
}

/// A namespace with an interface like the pod's, whose other end has the number of the node's end, but is elsewhere.
fn a_double_of(pod: &TestPod, host: &str) -> TestPod {
    let (double, _elsewhere) = (TestPod::new("double"), TestPod::new("elsewhere"));
    let (outside, inside) = (number(None, host), number(Some(&pod.id), "eth0"));
    ip(&format!("-n double link add eth0 index {inside} type veth peer name x index {outside} netns elsewhere"));
    assert_eq!((number(Some("double"), "eth0"), number(Some("elsewhere"), "x")), (inside, outside));
    double
}

#[test]
fn check_tells_a_pods_end_from_one_of_the_same_number() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        let double = a_double_of(&pod, host_link(&result));
        let answer = TestPod { id: pod.id.clone(), ..double }.check(&dual_stack(), &result);
        let details = answer.json()["details"].to_string();
        assert!(answer.error().0 == 110 && details.contains("found two links that are not a pair"), "{details}");
        pod.check(&dual_stack(), &result).ok();
    });
}

#[test]
fn inspect_shows_no_interface_of_the_same_number() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        let inside = || by_hand(&["inspect", "one", "-o", "json"]).ok().json()["items"][0]["inside"].clone();
        assert_eq!(inside()["netns"], "/run/netns/one");
        let _double = a_double_of(&pod, host_link(&result));
        // What the path leads to now: somebody bound another namespace over it.
        text("mount", &["--bind", "/run/netns/double", "/run/netns/one"]);
        assert_eq!(inside(), Value::Null);
        text("umount", &["/run/netns/one"]);
        assert_eq!(inside()["netns"], "/run/netns/one");
    });
}
