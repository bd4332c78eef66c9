//! Where else mistakes show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use cni_conformance::cases;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fakes.txt");

const HEAD: &str = "\
# Where else the mistake shows that a case is there to notice. What is not listed shows in its own case only.
# A ? says that it depends on chance, such as the order of calls at the same time.
#
# The reasons are of four kinds. One fact is asked about from two sides, such as whether a DEL was delegated, and whether its
# error came back (DEL-6a). One thing rests on another: an interface that is down has no routes (ADD-1a), a port that is not
# reached is not reached after a change either (PM-1b). What runtimes send is asked about by itself and within a pod's life:
# containerd's ids have 64 characters (IO-10f). And what is left behind is found after every case that does the same (DEL-3b).
";

/// For each mistake the other cases that it fails, with a question mark those that it may fail.
pub type Golden = BTreeMap<String, BTreeSet<String>>;

/// What is known.
pub fn read() -> Golden {
    let text = fs::read_to_string(PATH).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": "));
    lines.map(|(id, also)| (id.to_owned(), also.split(' ').map(str::to_owned).collect())).collect()
}

/// Replaces what is known of the cases that were asked; what depends on chance stays listed.
pub fn learn(fault: &str, asked: &BTreeSet<String>, failed: &BTreeSet<String>) {
    let mut known = read();
    let listed = known.entry(fault.to_owned()).or_default();
    listed.retain(|other| !asked.contains(other));
    let by_chance = listed.clone();
    let also = failed.iter().filter(|other| *other != fault && !by_chance.contains(&format!("{other}?")));
    listed.extend(also.cloned());
    let order = |id: &str| cases::all().position(|case| case.id == id.trim_end_matches('?'));
    let mut lines: Vec<_> = known.iter().filter(|(_, also)| !also.is_empty()).collect();
    lines.sort_by_key(|(id, _)| order(id));
    let mut text = HEAD.to_owned();
    for (id, also) in lines {
        let mut also: Vec<_> = also.iter().map(String::as_str).collect();
        also.sort_by_key(|other| order(other));
        text.push_str(&format!("{id}: {}\n", also.join(" ")));
    }
    fs::write(PATH, text).expect("the golden file is writable");
}
