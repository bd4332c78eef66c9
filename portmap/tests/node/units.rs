//! The units of systemd: a manager of its own runs them, with firewalls that flush everything when they start or reload;
//! one of them, as firewalld does, after it has told systemd that it is done.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::net::{NEIGHBOUR_V4, NODE_V4, forward, from, lan, pod};
use crate::common::plugin::{Attachment, nft, ruleset};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::private_host;
use serde_json::json;

const UNITS: &str = "/run/units";
const PLUGIN: &str = "/opt/cni/bin/podwire-portmap";
const MAIN_PLUGIN: &str = "/opt/cni/bin/podwire";
const RUNTIME: &str = "/run/user/0";
const OURS: [&str; 3] =
    ["podwire-portmap-firewall@.service", "podwire-portmap-reconcile.service", "podwire-portmap-reconcile.timer"];
/// Firewalls with a unit of their own, and the table of each.
const FIREWALLS: [(&str, &str); 3] =
    [("nftables", "table inet filter"), ("firewalld", "table inet firewalld"), ("ufw", "table inet ufw")];
/// What systemd runs of firewalld 1.3.3 for a reload is `kill -HUP`, and its name on the bus, by which it counts as
/// started, comes before its rules (firewall/server/server.py). So whoever comes after it comes before its flush.
const LATE: &str = "#!/bin/sh
load() { sleep 1; /usr/sbin/nft -f /run/firewalld.nft; }
trap load HUP
load
while :; do sleep 0.1; done
";
/// What each kind of unit asks the main plugin for.
const BY_FIREWALL: &str = "reconcile --quiet";
const BY_TIMER: &str = "reconcile --quiet --told /run/podwire/reconcile.told";
/// Longer than a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Puts our units and the executable where they belong, and firewalls beside them.
fn install() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd");
    fs::create_dir_all(UNITS).unwrap();
    for unit in OURS {
        fs::copy(examples.join(unit), format!("{UNITS}/{unit}")).unwrap();
        // A manager that is in a namespace itself cannot give a service mounts of its own.
        fs::create_dir_all(format!("{UNITS}/{unit}.d")).unwrap();
        if unit.ends_with(".service") {
            let no_mounts = "[Service]\nProtectHome=no\nProtectSystem=no\n";
            fs::write(format!("{UNITS}/{unit}.d/mounts.conf"), no_mounts).unwrap();
        }
    }
    // Debian's nftables.service, and others as if they were: all rules go and its own come, in one transaction.
    for (firewall, own) in FIREWALLS {
        let rules = format!("/run/{firewall}.nft");
        let chain = "chain forward { type filter hook forward priority filter; ct status dnat accept; }";
        fs::write(&rules, format!("flush ruleset\n{own} {{ {chain}; }}\n")).unwrap();
        let load = format!("/usr/sbin/nft -f {rules}");
        let oneshot = format!("[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart={load}\n");
        let unit = match firewall {
            "firewalld" => {
                "[Service]\nExecStart=/bin/sh /run/firewalld.sh\nExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'\n"
                    .to_owned()
            }
            // As Debian's has no reload.
            "ufw" => oneshot,
            _ => format!("{oneshot}ExecReload={load}\n"),
        };
        fs::write(format!("{UNITS}/{firewall}.service"), unit).unwrap();
        // As `systemctl enable` does.
        let instance = OURS[0].replace('@', &format!("@{firewall}"));
        fs::create_dir(format!("{UNITS}/{firewall}.service.wants")).unwrap();
        symlink(format!("../{}", OURS[0]), format!("{UNITS}/{firewall}.service.wants/{instance}")).unwrap();
    }
    fs::write("/run/firewalld.sh", LATE).unwrap();
    fs::write(format!("{UNITS}/basic.target"), "[Unit]\nDescription=All there is\n").unwrap();
    // A checkout may be below /opt itself.
    let plugin = fs::read(env!("CARGO_BIN_EXE_podwire-portmap")).unwrap();
    assert!(sandbox::command("mount").args(["-t", "tmpfs", "none", "/opt"]).status().unwrap().success());
    fs::create_dir_all("/opt/cni/bin").unwrap();
    fs::write(PLUGIN, plugin).unwrap();
    fs::set_permissions(PLUGIN, Permissions::from_mode(0o755)).unwrap();
    // In the main plugin's place: it says what it was asked, and fails.
    fs::write(MAIN_PLUGIN, "#!/bin/sh\necho \"$@\" >>/run/main-plugin.asked\nexit 4\n").unwrap();
    fs::set_permissions(MAIN_PLUGIN, Permissions::from_mode(0o755)).unwrap();
}

/// How the main plugin was asked to put back what is its own, each time.
fn asked() -> Vec<String> {
    let asked = fs::read_to_string("/run/main-plugin.asked").unwrap_or_default();
    assert!(asked.lines().all(|line| [BY_FIREWALL, BY_TIMER].contains(&line)), "{asked}");
    asked.lines().map(str::to_owned).collect()
}

