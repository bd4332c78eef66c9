//! A node on which things are not as usual: each call does what it should or says clearly why not, and leaves nothing.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::common::{Answer, TestPod, addresses, dual_stack, exchange, finish, gc, run, text, traces, until, with};
use crate::ill_fate::{Verb, ill_fated};

/// The config with IPv4 alone.
fn single_stack() -> Value {
    with(dual_stack(), &json!({ "ipam": { "type": "podwire-ipam", "podCIDR": "10.244.1.0/24" } }))
}

fn host_link(result: &Value) -> String {
    result["interfaces"][0]["name"].as_str().unwrap().to_owned()
}

/// Runs `work` while something lies over a folder.
fn hidden<T>(folder: &str, work: impl FnOnce() -> T) -> T {
    let nothing: Option<&str> = None;
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
    let result = work();
    umount2(folder, MntFlags::MNT_DETACH).unwrap();
    result
}

/// Runs a verb by another program, e.g. one that takes rights away.
fn through(program: &str, arguments: &[&str], pod: &TestPod, verb: &str) -> Answer {
    let mut command: Command = sandbox::command(program);
    command.args(arguments).arg(env!("CARGO_BIN_EXE_podwire")).env_clear().envs(pod.env(verb));
    finish(command, dual_stack().to_string().as_bytes())
}

#[test]
fn lists_that_change_while_they_are_read() {
    sandbox::private_host(|| {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    text("ip", &["link", "add", "churn", "type", "veth", "peer", "name", "nruhc"]);
                    text("ip", &["address", "add", "10.1.1.1/24", "dev", "churn"]);
                    text("ip", &["link", "del", "churn"]);
                }
            });
            let pod = TestPod::new("one");
            for _ in 0..15 {
                let result = pod.add(&dual_stack()).ok().json();
                pod.check(&dual_stack(), &result).ok();
                gc(&json!([{ "containerID": "one", "ifname": "eth0" }])).ok();
                pod.del(&dual_stack()).ok();
            }
            stop.store(true, Ordering::Relaxed);
        });
    });
}

#[test]
fn a_link_that_was_renamed_or_moved_is_found() {
    sandbox::private_host(|| {
        let before = traces();
        for strays in [&["link", "set", "HOST", "name", "renamed"][..], &["link", "set", "HOST", "netns", "elsewhere"]]
        {
            for collect in [false, true] {
                kernel::netns::create_named("/run/netns/elsewhere").unwrap();
                let pod = TestPod::new("one");
                let result = pod.add(&dual_stack()).ok().json();
                let host = host_link(&result);
                text("ip", &["link", "set", &host, "down"]);
                text("ip", &strays.iter().map(|word| if *word == "HOST" { &host } else { *word }).collect::<Vec<_>>());
                let (code, _) = pod.check(&dual_stack(), &result).error();
                assert_eq!(code, 110);
                if collect && strays.contains(&"renamed") {
                    gc(&json!([])).ok();
                } else {
                    pod.del(&dual_stack()).ok();
                }
                before.unchanged(format!("{strays:?}"));
                assert!(!text("ip", &["-n", "one", "link"]).contains("eth0"), "{strays:?}");
                kernel::netns::remove_named(&pod.path).unwrap();
                kernel::netns::remove_named("/run/netns/elsewhere").unwrap();
            }
        }
    });
}

