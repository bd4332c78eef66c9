//! Stopping a plugin at a chosen system call, by strace(1).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::call::Call;
use super::exec::{self, Finished};
use crate::verdict::{Finding, Verdict, ensure};

/// The system calls by which a program changes something that outlives it: files, netlink messages, mounts, and its own
/// end, before which all is done and nothing is said. Locks go with their holder, namespaces that are entered too.
const CHANGING: &str = "sendto,sendmsg,sendmmsg,write,pwrite64,pwritev,writev,openat,mkdir,mkdirat,rename,renameat,\
                        renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,ftruncate,truncate,fallocate,mount,\
                        umount2,setsockopt,ioctl,exit_group";

/// Those by which a plugin starts programs and waits for them: what lies between two programs lies between two of these.
const STARTING: &str = "?clone,?clone3,?fork,?vfork,?wait4,?waitid";

const LOG: &str = "/run/cni-conformance/strace.log";

/// Who is killed when it comes to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// The plugin, as by libcni. The programs that it has started carry on.
    Plugin,
    /// Whoever comes there: the plugin, and each program that it starts. strace counts in each thread for itself.
    Anybody,
}

/// A system call, and how many of its kind came before it in its thread, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// Whose call it is.
    pub whom: Whom,
    /// Its name.
    pub name: String,
    /// Its number among calls of that name in one thread.
    pub number: usize,
}

/// Makes the call under strace, and lists where it could be killed. Calls that cannot change anything are left out: what
/// failed, files opened for reading, what goes to pipes or the program's own streams, netlink questions.
///
/// # Errors
/// Trouble if strace does not work here.
pub fn points(call: &Call<'_>, whom: Whom) -> Verdict<Vec<Point>> {
    let calls = match whom {
        Whom::Plugin => format!("trace={CHANGING},{STARTING}"),
        Whom::Anybody => format!("trace={CHANGING}"),
    };
    let (log, _) = run(call, whom, &["-yy", "-e", &calls, "-s", "16"])?;
    Ok(points_of(&log, whom))
}

/// Makes the call and kills it at this point. Tells whether it came there; calls are not always the same.
///
/// # Errors
/// Failed if it did not come there and failed all the same, trouble if strace does not work here.
pub fn kill_at(call: &Call<'_>, point: &Point) -> Verdict<bool> {
    let (name, number) = (&point.name, point.number);
    let inject = format!("inject={name}:signal=SIGKILL:when={number}");
    let (log, finished) = run(call, point.whom, &["-e", &format!("trace={name}"), "-e", &inject, "-s", "0"])?;
    let killed = log.contains("+++ killed by SIGKILL +++");
    let said = String::from_utf8_lossy(&finished.stdout).into_owned();
    ensure!(
        killed || finished.status.success(),
        "it was not killed, and failed: {}",
        super::call::shorten(said.trim())
    );
    Ok(killed)
}

/// What strace logs of the call, and how it ended. A program that is detached from where it begins is not the plugin any more.
fn run(call: &Call<'_>, whom: Whom, args: &[&str]) -> Verdict<(String, Finished)> {
    let alone: &[&str] = if whom == Whom::Plugin { &["-b", "execve"] } else { &[] };
    let wrapper = wrapper(&[&["-o", LOG, "-f", "-q"], alone, args].concat());
    // An old log must not be taken for this call's.
    let _ = fs::remove_file(LOG);
    let finished = exec::run(&mut call.wrapped(&wrapper)?, &call.input(), super::call::CALL_LIMIT)?;
    match fs::read_to_string(LOG) {
        Ok(log) if !log.is_empty() => Ok((log, finished)),
        Ok(_) | Err(_) => {
            let text = String::from_utf8_lossy(&finished.stderr).into_owned();
            Err(Finding::Trouble(format!("strace does not work here: {text}")))
        }
    }
}

fn wrapper(args: &[&str]) -> Vec<String> {
    std::iter::once(&"strace").chain(args).map(|arg| (*arg).to_owned()).collect()
}

fn points_of(log: &str, whom: Whom) -> Vec<Point> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut points = BTreeSet::new();
    let mut order = Vec::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        // The kernel starts a call again that found a lock taken, as often as it takes: some thousand times for a sysctl.
        let again = arguments.contains(") = ? ERESTART");
        if again || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let count = counts.entry((thread.to_owned(), name.to_owned())).or_default();
        *count += 1;
        let point = Point { whom, name: name.to_owned(), number: *count };
        if changes(name, arguments) && points.insert(point.clone()) {
            order.push(point);
        }
    }
    order
}

