//! What runs inside the pods: an HTTP server or a UDP responder on each port, each telling whom it sees.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kernel::netns::NetNs;
use tiny_http::{Header, Response, Server};

use crate::exchange::Answer;
use crate::manifest::Protocol;

/// The largest datagram that is read, in bytes; more is cut.
const DATAGRAM: usize = 2048;

/// How often a server of datagrams looks up whether it should end. A reader cannot be woken by shutdown(2): the
/// standard library takes the empty answer without a sender for a broken system call.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Why a server does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The network namespace could not be entered.
    #[error("cannot enter the namespace of {name}")]
    Namespace {
        /// Whose.
        name: String,
        /// Why.
        #[source]
        source: Box<kernel::Error>,
    },
    /// Inside, the address could not be bound or served.
    #[error("{name} cannot serve {protocol} on {address}")]
    Listen {
        /// Who.
        name: String,
        /// How.
        protocol: Protocol,
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The running servers of one machine or pod. They stop when this is dropped.
#[derive(Debug)]
pub struct Servers {
    /// `None` is the caller's own.
    netns: Option<Arc<NetNs>>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    door: Door,
    thread: Option<JoinHandle<()>>,
}

/// What a thread waits at, and can be woken from.
enum Door {
    Http(Arc<Server>),
    Udp { socket: Arc<UdpSocket>, closed: Arc<AtomicBool> },
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http(server) => write!(f, "http on {}", server.server_addr()),
            Self::Udp { socket, .. } => write!(f, "udp on {:?}", socket.local_addr()),
        }
    }
}

impl Servers {
    /// Starts a server on each address, bound inside the namespace. Each address is one of the machine's own
    /// rather than "any", so that the answer can tell which one was reached. SCTP ports have no server.
    ///
    /// # Errors
    /// The first address that cannot be served; the servers before it have stopped then.
    pub fn start(name: &str, netns: &Arc<NetNs>, addresses: &[(Protocol, SocketAddr)]) -> Result<Self, ServerError> {
        Self::start_in(name, Some(Arc::clone(netns)), addresses)
    }

    /// The same in the caller's own namespace, which a container may not enter another time.
    ///
    /// # Errors
    /// As of [`start`](Self::start).
    pub fn start_here(name: &str, addresses: &[(Protocol, SocketAddr)]) -> Result<Self, ServerError> {
        Self::start_in(name, None, addresses)
    }

    fn start_in(
        name: &str,
        netns: Option<Arc<NetNs>>,
        addresses: &[(Protocol, SocketAddr)],
    ) -> Result<Self, ServerError> {
        let mut servers = Self { netns, running: Vec::new() };
        for &(protocol, address) in addresses {
            let listen = || match protocol {
                Protocol::Tcp => serve_http(name, address).map(Some),
                Protocol::Udp => serve_udp(name, address).map(Some),
                Protocol::Sctp => Ok(None),
            };
            let running = inside(servers.netns.as_deref(), listen)
                .map_err(|source| ServerError::Namespace { name: name.to_owned(), source: Box::new(source) })?
                .map_err(|source| ServerError::Listen { name: name.to_owned(), protocol, address, source })?;
            servers.running.extend(running);
        }
        Ok(servers)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for running in &mut self.running {
            match &running.door {
                Door::Http(server) => server.unblock(),
                Door::Udp { closed, .. } => closed.store(true, Ordering::Relaxed),
            }
            if let Some(thread) = running.thread.take() {
                // A server's panic has been printed already; there is nobody else to tell.
                let _ = thread.join();
            }
        }
        // The HTTP library wakes its accepting thread by a connection to itself, which must be made inside.
        let running = std::mem::take(&mut self.running);
        let _ = inside(self.netns.as_deref(), move || drop(running));
    }
}

fn inside<T: Send>(netns: Option<&NetNs>, work: impl FnOnce() -> T + Send) -> kernel::Result<T> {
    match netns {
        Some(netns) => netns.run(work),
        None => Ok(work()),
    }
}

fn serve_http(name: &str, address: SocketAddr) -> io::Result<Running> {
    let listener = TcpListener::bind(address)?;
    let server = Arc::new(Server::from_listener(listener, None).map_err(io::Error::other)?);
    let json = Header::from_bytes("Content-Type", "application/json").map_err(|()| io::Error::other("header"))?;
    let (name, door) = (name.to_owned(), Door::Http(Arc::clone(&server)));
    let serve = move || {
        for request in server.incoming_requests() {
            let Some(peer) = request.remote_addr().copied() else { continue };
            let body = answer(&name, peer, address);
            // A client that has gone away misses its own answer only.
            let _ = request.respond(Response::from_data(body).with_header(json.clone()));
        }
    };
    Ok(Running { door, thread: Some(thread::Builder::new().name("http".to_owned()).spawn(serve)?) })
}

fn serve_udp(name: &str, address: SocketAddr) -> io::Result<Running> {
    let socket = Arc::new(UdpSocket::bind(address)?);
    socket.set_read_timeout(Some(LOOK_UP))?;
    let closed = Arc::new(AtomicBool::new(false));
    let (name, door) = (name.to_owned(), Door::Udp { socket: Arc::clone(&socket), closed: Arc::clone(&closed) });
    let serve = move || {
        let mut datagram = [0; DATAGRAM];
        while !closed.load(Ordering::Relaxed) {
            // An error here is that of an earlier answer, or the time to look up.
            let Ok((_, peer)) = socket.recv_from(&mut datagram) else { continue };
            let _ = socket.send_to(&answer(&name, peer, address), peer);
        }
    };
    Ok(Running { door, thread: Some(thread::Builder::new().name("udp".to_owned()).spawn(serve)?) })
}

fn answer(name: &str, peer: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let answer = Answer { name: name.to_owned(), peer, local };
    // Three plain fields always become JSON.
    serde_json::to_vec(&answer).unwrap_or_default()
}
