//! The open database: what is done around every operation, whether the database was opened for it alone or is held
//! open by the resident owner.

use std::cell::RefCell;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::copies::{Copies, Noted};
use super::{Ledger, ballast, quarantine, rebuild, spool};
use crate::clock::{self, Moment};
use crate::event::{Cause, Event, EventKind};
use crate::liveness::Census;
use crate::operation::{Answer, Operation, Request};
use crate::record::Record;
use crate::sticky::{self, Sticky};
use crate::store::{Change, Damage, Ended, Store, StoreError, sheltered};
use crate::{Error, Namespaces, history, service};

/// The open database, and the moment.
pub(crate) struct Session<'a> {
    pub store: &'a Store,
    pub now: Moment,
    pub boot_id: &'a str,
    /// Where that is which outlives a boot.
    pub state_dir: &'a Path,
    by: &'a Cause,
    from: Namespaces,
    copies: &'a Copies,
    events: RefCell<Vec<Event>>,
    sticky: RefCell<Vec<Sticky>>,
}

impl Session<'_> {
    /// Who is alive, as the asker sees it.
    pub fn census(&self) -> Census {
        Census::on_behalf_of(self.from, self.by.pid)
    }

    /// Carries a change out, after noting which leases it is about. `why` is said of those that end.
    pub fn commit(&self, change: &Change, why: EventKind) -> Result<(), Failure> {
        self.copies.note(change, &Noted { at: self.now.wall, why, by: self.by.clone() })?;
        self.store.commit(change)?;
        let ended = change.ended.iter().map(|ended| (why, &ended.record));
        let begun = change.begun.iter().map(|record| (EventKind::of_begun(record), record));
        let event = |(event, lease): (EventKind, &Record)| Event {
            at: self.now.wall,
            event,
            lease: lease.clone(),
            by: self.by.clone(),
        };
        self.events.borrow_mut().extend(ended.chain(begun).map(event));
        self.sticky.borrow_mut().extend(change.sticky.iter().cloned());
        Ok(())
    }
}

/// Whether a call that cannot keep the leases' copies must fail for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Yes: it leases.
    Copies,
    /// No: it only ends leases, or looks, and the next one that leases sees to the copies.
    Later,
}

/// Why a visit came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The database is to blame.
    Store(StoreError),
    /// The request is, or the machine.
    Refusal(Box<Error>),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refusal(Box::new(error))
    }
}

/// How much an operation may do to the ledger around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// A ledger is made where there is none, and mended if it is damaged. Leases may end that were read off the kernel and
    /// are not to be seen there any more.
    Serve,
    /// The same, but where there is not even a folder for a ledger, there is nothing to do, and none is made.
    Tend,
    /// The same, and the kernel is not looked at: a person may ask from another network namespace than the node's.
    Amend,
    /// Nothing is made, mended or changed.
    Look,
}

impl Operation {
    pub(super) fn manner(&self) -> Manner {
        match self {
            Self::Lease(_) | Self::Check { .. } => Manner::Serve,
            Self::Release(_) | Self::Gc { .. } | Self::Status(_) => Manner::Tend,
            Self::End { .. } | Self::Replace { .. } | Self::Examine { mend: true } => Manner::Amend,
            Self::Look | Self::Examine { mend: false } => Manner::Look,
        }
    }

    /// Whether it ends leases, and no leases begin with it.
    fn makes_space(&self) -> bool {
        matches!(self, Self::Release(_) | Self::End { .. } | Self::Gc { .. })
    }

    fn care(&self) -> Care {
        match self {
            Self::Lease(_) | Self::Check { .. } | Self::Replace { .. } => Care::Copies,
            Self::Release(_)
            | Self::Gc { .. }
            | Self::Status(_)
            | Self::End { .. }
            | Self::Look
            | Self::Examine { .. } => Care::Later,
        }
    }
}

/// A database that is open. The holder has the ledger's lock.
#[derive(Debug)]
pub(super) struct Opened {
    store: Store,
    copies: Copies,
    boot_id: String,
}

/// What becomes of the database after an operation.
#[derive(Debug)]
pub(super) enum Slot {
    /// It is closed again.
    Once,
    /// It stays open, if it is sound.
    Kept(Option<Opened>),
}

#[cfg(test)]
impl Slot {
    /// The database, if it is open.
    pub fn store(&self) -> Option<&Store> {
        match self {
            Self::Kept(Some(opened)) => Some(&opened.store),
            Self::Kept(None) | Self::Once => None,
        }
    }
}

