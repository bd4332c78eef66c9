//! iptables of both flavours and families, in namespaces of their own; `iptables -S` is the witness.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking, in their helpers too")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;
use std::time::{Duration, Instant};

use kernel::Error;
use kernel::iptables::{Extension, Flavour, Known, Tool, extension, marks};
use nft_model::Family;
use sandbox::private_host;

const RULES: &str = "*nat
:POD-PORTS - [0:0]
-I POSTROUTING 1 -m comment --comment \"one\" -j RETURN
-A PREROUTING -m addrtype --dst-type LOCAL -m comment --comment \"hook\" -j POD-PORTS
-A POD-PORTS -p tcp -m tcp --dport 80 -m comment --comment \"net c1 eth0\" -m comment --comment \"80 : x\" -j RETURN
-A POD-PORTS -p udp -m udp --dport 80 -j RETURN
-A POD-PORTS -p sctp -m sctp --dport 80 -m comment --comment \"net c2 eth0\" -j RETURN
COMMIT
";

const CHAINS: [&str; 4] = ["PREROUTING", "POSTROUTING", "POD-PORTS", "NOBODYS"];

fn each(test: impl Fn(Family, Flavour, Tool)) {
    for family in Family::ALL {
        for flavour in Flavour::ALL {
            test(family, flavour, Tool::of_flavour(family, flavour, None).unwrap());
        }
    }
}

