//! Which servers there are: their programs, numbers and workers, and what each of them is given.

use abi::{Handle, Rights, initial};
use api::badge;
use api::files::FileClient;
use api::memory::MemoryClient;
use rt::call;
use rt::layout::{ARENA, HEAP, STACK, WORKER_STACKS};
use rt::memory;
use rt::service::BEGIN;
use spin::Once;

use crate::process::{self, Draft, Process, SpawnError, draft};
use crate::{BOTH, Given, give_up, pool, service};

/// A server.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, which is also its program's.
    pub name: &'static str,
    /// Its number as a process.
    pub number: u64,
    /// Workers that it may have on a CPU: one that serves, and those that wait for other servers meanwhile.
    pub workers: u32,
    /// Whether it sees windows and objects.
    pub sees_objects: bool,
}

/// All servers but root, in the order in which they start. Everybody may call each of them; what a caller may do
/// there, the server decides by its badge.
pub const SERVERS: [Entry; 3] = [
    Entry { name: "memory", number: badge::MEMORY, workers: 1, sees_objects: false },
    Entry { name: "files", number: badge::FILES, workers: 8, sees_objects: true },
    Entry { name: "echo", number: 4, workers: 2, sees_objects: false },
];
/// Root's own workers on a CPU: each waits for a process.
const OWN_WORKERS: u32 = 16;

/// What root keeps of the servers.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Their endpoints, in the order of [`SERVERS`].
    pub endpoints: [Handle; SERVERS.len()],
    /// Root's own endpoint.
    pub own: Handle,
    /// The memory server, called as root.
    pub memory: MemoryClient,
    /// The file server, called as root.
    pub files: FileClient,
    /// What root was given.
    pub given: Given,
}

static STARTED: Once<Started> = Once::new();

/// The servers.
pub fn started() -> &'static Started {
    STARTED.get().unwrap_or_else(|| give_up("asked too early", "no server was started yet"))
}

/// The endpoint of the server of this name.
pub fn endpoint(name: &str) -> Option<Handle> {
    let index = SERVERS.iter().position(|entry| entry.name == name)?;
    Some(started().endpoints[index])
}

/// The name of the first program to start, if the command line asks for one.
pub fn first_program(given: &Given) -> Option<&'static str> {
    given.value("workload").map(|_| "bench")
}

/// Starts all servers, root's own service too.
pub fn start_servers(given: Given) {
    let [memory, files, echo] = SERVERS;
    let fail = |entry: Entry| move |error: SpawnError| give_up(entry.name, error);
    let first = start_memory(&given, memory).unwrap_or_else(fail(memory));
    let root = call::mint(first, Rights::USE, badge::ROOT);
    let client = MemoryClient(root.unwrap_or_else(|error| give_up("the memory server", error)));
    let own = begin_own_service(client).unwrap_or_else(|error| give_up("root's own service", error));
    let start = |entry: Entry| start_server(&given, entry, &client, first).unwrap_or_else(fail(entry));
    let endpoints = [first, start(files), start(echo)];
    let files = call::mint(endpoints[1], Rights::USE, badge::ROOT);
    let files = FileClient(files.unwrap_or_else(|error| give_up("the file server", error)));
    STARTED.call_once(|| Started { endpoints, own, memory: client, files, given });
}

/// Makes the endpoint of a server that is about to start, and tells it that it can begin.
fn begin_server(draft: Draft, entry: Entry) -> Result<Handle, SpawnError> {
    let Process { space, entry: start, .. } = draft.process;
    // SAFETY: the new program's stacks are there, and enough for all CPUs.
    let endpoint = unsafe { call::create_endpoint(space, start, WORKER_STACKS, STACK, entry.workers) }?;
    let mut draft = draft;
    draft.block.endpoint = call::grant(endpoint, space, Rights::ALL)?;
    // Servers stay, and so do their pages.
    draft.finish()?;
    let reply = call::call(endpoint, [BEGIN, 0, 0, 0])?;
    if reply.first != 0 {
        give_up(entry.name, "it does not begin");
    }
    Ok(endpoint)
}

/// Starts the memory server, with all memory but what root keeps. It is loaded whole, as nobody is its pager.
fn start_memory(given: &Given, entry: Entry) -> Result<Handle, SpawnError> {
    let mut draft = draft(given, entry.name, entry.number, true)?;
    let space = draft.process.space;
    MEMORY_SPACE.call_once(|| space);
    let kept = pool::kept();
    let largest = initial::memory(0);
    let rest = memory::derive(largest, kept, memory::pages_of(largest)? - kept)?;
    let rights = Rights(Rights::USE.0 | Rights::WRITE.0 | Rights::GRANT.0);
    draft.block.ranges[0] = call::grant(rest, space, rights)?;
    for index in 1..abi::initial::MEMORY_RANGES {
        let range = initial::memory(index);
        if memory::pages_of(range).is_ok() {
            draft.block.ranges[index as usize] = call::grant(range, space, rights)?;
        }
    }
    // The first worker's stack; the server maps the others itself.
    const TOP: u64 = 4;
    for page in [0].into_iter().chain(STACK / abi::PAGE - TOP..STACK / abi::PAGE) {
        let frame = pool::take_filled(|_| ()).ok_or(abi::Error::NoMemory)?;
        let address = WORKER_STACKS + page * abi::PAGE;
        // SAFETY: the new space has nothing there.
        unsafe { memory::map(largest, frame, space, address, 1, BOTH) }?;
    }
    begin_server(draft, entry)
}

/// Root's own endpoint, whose workers' memory comes from the memory server like anybody's.
fn begin_own_service(memory: MemoryClient) -> Result<Handle, SpawnError> {
    let cpus = u64::from(call::cpu_count());
    let space = call::grant(initial::ADDRESS_SPACE, memory_space()?, Rights::USE)?;
    memory.admit(badge::ROOT, space)?;
    for (start, length) in process::worker_stacks(cpus, OWN_WORKERS) {
        memory.anonymous(badge::ROOT, start, length)?;
    }
    let known = pool::HEAP_PAGES * abi::PAGE;
    memory.anonymous(badge::ROOT, HEAP + known, cpus * ARENA - known)?;
    memory.show_objects(badge::ROOT)?;
    // SAFETY: the stacks were just made.
    Ok(unsafe { service::endpoint(WORKER_STACKS, STACK, OWN_WORKERS) }?)
}

/// The memory server's address space.
fn memory_space() -> Result<Handle, SpawnError> {
    MEMORY_SPACE.get().copied().ok_or(SpawnError::Kernel(abi::Error::Destroyed))
}

static MEMORY_SPACE: Once<Handle> = Once::new();

/// Makes a process known to the memory server.
pub fn admit(memory: &MemoryClient, process: &Process) -> Result<(), SpawnError> {
    let theirs = call::grant(process.space, memory_space()?, Rights::USE)?;
    Ok(memory.admit(process.number, theirs)?)
}

fn start_server(
    given: &Given,
    entry: Entry,
    memory: &MemoryClient,
    memory_endpoint: Handle,
) -> Result<Handle, SpawnError> {
    let mut draft = draft(given, entry.name, entry.number, false)?;
    admit(memory, &draft.process)?;
    draft.give_memory(memory, &process::worker_stacks(draft.block.cpus.into(), entry.workers))?;
    draft.block.memory = draft.grant(memory_endpoint, entry.number)?;
    if entry.sees_objects {
        memory.show_objects(entry.number)?;
        draft.block.ranges[0] = call::grant(initial::ARCHIVE, draft.process.space, Rights::USE)?;
        draft.block.words[0] = given.archive.len() as u64;
    }
    begin_server(draft, entry)
}
