//! Nothing found, and nothing there: neither looks like health, nor like success to a script.

use std::fs;

use serde_json::{Value, json};

use super::{ipam, populated};
use crate::support::Place;

/// What was looked for is named, and programs get their document, without items.
#[test]
fn a_filter_that_fits_nothing_finds_nothing() {
    sandbox::private_host(|| {
        let place = populated();
        for (arguments, asked) in [
            (vec!["list", "--pod", "nosuch"], "no lease fits --pod nosuch in "),
            (vec!["list", "-n", "blue", "-6"], "no lease fits --network blue -6 in "),
            (vec!["list", "--ifname", "eth1"], "no lease fits --ifname eth1 in "),
            (vec!["list", "--cidr", "10.1.2.0/31"], "no lease fits --cidr 10.1.2.0/31 in "),
            (vec!["list", "--older-than", "1h"], "no lease fits --older-than 1h0m in "),
            (vec!["list", "--state", "all", "--cidr", "10.7.0.0/16"], "no address fits --cidr 10.7.0.0/16 in "),
            (vec!["show", "nosuch"], "no lease for \"nosuch\" in "),
            (vec!["pools", "--network", "nosuch"], "no pool fits --network nosuch in "),
            (vec!["map", "--network", "nosuch"], "no pool fits --network nosuch in "),
            (vec!["gc", "--namespace", "nosuch"], "no lease fits --namespace nosuch in "),
            (vec!["history", "--pod", "nosuch"], "no lease with --pod nosuch, says the history in "),
            (vec!["history", "10.1.2.2", "-n", "blue"], "nobody has had 10.1.2.2 with --network blue, says "),
            (vec!["history", "--until", "2001-01-01"], "no lease with --until 2001-01-01T00:00:00Z, says "),
            (vec!["history", "--deeds", "--since", "2001-01-01"], "no deed fits --since 2001-01-01T00:00:00Z in "),
        ] {
            let told = place.cli(&arguments);
            assert_eq!((told.code, told.stdout.as_str()), (3, ""), "{arguments:?}: {told:?}");
            assert!(told.stderr.starts_with(&format!("ipam: {asked}")), "{arguments:?}: {told:?}");
            assert_eq!(place.document(&arguments)["items"], json!([]), "{arguments:?}");
            let machine = place.cli(&[&arguments[..], &["-o", "json"]].concat());
            assert_eq!((machine.code, machine.stderr), (3, told.stderr), "{arguments:?}");
        }
        // Which moment that was is another one every second.
        let lately = place.cli(&["history", "--deeds", "--since", "1h"]);
        assert_eq!(lately.code, 3, "{lately:?}");
        assert!(lately.stderr.starts_with("ipam: no deed fits --since "), "{lately:?}");
        let quiet = place.cli(&["list", "-q", "--container", "ff"]);
        assert_eq!((quiet.code, quiet.stdout.as_str()), (3, ""), "{quiet:?}");
        let released = place.cli(&["release", "--pod", "nosuch", "--ifname", "eth0", "--yes"]);
        assert_eq!(released.code, 3);
        assert!(released.stderr.starts_with("ipam: no lease fits --pod nosuch --ifname eth0 in "), "{released:?}");
        // What is not asked for by a filter is an answer, also if it is nothing.
        for arguments in
            [vec!["list", "--state", "reserved"], vec!["gc"], vec!["gc", "-n", "red"], vec!["history", "--deeds"]]
        {
            assert_eq!(place.cli(&arguments).code, 0, "{arguments:?}");
        }
    });
}

/// A slip in the folder's name must not look like a sound ledger without leases.
#[test]
fn a_folder_that_is_not_there_is_an_error() {
    sandbox::private_host(|| {
        let place = Place::new();
        let mistyped = place.data_dir().with_file_name("mistyped");
        let dir = ["--dir", mistyped.to_str().unwrap()];
        let conf_dir = place.data_dir().with_file_name("net.d");
        fs::create_dir_all(&conf_dir).unwrap();
        let configs = ["--conf-dir", conf_dir.to_str().unwrap()];
        let commands = [
            vec!["list"],
            vec!["show", "x"],
            vec!["pools"],
            vec!["map", "10.1.2.0/24"],
            vec!["stats"],
            vec!["metrics"],
            vec!["status"],
            vec!["check"],
            vec!["verify"],
            vec!["gc"],
            vec!["release", "10.1.2.3", "--yes"],
            vec!["export"],
            vec!["repair", "--yes"],
            vec!["history"],
            vec!["watch", "--for", "0s"],
            vec!["unreserve", "10.1.2.0/28", "--yes"],
        ];
        let start = format!("ipam: --dir {}: there is no such folder, and no config in ", mistyped.display());
        for command in &commands {
            let told = ipam(&[&command[..], &dir, &configs].concat());
            assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{command:?}: {told:?}");
            assert!(told.stderr.starts_with(&start), "{command:?}: {told:?}");
            assert!(told.stderr.ends_with("; without --dir it is /run/podwire/ipam\n"), "{command:?}: {told:?}");
        }
        let write = |conf: &Value| fs::write(conf_dir.join("10-n.conf"), conf.to_string()).unwrap();
        let mut conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24" }));
        write(&conf);
        let told = ipam(&[&["check"][..], &dir, &configs].concat());
        let next = format!("; configs there name --dir {}\n", place.data_dir().display());
        assert_eq!((told.code, told.stderr.ends_with(&next)), (2, true), "{told:?}");
        // One that cannot be read may name it.
        let broken = conf_dir.join("20-broken.conf");
        fs::write(&broken, "{").unwrap();
        let told = ipam(&[&["check"][..], &dir, &configs].concat());
        let next = format!("no such folder, and {}, which may name it, cannot be read: mend it\n", broken.display());
        assert_eq!((told.code, told.stderr.ends_with(&next)), (2, true), "{told:?}");
        fs::remove_file(&broken).unwrap();
        // A file is no folder either.
        fs::write(&mistyped, "").unwrap();
        assert_eq!(ipam(&[&["status"][..], &dir, &configs].concat()).code, 2);
        fs::remove_file(&mistyped).unwrap();
        // Where a config says that the ledger will be, no pod has had an address yet.
        conf["ipam"]["dataDir"] = json!(mistyped);
        write(&conf);
        for command in &commands {
            let code = if ["show", "release", "unreserve"].contains(&command[0]) { 3 } else { 0 };
            let told = ipam(&[&command[..], &dir, &configs].concat());
            assert_eq!(told.code, code, "{command:?}: {told:?}");
        }
        assert!(!mistyped.exists());
    });
}