fn witness(family: Family, flavour: Flavour) -> String {
    let program = if family == Family::Ip { "iptables" } else { "ip6tables" };
    let output = sandbox::command(format!("{program}-{flavour}")).args(["-t", "nat", "-S"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// A program that stands in for `iptables-restore`.
fn fake(folder: &OsStr, script: &str) -> Tool {
    let program = std::path::Path::new(folder).join("iptables-restore");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    Tool::find(Family::Ip, Some(folder)).unwrap()
}

#[test]
fn what_is_restored_is_there_and_its_comments_are_read() {
    private_host(|| {
        each(|family, flavour, tool| {
            assert!(marks(family, flavour, "nat", &CHAINS).unwrap().is_empty());
            tool.restore(RULES).unwrap();
            let text = witness(family, flavour);
            assert!(text.contains("-A POD-PORTS -p udp -m udp --dport 80 -j RETURN"), "{family} {flavour}: {text}");
            let found = marks(family, flavour, "nat", &CHAINS).unwrap();
            let rules: Vec<Vec<String>> =
                vec![vec!["net c1 eth0".into(), "80 : x".into()], vec![], vec!["net c2 eth0".into()]];
            assert_eq!(found["POD-PORTS"], rules, "{family} {flavour}");
            assert_eq!(found["PREROUTING"], [["hook"]]);
            assert_eq!(found["POSTROUTING"], [["one"]]);
            assert_eq!(found.len(), 3);
            assert_eq!(tool.list("nat").unwrap().join("\n"), text.trim_end());
            tool.restore("*nat\n-D POD-PORTS 1\n-D POSTROUTING 1\nCOMMIT\n").unwrap();
            let left = marks(family, flavour, "nat", &CHAINS).unwrap();
            assert_eq!((&left["POD-PORTS"], left.len()), (&rules[1..].to_vec(), 2));
        });
    });
}

/// Why whoever looks for a rule lists all. Once this fails, the program is mended.
#[test]
fn the_check_of_ip6tables_legacy_ignores_the_port() {
    private_host(|| {
        Tool::of_flavour(Family::Ip6, Flavour::Legacy, None).unwrap().restore(RULES).unwrap();
        let rule = ["-t", "nat", "-C", "POD-PORTS", "-p", "udp", "-m", "udp", "--dport", "81", "-j", "RETURN"];
        assert!(sandbox::command("ip6tables-legacy").args(rule).status().unwrap().success());
    });
}

/// What the question makes is not here: where the list can be read, it is what it was.
#[test]
fn the_kernel_says_which_tables_it_has() {
    private_host(|| {
        for family in Family::ALL {
            let list = format!("/proc/net/{family}_tables_names");
            let before = fs::read_to_string(&list).ok();
            let tool = Tool::of_flavour(family, Flavour::Legacy, None).unwrap();
            for name in ["nat", "raw"] {
                assert_eq!(tool.knows_table(name).unwrap(), Known::Yes, "{family} {name}");
            }
            assert_eq!(tool.knows_table("nobodys").unwrap(), Known::No, "{family}");
            assert_eq!(fs::read_to_string(&list).ok(), before);
        }
    });
}

#[test]
fn the_kernel_says_which_extensions_it_has() {
    private_host(|| {
        each(|family, flavour, _| {
            for name in ["DNAT", "MASQUERADE", "MARK", "REDIRECT"] {
                let known = extension(family, flavour, Extension::Target(name)).unwrap();
                assert_eq!(known, Known::Yes, "{family} {flavour} {name}");
            }
            for name in ["comment", "addrtype", "conntrack", "iprange", "mark"] {
                let known = extension(family, flavour, Extension::Match(name)).unwrap();
                assert_eq!(known, Known::Yes, "{family} {flavour} {name}");
            }
            // A match is no target.
            for missing in [Extension::Match("nobodys"), Extension::Match("DNAT"), Extension::Target("comment")] {
                assert_eq!(extension(family, flavour, missing).unwrap(), Known::No, "{family} {flavour} {missing}");
            }
        });
        let listed = sandbox::command("nft").args(["list", "tables"]).output().unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap(), "");
    });
}

#[test]
fn a_long_text_goes_in_and_comes_back() {
    private_host(|| {
        // Longer than a pipe holds (pipe(7)), in few rules: an ordinary user's message to the kernel may have 416 KiB
        // (net.core.wmem_max, doubled), and iptables-nft sends one.
        let comments: Vec<String> = (1..=300).map(|n| format!("{n:0>240}")).collect();
        each(|family, flavour, tool| {
            let rule = |comment: &String| format!("-A MANY -m comment --comment \"{comment}\" -j RETURN\n");
            let rules: String = comments.iter().map(rule).collect();
            assert!(rules.len() > 65_536);
            tool.restore(&format!("*nat\n:MANY - [0:0]\n{rules}COMMIT\n")).unwrap();
            let found = marks(family, flavour, "nat", &["MANY"]).unwrap();
            let found: Vec<String> = found["MANY"].iter().map(|comments| comments.join(" ")).collect();
            assert_eq!(found, comments);
        });
    });
}

#[test]
fn a_refusal_names_the_line_and_changes_nothing() {
    private_host(|| {
        each(|family, flavour, tool| {
            let error = tool.restore("*nat\n:NEW - [0:0]\n-A NEW -j NOBODY\nCOMMIT\n").unwrap_err();
            let Error::IptablesRefused { said, .. } = &error else { panic!("{error}") };
            assert!(!said.is_empty());
            assert!(!witness(family, flavour).contains("NEW"));
        });
        let tool = Tool::of_flavour(Family::Ip, Flavour::Nft, None).unwrap();
        let error = tool.restore("*nat\n:NEW - [0:0]\n-A NOBODY -j NEW\nCOMMIT\n").unwrap_err().to_string();
        assert!(error.ends_with("the line is `-A NOBODY -j NEW`"), "{error}");
    });
}

#[test]
fn a_lock_that_is_held_is_busy() {
    private_host(|| {
        let tool = Tool::of_flavour(Family::Ip, Flavour::Legacy, None).unwrap();
        let lock = File::create("/run/xtables.lock").unwrap();
        lock.lock().unwrap();
        let error = tool.restore(RULES).unwrap_err();
        assert!(matches!(error, Error::IptablesBusy { seconds: 5, .. }), "{error}");
        drop(lock);
        tool.restore(RULES).unwrap();
    });
}

#[test]
fn warnings_are_no_failure() {
    private_host(|| {
        let folder = tempfile::tempdir().unwrap();
        fake(folder.path().as_os_str(), "cat; echo '# Warning: legacy tables present' >&2").restore(RULES).unwrap();
    });
}

#[test]
fn what_hangs_is_ended_with_its_children() {
    private_host(|| {
        let folder = tempfile::tempdir().unwrap();
        let pid = folder.path().join("pid");
        let script =
            format!("[ \"$1\" = --version ] && echo v1.8.9 && exit\nsleep 1000 & echo $! > {}; wait", pid.display());
        let error = fake(folder.path().as_os_str(), &script).restore(RULES).unwrap_err();
        assert!(matches!(error, Error::IptablesHangs { .. }), "{error}");
        let child = fs::read_to_string(pid).unwrap();
        // Who was killed still has to get the processor to end.
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return;
            }
            assert!(Instant::now() < deadline, "{stat}");
            thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn what_is_missing_is_named() {
    private_host(|| {
        // What the folders for administrators have is hidden.
        for folder in ["/usr/local/sbin", "/usr/sbin"] {
            let mounted = sandbox::command("mount").args(["-t", "tmpfs", "none", folder]).status().unwrap();
            assert!(mounted.success());
        }
        let error = Tool::find(Family::Ip6, None).unwrap_err();
        assert!(matches!(&error, Error::IptablesMissing { name } if name == "ip6tables-restore"), "{error}");
    });
}

#[test]
fn another_flavour_is_never_listed_in_the_place_of_ones_own() {
    const SBIN: &str = "/usr/sbin";
    private_host(|| {
        for arguments in [
            &["mount", "-t", "tmpfs", "none", "/opt"][..],
            &["cp", "/usr/sbin/xtables-nft-multi", "/usr/sbin/xtables-legacy-multi", "/opt"],
            &["mount", "-t", "tmpfs", "none", SBIN],
        ] {
            assert!(sandbox::command(arguments[0]).args(&arguments[1..]).status().unwrap().success(), "{arguments:?}");
        }
        let lead = |name: &str, to: &str| symlink(format!("/opt/{to}"), format!("{SBIN}/{name}")).unwrap();
        lead("iptables-restore", "xtables-legacy-multi");
        lead("iptables", "xtables-nft-multi");
        let tool = Tool::find(Family::Ip, None).unwrap();
        assert_eq!(tool.flavour(), Flavour::Legacy);
        let error = tool.list("nat").unwrap_err();
        assert!(error.to_string().starts_with("there is no program iptables-legacy"), "{error}");
        fs::remove_file(format!("{SBIN}/iptables")).unwrap();
        lead("iptables", "xtables-legacy-multi");
        assert!(tool.list("nat").unwrap().contains(&"-P POSTROUTING ACCEPT".to_owned()));
    });
}

/// One rule of others that nft made and iptables cannot print.
#[test]
fn what_cannot_be_listed_is_told_by_the_program_that_lists() {
    private_host(|| {
        for rule in [
            "add table ip nat",
            "add chain ip nat PREROUTING { type nat hook prerouting priority dstnat; }",
            "add rule ip nat PREROUTING tcp dport { 80, 443 } dnat to 198.51.100.80",
        ] {
            assert!(sandbox::command("nft").arg(rule).status().unwrap().success(), "{rule}");
        }
        let error = Tool::of_flavour(Family::Ip, Flavour::Nft, None).unwrap().list("nat").unwrap_err().to_string();
        assert!(error.contains("/iptables-nft failed ("), "{error}");
    });
}
