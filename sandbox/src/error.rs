//! What can go wrong on the way in, and where to look then.

use std::fmt;
use std::fs;
use std::path::PathBuf;

use nix::errno::Errno;

/// One step on the way into the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// unshare(2).
    Unshare,
    /// Writing `/proc/self/setgroups`, `uid_map` and `gid_map` (`user_namespaces(7)`).
    MapIds,
    /// Making every mount private (`mount_namespaces(7)`).
    PrivateMounts,
    /// Mounting a tmpfs on `/run`.
    MountRun,
    /// Mounting a tmpfs on `/var/lib`.
    MountVarLib,
    /// Making `/run/netns`.
    MakeNetnsFolder,
    /// Mounting a sysfs that shows the new network namespace.
    MountSysfs,
    /// Setting `lo` up.
    LoopbackUp,
    /// Asking to end with the process that waits for this one (`PR_SET_PDEATHSIG`, prctl(2)).
    FollowParent,
    /// Keeping the report pipe open for the child.
    KeepReport,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::Unshare,
        Self::MapIds,
        Self::PrivateMounts,
        Self::MountRun,
        Self::MountVarLib,
        Self::MakeNetnsFolder,
        Self::MountSysfs,
        Self::LoopbackUp,
        Self::FollowParent,
        Self::KeepReport,
    ];

    /// The step for the number that the child wrote into the report pipe.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }

    /// Whether a kernel that keeps ordinary users out of user namespaces refuses this step.
    fn needs_user_namespace(self) -> bool {
        matches!(self, Self::Unshare | Self::MapIds | Self::PrivateMounts | Self::MountRun | Self::MountVarLib)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unshare => "unshare",
            Self::MapIds => "map user and group ids",
            Self::PrivateMounts => "make mounts private",
            Self::MountRun => "mount a tmpfs on /run",
            Self::MountVarLib => "mount a tmpfs on /var/lib",
            Self::MakeNetnsFolder => "make /run/netns",
            Self::MountSysfs => "mount sysfs",
            Self::LoopbackUp => "set lo up",
            Self::FollowParent => "ask to end with the test that waits",
            Self::KeepReport => "keep the report pipe open",
        })
    }
}

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// [`enter`](crate::enter) was called with more than one thread: only the caller would go inside.
    #[error("cannot enter a sandbox: this process has {count} threads, and all but one would stay outside")]
    Threads {
        /// How many threads there are.
        count: usize,
    },
    /// A step was refused.
    #[error("cannot enter a sandbox: cannot {step}{}", hint(*.step))]
    Refused {
        /// What was being done.
        step: Step,
        /// What the kernel said.
        #[source]
        source: Errno,
    },
    /// `/proc` could not be read.
    #[error("cannot read {}", .path.display())]
    Proc {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The report pipe could not be made or read.
    #[error("cannot use a pipe to the sandboxed process")]
    Pipe(#[source] std::io::Error),
    /// A machine's thread could not be started.
    #[error("cannot start a thread for a machine")]
    Thread(#[source] std::io::Error),
    /// A machine's thread has ended.
    #[error("the machine has ended")]
    MachineEnded,
    /// The child could not be started.
    #[error("cannot start {} in the sandbox", .program.display())]
    Spawn {
        /// The test binary.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The settings that keep ordinary users out of user namespaces, with the value that does so.
const GATES: [(&str, &str); 3] = [
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
    ("user/max_user_namespaces", "0"),
];

/// Which settings to look at when `step` was refused, with their values here.
fn hint(step: Step) -> String {
    if !step.needs_user_namespace() {
        return String::new();
    }
    let values = GATES.map(|(path, closed)| {
        let value = fs::read_to_string(format!("/proc/sys/{path}")).ok();
        (path.replace('/', "."), closed, value.map(|text| text.trim().to_owned()))
    });
    describe_gates(&values)
}

fn describe_gates(values: &[(String, &str, Option<String>)]) -> String {
    let mut text = String::from("; if user namespaces are refused here, look at");
    for (index, (name, closed, value)) in values.iter().enumerate() {
        let found = match value {
            Some(value) if value == closed => format!("{value} here: this refuses them"),
            Some(value) => format!("{value} here"),
            None => String::from("not on this kernel"),
        };
        let separator = if index == 0 { "" } else { "," };
        text.push_str(&format!("{separator} {name} ({found})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_the_pipe() {
        for step in Step::ALL {
            assert_eq!(Step::from_number(step as u8), Some(step));
        }
        assert_eq!(Step::from_number(200), None);
    }

    #[test]
    fn the_hint_names_the_setting_that_refuses() {
        let values = [
            ("kernel.unprivileged_userns_clone".to_owned(), "0", None),
            ("kernel.apparmor_restrict_unprivileged_userns".to_owned(), "1", Some("1".to_owned())),
            ("user.max_user_namespaces".to_owned(), "0", Some("1234".to_owned())),
        ];
        assert_eq!(
            describe_gates(&values),
            "; if user namespaces are refused here, look at kernel.unprivileged_userns_clone (not on this kernel), \
             kernel.apparmor_restrict_unprivileged_userns (1 here: this refuses them), \
             user.max_user_namespaces (1234 here)"
        );
    }

    #[test]
    fn a_refused_step_tells_where_to_look_only_where_that_helps() {
        let refused = |step| SandboxError::Refused { step, source: Errno::EPERM }.to_string();
        assert!(refused(Step::Unshare).contains("user.max_user_namespaces"));
        assert_eq!(refused(Step::LoopbackUp), "cannot enter a sandbox: cannot set lo up");
    }
}