/// Not even the pod's end tells by its hardware address whose it is then.
#[test]
fn a_link_that_was_moved_is_found_by_what_was_told() {
    sandbox::private_host(|| {
        let before = traces();
        let wish = json!({ "runtimeConfig": { "mac": "02:00:00:00:00:09" } });
        for (changes, rewritten, knows_result) in
            [(wish, false, false), (json!({ "antiSpoofing": "addresses" }), true, true)]
        {
            kernel::netns::create_named("/run/netns/elsewhere").unwrap();
            let pod = TestPod::new("one");
            let config = with(dual_stack(), &changes);
            let result = pod.add(&config).ok().json();
            let host = host_link(&result);
            // Another attachment that is told the same is not taken for it.
            pod.del(&with(config.clone(), &json!({ "name": "another", "prevResult": result }))).ok();
            assert!(text("ip", &["-n", "one", "link"]).contains("eth0"), "{changes}");
            if rewritten {
                text("ip", &["-n", "one", "link", "set", "eth0", "address", "02:00:00:00:00:08"]);
            }
            text("ip", &["link", "set", &host, "down"]);
            text("ip", &["link", "set", &host, "netns", "elsewhere"]);
            let told = if knows_result { with(config, &json!({ "prevResult": result })) } else { config };
            // Another network's DEL of the same interface leaves it.
            pod.del(&with(dual_stack(), &json!({ "name": "another" }))).ok();
            assert!(text("ip", &["-n", "one", "link"]).contains("eth0"), "{changes}");
            pod.del(&told).ok();
            assert!(!text("ip", &["-n", "one", "link"]).contains("eth0"), "{changes}");
            before.unchanged(&changes);
            kernel::netns::remove_named(&pod.path).unwrap();
            kernel::netns::remove_named("/run/netns/elsewhere").unwrap();
        }
    });
}

#[test]
fn hardware_addresses_that_somebody_rewrites() {
    sandbox::private_host(|| {
        let before = traces();
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        let host = host_link(&result);
        // NET_ADDR_SET (linux/netdevice.h): what keeps systemd's MACAddressPolicy away from it.
        if let Ok(assigned) = std::fs::read_to_string(format!("/sys/class/net/{host}/addr_assign_type")) {
            assert_eq!(assigned.trim(), "3");
        }
        text("ip", &["link", "set", &host, "address", "02:00:00:00:00:01"]);
        let answer = pod.check(&dual_stack(), &result);
        assert_eq!(answer.error().0, 110);
        let details = answer.json()["details"].as_str().unwrap().to_owned();
        assert!(details.contains("ip -n POD neighbour replace 169.254.1.1 lladdr"), "{details}");
        pod.del(&dual_stack()).ok();
        before.unchanged("at the end");
    });
}

/// What chained plugins like `tuning` and `bandwidth` change, and people add, is none of CHECK's business.
#[test]
fn check_tolerates_what_later_plugins_may_change() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let mut result = pod.add(&dual_stack()).ok().json();
        let host = host_link(&result);
        for arguments in [
            &["link", "set", &host, "mtu", "1400"][..],
            &["-n", "one", "link", "set", "eth0", "mtu", "1400"],
            &["-n", "one", "link", "set", "eth0", "promisc", "on"],
            &["-n", "one", "address", "add", "192.0.2.7/32", "dev", "eth0"],
            &["-n", "one", "route", "add", "198.51.100.0/24", "via", "169.254.1.1", "dev", "eth0", "onlink"],
            &["-n", "one", "link", "add", "dummy0", "type", "veth", "peer", "name", "dummy1"],
            &["-n", "one", "link", "set", "lo", "down"],
        ] {
            text("ip", arguments);
        }
        // The final result of the chain lists interfaces of others, and changed hardware addresses.
        result["interfaces"].as_array_mut().unwrap().push(json!({ "name": "ifb0", "mac": "02:00:00:00:00:02" }));
        // And routes: of this plugin's own each has a next hop.
        result["routes"].as_array_mut().unwrap().push(json!({ "dst": "203.0.113.0/24" }));
        pod.check(&dual_stack(), &result).ok();
        text("ip", &["-n", "one", "address", "del", "10.244.1.2/32", "dev", "eth0"]);
        let details = pod.check(&dual_stack(), &result).json()["details"].as_str().unwrap().to_owned();
        assert!(details.contains("found only 192.0.2.7/32"), "{details}");
    });
}

