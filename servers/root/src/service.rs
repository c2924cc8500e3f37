//! The service of processes and names, and the table of processes behind it.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use abi::{Handle, Rights, initial};
use api::badge::{self, FIRST_USER, PROCESSES};
use api::process::{ENDED, MAY_PLACE, NAME, ProcessState, Processes};
use rt::call::{self, Message};
use rt::errno::Errno;
use rt::layout::{OBJECT, OBJECTS};
use rt::server::{Place, Server, Turn};
use rt::service::{Answer, Failure, Text};
use rt::start::Block;
use smp::Cpu;
use spin::mutex::SpinMutex;

use crate::image::LoadError;
use crate::manifest::Callers;
use crate::process::{self, Draft, Process, SpawnError, draft};
use crate::{listing, manifest, pool, servers};

/// A place in the table of processes.
enum Entry {
    Free,
    /// It is being made, or somebody waits for its end.
    Busy {
        space: Handle,
        window: u64,
    },
    Running {
        process: Process,
        window: u64,
    },
}

static TABLE: SpinMutex<[Entry; PROCESSES]> = SpinMutex::new([const { Entry::Free }; PROCESSES]);

/// How processes end, as they say themselves.
static STATUS: [AtomicU64; PROCESSES] = [const { AtomicU64::new(ENDED) }; PROCESSES];

/// Which processes may place threads on all CPUs.
static TRUSTED: [AtomicBool; PROCESSES] = [const { AtomicBool::new(false) }; PROCESSES];

struct Root;

static ROOT: Place<Root, 64> = Place::new();

extern "C" fn entry() -> ! {
    rt::server::work(&ROOT)
}

/// Makes root's endpoint, and begins.
///
/// # Safety
/// The stacks are there, for all CPUs, and nobody's.
pub unsafe fn endpoint(stacks: u64, stack: u64, workers: u32) -> Result<Handle, abi::Error> {
    // SAFETY: the caller's.
    let endpoint =
        unsafe { call::create_endpoint(Handle(0), entry as *const () as u64, stacks, stack, workers) }?;
    call::call(endpoint, [rt::service::BEGIN, 0, 0, 0])?;
    Ok(endpoint)
}

impl Server for Root {
    type Replica = ();

    fn new(_: &'static Block) -> Self {
        Self
    }

    fn replica(&self, _: Cpu<'_>) {}

    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        self.dispatch(turn, message.words)
    }

    fn window(&self, _: &Turn<'_, Self>, badge: u64) -> Option<u64> {
        match TABLE.lock().get(badge as usize)? {
            Entry::Free => None,
            Entry::Busy { window, .. } | Entry::Running { window, .. } => Some(OBJECTS + window * OBJECT),
        }
    }
}

/// The endpoint of the server of this name, and who may have it.
fn find(name: &str) -> Option<(Handle, Callers)> {
    if name == "root" {
        return Some((servers::started().supervisor, Callers::Trusted));
    }
    let (index, entry) = manifest::find(name)?;
    Some((servers::started().endpoints[index], entry.callers))
}

fn space_of(badge: u64) -> Option<Handle> {
    match TABLE.lock().get(badge as usize)? {
        Entry::Free => None,
        Entry::Busy { space, .. } => Some(*space),
        Entry::Running { process, .. } => Some(process.space),
    }
}

/// Why a process can't be made, as its parent is told.
fn errno(error: SpawnError) -> Errno {
    match error {
        SpawnError::Load(LoadError::BadProgram) => Errno::BadProgram,
        SpawnError::Load(LoadError::NoMemory) | SpawnError::Kernel(abi::Error::NoMemory) => Errno::NoMemory,
        SpawnError::Server(Failure::Refused(why)) => why,
        error => {
            rt::log!("root: a process can't be made: {error:?}");
            Errno::Invalid
        }
    }
}