impl Ledger {
    /// Carries a request out. The database is opened if it is not open, made if there is none, and mended if it is
    /// damaged. The caller holds the lock.
    pub(super) fn visit(&self, slot: &mut Slot, request: &Request) -> Result<Answer, Error> {
        if request.operation.manner() == Manner::Look {
            return self.look_into(slot, request);
        }
        let mut result = self.try_to_visit(slot, request);
        if result.as_ref().is_err_and(ballast::would_help)
            && request.operation.makes_space()
            && ballast::give_up(&self.dir)
        {
            result = self.try_to_visit(slot, request);
        }
        result
    }

    fn try_to_visit(&self, slot: &mut Slot, request: &Request) -> Result<Answer, Error> {
        let boot_id = clock::boot_id()?;
        let mut attempt = || {
            sheltered(|| {
                let open = if let Slot::Kept(kept) = slot { kept.take() } else { None };
                let opened = match open {
                    Some(opened) => opened,
                    None => self.open_or_create(&boot_id, &request.by)?,
                };
                let answer = opened.carry_out(self, request);
                if let Slot::Kept(kept) = slot
                    && !matches!(answer, Err(Failure::Store(_)))
                {
                    *kept = Some(opened);
                }
                answer
            })
        };
        let mut result = attempt();
        if is_panic(&result) {
            result = attempt();
        }
        if let Err(Failure::Store(StoreError::Damaged(damage))) = &result {
            quarantine::put_aside(&self.dir, &self.database(), damage)?;
            result = attempt();
        }
        result.map_err(|failure| self.blame(failure))
    }

    /// Answers from the database that is open, if one is and it is sound, and otherwise from the one on the disk, as if
    /// nobody had it open: looking makes and mends nothing, whoever looks.
    fn look_into(&self, slot: &mut Slot, request: &Request) -> Result<Answer, Error> {
        if let Slot::Kept(kept) = slot
            && let Some(opened) = kept.take()
        {
            match sheltered(|| Ok((opened.look(self, request)?, opened))) {
                Ok((answer, opened)) => {
                    *kept = Some(opened);
                    return Ok(answer);
                }
                Err(Failure::Refusal(error)) => return Err(*error),
                // Closed, and opened anew: the engine panics for want of memory, too.
                Err(Failure::Store(_)) => {}
            }
        }
        self.look(request)
    }

    /// Answers from the database as it is: none if there is no ledger. The caller holds the lock.
    pub(super) fn look(&self, request: &Request) -> Result<Answer, Error> {
        if !self.database().is_dir() {
            return Ok(Answer::NoLedger);
        }
        let boot_id = clock::boot_id()?;
        let attempt = || {
            sheltered(|| {
                let store = Store::open(&self.database())?;
                if !store.is_of_boot(&boot_id)? {
                    return Ok(Answer::NoLedger);
                }
                let copies = Copies::in_folder(&self.dir);
                is_up_to_date(&store, &copies)?;
                Opened { store, copies, boot_id: boot_id.clone() }.look(self, request)
            })
        };
        let mut result = attempt();
        if is_panic(&result) {
            result = attempt();
        }
        result.map_err(|failure| self.blame(failure))
    }

    /// Whether there is a database is only known under the lock: somebody may be making it, or have just put a
    /// damaged one aside.
    fn open_or_create(&self, boot_id: &str, by: &Cause) -> Result<Opened, Failure> {
        if !self.database().is_dir() {
            self.create(boot_id, by)?;
        }
        let copies = Copies::in_folder(&self.dir);
        let store = Store::open(&self.database())?;
        if !store.is_of_boot(boot_id)? {
            copies.void();
            let voided = store.leases().collect::<Result<Vec<_>, _>>()?;
            let at = Moment::now()?.wall;
            let event = |lease| Event { at, event: EventKind::Voided, lease, by: by.clone() };
            self.tell(&voided.into_iter().map(event).collect::<Vec<_>>());
            store.begin_boot(boot_id)?;
        }
        is_up_to_date(&store, &copies)?;
        Ok(Opened { store, copies, boot_id: boot_id.to_owned() })
    }

    /// A new ledger starts with what copies and kernel say is in use, so that nobody's address is given again when
    /// a ledger was damaged, or removed by hand. It is made beside its place and moved there whole.
    fn create(&self, boot_id: &str, by: &Cause) -> Result<(), Failure> {
        let building = self.dir.join("ledger.new");
        let failed = |source| Error::Folder { path: building.clone(), source };
        match fs::remove_dir_all(&building) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            Ok(()) | Err(_) => make_folder(&building).map_err(failed)?,
        }
        let copies = Copies::in_folder(&self.dir);
        let mut recovered = copies.read(boot_id)?;
        let now = Moment::now()?;
        let in_kernel = rebuild::leases_in_kernel(&recovered, now, boot_id)?;
        let event =
            |lease: &Record| Event { at: now.wall, event: EventKind::Recovered, lease: lease.clone(), by: by.clone() };
        let events: Vec<Event> = in_kernel.iter().map(event).collect();
        recovered.extend(in_kernel);
        let store = Store::create(&building, boot_id, copies.generation())?;
        store.commit(&Change {
            begun: recovered,
            sticky: sticky::read(&self.state_dir, now.wall),
            ..Change::default()
        })?;
        store.flush()?;
        drop(store);
        fs::rename(&building, self.database()).map_err(failed)?;
        self.tell(&events);
        Ok(())
    }

    /// The history is for people: that it cannot be written keeps no pod from its address.
    fn tell(&self, events: &[Event]) {
        let _ = history::record(&self.state_dir, events);
    }

    fn blame(&self, failure: Failure) -> Error {
        match failure {
            Failure::Store(source) => Error::Store { dir: self.dir.clone(), source },
            Failure::Refusal(error) => *error,
        }
    }
}

