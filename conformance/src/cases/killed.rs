//! Plugins that are killed, at every place where that could make a difference.

use super::{ADDRESSING, ANY, cases, nothing_is_left};
use crate::host::Host;
use crate::host::call::Call;
use crate::host::strace::{self, Point, Whom};
use crate::verdict::{Finding, Verdict, ensure, skip};

cases! { "robustness":
    "KILL-1" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => killed_add,
        "An ADD that is killed anywhere is cleared by DEL",
        "A delete must still be executed even if the add fails. (libcni kills by SIGKILL when its caller's time is up.)",
        "ADD is run under strace, and each of its processes killed before each system call that changes something (of those, at most as many as --points says); each time DEL must succeed, and the host be as before.";
    "KILL-2" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => killed_del,
        "A DEL that is killed anywhere is finished by the next",
        "delete may be followed by additional deletes.",
        "DEL is run under strace, and each of its processes killed before each system call that changes something (of those, at most as many as --points says); each time the next DEL must succeed, and the host be as before.";
    "KILL-3" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => add_after_killed_add,
        "After an ADD that is killed anywhere, DEL and ADD work",
        "A runtime should not call ADD twice (without an intervening DEL).",
        "ADD is killed before an eighth of those system calls; each time DEL and ADD of another container must succeed.";
    "KILL-4" since "0.1.0" in "3, Lifecycle & Ordering" for ADDRESSING => no_address_is_lost,
        "No address is lost to ADDs that are killed",
        "A plugin should release an IP allocation.",
        "ADD from a small pool is killed before an eighth of those system calls, each time followed by DEL; then the pool must still have all its addresses.";
    "KILL-5" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => killed_first_add,
        "A host's very first ADD that is killed does no harm for ever",
        "A delete must still be executed even if the add fails.",
        "ADD is killed as for KILL-1, but each time on a host of its own where the plugin has never been (at most half as many as --points says); each time DEL, and ADD and DEL of another container, must succeed, and nothing of a container be left.";
    "KILL-6" since "0.1.0" in "3, Lifecycle & Ordering" for ANY => killed_alone,
        "An ADD that is killed between its programs is cleared by DEL",
        "A delete must still be executed even if the add fails. (libcni kills the plugin alone; what it has started carries on.)",
        "ADD is run under strace, and the plugin alone killed before each of its own system calls that change something, start a program or wait for one (of those, at most as many as --points says); each time, when its programs have ended, DEL must succeed, and the host be as before.";
}

/// Where this call can be killed. It is made once for that. The order spreads the points, so that however few of them are
/// tried, they were taken from everywhere.
fn points(call: &Call<'_>, whom: Whom) -> Verdict<Vec<Point>> {
    let found = strace::points(call, whom)?;
    ensure!(!found.is_empty(), "strace saw no system call that changes something");
    Ok(spread(found))
}

/// By multiples of the golden ratio, modulo 1: any first few of them lie about evenly, and in no step with what a program
/// does again and again (Knuth, The Art of Computer Programming, 6.4).
fn spread(points: Vec<Point>) -> Vec<Point> {
    let mut numbered: Vec<_> = (0..).zip(points).collect();
    numbered.sort_by_key(|(index, _): &(u32, _)| index.wrapping_mul(0x9e37_79b9));
    numbered.into_iter().map(|(_, point)| point).collect()
}

/// Kills at each point, or at as many as were asked for. `attempt` tells whether the point was reached.
fn each_point(host: &Host, points: &[Point], most: usize, mut attempt: impl FnMut(&Point) -> Verdict<bool>) -> Verdict {
    let chosen = &points[..most.clamp(1, points.len())];
    let mut reached = 0;
    for point in chosen {
        let killed = attempt(point);
        let killed = killed.map_err(|finding| finding.during(&format!("killed at {} {}", point.name, point.number)))?;
        reached += usize::from(killed);
    }
    let told = format!("{reached} of {} places reached, of {} that were found", chosen.len(), points.len());
    // Calls are not always the same, but mostly.
    if reached * 4 < chosen.len() {
        return Err(Finding::Trouble(format!("hardly ever killed: {told}")));
    }
    host.note(told);
    Ok(())
}

/// Makes the call and kills it there; what it has started may end.
fn kill(host: &Host, call: &Call<'_>, point: &Point) -> Verdict<bool> {
    let killed = strace::kill_at(call, point)?;
    host.settle()?;
    Ok(killed)
}