impl Processes for Root {
    fn lookup(&self, turn: &Turn<'_, Self>, name: Text) -> Result<Handle, Errno> {
        let name = core::str::from_utf8(name.bytes()).map_err(|_| Errno::Invalid)?;
        let (endpoint, callers) = find(name).ok_or(Errno::NoEntry)?;
        let is_trusted =
            TRUSTED.get(turn.badge as usize).is_some_and(|trusted| trusted.load(Ordering::Relaxed));
        if callers == Callers::Trusted && !is_trusted {
            return Err(Errno::NotPermitted);
        }
        let space = space_of(turn.badge).ok_or(Errno::NoProcess)?;
        call::grant_badged(endpoint, space, Rights::USE, turn.badge).map_err(|_| Errno::NoMemory)
    }

    fn spawn(&self, turn: &Turn<'_, Self>, program: Text, placing: u64, word: u64) -> Result<u64, Errno> {
        let name = core::str::from_utf8(program.bytes()).map_err(|_| Errno::Invalid)?;
        spawn(Wish { word, ..Wish::new(name, turn.badge, placing) }).map_err(errno)
    }

    fn spawn_with(
        &self,
        turn: &Turn<'_, Self>,
        program: Text,
        placing: u64,
        text: Text,
    ) -> Result<u64, Errno> {
        let name = core::str::from_utf8(program.bytes()).map_err(|_| Errno::Invalid)?;
        let text = core::str::from_utf8(text.bytes()).map_err(|_| Errno::Invalid)?;
        spawn(Wish { word: FIRST, text: Some(text), ..Wish::new(name, turn.badge, placing) }).map_err(errno)
    }

    fn wait(&self, turn: &Turn<'_, Self>, process: u64) -> Result<u64, Errno> {
        wait(turn.badge, process).map_err(errno)
    }

    fn kill(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        listing::kill(turn.badge, process)
    }

    fn next(&self, _: &Turn<'_, Self>, number: u64) -> Result<ProcessState, Errno> {
        listing::next(number)
    }

    fn ending(&self, turn: &Turn<'_, Self>, status: u64) -> Result<(), Errno> {
        STATUS.get(turn.badge as usize).ok_or(Errno::NoProcess)?.store(status, Ordering::Release);
        Ok(())
    }
}

/// The word of a program that is started as the first of its kind, not by one of its own.
const FIRST: u64 = u64::MAX;

/// A process that is to be made.
#[derive(Clone, Copy, Debug)]
struct Wish<'a> {
    name: &'a str,
    parent: u64,
    cpu: u32,
    may_place: bool,
    word: u64,
    /// Its arguments; the kernel's command line if there are none.
    text: Option<&'a str>,
}

impl<'a> Wish<'a> {
    /// A process of the program `name`, placed as [`ProcessClient::spawn`] says.
    ///
    /// [`ProcessClient::spawn`]: api::process::ProcessClient::spawn
    const fn new(name: &'a str, parent: u64, placing: u64) -> Self {
        let cpu = (placing & (MAY_PLACE - 1)) as u32;
        Self { name, parent, cpu, may_place: placing & MAY_PLACE != 0, word: 0, text: None }
    }
}

/// Starts the program `name` on the boot CPU and waits for its end. Returns its status.
pub fn run_to_end(name: &str) -> Result<u64, SpawnError> {
    wait(badge::ROOT, spawn(Wish { word: FIRST, ..Wish::new(name, badge::ROOT, MAY_PLACE) })?)
}

fn spawn(wish: Wish<'_>) -> Result<u64, SpawnError> {
    let number = {
        let mut table = TABLE.lock();
        let users = FIRST_USER as usize..PROCESSES;
        let free = users.into_iter().find(|&number| matches!(table[number], Entry::Free));
        let number = free.ok_or(abi::Error::NoMemory)?;
        table[number] = Entry::Busy { space: Handle(0), window: 0 };
        number as u64
    };
    let made = make(wish, number);
    if made.is_err() {
        TABLE.lock()[number as usize] = Entry::Free;
    }
    made.map(|()| number)
}

