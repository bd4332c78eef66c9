//! What is printed for programs fits the published schemas.

use serde_json::{Value, json};

use super::{ipam, populated};

/// The schema of a kind, as the command publishes it.
fn schema(kind: &str) -> Value {
    let printed = ipam(&["schema", kind]);
    assert_eq!((printed.code, printed.stderr.as_str()), (0, ""), "{kind}");
    serde_json::from_str(&printed.stdout).unwrap()
}

/// Fails unless the document fits the schema of its `kind`.
pub fn assert_fits(document: &Value) {
    assert_is(document["kind"].as_str().unwrap(), document);
}

/// Fails unless it fits the schema of a kind.
pub fn assert_is(kind: &str, document: &Value) {
    let validator = jsonschema::validator_for(&schema(kind)).unwrap();
    let problems: Vec<String> =
        validator.iter_errors(document).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(problems.is_empty(), "{problems:#?} in {document:#}");
}

#[test]
fn every_schema_is_one_and_refuses_what_it_should() {
    let kinds = ipam(&["schema"]).stdout;
    let kinds: Vec<&str> = kinds.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(kinds.len() > 10, "{kinds:?}");
    for kind in kinds {
        let schema = schema(kind);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let validator = jsonschema::validator_for(&schema).unwrap();
        for wrong in [serde_json::json!([]), serde_json::json!({}), serde_json::json!({ "kind": kind, "items": [1] })] {
            assert!(!validator.is_valid(&wrong), "{kind} takes {wrong}");
        }
    }
}

#[test]
fn every_document_fits_its_schema() {
    sandbox::private_host(|| {
        let place = populated();
        assert_eq!(place.cli(&["reserve", "10.1.2.128/25", "--reason", "test", "--for", "1d", "--yes"]).code, 0);
        place
            .ipam("red", &serde_json::json!({ "podCIDR": "10.1.2.0/24" }))
            .release(&crate::support::attachment("red", "1b2c3d4e"))
            .unwrap();
        for arguments in [
            vec!["list", "--state", "all"],
            vec!["show", "shop/cart"],
            vec!["show", "10.1.2.3"],
            vec!["show", "10.1.2.200"],
            vec!["pools"],
            vec!["stats"],
            vec!["status"],
            vec!["check"],
            vec!["verify"],
            vec!["gc", "--min-age", "0s"],
            vec!["history"],
            vec!["history", "--deeds"],
            vec!["map"],
        ] {
            let document = place.document(&arguments);
            assert_eq!(document["apiVersion"], "ipam.podwire/v1", "{arguments:?}");
        }
        let states: Vec<Value> = place.document(&["list", "--state", "all"])["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["state"].clone())
            .collect();
        assert_eq!(states, ["active", "active", "cooling", "cooling", "reserved"]);
        let yaml = place.cli(&["pools", "-o", "yaml"]).stdout;
        assert!(yaml.starts_with("apiVersion: ipam.podwire/v1\nkind: PoolList\n"), "{yaml}");
        assert_eq!(place.cli(&["list", "-o", "prometheus"]).code, 2);
    });
}

/// The same schema, which refuses every key that it does not describe.
fn closed(schema: &Value) -> Value {
    match schema {
        Value::Array(items) => items.iter().map(closed).collect(),
        Value::Object(keys) => {
            let mut keys: serde_json::Map<_, _> =
                keys.iter().map(|(key, value)| (key.clone(), closed(value))).collect();
            if keys.get("properties").is_some_and(Value::is_object) {
                keys.insert("additionalProperties".to_owned(), false.into());
            }
            Value::Object(keys)
        }
        other => other.clone(),
    }
}

/// An export has the records as they are: the schema must say all that is in them.
#[test]
fn every_line_of_an_export_fits_its_schema() {
    sandbox::private_host(|| {
        let place = populated();
        assert_eq!(place.cli(&["reserve", "10.1.2.128/25", "--reason", "test", "--for", "1d", "--yes"]).code, 0);
        let validator = jsonschema::validator_for(&closed(&schema("Export"))).unwrap();
        let exported = place.cli(&["export"]).stdout;
        let lines: Vec<Value> = exported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let kinds: Vec<&str> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["Export", "Lease", "Lease", "Lease", "Reservation", "End"]);
        for line in &lines {
            let problems: Vec<String> =
                validator.iter_errors(line).map(|error| format!("{}: {error}", error.instance_path())).collect();
            assert!(problems.is_empty(), "{problems:#?} in {line:#}");
            let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
            for key in keys {
                let mut without = line.clone();
                without.as_object_mut().unwrap().remove(key);
                assert!(!validator.is_valid(&without), "{key} may be missing: {line:#}");
            }
        }
        let mut other = lines[0].clone();
        other["apiVersion"] = "ipam.podwire/v2".into();
        assert!(!validator.is_valid(&other), "another version");
    });
}

#[test]
fn pools_count_every_address_once() {
    sandbox::private_host(|| {
        let place = populated();
        let reserve = |cidr: &str| place.cli(&["reserve", cidr, "--reason", "test", "--yes", "--force"]);
        assert_eq!(reserve("10.1.2.0/30").code, 0, "the network's own address, the gateway and two leases");
        assert_eq!(reserve("10.1.2.240/28").code, 0, "15 and the broadcast address");
        place.ledger().release(&crate::support::attachment("red", "1b2c3d4e")).unwrap();
        let pools = place.document(&["pools", "-n", "red"]);
        let pool = &pools["items"][0];
        let count = |key: &str| pool[key].as_u64().unwrap();
        assert_eq!(
            (count("capacity"), count("used"), count("cooling"), count("reserved")),
            (253, 1, 0, 16),
            "{pool:#}"
        );
        assert_eq!(count("free"), 253 - 1 - 16);
        assert_eq!(pools["items"][1]["capacity"], "18446744073709551614", "too large for a number");
        let text = place.cli(&["metrics"]).stdout;
        let line = "cni_ipam_pool_free{network=\"red\",family=\"ipv4\",pool=\"10.1.2.1-10.1.2.254\"} 236\n";
        assert!(text.contains(line), "{text}");
        assert_eq!(place.cli(&["stats", "-o", "prometheus"]).stdout.lines().count(), text.lines().count());
        let counts = place.document(&["metrics"]);
        assert_eq!((&counts["kind"], &counts["items"][0]["leases"]), (&json!("Stats"), &json!(2)), "-o is heeded");
        // At some leases in an hour, a /64 lasts for more seconds than programs can count.
        let full_in = |pool: usize| counts["items"][0]["pools"][pool]["exhaustedInSeconds"].as_u64();
        assert_eq!((full_in(1).is_some(), full_in(2)), (true, None), "{counts:#}");
        let file = place.data_dir().join("ipam.prom");
        assert_eq!(place.cli(&["metrics", "-o", "json", "--textfile", file.to_str().unwrap()]).code, 2);
        let (unfinished, other) = (file.with_extension("prom.unfinished"), place.data_dir().join("somebody's"));
        std::fs::write(&other, "text").unwrap();
        std::os::unix::fs::symlink(&other, unfinished).unwrap();
        assert_eq!(place.cli(&["metrics", "--textfile", file.to_str().unwrap()]).code, 0);
        assert_eq!(std::fs::read_to_string(other).unwrap(), "text");
        assert!(std::fs::read_to_string(file).unwrap().contains("cni_ipam_leases 2\n"));
    });
}
