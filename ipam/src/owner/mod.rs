//! The resident owner: holds the ledger open and answers plugins and the command line over a Unix socket.
//!
//! It is optional, and it may be killed at any moment. While it lives it has the ledger's lock, so nobody else opens
//! the database; when it is gone the lock is free, and whoever asks opens the database as if there had never been an
//! owner. A request whose answer was lost is carried out again, which changes nothing: see
//! [`crate::operation::Wish::lease_id`].

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::ledger::{Resident, socket_in};
use crate::{Error, Ledger};

mod connection;
mod door;
mod worker;

use door::Door;
use worker::Worker;

/// How long requests may take that are under way when the owner is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// How often to look whether plugins still find the socket.
const LOOK: Duration = Duration::from_secs(1);

/// Where the owner listens.
#[derive(Debug)]
pub(crate) enum Place {
    /// At a socket of its own in the ledger's folder.
    Own,
    /// At one that somebody has made for it, as systemd does (sd_listen_fds(3)).
    Inherited(UnixListener),
}

/// Serves a ledger until SIGTERM or SIGINT; its metrics tell of the networks in a folder of configs, too. `ready` is called when the ledger is open and the socket is there.
///
/// # Errors
/// The ledger could not be had, the socket not be made, or plugins do not find it any more.
pub(crate) fn serve(ledger: &Ledger, conf_dir: &Path, place: Place, ready: impl FnOnce(&Path)) -> Result<(), Error> {
    let resident = Resident::open(ledger)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Serve)?;
    // Before there is a socket: whoever sees it may tell the owner to stop.
    let stops = {
        let _inside = runtime.enter();
        [stop_signal(SignalKind::terminate())?, stop_signal(SignalKind::interrupt())?]
    };
    let path = socket_in(ledger.dir()).ok_or_else(|| Error::SocketPath { path: ledger.dir().to_owned() })?;
    let (door, listener) = Door::open(path, place)?;
    let worker = Worker::start(resident, conf_dir).map_err(Error::Serve)?;
    ready(door.path());
    runtime.block_on(listen((listener, door), worker, stops))
}

async fn listen(at: (UnixListener, Door), worker: Worker, mut stops: [Signal; 2]) -> Result<(), Error> {
    let (listener, door) = at;
    listener.set_nonblocking(true).map_err(Error::Serve)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(Error::Serve)?;
    let [terminate, interrupt] = &mut stops;
    let mut visitors = JoinSet::new();
    let mut look = tokio::time::interval(LOOK);
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
            () = worker.lost() => break Ok(()),
            _ = look.tick() => if !door.stands() {
                break Err(Error::Unreachable { path: door.path().to_owned() });
            },
        }
    };
    // Before the lock is free: whoever has it next may be an owner who makes a socket there.
    door.close();
    drop(listener);
    let finish = async { while visitors.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(GRACE, finish).await;
    // Until they are dropped: as long as one of them has a way to the worker, the worker waits for what comes that way.
    visitors.shutdown().await;
    worker.stop().map_or(ended, Err)
}

fn receive(stream: UnixStream, worker: &Worker, visitors: &mut JoinSet<()>) {
    let host = worker.host();
    if connection::may_ask(&stream) {
        visitors.spawn(connection::serve(stream, host));
    } else {
        host.counters.strangers();
    }
}

fn stop_signal(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(Error::Serve)
}
