//! Programs and kernels that are not as they should be, and rules that somebody else has been at.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::backend::Backend;
use crate::common::net::{self, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, PATIENCE, forward, from, lan, pod};
use crate::common::plugin::{Answer, Attachment, call, feed, gc, nft, run};
use nix::libc;
use sandbox::private_host;
use serde_json::json;

on_each_backend!(a_flushed_firewall_is_no_trouble_for_del_and_is_repaired_by_add,);

on_iptables!(a_chain_of_the_same_name_is_left_alone,);

/// Where a program that hangs says who it is.
const HUNG: &str = "/run/hung";

fn on_paper(backend: Backend) -> Attachment {
    let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
    Attachment::on_paper("c1", &["10.88.0.2/32", "fd88::2/128"], &ports).on(backend)
}

/// Hides what a folder has.
fn hide(folder: &str) {
    assert!(sandbox::command("mount").args(["-t", "tmpfs", "none", folder]).status().unwrap().success());
}

/// Puts a script in the place of `iptables-restore`.
fn fake(script: &str) {
    hide("/usr/local/sbin");
    for name in ["iptables-restore", "iptables-legacy-restore"] {
        let path = format!("/usr/local/sbin/{name}");
        fs::write(&path, format!("#!/bin/sh\n[ \"$1\" = --version ] && echo 'v1.8.9 (legacy)' && exit\n{script}\n"))
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn an_iptables_that_is_missing_is_named() {
    private_host(|| {
        for folder in ["/usr/sbin", "/usr/local/sbin"] {
            hide(folder);
        }
        let attachment = on_paper(Backend::IptablesNft);
        let (code, msg, details) = attachment.add().failed();
        assert_eq!((code, msg.as_str()), (5, "iptables cannot be used"));
        assert!(details.contains("there is no program iptables-restore"), "{details}");
        attachment.del().ok();
        let (code, msg, details) = status(Backend::IptablesNft).failed();
        assert_eq!((code, msg.as_str()), (50, "no host port can be mapped"));
        assert!(details.contains("there is no program iptables-restore"), "{details}");
        // It is not needed where nftables is used.
        on_paper(Backend::Nftables).add().ok();
    });
}

/// A node may do without IPv6.
#[test]
fn status_goes_on_without_ip6tables() {
    private_host(|| {
        ["/etc/alternatives", "/usr/local/sbin"].iter().for_each(|folder| hide(folder));
        symlink("/usr/sbin/xtables-nft-multi", "/usr/local/sbin/iptables-restore").unwrap();
        let remarks = status(Backend::IptablesNft).remarks();
        assert_eq!(remarks.matches("there is no program ip6tables-restore").count(), 1, "{remarks}");
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let of_ip = Attachment::on_paper("c1", &["10.88.0.2/32"], &ports).on(Backend::IptablesNft);
        of_ip.add().ok();
        of_ip.del().ok();
    });
}

/// A program of IPv6 that is there and does not run is as good as none; one of IPv4 keeps every pod from coming.
#[test]
fn status_goes_on_with_an_ip6tables_that_does_not_run_and_not_with_such_an_iptables() {
    private_host(|| {
        hide("/usr/local/sbin");
        // Without an interpreter it cannot be started; with one it says why it ends.
        for (text, told) in [("#!/nowhere\n", "cannot run "), ("#!/bin/sh\necho broken >&2; exit 127\n", ": broken")] {
            let place = |name: &str| {
                let path = format!("/usr/local/sbin/{name}");
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
                path
            };
            let of_ip6 = place("ip6tables-restore");
            let remarks = status(Backend::IptablesNft).remarks();
            let about = remarks.lines().filter(|line| line.contains(&of_ip6)).count();
            assert!(about == 1 && remarks.contains(told), "{remarks}");
            let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
            let of_ip = Attachment::on_paper("c1", &["10.88.0.2/32"], &ports).on(Backend::IptablesNft);
            of_ip.add().ok();
            of_ip.check().ok();
            of_ip.del().ok();
            let (code, msg, details) = on_paper(Backend::IptablesNft).add().failed();
            assert_eq!((code, msg.as_str()), (5, "iptables cannot be used"));
            assert!(details.contains(&of_ip6), "{details}");
            let of_ip4 = place("iptables-restore");
            let (code, _, details) = status(Backend::IptablesNft).failed();
            assert!(code == 50 && details.contains(&of_ip4), "{code}: {details}");
            fs::remove_file(of_ip4).unwrap();
        }
        assert_eq!(Backend::IptablesNft.rules(), "");
    });
}

fn status(backend: Backend) -> Answer {
    let config =
        json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap", "backend": backend.key() });
    call("STATUS", &[], &config.to_string())
}

/// What a person sees who runs the plugin.
fn by_hand() -> String {
    let mut plugin = sandbox::command(env!("CARGO_BIN_EXE_podwire-portmap"));
    let output = plugin.env_remove("CNI_COMMAND").output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_backend_is_explained_and_a_mix_of_flavours_reported() {
    private_host(|| {
        let alone = by_hand();
        assert!(alone.contains("nftables: the kernel has it; it is used unless a config says otherwise"), "{alone}");
        let tool = "ip6tables: /usr/sbin/ip6tables-restore writes to nft: ip6tables-restore v";
        assert!(alone.contains(tool) && alone.contains("(nf_tables)") && !alone.contains("legacy"), "{alone}");
        for program in ["iptables-legacy-restore", "iptables-nft-restore"] {
            assert!(!by_hand().contains("both nft and legacy"));
            feed(program, &["--noflush"], "*nat\n-A PREROUTING -j RETURN\nCOMMIT\n");
        }
        let mixed = "both nft and legacy have ip rules in table nat of iptables";
        assert!(by_hand().contains(mixed), "{}", by_hand());
        // It keeps nobody from being served.
        let remarks = status(Backend::IptablesNft).remarks();
        assert!(remarks.contains(mixed), "{remarks}");
        Backend::IptablesLegacy.prepared();
        let tool = "iptables: /usr/local/sbin/iptables-restore writes to legacy";
        assert!(by_hand().contains(tool), "{}", by_hand());
    });
}

#[test]
fn an_iptables_that_hangs_is_ended() {
    private_host(|| {
        fake("sleep 1000");
        let (code, msg, details) = on_paper(Backend::IptablesLegacy).add().failed();
        assert_eq!((code, msg.as_str()), (5, "failed to change the rules of host ports"));
        assert!(details.ends_with("iptables-restore did not end within 10 s"), "{details}");
    });
}

/// Puts programs in the place of `iptables-restore` that say who they are and hang. What it returns takes them away again.
fn hang() -> impl Fn() {
    fake(&format!("echo $$ > {HUNG}; exec sleep 1000"));
    || assert!(sandbox::command("umount").arg("/usr/local/sbin").status().unwrap().success())
}

/// Whether a program that hung is there.
fn is_hung() -> bool {
    fs::exists(format!("/proc/{}", fs::read_to_string(HUNG).unwrap().trim())).unwrap()
}

#[test]
fn a_del_whose_iptables_hangs_ends_and_its_port_is_free() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let attach = |id: &str, address: &str| Attachment::on_paper(id, &[address], &ports).on(Backend::IptablesLegacy);
        let ended = attach("c1", "10.88.0.2/32");
        ended.add().ok();
        let mend = hang();
        let remarks = ended.del().remarks();
        assert!(remarks.contains("iptables-legacy-restore did not end within 10 s"), "{remarks}");
        assert!(!is_hung() && fs::exists("/run/podwire/portmap/!podnet:c1:eth0").unwrap());
        mend();
        assert!(Backend::IptablesLegacy.rules().contains("podnet c1 eth0"));
        // Nobody repeats the DEL.
        let next = attach("c2", "10.88.0.3/32");
        next.add().ok();
        next.check().ok();
        assert!(!Backend::IptablesLegacy.rules().contains(" c1 "), "{}", Backend::IptablesLegacy.rules());
        next.del().ok();
        assert_eq!(Backend::IptablesLegacy.rules(), "");
        assert!(!fs::exists("/run/podwire/portmap").unwrap());
    });
}