impl Opened {
    fn session<'a>(&'a self, ledger: &'a Ledger, request: &'a Request) -> Result<Session<'a>, Failure> {
        Ok(Session {
            store: &self.store,
            now: Moment::now()?,
            boot_id: &self.boot_id,
            state_dir: &ledger.state_dir,
            by: &request.by,
            from: request.from,
            copies: &self.copies,
            events: RefCell::default(),
            sticky: RefCell::default(),
        })
    }

    fn carry_out(&self, ledger: &Ledger, request: &Request) -> Result<Answer, Failure> {
        let care = request.operation.care();
        let session = self.session(ledger, request)?;
        ledger.tell(&self.copies.unsettled(&self.store)?);
        settle(&self.copies, &self.store, care)?;
        if matches!(request.operation, Operation::Lease(_) | Operation::Status(_)) {
            ballast::lay(&ledger.dir)?;
        }
        let pending = spool::carry_out(&ledger.dir, &session)?;
        rebuild::end_what_is_gone(&session, &request.operation)?;
        let answer = service::carry_out(&session, request);
        if matches!(answer, Err(Failure::Store(_))) || (answer.is_err() && session.events.borrow().is_empty()) {
            return answer;
        }
        // Also of a request that was refused: what it ended before that has ended.
        self.store.flush()?;
        ledger.tell(&session.events.take());
        let _ = sticky::record(&ledger.state_dir, &session.sticky.borrow(), session.now.wall);
        let settled = settle(&self.copies, &self.store, care);
        spool::remove(pending);
        if let (Err(_), Ok(Answer::Leased(record)), Operation::Lease(wish)) = (&settled, &answer, &request.operation)
            && record.lease_id == wish.lease_id
        {
            self.take_back(&session, record)?;
            ledger.tell(&session.events.take());
            return settled.map(|()| Answer::Done);
        }
        let answer = answer?;
        settled.map(|()| answer)
    }

    /// Ends a lease that will not be answered. If not even that is possible, the DEL does it that follows a failed ADD,
    /// in a database that is opened anew.
    fn take_back(&self, session: &Session<'_>, record: &Record) -> Result<(), Failure> {
        let ended = vec![Ended { record: record.clone(), released_at: 0 }];
        let change = Change { ended, ..Change::default() };
        let done = session.commit(&change, EventKind::Undone).and_then(|()| Ok(self.store.flush()?));
        match done.and_then(|()| settle(&self.copies, &self.store, Care::Later)) {
            Err(Failure::Refusal(_)) => Ok(()),
            result => result,
        }
    }

    /// The contents as the next visit will find them: leases whose release is written down but not carried out are
    /// left out, and stay where they are; their attachments count as deleted.
    fn look(&self, ledger: &Ledger, request: &Request) -> Result<Answer, Failure> {
        let session = self.session(ledger, request)?;
        let mut answer = service::carry_out(&session, request)?;
        if let Answer::Contents(contents) = &mut answer {
            let due = spool::due(&ledger.dir, &session)?.change;
            contents.leases.retain(|lease| !due.ended.iter().any(|ended| ended.record.lease_id == lease.lease_id));
            for (attachment, asked) in due.tombstones {
                contents.bury(attachment, asked);
            }
        }
        Ok(answer)
    }
}

fn is_up_to_date(store: &Store, copies: &Copies) -> Result<(), StoreError> {
    let (found, made) = (store.generation()?, copies.generation());
    if found < made { Err(StoreError::Damaged(Damage::Behind { found, made })) } else { Ok(()) }
}

fn settle(copies: &Copies, store: &Store, care: Care) -> Result<(), Failure> {
    match copies.settle(store) {
        Err(Failure::Refusal(_)) if care == Care::Later => Ok(()),
        result => result,
    }
}

/// The engine panics for want of memory or threads, too, and not only over damage.
fn is_panic<T>(result: &Result<T, Failure>) -> bool {
    matches!(result, Err(Failure::Store(StoreError::Damaged(Damage::Panic(_)))))
}

/// Only the owner looks into it: the ledger names every pod.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result,
    }
}
