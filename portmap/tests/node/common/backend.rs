//! The backends, each as a node may have it.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::plugin::Attachment;

/// What the rules are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nftables,
    /// iptables of the flavour "nft", which Debian chooses.
    IptablesNft,
    /// iptables of the flavour "legacy", as if the administrator had chosen it.
    IptablesLegacy,
}

impl Backend {
    /// After making the private host one with this backend.
    pub fn prepared(self) -> Self {
        if self != Self::IptablesLegacy {
            return self;
        }
        let mounted = sandbox::command("mount").args(["-t", "tmpfs", "none", "/usr/local/sbin"]).status().unwrap();
        assert!(mounted.success());
        for name in
            ["iptables", "iptables-restore", "iptables-save", "ip6tables", "ip6tables-restore", "ip6tables-save"]
        {
            symlink("/usr/sbin/xtables-legacy-multi", format!("/usr/local/sbin/{name}")).unwrap();
        }
        self
    }

    /// Removes every rule, as an administrator does who means to begin anew.
    pub fn flush(self) {
        super::plugin::nft(&["flush", "ruleset"]);
        let programs: &[&str] =
            if self == Self::IptablesLegacy { &["iptables-legacy", "ip6tables-legacy"] } else { &[] };
        for (program, table, action) in programs
            .iter()
            .flat_map(|program| ["nat", "raw"].map(|table| (program, table)))
            .flat_map(|(program, table)| ["-F", "-X"].map(|action| (program, table, action)))
        {
            assert!(sandbox::command(program).args(["-t", table, action]).status().unwrap().success());
        }
    }

    /// The key `backend`.
    pub fn key(self) -> Value {
        json!(if self == Self::Nftables { "nftables" } else { "iptables" })
    }

    /// The program that lists rules of iptables: of the flavour in use.
    pub fn iptables(self) -> &'static str {
        if self == Self::IptablesLegacy { "iptables-legacy" } else { "iptables-nft" }
    }

    /// Everything that this backend holds of this plugin.
    pub fn rules(self) -> String {
        if self == Self::Nftables {
            return super::plugin::ruleset();
        }
        let list = |family: &str, table: &str| {
            let program = format!("{family}{}", &self.iptables()[2..]);
            let output = sandbox::command(program).args(["-t", table, "-S"]).output().unwrap();
            assert!(output.status.success());
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().filter(|line| line.contains("PODWIRE")).map(|line| format!("{line}\n")).collect::<String>()
        };
        [list("ip", "raw"), list("ip", "nat"), list("ip6", "nat")].concat()
    }
}

impl Attachment {
    /// The same on a backend.
    pub fn on(self, backend: Backend) -> Self {
        self.with("backend", backend.key())
    }
}

/// Makes of each function of a backend a test on both flavours of iptables.
macro_rules! on_iptables {
    ($($name:ident,)*) => {
        $(mod $name {
            use $crate::common::backend::Backend;

            #[test]
            fn iptables_nft() {
                sandbox::private_host(|| super::$name(Backend::IptablesNft.prepared()));
            }

            #[test]
            fn iptables_legacy() {
                sandbox::private_host(|| super::$name(Backend::IptablesLegacy.prepared()));
            }
        })*
    };
}

/// Makes of each function of a backend a test on each.
macro_rules! on_each_backend {
    ($($name:ident,)*) => {
        $(mod $name {
            use $crate::common::backend::Backend;

            #[test]
            fn nftables() {
                sandbox::private_host(|| super::$name(Backend::Nftables.prepared()));
            }

            #[test]
            fn iptables_nft() {
                sandbox::private_host(|| super::$name(Backend::IptablesNft.prepared()));
            }

            #[test]
            fn iptables_legacy() {
                sandbox::private_host(|| super::$name(Backend::IptablesLegacy.prepared()));
            }
        })*
    };
}
