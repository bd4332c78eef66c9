//! What nf_tables holds, as values that print as nft(8) text.
//!
//! A [`Table`] is a whole definition: sets, maps, chains and rules. It is checked when it is made, so a table that
//! exists is one the kernel can take; a [`Change`] is one step of a transaction. Both print as nft(8) reads and lists
//! them, so a rule set in a golden file or an error message is in the tool's own language. Nothing here does any I/O:
//! `kernel::nft` sends these values to the kernel and reads the same values back.
//!
//! ```
//! use nft_model::{Base, Chain, Element, Family, Field, Set, Statement, Table, Type, Value, Proto};
//!
//! let ports = Set::map("ports", [Type::InetProto, Type::InetService], [Type::Addr, Type::InetService])
//!     .with_element(Element::map(
//!         [Proto::Tcp.into(), Value::Port(8080)],
//!         [Value::Addr([10, 88, 0, 2].into()), Value::Port(80)],
//!     ));
//! let prerouting = Chain::base("prerouting", Base::dstnat())
//!     .with_rule([Statement::FibDaddrTypeLocal, Statement::dnat_map([Field::L4proto, Field::ThDport], "ports")]);
//! let table = Table::new(Family::Ip, "example", None, vec![ports], vec![prerouting])?;
//! assert!(table.to_string().contains("fib daddr type local dnat ip to meta l4proto . th dport map @ports\n"));
//! # Ok::<(), nft_model::Invalid>(())
//! ```

mod base;
mod chain;
mod change;
mod check;
mod check_rules;
mod field;
mod invalid;
mod name;
mod set;
mod statement;
mod table;
mod value;

pub use base::{Base, Hook, Kind, Policy};
pub use chain::{Chain, Rule};
pub use change::Change;
pub use field::Field;
pub use invalid::Invalid;
pub use name::check_name;
pub use set::{Element, Set};
pub use statement::Statement;
pub use table::Table;
pub use value::{Family, Proto, Type, Value};
