//! The rules that so many ADDs of the reference portmap leave, one pod for each port. Written from what one ADD of
//! version 1.1.1 leaves (iptables), and from the layout of 1.9 (nftables).

use std::fmt::Write;

use super::FIRST;
use super::host::{POD, POD_PORT};

/// The pod behind the port with this index: the first and the last are the one that answers.
fn pod(index: usize, mapped: usize) -> String {
    match index == 0 || index + 1 == mapped {
        true => POD.to_string(),
        false => format!("10.88.{}.{}", index / 250, index % 250 + 2),
    }
}

/// Something like a hash: all that matters is its length.
fn id(index: usize, length: usize) -> String {
    format!("{index:0>length$x}")
}

/// For iptables-restore.
pub fn iptables(mapped: usize) -> String {
    let mut text =
        "*nat\n:CNI-HOSTPORT-DNAT - [0:0]\n:CNI-HOSTPORT-MASQ - [0:0]\n:CNI-HOSTPORT-SETMARK - [0:0]\n".to_owned();
    for index in 0..mapped {
        let _ = writeln!(text, ":CNI-DN-{} - [0:0]", id(index, 21));
    }
    for hook in ["PREROUTING", "OUTPUT"] {
        let _ = writeln!(text, "-A {hook} -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT");
    }
    text.push_str("-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ\n");
    text.push_str("-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE\n");
    text.push_str("-A CNI-HOSTPORT-SETMARK -m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark 0x2000/0x2000\n");
    for index in 0..mapped {
        let (port, pod, container) = (FIRST + index, pod(index, mapped), id(index, 64));
        let chain = format!("CNI-DN-{}", id(index, 21));
        for source in [format!("{pod}/32"), "127.0.0.1/32".to_owned()] {
            let _ = writeln!(text, "-A {chain} -s {source} -p tcp -m tcp --dport {port} -j CNI-HOSTPORT-SETMARK");
        }
        let _ = writeln!(text, "-A {chain} -p tcp -m tcp --dport {port} -j DNAT --to-destination {pod}:{POD_PORT}");
        let comment = format!(r#""dnat name: \"bench\" id: \"{container}\"""#);
        let _ = writeln!(
            text,
            "-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment {comment} -m multiport --dports {port} -j {chain}"
        );
    }
    text.push_str("COMMIT\n");
    text
}

/// For nft.
pub fn nftables(mapped: usize) -> String {
    let mut text = "table ip cni_hostport {\n chain hostports {\n".to_owned();
    for index in 0..mapped {
        let (port, pod, container) = (FIRST + index, pod(index, mapped), id(index, 64));
        let _ = writeln!(text, "  tcp dport {port} dnat to {pod}:{POD_PORT} comment \"{container}\"");
    }
    text.push_str(
        " }\n chain hostip_hostports {\n }\n chain hostports_all {\n  jump hostip_hostports\n  jump hostports\n }\n",
    );
    for (chain, hook) in [("prerouting", "prerouting priority dstnat"), ("output", "output priority -100")] {
        let _ = writeln!(
            text,
            " chain {chain} {{\n  type nat hook {hook};\n  fib daddr type local jump hostports_all\n }}"
        );
    }
    text.push_str(" chain masquerading {\n  type nat hook postrouting priority srcnat;\n");
    for index in 0..mapped {
        let (pod, container) = (pod(index, mapped), id(index, 64));
        for source in [pod.as_str(), "127.0.0.1"] {
            let _ = writeln!(text, "  ip saddr {source} ip daddr {pod} masquerade comment \"{container}\"");
        }
    }
    text.push_str(" }\n}\n");
    text
}