fn make(wish: Wish<'_>, number: u64) -> Result<(), SpawnError> {
    let servers = servers::started();
    let draft = draft(&servers.given, wish.name, number, false, Handle(0))?;
    let space = draft.process.space;
    let made = equip(draft, wish);
    if made.is_err() {
        end(number, space, &[])?;
    }
    made
}

/// Gives a new process all that it needs, and starts it.
fn equip(mut draft: Draft, wish: Wish<'_>) -> Result<(), SpawnError> {
    let Wish { name, parent, cpu, may_place, word, text } = wish;
    if let Some(text) = text {
        draft.set_text(text);
    }
    let servers = servers::started();
    let number = draft.process.number;
    draft.process.parent = parent;
    servers::admit(&servers.memory, &draft.process)?;
    draft.give_memory(&servers.memory, &process::thread_stacks(draft.block.cpus.into()))?;
    let window = servers.memory.window(number)?;
    let (memory, files) = (servers.endpoints[manifest::MEMORY], servers.endpoints[manifest::FILES]);
    draft.block.memory = draft.grant(memory, number)?;
    draft.block.files = draft.grant(files, number)?;
    servers.files.attach(number, window, parent)?;
    draft.block.processes = draft.grant(servers.own, number)?;
    TRUSTED[number as usize].store(may_place, Ordering::Relaxed);
    if may_place {
        let rights = Rights(Rights::USE.0 | Rights::GRANT.0);
        draft.block.cpu_control = call::grant(initial::CPU_CONTROL, draft.process.space, rights)?;
    }
    draft.block.cpu = cpu;
    draft.block.words[0] = word;
    let mut process = draft.finish()?;
    // Before its first instruction, so that its own calls find it.
    TABLE.lock()[number as usize] = Entry::Busy { space: process.space, window };
    process::start(&mut process, cpu)?;
    let mut state = ProcessState { number, parent, cpu, ..ProcessState::NOBODY };
    let length = name.len().min(NAME);
    state.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    listing::add(state, process.space, process.thread);
    TABLE.lock()[number as usize] = Entry::Running { process, window };
    Ok(())
}

fn wait(parent: u64, number: u64) -> Result<u64, SpawnError> {
    let process = {
        let mut table = TABLE.lock();
        let place = table.get_mut(number as usize).ok_or(abi::Error::BadArgument)?;
        let is_child = matches!(place, Entry::Running { process, .. } if process.parent == parent);
        if !is_child {
            return Err(abi::Error::NoRight.into());
        }
        let space = Handle(0);
        let Entry::Running { process, window } = core::mem::replace(place, Entry::Busy { space, window: 0 })
        else {
            return Err(abi::Error::NoRight.into());
        };
        *place = Entry::Busy { space: process.space, window };
        process
    };
    match call::join(listing::joinable(process.thread), 0) {
        // It may have ended before.
        Ok(_) | Err(abi::Error::Destroyed) => {}
        Err(error) => return Err(error.into()),
    }
    listing::remove(number);
    // Gone already where it could not be derived from.
    let _ = call::delete(process.thread);
    let status = STATUS[number as usize].swap(ENDED, Ordering::AcqRel);
    let ended = end(number, process.space, &process.pages);
    pool::give(process.pages);
    TABLE.lock()[number as usize] = Entry::Free;
    ended.map(|()| status)
}

/// Takes a process apart, with what the servers keep of it.
/// `pages` are root's; the last is the start block's, which is mapped above all others, and so the last that the kernel
/// unmaps.
fn end(number: u64, space: Handle, pages: &[u64]) -> Result<(), SpawnError> {
    match call::destroy(space) {
        // It ended itself already.
        Ok(()) | Err(abi::Error::Destroyed) => {}
        Err(error) => return Err(error.into()),
    }
    call::delete(space)?;
    if let Some(&last) = pages.last() {
        pool::wait_until_unmapped(last);
    }
    let servers = servers::started();
    match servers.files.detach(number) {
        // It did not come so far.
        Ok(()) | Err(Failure::Refused(Errno::NoProcess)) => {}
        Err(error) => return Err(error.into()),
    }
    servers.memory.dismiss(number)?;
    Ok(())
}
