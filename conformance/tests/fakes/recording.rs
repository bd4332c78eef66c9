//! Where a mistake could show: in which cases the faultless plugin came to a place where it would be made.
//!
//! `cni-fake` differs from the faultless plugin only by the answer to "is it to be made here?", and the faultless plugin
//! sends each such question to a socket beside its executable. A case that never asks about a mistake runs the same for the
//! plugin that makes it: it need not be run again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cni_conformance::cases::{self, Case};
use cni_conformance::host::Profile;
use cni_conformance::runner::{self, Row};
use cni_conformance::target::Kind;

use crate::at_once;
use crate::plugin::{options, target};

/// Sent when a case has ended. No mistake is called so.
const END: &[u8] = b"end";

/// Of one kind of plugin.
pub struct Recording {
    /// What came of each case.
    pub rows: Vec<Row>,
    /// The mistakes that could show in each case.
    pub asked: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Recording {
    /// Puts every case to the faultless plugin, and listens.
    pub fn of(kind: Kind, profile: &Profile, folder: &Path) -> Self {
        let all: Vec<_> = cases::all().filter(|case| case.kinds.contains(&kind)).collect();
        let (next, told) = (AtomicUsize::new(0), Mutex::new(Self { rows: Vec::new(), asked: BTreeMap::new() }));
        thread::scope(|scope| {
            for _ in 0..at_once() {
                scope.spawn(|| {
                    while let Some(case) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let own = folder.join(format!("{}-{}", kind.word(), case.id));
                        let (row, asked) = listen(kind, case, profile, &own);
                        let mut told = told.lock().expect("nobody panics with it");
                        told.rows.push(row);
                        told.asked.insert(case.id, asked);
                    }
                });
            }
        });
        told.into_inner().expect("all threads have ended")
    }

    /// The cases that this mistake could show in.
    pub fn shows(&self, fault: &str) -> BTreeSet<&'static str> {
        self.asked.iter().filter(|(_, asked)| asked.contains(fault)).map(|(case, _)| *case).collect()
    }
}

/// One case in a folder of its own, with a socket beside the executables.
fn listen(kind: Kind, case: &'static Case, profile: &Profile, own: &Path) -> (Row, BTreeSet<String>) {
    fs::create_dir(own).expect("our own folder");
    let path = own.join("asked.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket of our own");
    thread::scope(|scope| {
        let listener = scope.spawn(|| {
            let (mut asked, mut text) = (BTreeSet::new(), [0; 64]);
            loop {
                match socket.recv(&mut text) {
                    Ok(length) if text[..length] == *END => return asked,
                    Ok(length) => asked.insert(String::from_utf8_lossy(&text[..length]).into_owned()),
                    Err(error) => panic!("{}: {error}", path.display()),
                };
            }
        });
        let report = runner::run_with(&target(kind, "", own), profile, &[case], &options(own, 6), &|_| ());
        UnixDatagram::unbound().and_then(|end| end.send_to(END, &path)).expect("the listener is there");
        let row = report.expect("it runs").rows.into_iter().next().expect("one case has one row");
        (row, listener.join().expect("it does not panic"))
    })
}
