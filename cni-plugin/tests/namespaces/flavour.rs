//! The two flavours of iptables, as a node may have them.

use std::os::unix::fs::symlink;

use crate::common::text;

/// What iptables writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// nf_tables, which Debian chooses.
    Nft,
    /// ip_tables, as if the administrator had chosen it.
    Legacy,
}

impl Flavour {
    /// After making it the private host's choice.
    pub fn chosen(self) -> Self {
        if self == Self::Legacy {
            text("mount", &["-t", "tmpfs", "none", "/usr/local/sbin"]);
            for name in ["iptables", "iptables-restore", "ip6tables", "ip6tables-restore"] {
                symlink("/usr/sbin/xtables-legacy-multi", format!("/usr/local/sbin/{name}")).unwrap();
            }
        }
        // Tables of iptables come with the first look at them, and stay.
        self.rules();
        self
    }

    /// Everything in table nat of both families that is ours.
    pub fn rules(self) -> Vec<String> {
        let programs = match self {
            Self::Nft => ["iptables-nft", "ip6tables-nft"],
            Self::Legacy => ["iptables-legacy", "ip6tables-legacy"],
        };
        let listed = programs.map(|program| text(program, &["-t", "nat", "-S"]));
        listed.iter().flat_map(|text| text.lines()).filter(|line| line.contains("PODWIRE")).map(str::to_owned).collect()
    }

    /// Both families' program of this flavour with the same arguments.
    pub fn iptables(self, arguments: &[&str]) {
        for family in ["iptables", "ip6tables"] {
            let flavour = if self == Self::Nft { "nft" } else { "legacy" };
            text(&format!("{family}-{flavour}"), arguments);
        }
    }
}

/// Makes of each function of a flavour a test on both.
macro_rules! on_both_flavours {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use $crate::flavour::Flavour;

            #[test]
            fn iptables_nft() {
                sandbox::private_host(|| super::$name(Flavour::Nft.chosen()));
            }

            #[test]
            fn iptables_legacy() {
                sandbox::private_host(|| super::$name(Flavour::Legacy.chosen()));
            }
        })*
    };
}
