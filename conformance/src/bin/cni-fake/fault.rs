//! The one sentence that this plugin violates, and a way to learn where that could show.
//!
//! Nothing but [`Fault::is`] tells a plugin with a mistake from the faultless one. So a call in which `is` is never asked
//! about a mistake is the same call for the plugin that makes it, and the faultless plugin can tell which cases those are: it
//! reports every question to a datagram socket beside the executable, if there is one. Code asks last: first whether the
//! mistake would change anything here, then whether it is to be made.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The socket's name.
const SOCKET: &str = "asked.sock";

/// The id of the case that is done wrong; empty for none.
#[derive(Debug, Clone)]
pub struct Fault {
    id: String,
    /// Datagrams to a socket change nothing that outlives the call: no place to be killed at is added.
    report: Option<Rc<(UnixDatagram, PathBuf)>>,
}

impl Fault {
    /// The mistake that the executable's name says.
    pub fn new(id: &str, executable: &Path) -> Self {
        let path = executable.with_file_name(SOCKET);
        let is_wanted = id.is_empty() && path.exists();
        let socket = if is_wanted { UnixDatagram::unbound().ok() } else { None };
        Self { id: id.to_owned(), report: socket.map(|socket| Rc::new((socket, path))) }
    }

    /// Whether it is this one.
    pub fn is(&self, case: &str) -> bool {
        if let Some((socket, path)) = self.report.as_deref() {
            // The reader reads until the case has ended; a datagram waits while the queue is full.
            let _ = socket.send_to(case.as_bytes(), path);
        }
        self.id == case
    }
}
