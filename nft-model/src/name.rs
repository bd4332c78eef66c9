//! Names of tables, sets and chains.

/// The longest name, in bytes: `NFT_NAME_MAXLEN` of linux/netfilter/nf_tables.h without its final NUL.
const MAX: usize = 255;

/// Whether nft(8) can read `name` as the name of a table, set or chain: a letter, then letters, digits and `/_.-`,
/// at most 255 bytes, and no word of its grammar.
#[must_use]
pub fn check_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'_' | b'.' | b'-'))
        && name.len() <= MAX
        && RESERVED.split(' ').all(|word| word != name)
}

/// Words that nft 1.0.6 does not take as a name in every place a name can stand, and `destroy`, which is a command
/// since 1.0.7.
const RESERVED: &str = "\
accept add ah all and arp auto-merge bridge cgroup chain comment comp constant continue counter cpu create ct \
day dccp define delete describe destroy device devices dnat drop dst dup dynamic ecn element elements eq esp \
ether exists expires export exthdr fib flags flow flowtable flush frag fwd gc-interval ge get goto gt handle hbh \
hook hour ibriport ibrname icmp icmpv6 igmp iif iifgroup iifname iiftype import include index inet insert \
interval ip ip6 ipsec jhash jump le limit list ll log lshift lt map mark masquerade meta meter mh missing \
monitor ne netdev nftrace nh not notrack numgen obriport obrname offload oif oifgroup oifname oiftype or osf \
pkttype policy position priority queue quota random redefine redirect reject rename replace reset return rshift \
rt rt0 rt2 rtclassid rule ruleset sctp secmark set size skgid skuid snat socket srh symhash synproxy table tcp \
th time timeout tproxy type typeof udp udplite undefine update vlan vmap xor xt";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_nft_reads() {
        for name in ["podwire-hostport", "podwire-my.net_1", "maps", "a", "X/y", "chains", &"n".repeat(MAX)] {
            assert!(check_name(name), "{name}");
        }
        for name in ["", "1a", "-a", "dnat", "accept", "a b", "a\\b", "a\"", "a\n", "ü", "@a", &"n".repeat(MAX + 1)] {
            assert!(!check_name(name), "{name}");
        }
    }

    #[test]
    fn no_reserved_word_is_a_name() {
        assert!(RESERVED.split(' ').count() > 100);
        for word in RESERVED.split(' ') {
            assert!(!word.is_empty() && !check_name(word), "{word}");
            assert!(check_name(&format!("x-{word}")), "{word}");
        }
    }
}
