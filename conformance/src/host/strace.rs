//! Stopping a plugin at a chosen system call, by strace(1).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::call::Call;
use super::exec;
use crate::verdict::{Finding, Verdict};

/// The system calls by which a program changes something that outlives it: files, netlink messages, mounts, and its own
/// end, before which all is done and nothing is said. Locks go with their holder, namespaces that are entered too.
const CHANGING: &str = "sendto,sendmsg,sendmmsg,write,pwrite64,pwritev,writev,openat,mkdir,mkdirat,rename,renameat,\
                        renameat2,unlink,unlinkat,rmdir,link,linkat,symlink,symlinkat,ftruncate,truncate,fallocate,mount,\
                        umount2,setsockopt,ioctl,exit_group";

const LOG: &str = "/run/cni-conformance/strace.log";

/// A system call, and how many of its kind came before it in its thread, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
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
pub fn points(call: &Call<'_>) -> Verdict<Vec<Point>> {
    let wrapper = wrapper(&["-o", LOG, "-f", "-qq", "-yy", "-e", &format!("trace={CHANGING}"), "-s", "16"]);
    let finished = exec::run(&mut call.wrapped(&wrapper)?, &call.input(), super::call::CALL_LIMIT)?;
    let log = fs::read_to_string(LOG).map_err(|error| Finding::Trouble(format!("strace wrote no log: {error}")))?;
    if log.is_empty() {
        let text = String::from_utf8_lossy(&finished.stderr).into_owned();
        return Err(Finding::Trouble(format!("strace does not work here: {text}")));
    }
    Ok(points_of(&log))
}

/// Makes the call and kills it at this point. Tells whether it was killed; calls are not always the same.
///
/// # Errors
/// Trouble if strace does not work here.
pub fn kill_at(call: &Call<'_>, point: &Point) -> Verdict<bool> {
    let (name, number) = (&point.name, point.number);
    let inject = format!("inject={name}:signal=SIGKILL:when={number}");
    let wrapper = wrapper(&["-o", LOG, "-f", "-qq", "-e", &format!("trace={name}"), "-e", &inject, "-s", "0"]);
    let finished = exec::run(&mut call.wrapped(&wrapper)?, &call.input(), super::call::CALL_LIMIT)?;
    // strace ends itself by the signal that ended the program.
    Ok(!finished.status.success())
}

fn wrapper(args: &[&str]) -> Vec<String> {
    std::iter::once(&"strace").chain(args).map(|arg| (*arg).to_owned()).collect()
}

fn points_of(log: &str) -> Vec<Point> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut points = BTreeSet::new();
    let mut order = Vec::new();
    for line in log.lines() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let Some((name, arguments)) = rest.trim_start().split_once('(') else { continue };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            continue;
        }
        let count = counts.entry((thread.to_owned(), name.to_owned())).or_default();
        *count += 1;
        let point = Point { name: name.to_owned(), number: *count };
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
        let found = points_of(log);
        let expected = [("openat", 2), ("write", 1)];
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
