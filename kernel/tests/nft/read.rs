//! What is read back, of ours and of others'.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use kernel::Error;
use kernel::nft::{Nft, Refusal};
use nft_model::{Change, Element, Family, Proto, Statement, Table};

use crate::models::{everything, exact_key, hostport, ip, target, wild_key};
use crate::oracle::load;

#[test]
fn what_was_committed_is_read_back() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        for table in Family::ALL.into_iter().flat_map(|family| [hostport(family), everything(family)]) {
            assert_eq!(nft.read_table(table.family(), table.name()).expect("readable"), None);
            assert_eq!(nft.read_frame(table.family(), table.name()).expect("readable"), None);
            nft.commit(&[Change::AddTable(table.clone())]).expect("commit");
            let frame = nft.read_frame(table.family(), table.name()).expect("readable");
            assert_eq!(frame, Some(table.without_elements()));
            assert_eq!(nft.read_table(table.family(), table.name()).expect("readable"), Some(table));
        }
    });
}

#[test]
fn what_nft_loaded_is_read_back() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        for table in Family::ALL.into_iter().flat_map(|family| [hostport(family), everything(family)]) {
            load(&table.to_string());
            assert_eq!(nft.read_table(table.family(), table.name()).expect("readable"), Some(table));
        }
    });
}

/// Text of somebody else's, and what the model makes of it.
const FOREIGN: &str = "table ip other {
	comment \"not ours\"
	flags dormant
	set intervals {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/8 }
	}
	set timed {
		type inet_service
		timeout 5s
		size 10
	}
	set marks {
		type mark
		elements = { 0x5 }
	}
	map verdicts {
		type ipv4_addr : verdict
		elements = { 10.0.0.1 : drop }
	}
	set protos {
		type inet_proto
		elements = { icmp, tcp }
	}
	chain c {
		type filter hook input priority 0; policy accept;
		limit rate 5/second accept
		ip saddr 10.0.0.1 log prefix \"x\" drop
		ct state established accept
		masquerade random
		tcp dport 80 accept
		ip saddr @intervals return
		meta mark set 0x1
	}
}
";

#[test]
fn what_is_unknown_prints_and_equals_nothing() {
    sandbox::private_host(|| {
        load(FOREIGN.replace("\t\tmasquerade random\n", "").as_str());
        let mut nft = Nft::open().expect("a socket");
        let table = nft.read_table(Family::Ip, "other").expect("readable").expect("there");
        assert_eq!(table.comment(), Some("not ours"));
        let text = table.to_string();
        for part in [
            "\tunknown(flags 0x1)\n",
            "\t\ttype ipv4_addr\n\t\tunknown(flags 0x4)\n",
            "unknown(size 10)",
            "unknown(flags 0x10)",
            "\t\ttype unknown(19)\n\t\telements = { 0x05000000 }\n",
            "elements = { tcp, 0x01 }",
            "\t\tunknown(limit ",
            "\t\tip saddr 10.0.0.1 unknown(log 2=7800",
            "unknown(Payload",
            "\t\tip saddr @intervals return\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(matches!(nft.commit(&[Change::AddTable(table.clone())]), Err(Error::NftInvalid { .. })));
        let statements = |table: &Table| -> Vec<Statement> {
            table.chains().iter().flat_map(|chain| &chain.rules).flat_map(|rule| rule.0.clone()).collect()
        };
        assert!(statements(&table).iter().filter(|part| matches!(part, Statement::Unknown(_))).count() >= 5);
    });
}

#[test]
fn a_rule_that_was_tampered_with_is_seen() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let table = hostport(Family::Ip);
        let text = table.to_string();
        for (from, to) in [
            ("\t\tip saddr . ip daddr @hairpin masquerade\n", ""),
            ("@hairpin masquerade", "@hairpin masquerade random"),
            ("ip saddr . ip daddr @hairpin", "ip daddr . ip saddr @hairpin"),
            ("127.0.0.0/8", "127.0.0.0/9"),
            ("fib daddr type local", "fib daddr type != local"),
            ("fib daddr type local", "fib saddr type local"),
            ("policy accept", "policy drop"),
            ("priority srcnat", "priority srcnat + 1"),
            ("dnat ip to meta l4proto . th dport map @wild", "dnat ip to meta l4proto . th dport map @wild random"),
            ("map @wild", "map @wild persistent"),
            ("th dport map @wild", "th sport map @wild"),
            ("jump maps", "goto maps"),
            ("ct status dnat", "ct status snat"),
            ("ct status dnat", "ct status & dnat == dnat"),
            ("comment \"host ports\"", "comment \"other\""),
            (" . 80 }", " . 81 }"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            load(&changed);
            let read = nft.read_table(Family::Ip, "hp").expect("readable").expect("there");
            assert_ne!(read, table, "{from} -> {to}");
            nft.commit(&[Change::DeleteTable { family: Family::Ip, name: "hp".into() }]).expect("commit");
        }
        load(&text);
        assert_eq!(nft.read_table(Family::Ip, "hp").expect("readable"), Some(table));
    });
}

