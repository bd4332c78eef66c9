//! Mappings of the reference portmap, as its rules tell them. Nothing here does any I/O.

use std::net::{IpAddr, SocketAddr};

use kernel::nft::DnatRule;
use nft_model::{Family, Proto};

use crate::forward::Forward;

/// The chain whose rules lead to those of containers.
pub const TOP: &str = "CNI-HOSTPORT-DNAT";
/// Every chain that it makes but those of containers; the last of older versions.
const CHAINS: [&str; 4] = [TOP, "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ", "CNI-HOSTPORT-SNAT"];
/// What chains of containers begin with; the second of older versions.
const OF_CONTAINERS: [&str; 2] = ["CNI-DN-", "CNI-SN-"];

/// A mapping that the reference plugin made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What it does.
    pub forward: Forward,
    /// The network's name; its nftables rules do not tell.
    pub network: Option<String>,
    /// The container id.
    pub container_id: String,
    /// `snat`: whether the pod reaches itself by it.
    pub snat: bool,
    /// `masqAll`: whether all its clients are masqueraded.
    pub masq_all: bool,
    /// The rule, if packets must meet more than the port (`conditionsV4`, `conditionsV6`).
    pub limited: Option<String>,
}

impl Found {
    /// Whether it is of the same attachment, as far as rules tell.
    #[must_use]
    pub fn is_of(&self, network: Option<&str>, container_id: &str) -> bool {
        self.network.as_deref() == network && self.container_id == container_id
    }
}

/// The mappings in what `iptables -t nat -S` prints.
#[must_use]
pub fn in_iptables(family: Family, listing: &[String]) -> Vec<Found> {
    let rules: Vec<Rule> = listing.iter().filter_map(|line| Rule::read(line)).collect();
    let mut found = Vec::new();
    for top in rules.iter().filter(|rule| rule.chain == TOP) {
        let (Some(chain), Some((network, container_id))) = (top.value("-j"), top.value("--comment").and_then(owner))
        else {
            continue;
        };
        let in_chain = || rules.iter().filter(|rule| rule.chain == chain);
        for rule in in_chain() {
            let Some(forward) = rule.forward(family) else { continue };
            // Beside what translates, a rule marks what is to be masqueraded, of some sources or of all.
            let port = rule.value("--dport");
            let marks = || in_chain().filter(|mark| mark.value("-j") != Some("DNAT") && mark.value("--dport") == port);
            let one = Found {
                forward,
                network: Some(network.clone()),
                container_id: container_id.clone(),
                snat: marks().next().is_some(),
                masq_all: marks().any(|mark| mark.value("-s").is_none()),
                limited: top.is_limited().then(|| top.text.clone()),
            };
            // Each protocol has a rule of its own that leads to the same chain.
            if !found.contains(&one) {
                found.push(one);
            }
        }
    }
    found
}

/// What the chains of table `cni_hostport` have besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// The chain that asks packets for more than the port, if there is one: it is so for all mappings of the table.
    pub limited: Option<String>,
    /// The container ids whose pods are masqueraded to themselves.
    pub masqueraded: Vec<String>,
    /// Those of them all of whose clients are (`masqAll`).
    pub from_everywhere: Vec<String>,
}

/// The mappings in rules of table `cni_hostport`, whose comments are container ids.
#[must_use]
pub fn in_nftables(family: Family, rules: Vec<DnatRule>, beside: &Beside) -> Vec<Found> {
    let found = rules.into_iter().filter_map(|rule| {
        let DnatRule { comment, daddr, protocol, port, to } = rule;
        let forward = Forward { host_ip: daddr, family, protocol, host_port: port, pod: to };
        let container_id = comment?;
        let snat = beside.masqueraded.contains(&container_id);
        let masq_all = beside.from_everywhere.contains(&container_id);
        Some(Found { forward, network: None, container_id, snat, masq_all, limited: beside.limited.clone() })
    });
    found.collect()
}