#[test]
fn a_gc_whose_iptables_hangs_says_so_and_the_next_one_ends_what_is_left() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        Attachment::on_paper("c1", &["10.88.0.2/32"], &ports).on(Backend::IptablesLegacy).add().ok();
        let mend = hang();
        let (code, msg, details) = gc("podnet", &[]).failed();
        assert_eq!((code, msg.as_str()), (5, "failed to change the rules of host ports"));
        assert!(details.ends_with("iptables-legacy-restore did not end within 10 s"), "{details}");
        assert!(!is_hung());
        mend();
        assert!(Backend::IptablesLegacy.rules().contains("podnet c1 eth0"));
        gc("podnet", &[]).ok();
        assert_eq!(Backend::IptablesLegacy.rules(), "");
        assert!(!fs::exists("/run/podwire/portmap").unwrap());
    });
}

#[test]
fn what_iptables_complains_about_is_told() {
    private_host(|| {
        fake("echo 'iptables-restore: line 3 failed' >&2; exit 1");
        let (code, _, details) = on_paper(Backend::IptablesLegacy).add().failed();
        assert_eq!(code, 5);
        assert!(details.contains("line 3 failed; the line is `-A PODWIRE-GUARD -d 127.0.0.0/8"), "{details}");
    });
}

#[test]
fn a_lock_that_is_held_is_a_reason_to_try_again() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        let attachment = on_paper(Backend::IptablesLegacy);
        let (code, _, details) = attachment.add().failed();
        assert_eq!(code, 11);
        assert!(details.contains("did not get the xtables lock within 5 s"), "{details}");
        drop(lock);
        assert_eq!(Backend::IptablesLegacy.rules(), "");
        attachment.add().ok();
        attachment.check().ok();
    });
}

