//! Whoever is in nobody's way waits for nobody, and nobody asks twice what has no answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::backend::Backend;
use crate::common::plugin::{Answer, Attachment, by_hand, gc};
use kernel::iptables::Turn;
use sandbox::private_host;
use serde_json::json;

on_iptables!(who_has_no_rules_waits_for_no_lock,);

fn on_paper(number: u8, backend: Backend) -> Attachment {
    let ports = json!([{ "hostPort": 8000 + u16::from(number), "containerPort": 80 }]);
    Attachment::on_paper(&format!("c{number}"), &[&format!("10.88.0.{number}/32")], &ports).on(backend)
}

fn who_has_no_rules_waits_for_no_lock(backend: Backend) {
    let holder = on_paper(2, backend);
    holder.add().ok();
    let turn = Turn::take(Path::new("/run/podwire/iptables.lock")).unwrap();
    let Answer::Ok { stderr, .. } = on_paper(9, backend).del() else { panic!("DEL failed") };
    assert_eq!(stderr, "");
    gc("othernet", &[]).ok();
    drop(turn);
    holder.check().ok();
    holder.del().ok();
    assert_eq!(backend.rules(), "");
}

#[test]
fn a_program_that_lists_nothing_is_not_asked_for_each_pod() {
    const PROGRAM: &str = "/usr/local/sbin/iptables-nft";
    const LOG: &str = "/run/asked";
    private_host(|| {
        let backend = Backend::IptablesNft.prepared();
        for number in 2..6 {
            on_paper(number, backend).add().ok();
        }
        let mounted = sandbox::command("mount").args(["-t", "tmpfs", "none", "/usr/local/sbin"]).status().unwrap();
        assert!(mounted.success());
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *-S*) echo \"$*\" >> {LOG}; exit 4;; esac\nexec /usr/sbin/iptables-nft \"$@\"\n"
        );
        fs::write(PROGRAM, script).unwrap();
        fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755)).unwrap();
        let (code, shown, _) = by_hand("reconcile");
        assert_eq!((code, shown.matches(": failed: ").count()), (1, 4), "{shown}");
        assert_eq!(shown.matches("it was not listed the first time").count(), 3, "{shown}");
        assert_eq!(fs::read_to_string(LOG).unwrap().lines().count(), 1);
        fs::remove_file(PROGRAM).unwrap();
        assert_eq!(by_hand("reconcile --quiet"), (0, String::new(), String::new()));
    });
}
