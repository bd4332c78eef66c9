//! Names of tables, sets and chains.

/// The longest name, in bytes: `NFT_NAME_MAXLEN` of linux/netfilter/nf_tables.h without its final NUL.
const MAX: usize = 255;

/// Whether nft(8) can read `name` as the name of a table, set or chain: a letter, then letters, digits and `/\_.-`,
/// at most 255 bytes, and no word of its grammar.
#[must_use]
pub fn check_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'\\' | b'_' | b'.' | b'-'))
        && name.len() <= MAX
        && !RESERVED.contains(&name)
}

/// Words that nft 1.0.6 does not take as a name in every place a name can stand.
const RESERVED: [&str; 0] = [];
