//! Addresses that are set aside.

use std::fs;

use serde_json::json;

use super::populated;
use crate::support::{Place, ip};

fn reserve(place: &Place, cidr: &str) -> super::Printed {
    place.cli(&["reserve", cidr, "--reason", "for the lab", "--yes"])
}

#[test]
fn what_is_reserved_is_not_leased_until_it_is_given_back() {
    sandbox::private_host(|| {
        let place = Place::new();
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/29", "cooldownSeconds": 0 }));
        let reserved = reserve(&place, "10.1.2.2/31");
        assert_eq!(
            (reserved.code, reserved.stdout.as_str()),
            (0, "reserved 10.1.2.2/31: for the lab\n"),
            "{reserved:?}"
        );
        assert_eq!(place.run("ADD", "c1", &conf).addresses(), [ip("10.1.2.4")]);
        let mut wish = place.request("red", "c2");
        wish.args = "IP=10.1.2.3".parse().unwrap();
        let refused = place.ipam("red", &json!({ "podCIDR": "10.1.2.0/29" })).lease(&wish).unwrap_err();
        assert!(refused.to_string().contains("for the lab"), "{refused}");
        let given = place.cli(&["unreserve", "10.1.2.2/31", "--yes"]);
        assert_eq!((given.code, given.stdout.starts_with("unreserved 10.1.2.2/31: for the lab (by ")), (0, true));
        assert!(place.ipam("red", &json!({ "podCIDR": "10.1.2.0/29" })).lease(&wish).is_ok());
        assert_eq!(place.cli(&["unreserve", "10.1.2.2/31", "--yes"]).code, 3);
        let deeds = place.document(&["history", "--deeds"]);
        let deeds = deeds["items"].as_array().unwrap();
        assert_eq!(deeds.len(), 2, "{deeds:#?}");
        assert_eq!((&deeds[0]["command"], &deeds[0]["reason"]), (&json!("ipam reserve"), &json!("for the lab")));
    });
}

/// The plugin reads reservations where its config says, and so must whoever makes them.
#[test]
fn reservations_are_where_the_config_says() {
    sandbox::private_host(|| {
        let place = Place::new();
        let (conf_dir, state_dir) =
            (place.data_dir().with_file_name("net.d"), place.data_dir().with_file_name("state"));
        fs::create_dir_all(&conf_dir).unwrap();
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/29", "stateDir": state_dir }));
        fs::write(conf_dir.join("10-red.conf"), conf.to_string()).unwrap();
        let reserve = ["reserve", "10.1.2.2", "--reason", "x", "--yes", "--conf-dir", conf_dir.to_str().unwrap()];
        let reserved = place.cli(&reserve);
        assert_eq!((reserved.code, reserved.stderr.as_str()), (0, ""));
        assert!(state_dir.join("reservations.json").exists());
        // A slip looks like what was meant, but for the pools.
        let slip = ["reserve", "101.2.0.0/16", "--reason", "x", "--dry-run", "--conf-dir", conf_dir.to_str().unwrap()];
        let said = "note: no pool has addresses of 101.2.0.0/16; see: ipam pools\n";
        assert_eq!(place.cli(&slip).stderr, said);
        assert_eq!(place.run("ADD", "c1", &conf).addresses(), [ip("10.1.2.3")]);
        let told = fs::read_to_string(state_dir.join("history.jsonl")).unwrap();
        assert!(told.contains("\"leased\""), "{told}");
        assert!(!place.data_dir().join("history.jsonl").exists());
        let other = place.json("blue", &json!({ "podCIDR": "10.9.0.0/24" }));
        fs::write(conf_dir.join("20-blue.conf"), other.to_string()).unwrap();
        let refused = place.cli(&reserve);
        assert_eq!((refused.code, refused.stderr.contains("say which with --state-dir")), (2, true), "{refused:?}");
        let named = [&reserve[..], &["--state-dir", state_dir.to_str().unwrap()]].concat();
        assert!(place.cli(&named).stderr.contains("10.1.2.2/32 is reserved already"));
        fs::remove_file(conf_dir.join("20-blue.conf")).unwrap();
        fs::write(conf_dir.join("10-red.conf"), &conf.to_string()[1..]).unwrap();
        let refused = place.cli(&reserve);
        assert_eq!((refused.code, refused.stderr.contains("10-red.conf cannot be read")), (2, true), "{refused:?}");
        assert!(!place.data_dir().join("reservations.json").exists());
    });
}