#[test]
fn what_a_del_had_to_leave_is_no_living_pods() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        forward();
        let (lan, old, new) = (lan(), pod(2), pod(3));
        new.serve(80);
        let ports = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let [ended, next] = [&old, &new].map(|pod| Attachment::new(pod, &ports).on(Backend::IptablesLegacy));
        ended.add().ok();
        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        let remarks = ended.del().remarks();
        assert!(remarks.contains("did not get the xtables lock"), "{remarks}");
        drop(lock);
        assert!(Backend::IptablesLegacy.rules().contains("podnet pod2 eth0"));
        // The chain goes on, and the pod's interface and namespace go.
        old.die();
        next.add().ok();
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod3", NEIGHBOUR_V4));
        assert!(!Backend::IptablesLegacy.rules().contains("pod2"), "{}", Backend::IptablesLegacy.rules());
        next.del().ok();
        assert_eq!(Backend::IptablesLegacy.rules(), "");
        assert!(!fs::exists("/run/podwire/portmap").unwrap());
    });
}

#[test]
fn a_gc_that_does_not_get_the_lock_says_so_and_the_next_one_ends_what_is_left() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        on_paper(Backend::IptablesLegacy).add().ok();
        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        let (code, _, details) = gc("podnet", &[]).failed();
        assert_eq!(code, 11, "{details}");
        assert!(details.contains("did not get the xtables lock"), "{details}");
        drop(lock);
        assert!(Backend::IptablesLegacy.rules().contains("podnet c1 eth0"));
        gc("podnet", &[]).ok();
        assert_eq!(Backend::IptablesLegacy.rules(), "");
        assert!(!fs::exists("/run/podwire/portmap").unwrap());
    });
}

