//! `conditionsV4` and `conditionsV6`: further matches that a packet must meet. Nothing here does any I/O.
//!
//! The reference puts these words unread into rules of its backend: arguments of iptables(8), or an expression of
//! nft(8). Here they are read, in either language, and written in that of the backend in use; what is not read is
//! refused, so no word of a config ever gets into a rule.

use ipnetwork::IpNetwork;
use nft_model::{Family, Statement};

/// What was not understood, or cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A match that this plugin does not have.
    Unsupported(String),
    /// A match with a wrong value.
    Invalid(String),
}

/// Reads the words of a list. Each may hold several, as nft(8) takes them.
///
/// # Errors
/// The first word that is not understood.
pub fn parse(family: Family, words: &[String]) -> Result<Vec<Statement>, Fault> {
    let words: Vec<&str> = words.iter().flat_map(|word| word.split_whitespace()).collect();
    let mut rest = words.as_slice();
    let mut conditions = Vec::new();
    while let Some(first) = rest.first() {
        let iptables = first.starts_with('-') || *first == "!";
        let (condition, taken) = if iptables { by_iptables(family, rest)? } else { by_nft(family, rest)? };
        conditions.push(condition);
        rest = &rest[taken..];
    }
    Ok(conditions)
}

/// `[!] -s NETWORK`, `[!] -d NETWORK`, `[!] -i INTERFACE`.
fn by_iptables(family: Family, words: &[&str]) -> Result<(Statement, usize), Fault> {
    let negate = words.first() == Some(&"!");
    let at = usize::from(negate);
    let option = *words.get(at).ok_or_else(|| Fault::Invalid("nothing after \"!\"".to_owned()))?;
    let value = || words.get(at + 1).copied().ok_or_else(|| Fault::Invalid(format!("nothing after {option:?}")));
    let condition = match option {
        "-s" | "--source" | "--src" => source(network(family, value()?)?, negate),
        "-d" | "--destination" | "--dst" => destination(network(family, value()?)?, negate),
        "-i" | "--in-interface" => {
            let name = value()?;
            // iptables(8) has another sign for any rest of a name.
            let name = name.strip_suffix('+').map_or_else(|| name.to_owned(), |start| format!("{start}*"));
            arrival(interface(&name)?, negate)
        }
        other => return Err(Fault::Unsupported(other.to_owned())),
    };
    Ok((condition, at + 2))
}

/// `ip saddr [!=] NETWORK`, `ip6 daddr [!=] NETWORK`, `[meta] iifname [!=] "INTERFACE"`.
fn by_nft(family: Family, words: &[&str]) -> Result<(Statement, usize), Fault> {
    let (key, mut at) = match words {
        ["ip" | "ip6" | "meta", key, ..] => (*key, 2),
        [key, ..] => (*key, 1),
        [] => ("", 0),
    };
    if let Some(word) = words.first().filter(|word| matches!(**word, "ip" | "ip6"))
        && *word != family.to_string()
    {
        return Err(Fault::Invalid(format!("{word:?} is not of this family")));
    }
    let negate = words.get(at) == Some(&"!=");
    at += usize::from(negate || words.get(at) == Some(&"=="));
    let value = || words.get(at).copied().ok_or_else(|| Fault::Invalid(format!("nothing after {key:?}")));
    let condition = match (words.first(), key) {
        (Some(&("ip" | "ip6")), "saddr") => source(network(family, value()?)?, negate),
        (Some(&("ip" | "ip6")), "daddr") => destination(network(family, value()?)?, negate),
        (Some(&("meta" | "iifname")), "iifname") => arrival(interface(value()?.trim_matches('"'))?, negate),
        (first, key) => {
            let first = first.filter(|first| **first != key).map(|first| format!("{first} ")).unwrap_or_default();
            return Err(Fault::Unsupported(format!("{first}{key}")));
        }
    };
    Ok((condition, at + 1))
}

