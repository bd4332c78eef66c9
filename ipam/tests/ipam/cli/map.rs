//! Pictures of pools.

use serde_json::json;

use super::populated;
use crate::support::Place;

#[test]
fn a_map_shows_a_24_address_by_address() {
    sandbox::private_host(|| {
        let place = populated();
        assert_eq!(place.cli(&["reserve", "10.1.2.252/30", "--reason", "x", "--yes"]).code, 0);
        place.ledger().release(&crate::support::attachment("red", "1b2c3d4e")).unwrap();
        let drawn = place.cli(&["map", "10.1.2.0/24", "--ascii"]);
        let lines: Vec<&str> = drawn.stdout.lines().collect();
        assert_eq!(lines[0], "10.1.2.0/24  red, one cell is one address");
        assert_eq!(lines[1], "    .0  G#c.... ........ ........ ........");
        assert_eq!(lines[8], "  .224 ........ ........ ........ ....RRR", "the broadcast address is in no pool");
        assert_eq!(lines[9], "  # active 1   c cooling 1   R reserved 3   . free 248   G gateway");
        let plain = place.cli(&["map", "-n", "red"]).stdout;
        assert!(!plain.contains('\u{1b}') && plain.contains('█') && plain.contains("fd00::/64"), "{plain}");
        let coloured = place.cli(&["map", "10.1.2.0/24", "--color", "always"]).stdout;
        assert!(coloured.contains("\u{1b}[32m█\u{1b}[0m"), "{coloured}");
    });
}

#[test]
fn a_map_sums_a_16_up() {
    sandbox::private_host(|| {
        let place = Place::new();
        let ipam = place.ipam("red", &json!({ "podCIDR": "10.1.0.0/16" }));
        for number in 0..20 {
            let mut request = place.request("red", &format!("c{number}"));
            request.args = format!("IP=10.1.{}.{}", number % 2 * 7, 10 + number).parse().unwrap();
            ipam.lease(&request).unwrap();
        }
        let drawn = place.document(&["map"]);
        let map = &drawn["items"][0];
        assert_eq!((&map["cidr"], &map["addressesPerCell"]), (&json!("10.1.0.0/16"), &json!(256)));
        let cells: Vec<_> =
            map["cells"].as_array().unwrap().iter().map(|cell| (&cell["cidr"], &cell["active"])).collect();
        assert_eq!(cells, [(&json!("10.1.0.0/24"), &json!(10)), (&json!("10.1.7.0/24"), &json!(10))]);
        let text = place.cli(&["map", "--ascii"]).stdout;
        assert!(text.contains("one cell is a /24\n    10.1.0.0 1......1 "), "{text}");
    });
}

#[test]
fn a_picture_is_sound_whatever_pods_and_people_write() {
    sandbox::private_host(|| {
        let place = populated();
        assert_eq!(place.cli(&["reserve", "10.1.2.9", "--reason", "<&\"> \u{7}", "--yes"]).code, 0);
        let svg = place.cli(&["map", "-o", "svg"]).stdout;
        assert!(svg.contains("<title>10.1.2.9 reserved &lt;&amp;&quot;&gt; \u{fffd}</title>"), "{svg}");
        assert!(svg.contains("<title>10.1.2.2 active shop/cart</title>"));
        assert_eq!(svg.matches("<g>").count(), svg.matches("</g>").count());
        // What is left without tags must have no mark of a tag.
        let text: String = svg.split('<').map(|part| part.split_once('>').map_or("", |(_, text)| text)).collect();
        assert!(!text.contains('<') && svg.ends_with("</svg>\n"));
        let file = place.data_dir().join("map.svg");
        assert_eq!(place.cli(&["map", "-o", "svg", "--file", file.to_str().unwrap()]).code, 0);
        assert_eq!(std::fs::read_to_string(file).unwrap().matches("<rect").count(), svg.matches("<rect").count());
    });
}
