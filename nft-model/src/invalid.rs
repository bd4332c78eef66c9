//! Why a table or a change is impossible.

use crate::value::Family;

/// Why the kernel or nft(8) would refuse a table or a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// A table, set or chain has a name that nft(8) cannot read.
    #[error("`{0}` cannot be a name in nft(8)")]
    Name(String),
    /// Two sets or two chains have the same name.
    #[error("the name `{0}` is used twice")]
    DuplicateName(String),
    /// A comment is empty, too long, or has characters nft(8) cannot quote.
    #[error("`{0}` cannot be a comment in nft(8)")]
    Comment(String),
    /// A table, set, value or statement is of a kind this crate only reads.
    #[error("`{0}` has properties that can be read, not written")]
    ReadOnly(String),
    /// A set has no key, one of more than five fields, or one longer than the kernel's 64 bytes; or such data.
    #[error("the key or the data of set `{0}` has no fields or too many")]
    Key(String),
    /// An element does not fit the set's types or the table's family.
    #[error("the element `{element}` does not fit set `{set}`")]
    Element {
        /// The element as it prints.
        element: String,
        /// The set's name.
        set: String,
    },
    /// A set has two elements with the same key.
    #[error("the element `{element}` is in set `{set}` twice")]
    DuplicateElement {
        /// The second element as it prints.
        element: String,
        /// The set's name.
        set: String,
    },
    /// An address or network of the other family.
    #[error("`{value}` is no {family} address")]
    Family {
        /// The address or network.
        value: String,
        /// The family of the table.
        family: Family,
    },
    /// A rule or a change refers to a set or map that is not there.
    #[error("there is no set or map `{0}`")]
    NoSet(String),
    /// A rule looks up fields in a set or map of other types.
    #[error("`{statement}` does not fit the types of `{set}`")]
    LookupTypes {
        /// The statement as it prints.
        statement: String,
        /// The set's or map's name.
        set: String,
    },
    /// A rule jumps to a chain that is not there, or to a base chain.
    #[error("there is no chain `{0}` to jump to")]
    NoChain(String),
    /// Chains jump in a circle.
    #[error("chain `{0}` can jump to itself")]
    Loop(String),
    /// A base chain that cannot be: a nat chain in the forward hook, or before connection tracking.
    #[error("there can be no chain of `{0}`")]
    Base(String),
    /// An address is translated where it cannot be.
    #[error("`{statement}` cannot be reached from base chain `{base}`")]
    Hook {
        /// The statement as it prints.
        statement: String,
        /// The base chain it is reached from.
        base: String,
    },
    /// A rule is empty, or goes on after a statement nothing can follow.
    #[error("the rule `{0}` is empty, or goes on after its end")]
    Rule(String),
    /// An interface name Linux cannot have.
    #[error("`{0}` cannot be an interface's name")]
    Interface(String),
    /// A mark without bits.
    #[error("a mark needs at least one bit")]
    NoBits,
}
