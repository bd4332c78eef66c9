//! Asking the resident owner.

use std::io::{self, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::operation::Request;
use crate::wire::{self, Question, Reply};

/// How asking the owner went.
#[derive(Debug)]
pub(super) enum Asked {
    /// It answered.
    Reply(Reply),
    /// There is none: nobody listens. The database is free, or soon will be.
    Nobody,
    /// It was there and has hung up without an answer, as it does when it ends.
    HungUp,
    /// It gave an answer that nobody here understands.
    Strange,
    /// It has not answered in time. Whether the request is carried out, nobody knows.
    Silent,
}

/// The longest path of a socket (unix(7), `sun_path`), without its zero byte.
const LONGEST_PATH: usize = 107;

/// How often somebody is looked for whose queue is full.
const PAUSE: Duration = Duration::from_millis(5);

/// Where the owner of the ledger in a folder listens. None for a folder whose path is too long for a socket: such a
/// ledger has no owner.
pub(crate) fn socket_in(dir: &Path) -> Option<PathBuf> {
    let path = dir.join(wire::SOCKET);
    (path.as_os_str().as_bytes().len() <= LONGEST_PATH).then_some(path)
}

/// Asks the owner, if there is one, until a deadline.
pub(super) fn ask(dir: &Path, request: &Request, deadline: Instant) -> Asked {
    let Some(path) = socket_in(dir) else { return Asked::Nobody };
    loop {
        match connected(&path) {
            Ok(stream) => return converse(stream, request, deadline),
            // Its queue is full: it is stopped, or very busy.
            Err(Errno::EAGAIN | Errno::EINTR) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(Errno::EAGAIN | Errno::EINTR) => return Asked::Silent,
            Err(_) => return Asked::Nobody,
        }
    }
}

/// Whether somebody listens for the ledger in a folder.
pub(super) fn is_there(dir: &Path) -> bool {
    socket_in(dir).is_some_and(|path| is_listened_at(&path))
}

/// Whether somebody listens there. One whose queue is full does, and is not waited for.
pub(crate) fn is_listened_at(path: &Path) -> bool {
    matches!(connected(path), Ok(_) | Err(Errno::EAGAIN))
}

fn connected(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&stream), &UnixAddr::new(path)?)?;
    Ok(stream)
}

fn converse(stream: OwnedFd, request: &Request, deadline: Instant) -> Asked {
    let stream = UnixStream::from(stream);
    let exchange = || {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(left(deadline)))?;
        wire::send(&stream, &Question::new(request.clone()))?;
        if !is_readable(&stream, deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The answer has begun; a long one takes its time.
        stream.set_read_timeout(Some(left(deadline).max(Duration::from_secs(5))))?;
        wire::receive(BufReader::new(&stream))
    };
    match exchange() {
        Ok(reply) => Asked::Reply(reply),
        Err(error) => match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Asked::Silent,
            io::ErrorKind::InvalidData => Asked::Strange,
            _ => Asked::HungUp,
        },
    }
}

/// The rest of the time; never 0, which would mean for ever.
fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

fn is_readable(stream: &UnixStream, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = left(deadline).as_millis().min(i32::MAX.unsigned_abs().into());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stream.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
