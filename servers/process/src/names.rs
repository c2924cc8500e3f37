//! The servers by name: what root tells of them, and the capabilities that processes are given to call them.

use core::sync::atomic::{AtomicU64, Ordering};

use abi::{Handle, Rights};
use api::supervisor::SupervisorClient;
use rt::call;
use rt::errno::Errno;
use rt::saved::{self, Part, Saved};
use rt::service::until_answered;

/// The name of root itself, as the one who looks after servers.
const ROOT: &str = "root";
/// Servers that there are at most.
const SERVERS: usize = 32;

/// Where this server's own capabilities to call the memory server and the file server as root are, behind all others.
pub const MEMORY_AS_ROOT: usize = SERVERS - 1;
/// See [`MEMORY_AS_ROOT`].
pub const FILES_AS_ROOT: usize = SERVERS - 2;

/// This server's own capabilities to the servers, by their places in root's list; what processes have is derived from them,
/// so they stay.
struct Endpoints([AtomicU64; SERVERS]);

// SAFETY: only atomics, all of whose values are valid.
unsafe impl Saved for Endpoints {
    const VERSION: u64 = 1;
}

/// Who knows the servers.
pub struct Names {
    root: SupervisorClient,
    endpoints: &'static Endpoints,
}

impl Names {
    /// Those that root tells to whom it gave this capability.
    pub fn new(root: Handle) -> Self {
        // SAFETY: root gave this server saved memory; the shared part is this and nothing else.
        let opened = unsafe { saved::open::<Endpoints>(Part::Shared) };
        let opened = opened.unwrap_or_else(|| crate::give_up("saved memory", "of another version"));
        opened.keep();
        Self { root: SupervisorClient(root), endpoints: opened.saved }
    }

    /// The capability at a place of its own, which this server's first life makes.
    pub fn own(&self, place: usize, make: impl FnOnce() -> Handle) -> Handle {
        let place = &self.endpoints.0[place];
        if place.load(Ordering::Acquire) == 0 {
            place.store(make().0, Ordering::Release);
        }
        Handle(place.load(Ordering::Acquire))
    }

    /// Gives the process `number`, whose address space is `space`, a capability to call the server `name`, by which it
    /// is known there. Returns its handle of it.
    pub fn give(&self, name: &[u8], space: Handle, number: u64, is_trusted: bool) -> Result<Handle, Errno> {
        let name = core::str::from_utf8(name).map_err(|_| Errno::Invalid)?;
        let (endpoint, is_for_all) = if name == ROOT { (self.root.0, false) } else { self.find(name)? };
        if !is_for_all && !is_trusted {
            return Err(Errno::NotPermitted);
        }
        call::grant_badged(endpoint, space, Rights::USE, number).map_err(|_| Errno::NoMemory)
    }

    /// The server of this name, and whether everybody may call it.
    fn find(&self, name: &str) -> Result<(Handle, bool), Errno> {
        let ask = |index: usize| until_answered(|| self.root.server(index as u64)).ok();
        let mut servers = (0..SERVERS).map_while(|index| Some((index, ask(index)?)));
        let (index, server) = servers.find(|(_, server)| server.name() == name).ok_or(Errno::NoEntry)?;
        let place = &self.endpoints.0[index];
        let mut endpoint = place.load(Ordering::Acquire);
        if endpoint == 0 {
            let new = until_answered(|| self.root.endpoint(index as u64)).map_err(|_| Errno::NoEntry)?;
            endpoint = match place.compare_exchange(0, new.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => new.0,
                Err(other) => {
                    // Another CPU was faster; nothing was derived from this one yet.
                    let _ = call::delete(new);
                    other
                }
            };
        }
        Ok((Handle(endpoint), server.is_for_all))
    }
}
