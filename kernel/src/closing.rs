//! Closing netfilter sockets without waiting for the kernel.
//!
//! Whoever closes a netfilter socket within some 30 ms after anybody removed something from nf_tables waits until that is
//! freed, for RCU grace periods of 3 to 35 ms (`nft_rcv_nl_event` of net/netfilter/nf_tables_api.c): with [`crate::nft`] as
//! well as with [`crate::conntrack`]. A process that ends closes all it has.
//!
//! A descriptor that is on its way in a Unix socket which nobody can receive from any more is closed by the kernel's
//! collector of such garbage (net/unix/garbage.c), by a worker of its own: so it is that which waits (seen on 6.18). Where
//! the process that closes has to collect, it waits as it would have anyway.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};

/// The most descriptors that one message takes, less the one that makes it garbage (`SCM_MAX_FD` of linux/socket.h).
const MOST: usize = 252;

/// What is to be closed; `None` while nobody has put that off.
static LATE: Mutex<Option<Vec<OwnedFd>>> = Mutex::new(None);

/// As long as it lives, sockets of this process stay open that would be closed; then they are left to the kernel.
#[derive(Debug)]
#[must_use]
pub struct PutOff(());

/// Puts closing off for the whole process. Sockets are used by one thread each, so none is missed.
pub fn put_off() -> PutOff {
    *LATE.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    PutOff(())
}

impl Drop for PutOff {
    fn drop(&mut self) {
        let late = LATE.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default();
        // What cannot be sent is closed here, which takes its time.
        let pairs: Vec<_> = late.chunks(MOST).map(make_garbage).collect();
        // The last one of each has to be the collector's, which comes when the pairs are closed.
        drop(late);
        drop(pairs);
    }
}

/// Keeps what is about to be closed, if that is put off.
pub(crate) fn keep_if_put_off(socket: &impl AsFd) {
    if let Some(late) = LATE.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
        // Without a descriptor for it, it is closed now.
        late.extend(socket.as_fd().try_clone_to_owned());
    }
}

/// Sends copies to a socket that is on its way in itself. They are garbage once the pair is closed.
fn make_garbage(sockets: &[OwnedFd]) -> nix::Result<(OwnedFd, OwnedFd)> {
    let (near, far): (OwnedFd, OwnedFd) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
    let mut fds: Vec<RawFd> = sockets.iter().map(AsRawFd::as_raw_fd).collect();
    fds.push(far.as_raw_fd());
    let message = [IoSlice::new(b"\0")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(near.as_raw_fd(), &message, &rights, MsgFlags::MSG_DONTWAIT, None)?;
    Ok((near, far))
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::{keep_if_put_off, put_off};

    #[test]
    fn what_was_put_off_is_closed_in_the_end() {
        // More than one message takes.
        let pipes: Vec<_> = (0..300).map(|_| io::pipe().unwrap()).collect();
        let (readers, writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
        let closing = put_off();
        writers.iter().for_each(keep_if_put_off);
        drop(writers);
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || {
            for mut reader in readers {
                // Nobody writes: it ends when all that could are closed.
                let end = reader.read(&mut [0]);
                sender.send(end.unwrap()).unwrap();
            }
        });
        assert_eq!(ended.recv_timeout(Duration::from_millis(20)), Err(mpsc::RecvTimeoutError::Timeout));
        drop(closing);
        for _ in 0..300 {
            assert_eq!(ended.recv_timeout(Duration::from_secs(60)), Ok(0));
        }
    }
}