#[test]
fn ipv6_that_is_disabled_by_a_setting() {
    sandbox::private_host(|| {
        for setting in ["all", "default"] {
            text("sysctl", &["-qw", &format!("net.ipv6.conf.{setting}.disable_ipv6=1")]);
        }
        let (one, two) = (TestPod::new("one"), TestPod::new("two"));
        for pod in [&one, &two] {
            text("ip", &["netns", "exec", &pod.id, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1"]);
        }
        one.add(&dual_stack()).ok();
        let ips = addresses(&two.add(&dual_stack()).ok().json());
        exchange(&two.netns, &one.netns, ips[1]).unwrap();
    });
}

/// A node booted with ipv6.disable=1 has no such settings; see also `kernel::rtnl::route`, whose look-up must
/// take the kernel's refusal for "no route".
#[test]
fn a_kernel_without_ipv6() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let before = traces();
        hidden("/proc/sys/net/ipv6", || {
            let result = pod.add(&single_stack()).ok().json();
            pod.check(&single_stack(), &result).ok();
            pod.del(&single_stack()).ok();
            let (code, msg) = pod.add(&dual_stack()).error();
            assert!(code == 5 && msg.contains("net/ipv6/conf/"), "{code} {msg}");
        });
        before.unchanged("at the end");
    });
}

#[test]
fn a_kernel_without_nf_tables() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        // With a ledger, the threads of an ADD have no other socket of the same number than that of nf_tables.
        pod.add(&dual_stack()).ok();
        pod.del(&dual_stack()).ok();
        let before = traces();
        // Each socket in turn is one that the kernel does not have: among them that of nf_tables.
        let mut refusals = Vec::new();
        for n in 1..20 {
            let (answer, happened) = ill_fated(Verb::Add, &pod, "socket", "error=EPROTONOSUPPORT", &n.to_string());
            if !happened {
                pod.del(&dual_stack()).ok();
                break;
            }
            assert!(!answer.success, "socket {n}: {answer:?}");
            refusals.push(answer.stdout);
            before.unchanged_but_the_ledger(format!("socket {n}"));
        }
        let is_clear = |said: &String| said.contains("this kernel has no nf_tables") && said.contains("not supported");
        assert!(refusals.iter().any(is_clear), "{refusals:#?}");
        // The first socket of a DEL is that of nf_tables; without the pod's namespace no other thread opens one.
        kernel::netns::remove_named(&pod.path).unwrap();
        ill_fated(Verb::Del, &pod, "socket", "error=EPROTONOSUPPORT", "1").0.ok();
        before.unchanged("at the end");
    });
}

#[test]
fn a_namespace_that_is_deleted_in_the_middle_of_an_add() {
    sandbox::private_host(|| {
        let before = traces();
        for n in [4, 8, 12, 16] {
            let pod = TestPod::new("one");
            std::thread::scope(|scope| {
                // Until somebody has deleted it, the ADD waits at its n-th request.
                let add = scope.spawn(|| ill_fated(Verb::Add, &pod, "sendto", "delay_enter=500000", &n.to_string()));
                until(
                    || std::fs::read_dir("/run").unwrap().any(|entry| entry.unwrap().file_name() == "strace-one"),
                    || "no ADD".to_owned(),
                );
                kernel::netns::remove_named(&pod.path).unwrap();
                // Served in a namespace that only the plugin still holds, or refused: both are true.
                let (answer, _) = add.join().unwrap();
                assert!(answer.success || [4, 5, 11].contains(&answer.error().0), "{answer:?}");
            });
            pod.del(&dual_stack()).ok();
            before.unchanged(format!("request {n}"));
        }
    });
}

#[test]
fn a_limit_of_open_files() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let before = traces();
        let mut served = 0;
        for limit in (4..64).step_by(3) {
            let limit = format!("--nofile={limit}");
            let answer = through("prlimit", &[&limit], &pod, "ADD");
            if answer.success {
                served += 1;
            } else if answer.stdout.is_empty() {
                // The dynamic loader could not even open the libraries: nothing has begun.
                assert!(
                    answer.stderr.contains("libraries") || answer.stderr.contains("Too many open files"),
                    "{limit}: {answer:?}"
                );
            } else {
                assert!(
                    answer.stdout.contains("Too many open files") || answer.stdout.contains("os error 24"),
                    "{limit}: {answer:?}"
                );
                before.unchanged_but_the_ledger(&limit);
            }
            through("prlimit", &[&limit], &pod, "DEL");
            pod.del(&dual_stack()).ok();
            before.unchanged(&limit);
        }
        assert!(served > 0, "no ADD was served");
    });
}

