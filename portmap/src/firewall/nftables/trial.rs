//! What the kernel's nf_tables takes, tried out without changing anything.

use kernel::nft::Refusal;
use nft_model::{Base, Chain, Change, Element, Family, Table, Value};

use super::{Nftables, Presence, reading};
use crate::error::Error;
use crate::probe;
use crate::ruleset::{self, Realm};

/// The table in which programs of iptables keep their translations.
const IPTABLES_NAT: &str = "nat";

impl Nftables {
    /// Whether the kernel takes our rules. Where a table of ours is there it does; otherwise they are sent in a
    /// transaction whose last step cannot be, so that nothing is changed.
    ///
    /// # Errors
    /// [`Error::MissingPiece`] with what it does not take.
    pub fn probe(&mut self, family: Family) -> Result<(), Error> {
        let realm = Realm::common(family);
        if self.presence(family, &realm.table)? != Presence::Missing {
            return Ok(());
        }
        self.try_out(ruleset::frame(&realm).map_err(Error::RuleSet)?)
    }

    /// Whether the kernel takes what iptables-nft needs of nf_tables itself: a chain that translates.
    ///
    /// # Errors
    /// [`Error::MissingPiece`] if it does not.
    pub fn probe_translation(&mut self, family: Family) -> Result<(), Error> {
        let is_there =
            self.nft.table(family, IPTABLES_NAT).map_err(|source| reading(family, IPTABLES_NAT, "", source))?;
        if is_there.is_some() {
            return Ok(());
        }
        let chain = Chain::base("PREROUTING", Base::dstnat());
        self.try_out(Table::new(family, IPTABLES_NAT, None, vec![], vec![chain]).map_err(Error::RuleSet)?)
    }

    fn try_out(&mut self, table: Table) -> Result<(), Error> {
        const NO_SET: &str = "probe";
        let (family, name, set) = (table.family(), table.name().to_owned(), NO_SET.to_owned());
        let elements = vec![Element::new([Value::Port(1)])];
        let impossible = Change::AddElements { family, table: name, set, elements };
        match self.nft.commit(&[Change::AddTable(table), impossible]) {
            Err(kernel::Error::NftRefused { change, .. }) if change.contains(&format!(" {NO_SET} {{")) => Ok(()),
            // Somebody else was quicker to make it.
            Err(kernel::Error::NftRefused { refusal: Refusal::AlreadyExists, .. }) | Ok(()) => Ok(()),
            Err(source @ kernel::Error::NftRefused { refusal: Refusal::NotFound | Refusal::NotSupported, .. }) => {
                let piece = probe::missing(&source.to_string());
                Err(Error::MissingPiece { piece, source })
            }
            Err(source) => Err(Error::Commit(source)),
        }
    }
}
