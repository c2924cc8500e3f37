//! Looking after the servers: root is told when one has ended, and starts it anew behind the same endpoint.
//!
//! The server's address space outlives it, with its mappings, regions and capabilities. Its program is written anew, its heap
//! and zeroed data are taken back, what it saves ([`rt::saved`]) stays; then its threads may run again, and the first
//! call makes workers. Clients that called in between were told so by the kernel.
//!
//! This is done by root's first thread, whose stack and code are there without any pager, and which takes no lock and no
//! memory for it: everybody else may be waiting for the memory server just then. It calls servers, which may wait for one
//! that is dead and that only this thread can start anew: so it waits for none of them longer than [`PATIENCE`].

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use abi::{Handle, Rights};
use alloc::vec::Vec;
use api::supervisor::{NAME, ServerState, State};
use rt::errno::Errno;
use rt::service::{BEGIN, Failure};
use rt::start::Block;
use rt::{call, program};
use spin::Once;

use crate::manifest::{Callers, MEMORY, PROCESS, Restart, SERVERS};
use crate::process::SpawnError;
use crate::{give_up, image, pool, servers};

/// What root keeps of a server to start it anew.
#[derive(Debug)]
pub struct Kept {
    /// Its address space.
    pub space: Handle,
    /// Its endpoint.
    pub endpoint: Handle,
    /// The pages that were written for it alone; the last is the start block's.
    pub pages: Vec<u64>,
    /// Regions that are fresh in each life: start and length.
    pub renewed: Vec<(u64, u64)>,
}

/// A server that is looked after.
struct Place {
    kept: Once<Kept>,
    state: AtomicU32,
    restarts: AtomicU32,
    /// It was ended by somebody who asked for it.
    is_asked: AtomicBool,
    /// When it was started last, and how often it ended by itself soon after that, in a row.
    started: AtomicU64,
    quick_ends: AtomicU32,
}

static PLACES: [Place; SERVERS.len()] = [const {
    Place {
        kept: Once::new(),
        state: AtomicU32::new(State::Ended as u32),
        restarts: AtomicU32::new(0),
        is_asked: AtomicBool::new(false),
        started: AtomicU64::new(0),
        quick_ends: AtomicU32::new(0),
    }
}; SERVERS.len()];

/// What root's first thread waits for: a bit a server, and [`FIRST_PROGRAM`].
static NEWS: Once<Handle> = Once::new();
/// The first program has ended.
const FIRST_PROGRAM: u64 = 1 << 62;
/// A server that ends so soon after its start, in nanoseconds, and so often in a row, stays ended.
const SOON: u64 = 50_000_000;
const MOST_QUICK_ENDS: u32 = 5;
/// What is tried again rests so long between, in nanoseconds.
const REST: u64 = 200_000;
/// How long a server is waited for that may wait for another one, in nanoseconds. What it does goes on without that.
const PATIENCE: u64 = 5_000_000;

fn news() -> Result<Handle, abi::Error> {
    if let Some(news) = NEWS.get() {
        return Ok(*news);
    }
    let made = call::create_notification()?;
    Ok(*NEWS.call_once(|| made))
}

/// Looks after the server at `index` of the manifest, which has begun.
pub fn look_after(index: usize, kept: Kept) -> Result<(), SpawnError> {
    program::watch(kept.space, news()?, 1 << index)?;
    let place = &PLACES[index];
    place.kept.call_once(|| kept);
    place.started.store(call::now(), Ordering::Relaxed);
    place.state.store(State::Running as u32, Ordering::Release);
    Ok(())
}

/// How the server at `index` is.
pub fn state_of(index: usize) -> Option<ServerState> {
    let (place, entry) = (PLACES.get(index)?, SERVERS.get(index)?);
    let state = match place.state.load(Ordering::Acquire) {
        state if state == State::Running as u32 => State::Running,
        state if state == State::Restarting as u32 => State::Restarting,
        _ => State::Ended,
    };
    let mut name = [0; NAME];
    let length = entry.name.len().min(NAME);
    name[..length].copy_from_slice(&entry.name.as_bytes()[..length]);
    let restarts = place.restarts.load(Ordering::Relaxed);
    let is_for_all = entry.callers == Callers::All;
    Some(ServerState { name, number: entry.number, state, restarts, is_for_all })
}

/// Ends the server at `index`.
pub fn end(index: usize) -> Result<(), Errno> {
    let place = PLACES.get(index).ok_or(Errno::NoEntry)?;
    let kept = place.kept.get().ok_or(Errno::NoEntry)?;
    place.is_asked.store(true, Ordering::Relaxed);
    program::end(kept.space).map_err(|_| Errno::NoEntry)
}