#[test]
fn calls_that_a_seccomp_profile_denies() {
    sandbox::private_host(|| {
        let before = traces();
        let pod = TestPod::new("one");
        for denied in ["sched_setscheduler", "sched_setaffinity", "clone", "setsid", "chdir", "prctl"] {
            for verb in [Verb::Add, Verb::Del] {
                ill_fated(verb, &pod, denied, "error=EPERM", "1+").0.ok();
            }
            before.unchanged(denied);
        }
    });
}

#[test]
fn an_environment_without_anything() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let before = traces();
        // Whose namespace is whose, and which boot this is, is told by /proc alone.
        let answer = hidden("/proc", || run(&pod.env("ADD"), &dual_stack()));
        let (code, msg) = answer.error();
        assert!(code == 5 && answer.stdout.contains("/proc"), "{code} {msg}: {answer:?}");
        before.unchanged("without /proc");

        // No PATH, no HOME, a folder that is gone: `run` clears the environment.
        let result = run(&pod.env("ADD"), &dual_stack()).ok().json();
        pod.check(&dual_stack(), &result).ok();
        pod.del(&dual_stack()).ok();
        before.unchanged("without an environment");

        // With standard streams closed, what is opened next must not be taken for one of them.
        for closed in [&[0][..], &[1], &[2], &[0, 1, 2]] {
            let answer = without_streams(&pod, closed);
            // Without a config there is nothing to serve; an answer that nobody can hear is lost, as its DEL will find.
            assert_eq!(answer.success, !closed.contains(&0), "{closed:?}: {answer:?}");
            pod.del(&dual_stack()).ok();
            before.unchanged(format!("{closed:?}"));
        }
    });
}

fn without_streams(pod: &TestPod, closed: &'static [i32]) -> Answer {
    use std::os::unix::process::CommandExt;
    let mut command = sandbox::command(env!("CARGO_BIN_EXE_podwire"));
    command.env_clear().envs(pod.env("ADD"));
    #[expect(unsafe_code, reason = "only between fork and exec can a child's stream be closed")]
    // SAFETY: close(2) neither allocates nor locks.
    unsafe {
        command.pre_exec(move || closed.iter().try_for_each(|stream| nix::unistd::close(*stream)).map_err(Into::into));
    }
    finish(command, dual_stack().to_string().as_bytes())
}

/// Somebody takes the pod's link down and up again. The kernel keeps IPv4 addresses by itself, and routes and neighbours of
/// neither family.
#[test]
fn addresses_outlive_a_link_that_goes_down() {
    sandbox::private_host(|| {
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        for state in ["down", "up"] {
            text("ip", &["-n", "one", "link", "set", "eth0", state]);
        }
        for address in addresses(&result) {
            let shown = text("ip", &["-n", "one", "-o", "address", "show", "dev", "eth0", "to", &address.to_string()]);
            assert!(shown.contains(&address.to_string()), "{address}: {shown:?}");
        }
        let found = pod.check(&dual_stack(), &result);
        let details = found.json()["details"].as_str().unwrap().to_owned();
        assert_eq!(details.matches("route replace default").count(), 2, "{details}");
        assert_eq!(details.matches("neighbour replace").count(), 2, "{details}");
        assert!(!details.contains("address add"), "{details}");
    });
}

/// Where all that is needed has its value already, nothing has to be written.
#[test]
fn settings_that_cannot_be_written() {
    sandbox::private_host(|| {
        for setting in [
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.default.rp_filter=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv6.conf.default.accept_ra=0",
        ] {
            text("sysctl", &["-w", setting]);
        }
        let nothing: Option<&str> = None;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some("/proc/sys"), "/proc/sys", nothing, flags, nothing).unwrap();
        mount(nothing, "/proc/sys", nothing, flags | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, nothing).unwrap();
        let pod = TestPod::new("one");
        let result = pod.add(&dual_stack()).ok().json();
        let keep = ["netns", "exec", "one", "sysctl", "-n", "net.ipv6.conf.eth0.keep_addr_on_down"];
        assert_eq!(text("ip", &keep).trim(), "0");
        pod.check(&dual_stack(), &result).ok();
        pod.del(&dual_stack()).ok();
    });
}
