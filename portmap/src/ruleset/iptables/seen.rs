//! What there is of our rules, told by their comments. Nothing here does any I/O.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nft_model::{Element, Proto, Value};

use super::{EXACT_CHAIN, MASQ_CHAIN, OWNED, STATIC, TOP, WILDCARD_CHAIN};
use crate::ruleset::{EXACT, Entry, HAIRPIN, MASQ_ALL, WILDCARD};

/// The comments of each rule of some chains, in order; without chains that are empty.
pub type Comments = BTreeMap<String, Vec<Vec<String>>>;

/// What there is of one family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// Of [`NAT_CHAINS`](super::NAT_CHAINS).
    pub nat: Comments,
    /// Of [`RAW_CHAINS`](super::RAW_CHAINS); nothing in IPv6.
    pub raw: Comments,
}

/// A rule that somebody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Where it is.
    pub(super) chain: &'static str,
    /// From 1, as `-D` takes it.
    pub(super) number: usize,
    /// Whose it is.
    pub owner: String,
    /// What it does, unless it is one of the rules that stand beside another one.
    pub entry: Option<Entry>,
    /// The conditions it is under.
    pub condition: Option<String>,
}

impl Seen {
    pub(super) fn rules(&self, chain: &str) -> &[Vec<String>] {
        self.nat.get(chain).map_or(&[], Vec::as_slice)
    }

    /// Whether anything of ours is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let ours = |comments: &Vec<String>| comments.iter().any(|comment| comment == STATIC);
        let own = OWNED.iter().chain(&[TOP]).any(|chain| !self.rules(chain).is_empty());
        !own && !self.nat.values().chain(self.raw.values()).flatten().any(ours)
    }

    /// Whether the chain that everything begins with has rules, none of which is ours.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let rules = self.rules(TOP);
        !rules.is_empty() && !rules.iter().any(|comments| is_static(comments))
    }

    /// All rules of attachments.
    #[must_use]
    pub fn owned(&self) -> Vec<Owned> {
        let of_chain = |chain: &'static str| {
            let rules = self.rules(chain).iter().enumerate();
            rules.filter_map(move |(index, comments)| {
                let [owner, text] = comments.as_slice() else { return None };
                let (text, condition) = match text.split_once(" if ") {
                    Some((text, condition)) => (text, Some(condition.to_owned())),
                    None => (text.as_str(), None),
                };
                let entry = entry(chain, text).map(|entry| entry.of(owner));
                Some(Owned { chain, number: index + 1, owner: owner.clone(), entry, condition })
            })
        };
        OWNED.into_iter().flat_map(of_chain).collect()
    }
}

impl Entry {
    fn of(mut self, owner: &str) -> Self {
        self.element.comment = Some(owner.to_owned());
        self
    }
}

pub(super) fn is_static(comments: &[String]) -> bool {
    comments.first().is_some_and(|comment| comment == STATIC)
}

/// The element that a comment says.
fn entry(chain: &str, text: &str) -> Option<Entry> {
    let values = |text: &str| text.split(" . ").map(value).collect::<Option<Vec<Value>>>();
    let (key, data) = match text.split_once(" : ") {
        Some((key, data)) => (values(key)?, values(data)?),
        None => (values(text)?, Vec::new()),
    };
    let set = match (chain, key.as_slice()) {
        (EXACT_CHAIN, [Value::Addr(_), Value::Proto(_), Value::Port(_)]) => EXACT,
        (WILDCARD_CHAIN, [Value::Proto(_), Value::Port(_)]) => WILDCARD,
        (MASQ_CHAIN, [Value::Addr(_), Value::Addr(_)]) => HAIRPIN,
        (MASQ_CHAIN, [Value::Addr(_), Value::Proto(_), Value::Port(_)]) => MASQ_ALL,
        _ => return None,
    };
    Some(Entry { set, element: Element::map(key, data) })
}

fn value(text: &str) -> Option<Value> {
    let port = || text.parse().ok().map(Value::Port);
    let address = || text.parse::<IpAddr>().ok().map(Value::Addr);
    Proto::by_name(text).map(Value::Proto).or_else(port).or_else(address)
}