/// Gives the process server a capability to call the server at `index`.
pub fn give_endpoint(index: usize) -> Result<Handle, Errno> {
    let kept = |index: usize| PLACES.get(index).and_then(|place| place.kept.get()).ok_or(Errno::NoEntry);
    let rights = Rights(Rights::USE.0 | Rights::GRANT.0);
    call::grant(kept(index)?.endpoint, kept(PROCESS)?.space, rights).map_err(|_| Errno::NoMemory)
}

/// Tells root's first thread that the first program has ended.
pub fn first_program_ended() {
    if let Err(error) = news().and_then(|news| call::notify(news, FIRST_PROGRAM)) {
        give_up("the end of the first program", error);
    }
}

/// Looks after the servers until the first program has ended. Root's first thread.
pub fn until_first_program_ends() {
    let news = news().unwrap_or_else(|error| give_up("news of servers", error));
    let mut ended = 0;
    loop {
        let deadline = if ended == 0 { 0 } else { call::now() + REST };
        match call::wait(news, deadline) {
            Ok(bits) => ended |= bits,
            Err(abi::Error::TimedOut) => {}
            Err(error) => give_up("news of servers", error),
        }
        if ended & FIRST_PROGRAM != 0 {
            return;
        }
        // The memory server comes first: all others need it to begin.
        for index in 0..SERVERS.len() {
            if ended >> index & 1 == 0 {
                continue;
            }
            if ended >> MEMORY & 1 != 0 && index != MEMORY {
                break;
            }
            if start_anew(index) {
                ended &= !(1 << index);
            }
        }
    }
}

/// Starts the server at `index` anew. True if there is nothing more to do.
fn start_anew(index: usize) -> bool {
    let (place, entry) = (&PLACES[index], &SERVERS[index]);
    let Some(kept) = place.kept.get() else { return true };
    // Old news may come when it runs again. If it is about to end, there will be more of them.
    if program::has_ended(kept.space) != Ok(true) {
        return true;
    }
    if place.state.swap(State::Restarting as u32, Ordering::AcqRel) == State::Running as u32 {
        let is_asked = place.is_asked.swap(false, Ordering::Relaxed);
        let is_quick = !is_asked && call::now() < place.started.load(Ordering::Relaxed) + SOON;
        let quick_ends = if is_quick { place.quick_ends.load(Ordering::Relaxed) + 1 } else { 0 };
        place.quick_ends.store(quick_ends, Ordering::Relaxed);
        if entry.restart == Restart::Never || quick_ends > MOST_QUICK_ENDS {
            rt::log!("root: {} has ended, and stays so", entry.name);
            place.state.store(State::Ended as u32, Ordering::Release);
            return true;
        }
    }
    match begin_anew(index, kept) {
        Ok(()) => true,
        // Its last thread is about to end, or another server that it needs has ended.
        Err(SpawnError::Kernel(abi::Error::Busy)) => false,
        Err(SpawnError::Server(Failure::Kernel(abi::Error::TimedOut))) => false,
        Err(SpawnError::Server(failure)) if failure.fate().is_some() => false,
        Err(error) => {
            rt::log!("root: {} can't be started anew: {error:?}", entry.name);
            place.state.store(State::Ended as u32, Ordering::Release);
            true
        }
    }
}

fn begin_anew(index: usize, kept: &Kept) -> Result<(), SpawnError> {
    let (place, entry) = (&PLACES[index], &SERVERS[index]);
    let servers = servers::started();
    for &(start, _) in &kept.renewed {
        servers.memory.renew_until(entry.number, start, call::now() + PATIENCE)?;
    }
    let file = servers.given.program(entry.program).ok_or(image::LoadError::BadProgram)?;
    image::reload(file, index == MEMORY, &kept.pages)?;
    let restarts = place.restarts.load(Ordering::Relaxed) + 1;
    if let Some(&last) = kept.pages.last() {
        const AT: usize = core::mem::offset_of!(Block, restarts);
        pool::rewrite(last, |page| {
            page[AT..AT + size_of::<u64>()].copy_from_slice(&u64::from(restarts).to_ne_bytes());
        })?;
    }
    program::revive(kept.space)?;
    place.restarts.store(restarts, Ordering::Relaxed);
    place.started.store(call::now(), Ordering::Relaxed);
    place.state.store(State::Running as u32, Ordering::Release);
    // It begins by its first call, whosoever that is; one that drives a device must not wait for somebody's. If it ends in
    // it, the next news say so.
    let _ = call::call_until(kept.endpoint, [BEGIN, 0, 0, 0], call::now() + PATIENCE);
    Ok(())
}
