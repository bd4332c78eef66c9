//! STATUS: whether an ADD would work.

use super::{ADDRESSING, ANY, cases};
use crate::host::{Host, residue};
use crate::verdict::{Verdict, ensure, skip};

cases! { "status":
    "STA-1a" since "1.1.0" in "2, STATUS" for ANY => ready,
        "STATUS succeeds when the plugin is ready",
        "A plugin must exit with a zero (success) return code if the plugin is ready to service ADD requests.",
        "STATUS on a host that the plugin has never run on; it must succeed.";
    "STA-1b" since "1.1.0" in "2, STATUS" for ANY => prints_nothing,
        "STATUS prints nothing when the plugin is ready",
        "For STATUS no result is defined: the exit code is the answer.",
        "ADD, STATUS; stdout must be empty.";
    "STA-2a" since "1.1.0" in "2, STATUS" for ADDRESSING => used_up,
        "STATUS fails when the addresses are used up",
        "If a plugin has a limited number of resources (e.g. IP addresses), it should return an error if those resources are exhausted and no new ADD requests can be serviced.",
        "A small pool is used up; STATUS must fail with code 50 or 51.";
    "STA-2b" since "1.1.0" in "2, STATUS" for ADDRESSING => ready_again,
        "STATUS succeeds again when an address has come back",
        "A plugin must exit with a zero (success) return code if the plugin is ready to service ADD requests.",
        "A small pool is used up, one DEL; STATUS must agree with what the next ADD does.";
    "STA-5" since "1.1.0" in "2, STATUS" for ANY => few_variables,
        "STATUS needs CNI_COMMAND only",
        "Optional environment parameters: CNI_PATH.",
        "ADD, STATUS with CNI_COMMAND and CNI_PATH only, as libcni sends it; it must succeed.";
    "STA-6" since "1.1.0" in "2, STATUS" for ANY => changes_nothing,
        "STATUS changes nothing",
        "Status is purely informational.",
        "ADD, STATUS; links, addresses, routes and firewall of the host must be the same.";
    "STA-10" since "1.1.0" in "practice: STATUS came with 1.1.0" for ANY => older_config,
        "STATUS with a config before 1.1.0 has code 1",
        "1: Incompatible CNI version.",
        "STATUS with a config of 1.0.0; it must fail with code 1.";
    "STA-11" since "1.1.0" in "5, Error" for ANY => bad_config,
        "STATUS with a config that is not JSON fails",
        "It must exit with a non-zero return code and output an error on standard out.",
        "STATUS with such a config; it must fail with an error object.";
}

fn ready(host: &Host) -> Verdict {
    host.call("STATUS").run()?.success().map(drop)
}

fn prints_nothing(host: &Host) -> Verdict {
    host.attach(&super::busy_pod(host)?)?;
    let answer = host.call("STATUS").run()?;
    answer.success()?;
    ensure!(answer.text().is_empty(), "stdout has: {}", answer.text());
    Ok(())
}

fn used_up(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    super::gc::fill(host, patch)?;
    super::protocol::coded(&host.call("STATUS").merge(patch).run()?, &[50, 51])
}

fn ready_again(host: &Host) -> Verdict {
    let Some(patch) = &host.target.small_pool else { skip!("the target file has no small_pool") };
    let pods = super::gc::fill(host, patch)?;
    for pod in pods.iter().take(1) {
        host.call_for("DEL", pod).merge(patch).run()?.success()?;
    }
    let status = host.call("STATUS").merge(patch).run()?;
    let add = host.call_for("ADD", &host.pod()?).merge(patch).run()?;
    let said = (status.succeeded(), add.succeeded());
    ensure!(said == (true, true), "STATUS succeeds: {}; the ADD after it: {}", said.0, add.summary());
    Ok(())
}

fn few_variables(host: &Host) -> Verdict {
    host.attach(&super::busy_pod(host)?)?;
    let call = host.call("STATUS").env("CNI_CONTAINERID", "").env("CNI_NETNS", "").env("CNI_IFNAME", "");
    call.env("CNI_ARGS", "").run()?.success()?;
    host.call("STATUS").run()?.success().map(drop)
}

fn changes_nothing(host: &Host) -> Verdict {
    let pod = super::busy_pod(host)?;
    host.attach(&pod)?;
    let before = host.observe()?;
    host.call("STATUS").run()?.success()?;
    let after = host.observe()?;
    let (more, less) = (residue::beyond(&after, &before), residue::beyond(&before, &after));
    ensure!(more.is_empty() && less.is_empty(), "new: {more:?}; gone: {less:?}");
    Ok(())
}

fn older_config(host: &Host) -> Verdict {
    super::protocol::coded(&host.call("STATUS").version("1.0.0").run()?, &[1])
}

fn bad_config(host: &Host) -> Verdict {
    super::sorry(&host.call("STATUS").stdin("{ not json").run()?).map(drop)
}
