use std::fs;

use kernel::{Error, netns, sysctl};
use sandbox::private_host;

use crate::oracle::set;

#[test]
fn sysctls_belong_to_the_calling_threads_namespace() {
    private_host(|| {
        let blue = netns::create_named("/run/netns/blue").unwrap();
        let name = "net/ipv4/ip_forward";
        let (outside, other) = if sysctl::get(name).unwrap() == "0" { ("0", "1") } else { ("1", "0") };
        assert_eq!(blue.run(|| sysctl::set(name, other).unwrap()).unwrap(), sysctl::get(name).unwrap() != other);
        assert_eq!(blue.run(|| sysctl::get(name).unwrap()).unwrap(), other);
        assert_eq!(sysctl::get(name).unwrap(), outside);
        assert!(sysctl::set(name, other).unwrap());
        assert!(!sysctl::set(name, other).unwrap());
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), other);
    });
}

#[test]
fn an_interface_may_have_dots() {
    private_host(|| {
        set("link add veth0.5 type veth peer name right");
        sysctl::set("net/ipv4/conf/veth0.5/rp_filter", "2").unwrap();
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/conf/veth0.5/rp_filter").unwrap(), "2\n");
    });
}

#[test]
fn errors_name_the_sysctl_and_the_value() {
    private_host(|| {
        let error = sysctl::get("net/ipv4/conf/missing/rp_filter").unwrap_err();
        assert_eq!(error.to_string(), "cannot read the sysctl net/ipv4/conf/missing/rp_filter");
        let error = sysctl::set("net/ipv4/ip_forward", "perhaps").unwrap_err();
        assert_eq!(error.to_string(), "cannot set the sysctl net/ipv4/ip_forward to \"perhaps\"");
        let error = sysctl::set("net/ipv4/conf/../../../kernel/hostname", "x").unwrap_err();
        assert!(matches!(error, Error::SysctlName { .. }), "{error:?}");
    });
}
