//! The owner has the ledger's lock: one that plugins do not find must not stay.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::owner::{Activated, end_of};
use crate::support::{Answer, Owner, Place, ip, until};

fn conf() -> Value {
    json!({ "podCIDR": "10.1.2.0/24", "cooldownSeconds": 0 })
}

/// An ADD works, though nobody is asked for it.
fn assert_direct(place: &Place) {
    assert_eq!(place.run("ADD", "c1", &place.json("n", &conf())).addresses(), [ip("10.1.2.2")]);
    assert_eq!(fs::read(place.data_dir().join("lock")).unwrap(), b"", "the lock is free");
}

fn said_at_the_end(mut activated: Activated) -> (Option<i32>, String) {
    let code = activated.0.wait().unwrap().code();
    let mut said = String::new();
    activated.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (code, said)
}

#[test]
fn an_owner_whose_socket_was_removed_ends() {
    let place = Place::new();
    place.undisturbed(|| {
        let owner = Owner::of(&place.data_dir());
        fs::remove_file(place.data_dir().join("ipam.sock")).unwrap();
        assert_eq!(end_of(owner), Some(1));
        assert_direct(&place);
    });
}

/// A frozen plugin, or a proxy that keeps its connections: it says nothing and does not go.
#[test]
fn a_visitor_who_says_nothing_keeps_no_owner_from_ending() {
    let place = Place::new();
    place.undisturbed(|| {
        let socket = place.data_dir().join("ipam.sock");
        let told = |owner: &Owner| {
            kill(Pid::from_raw(i32::try_from(owner.0.id()).unwrap()), Signal::SIGTERM).unwrap();
        };
        let removed = |_: &Owner| fs::remove_file(&socket).unwrap();
        for (end, code) in [(&told as &dyn Fn(&Owner), 0), (&removed, 1)] {
            let mut owner = Owner::of(&place.data_dir());
            let idle = UnixStream::connect(&socket).unwrap();
            // The owner has accepted the one before when it answers the one after.
            assert!(place.run("STATUS", "c0", &place.json("n", &conf())).success);
            end(&owner);
            until("it ends", || owner.0.try_wait().unwrap().is_some());
            assert_eq!(end_of(owner), Some(code));
            let container = format!("c{code}");
            assert!(place.run("ADD", &container, &place.json("n", &conf())).success);
            assert_eq!(fs::read(place.data_dir().join("lock")).unwrap(), b"", "the lock is free");
            drop(idle);
        }
    });
}

/// Plugins that gave up have left their connections in the queue, while the owner waited for the lock.
#[test]
fn a_full_queue_keeps_no_owner_from_serving() {
    let place = Place::new();
    place.undisturbed(|| {
        let socket = place.data_dir().join("ipam.sock");
        fs::remove_file(&socket).unwrap();
        let address = UnixAddr::new(&socket).unwrap();
        let stream = |flags| nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
        let listener = stream(SockFlag::empty());
        bind(listener.as_raw_fd(), &address).unwrap();
        listen(&listener, Backlog::new(2).unwrap()).unwrap();
        let mut queued = Vec::new();
        loop {
            let visitor = stream(SockFlag::SOCK_NONBLOCK);
            match connect(visitor.as_raw_fd(), &address) {
                Ok(()) => queued.push(visitor),
                Err(errno) => break assert_eq!(errno, Errno::EAGAIN),
            }
        }
        // The descriptor 3, as sd_listen_fds(3) has it; the shell gives the owner its own pid.
        let mut process = sandbox::command("sh");
        process.args(["-c", "exec \"$@\" 3<&0 </dev/null", "sh", env!("CARGO_BIN_EXE_ipam"), "serve", "--dir"]);
        process.arg(place.data_dir()).env("LISTEN_FDS", "1").stdin(listener);
        let owner = Owner::started(process);
        drop(queued);
        assert_eq!(place.run("ADD", "c1", &place.json("n", &conf())).addresses(), [ip("10.1.2.2")]);
        let held = fs::read_to_string(place.data_dir().join("lock")).unwrap();
        assert!(held.contains("ipam serve"), "{held}");
        drop(owner);
    });
}

