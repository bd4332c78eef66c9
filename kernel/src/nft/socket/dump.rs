//! Questions with many answers.

use netlink_packet_core::NLM_F_DUMP;
use netlink_packet_netfilter::nftables::NfTablesMessage;
use nft_model::Family;

use super::{NfSocket, silent, unreadable};
use crate::Error;
use crate::nft::message::{Content, Reply};

/// How often a dump that others' changes cut through is begun again.
const DUMP_ATTEMPTS: u32 = 100;

impl NfSocket {
    /// A question with any number of answers, which are consistent with each other.
    pub(in crate::nft) fn dump(
        &mut self,
        what: &str,
        family: Family,
        request: impl Fn() -> NfTablesMessage,
    ) -> Result<Vec<Content>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(contents) = self.dump_once(what, family, request())? {
                return Ok(contents);
            }
        }
        Err(Error::NftUnsettled { what: what.to_owned() })
    }

    /// `None` if a change by somebody else came in between.
    fn dump_once(
        &mut self,
        what: &str,
        family: Family,
        request: NfTablesMessage,
    ) -> Result<Option<Vec<Content>>, Error> {
        let sequence = self.begin_dump(what, family, request)?;
        let (mut contents, mut settled) = (Vec::new(), true);
        while let Some(replies) = self.dump_part(what, sequence)? {
            for reply in replies {
                settled &= !reply.interrupted;
                contents.push(reply.content);
            }
        }
        Ok(settled.then_some(contents))
    }

    /// Whether a question has any answer at all. The rest is left in the kernel until the next dump.
    pub(in crate::nft) fn dump_has(
        &mut self,
        what: &str,
        family: Family,
        request: NfTablesMessage,
        wanted: impl Fn(&Content) -> bool,
    ) -> Result<bool, Error> {
        let sequence = self.begin_dump(what, family, request)?;
        while let Some(replies) = self.dump_part(what, sequence)? {
            if replies.iter().any(|reply| wanted(&reply.content)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn begin_dump(&mut self, what: &str, family: Family, request: NfTablesMessage) -> Result<u32, Error> {
        if let Some(sequence) = self.unfinished {
            // Its errors are no longer anybody's business.
            while let Ok(Some(_)) = self.dump_part(what, sequence) {}
            self.unfinished = None;
        }
        let sequence = self.ask(Some(family), request, NLM_F_DUMP)?;
        self.unfinished = Some(sequence);
        Ok(sequence)
    }

    /// The next answers of a dump; `None` at its end.
    fn dump_part(&mut self, what: &str, sequence: u32) -> Result<Option<Vec<Reply>>, Error> {
        if self.unfinished != Some(sequence) {
            return Ok(None);
        }
        let replies = self.receive(sequence..sequence + 1)?.ok_or_else(|| silent(what))?;
        let mut data = Vec::with_capacity(replies.len());
        for reply in replies {
            match reply.content {
                Content::Error { errno, .. } | Content::Done { errno: Some(errno) } => {
                    self.unfinished = None;
                    return Err(unreadable(what, errno));
                }
                Content::Done { errno: None } | Content::Ack => {
                    self.unfinished = None;
                    // The end can be marked as cut through as well as any part of the dump.
                    data.extend(reply.interrupted.then_some(reply));
                }
                _ => data.push(reply),
            }
        }
        Ok(Some(data))
    }
}
