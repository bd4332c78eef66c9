//! What another version left.

use crate::common::net::{NEIGHBOUR_V4, NEIGHBOUR_V6, NODE_V4, NODE_V6, forward, from, lan, pod};
use crate::common::plugin::{Attachment, by_hand, call, feed, nft, ruleset};
use portmap::ruleset::LAYOUT;
use sandbox::private_host;
use serde_json::json;

const STATUS: &str = r#"{ "cniVersion": "1.1.0", "name": "podnet", "type": "podwire-portmap" }"#;

/// Makes both tables again as another version might have: another comment, and one chain and one set less.
fn written_by(layout: &str) {
    for family in ["ip", "ip6"] {
        let listed = nft(&["list", "table", family, "podwire-hostport"]);
        let text = listed.replace(LAYOUT, layout);
        let without = |text: &str, begin: &str| {
            let (before, rest) = text.split_once(begin).unwrap();
            format!("{before}{}", rest.split_once("\n\t}\n").unwrap().1)
        };
        let text = without(&without(&text, "\tchain output {"), "\tset owners {");
        feed("nft", &["-f", "-"], &format!("delete table {family} podwire-hostport\n{text}"));
    }
}

#[test]
fn an_add_renews_the_table_of_an_older_version_and_keeps_its_mappings() {
    private_host(|| {
        forward();
        let (lan, one, two) = (lan(), pod(2), pod(3));
        one.serve(80);
        two.serve(80);
        let [older, newer] = [(&one, 8080), (&two, 9090)]
            .map(|(pod, port)| Attachment::new(pod, &json!([{ "hostPort": port, "containerPort": 80 }])));
        older.add().ok();
        written_by("podwire-portmap layout 1");
        assert_eq!(older.check().failed().0, 110);
        call("STATUS", &[], STATUS).ok();
        newer.add().ok();
        for (port, name) in [(8080, "pod2"), (9090, "pod3")] {
            assert_eq!(lan.tcp(NODE_V4[0], port), from(name, NEIGHBOUR_V4));
            assert_eq!(lan.tcp(NODE_V6[0], port), from(name, NEIGHBOUR_V6));
        }
        newer.check().ok();
        // What the older version did not write is the elder's own, and `reconcile` adds it.
        assert_eq!(by_hand("reconcile --quiet").0, 0);
        older.check().ok();
        older.del().ok();
        newer.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn dels_alone_end_what_an_older_version_left() {
    private_host(|| {
        let attachment = Attachment::on_paper(
            "c1",
            &["10.88.0.2/32", "fd88::2/128"],
            &json!([{ "hostPort": 1, "containerPort": 1 }]),
        );
        attachment.add().ok();
        written_by("podwire-portmap layout 1");
        attachment.del().ok();
        assert_eq!(ruleset(), "");
    });
}

#[test]
fn the_table_of_a_newer_version_is_left_alone() {
    private_host(|| {
        let of = |id: &str, port: u16| {
            Attachment::on_paper(
                id,
                &["10.88.0.2/32", "fd88::2/128"],
                &json!([{ "hostPort": port, "containerPort": 80 }]),
            )
        };
        of("c1", 8080).add().ok();
        written_by("podwire-portmap layout 99");
        let before = ruleset();
        let (code, msg, _) = of("c2", 8081).add().failed();
        assert_eq!(code, 121, "{msg}");
        assert!(msg.contains("its comment is \"podwire-portmap layout 99\""), "{msg}");
        assert_eq!(ruleset(), before);
        // DEL ends what is its own all the same.
        of("c1", 8080).del().ok();
        assert!(!ruleset().contains("podnet c1"), "{}", ruleset());
    });
}
