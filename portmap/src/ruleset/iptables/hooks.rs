//! What leads from built-in chains into ours. Nothing here does any I/O.

use super::{GUARD, MASQ_CHAIN, STATIC, TOP, line, plain};

/// The built-in chains of tables nat and raw.
const BUILT_IN: [&str; 4] = ["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"];

/// The chain of a rule, the rule, and how it is added.
pub(super) type Hook = (&'static str, String, &'static str);

/// Those of table nat. Translations come after those of others, such as Services; the masquerade before those of others,
/// which may end the chain.
pub(super) fn hooks() -> [Hook; 3] {
    let comment = format!("-m comment --comment \"{STATIC}\"");
    let local = format!("-m addrtype --dst-type LOCAL {comment} -j {TOP}");
    [
        ("PREROUTING", local.clone(), "-A PREROUTING"),
        ("OUTPUT", local, "-A OUTPUT"),
        ("POSTROUTING", format!("{comment} -j {MASQ_CHAIN}"), "-I POSTROUTING 1"),
    ]
}

/// That of table raw, in IPv4.
pub(super) fn guard_hook() -> String {
    format!("! -i lo -m comment --comment \"{STATIC}\" -j {GUARD}")
}

/// Whether a rule, as `iptables -S` lists it, is in a built-in chain and says that it is this plugin's.
pub(super) fn is_one(line: &str) -> bool {
    let is_built_in = BUILT_IN.iter().any(|chain| line.starts_with(&format!("-A {chain} ")));
    is_built_in && plain(line).contains(&format!("--comment {STATIC} "))
}

/// What has each of them be there once, as an ADD makes it, in a table that was listed: where it is otherwise, by taking
/// away all that say they are this plugin's. They are told by their text: others may move the numbers of these chains.
pub(super) fn mend(listed: &[String], wanted: &[Hook]) -> String {
    let mut text = String::new();
    for chain in BUILT_IN {
        let of_chain = format!("-A {chain} ");
        let found: Vec<&String> =
            listed.iter().filter(|line| line.starts_with(&of_chain)).filter(|line| is_one(line)).collect();
        let wanted: Vec<&Hook> = wanted.iter().filter(|(name, ..)| *name == chain).collect();
        let rules = wanted.iter().map(|(_, rule, _)| plain(&format!("{of_chain}{rule}")));
        if found.iter().map(|line| plain(line)).eq(rules) {
            continue;
        }
        found
            .iter()
            .filter_map(|rule| rule.strip_prefix("-A "))
            .for_each(|rule| line(&mut text, &format!("-D {rule}")));
        wanted.iter().for_each(|(_, rule, place)| line(&mut text, &format!("{place} {rule}")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hook_is_there_once_afterwards() {
        let right = "-A OUTPUT -m addrtype --dst-type LOCAL -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT";
        let whole = ["-A PREROUTING -j RETURN", right].map(str::to_owned);
        let [_, output, _] = hooks();
        assert_eq!(mend(&whole, std::slice::from_ref(&output)), "");
        let changed = "-A OUTPUT -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT";
        let others = "-A OUTPUT -m comment --comment podwire-hostports -j PODWIRE-HOSTPORT";
        for (lines, gone) in [
            (vec![right, others, right], format!("{0}\n{0}\n", right.replace("-A", "-D"))),
            (vec![changed], format!("{}\n", changed.replace("-A", "-D"))),
            (vec![others], String::new()),
        ] {
            let lines: Vec<String> = lines.into_iter().map(str::to_owned).collect();
            let expected = format!("{gone}{} {}\n", output.2, output.1);
            assert_eq!(mend(&lines, std::slice::from_ref(&output)), expected);
        }
    }
}