#[test]
fn a_reservation_ends_by_itself() {
    sandbox::private_host(|| {
        let place = Place::new();
        let args = ["reserve", "10.1.2.2", "--reason", "x", "--yes", "--for", "1s"];
        assert_eq!(place.cli(&args).code, 0);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !place.cli(&["list", "--state", "reserved", "-q"]).stdout.is_empty() {
            assert!(std::time::Instant::now() < deadline);
        }
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/29" }));
        assert_eq!(place.run("ADD", "c1", &conf).addresses(), [ip("10.1.2.2")]);
    });
}

#[test]
fn reserve_refuses_what_nobody_can_mean() {
    sandbox::private_host(|| {
        let place = populated();
        assert_eq!(reserve(&place, "10.1.2.128/25").code, 0);
        let reason = ["--reason", "x"];
        for (arguments, code, text) in [
            (vec!["10.1.2.9"], 2, "--reason <TEXT>"),
            (vec!["10.1.2.9", "--reason", "  "], 2, "say why"),
            ([&["10.1.2.9/24"], &reason[..]].concat(), 2, "write 10.1.2.0/24, or 10.1.2.9 for one address"),
            ([&["10.1.2.9", "--until", "2001-01-01"], &reason[..]].concat(), 2, "is over"),
            ([&["10.1.2.200"], &reason[..]].concat(), 7, "10.1.2.128/25 is reserved already: for the lab"),
            ([&["10.1.2.2"], &reason[..]].concat(), 7, "held: 10.1.2.2 and fd00::2 of pod shop/cart"),
            ([&["ten"], &reason[..]].concat(), 2, "invalid value 'ten'"),
        ] {
            let arguments: Vec<&str> = ["reserve", "--yes"].into_iter().chain(arguments).collect();
            let refused = place.cli(&arguments);
            assert_eq!(refused.code, code, "{arguments:?}: {refused:?}");
            assert!(refused.stderr.contains(text), "{arguments:?}: {refused:?}");
        }
        assert_eq!(place.document(&["list", "--state", "reserved"])["items"].as_array().unwrap().len(), 1);
        let forced = place.cli(&["reserve", "10.1.2.2", "--reason", "x", "--yes", "--force"]);
        assert_eq!(forced.code, 0);
        assert_eq!(place.leases().len(), 3, "a pod keeps what it has");
        let unasked = place.cli(&["reserve", "10.1.2.99", "--reason", "x"]);
        assert_eq!((unasked.code, unasked.stderr.contains("add --yes")), (7, true));
    });
}

#[test]
fn reservations_that_cannot_be_read_stop_add_and_nothing_else() {
    sandbox::private_host(|| {
        let place = Place::new();
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/29" }));
        assert_eq!(reserve(&place, "10.1.2.2").code, 0);
        assert_eq!(reserve(&place, "10.1.2.3").code, 0);
        assert!(place.run("ADD", "c1", &conf).success);
        let path = place.data_dir().join("reservations.json");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, whole.trim_end_matches("]\n").replace("10.1.2.3", "10.1.2.three")).unwrap();
        let refused = place.run("ADD", "c2", &conf);
        let (code, text) = refused.error();
        assert_eq!(code, 5, "{text}");
        assert!(text.contains("reservations.json"), "{text}");
        assert!(refused.json["details"].as_str().unwrap().contains("ipam repair"), "{refused:?}");
        assert_eq!(place.leases().len(), 1, "a refused ADD has leased nothing");
        assert!(place.run("DEL", "c1", &conf).success);
        let listed = place.cli(&["list"]);
        assert_eq!(listed.code, 0);
        assert!(listed.stderr.contains("ipam repair"), "{listed:?}");
        let again = reserve(&place, "10.1.2.5");
        assert_eq!((again.code, again.stderr.contains("ipam repair")), (6, true), "{again:?}");
        assert_eq!(place.cli(&["check"]).code, 4);
        let dry = place.cli(&["repair", "--dry-run"]);
        assert_eq!(
            (dry.code, dry.stdout.contains("keep what can be read of it: 1 reservation\n")),
            (4, true),
            "{dry:?}"
        );
        let mended = place.cli(&["repair", "--yes"]);
        assert_eq!((mended.code, mended.stdout.starts_with("kept 1 reservation; the damaged file is ")), (0, true));
        assert!(place.run("ADD", "c2", &conf).success);
        assert_eq!(place.cli(&["list", "--state", "reserved", "-q"]).stdout, "10.1.2.2/32\n");
    });
}