#[test]
fn elements_are_found_one_by_one_and_all_together() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        for family in Family::ALL {
            let table = hostport(family);
            nft.commit(&[Change::AddTable(table.clone())]).expect("commit");
            for set in table.sets() {
                assert_eq!(nft.elements(family, "hp", &set.name).expect("readable"), set.elements);
                assert!(nft.has_elements(family, "hp", &set.name).expect("readable"));
                for element in &set.elements {
                    let found = nft.element(family, "hp", &set.name, &element.key).expect("readable");
                    assert_eq!(found.as_ref(), Some(element));
                }
            }
            assert_eq!(nft.element(family, "hp", "wild", &wild_key(Proto::Tcp, 1)).expect("readable"), None);
            assert_eq!(nft.element(family, "none", "wild", &wild_key(Proto::Tcp, 1)).expect("readable"), None);
            let short = nft.element(family, "hp", "wild", &[1.into()]);
            assert!(matches!(short, Err(Error::NftRead { source: Refusal::Errno(_), .. })), "{short:?}");
            for missing in [nft.elements(family, "hp", "none").err(), nft.has_elements(family, "none", "wild").err()] {
                assert!(matches!(missing, Some(Error::NftRead { source: Refusal::NotFound, .. })), "{missing:?}");
            }
        }
        let names: Vec<_> = nft.tables(Family::Ip6).expect("tables").into_iter().map(|info| info.name).collect();
        assert_eq!(names, ["hp"]);
    });
}

#[test]
fn a_look_for_any_element_leaves_the_connection_usable() {
    sandbox::private_host(|| {
        let mut nft = Nft::open().expect("a socket");
        let frame = hostport(Family::Ip).without_elements();
        nft.commit(&[Change::AddTable(frame.clone())]).expect("commit");
        assert!(!nft.has_elements(Family::Ip, "hp", "exact").expect("readable"));
        let elements: Vec<_> = (1..=4000)
            .map(|port| Element::map(exact_key("10.0.0.1", Proto::Udp, port), target("10.88.0.2", port)))
            .collect();
        nft.commit(&[frame.add_elements("exact", elements.clone()).expect("fits")]).expect("commit");
        for _ in 0..3 {
            assert!(nft.has_elements(Family::Ip, "hp", "exact").expect("readable"));
            // Each of these comes while the kernel still has most of that answer to give.
            assert!(nft.table(Family::Ip, "hp").expect("readable").is_some());
            assert!(nft.has_elements(Family::Ip, "hp", "exact").expect("readable"));
            let key = &elements[3999].key;
            assert!(nft.element(Family::Ip, "hp", "exact", key).expect("readable").is_some());
            assert_eq!(nft.elements(Family::Ip, "hp", "exact").expect("readable"), elements);
            assert!(nft.has_elements(Family::Ip, "hp", "exact").expect("readable"));
            nft.commit(&[frame.destroy_elements("exact", vec![key.clone()]).expect("fits")]).expect("commit");
            nft.commit(&[frame.add_elements("exact", vec![elements[3999].clone()]).expect("fits")]).expect("commit");
        }
    });
}

#[test]
fn a_table_is_read_as_it_was_at_one_moment() {
    sandbox::private_host(|| {
        let frame = hostport(Family::Ip).without_elements();
        let mut nft = Nft::open().expect("a socket");
        nft.commit(&[Change::AddTable(frame.clone())]).expect("commit");
        // Many elements make reading take long enough for changes to come in between.
        let many = (1..=500).map(|port| Element::map(wild_key(Proto::Udp, port), target("10.88.0.2", port))).collect();
        nft.commit(&[frame.add_elements("wild", many).expect("fits")]).expect("commit");
        let exact = Element::map(exact_key("10.0.0.1", Proto::Tcp, 1), target("10.88.0.2", 1));
        let pair = Element::new([ip("10.88.0.2").into(), ip("10.88.0.2").into()]);
        let both = [
            frame.add_elements("exact", vec![exact.clone()]).expect("fits"),
            frame.add_elements("hairpin", vec![pair.clone()]).expect("fits"),
        ];
        let neither = [
            frame.destroy_elements("exact", vec![exact.key.clone()]).expect("fits"),
            frame.destroy_elements("hairpin", vec![pair.key.clone()]).expect("fits"),
        ];
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut nft = Nft::open().expect("a socket");
                let mut rounds = 0;
                while !done.load(Ordering::Relaxed) {
                    nft.commit(&both).expect("commit");
                    nft.commit(&neither).expect("commit");
                    rounds += 1;
                    // A reader needs a moment in which nothing changes.
                    thread::sleep(std::time::Duration::from_millis(2));
                }
                rounds
            });
            for _ in 0..20 {
                match nft.read_table(Family::Ip, "hp") {
                    Ok(table) => {
                        let table = table.expect("there");
                        let held = |set| table.set(set).expect("there").elements.len();
                        assert_eq!(held("wild"), 500);
                        assert_eq!(held("exact"), held("hairpin"));
                    }
                    Err(Error::NftUnsettled { .. }) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            done.store(true, Ordering::Relaxed);
            assert!(writer.join().expect("no panic") > 0);
        });
    });
}
