//! Sets and maps, and their elements.

use std::fmt::{self, Display, Formatter};

use crate::value::{Family, Text, Type, Value, concatenation};

/// A named set, or a map when it has data types.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name within the table.
    pub name: String,
    /// The types of the fields of a key.
    pub key: Vec<Type>,
    /// The types of the fields an element maps to; empty for a set.
    pub data: Vec<Type>,
    /// What it holds. A table keeps elements sorted by key.
    pub elements: Vec<Element>,
    /// Properties this crate has no words for, described: only found in what a kernel holds, never in a checked table.
    pub unknown: Vec<String>,
}

impl Set {
    /// An empty set.
    pub fn new(name: impl Into<String>, key: impl Into<Vec<Type>>) -> Self {
        Self::map(name, key, [])
    }

    /// An empty map.
    pub fn map(name: impl Into<String>, key: impl Into<Vec<Type>>, data: impl Into<Vec<Type>>) -> Self {
        Self { name: name.into(), key: key.into(), data: data.into(), elements: Vec::new(), unknown: Vec::new() }
    }

    /// The set with one more element.
    #[must_use]
    pub fn with_element(mut self, element: Element) -> Self {
        self.elements.push(element);
        self
    }

    /// The set with more elements.
    #[must_use]
    pub fn with_elements(mut self, elements: impl IntoIterator<Item = Element>) -> Self {
        self.elements.extend(elements);
        self
    }

    /// Whether elements map to data.
    #[must_use]
    pub fn is_map(&self) -> bool {
        !self.data.is_empty()
    }

    /// How many elements `nft list` puts on a line.
    fn per_line(&self, family: Family) -> usize {
        match (self.key.as_slice(), family) {
            ([Type::InetProto | Type::InetService], _) => 5,
            ([Type::Addr], Family::Ip) => 2,
            _ => 1,
        }
    }

    /// The set's block in a table of `family`, indented by one tab as `nft list` does.
    pub fn in_family(&self, family: Family) -> impl Display + '_ {
        Text(move |f: &mut Formatter<'_>| {
            let word = if self.is_map() { "map" } else { "set" };
            writeln!(f, "\t{word} {} {{", self.name)?;
            f.write_str("\t\ttype ")?;
            concatenation(f, self.key.iter().map(|part| part.in_family(family)))?;
            if self.is_map() {
                f.write_str(" : ")?;
                concatenation(f, self.data.iter().map(|part| part.in_family(family)))?;
            }
            f.write_str("\n")?;
            self.unknown.iter().try_for_each(|what| writeln!(f, "\t\tunknown({what})"))?;
            if !self.elements.is_empty() {
                f.write_str("\t\telements = ")?;
                braces(f, &self.elements, self.per_line(family))?;
                f.write_str("\n")?;
            }
            f.write_str("\t}\n")
        })
    }
}

/// `{ a, b }`, broken into lines as `nft list` does it.
fn braces(f: &mut Formatter<'_>, elements: &[Element], per_line: usize) -> fmt::Result {
    f.write_str("{ ")?;
    for (index, element) in elements.iter().enumerate() {
        match index {
            0 => {}
            _ if index % per_line == 0 => f.write_str(",\n\t\t\t     ")?,
            _ => f.write_str(", ")?,
        }
        write!(f, "{element}")?;
    }
    f.write_str(" }")
}

/// One element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element {
    /// The fields of its key.
    pub key: Vec<Value>,
    /// The fields it maps to; empty in a set.
    pub data: Vec<Value>,
    /// A comment, as `comment "..."` in nft(8).
    pub comment: Option<String>,
}

impl Element {
    /// An element of a set.
    pub fn new(key: impl Into<Vec<Value>>) -> Self {
        Self::map(key, [])
    }

    /// An element of a map.
    pub fn map(key: impl Into<Vec<Value>>, data: impl Into<Vec<Value>>) -> Self {
        Self { key: key.into(), data: data.into(), comment: None }
    }

    /// The element with a comment.
    #[must_use]
    pub fn with_comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}

impl Display for Element {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        concatenation(f, &self.key)?;
        if let Some(comment) = &self.comment {
            write!(f, " comment \"{comment}\"")?;
        }
        if !self.data.is_empty() {
            f.write_str(" : ")?;
            concatenation(f, &self.data)?;
        }
        Ok(())
    }
}
