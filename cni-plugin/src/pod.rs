//! The two ends a request works on: the node's namespace and the pod's, each with its netlink socket.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use cni_spec::NetworkName;
use kernel::netns::NetNs;
use kernel::rtnl::{Link, Rtnl};
use macaddr::MacAddr6;

use crate::Error;
use crate::names::{Names, attachment_of_alias, is_mac_of};
use crate::step::Place;

/// For how long a removal of rules is better not followed by closing the socket: some grace periods of RCU.
const SETTLING: Duration = Duration::from_millis(100);

/// The node's namespace, in which the plugin runs.
pub struct Node {
    /// A socket in it.
    pub rtnl: Rtnl,
}

/// What a DEL may know of a pod's end, besides what its name implies.
#[derive(Debug)]
pub struct Told {
    /// The hardware address that somebody wished for.
    pub mac: Option<MacAddr6>,
    /// The addresses of this interface in `prevResult`.
    pub addresses: Vec<IpAddr>,
    /// The node's ends of other attachments: two may be told the same hardware address.
    pub others: Vec<Link>,
    /// The number that the node's namespace has for the pod's ([`Node::id_of`]).
    pub netns_id: Option<i32>,
}

/// A pod's namespace.
pub struct Pod {
    /// The namespace.
    pub netns: NetNs,
    /// A socket that was opened in it, and stays in it whoever uses it.
    pub rtnl: Rtnl,
}

impl Node {
    /// Opens a socket here.
    ///
    /// # Errors
    /// [`Error::Netlink`].
    pub fn open() -> Result<Self, Error> {
        let rtnl = Rtnl::open().map_err(|source| Error::Netlink { place: "the node's namespace", source })?;
        Ok(Self { rtnl })
    }

    /// The attachment's host end, if it is there: by its name, or by its alias, since it may have been made with
    /// another `hostInterfacePrefix` or be renamed by somebody.
    ///
    /// # Errors
    /// [`Error::HostLinkTaken`] if a link has its name that is not ours.
    pub fn host_link(&self, names: &Names) -> Result<Option<Link>, Error> {
        match self.named_link(names)? {
            Some(link) => Ok(Some(link)),
            None => self.renamed_link(names),
        }
    }

    /// The attachment's host end, if it is there by one of the names that it has now. A veth of such a name without an
    /// alias is one too: the kernel takes aliases of existing links only, so an ADD may have been killed in between.
    /// Costs the same however many links there are.
    ///
    /// # Errors
    /// [`Error::HostLinkTaken`] if a link has its name that is not ours.
    pub fn named_link(&self, names: &Names) -> Result<Option<Link>, Error> {
        let mut candidates = vec![&names.host_link, &names.made_as];
        candidates.dedup();
        for name in candidates {
            match self.rtnl.link(name).map_err(|source| observe(name, source))? {
                None => {}
                Some(link) if link.alias.as_ref() == Some(&names.alias) => return Ok(Some(link)),
                Some(link) if link.alias.is_none() && link.kind.as_deref() == Some("veth") => return Ok(Some(link)),
                Some(link) => {
                    return Err(Error::HostLinkTaken { link: link.name, alias: link.alias.unwrap_or_default() });
                }
            }
        }
        Ok(None)
    }

    /// The attachment's host end for whoever only looks: also if somebody wrote another alias on it.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn link_whosever(&self, names: &Names) -> Result<Option<Link>, Error> {
        match self.host_link(names) {
            Err(Error::HostLinkTaken { link, .. }) => self.rtnl.link(&link).map_err(|source| observe(&link, source)),
            found => found,
        }
    }

    /// The attachment's host end under another name.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn renamed_link(&self, names: &Names) -> Result<Option<Link>, Error> {
        let links = self.rtnl.links_of_kind("veth").map_err(|source| observe("the node's links", source))?;
        Ok(links.into_iter().find(|link| link.alias.as_ref() == Some(&names.alias)))
    }

    /// All links that carry this plugin's mark.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn own_links(&self) -> Result<Vec<(cni_spec::Attachment, Link)>, Error> {
        let links = self.rtnl.links().map_err(|source| observe("the node's links", source))?;
        let owned = |link: Link| Some((attachment_of_alias(link.alias.as_deref()?)?, link));
        Ok(links.into_iter().filter_map(owned).collect())
    }

    /// The host ends of this network that an ADD was killed over before it could write the alias on them.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn unfinished_links(&self, network: &NetworkName) -> Result<Vec<Link>, Error> {
        let links = self.rtnl.links_of_kind("veth").map_err(|source| observe("the node's links", source))?;
        let unfinished = |link: &Link| link.alias.is_none() && link.mac.is_some_and(|mac| is_mac_of(network, mac));
        Ok(links.into_iter().filter(unfinished).collect())
    }

    /// The number that the node's namespace has for a pod's. It is given one by whoever looks at a link that leads there, so the
    /// links come first.
    ///
    /// # Errors
    /// [`Error::Observe`].
    pub fn id_of(&self, netns: &NetNs) -> Result<Option<i32>, Error> {
        self.rtnl.netns_id(netns).map_err(|source| observe("the pod's namespace", source))
    }

    /// Deletes the attachment's veth pair; its addresses, routes and neighbours go with it. The wait for RCU is left to a
    /// child process, which also keeps this one's sockets for a while: rules are removed by one that was opened before, and no
    /// ledger is locked meanwhile.
    ///
    /// # Errors
    /// [`Error::Step`]; a pair that is not there is none.
    pub fn delete_link(&self, link: &Link) -> Result<(), Error> {
        self.rtnl.delete_link_aside(link.index, SETTLING).map(drop).map_err(|source| deletion(link, source))
    }
}

