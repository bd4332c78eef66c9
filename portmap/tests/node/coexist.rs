//! Beside the rules of others: kube-proxy's, firewalld's, ufw's, a FORWARD policy that drops, strict reverse paths.
//! Their rules are of the same shape as theirs, cut down to what these packets meet; `firewalls` has the real ones.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::backend::Backend;
use crate::common::net::{self, Host, NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, forward, from, lan, pod};
use crate::common::plugin::{Attachment, feed, nft};
use kernel::sysctl;
use nft_model::Family;
use serde_json::json;

on_each_backend!(
    services_and_node_ports_of_kube_proxy_on_iptables_keep_theirs,
    services_and_node_ports_of_kube_proxy_on_nftables_keep_theirs,
    firewalld_lets_translated_connections_through,
    ufw_lets_through_what_its_user_allows,
    a_forward_policy_of_drop_is_not_gone_round,
    strict_reverse_paths_are_kept,
    a_pod_of_two_networks_has_host_ports_in_each,
);

/// What a family's rules are made with: addresses of a Service, of the pod behind it, of the pods, and of the node.
pub struct Words {
    family: Family,
    restore: &'static str,
    service: IpAddr,
    pub pods: &'static str,
    pub node: IpAddr,
    pub neighbour: IpAddr,
}

pub fn families() -> [Words; 2] {
    [
        Words {
            family: Family::Ip,
            restore: "iptables",
            service: Ipv4Addr::new(10, 96, 0, 10).into(),
            pods: "10.88.0.0/16",
            node: NODE_V4[0].into(),
            neighbour: NEIGHBOUR_V4.into(),
        },
        Words {
            family: Family::Ip6,
            restore: "ip6tables",
            service: "fd96::10".parse().unwrap(),
            pods: "fd88::/64",
            node: NODE_V6[0].into(),
            neighbour: NEIGHBOUR_V6.into(),
        },
    ]
}

impl Words {
    pub fn address(&self, pod: &Host) -> IpAddr {
        if self.family == Family::Ip { pod.v4.into() } else { pod.v6.into() }
    }

    /// iptables of the flavour that Debian chooses: what kube-proxy and ufw use there.
    fn restore(&self, text: &str) {
        feed(&format!("{}-nft-restore", self.restore), &["--noflush"], text);
    }
}

/// A mapped pod, and one behind a Service of the same port number and a NodePort.
pub struct Cluster {
    pub lan: Host,
    pub mapped: Host,
    pub served: Host,
}

impl Cluster {
    pub fn new() -> Self {
        forward();
        let cluster = Self { lan: lan(), mapped: pod(2), served: pod(3) };
        // The node's own packets to a Service need a route before they are translated.
        ip(None, &format!("route add default via {NEIGHBOUR_V4}"));
        ip(None, &format!("route add default via {NEIGHBOUR_V6}"));
        cluster.mapped.serve(80);
        cluster.served.serve(8080);
        cluster
    }

    pub fn map(&self, backend: Backend) -> Attachment {
        let ports = json!([
            { "hostPort": 8080, "containerPort": 80, "protocol": "tcp" },
            { "hostPort": 8080, "containerPort": 80, "protocol": "udp" },
        ]);
        let attachment = Attachment::new(&self.mapped, &ports).on(backend);
        attachment.add().ok();
        attachment
    }

    fn check(&self, words: &Words) {
        let name = |answer: net::Answer| answer.map(|(name, _)| name);
        let to = |name: &str| Ok(name.to_owned());
        let Words { node, service, neighbour, .. } = *words;
        // The host port, from everywhere, with the client's address.
        assert_eq!(self.lan.tcp(node, 8080), from("pod2", neighbour));
        assert_eq!(self.lan.udp(node, 8080), from("pod2", neighbour));
        assert_eq!(self.served.tcp(node, 8080), from("pod2", words.address(&self.served)));
        assert_eq!(name(self.mapped.tcp(node, 8080)), to("pod2"));
        assert_eq!(name(net::tcp(node, 8080)), to("pod2"));
        // The Service of the same port number, and the NodePort.
        assert_eq!(name(self.mapped.tcp(service, 8080)), to("pod3"));
        assert_eq!(name(net::tcp(service, 8080)), to("pod3"));
        assert_eq!(name(self.lan.tcp(node, 30080)), to("pod3"));
        assert_eq!(name(self.mapped.tcp(node, 30080)), to("pod3"));
        // No translation at all.
        assert_eq!(self.lan.tcp(words.address(&self.served), 8080).map(|(name, _)| name), to("pod3"));
    }
}

