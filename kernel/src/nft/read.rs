//! Reading what the kernel holds.

use std::collections::BTreeSet;

use netlink_packet_netfilter::nftables::{
    ChainMessage, GenAttribute, GenMessage, NfTablesMessage, RuleAttribute, RuleMessage, SetAttribute, SetElementList,
    SetElementMessage, SetMessage, TableAttribute, TableMessage,
};
use nft_model::{Base, Chain, Element, Family, Hook, Policy, Set, Table, Value};

use super::message::Content;
use super::{Generation, Nft, decode, encode};
use crate::Error;

/// How often a table that others' changes cut through is read again.
const READ_ATTEMPTS: u32 = 1000;

/// A table without what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its comment.
    pub comment: Option<String>,
}

impl Nft {
    /// The state of the whole rule set, to commit only if it is still the same.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn generation(&mut self) -> Result<Generation, Error> {
        const WHAT: &str = "the generation";
        let request = NfTablesMessage::GetGen(GenMessage { attributes: vec![] });
        let id = match self.socket.get(WHAT, None, request)? {
            Some(Content::Message(NfTablesMessage::NewGen(GenMessage { attributes }))) => {
                attributes.iter().find_map(|attribute| match attribute {
                    GenAttribute::Id(id) => Some(Generation(*id)),
                    _ => None,
                })
            }
            _ => None,
        };
        id.ok_or_else(|| Error::NftSilent { what: WHAT.to_owned() })
    }

    /// Whether there is a table of that name, and its comment. The cheapest question there is.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn table(&mut self, family: Family, name: &str) -> Result<Option<TableInfo>, Error> {
        Ok(self.head(family, name)?.map(|head| TableInfo { name: head.name, comment: head.comment }))
    }

    /// All tables of a family, whoever made them.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn tables(&mut self, family: Family) -> Result<Vec<TableInfo>, Error> {
        let request = || NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
        let contents = self.socket.dump("tables", family, request)?;
        let heads = contents.into_iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewTable(message)) => Some(decode::table(&message.attributes)),
            _ => None,
        });
        Ok(heads.map(|head| TableInfo { name: head.name, comment: head.comment }).collect())
    }

    /// A whole table as it is now: sets with all elements, chains with all rules. `None` if there is none of that name.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell, [`Error::NftUnsettled`] when others change the rule set
    /// all the time.
    pub fn read_table(&mut self, family: Family, name: &str) -> Result<Option<Table>, Error> {
        self.read_settled(family, name, true)
    }

    /// Like [`Nft::read_table`], but without the elements of its sets: what [`Table::without_elements`] can be compared
    /// with, in a time that does not depend on how many there are.
    ///
    /// # Errors
    ///
    /// Those of [`Nft::read_table`].
    pub fn read_frame(&mut self, family: Family, name: &str) -> Result<Option<Table>, Error> {
        self.read_settled(family, name, false)
    }

    fn read_settled(&mut self, family: Family, name: &str, elements: bool) -> Result<Option<Table>, Error> {
        for _ in 0..READ_ATTEMPTS {
            let before = self.generation()?;
            let table = self.read_parts(family, name, elements);
            if self.generation()? == before {
                return table;
            }
        }
        Err(Error::NftUnsettled { what: format!("table {family} {name}") })
    }

    /// The element with this key, if the set or map holds it; `None` as well if there is no such set or table.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell, as it does for a key of another length.
    pub fn element(&mut self, family: Family, table: &str, set: &str, key: &[Value]) -> Result<Option<Element>, Error> {
        let what = format!("element {family} {table} {set} {{ {} }}", Element::new(key));
        let Some(definition) = self.set_frame(family, table, set)? else { return Ok(None) };
        let attributes = [place(table, set), vec![SetElementList::Elements(vec![encode::key(key)])]].concat();
        let request = NfTablesMessage::GetSetElement(SetElementMessage { attributes });
        match self.socket.get(&what, Some(family), request)? {
            Some(Content::Elements(elements)) => {
                Ok(elements.first().map(|element| decode::element(family, &definition, element)))
            }
            _ => Ok(None),
        }
    }

    /// All elements of a set or map, sorted by key.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell; its source is
    /// [`Refusal::NotFound`](super::Refusal::NotFound) if there is no such set.
    pub fn elements(&mut self, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let what = set_name(family, table, set);
        let definition = self.set_frame(family, table, set)?;
        let definition = definition.ok_or_else(|| not_found(&what))?;
        let mut elements = self.elements_of(family, table, &definition)?;
        elements.sort();
        Ok(elements)
    }

    /// Whether a set or map holds anything, without reading all of it.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell; its source is
    /// [`Refusal::NotFound`](super::Refusal::NotFound) if there is no such set.
    pub fn has_elements(&mut self, family: Family, table: &str, set: &str) -> Result<bool, Error> {
        let what = set_name(family, table, set);
        let request = get_elements(table, set);
        self.socket.dump_has(
            &what,
            family,
            request,
            |content| matches!(content, Content::Elements(elements) if !elements.is_empty()),
        )
    }

    /// Whether `wanted` says yes to an element of a set or map; reads no more of it than it has to. `false` is what one dump says,
    /// which can lack elements while others' changes are under way; [`Nft::elements`] asks again.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell; its source is
    /// [`Refusal::NotFound`](super::Refusal::NotFound) if there is no such set.
    pub fn has_element(
        &mut self,
        family: Family,
        table: &str,
        set: &str,
        wanted: &dyn Fn(&Element) -> bool,
    ) -> Result<bool, Error> {
        let what = set_name(family, table, set);
        let definition = self.set_frame(family, table, set)?.ok_or_else(|| not_found(&what))?;
        let is_wanted = |attributes: &Vec<_>| wanted(&decode::element(family, &definition, attributes));
        self.socket.dump_has(
            &what,
            family,
            get_elements(table, set),
            |content| matches!(content, Content::Elements(elements) if elements.iter().any(is_wanted)),
        )
    }

    /// The names of the chains of a table that have rules. Nothing if there is no such table.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn filled_chains(&mut self, family: Family, table: &str) -> Result<BTreeSet<String>, Error> {
        let attributes = || vec![RuleAttribute::Table(table.to_owned())];
        let request = || NfTablesMessage::GetRule(RuleMessage { attributes: attributes() });
        let contents = self.socket.dump(&format!("the rules of table {family} {table}"), family, request)?;
        let chains = contents.iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewRule(message)) => decode::rule_place(table, &message.attributes),
            _ => None,
        });
        Ok(chains.collect())
    }

    /// Base chains at a hook that drop what no rule of theirs accepts, as table and chain, whoever made them.
    ///
    /// # Errors
    ///
    /// [`Error::NftRead`] when the kernel refuses to tell.
    pub fn dropping_chains(&mut self, family: Family, hook: Hook) -> Result<Vec<(String, String)>, Error> {
        let request = || NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
        let contents = self.socket.dump("the base chains", family, request)?;
        let chains = contents.into_iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewChain(message)) => decode::any_chain(&message.attributes),
            _ => None,
        });
        let drops = |base: &Base| base.hook == hook && base.policy == Policy::Drop;
        Ok(chains
            .filter(|(_, chain)| chain.base.as_ref().is_some_and(drops))
            .map(|(table, chain)| (table, chain.name))
            .collect())
    }

    pub(super) fn has_set(&mut self, family: Family, table: &str, set: &str) -> Result<bool, Error> {
        Ok(self.set_frame(family, table, set)?.is_some())
    }

    fn head(&mut self, family: Family, name: &str) -> Result<Option<decode::TableHead>, Error> {
        let what = format!("table {family} {name}");
        let request =
            NfTablesMessage::GetTable(TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] });
        match self.socket.get(&what, Some(family), request)? {
            Some(Content::Message(NfTablesMessage::NewTable(message))) => Ok(Some(decode::table(&message.attributes))),
            _ => Ok(None),
        }
    }

    /// A set without its elements.
    fn set_frame(&mut self, family: Family, table: &str, set: &str) -> Result<Option<Set>, Error> {
        let attributes = vec![SetAttribute::Table(table.to_owned()), SetAttribute::Name(set.to_owned())];
        let request = NfTablesMessage::GetSet(SetMessage { attributes });
        match self.socket.get(&set_name(family, table, set), Some(family), request)? {
            Some(Content::Message(NfTablesMessage::NewSet(message))) => {
                Ok(decode::set(family, table, &message.attributes))
            }
            _ => Ok(None),
        }
    }

    fn elements_of(&mut self, family: Family, table: &str, set: &Set) -> Result<Vec<Element>, Error> {
        let what = set_name(family, table, &set.name);
        let contents = self.socket.dump(&what, family, || get_elements(table, &set.name))?;
        let mut elements = Vec::new();
        for content in &contents {
            if let Content::Elements(part) = content {
                elements.extend(part.iter().map(|element| decode::element(family, set, element)));
            }
        }
        Ok(elements)
    }

    /// A table in several questions; what comes out may be of several generations.
    fn read_parts(&mut self, family: Family, name: &str, elements: bool) -> Result<Option<Table>, Error> {
        let Some(head) = self.head(family, name)? else { return Ok(None) };
        let mut sets = self.sets(family, name)?;
        for set in sets.iter_mut().filter(|_| elements) {
            set.elements = self.elements_of(family, name, set)?;
        }
        let mut chains = self.chains(family, name)?;
        let attributes = || vec![RuleAttribute::Table(name.to_owned())];
        let request = || NfTablesMessage::GetRule(RuleMessage { attributes: attributes() });
        let rules = self.socket.dump(&format!("the rules of table {family} {name}"), family, request)?;
        let rules = rules.into_iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewRule(message)) => decode::rule(family, name, &message.attributes),
            _ => None,
        });
        decode::assign(&mut chains, rules);
        Ok(Some(Table::observed(family, name, head.comment, head.unknown, sets, chains)))
    }

    fn sets(&mut self, family: Family, table: &str) -> Result<Vec<Set>, Error> {
        let attributes = || vec![SetAttribute::Table(table.to_owned())];
        let request = || NfTablesMessage::GetSet(SetMessage { attributes: attributes() });
        let contents = self.socket.dump(&format!("the sets of table {family} {table}"), family, request)?;
        let sets = contents.into_iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewSet(message)) => decode::set(family, table, &message.attributes),
            _ => None,
        });
        Ok(sets.collect())
    }

    fn chains(&mut self, family: Family, table: &str) -> Result<Vec<Chain>, Error> {
        let request = || NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
        let contents = self.socket.dump(&format!("the chains of table {family} {table}"), family, request)?;
        let chains = contents.into_iter().filter_map(|content| match content {
            Content::Message(NfTablesMessage::NewChain(message)) => decode::chain(table, &message.attributes),
            _ => None,
        });
        Ok(chains.collect())
    }
}

fn set_name(family: Family, table: &str, set: &str) -> String {
    format!("set {family} {table} {set}")
}

fn place(table: &str, set: &str) -> Vec<SetElementList> {
    vec![SetElementList::Table(table.to_owned()), SetElementList::Set(set.to_owned())]
}

fn get_elements(table: &str, set: &str) -> NfTablesMessage {
    NfTablesMessage::GetSetElement(SetElementMessage { attributes: place(table, set) })
}

fn not_found(what: &str) -> Error {
    Error::NftRead { what: what.to_owned(), source: super::Refusal::NotFound }
}
