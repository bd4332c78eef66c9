//! Chains and comments in a table of ip_tables: linux/netfilter/x_tables.h. Nothing here does any I/O.

use nft_model::Family;

use super::legacy::Blob;
use super::marks::Marks;

/// By the number of the hook.
const HOOKS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
/// `struct xt_entry_match` and `struct xt_entry_target` up to their data: size, name, revision.
const PART_HEAD: usize = 32;
/// `XT_ERROR_TARGET`: the target of the entry that begins a chain of a user, whose name is its data.
const ERROR: &str = "ERROR";

/// `None` if it is not what such a table looks like.
pub(super) fn marks(family: Family, blob: &Blob) -> Option<Marks> {
    let mut marks = Marks::new();
    let mut chain: Option<(String, Vec<Vec<String>>)> = None;
    let mut at = 0;
    while at < blob.entries.len() {
        let entry = Entry::read(family, blob.entries.get(at..)?)?;
        let built_in = blob.begins.iter().find(|(_, begin)| *begin == at).and_then(|(hook, _)| HOOKS.get(*hook));
        let new = match (built_in, &entry.chain) {
            (Some(name), _) => Some((*name).to_owned()),
            (None, Some(name)) => Some(name.clone()),
            (None, None) => None,
        };
        if let Some(name) = new {
            finish(&mut marks, chain.replace((name, Vec::new())));
        }
        if entry.chain.is_none()
            && let Some((_, rules)) = &mut chain
        {
            rules.push(entry.comments);
        }
        at += entry.length;
    }
    // The table's last entry is one of ERROR, a chain that is none.
    Some(marks)
}

/// The last entry of a chain is its policy or its end, no rule.
fn finish(marks: &mut Marks, chain: Option<(String, Vec<Vec<String>>)>) {
    if let Some((name, mut rules)) = chain {
        rules.pop();
        marks.insert(name, rules);
    }
}

struct Entry {
    /// In bytes.
    length: usize,
    /// The chain that begins here.
    chain: Option<String>,
    comments: Vec<String>,
}

impl Entry {
    fn read(family: Family, bytes: &[u8]) -> Option<Self> {
        // `target_offset` and `next_offset`, and the end of `struct ipt_entry` or `struct ip6t_entry`.
        let (offsets, head) = match family {
            Family::Ip => (88, 112),
            Family::Ip6 => (140, 168),
        };
        let (target, length) = (short(bytes, offsets)?, short(bytes, offsets + 2)?);
        let bytes = bytes.get(..length).filter(|_| length > target && target >= head)?;
        let (mut at, mut comments) = (head, Vec::new());
        while at < target {
            let part = bytes.get(at..target)?;
            let size = short(part, 0).filter(|size| (PART_HEAD..=part.len()).contains(size))?;
            if text(part.get(2..PART_HEAD - 1)?) == "comment" {
                comments.push(text(part.get(PART_HEAD..size)?));
            }
            at += size;
        }
        let target = bytes.get(target..)?;
        let is_error = text(target.get(2..PART_HEAD - 1)?) == ERROR;
        Some(Self { length, chain: is_error.then(|| text(&target[PART_HEAD..])), comments })
    }
}

fn short(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes).into())
}

/// What is before the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