fn kube_proxy_on_iptables(words: &Words, endpoint: IpAddr) {
    let Words { service, family, .. } = *words;
    let target = SocketAddr::new(endpoint, 8080);
    let loopback = if family == Family::Ip {
        ":KUBE-FIREWALL - [0:0]\n-A INPUT -j KUBE-FIREWALL\n-A OUTPUT -j KUBE-FIREWALL\n\
         -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n"
    } else {
        ""
    };
    words.restore(&format!(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
         :KUBE-EXT-1 - [0:0]\n:KUBE-SVC-1 - [0:0]\n:KUBE-SEP-1 - [0:0]\n\
         -I PREROUTING 1 -j KUBE-SERVICES\n-I OUTPUT 1 -j KUBE-SERVICES\n-I POSTROUTING 1 -j KUBE-POSTROUTING\n\
         -A KUBE-SERVICES -d {service} -p tcp -m tcp --dport 8080 -j KUBE-SVC-1\n\
         -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
         -A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j KUBE-EXT-1\n\
         -A KUBE-EXT-1 -j KUBE-MARK-MASQ\n-A KUBE-EXT-1 -j KUBE-SVC-1\n\
         -A KUBE-SVC-1 ! -s {pods} -d {service} -p tcp -m tcp --dport 8080 -j KUBE-MARK-MASQ\n-A KUBE-SVC-1 -j KUBE-SEP-1\n\
         -A KUBE-SEP-1 -s {endpoint} -j KUBE-MARK-MASQ\n-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination {target}\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n-A KUBE-POSTROUTING -j MASQUERADE\nCOMMIT\n\
         *filter\n:KUBE-FORWARD - [0:0]\n{loopback}-A FORWARD -j KUBE-FORWARD\n\
         -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
         -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n",
        pods = words.pods,
    ));
}

fn services_and_node_ports_of_kube_proxy_on_iptables_keep_theirs(backend: Backend) {
    let cluster = Cluster::new();
    let words = families();
    let proxy = || words.iter().for_each(|words| kube_proxy_on_iptables(words, words.address(&cluster.served)));
    let flush = || {
        for words in &words {
            words.restore("*nat\n-F PREROUTING\n-F OUTPUT\n-F POSTROUTING\nCOMMIT\n*filter\n-F FORWARD\nCOMMIT\n");
        }
    };
    // Whoever comes first.
    proxy();
    let attachment = cluster.map(backend);
    words.iter().for_each(|words| cluster.check(words));
    attachment.del().ok();
    flush();
    let attachment = cluster.map(backend);
    proxy();
    words.iter().for_each(|words| cluster.check(words));
    attachment.check().ok();
}

fn kube_proxy_on_nftables(words: &Words, endpoint: IpAddr) {
    let Words { service, family, node, .. } = *words;
    let address = if family == Family::Ip { "ipv4_addr" } else { "ipv6_addr" };
    let target = SocketAddr::new(endpoint, 8080);
    feed(
        "nft",
        &["-f", "-"],
        &format!(
            "table {family} kube-proxy {{
                set nodeport-ips {{ type {address}; elements = {{ {node} }}; }}
                map service-ips {{ type {address} . inet_proto . inet_service : verdict;
                    elements = {{ {service} . tcp . 8080 : goto service-1 }}; }}
                map service-nodeports {{ type inet_proto . inet_service : verdict;
                    elements = {{ tcp . 30080 : goto external-1 }}; }}
                chain mark-for-masquerade {{ mark set mark or 0x4000; }}
                chain endpoint-1 {{ {family} saddr {endpoint} jump mark-for-masquerade; meta l4proto tcp dnat to {target}; }}
                chain service-1 {{
                    {family} daddr {service} tcp dport 8080 {family} saddr != {pods} jump mark-for-masquerade;
                    goto endpoint-1; }}
                chain external-1 {{ jump mark-for-masquerade; goto service-1; }}
                chain services {{
                    {family} daddr . meta l4proto . th dport vmap @service-ips;
                    {family} daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports; }}
                chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
                chain nat-output {{ type nat hook output priority -100; jump services; }}
                chain masquerading {{ mark and 0x4000 != 0 mark set mark xor 0x4000 masquerade; }}
                chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
                chain filter-forward {{ type filter hook forward priority filter; ct state invalid drop; }}
            }}",
            pods = words.pods,
        ),
    );
}

