//! A JSON value that knows where it stands, so that every complaint can name key and value.

use serde_json::Value;

/// How much of a refused value a message shows, in characters.
const SHOWN: usize = 200;

/// A value that is not what its key asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}{value} {reason}", value = if value.is_empty() { String::new() } else { format!("={value}") })]
pub struct Malformed {
    /// Where it stands: `ips[0].address`.
    pub path: String,
    /// The value as JSON text, cut if it is long; empty if there is none.
    pub value: String,
    /// What is wrong with it.
    pub reason: String,
}

/// A value of a document and the path to it. `null` counts as absent throughout: runtimes written in Go
/// send it for empty lists and objects.
#[derive(Debug, Clone)]
pub(crate) struct Located<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Located<'a> {
    /// A value under a path; the path of a whole document is empty.
    pub(crate) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self { path: path.into(), value }
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The complaint about this value.
    pub(crate) fn malformed(&self, reason: impl Into<String>) -> Malformed {
        let path = if self.path.is_empty() { "the document" } else { &self.path };
        Malformed { path: path.to_owned(), value: shown(self.value), reason: reason.into() }
    }

    /// The complaint that a key of this object is missing.
    pub(crate) fn missing(&self, key: &str) -> Malformed {
        Malformed { path: self.path_of(key), value: String::new(), reason: "is missing".to_owned() }
    }

    /// This value, if it is an object.
    pub(crate) fn object(self) -> Result<Self, Malformed> {
        if self.value.is_object() { Ok(self) } else { Err(self.malformed("is not an object")) }
    }

    /// The value of a key, unless it is missing or null.
    pub(crate) fn key(&self, key: &str) -> Option<Self> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        Some(Self { path: self.path_of(key), value })
    }

    /// The same without regard to case; of several spellings the last in the object's order. The path
    /// shows the key as asked for.
    pub(crate) fn key_in_any_case(&self, key: &str) -> Option<Self> {
        let entries = self.value.as_object()?;
        let (_, value) = entries.iter().rfind(|(spelling, _)| spelling.eq_ignore_ascii_case(key))?;
        if value.is_null() { None } else { Some(Self { path: self.path_of(key), value }) }
    }

    /// The elements of a list.
    pub(crate) fn items(&self) -> Result<Vec<Self>, Malformed> {
        let list = self.value.as_array().ok_or_else(|| self.malformed("is not a list"))?;
        let item = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
        Ok(list.iter().enumerate().map(item).collect())
    }

    /// A text.
    pub(crate) fn text(&self) -> Result<&'a str, Malformed> {
        self.value.as_str().ok_or_else(|| self.malformed("is not a string"))
    }

    /// A list of texts.
    pub(crate) fn texts(&self) -> Result<Vec<String>, Malformed> {
        self.items()?.iter().map(|item| item.text().map(str::to_owned)).collect()
    }

    /// A whole number that fits `T`.
    pub(crate) fn integer<T: TryFrom<i64>>(&self) -> Result<T, Malformed> {
        let number = self.value.as_i64().ok_or_else(|| self.malformed("is not a whole number"))?;
        T::try_from(number).map_err(|_| self.malformed("is out of range"))
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// A value as JSON text, cut after [`SHOWN`] characters.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
