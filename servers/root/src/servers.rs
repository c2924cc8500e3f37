//! Starting the servers of the [`manifest`], each with what it is given.

use abi::{Handle, Rights, initial};
use alloc::vec::Vec;
use api::badge;
use api::memory::MemoryClient;
use api::process::ProcessClient;
use rt::call;
use rt::layout::{
    ARENA, HEAP, MAX_CPUS, SAVED, SAVED_BYTES, STACK, THREAD_STACKS, THREAD_STACKS_OF_CPU, WORKER_STACKS,
};
use rt::memory;
use rt::service::{BEGIN, until_answered};
use spin::Once;

use crate::manifest::{Endpoints, Entry, FILES, MEMORY, PROCESS, SERVERS};
use crate::process::{self, Draft, Process, SpawnError, draft};
use crate::supervise::{self, Kept};
use crate::{BOTH, Given, devices, give_up, pool, reception};

/// What root keeps of the servers.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// The memory server, called as root.
    pub memory: MemoryClient,
    /// The process server, called as root.
    pub processes: ProcessClient,
    /// What root was given.
    pub given: Given,
}

static STARTED: Once<Started> = Once::new();

/// The servers.
pub fn started() -> &'static Started {
    STARTED.get().unwrap_or_else(|| give_up("asked too early", "no server was started yet"))
}

/// Starts all servers, root's own service too.
pub fn start_all(given: Given) {
    let fail = |entry: Entry| move |error: SpawnError| give_up(entry.name, error);
    let memory = SERVERS[MEMORY];
    let first = start_memory(&given, memory).unwrap_or_else(fail(memory));
    let as_root = |endpoint| {
        call::mint(endpoint, Rights::USE, badge::ROOT)
            .unwrap_or_else(|error| give_up("own capability", error))
    };
    let client = MemoryClient(as_root(first));
    let root = begin_own_service(client).unwrap_or_else(|error| give_up("root's own service", error));
    let mut endpoints = [first; SERVERS.len()];
    for (index, &entry) in SERVERS.iter().enumerate().skip(1) {
        let before = Before { memory: client, endpoints: &endpoints, root };
        endpoints[index] = start_server(&given, index, before).unwrap_or_else(fail(entry));
    }
    let processes = ProcessClient(as_root(endpoints[PROCESS]));
    STARTED.call_once(|| Started { memory: client, processes, given });
}

/// Makes the endpoint of a server that is about to start, and tells it that it can begin.
fn begin_server(draft: Draft, index: usize, renewed: Vec<(u64, u64)>) -> Result<Handle, SpawnError> {
    let entry = SERVERS[index];
    let Process { space, entry: start, .. } = draft.process;
    // SAFETY: the new program's stacks are there, and enough for all CPUs.
    let endpoint = unsafe { call::create_endpoint(space, start, WORKER_STACKS, STACK, entry.workers) }?;
    let mut draft = draft;
    draft.block.endpoint = call::grant(endpoint, space, Rights::ALL)?;
    let process = draft.finish()?;
    let kept = Kept { space, endpoint, pages: process.pages, renewed };
    let reply = call::call(endpoint, [BEGIN, 0, 0, 0])?;
    if reply.first != 0 {
        give_up(entry.name, "it does not begin");
    }
    supervise::look_after(index, kept)?;
    Ok(endpoint)
}

/// Starts the memory server, with all memory but what root keeps. It is loaded whole, as nobody is its pager.
fn start_memory(given: &Given, entry: Entry) -> Result<Handle, SpawnError> {
    let mut draft = draft(given, entry.program, entry.number, true, Handle(0))?;
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
    begin_server(draft, MEMORY, Vec::new())
}