fn services_and_node_ports_of_kube_proxy_on_nftables_keep_theirs(backend: Backend) {
    let cluster = Cluster::new();
    let words = families();
    let proxy = || words.iter().for_each(|words| kube_proxy_on_nftables(words, words.address(&cluster.served)));
    proxy();
    let attachment = cluster.map(backend);
    words.iter().for_each(|words| cluster.check(words));
    attachment.del().ok();
    words.iter().for_each(|words| drop(nft(&["delete", "table", &words.family.to_string(), "kube-proxy"])));
    cluster.map(backend);
    proxy();
    words.iter().for_each(|words| cluster.check(words));
}

/// What a client outside, the node and the pod itself get.
pub fn check_host_port(lan: &Host, mapped: &Host) {
    for words in families() {
        assert_eq!(lan.tcp(words.node, 8080), from("pod2", words.neighbour));
        assert_eq!(lan.udp(words.node, 8080), from("pod2", words.neighbour));
        assert_eq!(mapped.tcp(words.node, 8080).map(|(name, _)| name), Ok("pod2".to_owned()));
        assert_eq!(net::tcp(words.node, 8080).map(|(name, _)| name), Ok("pod2".to_owned()));
    }
    assert_eq!(net::tcp(Ipv4Addr::LOCALHOST, 8080).map(|(name, _)| name), Ok("pod2".to_owned()));
}

fn firewalld_lets_translated_connections_through(backend: Backend) {
    let cluster = Cluster::new();
    feed(
        "nft",
        &["-f", "-"],
        "table inet firewalld {
            chain mangle_PREROUTING { type filter hook prerouting priority mangle + 10; }
            chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; }
            chain nat_POSTROUTING { type nat hook postrouting priority srcnat + 10; }
            chain nat_OUTPUT { type nat hook output priority -90; }
            chain filter_PREROUTING { type filter hook prerouting priority filter + 10;
                icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept;
                meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }
            chain filter_INPUT { type filter hook input priority filter + 10;
                ct state { established, related } accept; ct status dnat accept; iifname lo accept;
                ct state invalid drop; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;
                reject with icmpx admin-prohibited; }
            chain filter_FORWARD { type filter hook forward priority filter + 10;
                ct state { established, related } accept; ct status dnat accept; iifname lo accept;
                ct state invalid drop; reject with icmpx admin-prohibited; }
            chain filter_OUTPUT { type filter hook output priority filter + 10;
                ct state { established, related } accept; oifname lo accept; }
        }",
    );
    cluster.map(backend);
    check_host_port(&cluster.lan, &cluster.mapped);
    // It does reject: what is not translated is stopped.
    assert!(cluster.lan.tcp(cluster.served.v4, 8080).is_err());
}

/// ufw with everything denied, and `ufw route allow to PODS`.
fn ufw_lets_through_what_its_user_allows(backend: Backend) {
    let cluster = Cluster::new();
    for words in families() {
        let neighbours = if words.family == Family::Ip6 { "-A ufw-before-input -p ipv6-icmp -j ACCEPT\n" } else { "" };
        words.restore(&format!(
            "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:ufw-before-input - [0:0]\n:ufw-before-forward - [0:0]\n\
             :ufw-user-forward - [0:0]\n:ufw-reject-forward - [0:0]\n\
             -A INPUT -j ufw-before-input\n-A FORWARD -j ufw-before-forward\n-A FORWARD -j ufw-reject-forward\n\
             -A ufw-before-input -i lo -j ACCEPT\n\
             -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A ufw-before-input -m conntrack --ctstate INVALID -j DROP\n{neighbours}\
             -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
             -A ufw-before-forward -j ufw-user-forward\n-A ufw-user-forward -d {pods} -j ACCEPT\nCOMMIT\n",
            pods = words.pods
        ));
    }
    cluster.map(backend);
    check_host_port(&cluster.lan, &cluster.mapped);
}

/// Whether a connection is swallowed.
pub fn is_dropped(client: &Host, to: IpAddr) -> bool {
    let address = SocketAddr::new(to, 8080);
    let patience = Duration::from_millis(500);
    let connect = || TcpStream::connect_timeout(&address, patience).map(drop).map_err(|error| error.kind());
    client.netns.run(connect).unwrap() == Err(ErrorKind::TimedOut)
}

