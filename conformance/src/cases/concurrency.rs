//! Many at a time.

use std::collections::BTreeSet;
use std::thread;

use serde_json::Value;

use super::del::lost_thread;
use super::{ADDRESSING, ANY, cases, nothing_is_left};
use crate::host::Host;
use crate::host::pod::Pod;
use crate::host::shape::bare_addresses;
use crate::verdict::{Verdict, ensure, skip};

cases! { "concurrency":
    "IO-13a" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => many_adds,
        "Twelve ADDs at a time succeed, on a fresh host",
        "Plugins must handle being executed concurrently across different containers.",
        "Twelve containers are ADDed at the same time on a host that the plugin has never run on; all must succeed.";
    "IO-13b" since "0.1.0" in "3, Lifecycle & Ordering" for ADDRESSING => all_differ,
        "Twelve ADDs at a time get twelve addresses",
        "If necessary, they must implement locking on shared resources (e.g. IPAM databases).",
        "After one container, twelve are ADDed at the same time; no address may be given out twice.";
    "IO-13c" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => many_dels,
        "Twelve DELs at a time succeed and leave nothing",
        "Plugins must handle being executed concurrently across different containers.",
        "After one container, twelve are ADDed, and DELeted at the same time; all must succeed, and after the first's DEL the host be as before.";
    "IO-13d" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => adds_against_dels,
        "ADDs and DELs at the same time succeed",
        "Plugins must handle being executed concurrently across different containers.",
        "Six containers are DELeted while six others are ADDed; all must succeed, and after the others' DEL nothing be left.";
    "IO-13e" since "0.4.0" in "3, Lifecycle & Ordering" for ANY => checks_against_adds,
        "CHECKs succeed while others are ADDed",
        "Plugins must handle being executed concurrently across different containers.",
        "A container is CHECKed six times while six others are ADDed; all must succeed.";
    "IO-13f" since "0.1.0" in "3, Lifecycle & Ordering" for ADDRESSING => the_last_address,
        "Of many ADDs for the last addresses, each address has one winner",
        "If necessary, they must implement locking on shared resources (e.g. IPAM databases).",
        "After one container, sixteen are ADDed at the same time from a small pool; no address may be given out twice, and losers must get an error object.";
    "IO-14" since "0.4.0" in "3, Lifecycle & Ordering" for ANY => own_del_against_add,
        "A DEL that races its own ADD leaves something that DEL can clear",
        "The container runtime must ensure that add is eventually followed by a corresponding delete.",
        "ADD and DEL of one container at the same time, then DEL; the host must be as before.";
}

fn pods(host: &Host, count: u16) -> Verdict<Vec<Pod>> {
    (0..count).map(|number| Ok(super::busy(host, host.pod()?, number))).collect()
}

/// Runs all at the same time and returns what they return, in their order.
fn together<T: Send>(work: Vec<Box<dyn FnOnce() -> Verdict<T> + Send + '_>>) -> Vec<Verdict<T>> {
    thread::scope(|scope| {
        let threads: Vec<_> = work.into_iter().map(|one| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(lost_thread()))).collect()
    })
}

type Work<'a, T> = Vec<Box<dyn FnOnce() -> Verdict<T> + Send + 'a>>;

fn adds<'a>(host: &'a Host, pods: &'a [Pod]) -> Work<'a, Value> {
    pods.iter().map(|pod| Box::new(move || host.attach(pod)) as Box<dyn FnOnce() -> Verdict<Value> + Send>).collect()
}

fn attach_all(host: &Host, pods: &[Pod]) -> Verdict<Vec<Value>> {
    together(adds(host, pods)).into_iter().collect()
}

fn many_adds(host: &Host) -> Verdict {
    attach_all(host, &pods(host, 12)?).map(drop)
}

fn unique(results: &[Value]) -> Verdict {
    let mut seen = BTreeSet::new();
    for address in results.iter().flat_map(bare_addresses) {
        ensure!(seen.insert(address.clone()), "{address} was given out twice");
    }
    Ok(())
}

fn all_differ(host: &Host) -> Verdict {
    host.attach(&super::busy(host, host.pod()?, 90))?;
    unique(&attach_all(host, &pods(host, 12)?)?)
}

fn many_dels(host: &Host) -> Verdict {
    let first = super::busy(host, host.pod()?, 90);
    let attached = host.attach(&first)?;
    let pods = pods(host, 12)?;
    let results = attach_all(host, &pods)?;
    let work: Work<'_, ()> = pods
        .iter()
        .zip(&results)
        .map(|(pod, result)| Box::new(move || host.detach(pod, Some(result))) as Box<dyn FnOnce() -> Verdict + Send>)
        .collect();
    together(work).into_iter().collect::<Verdict>()?;
    host.detach(&first, Some(&attached))?;
    nothing_is_left(host)
}

fn adds_against_dels(host: &Host) -> Verdict {
    let old = pods(host, 6)?;
    let results = old.iter().map(|pod| host.attach(pod)).collect::<Verdict<Vec<_>>>()?;
    let new: Vec<_> = (6..12).map(|number| Ok(super::busy(host, host.pod()?, number))).collect::<Verdict<_>>()?;
    let mut work: Work<'_, Option<Value>> = Vec::new();
    for ((pod, result), other) in old.iter().zip(&results).zip(&new) {
        work.push(Box::new(move || host.detach(pod, Some(result)).map(|()| None)));
        work.push(Box::new(move || host.attach(other).map(Some)));
    }
    let attached: Vec<_> = together(work).into_iter().collect::<Verdict<Vec<_>>>()?.into_iter().flatten().collect();
    for (pod, result) in new.iter().zip(&attached) {
        host.detach(pod, Some(result))?;
    }
    nothing_is_left(host)
}

fn checks_against_adds(host: &Host) -> Verdict {
    host.needs("0.4.0")?;
    let checked = super::busy(host, host.pod()?, 90);
    let result = host.attach(&checked)?;
    let new = pods(host, 6)?;
    let mut work: Work<'_, ()> = Vec::new();
    for pod in &new {
        work.push(Box::new(|| host.check(&checked, &result)));
        work.push(Box::new(move || host.attach(pod).map(drop)));
    }
    together(work).into_iter().collect()
}

fn the_last_address(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let first = super::busy(host, host.pod()?, 90);
    let first = host.attach_with(&first, patch)?;
    let pods = pods(host, 16)?;
    let work: Work<'_, Option<Value>> = pods
        .iter()
        .map(|pod| {
            Box::new(move || {
                let answer = host.call_for("ADD", pod).merge(patch).run()?;
                if answer.succeeded() { answer.result().map(Some) } else { super::sorry(&answer).map(|_| None) }
            }) as Box<dyn FnOnce() -> Verdict<Option<Value>> + Send>
        })
        .collect();
    let mut winners: Vec<_> = together(work).into_iter().collect::<Verdict<Vec<_>>>()?.into_iter().flatten().collect();
    ensure!(!winners.is_empty(), "nobody got an address");
    winners.push(first);
    unique(&winners)
}

fn own_del_against_add(host: &Host) -> Verdict {
    for _ in 0..3 {
        let pod = super::busy_pod(host)?;
        let work: Work<'_, ()> = vec![
            Box::new(|| host.call_for("ADD", &pod).run().map(drop)),
            Box::new(|| host.call_for("DEL", &pod).run().map(drop)),
        ];
        together(work).into_iter().collect::<Verdict>()?;
        host.detach(&pod, None)?;
    }
    nothing_is_left(host)
}