fn source(network: IpNetwork, negate: bool) -> Statement {
    if negate { Statement::SaddrNotIn(network) } else { Statement::SaddrIn(network) }
}

fn destination(network: IpNetwork, negate: bool) -> Statement {
    if negate { Statement::DaddrNotIn(network) } else { Statement::DaddrIn(network) }
}

fn arrival(interface: String, negate: bool) -> Statement {
    if negate { Statement::IifnameNot(interface) } else { Statement::Iifname(interface) }
}

fn network(family: Family, word: &str) -> Result<IpNetwork, Fault> {
    let network: IpNetwork = word.parse().map_err(|_| Fault::Invalid(format!("{word:?} is no address or network")))?;
    let base = IpNetwork::new(network.network(), network.prefix());
    match base {
        Ok(base) if Family::of_network(base) == family => Ok(base),
        _ => Err(Fault::Invalid(format!("{word:?} is not of this family"))),
    }
}

/// A name as the kernel has them, that neither nft(8) nor iptables(8) could misread.
fn interface(word: &str) -> Result<String, Fault> {
    let start = word.strip_suffix('*').unwrap_or(word);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'@');
    let possible = (1..=15).contains(&start.len()) && start.bytes().all(plain) && !matches!(start, "." | "..");
    if possible { Ok(word.to_owned()) } else { Err(Fault::Invalid(format!("{word:?} is no interface's name"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(family: Family, words: &[&str]) -> Result<String, Fault> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let conditions = parse(family, &words)?;
        Ok(conditions.iter().map(|one| one.in_family(family).to_string()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn both_languages_say_the_same() {
        for (words, expected) in [
            (vec!["-s", "10.0.0.0/8"], "ip saddr 10.0.0.0/8"),
            (vec!["!", "-d", "192.0.2.7/24", "-i", "eth+"], "ip daddr != 192.0.2.0/24 iifname \"eth*\""),
            (vec!["ip saddr 10.0.0.1 iifname != \"eth0\""], "ip saddr 10.0.0.1 iifname != \"eth0\""),
            (vec!["ip", "daddr", "!=", "192.0.2.0/24"], "ip daddr != 192.0.2.0/24"),
            (vec!["meta iifname eth0"], "iifname \"eth0\""),
            (vec![], ""),
            (vec![""], ""),
        ] {
            assert_eq!(text(Family::Ip, &words).as_deref(), Ok(expected), "{words:?}");
        }
        assert_eq!(text(Family::Ip6, &["!", "-s", "fd00::/8"]).as_deref(), Ok("ip6 saddr != fd00::/8"));
        assert_eq!(text(Family::Ip6, &["ip6", "saddr", "fd00::1"]).as_deref(), Ok("ip6 saddr fd00::1"));
    }

    #[test]
    fn what_is_not_read_is_refused() {
        for words in [
            vec!["-j", "ACCEPT"],
            vec!["-m", "mark", "--mark", "1"],
            vec!["-s", "10.0.0.1", "-o", "eth0"],
            vec!["tcp dport 80"],
            vec!["ip protocol tcp"],
            vec!["jump evil"],
            vec!["ip saddr 10.0.0.1 accept"],
        ] {
            assert!(matches!(text(Family::Ip, &words), Err(Fault::Unsupported(_))), "{words:?}");
        }
        for words in [
            vec!["-s"],
            vec!["!"],
            vec!["-s", "node1"],
            vec!["-s", "fd00::/8"],
            vec!["-s", "10.0.0.1,10.0.0.2"],
            vec!["-i", "eth0;reboot"],
            vec!["-i", "a-name-of-sixteen"],
            vec!["ip6 saddr fd00::1"],
            vec!["ip saddr { 10.0.0.1 }"],
            vec!["iifname \"eth0\\\"\""],
        ] {
            assert!(
                matches!(text(Family::Ip, &words), Err(Fault::Invalid(_))),
                "{words:?}: {:?}",
                text(Family::Ip, &words)
            );
        }
    }
}
