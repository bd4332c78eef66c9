//! Debian's firewalld and ufw as they are, on a node of their own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than a busy machine needs.
const DEADLINE: Duration = Duration::from_secs(120);
/// Where a program of theirs may be executed from: nothing else of the machine is below it.
const COPY: &str = "/run/firewalls";
const BUS: &str = "/run/system-bus";
const BUS_LOG: &str = "/run/system-bus.log";
const LOG: &str = "/run/firewalld.log";

/// What firewalld runs with, which its user may have to install.
const LIBRARIES: [&str; 3] = [
    "/usr/bin/dbus-daemon",
    "/usr/lib/python3/dist-packages/dbus/__init__.py",
    "/usr/lib/python3/dist-packages/gi/__init__.py",
];

/// A copy of their files that can be changed, by this node alone; `None`, and said so, where they or what they run with
/// are not there.
#[expect(clippy::print_stderr, reason = "whoever reads the output is told what was not tested")]
fn copied(program: &str, libraries: &[&str]) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/firewalls");
    let program = folder.join(program);
    let mut needed = [program.as_path()].into_iter().chain(libraries.iter().map(Path::new));
    if let Some(missing) = needed.find(|file| !file.is_file()) {
        eprintln!("not tested: {} is not there, which `cargo xtask test` gets for root", missing.display());
        return None;
    }
    fs::create_dir(COPY).unwrap();
    ran(sandbox::command("mount").args(["-t", "tmpfs", "-o", "mode=0755", "none", COPY]));
    ran(sandbox::command("cp").args(["--recursive", "--no-target-directory"]).arg(folder).arg(COPY));
    fs::set_permissions(COPY, fs::Permissions::from_mode(0o755)).unwrap();
    Some(PathBuf::from(COPY))
}

/// A program of theirs, with its own modules, and no right to load any into the kernel.
fn python(script: &Path) -> Command {
    let mut command = sandbox::command("setpriv");
    command.args(["--bounding-set=-sys_module", "--inh-caps=-sys_module", "/usr/bin/python3"]).arg(script);
    command.env("PYTHONPATH", Path::new(COPY).join("usr/lib/python3/dist-packages"));
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={BUS}"));
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn set(file: &Path, key: &str, value: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.lines().any(|line| line.starts_with(&format!("{key}="))), "{key}: {text}");
    let line = |line: &str| {
        if line.starts_with(&format!("{key}=")) { format!("{key}={value}\n") } else { format!("{line}\n") }
    };
    fs::write(file, text.lines().map(line).collect::<String>()).unwrap();
}

/// What does not outlive a test, even one that fails while it starts.
struct Daemon(Child);

impl Daemon {
    /// Fails if it has ended.
    #[track_caller]
    fn runs(&mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "{}", logs());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// firewalld, and the message bus that it is spoken to by, which ends after it.
pub struct Firewalld {
    folder: PathBuf,
    daemon: Daemon,
    _bus: Daemon,
}

impl Firewalld {
    /// Starts it with Debian's configuration but for `FirewallBackend`.
    pub fn start(backend: &str) -> Option<Self> {
        let folder = copied("usr/sbin/firewalld", &LIBRARIES)?;
        let config = folder.join("etc/firewalld");
        set(&config.join("firewalld.conf"), "FirewallBackend", backend);
        // Whoever may call must be answered, and hear signals.
        let kinds = ["method_call", "method_return", "signal", "error"];
        let rules = kinds.map(|kind| format!("<allow send_type=\"{kind}\"/><allow receive_type=\"{kind}\"/>")).concat();
        let text = format!(
            "<busconfig><type>system</type><listen>unix:path={BUS}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/>{rules}</policy></busconfig>"
        );
        fs::write("/run/bus.conf", text).unwrap();
        let mut command = sandbox::command("dbus-daemon");
        command.args(["--config-file=/run/bus.conf", "--nofork", "--nopidfile"]).stdin(Stdio::null());
        let mut bus = Daemon(command.stderr(fs::File::create(BUS_LOG).unwrap()).spawn().unwrap());
        wait_for("the bus", || {
            bus.runs();
            UnixStream::connect(BUS).is_ok()
        });
        let mut command = python(&folder.join("usr/sbin/firewalld"));
        command.args(["--nofork", "--nopid", "--log-target", "file", "--log-file", LOG]);
        command.arg("--default-config").arg(folder.join("usr/lib/firewalld")).arg("--system-config").arg(config);
        let daemon = Daemon(command.spawn().unwrap());
        let mut this = Self { folder, daemon, _bus: bus };
        wait_for("firewalld", || {
            this.daemon.runs();
            this.command("--state").output().unwrap().stdout == b"running\n"
        });
        Some(this)
    }

    /// Runs firewall-cmd(1).
    #[track_caller]
    pub fn cmd(&self, arguments: &str) {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "firewall-cmd {arguments}: {output:?}\n{}", logs());
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = python(&self.folder.join("usr/bin/firewall-cmd"));
        command.args(arguments.split(' '));
        command
    }

    /// As systemd stops it: it takes its rules along.
    pub fn stop(mut self) {
        kill(Pid::from_raw(self.daemon.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        self.daemon.0.wait().unwrap();
    }
}

/// What the two wrote, as far as they came.
fn logs() -> String {
    [BUS_LOG, LOG].map(|log| fs::read_to_string(log).unwrap_or_default()).concat()
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}: {}", logs());
        thread::sleep(Duration::from_millis(50));
    }
}

/// ufw, as its package sets it up.
pub struct Ufw(PathBuf);

impl Ufw {
    /// Sets it up. It is enabled by `ufw("--force enable")`.
    pub fn new() -> Option<Self> {
        let folder = copied("usr/sbin/ufw", &[])?;
        let etc = folder.join("etc/ufw");
        for entry in fs::read_dir(folder.join("usr/share/ufw")).unwrap().map(Result::unwrap) {
            let name = entry.file_name();
            if [".rules", ".init", ".conf"].iter().any(|end| name.to_string_lossy().ends_with(end)) {
                fs::copy(entry.path(), etc.join(name)).unwrap();
            }
        }
        let this = Self(folder);
        this.set("IPT_SYSCTL", &etc.join("sysctl.conf").display().to_string());
        // Rules that log have the kernel load a module, which changes sysctls of every network namespace.
        this.ufw("logging off");
        Some(this)
    }

    /// Sets a key of /etc/default/ufw.
    pub fn set(&self, key: &str, value: &str) {
        set(&self.0.join("etc/default/ufw"), key, value);
    }

    /// Runs ufw(8).
    #[track_caller]
    pub fn ufw(&self, arguments: &str) {
        let mut command = python(&self.0.join("usr/sbin/ufw"));
        command.arg(format!("--rootdir={COPY}")).arg(format!("--datadir={COPY}"));
        ran(command.args(arguments.split(' ')));
        for list in ["/usr/sbin/iptables-save", "/usr/sbin/ip6tables-save"] {
            let rules = ran(sandbox::command(list).args(["-t", "filter"]));
            assert!(!rules.contains(" LOG"), "{rules}");
        }
    }
}