/// A user manager of systemd, in a namespace of processes.
struct Manager(Child);

impl Manager {
    /// `None` if the kernel gives this user no control group to put services into.
    fn start() -> Option<Self> {
        fs::create_dir_all(RUNTIME).unwrap();
        // By this it tells that systemd is there at all.
        fs::create_dir_all("/run/systemd/system").unwrap();
        let script = "mount -t cgroup2 none /sys/fs/cgroup && mkdir /sys/fs/cgroup/podwire-probe && \
                      rmdir /sys/fs/cgroup/podwire-probe || exit 9; \
                      /lib/systemd/systemd --user --unit=basic.target; exit $?";
        let mut manager = sandbox::command("unshare");
        manager.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--cgroup", "sh", "-c", script]);
        manager.env("XDG_RUNTIME_DIR", RUNTIME).env("SYSTEMD_UNIT_PATH", UNITS);
        let log = fs::File::create("/run/manager.log").unwrap();
        let mut child = manager.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let end = Instant::now() + DEADLINE;
        while !Path::new(RUNTIME).join("systemd/private").exists() {
            if let Some(status) = child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(9), "{}", fs::read_to_string("/run/manager.log").unwrap());
                return None;
            }
            assert!(Instant::now() < end, "{}", fs::read_to_string("/run/manager.log").unwrap());
            thread::sleep(Duration::from_millis(10));
        }
        Some(Self(child))
    }

    #[track_caller]
    fn ctl(&self, arguments: &str) {
        let output = self.systemctl(arguments);
        let log = || fs::read_to_string("/run/manager.log").unwrap();
        assert!(output.status.success(), "systemctl {arguments}: {output:?}\n{}", log());
    }

    /// Waits until something is so, or says how our units are.
    #[track_caller]
    fn wait_for(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_so() {
            let state = || self.systemctl("show podwire-portmap-firewall@nftables podwire-portmap-firewall@firewalld");
            assert!(Instant::now() < end, "{what}: {}\n{:?}", ruleset(), state());
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn systemctl(&self, arguments: &str) -> Output {
        // The manager wants to know who asks, by a number of its own namespace.
        let first = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.0.id())).unwrap();
        let mut ctl: Command = sandbox::command("nsenter");
        ctl.args(["--pid", "--mount", "--target", first.trim(), "systemctl", "--user"]);
        ctl.args(arguments.split(' ')).env("XDG_RUNTIME_DIR", RUNTIME).env("SYSTEMD_UNIT_PATH", UNITS);
        ctl.output().unwrap()
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        // Its namespace of processes ends with it.
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn host_ports_come_back_when_systemd_starts_restarts_or_reloads_a_firewall() {
    private_host(|| {
        install();
        let units = OURS.map(|unit| format!("{UNITS}/{unit}"));
        let verified = sandbox::command("systemd-analyze").args(["verify", "--man=no"]).args(&units).output().unwrap();
        assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
        let Some(systemd) = Manager::start() else { return };
        forward();
        let (lan, pod) = (lan(), pod(2));
        pod.serve(80);
        let attachment = Attachment::new(&pod, &json!([{ "hostPort": 8080, "containerPort": 80 }]));
        attachment.add().ok();
        // Whoever loads its rules anew has flushed the canary.
        let come_back = |action: &str, table: &str| {
            nft(&["add", "table", "ip", "canary"]);
            let before = asked().len();
            systemd.ctl(action);
            systemd.wait_for(action, || !ruleset().contains("canary") && ruleset().contains("podnet pod2 eth0"));
            assert!(asked().len() > before, "{action}: the main plugin has rules, too");
            assert!(ruleset().contains(&format!("table inet {table}")), "{}", ruleset());
            systemd.wait_for(action, || matches!(attachment.check(), crate::common::plugin::Answer::Ok { .. }));
            assert_eq!(lan.tcp(NODE_V4[0], 8080), from("pod2", NEIGHBOUR_V4), "{action}");
        };
        for (action, table) in [
            ("start nftables.service", "filter"),
            ("reload nftables.service", "filter"),
            ("restart nftables.service", "filter"),
            ("start ufw.service", "ufw"),
            ("restart ufw.service", "ufw"),
            ("reload nftables.service", "filter"),
        ] {
            come_back(action, table);
        }
        // Of this nobody hears.
        nft(&["flush", "ruleset"]);
        assert!(asked().iter().all(|words| words == BY_FIREWALL));
        systemd.ctl("start podwire-portmap-reconcile.timer");
        systemd.wait_for("timer", || ruleset().contains("podnet pod2 eth0"));
        assert!(asked().iter().any(|words| words == BY_TIMER), "the main plugin comes first");
        // Nor when this is over.
        for action in ["start firewalld.service", "reload firewalld.service"] {
            come_back(action, "firewalld");
        }
    });
}
