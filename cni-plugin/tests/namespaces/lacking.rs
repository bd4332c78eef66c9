//! A kernel that lacks something, as seccomp(2) makes it look to one process and those that it starts: sockets of a family
//! or a protocol cannot be opened, with the error that socket(2) has for that.

use std::os::unix::process::CommandExt;

use nix::errno::Errno;
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use serde_json::{Value, json};

use crate::common::{Answer, TestPod, addresses, dual_stack, exchange, finish, node_addresses, text, traces, with};
use crate::flavour::Flavour;
use crate::masquerade::{address, outside_machine};

/// What a kernel may be built or booted without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// `CONFIG_NETFILTER_NETLINK`, and so nf_tables.
    Nftables,
    /// `ipv6.disable=1`.
    Ipv6,
}

impl Lack {
    fn filter(self) -> BpfProgram {
        let is = |argument, value: i32| {
            let value = u64::try_from(value).unwrap();
            SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap()
        };
        let (conditions, errno) = match self {
            Self::Nftables => (vec![is(0, libc::AF_NETLINK), is(2, libc::NETLINK_NETFILTER)], Errno::EPROTONOSUPPORT),
            Self::Ipv6 => (vec![is(0, libc::AF_INET6)], Errno::EAFNOSUPPORT),
        };
        let rules = [(libc::SYS_socket, vec![SeccompRule::new(conditions).unwrap()])];
        let denied = SeccompAction::Errno(u32::try_from(errno as i32).unwrap());
        let architecture = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules.into_iter().collect(), SeccompAction::Allow, denied, architecture);
        filter.unwrap().try_into().unwrap()
    }

    /// Runs the plugin on such a kernel.
    fn run(self, env: &[(&str, String)], arguments: &[&str], config: &Value) -> Answer {
        let filter = self.filter();
        let mut plugin = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
        plugin.env_clear().envs(env.iter().map(|(name, value)| (name, value))).args(arguments);
        #[expect(unsafe_code, reason = "only between fork and exec can a child be confined")]
        // SAFETY: two system calls, without allocation.
        unsafe {
            plugin.pre_exec(move || apply_filter(&filter).map_err(|_| Errno::EPERM.into()));
        }
        finish(plugin, config.to_string().as_bytes())
    }

    fn call(self, pod: &TestPod, command: &str, config: &Value) -> Answer {
        self.run(&pod.env(command), &[], config)
    }
}

/// Settings that IPv6 would have are not there either.
fn without_ipv6_settings<T>(work: impl FnOnce() -> T) -> T {
    text("mount", &["-t", "tmpfs", "none", "/proc/sys/net/ipv6"]);
    let done = work();
    text("umount", &["/proc/sys/net/ipv6"]);
    done
}

#[test]
fn without_nf_tables_iptables_masquerades() {
    sandbox::private_host(|| {
        let outside = outside_machine();
        Flavour::Legacy.chosen();
        let first = TestPod::new("first");
        let config = with(dual_stack(), &json!({ "antiSpoofing": "off" }));
        Lack::Nftables.call(&first, "ADD", &config).ok();
        Lack::Nftables.call(&first, "DEL", &config).ok();
        let before = (traces(), Flavour::Legacy.rules());

        let pod = TestPod::new("one");
        let result = Lack::Nftables.call(&pod, "ADD", &config).ok().json();
        for (to, seen) in [("198.51.100.1", "192.168.50.1"), ("2001:db8:51::1", "fd50::1")] {
            assert_eq!(exchange(&outside, &pod.netns, address(to)).unwrap().ip(), address(seen));
        }
        Lack::Nftables.call(&pod, "CHECK", &with(config.clone(), &json!({ "prevResult": result }))).ok();
        Lack::Nftables.call(&pod, "STATUS", &config).ok();
        let valid = json!({ "cni.dev/valid-attachments": [{ "containerID": "one", "ifname": "eth0" }] });
        Lack::Nftables.call(&pod, "GC", &with(config.clone(), &valid)).ok();
        assert!(!Flavour::Legacy.rules().is_empty());
        Lack::Nftables.call(&pod, "DEL", &config).ok();
        before.0.unchanged("at the end");
        assert_eq!(Flavour::Legacy.rules(), before.1);
    });
}

#[test]
fn without_nf_tables_a_guard_is_refused_and_nothing_is_left() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        pod.add(&dual_stack()).ok();
        pod.del(&dual_stack()).ok();
        let before = traces();
        for changes in
            [json!({}), json!({ "ipMasq": false }), json!({ "antiSpoofing": "off", "ipMasqBackend": "nftables" })]
        {
            let config = with(dual_stack(), &changes);
            let (code, msg) = Lack::Nftables.call(&pod, "ADD", &config).error();
            assert!(
                code == 5 && msg.contains("no nf_tables") && msg.contains("\"antiSpoofing\": \"off\""),
                "{code} {msg}"
            );
            before.unchanged_but_the_ledger(&changes);
            let (code, msg) = Lack::Nftables.call(&pod, "STATUS", &config).error();
            assert!(code == 50 && msg.contains("no nf_tables"), "{code} {msg}");
        }
        Lack::Nftables.call(&pod, "DEL", &dual_stack()).ok();
        before.unchanged("at the end");
        let introduction = Lack::Nftables.run(&[], &[], &json!({})).ok().stderr;
        assert!(introduction.contains("nftables: the kernel has none"), "{introduction}");
        let nothing = Lack::Nftables.run(&[], &["inspect", "-o", "json"], &json!({})).ok();
        assert_eq!((&nothing.json()["items"], nothing.stderr.as_str()), (&json!([]), ""));
    });
}

/// A node booted with `ipv6.disable=1`. What the kernel says to a route look-up there, `kernel::rtnl::route` has a test for.
#[test]
fn without_ipv6_pods_have_ipv4() {
    sandbox::private_host(|| without_ipv6("nftables"));
}

#[test]
fn without_ipv6_iptables_masquerades_ipv4() {
    sandbox::private_host(|| without_ipv6("iptables"));
}

fn without_ipv6(backend: &str) {
    let [node_address, _] = node_addresses();
    if backend == "iptables" {
        Flavour::Legacy.chosen();
    }
    let pools = json!({ "type": "podwire-ipam", "podCIDR": "10.244.1.0/24" });
    let config = with(dual_stack(), &json!({ "ipam": pools, "ipMasqBackend": backend }));
    let pod = TestPod::new("one");
    pod.add(&config).ok();
    pod.del(&config).ok();
    let before = (traces(), Flavour::Legacy.rules());
    without_ipv6_settings(|| {
        let call = |command: &str, config: &Value| Lack::Ipv6.call(&pod, command, config);
        let result = call("ADD", &config).ok().json();
        let node = kernel::netns::NetNs::current().unwrap();
        exchange(&pod.netns, &node, addresses(&result)[0]).unwrap();
        exchange(&node, &pod.netns, node_address).unwrap();
        call("CHECK", &with(config.clone(), &json!({ "prevResult": result }))).ok();
        call("STATUS", &config).ok();
        let valid = json!({ "cni.dev/valid-attachments": [] });
        call("GC", &with(config.clone(), &valid)).ok();
        call("DEL", &config).ok();
        // An address that the kernel cannot have: nothing stays of the other one either.
        let both = with(dual_stack(), &json!({ "ipMasqBackend": backend }));
        let (code, msg) = call("ADD", &both).error();
        assert!(code == 5 && msg.contains("net/ipv6/conf/"), "{code} {msg}");
    });
    before.0.unchanged("at the end");
    assert_eq!(Flavour::Legacy.rules(), before.1);
}