#[test]
fn our_lock_lasts_until_the_change_is_made_even_if_the_plugin_is_killed() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        let attachments: Vec<Attachment> = (1..5)
            .map(|n: u16| {
                let ports = json!([{ "hostPort": 8080 + n, "containerPort": 80 }]);
                Attachment::on_paper(&format!("c{n}"), &[&format!("10.88.0.{n}/32")], &ports)
            })
            .map(|attachment| attachment.on(Backend::IptablesLegacy))
            .collect();
        attachments.iter().for_each(|one| drop(one.add().ok()));
        let xtables = File::create("/run/xtables.lock").unwrap();
        xtables.lock().unwrap();
        let mut plugin = sandbox::command(env!("CARGO_BIN_EXE_podwire-portmap"));
        plugin.env("CNI_COMMAND", "DEL").env("CNI_CONTAINERID", "c1").env("CNI_IFNAME", "eth0");
        let mut plugin = plugin.env("CNI_PATH", "/").stdin(Stdio::piped()).spawn().unwrap();
        let config = json!({ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" });
        plugin.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        // Its program waits for the lock of iptables.
        let end = Instant::now() + PATIENCE;
        let child = format!("/proc/{0}/task/{0}/children", plugin.id());
        let waits = || {
            let child = fs::read_to_string(&child).unwrap();
            let locks = fs::read_to_string("/proc/locks").unwrap();
            let of_child = |line: &str| line.split_whitespace().any(|word| word == child.trim());
            !child.is_empty() && locks.lines().any(|line| line.contains(" -> ") && of_child(line))
        };
        while !waits() {
            assert!(Instant::now() < end, "{}", fs::read_to_string("/proc/locks").unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        plugin.kill().unwrap();
        plugin.wait().unwrap();
        let ours = File::open("/run/podwire/iptables.lock").unwrap();
        let taken = ours.try_lock();
        assert!(matches!(taken, Err(TryLockError::WouldBlock)), "{taken:?}");
        // Nobody's numbers are moved by what the program does late.
        std::thread::scope(|scope| {
            let second = scope.spawn(|| attachments[1].del().ok());
            drop(xtables);
            second.join().unwrap();
        });
        let rules = Backend::IptablesLegacy.rules();
        let left = |n: u16| rules.matches(&format!("podnet c{n} eth0")).count();
        assert_eq!([1, 2, 3, 4].map(left), [0, 0, left(3), left(3)], "{rules}");
        assert!(left(3) > 0, "{rules}");
        attachments[2..].iter().for_each(|one| drop(one.check().ok()));
    });
}

#[test]
fn warnings_of_iptables_are_no_failure() {
    private_host(|| {
        // The program for nf_tables warns of rules in the other flavour.
        feed("iptables-legacy-restore", &["--noflush"], "*nat\n-A PREROUTING -j RETURN\nCOMMIT\n");
        let attachment = on_paper(Backend::IptablesNft);
        attachment.add().ok();
        attachment.check().ok();
        attachment.del().ok();
        assert_eq!(Backend::IptablesNft.rules(), "");
    });
}

/// Lets a program, and those that it runs, open no socket to netfilter: as on a kernel without nf_tables.
fn without_nf_tables(command: &mut std::process::Command) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf: 0, k };
    let unless = |k: u32, skip: u8| libc::sock_filter { jf: skip, ..statement(libc::BPF_JMP | libc::BPF_JEQ, k) };
    let load = |offset: u32| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let give = |k: u32| statement(libc::BPF_RET, k);
    // `struct seccomp_data`: the number of the call, and its arguments from byte 16 on, of eight bytes each.
    let filter = [
        load(0),
        unless(u32::try_from(libc::SYS_socket).unwrap(), 5),
        load(16),
        unless(u32::try_from(libc::AF_NETLINK).unwrap(), 3),
        load(32),
        unless(u32::try_from(libc::NETLINK_NETFILTER).unwrap(), 1),
        give(libc::SECCOMP_RET_ERRNO | u32::try_from(libc::EPROTONOSUPPORT).unwrap()),
        give(libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program =
            libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_ptr().cast_mut() };
        #[expect(unsafe_code, reason = "no safe wrapper knows seccomp filters")]
        // SAFETY: the filter outlives the calls, and the kernel copies it.
        let result = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
                | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    #[expect(unsafe_code, reason = "a filter is installed between fork and exec")]
    // SAFETY: the closure makes system calls only.
    unsafe {
        command.pre_exec(install);
    }
}

