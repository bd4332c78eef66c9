//! Who had an address from when to when, put together from events. Pure.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::event::{Event, EventKind};
use crate::record::Record;

/// A lease and the time for which it stood.
#[derive(Debug, Clone)]
pub(crate) struct Tenancy {
    pub lease: Record,
    pub from: Timestamp,
    /// What it began with; none if the history does not reach back so far.
    pub began: Option<EventKind>,
    pub end: End,
    /// Who asked for the lease, and who for its end.
    pub by: [Option<String>; 2],
}

/// How a tenancy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It stands.
    Stands,
    At(Timestamp, EventKind),
    /// It does not stand any more, and nobody has written down since when.
    Unknown,
}

impl Tenancy {
    /// None if it stands, or if nobody knows.
    pub fn to(&self) -> Option<Timestamp> {
        match self.end {
            End::At(at, _) => Some(at),
            End::Stands | End::Unknown => None,
        }
    }

    /// The pod, or the container where the runtime told no pod.
    pub fn who(&self) -> String {
        let pod = self.lease.pod.to_string();
        if pod.is_empty() { self.lease.attachment.container_id.to_string() } else { pod }
    }

    /// Whether it stood at a moment, as far as is known.
    pub fn stood_at(&self, moment: Timestamp) -> bool {
        self.from <= moment && self.to().is_none_or(|to| moment < to)
    }
}

/// All tenancies, in the order in which they began. `events` are in order of time; `standing` are the leases that
/// stand now.
pub(crate) fn tenancies(events: &[Event], standing: &[Record]) -> Vec<Tenancy> {
    let mut found: Vec<Tenancy> = Vec::new();
    let mut by_lease: HashMap<&str, usize> = HashMap::new();
    for event in events {
        let id = event.lease.lease_id.0.as_str();
        let index = *by_lease.entry(id).or_insert_with(|| {
            found.push(unheard_of(&event.lease));
            found.len() - 1
        });
        let Some(tenancy) = found.get_mut(index) else { continue };
        if event.event.begins() {
            // A lease that was recovered or adopted has begun before, under the same name.
            if tenancy.began.is_none() {
                tenancy.from = event.at;
            }
            tenancy.began.get_or_insert(event.event);
            tenancy.lease = event.lease.clone();
            tenancy.by[0].get_or_insert_with(|| event.by.purpose.clone());
            tenancy.end = End::Unknown;
        } else {
            tenancy.end = End::At(event.at, event.event);
            tenancy.by[1] = Some(event.by.purpose.clone());
        }
    }
    for lease in standing {
        let index = *by_lease.entry(lease.lease_id.0.as_str()).or_insert_with(|| {
            found.push(unheard_of(lease));
            found.len() - 1
        });
        if let Some(tenancy) = found.get_mut(index) {
            tenancy.end = End::Stands;
        }
    }
    found.sort_by_key(|tenancy| tenancy.from);
    found
}

fn unheard_of(lease: &Record) -> Tenancy {
    Tenancy { lease: lease.clone(), from: lease.created, began: None, end: End::Unknown, by: [None, None] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LeaseId;
    use crate::event::Cause;
    use crate::record::{Origin, Pod, RecordedAddress};

    fn lease(id: &str, address: &str) -> Record {
        Record {
            lease_id: LeaseId(id.to_owned()),
            attachment: format!("net {id} eth0").parse().unwrap(),
            addresses: vec![RecordedAddress { address: address.parse().unwrap(), gateway: None, pool: String::new() }],
            netns: None,
            pod: Pod::default(),
            created: at(0),
            created_boottime_ms: 0,
            began_boottime_ms: None,
            boot_id: String::new(),
            origin: Origin::Add,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn event(second: i64, event: EventKind, lease: &Record) -> Event {
        let by = Cause { purpose: "test".to_owned(), pid: 1, uid: 0, reason: None };
        Event { at: at(second), event, lease: lease.clone(), by }
    }

    fn spans(tenancies: &[Tenancy]) -> Vec<String> {
        let second = |moment: Timestamp| moment.as_second() - at(0).as_second();
        let end = |end| match end {
            End::Stands => "now".to_owned(),
            End::At(at, kind) => format!("{} {kind:?}", second(at)),
            End::Unknown => "?".to_owned(),
        };
        tenancies.iter().map(|it| format!("{} {}-{}", it.who(), second(it.from), end(it.end))).collect()
    }

    #[test]
    fn one_address_has_one_tenant_after_the_other() {
        let (a, b, c) = (lease("a", "10.0.0.2/24"), lease("b", "10.0.0.2/24"), lease("c", "10.0.0.2/24"));
        let events = [
            event(10, EventKind::Leased, &a),
            event(20, EventKind::Released, &a),
            event(30, EventKind::Leased, &b),
            event(40, EventKind::Voided, &b),
            event(50, EventKind::Leased, &c),
            // An event may be written twice.
            event(50, EventKind::Leased, &c),
        ];
        let found = tenancies(&events, std::slice::from_ref(&c));
        assert_eq!(spans(&found), ["a 10-20 Released", "b 30-40 Voided", "c 50-now"]);
        let at_35: Vec<String> = found.iter().filter(|it| it.stood_at(at(35))).map(Tenancy::who).collect();
        assert_eq!(at_35, ["b"]);
        assert!(!found.iter().any(|it| it.stood_at(at(20))), "at the moment of its end it has ended");
        assert!(found.iter().any(|it| it.stood_at(at(30))));
    }

    #[test]
    fn what_was_not_written_down_is_not_made_up() {
        let (early, lost, quiet) = (lease("a", "10.0.0.2/24"), lease("b", "10.0.0.3/24"), lease("c", "10.0.0.4/24"));
        let events = [event(20, EventKind::Released, &early), event(30, EventKind::Leased, &lost)];
        let found = tenancies(&events, std::slice::from_ref(&quiet));
        assert_eq!(spans(&found), ["a 0-20 Released", "c 0-now", "b 30-?"]);
    }
}
