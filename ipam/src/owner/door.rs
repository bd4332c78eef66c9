//! The socket as plugins find it: by its path. The owner holds the ledger's lock, so an owner that is not found keeps
//! everybody out.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{UnixAddr, getsockname};

use super::Place;
use crate::Error;
use crate::ledger::is_listened_at;

/// Where the owner listens, and whether it still does.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
    /// Device and inode of the socket's file.
    id: (u64, u64),
    /// Whether the owner made it, and so takes it away.
    own: bool,
}

impl Door {
    /// Makes the socket at the path, or makes sure that the one that was handed over is there.
    pub fn open(path: PathBuf, place: Place) -> Result<(Self, UnixListener), Error> {
        let (listener, own) = match place {
            Place::Own => (bind(&path)?, true),
            Place::Inherited(listener) => (listener, false),
        };
        let handed = address_of(&listener);
        let id = id_of(&path).filter(|id| own || (id_of(&handed) == Some(*id) && is_listened_at(&path)));
        match id {
            Some(id) => Ok((Self { path, id, own }, listener)),
            None => Err(Error::SocketElsewhere { handed, wanted: path }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path still leads to it: somebody may have removed it, or its folder.
    pub fn stands(&self) -> bool {
        id_of(&self.path) == Some(self.id)
    }

    /// Takes the socket away, if it is the owner's own and no other's by now. Whoever finds it without anybody listening
    /// goes on without an owner.
    pub fn close(&self) {
        if self.own && self.stands() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// None if no socket is there.
fn id_of(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok().filter(|found| found.file_type().is_socket())?;
    Some((found.dev(), found.ino()))
}

/// The socket is made under another name and moved to its place when it is for its owner alone and listens. The lock
/// is held, so what is there already belongs to nobody.
fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source: io::Error| Error::Socket { path: path.to_owned(), source };
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
