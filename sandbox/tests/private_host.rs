//! What a sandboxed test sees, and that nothing of it is seen outside.

#![expect(clippy::expect_used, clippy::panic, reason = "tests fail by panicking, in their helpers too")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use sandbox::{command, private_host};
use serde_json::Value;

/// What `ip -j ARGS` prints.
fn ip(args: &[&str]) -> Value {
    let output = command("ip").arg("-j").args(args).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("ip -j prints JSON")
}

fn run(program: &str, args: &[&str]) {
    let output = command(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|link| link["ifname"].as_str().expect("a name")).collect()
}

/// Addresses, routes and rules, without the lifetimes that count down by themselves.
fn machine() -> Vec<Value> {
    let mut addresses = ip(&["addr"]);
    for link in addresses.as_array_mut().expect("a list") {
        for address in link["addr_info"].as_array_mut().expect("a list") {
            let fields = address.as_object_mut().expect("an object");
            fields.retain(|key, _| !key.ends_with("_life_time"));
        }
    }
    let mut state = vec![addresses];
    for family in ["-4", "-6"] {
        state.push(ip(&[family, "route", "show", "table", "all"]));
        state.push(ip(&[family, "rule"]));
    }
    for route in state.iter_mut().skip(1).flat_map(|list| list.as_array_mut().expect("a list")) {
        route.as_object_mut().expect("an object").remove("expires");
    }
    state
}

fn network_inode() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").expect("procfs").ino()
}

#[test]
fn inside_there_is_only_lo_and_it_works() {
    private_host(|| {
        assert_eq!(names(&ip(&["link"])), ["lo"]);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("lo has its address");
        std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("lo is up");
        assert!(nix::unistd::geteuid().is_root());
    });
}

#[test]
fn run_and_var_lib_are_empty_and_writable() {
    private_host(|| {
        let entries = |path| -> Vec<_> {
            let folder = fs::read_dir(path).expect("a folder");
            folder.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
        };
        assert_eq!(entries("/run"), ["netns"]);
        assert_eq!(entries("/run/netns"), [""; 0]);
        assert_eq!(entries("/var/lib"), [""; 0]);
        fs::create_dir_all("/run/podwire/ipam").expect("writable");
        fs::create_dir_all("/var/lib/podwire").expect("writable");
    });
}

#[test]
fn named_namespaces_links_and_sysctls_work() {
    private_host(|| {
        run("ip", &["netns", "add", "blue"]);
        run("ip", &["link", "add", "red0", "type", "veth", "peer", "name", "blue0", "netns", "blue"]);
        assert_eq!(names(&ip(&["link"])), ["lo", "red0"]);
        assert_eq!(names(&ip(&["-n", "blue", "link"])), ["lo", "blue0"]);
        let forwarding = "/proc/sys/net/ipv4/ip_forward";
        for value in ["1\n", "0\n"] {
            fs::write(forwarding, value).expect("sysctls of the own namespace are writable");
            assert_eq!(fs::read_to_string(forwarding).expect("readable"), value);
        }
    });
}

#[test]
fn the_machine_stays_as_it_was() {
    // The inner process runs this whole test too, and then compares inside; that is harmless.
    let before = machine();
    let run_before: Vec<_> = fs::read_dir("/run").expect("a folder").flatten().map(|entry| entry.path()).collect();
    let outer = network_inode();
    private_host(|| {
        run("ip", &["link", "add", "seen-outside", "type", "veth"]);
        run("ip", &["address", "add", "203.0.113.77/24", "dev", "seen-outside"]);
        run("ip", &["link", "set", "seen-outside", "up"]);
        run("ip", &["rule", "add", "from", "203.0.113.77", "table", "77"]);
        run("ip", &["netns", "add", "seen-outside"]);
        fs::write("/run/seen-outside", "").expect("writable");
        fs::write("/var/lib/seen-outside", "").expect("writable");
        assert!(names(&ip(&["link"])).contains(&"seen-outside"));
    });
    if fs::exists("/run/seen-outside").expect("readable") {
        // Only the inner process sees the file. It is the outer one that compares.
        return;
    }
    assert_eq!(network_inode(), outer);
    assert_eq!(machine(), before);
    assert!(!names(&ip(&["link"])).contains(&"seen-outside"));
    assert!(!fs::exists("/var/lib/seen-outside").expect("readable"));
    let run_after: Vec<_> = fs::read_dir("/run").expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert_eq!(run_after, run_before);
}

/// The inner process fails because its panic has another text; the outer one then panics with this one.
#[test]
#[should_panic(expected = "the sandboxed test a_failing_body_fails_the_test failed")]
fn a_failing_body_fails_the_test() {
    private_host(|| panic!("the body fails"));
}

#[test]
#[should_panic(expected = "no test is called not_a_test")]
fn a_body_that_never_ran_fails_the_test() {
    not_a_test();
}

fn not_a_test() {
    private_host(|| ());
}

#[test]
fn a_second_body_runs_in_the_same_sandbox() {
    private_host(|| {
        let first = network_inode();
        run("ip", &["link", "add", "first", "type", "veth", "peer", "second"]);
        private_host(|| assert_eq!(network_inode(), first));
        assert_eq!(names(&ip(&["link"])), ["lo", "second", "first"]);
    });
}