fn deletion(link: &Link, source: kernel::Error) -> Error {
    Error::Step { step: format!("ip link delete {}", link.name), source }
}

impl Pod {
    /// Opens `CNI_NETNS`.
    ///
    /// # Errors
    /// The path leads nowhere, to something else, or to the node's own namespace.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::Netns { netns: path.to_owned(), source };
        let netns = NetNs::open(path).map_err(unusable)?;
        let own = NetNs::current().map_err(|source| observe("the node's namespace", source))?;
        if netns.is_same_as(&own) {
            return Err(Error::NetnsIsHost { netns: path.to_owned() });
        }
        let in_pod = |source| Error::Netlink { place: "the pod's namespace", source };
        let rtnl = netns.run(Rtnl::open).map_err(in_pod)?.map_err(in_pod)?;
        Ok(Self { netns, rtnl })
    }
}

impl Pod {
    /// Deletes the pod's end of the attachment's pair, and with it the other, wherever that is. An interface is another
    /// plugin's if it has none of these marks: the attachment as its ifalias, the hardware address that the attachment's is
    /// made with or was told, an address that the attachment was given, the other end as a neighbour.
    ///
    /// # Errors
    /// [`Error::Observe`], [`Error::Step`].
    pub fn delete_link(&self, ifname: &str, names: &Names, told: &Told) -> Result<(), Error> {
        let unreadable = |source| observe(ifname, source);
        let link = self.rtnl.link(ifname).map_err(unreadable)?;
        let Some(link) = link.filter(|link| link.kind.as_deref() == Some("veth")) else { return Ok(()) };
        let has_mac = link.mac == Some(names.pod_mac) || link.mac.is_some() && link.mac == told.mac;
        let is_marked = link.alias.as_ref() == Some(&names.owner);
        if !is_marked && told.others.iter().any(|other| other.leads_to(&link, told.netns_id)) {
            return Ok(());
        }
        let is_ours = is_marked || has_mac || {
            let addresses = self.rtnl.addresses(link.index).map_err(unreadable)?;
            let neighbours = self.rtnl.neighbours(link.index).map_err(unreadable)?;
            addresses.iter().any(|address| told.addresses.contains(&address.network.ip()))
                || neighbours.iter().any(|entry| entry.mac == Some(names.host_mac))
        };
        if !is_ours {
            return Ok(());
        }
        self.rtnl.delete_link(link.index).map(drop).map_err(|source| deletion(&link, source))
    }
}

/// Both ends, for whoever carries out or looks at steps of either.
pub struct Ends<'a> {
    /// The node.
    pub node: &'a Node,
    /// The pod.
    pub pod: &'a Pod,
}

impl Ends<'_> {
    /// The socket of one side.
    #[must_use]
    pub fn rtnl(&self, place: Place) -> &Rtnl {
        match place {
            Place::Host => &self.node.rtnl,
            Place::Pod => &self.pod.rtnl,
        }
    }

    /// A link that must be there.
    ///
    /// # Errors
    /// [`Error::LinkVanished`].
    pub fn link(&self, place: Place, name: &str) -> Result<Link, Error> {
        let found = self.rtnl(place).link(name).map_err(|source| observe(name, source))?;
        found.ok_or_else(|| Error::LinkVanished { link: name.to_owned() })
    }
}

/// An [`Error::Observe`].
pub(crate) fn observe(what: &str, source: kernel::Error) -> Error {
    Error::Observe { what: what.to_owned(), source }
}
