//! What a model prints is what nft(8) reads and lists, and what is committed is what nft(8) would load.

use kernel::nft::Nft;
use nft_model::{Change, Family, Table};

use crate::models::{everything, hostport};
use crate::oracle::{Seen, flush, list, load, nft, see, sorted};

fn all() -> Vec<Table> {
    Family::ALL.into_iter().flat_map(|family| [hostport(family), everything(family)]).collect()
}

#[test]
fn nft_reads_what_is_printed() {
    sandbox::private_host(|| {
        for table in all() {
            let text = table.to_string();
            if let Err(complaint) = nft(&["-c", "-f", "-"], &text) {
                panic!("{complaint}\n{text}");
            }
        }
    });
}

#[test]
fn nft_lists_what_is_printed() {
    sandbox::private_host(|| {
        for table in all() {
            load(&table.to_string());
            assert_eq!(sorted(&list(table.family(), table.name())), sorted(&table.to_string()));
        }
    });
}

#[test]
fn a_commit_is_what_nft_would_load() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        for table in all() {
            load(&table.to_string());
            let loaded = see(&table);
            flush();
            nft.commit(&[Change::AddTable(table.clone())]).expect("commit");
            let Seen { listing, json, instructions } = see(&table);
            assert_eq!(listing, loaded.listing);
            assert_eq!(json, loaded.json);
            assert_eq!(instructions, loaded.instructions);
            flush();
        }
    });
}

#[test]
fn elements_are_broken_into_lines_as_nft_does() {
    sandbox::private_host(|| {
        // nft lists in the kernel's order, so only the shape of the lines can be compared.
        let shape = |text: &str| -> Vec<usize> {
            let lines = text.lines().filter(|line| line.contains("elements = {") || line.starts_with("\t\t\t     "));
            lines.map(|line| line.matches(',').count()).collect()
        };
        for table in all() {
            load(&table.to_string());
            assert_eq!(shape(&list(table.family(), table.name())), shape(&table.to_string()));
        }
    });
}

#[test]
fn printed_changes_do_what_commits_do() {
    sandbox::private_host(|| {
        let frame = hostport(Family::Ip).without_elements();
        let full = hostport(Family::Ip);
        let mut steps = vec![Change::AddTable(frame.clone())];
        for set in full.sets() {
            steps.push(frame.add_elements(&set.name, set.elements.clone()).expect("fits"));
        }
        let (family, table) = (Family::Ip, "hp".to_owned());
        steps.push(Change::FlushChain { family, table: table.clone(), chain: "postrouting".into() });
        let rules = full.chain("postrouting").expect("there").rules.clone();
        steps.push(Change::AddRules { family, table: table.clone(), chain: "postrouting".into(), rules });
        let printed = |step: &Change| load(&format!("{step}\n"));
        let mut nft = Nft::open().expect("a socket");
        for count in 1..=steps.len() {
            steps[..count].iter().for_each(printed);
            let loaded = see(&full);
            flush();
            nft.commit(&steps[..count]).expect("commit");
            assert_eq!(see(&full), loaded, "after {count} steps");
            printed(&Change::DestroyTable { family, name: table.clone() });
            printed(&Change::DestroyTable { family, name: table.clone() });
            assert_eq!(nft.table(family, "hp").expect("an answer"), None);
        }
    });
}

/// A table in which everything has the same name.
fn named(word: &str) -> String {
    let set = format!("\tset {word} {{\n\t\ttype inet_service\n\t}}\n");
    let chain = format!("\tchain {word} {{\n\t\tth dport @{word} accept\n\t}}\n");
    let jumper = format!("\tchain other {{\n\t\tjump {word}\n\t}}\n");
    format!("table ip {word} {{\n{set}{chain}{jumper}}}\n")
}

#[test]
fn words_that_cannot_be_names_are_refused_by_nft_too() {
    sandbox::private_host(|| {
        for word in ["dnat", "snat", "accept", "drop", "map", "set", "tcp", "fwd", "ll", "random", "1st", "a b"] {
            assert!(!nft_model::check_name(word), "{word}");
            assert!(nft(&["-c", "-f", "-"], &named(word)).is_err(), "{word}");
        }
        for word in ["maps", "hostports", "podwire-a.b_c/d", "exact", "wild", "prerouting", "x-dnat", "forward"] {
            assert!(nft_model::check_name(word), "{word}");
            nft(&["-c", "-f", "-"], &named(word)).unwrap_or_else(|complaint| panic!("{word}: {complaint}"));
        }
    });
}