/// One ADD and DEL, so that this is not a host's first.
fn once(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    host.detach(&pod, Some(&result))?;
    pod.remove_namespace()
}

/// Where an ADD of the plugin can be killed.
fn points_of_add(host: &Host, whom: Whom) -> Verdict<Vec<Point>> {
    let pod = super::busy_pod(host)?;
    let points = points(&host.call_for("ADD", &pod), whom)?;
    host.detach(&pod, pod.scaffold.as_ref())?;
    pod.remove_namespace()?;
    Ok(points)
}

fn killed_add(host: &Host) -> Verdict {
    cleared(host, Whom::Anybody)
}

fn killed_alone(host: &Host) -> Verdict {
    cleared(host, Whom::Plugin)
}

fn cleared(host: &Host, whom: Whom) -> Verdict {
    once(host)?;
    let points = points_of_add(host, whom)?;
    each_point(host, &points, host.points, |point| {
        let pod = super::busy_pod(host)?;
        let killed = kill(host, &host.call_for("ADD", &pod), point)?;
        host.detach(&pod, pod.scaffold.as_ref())?;
        nothing_is_left(host)?;
        pod.remove_namespace()?;
        Ok(killed)
    })
}

fn killed_first_add(host: &Host) -> Verdict {
    host.anew()?;
    let points = points_of_add(host, Whom::Anybody)?;
    each_point(host, &points, host.points / 2, |point| {
        host.anew()?;
        let pod = super::busy_pod(host)?;
        let killed = kill(host, &host.call_for("ADD", &pod), point)?;
        host.detach(&pod, pod.scaffold.as_ref())?;
        once(host)?;
        nothing_is_left(host)?;
        pod.remove_namespace()?;
        Ok(killed)
    })
}

fn killed_del(host: &Host) -> Verdict {
    once(host)?;
    let pod = super::busy_pod(host)?;
    let result = host.attach(&pod)?;
    let points = points(&host.call_for("DEL", &pod).prev(&result), Whom::Anybody)?;
    host.detach(&pod, Some(&result))?;
    each_point(host, &points, host.points, |point| {
        let pod = super::busy_pod(host)?;
        let result = host.attach(&pod)?;
        let killed = kill(host, &host.call_for("DEL", &pod).prev(&result), point)?;
        host.detach(&pod, Some(&result))?;
        nothing_is_left(host)?;
        pod.remove_namespace()?;
        Ok(killed)
    })
}

fn add_after_killed_add(host: &Host) -> Verdict {
    once(host)?;
    let points = points_of_add(host, Whom::Anybody)?;
    each_point(host, &points, host.points / 8, |point| {
        let (pod, other) = (super::busy_pod(host)?, super::busy_pod(host)?);
        let killed = kill(host, &host.call_for("ADD", &pod), point)?;
        host.detach(&pod, pod.scaffold.as_ref())?;
        let result = host.attach(&other)?;
        host.detach(&other, Some(&result))?;
        Ok(killed)
    })
}

fn no_address_is_lost(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let all = super::gc::fill(host, patch)?;
    for pod in &all {
        host.call_for("DEL", pod).merge(patch).run()?.success()?;
    }
    host.settle()?;
    let pod = host.pod()?;
    let points = points(&host.call_for("ADD", &pod).merge(patch), Whom::Anybody)?;
    host.call_for("DEL", &pod).merge(patch).run()?.success()?;
    each_point(host, &points, host.points / 8, |point| {
        let pod = host.pod()?;
        let killed = kill(host, &host.call_for("ADD", &pod).merge(patch), point)?;
        host.call_for("DEL", &pod).merge(patch).run()?.success()?;
        host.settle()?;
        pod.remove_namespace()?;
        Ok(killed)
    })?;
    let left = super::gc::fill(host, patch)?;
    ensure!(left.len() == all.len(), "the pool had {} addresses for containers and has {}", all.len(), left.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_spread_and_none_is_lost() {
        let points = (0..40).map(|number| Point { whom: Whom::Plugin, name: "write".to_owned(), number }).collect();
        let order: Vec<_> = spread(points).into_iter().map(|point| point.number).collect();
        let mut first = order[..20].to_vec();
        first.sort_unstable();
        assert!(first.windows(2).all(|pair| pair[1] - pair[0] <= 3), "no wide gap: {first:?}");
        assert!(first.iter().any(|number| number % 2 == 1) && first.iter().any(|number| number % 2 == 0), "{first:?}");
        let mut all = order;
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>());
    }
}
