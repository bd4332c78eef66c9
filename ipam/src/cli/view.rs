//! What commands look at: the ledger's contents at one moment, with the reservations beside it.

use std::path::PathBuf;

use jiff::{SignedDuration, Timestamp};

use super::contract::{Cooling, Reserved};
use super::exit::{Exit, Stop};
use super::terminal::Terminal;
use crate::config::COOLDOWN;
use crate::event::Cause;
use crate::operation::{Contents, KnownPool, Rest};
use crate::reservations::{self, Reservation};
use crate::{Error, Ledger, Record};

/// The contents of a ledger and of the files beside it.
pub(super) struct View {
    pub now: Timestamp,
    /// None if there is no ledger, or none of this boot.
    pub contents: Option<Contents>,
    reservations: Result<Vec<Reservation>, Error>,
}

impl View {
    /// Asks the ledger. Where there is none, none is made.
    pub fn of(ledger: &Ledger, purpose: &str) -> Result<Self, Stop> {
        Ok(Self::try_of(ledger, purpose)??)
    }

    /// The same, for those who have something to say about a ledger that cannot be had.
    pub fn try_of(ledger: &Ledger, purpose: &str) -> Result<Result<Self, Error>, Stop> {
        may_look(ledger)?;
        Ok(ledger.contents(purpose).map(|contents| Self::new(ledger, contents)))
    }

    /// The same, after every value of the ledger was read and compared with the others.
    pub fn examined(ledger: &Ledger, purpose: &str) -> Result<Self, Stop> {
        may_look(ledger)?;
        let contents = ledger.examine(Cause::of_this_process(purpose), false)?;
        Ok(Self::new(ledger, contents))
    }

    /// Only the leases, from their copies: that keeps no plugin waiting, and does not wait for one. If the copies
    /// cannot tell, the ledger is asked.
    pub fn without_lock(ledger: &Ledger, purpose: &str) -> Result<Self, Stop> {
        may_look(ledger)?;
        match ledger.leases_in_copies() {
            Some(leases) => Ok(Self::new(ledger, Some(Contents { leases, ..Contents::default() }))),
            None => Self::of(ledger, purpose),
        }
    }

    pub fn new(ledger: &Ledger, contents: Option<Contents>) -> Self {
        let now = Timestamp::now();
        Self { now, contents, reservations: reservations::read(ledger.state_dir(), now) }
    }

    pub fn leases(&self) -> &[Record] {
        self.contents.as_ref().map_or(&[], |contents| &contents.leases)
    }

    /// The pools that ADDs have named in this boot.
    pub fn pools(&self) -> &[KnownPool] {
        self.contents.as_ref().map_or(&[], |contents| &contents.pools)
    }

    /// The reservations that hold now; none if they cannot be read, which [`View::note_problems`] tells.
    pub fn reservations(&self) -> &[Reservation] {
        self.reservations.as_deref().unwrap_or_default()
    }

    pub fn reservations_error(&self) -> Option<&Error> {
        self.reservations.as_ref().err()
    }

    pub fn into_reservations_error(self) -> Option<Error> {
        self.reservations.err()
    }

    pub fn reserved(&self) -> impl Iterator<Item = Reserved> {
        self.reservations().iter().map(Reserved::from)
    }

    /// Addresses that have not rested long enough.
    pub fn cooling(&self) -> impl Iterator<Item = Cooling> {
        let released = self.contents.iter().flat_map(|contents| &contents.released);
        released.filter_map(|rest| self.cooling_of(rest))
    }

    fn cooling_of(&self, rest: &Rest) -> Option<Cooling> {
        let boottime = self.contents.as_ref()?.now_boottime_ms;
        let pools = self.pools().iter().filter(|pool| pool.name == rest.pool);
        let (mut networks, mut cooldown) = (Vec::new(), None);
        for pool in pools {
            networks.push(pool.network.to_string());
            cooldown = cooldown.max(Some(pool.cooldown_ms));
        }
        let cooldown = cooldown.unwrap_or(COOLDOWN);
        let rested = boottime.saturating_sub(rest.released_boottime_ms);
        if rest.released_boottime_ms == 0 || rested >= cooldown {
            return None;
        }
        let milliseconds = |count: u64| SignedDuration::from_millis(i64::try_from(count).unwrap_or(i64::MAX));
        let released = self.now.checked_sub(milliseconds(rested)).ok()?;
        let until = released.checked_add(milliseconds(cooldown)).ok()?;
        Some(Cooling { address: rest.address, pool: rest.pool.clone(), networks, released, until })
    }

    /// Somebody should look at what is damaged, and will hardly find it otherwise.
    pub fn note_problems(&self, ledger: &Ledger, terminal: &mut Terminal<'_>) -> Result<(), Stop> {
        if let Some(last) = last_quarantined(ledger) {
            let text = "note: the ledger was damaged and has been rebuilt; the old one is";
            terminal.note(&format!("{text} {}", last.display()))?;
        }
        if let Some(error) = self.reservations_error() {
            let text = super::exit::with_causes(error);
            terminal.note(&format!("note: {text}; no address is leased until this is mended: ipam repair"))?;
        }
        Ok(())
    }
}

pub(super) fn last_quarantined(ledger: &Ledger) -> Option<PathBuf> {
    ledger.quarantined().ok()?.pop()
}

/// "No ledger" must not be what somebody reads who may not look.
fn may_look(ledger: &Ledger) -> Result<(), Stop> {
    match std::fs::metadata(ledger.dir().join("ledger")) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let text = format!("cannot look into {}: {error}; run it as root", ledger.dir().display());
            Err(Stop::new(Exit::Permission, text))
        }
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Stop::new(Exit::Failed, format!("cannot look into {}: {error}", ledger.dir().display())))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

impl From<&Reservation> for Reserved {
    fn from(reservation: &Reservation) -> Self {
        Self {
            cidr: reservation.cidr.to_string(),
            reason: reservation.reason.clone(),
            owner: reservation.owner.clone(),
            created: reservation.created,
            until: reservation.until,
        }
    }
}
