//! What leads from built-in chains into ours. Nothing here does any I/O.

use super::{Comments, GUARD, MASQ_CHAIN, STATIC, TOP, is_static, line, plain};

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

/// What has them be as an ADD makes them where those that were listed before are not, by taking away all that say they are
/// this plugin's: by their text, as others may move the numbers of these chains. What has come or gone since then is left
/// alone: `seen` has the comments of now.
pub(super) fn mend(listed: &[String], seen: &Comments, wanted: &[Hook]) -> String {
    let mut text = String::new();
    for chain in BUILT_IN {
        let of_chain = format!("-A {chain} ");
        let found: Vec<&String> = listed.iter().filter(|line| line.starts_with(&of_chain)).collect();
        let now = seen.get(chain).into_iter().flatten().filter(|comments| is_static(comments)).count();
        let wanted: Vec<&Hook> = wanted.iter().filter(|(name, ..)| *name == chain).collect();
        let rules = wanted.iter().map(|(_, rule, _)| plain(&format!("{of_chain}{rule}")));
        if found.len() != now || found.is_empty() || found.iter().map(|line| plain(line)).eq(rules) {
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
    fn each_hook_is_as_an_add_makes_it_afterwards() {
        let right = "-A OUTPUT -m addrtype --dst-type LOCAL -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT";
        let changed = "-A OUTPUT -m comment --comment podwire-hostport -j PODWIRE-HOSTPORT";
        let [_, hook, _] = hooks();
        let (chain, rule, place) = &hook;
        let mended = |lines: &[&str], now: usize| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            let seen = Comments::from([((*chain).to_owned(), vec![vec![STATIC.to_owned()]; now])]);
            mend(&lines, &seen, std::slice::from_ref(&hook))
        };
        let gone = |line: &str| line.replacen("-A", "-D", 1);
        assert_eq!(mended(&[right], 1), "");
        assert_eq!(mended(&[right, right], 2), format!("{0}\n{0}\n{place} {rule}\n", gone(right)));
        assert_eq!(mended(&[changed], 1), format!("{}\n{place} {rule}\n", gone(changed)));
        // It has come, or gone, since.
        for (lines, now) in [(&[][..], 1), (&[changed], 0), (&[], 0)] {
            assert_eq!(mended(lines, now), "");
        }
    }
}
