//! Two hundred pods, sixteen calls at a time: no call fails, nothing is left.

use std::collections::BTreeSet;
use std::sync::{Mutex, OnceLock};

use serde_json::{Value, json};

use crate::common::{TestPod, addresses, dual_stack, gc, leases, own_links, run, traces};

const PODS: usize = 200;
const AT_ONCE: usize = 16;

/// Does the work for each pod, that many at once.
fn for_each(pods: &[TestPod], work: impl Fn(usize, &TestPod) + Sync) {
    let waiting = Mutex::new(pods.iter().enumerate());
    let next = || waiting.lock().unwrap().next();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((number, pod)) = next() {
                    work(number, pod);
                }
            });
        }
    });
}

/// `cni.dev/valid-attachments` for these pods.
fn valid(pods: &[TestPod]) -> Value {
    pods.iter().map(|pod| json!({ "containerID": pod.id, "ifname": "eth0" })).collect()
}

#[test]
fn two_hundred_pods_come_and_go() {
    sandbox::private_host(|| {
        let config = dual_stack();
        let before = traces();
        let pods: Vec<_> = (0..PODS).map(|number| TestPod::new(&format!("pod-{number}"))).collect();

        let results: Vec<OnceLock<Value>> = pods.iter().map(|_| OnceLock::new()).collect();
        let given = Mutex::new(BTreeSet::new());
        for_each(&pods, |number, pod| {
            let result = pod.add(&config).ok().json();
            for address in addresses(&result) {
                assert!(given.lock().unwrap().insert(address), "{address} was given twice");
            }
            results[number].set(result).unwrap();
        });
        assert_eq!((own_links(), leases().len(), given.lock().unwrap().len()), (PODS, PODS, 2 * PODS));

        // Collections of which each finds everything valid, in between the checks.
        let all = valid(&pods);
        for_each(&pods, |number, pod| {
            pod.check(&config, results[number].get().unwrap()).ok();
            if number % 50 == 0 {
                gc(&all).ok();
            }
        });
        assert_eq!((own_links(), leases().len()), (PODS, PODS));

        // A quarter is collected, the rest deleted: with its namespace, without, and after that has gone.
        let (collected, deleted) = pods.split_at(PODS / 4);
        gc(&valid(deleted)).ok();
        assert_eq!((own_links(), leases().len()), (deleted.len(), deleted.len()));
        for_each(deleted, |number, pod| {
            let mut env = pod.env("DEL");
            match number % 3 {
                0 => {}
                1 => env.retain(|(name, _)| *name != "CNI_NETNS"),
                _ => drop(kernel::netns::remove_named(&pod.path).unwrap()),
            }
            run(&env, &config).ok();
        });
        before.unchanged("all deleted");
        for_each(collected, |_, pod| drop(pod.del(&config).ok()));
        before.unchanged("and deleted again");
    });
}
