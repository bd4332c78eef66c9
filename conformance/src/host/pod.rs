//! What a runtime provides for a pod: an id, a network namespace, an interface name. For chained plugins also the
//! interface that a main plugin would have made.

use std::fs;
use std::path::Path;

use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use super::exec::tool;
use super::{observe, shape};
use crate::target::Object;
use crate::verdict::{Finding, Verdict};

/// One attachment's parameters.
#[derive(Debug, Clone)]
pub struct Pod {
    /// CNI_CONTAINERID.
    pub id: String,
    /// The namespace's name for `ip -n`.
    pub netns: String,
    /// CNI_NETNS.
    pub path: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: String,
    /// What the runtime provides; plugins get what they declare.
    pub capabilities: Object,
    /// What a main plugin would have answered, for chained plugins.
    pub scaffold: Option<Value>,
}

impl Pod {
    /// A new namespace with `lo` up, as runtimes make it.
    pub(super) fn make(id: &str, number: usize, ifname: &str) -> Verdict<Self> {
        let netns = format!("pod{number}");
        tool("ip", &["netns", "add", &netns])?;
        let path = format!("/run/netns/{netns}");
        super::net::inside(Some(&path), || {
            sandbox::set_loopback_up()
                .map_err(|error| Finding::Trouble(format!("cannot set lo up in {netns}: {error}")))
        })?;
        Ok(Self {
            id: id.to_owned(),
            path,
            netns,
            ifname: ifname.to_owned(),
            args: String::new(),
            capabilities: Object::new(),
            scaffold: None,
        })
    }

    /// The interface that a chained plugin is to adjust: a routed veth pair with an address of each family.
    pub(super) fn wire(&mut self, number: usize) -> Verdict {
        let (high, low) = (number / 256 % 64, number % 256);
        let host = format!("scaf{number}");
        let (subnet, subnet_v6) = (format!("10.{}.{low}", 32 + high), format!("fd99:{number:x}"));
        let host_mac = format!("02:c0:f0:00:{high:02x}:{low:02x}");
        let mac = format!("02:c0:f0:01:{high:02x}:{low:02x}");
        let name = &self.ifname;
        let batch = [
            format!("link add {host} address {host_mac} type veth peer name {name} address {mac} netns {}", self.netns),
            format!("address add {subnet}.1/24 dev {host}"),
            format!("address add {subnet_v6}::1/64 dev {host} nodad"),
        ];
        tool_batch(&[], &batch)?;
        without_detection(None, &host)?;
        without_detection(Some(&self.path), name)?;
        let inside = [
            format!("address add {subnet}.2/24 dev {name}"),
            format!("address add {subnet_v6}::2/64 dev {name} nodad"),
            format!("link set {name} up"),
            format!("route add default via {subnet}.1"),
            format!("route add default via {subnet_v6}::1"),
        ];
        tool("ip", &["link", "set", &host, "up"])?;
        tool_batch(&["-n", &self.netns], &inside)?;
        for path in ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"] {
            observe::write(path, "1")?;
        }
        self.scaffold = Some(json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": host, "mac": host_mac },
                { "name": name, "mac": mac, "sandbox": self.path },
            ],
            "ips": [
                { "address": format!("{subnet}.2/24"), "gateway": format!("{subnet}.1"), "interface": 1 },
                { "address": format!("{subnet_v6}::2/64"), "gateway": format!("{subnet_v6}::1"), "interface": 1 },
            ],
            "routes": [
                { "dst": "0.0.0.0/0", "gw": format!("{subnet}.1") },
                { "dst": "::/0", "gw": format!("{subnet_v6}::1") },
            ],
            "dns": { "nameservers": ["198.18.0.53"], "search": ["suite.test"] },
        }));
        Ok(())
    }

    /// The scaffold's result in this version.
    #[must_use]
    pub fn scaffold_result(&self, version: &str) -> Option<Value> {
        self.scaffold.as_ref().map(|result| shape::reshape(result, version))
    }

    /// Names the scaffold's namespace by another path.
    pub fn scaffold_is_at(&mut self, path: &str) {
        if let Some(sandbox) = self.scaffold.as_mut().and_then(|result| result.pointer_mut("/interfaces/1/sandbox")) {
            *sandbox = json!(path);
        }
    }

    /// The same container with another interface name, in the same namespace.
    #[must_use]
    pub fn second_interface(&self, ifname: &str) -> Self {
        Self { ifname: ifname.to_owned(), ..self.clone() }
    }

    /// With a capability argument.
    #[must_use]
    pub fn with(mut self, capability: &str, value: Value) -> Self {
        self.capabilities.insert(capability.to_owned(), value);
        self
    }

    /// `ip -j` inside.
    ///
    /// # Errors
    /// Trouble if ip(8) fails.
    pub fn ip(&self, args: &[&str]) -> Verdict<Value> {
        observe::ip(&[&["-n", &self.netns], args].concat())
    }

    /// The interface as the kernel has it, if it is there.
    ///
    /// # Errors
    /// Trouble if ip(8) fails.
    pub fn link(&self) -> Verdict<Option<Value>> {
        let links = self.ip(&["-d", "address", "show"])?;
        let found = links.as_array().into_iter().flatten().find(|link| shape::text(link, "ifname") == self.ifname);
        Ok(found.cloned())
    }

    /// Runs `ip ARGS` inside, for its effect.
    ///
    /// # Errors
    /// Trouble if ip(8) fails.
    pub fn change(&self, args: &[&str]) -> Verdict {
        tool("ip", &[&["-n", &self.netns], args].concat()).map(drop)
    }

    /// Removes the namespace, as a runtime does when the pod is gone.
    ///
    /// # Errors
    /// Trouble if its file cannot be removed.
    pub fn remove_namespace(&self) -> Verdict {
        remove(&self.netns)
    }
}

/// Removes a named namespace, if it is there, by what `ip netns delete` does.
pub(super) fn remove(netns: &str) -> Verdict {
    let path = Path::new("/run/netns").join(netns);
    if !path.exists() {
        return Ok(());
    }
    // What is no mount is removed all the same.
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    fs::remove_file(&path).map_err(|error| Finding::Trouble(format!("cannot remove {}: {error}", path.display())))
}

/// Keeps an interface from waiting for duplicate address detection, so that its first packet goes out at once.
pub(crate) fn without_detection(netns: Option<&str>, name: &str) -> Verdict {
    super::net::inside(netns, || observe::write(&format!("/proc/sys/net/ipv6/conf/{name}/accept_dad"), "0"))
}

/// Several `ip` commands by one process.
pub(crate) fn tool_batch(args: &[&str], lines: &[impl AsRef<str>]) -> Verdict {
    let mut all = args.to_vec();
    all.extend(["-batch", "-"]);
    let text: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
    super::exec::tool_with_input("ip", &all, text.as_bytes()).map(drop)
}