/// Root's own endpoint, for whoever wants to know of servers. Its workers' memory comes from the memory server like
/// anybody's, and so do root's heap, the stack of its thread, and the window by which it calls others.
fn begin_own_service(memory: MemoryClient) -> Result<Handle, SpawnError> {
    const WORKERS: u32 = 2;
    let cpus = u64::from(call::cpu_count());
    let space = call::grant(initial::ADDRESS_SPACE, memory_space()?, Rights::USE)?;
    memory.admit(badge::ROOT, space)?;
    for (start, length) in process::worker_stacks(cpus, WORKERS) {
        memory.anonymous(badge::ROOT, start, length)?;
    }
    memory.anonymous(badge::ROOT, THREAD_STACKS, cpus * THREAD_STACKS_OF_CPU)?;
    let known = pool::HEAP_PAGES * abi::PAGE;
    memory.anonymous(badge::ROOT, HEAP + known, cpus * ARENA - known)?;
    memory.window(badge::ROOT)?;
    // SAFETY: the stacks were just made.
    Ok(unsafe { reception::endpoint(WORKER_STACKS, STACK, WORKERS) }?)
}

/// The memory server's address space.
fn memory_space() -> Result<Handle, SpawnError> {
    MEMORY_SPACE.get().copied().ok_or(SpawnError::Kernel(abi::Error::Destroyed))
}

static MEMORY_SPACE: Once<Handle> = Once::new();

/// Makes a process known to the memory server.
pub fn admit(memory: &MemoryClient, process: &Process) -> Result<(), SpawnError> {
    let theirs = call::grant(process.space, memory_space()?, Rights::USE)?;
    Ok(until_answered(|| memory.admit(process.number, theirs))?)
}

/// What there is when a server is started.
struct Before<'a> {
    /// The memory server, called as root.
    memory: MemoryClient,
    /// The endpoints of those that were started before.
    endpoints: &'a Endpoints,
    /// Root's own endpoint.
    root: Handle,
}

fn start_server(given: &Given, index: usize, before: Before<'_>) -> Result<Handle, SpawnError> {
    let (entry, memory) = (SERVERS[index], &before.memory);
    let account = match entry.account {
        0 => Handle(0),
        bytes => memory::create_account(Handle(0), bytes)?,
    };
    let mut draft = draft(given, entry.program, entry.number, false, account)?;
    admit(memory, &draft.process)?;
    let cpus = u64::from(draft.block.cpus);
    draft.give_memory(memory, &process::worker_stacks(cpus, entry.workers))?;
    if entry.saves {
        memory.anonymous(entry.number, SAVED, (MAX_CPUS + 1) * SAVED_BYTES)?;
    }
    draft.block.memory = draft.grant(before.endpoints[MEMORY], entry.number)?;
    if entry.sees_objects {
        memory.show_objects(entry.number)?;
        draft.block.ranges[0] = call::grant(initial::ARCHIVE, draft.process.space, Rights::USE)?;
        draft.block.words[0] = given.archive.len() as u64;
    }
    if entry.starts_programs {
        give_programs(&mut draft, &before)?;
    }
    if entry.drives_serial_port {
        devices::give_serial_port(&mut draft)?;
        draft.give_stacks(memory)?;
    }
    let mut renewed = draft.zeroed.clone();
    renewed.push((HEAP, cpus * ARENA));
    begin_server(draft, index, renewed)
}

/// Gives the process server what it makes processes of, beside the boot archive: pages, endpoints, the right to place
/// threads, and root to ask for servers by name.
fn give_programs(draft: &mut Draft, before: &Before<'_>) -> Result<(), SpawnError> {
    let space = draft.process.space;
    let passed = Rights(Rights::USE.0 | Rights::GRANT.0);
    let written = Rights(passed.0 | Rights::WRITE.0 | Rights::EXECUTE.0);
    let pages = pool::programs();
    let pages = memory::derive(initial::memory(0), pages.start, pages.end - pages.start)?;
    draft.block.ranges[1] = call::grant(pages, space, written)?;
    draft.block.cpu_control = call::grant(initial::CPU_CONTROL, space, passed)?;
    draft.block.processes = call::grant_badged(before.root, space, passed, draft.process.number)?;
    let [archive, ..] = draft.block.words;
    draft.block.words = [
        archive,
        call::grant(before.endpoints[MEMORY], space, passed)?.0,
        call::grant(before.endpoints[FILES], space, passed)?.0,
        call::grant(memory_space()?, space, Rights::USE)?.0,
    ];
    Ok(())
}