/// It was stopped while another owner, who had waited for the lock, made a socket of his own.
#[test]
fn an_owner_takes_no_other_s_socket_away() {
    let place = Place::new();
    place.undisturbed(|| {
        let owner = Owner::of(&place.data_dir());
        let socket = place.data_dir().join("ipam.sock");
        fs::remove_file(&socket).unwrap();
        let _other = UnixListener::bind(&socket).unwrap();
        assert_eq!(end_of(owner), Some(1));
        assert!(socket.exists());
    });
}

/// Units whose folders differ.
#[test]
fn a_socket_elsewhere_is_refused() {
    let place = Place::new();
    place.undisturbed(|| {
        let elsewhere = place.data_dir().with_file_name("elsewhere.sock");
        let activated = Activated::serving(&elsewhere, &place.data_dir());
        until("it listens", || UnixStream::connect(&elsewhere).is_ok());
        let (code, said) = said_at_the_end(activated);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("systemctl restart podwire-ipam.socket"), "{said}");
        assert_direct(&place);
    });
}

/// As after `rm -rf /run/podwire/ipam`, when systemd starts the service again.
#[test]
fn a_socket_without_its_path_is_refused() {
    let place = Place::new();
    place.undisturbed(|| {
        let socket = place.data_dir().join("ipam.sock");
        fs::remove_file(&socket).unwrap();
        let activated = Activated::serving(&socket, &place.data_dir());
        until("the socket is there", || socket.exists());
        let renamed = place.data_dir().join("renamed.sock");
        fs::rename(&socket, &renamed).unwrap();
        until("it was asked", || UnixStream::connect(&renamed).is_ok());
        let (code, said) = said_at_the_end(activated);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("the socket that was handed over (LISTEN_FDS) is not there"), "{said}");
        assert_direct(&place);
    });
}

#[test]
fn an_activated_owner_whose_folder_was_removed_ends() {
    let place = Place::new();
    place.undisturbed(|| {
        let socket = place.data_dir().join("ipam.sock");
        fs::remove_file(&socket).unwrap();
        let activated = Activated::serving(&socket, &place.data_dir());
        until("somebody listens", || UnixStream::connect(&socket).is_ok());
        assert!(place.run("ADD", "c1", &place.json("n", &conf())).success);
        fs::remove_dir_all(place.data_dir()).unwrap();
        let (code, said) = said_at_the_end(activated);
        assert_eq!(code, Some(1), "{said}");
        assert_direct(&place);
    });
}

/// How many threads a process has; none if it has ended.
fn threads(process: u32) -> usize {
    fs::read_dir(Path::new("/proc").join(process.to_string()).join("task")).map_or(0, Iterator::count)
}

/// Whoever holds the lock and hangs up on everybody - an owner of another kind, one that is ending - costs no thread
/// for each try.
#[test]
fn who_is_hung_up_on_waits_for_the_lock() {
    let place = Place::new();
    place.undisturbed(|| {
        let held = fs::File::create(place.data_dir().join("lock")).unwrap();
        held.lock().unwrap();
        let socket = place.data_dir().join("ipam.sock");
        fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(listener.accept());
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let mut plugin = place.json("n", &conf());
            plugin["ipam"]["lockTimeoutSeconds"] = 2.into();
            let mut child = place.spawn("ADD", "c1", &plugin);
            let (mut most, deadline) = (0, Instant::now() + Duration::from_secs(60));
            while child.try_wait().unwrap().is_none() {
                most = most.max(threads(child.id()));
                assert!(Instant::now() < deadline);
            }
            done.store(true, Ordering::Relaxed);
            let refused = Answer::of(&child.wait_with_output().unwrap());
            assert_eq!(refused.error().0, 11, "{refused:?}");
            assert!((1..10).contains(&most), "{most} threads");
        });
    });
}