/// Nor must a slip make a folder, in which nobody would ever look again.
#[test]
fn what_is_to_be_written_to_is_made_only_where_it_is_meant() {
    sandbox::private_host(|| {
        let place = populated();
        let export = place.data_dir().with_file_name("export.jsonl");
        let export = export.to_str().unwrap();
        assert_eq!(place.cli(&["export", "--file", export]).code, 0);
        let [conf_dir, empty] = ["net.d", "empty"].map(|name| place.data_dir().with_file_name(name));
        for dir in [&conf_dir, &empty] {
            fs::create_dir_all(dir).unwrap();
        }
        let commands = [
            vec!["reserve", "10.1.2.0/28", "--reason", "x", "--yes"],
            vec!["import", export, "--yes"],
            vec!["import", export, "--dry-run"],
            vec!["serve"],
        ];
        for command in &commands {
            let mistyped = place.data_dir().with_file_name("mistyped");
            let to = [&command[..], &["--dir", mistyped.to_str().unwrap(), "--conf-dir", conf_dir.to_str().unwrap()]];
            let told = ipam(&to.concat());
            assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{command:?}: {told:?}");
            assert!(told.stderr.starts_with(&format!("ipam: --dir {}: there is no ", mistyped.display())), "{told:?}");
            let end = "; without --dir it is /run/podwire/ipam; --create makes it\n";
            assert!(told.stderr.ends_with(end), "{command:?}: {told:?}");
            assert!(!mistyped.exists(), "{command:?}");
        }
        for command in &commands[..2] {
            for how in ["--create", "--conf-dir"] {
                let new = place.data_dir().with_file_name(format!("new-{}{how}", command[0]));
                let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/24", "dataDir": new }));
                fs::write(conf_dir.join("10-n.conf"), conf.to_string()).unwrap();
                let elsewhere = ["--create", "--conf-dir", empty.to_str().unwrap()];
                let how = if how == "--create" { &elsewhere[..] } else { &[how, conf_dir.to_str().unwrap()] };
                let told = ipam(&[&command[..], &["--dir", new.to_str().unwrap()], how].concat());
                assert_eq!(told.code, 0, "{command:?}: {told:?}");
                assert!(new.is_dir(), "{command:?}");
            }
        }
    });
}

/// History and reservations that are read where none are kept look like a past in which nothing happened.
#[test]
fn a_state_folder_that_is_not_there_is_an_error() {
    sandbox::private_host(|| {
        let place = populated();
        let (mistyped, conf_dir) =
            (place.data_dir().with_file_name("mistyped"), place.data_dir().with_file_name("net.d"));
        fs::create_dir_all(&conf_dir).unwrap();
        let there = ["--state-dir", mistyped.to_str().unwrap(), "--conf-dir", conf_dir.to_str().unwrap()];
        let commands = [
            (vec!["history"], 0),
            (vec!["watch", "--for", "0s"], 0),
            (vec!["list"], 0),
            (vec!["stats"], 0),
            (vec!["unreserve", "10.1.2.0/28", "--yes"], 3),
            (vec!["reserve", "10.1.2.0/28", "--reason", "x", "--dry-run", "--force"], 0),
        ];
        let run =
            |arguments: &[&str]| ipam(&[arguments, &there, &["--dir", place.data_dir().to_str().unwrap()]].concat());
        for (command, _) in &commands {
            let told = run(command);
            assert_eq!((told.code, told.stdout.as_str()), (2, ""), "{command:?}: {told:?}");
            let start = format!("ipam: --state-dir {}: there is no such folder, and no config in ", mistyped.display());
            let next = format!("; without --state-dir it is {}", place.data_dir().display());
            assert!(told.stderr.starts_with(&start) && told.stderr.contains(&next), "{command:?}: {told:?}");
        }
        // Where a config says that it will be, nothing has been kept yet.
        let conf = place.json("red", &json!({ "podCIDR": "10.1.2.0/24", "stateDir": mistyped }));
        fs::write(conf_dir.join("10-red.conf"), conf.to_string()).unwrap();
        for (command, code) in &commands {
            assert_eq!(run(command).code, *code, "{command:?}");
        }
        assert!(!mistyped.exists());
    });
}