/// Whether a traced line can have changed anything that others see.
fn changes(name: &str, arguments: &str) -> bool {
    let to = |what: &str| arguments.split(',').next().is_some_and(|target| target.contains(what));
    match name {
        "exit_group" => true,
        _ if arguments.contains(") = -1 ") => false,
        // A thread more changes nothing, nor does a look at whether a program has ended.
        "clone" | "clone3" => !arguments.contains("CLONE_THREAD"),
        "wait4" | "waitid" => !arguments.contains("WNOHANG"),
        "openat" => arguments.contains("O_CREAT") || arguments.contains("O_TRUNC"),
        // Interfaces and rules of old are changed through sockets.
        "ioctl" => arguments.contains("SIOCS") || arguments.contains("SIOCBR") || arguments.contains("TUNSET"),
        "setsockopt" => arguments.contains("IPT_SO_SET") || arguments.contains("IP6T_SO_SET"),
        "write" | "writev" | "pwrite64" | "pwritev" => {
            !(to("<pipe:") || to("<anon_inode:") || to("</dev/") || to("<socket:") || to("<UNIX"))
        }
        "sendto" | "sendmsg" | "sendmmsg" => to("NETLINK") && !is_question(arguments),
        _ => true,
    }
}

/// Whether the first netlink message only asks. strace names a type unless the socket is in another namespace: rtnetlink's
/// types come in fours, the third of which is GET (rtnetlink(7)).
fn is_question(arguments: &str) -> bool {
    let Some((_, rest)) = arguments.split_once("nlmsg_type=") else { return false };
    let name = rest.split([',', ' ']).next().unwrap_or_default();
    match name.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        Some(number) => (16..256).contains(&number) && number % 4 == 2,
        None => name.contains("_GET"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_points_but_every_call_counts() {
        let log = "10 openat(AT_FDCWD, \"a\", O_RDONLY) = 3</a>\n10 openat(AT_FDCWD, \"b\", O_WRONLY|O_CREAT, 0644) = 4</b>\n\
                   11 write(4</b>, \"\"..., 2) = 2\n10 write(4</b>, \"\"..., 2 <unfinished ...>\n10 <... write resumed>) = 2\n\
                   10 write(5<pipe:[7]>, \"\"..., 2) = 2\n10 mkdir(\"/run\", 0777) = -1 EEXIST (File exists)\n";
        let found = points_of(log, Whom::Anybody);
        let expected = [("openat", 2), ("write", 1)];
        assert_eq!(found.iter().map(|point| (point.name.as_str(), point.number)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn calls_that_are_started_again_do_not_count() {
        let log = "10 write(3</proc/sys/net/ipv6/conf/all/forwarding>, \"1\", 1) = ? ERESTARTNOINTR (To be restarted)\n\
                   10 write(3</proc/sys/net/ipv6/conf/all/forwarding>, \"1\", 1) = 1\n";
        let found = points_of(log, Whom::Anybody);
        assert_eq!(found.iter().map(|point| point.number).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn programs_that_are_started_are_points_and_threads_are_not() {
        let log = "10 clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0}, 88) = 11\n\
                   10 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88 <unfinished ...>\n\
                   10 <... clone3 resumed>) = 12\n10 wait4(12, 0x7ffd, WNOHANG, NULL) = 0\n\
                   10 wait4(12, [{WIFEXITED(s) && WEXITSTATUS(s) == 0}], 0, NULL) = 12\n\
                   10 wait4(-1, 0x7ffd, 0, NULL) = -1 ECHILD (No child processes)\n10 +++ exited with 0 +++\n";
        let found = points_of(log, Whom::Plugin);
        let expected = [("clone3", 2), ("wait4", 2)];
        assert_eq!(found.iter().map(|point| (point.name.as_str(), point.number)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn netlink_questions_are_no_changes() {
        let question =
            "3<NETLINK:[ROUTE:9]>, [{nlmsg_len=40, nlmsg_type=RTM_GETLINK, nlmsg_flags=NLM_F_REQUEST}], 40) = 40";
        assert!(!changes("sendto", question));
        assert!(changes("sendto", &question.replace("GETLINK", "NEWLINK")));
        assert!(!changes("sendto", &question.replace("RTM_GETLINK", "0x12 /* NLMSG_??? */")));
        assert!(changes("sendto", &question.replace("RTM_GETLINK", "0x10 /* NLMSG_??? */")));
    }
}