#[test]
fn a_program_of_the_sandbox_is_inside_too() {
    private_host(|| {
        let inside = format!("net:[{}]", network_inode());
        let output = command("readlink").arg("/proc/self/ns/net").output().expect("coreutils are installed");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), inside);
    });
}

/// Runs another test of this file as a user without any privilege. When the tests are not run by root,
/// every one of them proves the same.
#[test]
fn an_ordinary_user_gets_a_sandbox() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("our own folder");
    let binary = folder.path().join("tests");
    // Not by this process: whoever forks meanwhile would have it open for writing, and what is open so cannot be run.
    let own = std::env::current_exe().expect("procfs");
    let copied = command("cp").arg(own).arg(&binary).status().expect("coreutils are installed");
    assert!(copied.success());
    let output = command(&binary)
        .args(["--exact", "named_namespaces_links_and_sysctls_work"])
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output()
        .expect("a copy of this binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn a_program_with_threads_cannot_enter() {
    // The harness runs this test on a thread of its own, so there are at least two.
    let thread = std::thread::spawn(|| std::thread::park_timeout(std::time::Duration::from_secs(20)));
    let error = sandbox::enter().expect_err("two threads at least");
    assert!(matches!(error, sandbox::SandboxError::Threads { count } if count >= 2), "{error}");
    thread.thread().unpark();
    thread.join().expect("it only waits");
}

#[test]
fn a_machine_has_network_and_files_of_its_own() {
    private_host(|| {
        let here = fs::read_link("/proc/thread-self/ns/net").unwrap();
        fs::write("/run/here", "").unwrap();
        let machine = sandbox::Machine::start().unwrap();
        let there =
            machine.run(|| (fs::read_link("/proc/thread-self/ns/net").unwrap(), fs::exists("/run/here").unwrap()));
        let (network, sees) = there.unwrap();
        assert!(network != here && !sees);
        machine.run(|| fs::write("/run/there", "").unwrap()).unwrap();
        assert!(machine.run(|| fs::exists("/run/there").unwrap()).unwrap() && !fs::exists("/run/there").unwrap());
        let links = machine.run(|| command("ip").args(["-br", "link"]).output().unwrap()).unwrap();
        assert_eq!(String::from_utf8_lossy(&links.stdout).lines().count(), 1, "only lo");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| machine.run(|| panic!("on purpose"))));
        assert!(panicked.is_err() && machine.run(|| 1).unwrap() == 1, "a panic is the caller's");
        assert_eq!(fs::read_link("/proc/thread-self/ns/net").unwrap(), here);
    });
}

/// With our standard output still open: nobody waits for its end.
#[test]
#[expect(clippy::zombie_processes, reason = "it is what this test is about")]
fn what_a_test_leaves_running_is_ended() {
    let whose = |pid: u32| std::env::temp_dir().join(format!("sandbox-left-running-{pid}"));
    let file = whose(std::process::id());
    private_host(|| {
        let left = command("sleep").arg("1000").spawn().expect("coreutils are installed");
        let parent = u32::try_from(nix::unistd::getppid().as_raw()).expect("positive");
        fs::write(whose(parent), left.id().to_string()).expect("writable");
    });
    // Inside, nothing was written for this process.
    let Ok(pid) = fs::read_to_string(&file) else { return };
    fs::remove_file(&file).expect("it was just read");
    until(|| !fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep")));
}

fn until(holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "this does not come to hold");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
}

/// Where the next test has this one write its process's number, and wait.
const WAIT: &str = "SANDBOX_TEST_WAITS";

#[test]
#[expect(clippy::disallowed_methods, reason = "how the next test asks")]
fn a_test_that_waits_if_it_is_asked_to() {
    private_host(|| {
        let Some(file) = std::env::var_os(WAIT) else { return };
        fs::write(file, std::process::id().to_string()).expect("writable");
        std::thread::sleep(std::time::Duration::from_secs(1000));
    });
}

/// As by Ctrl-C, which reaches the test that waits, but not what it waits for.
#[test]
fn a_sandboxed_test_ends_with_the_one_that_waits_for_it() {
    let folder = tempfile::tempdir().expect("writable");
    let file = folder.path().join("pid");
    let mut waiting = command(std::env::current_exe().expect("procfs"));
    waiting.args(["--exact", "a_test_that_waits_if_it_is_asked_to"]).env(WAIT, &file);
    let mut waiting = waiting.spawn().expect("it is running already");
    let read = || fs::read_to_string(&file).unwrap_or_default();
    until(|| !read().is_empty());
    let inside = format!("/proc/{}/cmdline", read());
    assert!(fs::read(&inside).is_ok_and(|line| !line.is_empty()));
    waiting.kill().expect("it waits");
    waiting.wait().expect("it was killed");
    until(|| !fs::read(&inside).is_ok_and(|line| !line.is_empty()));
}

#[test]
fn who_stays_on_one_processor_has_the_others_again_afterwards() {
    let of_this_thread = || nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("it is there");
    let count =
        |set: nix::sched::CpuSet| (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).count();
    let before = of_this_thread();
    assert_eq!(sandbox::on_one_processor(|| count(of_this_thread())), 1);
    assert_eq!(of_this_thread(), before);
}
