//! Root as the one who looks after servers: which there are, how they are, and ending one. Who may place threads on all
//! CPUs can look it up, by the name `root`.

use abi::Handle;
use rt::service::Reply;
use rt::window::Slot;

/// Bytes of a server's name.
pub const NAME: usize = 16;

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// It serves.
    Running = 1,
    /// It has ended and is being started anew.
    Restarting = 2,
    /// It has ended for good.
    Ended = 3,
}

/// A server as root sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Its name, filled up with zeroes.
    pub name: [u8; NAME],
    /// Its number as a process.
    pub number: u64,
    /// How it is.
    pub state: State,
    /// How often it was started anew.
    pub restarts: u32,
    /// Whether every process may call it, or only those that may place threads on all CPUs.
    pub is_for_all: bool,
}

/// Where a state's word has whether everybody may call the server, and how often it was started anew.
const FOR_ALL: u64 = 1 << 31;
const RESTARTS_SHIFT: u32 = 32;

impl ServerState {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        let end = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME);
        core::str::from_utf8(&self.name[..end]).unwrap_or_default()
    }
}

impl Reply for ServerState {
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        let name = u128::from_le_bytes(self.name);
        let for_all = if self.is_for_all { FOR_ALL } else { 0 };
        let state = self.state as u64 | for_all | u64::from(self.restarts) << RESTARTS_SHIFT;
        Some([name as u64, (name >> 64) as u64, self.number, state])
    }

    fn take([low, high, number, state]: [u64; 4], _: Slot) -> Self {
        let name = (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
        let restarts = (state >> RESTARTS_SHIFT) as u32;
        let is_for_all = state & FOR_ALL != 0;
        let state = match (state & (FOR_ALL - 1)) as u32 {
            1 => State::Running,
            2 => State::Restarting,
            _ => State::Ended,
        };
        Self { name, number, state, restarts, is_for_all }
    }
}

rt::interface! {
    /// Looks after the servers.
    Supervisor, SupervisorClient {
        /// The server at this place of the list, from 0 on; `NoEntry` behind the last.
        1 server(index: u64) -> ServerState;
        /// Ends the server at this place of the list, on all CPUs at whatever they do; it is started anew if its manifest
        /// says so. Root itself can't be ended.
        2 end(index: u64) -> ();
        /// A capability to call the server at this place of the list, which others are derived from. For the process server.
        3 endpoint(index: u64) -> Handle;
    }
}