/// What removes the rules of a network's container that `gone` says yes to, and with the last of them everything that the plugin
/// made, in the words of iptables-restore(8). `None` if there is nothing to do.
#[must_use]
pub fn removal(listing: &[String], gone: &dyn Fn(&str, &str) -> bool) -> Option<String> {
    let rules: Vec<Rule> = listing.iter().filter_map(|line| Rule::read(line)).collect();
    let is_gone =
        |rule: &Rule| rule.value("--comment").and_then(owner).is_some_and(|(network, id)| gone(&network, &id));
    let (top_gone, top_left): (Vec<&Rule>, Vec<&Rule>) =
        rules.iter().filter(|rule| rule.chain == TOP).partition(|rule| is_gone(rule));
    let chains: Vec<&str> = listing.iter().filter_map(|line| line.strip_prefix("-N ")).collect();
    let mut lines: Vec<String> = Vec::new();
    let mut doomed: Vec<&str> = if top_left.is_empty() {
        // What leads into its chains goes first.
        let is_hook = |rule: &&Rule| rule.value("-j").is_some_and(|to| CHAINS.contains(&to)) && !is_own(&rule.chain);
        lines.extend(rules.iter().filter(is_hook).map(Rule::deletion));
        chains.into_iter().filter(|chain| is_own(chain)).collect()
    } else {
        lines.extend(top_gone.iter().map(|rule| rule.deletion()));
        top_gone.iter().filter_map(|rule| rule.value("-j")).collect()
    };
    doomed.sort_unstable();
    doomed.dedup();
    lines.extend(doomed.iter().map(|chain| format!("-F {chain}")));
    lines.extend(doomed.iter().map(|chain| format!("-X {chain}")));
    (!lines.is_empty()).then(|| format!("*nat\n{}\nCOMMIT\n", lines.join("\n")))
}

fn is_own(chain: &str) -> bool {
    CHAINS.contains(&chain) || OF_CONTAINERS.iter().any(|prefix| chain.starts_with(prefix))
}

/// `dnat name: "NETWORK" id: "CONTAINER"`. Longer ones are cut off at 255 bytes, and then there is no telling.
fn owner(comment: &str) -> Option<(String, String)> {
    let rest = comment.strip_prefix("dnat name: \"")?;
    let (network, rest) = rest.split_once("\" id: \"")?;
    Some((network.to_owned(), rest.strip_suffix('"')?.to_owned()))
}

/// A line that adds a rule.
struct Rule {
    chain: String,
    /// As they were printed.
    text: String,
    words: Vec<String>,
}

impl Rule {
    fn read(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("-A ")?;
        let words = words(rest);
        Some(Self { chain: words.first()?.clone(), text: rest.to_owned(), words })
    }

    /// The word after an option.
    fn value(&self, option: &str) -> Option<&str> {
        let at = self.words.iter().position(|word| word == option)?;
        self.words.get(at + 1).map(String::as_str)
    }

    /// Whether a rule that leads to a container's chain has words besides those that the plugin itself writes.
    fn is_limited(&self) -> bool {
        const OWN: [&str; 6] = ["-p", "-m", "--comment", "--dports", "--dport", "-j"];
        self.words.iter().any(|word| (word.starts_with('-') || word == "!") && !OWN.contains(&word.as_str()))
    }

    fn deletion(&self) -> String {
        format!("-D {}", self.text)
    }

    fn forward(&self, family: Family) -> Option<Forward> {
        let pod: SocketAddr = self.value("--to-destination")?.parse().ok()?;
        let protocol = self.value("-p")?;
        let protocol = Proto::by_name(protocol)?;
        let host_ip: Option<IpAddr> =
            self.value("-d").and_then(|network| network.split('/').next()).and_then(|address| address.parse().ok());
        Some(Forward { host_ip, family, protocol, host_port: self.value("--dport")?.parse().ok()?, pod })
    }
}

/// Words, of which some are in quotes, and have quotes of their own behind backslashes.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}
