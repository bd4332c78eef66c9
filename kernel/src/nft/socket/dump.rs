//! Questions with many answers.
//!
//! What does not fit into one message the kernel goes on with where it stopped, by counting what it has passed
//! (`nf_tables_dump_set` and its like of net/netfilter/nf_tables_api.c). Two things make it count wrong, and it says so
//! in neither case, as both leave the generation as it was: a hash table that is being enlarged changes the order of
//! its elements, and what a transaction had put in goes again when it is refused. See ADR 0067.

mod name;

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::NfTablesMessage;
use nft_model::Family;

use super::{NfSocket, silent, unreadable};
use crate::Error;
use crate::nft::message::{Answer, Content, Reply};

/// How often a dump that others' changes cut through is begun again: with somebody's commit every three milliseconds about
/// one in twenty is not, of 5,000 elements.
const DUMP_ATTEMPTS: u32 = 1000;

/// The answers of a dump that nobody's commit cut through.
struct Dump {
    /// As they came: most of the time goes into taking them apart, which the last dump needs alone.
    answers: Vec<Vec<u8>>,
    /// What tells them apart, in order.
    names: Vec<Vec<u8>>,
    /// How many messages they came in.
    messages: usize,
}

/// Bytes that leave room for one more answer in the smallest message the kernel begins (`NLMSG_GOODSIZE`: a page, less what it
/// needs itself).
const NOT_FULL: usize = 2048;

impl NfSocket {
    /// A question with any number of answers, which are consistent with each other: nothing is there twice, and what came
    /// in several messages was given twice in a row.
    pub(in crate::nft) fn dump(
        &mut self,
        what: &str,
        family: Family,
        request: impl Fn() -> NfTablesMessage,
    ) -> Result<Vec<Content>, Error> {
        let answers = self.dump_answers(what, family, request)?;
        let contents = answers.iter().map(|answer| Ok(Reply::parse(answer)?.content));
        contents.collect::<Result<_, _>>().map_err(Error::NftDecode)
    }

    /// The same, not taken apart.
    pub(in crate::nft) fn dump_answers(
        &mut self,
        what: &str,
        family: Family,
        request: impl Fn() -> NfTablesMessage,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let mut last = None;
        for _ in 0..DUMP_ATTEMPTS {
            let Some(dump) = self.dump_once(what, family, request())? else { continue };
            if dump.names.windows(2).all(|pair| pair[0] != pair[1]) {
                if dump.is_one_message() || last.as_ref() == Some(&dump.names) {
                    return Ok(dump.answers);
                }
                last = Some(dump.names);
            }
        }
        Err(Error::NftUnsettled { what: what.to_owned() })
    }

    /// `None` if a change by somebody else came in between.
    fn dump_once(&mut self, what: &str, family: Family, request: NfTablesMessage) -> Result<Option<Dump>, Error> {
        let sequence = self.begin_dump(family, request)?;
        let (mut dump, mut settled) = (Dump { answers: Vec::new(), names: Vec::new(), messages: 0 }, true);
        while let Some(part) = self.dump_part(what, sequence)? {
            settled &= !part.interrupted;
            dump.messages += usize::from(!part.answers.is_empty());
            for answer in part.answers {
                dump.names.extend(name::names(&answer).map_err(Error::NftDecode)?);
                dump.answers.push(answer);
            }
        }
        dump.names.sort_unstable();
        Ok(settled.then_some(dump))
    }

    /// Whether a question has any answer at all. The rest is left in the kernel, with the socket.
    pub(in crate::nft) fn dump_has(
        &mut self,
        what: &str,
        family: Family,
        request: NfTablesMessage,
        wanted: impl Fn(&Content) -> bool,
    ) -> Result<bool, Error> {
        let sequence = self.begin_dump(family, request)?;
        while let Some(part) = self.dump_part(what, sequence)? {
            for answer in part.answers {
                if wanted(&Reply::parse(&answer).map_err(Error::NftDecode)?.content) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn begin_dump(&mut self, family: Family, request: NfTablesMessage) -> Result<u32, Error> {
        let sequence = self.ask(Some(family), request, NLM_F_DUMP)?;
        self.unfinished = Some(sequence);
        Ok(sequence)
    }

    /// The next answers of a dump; `None` at its end.
    fn dump_part(&mut self, what: &str, sequence: u32) -> Result<Option<Part>, Error> {
        if self.unfinished != Some(sequence) {
            return Ok(None);
        }
        let answers = self.receive_with(sequence..sequence + 1, Answer::parse)?.ok_or_else(|| silent(what))?;
        let mut part = Part { answers: Vec::with_capacity(answers.len()), interrupted: false };
        for Answer { interrupted, bytes, end } in answers {
            // The end can be marked as cut through as well as any part of the dump.
            part.interrupted |= interrupted;
            match end {
                None => part.answers.push(bytes),
                Some(end) => {
                    self.unfinished = None;
                    if let Content::Error { errno, .. } | Content::Done { errno: Some(errno) } = end {
                        return Err(unreadable(what, errno));
                    }
                }
            }
        }
        Ok(Some(part))
    }
}

impl Dump {
    /// Whether it came at once: one message that was full may have been the first of two, had the kernel not passed over the rest.
    fn is_one_message(&self) -> bool {
        self.messages <= 1 && self.answers.iter().map(Vec::len).sum::<usize>() < NOT_FULL
    }
}

/// What one message of a dump holds.
struct Part {
    answers: Vec<Vec<u8>>,
    /// Whether a change came between it and the ones before.
    interrupted: bool,
}