fn a_forward_policy_of_drop_is_not_gone_round(backend: Backend) {
    let cluster = Cluster::new();
    let attachment = cluster.map(backend);
    for words in families() {
        assert_eq!(cluster.lan.tcp(words.node, 8080), from("pod2", words.neighbour));
        words.restore("*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
        assert!(is_dropped(&cluster.lan, words.node));
        // What lets pods have connections at all is enough.
        words.restore(&format!(
            "*filter\n-A FORWARD -d {pods} -j ACCEPT\n-A FORWARD -s {pods} -j ACCEPT\nCOMMIT\n",
            pods = words.pods
        ));
        assert_eq!(cluster.lan.tcp(words.node, 8080), from("pod2", words.neighbour));
        words.restore("*filter\n-F FORWARD\nCOMMIT\n");
        assert!(is_dropped(&cluster.lan, words.node));
        // So is what lets translated connections through, and nothing else.
        words.restore(
            "*filter\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT\n\
             -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT\nCOMMIT\n",
        );
        assert_eq!(cluster.lan.tcp(words.node, 8080), from("pod2", words.neighbour));
        assert!(is_dropped(&cluster.lan, words.address(&cluster.served)));
    }
    attachment.check().ok();
}

fn strict_reverse_paths_are_kept(backend: Backend) {
    let cluster = Cluster::new();
    for name in ["all", "default", "to-lan", "to-pod2", "to-pod3"] {
        sysctl::set(&format!("net/ipv4/conf/{name}/rp_filter"), "1").unwrap();
    }
    for name in ["all", "eth0"] {
        cluster.mapped.sysctl(&format!("net/ipv4/conf/{name}/rp_filter"), "1");
    }
    cluster.map(backend);
    check_host_port(&cluster.lan, &cluster.mapped);
    assert_eq!(cluster.served.tcp(NODE_V4[0], 8080), from("pod2", cluster.served.v4));
}

/// Runs ip(8) in a namespace, or on the node.
fn ip(netns: Option<&Host>, arguments: &str) {
    let run = || sandbox::command("ip").args(arguments.split(' ')).status().unwrap().success();
    let done = netns.map_or_else(run, |host| host.netns.run(run).unwrap());
    assert!(done, "ip {arguments}");
}

fn a_pod_of_two_networks_has_host_ports_in_each(backend: Backend) {
    let cluster = Cluster::new();
    let pod = &cluster.mapped;
    // A second interface, whose address answers by it, as multi-homed pods are set up.
    ip(None, "link add to-net1 type veth peer name net1 netns pod2");
    ip(None, "link set to-net1 up");
    ip(Some(pod), "link set net1 up");
    ip(Some(pod), "address add 10.89.0.2/32 dev net1");
    ip(Some(pod), "route add 169.254.2.1 dev net1");
    ip(Some(pod), "route add default via 169.254.2.1 dev net1 table 100");
    ip(Some(pod), "rule add from 10.89.0.2 table 100");
    ip(None, "address add 169.254.2.1/32 dev to-net1");
    ip(None, "route add 10.89.0.2/32 dev to-net1");
    ip(Some(pod), "address add fd89::2/128 dev net1 nodad");
    ip(Some(pod), "-6 route add default via fe80::2:1 dev net1 table 100");
    ip(Some(pod), "-6 rule add from fd89::2 table 100");
    ip(None, "address add fe80::2:1/64 dev to-net1 nodad");
    ip(None, "-6 route add fd89::2/128 dev to-net1");
    for name in ["all", "to-lan", "to-pod2", "to-net1"] {
        sysctl::set(&format!("net/ipv4/conf/{name}/rp_filter"), "1").unwrap();
    }
    let first = cluster.map(backend);
    let mut second = Attachment::on_paper(
        "pod2",
        &["10.89.0.2/32", "fd89::2/128"],
        &json!([{ "hostPort": 9090, "containerPort": 80 }]),
    )
    .with("name", json!("second"))
    .on(backend);
    second.ifname = "net1".to_owned();
    second.config["prevResult"]["interfaces"][1]["name"] = json!("net1");
    second.add().ok();
    let check = |port: u16, is_reached: bool| {
        for (node, neighbour) in [(NODE_V4[0].into(), NEIGHBOUR_V4.into()), (NODE_V6[0].into(), NEIGHBOUR_V6.into())] {
            let (node, neighbour): (IpAddr, IpAddr) = (node, neighbour);
            let expected = if is_reached { from("pod2", neighbour) } else { Err(ErrorKind::ConnectionRefused) };
            assert_eq!(cluster.lan.tcp(node, port), expected, "{node} {port}");
        }
    };
    check(8080, true);
    check(9090, true);
    for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        assert_eq!(net::tcp(loopback, 9090).map(|(name, _)| name), Ok("pod2".to_owned()));
    }
    // An end of one attachment is none of the other.
    first.del().ok();
    check(8080, false);
    check(9090, true);
    second.del().ok();
    check(9090, false);
}