#[test]
fn without_nf_tables_iptables_is_used() {
    private_host(|| {
        Backend::IptablesLegacy.prepared();
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        let request = |verb: &str| {
            let mut plugin = sandbox::command(env!("CARGO_BIN_EXE_podwire-portmap"));
            without_nf_tables(&mut plugin);
            let container = [("CNI_CONTAINERID", "pod2"), ("CNI_IFNAME", "eth0"), ("CNI_NETNS", "/run/netns/pod2")];
            Answer::of(&run(plugin, verb, &container, &attachment.config.to_string()))
        };
        let added = request("ADD");
        assert!(matches!(added, Answer::Ok { .. }), "{added:?}");
        assert!(Backend::IptablesLegacy.rules().contains("podnet pod2 eth0"));
        assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        assert_eq!(lan.tcp(NODE_V6[0], 8080), from("pod2", NEIGHBOUR_V6));
        request("CHECK").ok();
        let ended = request("DEL");
        assert!(matches!(ended, Answer::Ok { .. }), "{ended:?}");
        assert_eq!(Backend::IptablesLegacy.rules(), "");
        // Neither is there.
        for folder in ["/usr/sbin", "/usr/local/sbin"] {
            hide(folder);
        }
        let (code, msg, details) = request("ADD").failed();
        let expected = "neither nftables nor iptables can be used: the kernel has no nf_tables";
        assert_eq!((code, msg.as_str()), (5, expected));
        assert!(details.contains("iptables-restore"), "{details}");
    });
}

/// Empties what holds the rules; all of it, or leaving chains and sets.
fn flush(backend: Backend, all: bool) {
    match (backend, all) {
        (Backend::Nftables, true) => drop(nft(&["flush", "ruleset"])),
        (Backend::Nftables, false) => {
            nft(&["flush", "table", "ip", "podwire-hostport"]);
            nft(&["flush", "table", "ip6", "podwire-hostport"]);
        }
        (_, all) => {
            for program in ["iptables", "ip6tables"] {
                let program = format!("{program}{}", &backend.iptables()["iptables".len()..]);
                let tables: &[&str] = if program.starts_with("ip6") { &["nat"] } else { &["nat", "raw"] };
                for table in tables {
                    for action in ["-F", "-X"].iter().take(if all { 2 } else { 1 }) {
                        let done = sandbox::command(&program).args(["-t", table, action]).status().unwrap();
                        assert!(done.success());
                    }
                }
            }
        }
    }
}

fn a_flushed_firewall_is_no_trouble_for_del_and_is_repaired_by_add(backend: Backend) {
    forward();
    let (lan, one, two) = (lan(), pod(2), pod(3));
    one.serve(80);
    two.serve(80);
    let first = Attachment::new(&one, &json!([{ "hostPort": 8080, "containerPort": 80 }])).on(backend);
    let second = Attachment::new(&two, &json!([{ "hostPort": 8081, "containerPort": 80 }])).on(backend);
    for all in [true, false] {
        first.add().ok();
        flush(backend, all);
        assert_ne!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4));
        assert_eq!(first.del().remarks(), "");
        // An ADD puts back what is nobody's, and what is its own.
        first.add().ok();
        flush(backend, all);
        second.add().ok();
        first.add().ok();
        for (port, name) in [(8080, "pod2"), (8081, "pod3")] {
            assert_eq!(lan.tcp(NODE_V4[0], port), from(name, NEIGHBOUR_V4), "{port}, all: {all}");
            assert_eq!(lan.tcp(NODE_V6[0], port), from(name, NEIGHBOUR_V6), "{port}, all: {all}");
        }
        let local = net::tcp(std::net::Ipv4Addr::LOCALHOST, 8080).map(|(name, _)| name);
        assert_eq!(local, Ok("pod2".to_owned()));
        first.check().ok();
        second.check().ok();
        first.del().ok();
        second.del().ok();
        assert!(!backend.rules().contains("odwire") && !backend.rules().contains("PODWIRE"), "{}", backend.rules());
    }
}

fn a_chain_of_the_same_name_is_left_alone(backend: Backend) {
    let restore = format!("{}-restore", backend.iptables());
    feed(&restore, &["--noflush"], "*nat\n:PODWIRE-HOSTPORT - [0:0]\n-A PODWIRE-HOSTPORT -j RETURN\nCOMMIT\n");
    let before = backend.rules();
    let attachment = on_paper(backend);
    let (code, msg, _) = attachment.add().failed();
    let expected = "chain PODWIRE-HOSTPORT of ip table nat in iptables is not this plugin's: no rule of it has the \
                    comment \"podwire-hostport\"";
    assert_eq!((code, msg.as_str()), (121, expected));
    attachment.del().ok();
    assert_eq!(backend.rules(), before);
}
