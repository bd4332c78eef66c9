//! Comparing what should be in the firewall with what is there: content, not counts. Nothing here does any I/O.

use std::collections::BTreeMap;
use std::fmt;

use nft_model::{Base, Chain, Element, Family, Rule, Set, Table, Value};

/// One thing that is not as it should be, in the words of nft(8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What was looked at.
    pub what: String,
    /// What should be there.
    pub expected: String,
    /// What is.
    pub found: String,
    /// Whether it is about what all mappings of a table have in common.
    pub is_shared: bool,
}

impl Difference {
    /// A difference; what is not there is "nothing".
    pub(crate) fn new(what: impl Into<String>, expected: Option<String>, found: Option<String>) -> Self {
        let shown = |side: Option<String>| side.map_or_else(|| "nothing".to_owned(), |text| format!("`{text}`"));
        Self { what: what.into(), expected: shown(expected), found: shown(found), is_shared: false }
    }

    /// The same, about what all mappings have in common.
    pub(crate) fn shared(self) -> Self {
        Self { is_shared: true, ..self }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}, found {}", self.what, self.expected, self.found)
    }
}

/// A table that was read, so arranged that comparing one attachment takes no longer with thousands of others in it.
#[derive(Debug, Clone)]
pub struct Found {
    /// Without elements.
    frame: Table,
    by_key: BTreeMap<(String, Vec<Value>), Element>,
    by_owner: BTreeMap<String, Vec<(String, Element)>>,
}

impl Found {
    /// Arranges it.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let (mut by_key, mut by_owner) = (BTreeMap::new(), BTreeMap::<String, Vec<(String, Element)>>::new());
        for (set, element) in table.sets().iter().flat_map(|set| set.elements.iter().map(|one| (set.name.clone(), one)))
        {
            if let Some(owner) = &element.comment {
                by_owner.entry(owner.clone()).or_default().push((set.clone(), element.clone()));
            }
            by_key.insert((set, element.key.clone()), element.clone());
        }
        Self { frame: table.without_elements(), by_key, by_owner }
    }
}

/// Compares one family's table. `wanted` has the frame and one attachment's elements, and is `None` if the
/// attachment maps nothing in this family; `owner` is the comment of its elements. Other attachments' elements
/// are not looked at.
#[must_use]
pub fn differences(wanted: Option<&Table>, found: Option<&Found>, owner: &str) -> Vec<Difference> {
    let mut all = Vec::new();
    match (wanted, found) {
        (None, None) => {}
        (Some(wanted), None) => {
            let name = format!("table {} {}", wanted.family(), wanted.name());
            all.push(Difference::new(name.clone(), Some(name), None).shared());
        }
        (None, Some(found)) => {
            found.frame.sets().iter().for_each(|set| leftovers(set, None, found, owner, &mut all));
        }
        (Some(wanted), Some(found)) => {
            let mut shared = Vec::new();
            frame(wanted, &found.frame, &mut shared);
            for set in wanted.sets() {
                if found.frame.set(&set.name).is_none() {
                    shared.push(Difference::new(place(wanted, &set.name), Some(definition(wanted, set)), None));
                } else {
                    elements(wanted, set, found, &mut all);
                    leftovers(set, Some(set), found, owner, &mut all);
                }
            }
            all.splice(..0, shared.into_iter().map(Difference::shared));
        }
    }
    all
}

/// The table's own comment, the sets' types, and the chains.
fn frame(wanted: &Table, found: &Table, all: &mut Vec<Difference>) {
    let family = wanted.family();
    if head(wanted) != head(found) {
        all.push(Difference::new(place(wanted, ""), Some(head(wanted)), Some(head(found))));
    }
    for set in wanted.sets() {
        if let Some(there) = found.set(&set.name).filter(|there| definition(wanted, there) != definition(wanted, set)) {
            all.push(Difference::new(
                place(wanted, &set.name),
                Some(definition(wanted, set)),
                Some(definition(wanted, there)),
            ));
        }
    }
    for chain in wanted.chains() {
        let what = format!("{} chain {}", place(wanted, ""), chain.name);
        match found.chain(&chain.name) {
            None => all.push(Difference::new(what, Some(format!("chain {}", chain.name)), None)),
            Some(there) => chains(family, &what, chain, there, all),
        }
    }
    for chain in found.chains().iter().filter(|chain| wanted.chain(&chain.name).is_none()) {
        all.push(Difference::new(place(wanted, ""), None, Some(format!("chain {}", chain.name))));
    }
}

fn chains(family: Family, what: &str, wanted: &Chain, found: &Chain, all: &mut Vec<Difference>) {
    let base = |chain: &Chain| chain.base.as_ref().map(Base::to_string);
    if base(wanted) != base(found) {
        all.push(Difference::new(what, base(wanted), base(found)));
    }
    let text = |rule: Option<&Rule>| rule.map(|rule| rule.in_family(family).to_string());
    for index in 0..wanted.rules.len().max(found.rules.len()) {
        let (expected, there) = (wanted.rules.get(index), found.rules.get(index));
        if expected != there {
            all.push(Difference::new(format!("{what} rule {}", index + 1), text(expected), text(there)));
        }
    }
}

/// The attachment's own elements.
fn elements(table: &Table, wanted: &Set, found: &Found, all: &mut Vec<Difference>) {
    for element in &wanted.elements {
        let there = found.by_key.get(&(wanted.name.clone(), element.key.clone()));
        if there != Some(element) {
            let found = there.map(Element::to_string);
            all.push(Difference::new(place(table, &wanted.name), Some(element.to_string()), found));
        }
    }
}

/// Elements of a set with the attachment's mark that it does not ask for.
fn leftovers(set: &Set, wanted: Option<&Set>, found: &Found, owner: &str, all: &mut Vec<Difference>) {
    let asked_for = |element: &Element| {
        wanted.is_some_and(|wanted| wanted.elements.iter().any(|asked_for| asked_for.key == element.key))
    };
    let own = found.by_owner.get(owner).into_iter().flatten().filter(|(name, _)| *name == set.name);
    for (_, element) in own.filter(|(_, element)| !asked_for(element)) {
        all.push(Difference::new(place(&found.frame, &set.name), None, Some(element.to_string())));
    }
}

/// What a table has besides sets and chains.
fn head(table: &Table) -> String {
    let comment = table.comment().map_or_else(|| "no comment".to_owned(), |comment| format!("comment \"{comment}\""));
    [comment].iter().chain(table.unknown()).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// A set without its elements, on one line.
fn definition(table: &Table, set: &Set) -> String {
    let empty = Set { elements: Vec::new(), ..set.clone() };
    empty.in_family(table.family()).to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `ip podwire-hostport exact`, as nft(8) commands address it.
fn place(table: &Table, name: &str) -> String {
    format!("{} {} {name}", table.family(), table.name()).trim_end().to_owned()
}
