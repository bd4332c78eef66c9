//! Settings of the pod's interface. Pure.

/// The token that stands for the pod's interface, as in the reference's `tuning`.
const IFNAME: &str = "IFNAME";

/// One of `net.ipv4.conf.IFNAME`, `net.ipv4.neigh.IFNAME`, and the same of IPv6.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSysctl {
    family: String,
    group: String,
    name: String,
    /// What it is to be.
    pub value: String,
}

impl PodSysctl {
    /// Reads a name of sysctl(8), its parts separated by dots or, as in /proc/sys, by slashes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(key: &str, value: &str) -> Result<Self, String> {
        let separator = if key.contains('/') { '/' } else { '.' };
        let parts: Vec<&str> = key.split(separator).collect();
        let ["net", family @ ("ipv4" | "ipv6"), group @ ("conf" | "neigh"), IFNAME, name] = parts.as_slice() else {
            return Err(format!(
                "must be a setting of the pod's interface: net.ipv4.conf.{IFNAME}.NAME or net.ipv4.neigh.{IFNAME}.NAME, or the same of ipv6"
            ));
        };
        if name.is_empty()
            || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            return Err("has no such setting".to_owned());
        }
        if *name == "disable_ipv6" {
            return Err("follows from the pod's addresses".to_owned());
        }
        // The kernel sets it anew when the link comes up (addrconf_notify, net/ipv6/addrconf.c).
        if (*family, *group, *name) == ("ipv6", "conf", "mtu") {
            return Err("follows from \"mtu\"".to_owned());
        }
        if value.is_empty() || value.contains(|char: char| char.is_control()) {
            return Err("is no value".to_owned());
        }
        let owned = |text: &str| text.to_owned();
        Ok(Self { family: owned(family), group: owned(group), name: owned(name), value: owned(value) })
    }

    /// Its path below /proc/sys.
    #[must_use]
    pub fn path(&self, ifname: &str) -> String {
        format!("net/{}/{}/{ifname}/{}", self.family, self.group, self.name)
    }
}

/// Settings that a pod may wish for: one, or all that begin like it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    /// Below /proc/sys, of the interface [`IFNAME`].
    start: String,
    is_whole: bool,
}

impl Allowed {
    /// Reads a name as [`PodSysctl::new`] does, or the beginning of one and a `*`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(pattern: &str) -> Result<Self, String> {
        let beginning = pattern.strip_suffix('*');
        // Any letter makes the beginning of a name one.
        let example = beginning.map_or_else(|| pattern.to_owned(), |beginning| format!("{beginning}x"));
        let mut start = PodSysctl::new(&example, "1")?.path(IFNAME);
        if beginning.is_some() {
            start.pop();
        }
        Ok(Self { start, is_whole: beginning.is_none() })
    }

    /// Whether it is about this setting.
    #[must_use]
    pub fn covers(&self, wish: &PodSysctl) -> bool {
        let path = wish.path(IFNAME);
        if self.is_whole { path == self.start } else { path.starts_with(&self.start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_and_slashes_name_the_same_setting() {
        for key in ["net.ipv4.conf.IFNAME.arp_filter", "net/ipv4/conf/IFNAME/arp_filter"] {
            assert_eq!(PodSysctl::new(key, "1").unwrap().path("eth0.5"), "net/ipv4/conf/eth0.5/arp_filter");
        }
    }

    #[test]
    fn what_is_allowed_is_that_or_what_begins_like_it() {
        let wish = PodSysctl::new("net.ipv4.conf.IFNAME.arp_filter", "1").unwrap();
        for (pattern, covers) in [
            ("net.ipv4.conf.IFNAME.arp_filter", true),
            ("net/ipv4/conf/IFNAME/arp_*", true),
            ("net.ipv4.conf.IFNAME.*", true),
            ("net.ipv4.conf.IFNAME.arp", false),
            ("net.ipv6.conf.IFNAME.*", false),
        ] {
            assert_eq!(Allowed::new(pattern).unwrap().covers(&wish), covers, "{pattern}");
        }
        for pattern in ["*", "net.*", "net.ipv4.conf.*", "net.ipv4.conf.*.rp_filter", "net.ipv4.conf.IFNAME.a*b"] {
            assert!(Allowed::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn settings_of_anything_else_are_refused() {
        for key in [
            "",
            "net",
            "kernel.hostname",
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.eth0.rp_filter",
            "net.core.somaxconn",
            "net/ipv4/conf/IFNAME/../all/rp_filter",
            "net/ipv4/conf/../IFNAME/rp_filter",
            "net.ipv4.conf.IFNAME.",
            "net.ipv4.conf.IFNAME.Rp",
            "net.ipv6.conf.IFNAME.disable_ipv6",
            "net.ipv6.conf.IFNAME.mtu",
        ] {
            assert!(PodSysctl::new(key, "1").is_err(), "{key:?}");
        }
        assert!(PodSysctl::new("net.ipv4.conf.IFNAME.rp_filter", "").is_err());
        assert!(PodSysctl::new("net.ipv4.conf.IFNAME.rp_filter", "1\n2").is_err());
    }
}
