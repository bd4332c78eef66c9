//! The demo with nothing but reference plugins.

#![cfg(test)]

use std::path::Path;

use cni_spec::Environment;
use podwire_examples::conflist::Conflist;
use podwire_examples::demo::{Demo, Settings};
use podwire_examples::manifest;
use podwire_examples::swap::{Reference, swap_all};

#[test]
fn the_reference_plugins_pass_every_proof() {
    sandbox::private_host(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let list = Conflist::read(&here.join("conflists/10-podwire.conflist")).unwrap();
        let settings = Settings {
            list: swap_all(list, vec![Reference::Ptp, Reference::HostLocal, Reference::Portmap]),
            pods: manifest::read_folder(&here.join("pods")).unwrap(),
            plugin_path: vec!["/usr/lib/cni".into()],
            environment: Environment::of_process(),
        };
        let mut demo = Demo::set_up(settings).unwrap();
        demo.attach().unwrap();
        let mut outcomes = demo.verbs();
        outcomes.extend(demo.prove().unwrap());
        outcomes.extend(demo.leases().unwrap().map(|(leases, outcome)| {
            println!("{leases:#?}");
            outcome
        }));
        outcomes.push(demo.detach().unwrap().1);
        outcomes.extend(demo.leases().unwrap().map(|(_, outcome)| outcome));
        let (residue, outcome) = demo.residue().unwrap();
        outcomes.push(outcome);
        println!("{residue:#?}");
        for outcome in &outcomes {
            println!("{:5} {:24} {:60} {}", outcome.passed, outcome.id, outcome.sent, outcome.came_back);
        }
        assert!(outcomes.iter().all(|outcome| outcome.passed));
    });
}
