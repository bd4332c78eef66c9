//! What leads from built-in chains into ours. Nothing here does any I/O.

use super::{Comments, GUARD, MASQ_CHAIN, STATIC, Seen, TOP, is_static, line, plain};

/// The built-in chains of a table that hooks are in, which are those that [`Comments`] has. What says elsewhere that it is this
/// plugin's could not be mended.
fn built_in(table: &str) -> &'static [&'static str] {
    if table == "raw" { &["PREROUTING"] } else { &["PREROUTING", "OUTPUT", "POSTROUTING"] }
}

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

/// Whether a rule of a table, as `iptables -S` lists it, is in one of these chains and says that it is this plugin's.
pub(super) fn is_one(table: &str, line: &str) -> bool {
    let is_there = built_in(table).iter().any(|chain| line.starts_with(&format!("-A {chain} ")));
    // Without a target the comment is the end of the line.
    is_there && format!("{} ", plain(line)).contains(&format!("--comment {STATIC} "))
}

/// What leads into our chains and goes with them, of tables nat and raw: rules as `-D` takes them, by their text, as others may
/// move the numbers of built-in chains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hooked {
    pub(super) nat: Vec<String>,
    pub(super) raw: Vec<String>,
}

impl Hooked {
    /// As an ADD makes them, as often as their comment is there.
    #[must_use]
    pub fn as_made(seen: &Seen) -> Self {
        let of = |comments: &Comments, chain: &str, rule: &str| {
            let times = comments.get(chain).into_iter().flatten().filter(|comments| is_static(comments)).count();
            vec![format!("{chain} {rule}"); times]
        };
        let nat = hooks().iter().flat_map(|(chain, rule, _)| of(&seen.nat, chain, rule)).collect();
        Self { nat, raw: of(&seen.raw, "PREROUTING", &guard_hook()) }
    }

    /// As they are, of what `iptables -S` lists: somebody may have changed them.
    #[must_use]
    pub fn as_listed(nat: &[String], raw: &[String]) -> Self {
        let of = |table, listing: &[String]| {
            let own = listing.iter().filter(|line| is_one(table, line));
            own.filter_map(|line| line.strip_prefix("-A ")).map(str::to_owned).collect()
        };
        Self { nat: of("nat", nat), raw: of("raw", raw) }
    }
}

/// What has them be as an ADD makes them where those that were listed before are not, by taking away all that say they are
/// this plugin's: by their text, as others may move the numbers of these chains. What has come or gone since then is left
/// alone: `seen` has the comments of now.
pub(super) fn mend(listed: &[String], seen: &Comments, wanted: &[Hook]) -> String {
    let mut text = String::new();
    for (chain, rule, place) in wanted {
        let of_chain = format!("-A {chain} ");
        let found: Vec<&String> = listed.iter().filter(|line| line.starts_with(&of_chain)).collect();
        let now = seen.get(*chain).into_iter().flatten().filter(|comments| is_static(comments)).count();
        let is_right = matches!(found[..], [line] if plain(line) == plain(&format!("{of_chain}{rule}")));
        if found.len() != now || found.is_empty() || is_right {
            continue;
        }
        found
            .iter()
            .filter_map(|rule| rule.strip_prefix("-A "))
            .for_each(|rule| line(&mut text, &format!("-D {rule}")));
        line(&mut text, &format!("{place} {rule}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_told_by_its_chain_and_comment() {
        let hook = |chain| format!("-A {chain} -m comment --comment \"podwire-hostport\"");
        for chain in ["PREROUTING", "OUTPUT", "POSTROUTING"] {
            assert!(is_one("nat", &hook(chain)) && is_one("nat", &format!("{} -j PODWIRE-HOSTPORT", hook(chain))));
        }
        assert!(is_one("raw", &hook("PREROUTING")));
        let others = [("nat", "INPUT"), ("nat", "PODWIRE-HOSTPORT"), ("raw", "OUTPUT")];
        assert!(!others.iter().any(|(table, chain)| is_one(table, &hook(chain))));
        assert!(!is_one("nat", "-A OUTPUT -m comment --comment podwire-hostport-of-others -j ACCEPT"));
    }

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
        let without_target = "-A OUTPUT -m addrtype --dst-type LOCAL -m comment --comment podwire-hostport";
        for other in [changed, without_target] {
            assert_eq!(mended(&[other], 1), format!("{}\n{place} {rule}\n", gone(other)));
        }
        // It has come, or gone, since.
        for (lines, now) in [(&[][..], 1), (&[changed], 0), (&[], 0)] {
            assert_eq!(mended(lines, now), "");
        }
    }
}
