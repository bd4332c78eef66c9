//! `ipam status` says what STATUS says.

use serde_json::json;

use crate::support::Place;

#[test]
fn a_strict_pool_whose_addresses_rest_is_not_ready() {
    sandbox::private_host(|| {
        for (strict, exit) in [(true, 4), (false, 0)] {
            let place = Place::new();
            let conf = place.json("n", &json!({ "podCIDR": "10.1.2.0/30", "strict": strict, "cooldownSeconds": 600 }));
            // Before the first pod, a config alone says where the ledger will be.
            let conf_dir = place.data_dir().with_file_name("net.d");
            std::fs::create_dir_all(&conf_dir).unwrap();
            std::fs::write(conf_dir.join("10-n.conf"), conf.to_string()).unwrap();
            assert_eq!(place.cli(&["status", "--conf-dir", conf_dir.to_str().unwrap()]).code, 0);
            place.run("ADD", "c1", &conf).addresses();
            assert!(place.run("DEL", "c1", &conf).success);
            assert_eq!(place.run("STATUS", "", &conf).success, exit == 0);
            let status = place.document(&["status"]);
            assert_eq!(status["items"][0]["ready"], exit == 0, "{status:#}");
            let said = place.cli(&["status"]);
            assert_eq!((said.code, said.stdout.contains("before one has rested (ipam.strict)")), (exit, strict));
        }
    });
}
