//! The resident owner: holds the ledger open and answers plugins and the command line over a Unix socket.
//!
//! It is optional, and it may be killed at any moment. While it lives it has the ledger's lock, so nobody else opens
//! the database; when it is gone the lock is free, and whoever asks opens the database as if there had never been an
//! owner. A request whose answer was lost is carried out again, which changes nothing: see
//! [`crate::operation::Wish::lease_id`].

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::UnixAddr;
use nix::sys::socket::getsockname;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::ledger::{Resident, socket_in};
use crate::{Error, Ledger};

mod connection;
mod metrics;
mod worker;

use worker::Worker;

/// How long requests may take that are under way when the owner is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Where the owner listens.
#[derive(Debug)]
pub(crate) enum Place {
    /// At a socket of its own in the ledger's folder.
    Own,
    /// At one that somebody has made for it, as systemd does (sd_listen_fds(3)).
    Inherited(UnixListener),
}

/// Serves a ledger until SIGTERM or SIGINT. `ready` is called when the ledger is open and the socket is there.
///
/// # Errors
/// The ledger could not be had, the socket not be made, or the ledger's folder was removed meanwhile.
pub(crate) fn serve(ledger: &Ledger, place: Place, ready: impl FnOnce(&Path)) -> Result<(), Error> {
    let resident = Resident::open(ledger)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Serve)?;
    // Before there is a socket: whoever sees it may tell the owner to stop.
    let stops = {
        let _inside = runtime.enter();
        [stop_signal(SignalKind::terminate())?, stop_signal(SignalKind::interrupt())?]
    };
    let (listener, own) = match place {
        Place::Own => {
            let path = socket_in(ledger.dir()).ok_or_else(|| Error::SocketPath { path: ledger.dir().to_owned() })?;
            (bind(&path)?, Some(path))
        }
        Place::Inherited(listener) => (listener, None),
    };
    let worker = Worker::start(resident).map_err(Error::Serve)?;
    ready(own.as_deref().unwrap_or(&address_of(&listener)));
    let served = runtime.block_on(listen(listener, worker, stops));
    if let Some(path) = own {
        // Whoever finds it there without anybody listening goes on without an owner.
        let _ = fs::remove_file(path);
    }
    served
}

/// The socket is made under another name and moved to its place when it is for its owner alone and listens. The lock
/// is held, so what is there already belongs to nobody.
fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Socket { path: path.to_owned(), source };
    let building = path.with_extension("new");
    let _ = fs::remove_file(&building);
    let listener = UnixListener::bind(&building).map_err(failed)?;
    fs::set_permissions(&building, fs::Permissions::from_mode(0o600)).map_err(failed)?;
    fs::rename(&building, path).map_err(failed)?;
    Ok(listener)
}

fn address_of(listener: &UnixListener) -> PathBuf {
    let address = getsockname::<UnixAddr>(listener.as_raw_fd()).ok();
    address.as_ref().and_then(UnixAddr::path).map(Path::to_owned).unwrap_or_default()
}

async fn listen(listener: UnixListener, worker: Worker, mut stops: [Signal; 2]) -> Result<(), Error> {
    listener.set_nonblocking(true).map_err(Error::Serve)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::Serve)?;
    let [terminate, interrupt] = &mut stops;
    let mut visitors = JoinSet::new();
    let ended = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => receive(stream, &worker, &mut visitors),
                // Out of descriptors, or a visitor that has gone again.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = visitors.join_next(), if !visitors.is_empty() => {}
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            lost = worker.lost() => break Err(lost),
        }
    };
    drop(listener);
    let finish = async { while visitors.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, finish).await;
    visitors.abort_all();
    worker.stop();
    ended
}

fn receive(stream: UnixStream, worker: &Worker, visitors: &mut JoinSet<()>) {
    let counters = worker.counters();
    if connection::may_ask(&stream) {
        visitors.spawn(connection::serve(stream, worker.queue(), counters));
    } else {
        counters.strangers();
    }
}

fn stop_signal(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::Serve)
}
