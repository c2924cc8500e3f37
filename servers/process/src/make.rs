//! Making a process: an address space with a program, the capabilities that it is given, and memory behind its regions.

use core::sync::atomic::{Ordering, fence};

use abi::{Access, Handle, PAGE, Rights};
use api::badge;
use api::process::NAME;
use rt::call::{self, Placement};
use rt::errno::Errno;
use rt::layout::{
    ARENA, HEAP, PROCESS_STACK_END, STACK, START_BLOCK, THREAD_STACKS, THREAD_STACKS_OF_CPU, region_of_parts,
};
use rt::memory;
use rt::server::Turn;
use rt::service::{Failure, until_answered, until_done};
use rt::start::Block;
use rt::thread::PRIORITY;

use crate::image::{Program, Segment};
use crate::stock::At;
use crate::table::{Entry, State, Tables};
use crate::{Given, Processes};

/// Reading and writing.
pub const BOTH: Access = Access::READ.with(Access::WRITE);

/// A process that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Its program.
    pub program: &'a [u8],
    /// Who starts it.
    pub parent: u64,
    /// By what number its parent knows the request.
    pub request: u32,
    /// Where it runs.
    pub cpu: u32,
    /// Whether it may place threads.
    pub may_place: bool,
    /// Whether it waits to be started.
    pub is_held: bool,
    /// A word for the program.
    pub word: u64,
    /// Its arguments; this server's own if there are none.
    pub text: Option<&'a [u8]>,
}

/// A process on its way: its number, its entry, its address space.
#[derive(Clone, Copy)]
struct Draft<'a> {
    number: u64,
    entry: &'a Entry,
    space: Handle,
}

/// Who has a process started: an entry, and which life of it.
#[derive(Clone, Copy)]
struct Parent {
    entry: &'static Entry,
    space: u64,
}

impl Parent {
    /// The process of this number, which is there now; `None` if it is a server, or root.
    fn of(tables: &Tables, number: u64) -> Option<Self> {
        tables.find(number).map(|entry| Self { entry, space: entry.space.load(Ordering::Acquire) })
    }

    /// Whether nobody has begun to take it apart. Its first thread may run before it is noted as running.
    fn is_there(self) -> bool {
        let is_it = self.entry.space.load(Ordering::Acquire) == self.space;
        is_it && matches!(self.entry.state(), State::Running | State::Made(_))
    }
}

/// Why a call of the kernel was refused, as callers are told.
pub fn refused(error: abi::Error) -> Errno {
    match error {
        abi::Error::NoMemory => Errno::NoMemory,
        abi::Error::Busy => Errno::Busy,
        _ => Errno::Invalid,
    }
}

/// The same of another server.
pub fn failed(failure: Failure) -> Errno {
    match failure {
        Failure::Refused(errno) => errno,
        Failure::Kernel(error) => refused(error),
    }
}

/// Asks another server until it answers: root starts it anew where it dies.
pub fn ask<R>(what: impl FnMut() -> Result<R, Failure>) -> Result<R, Errno> {
    until_answered(what).map_err(failed)
}

impl Processes {
    /// Makes a process and starts it; returns its number.
    pub fn make(&self, turn: &Turn<'_, Self>, wish: Wish<'_>) -> Result<u64, Errno> {
        let find = |program: &(usize, &Program)| program.1.name.as_bytes() == wish.program;
        let (index, program) = self.programs.iter().enumerate().find(find).ok_or(Errno::BadProgram)?;
        let here = turn.cpu.id().index() as u32;
        // The entry that was used last is in this CPU's cache.
        let from = if wish.cpu == here { turn.replica.next.get() } else { 0 };
        let (local, number, entry) = self.tables.claim(wish.cpu, here, from).ok_or(Errno::NoMemory)?;
        if wish.cpu == here {
            turn.replica.next.set(local);
        }
        entry.clear();
        let parent = Parent::of(&self.tables, wish.parent);
        let made = self.equip(turn, wish, number, entry, (index, program));
        if made.is_err() {
            self.take_apart(number, entry, State::Made(here))?;
        }
        made?;
        self.end_for_nobody(turn, parent, number, entry)?;
        Ok(number)
    }

    /// Ends a process that was just noted as running, if its parent is about to be taken apart: who does that looks for its
    /// children when it has said so, and one of both sees the other.
    fn end_for_nobody(
        &self,
        turn: &Turn<'_, Self>,
        parent: Option<Parent>,
        number: u64,
        entry: &Entry,
    ) -> Result<(), Errno> {
        fence(Ordering::SeqCst);
        if parent.is_none_or(|parent| parent.is_there()) {
            return Ok(());
        }
        self.reap(turn, number, entry)?;
        Err(Errno::NoProcess)
    }

    fn equip(
        &self,
        turn: &Turn<'_, Self>,
        wish: Wish<'_>,
        number: u64,
        entry: &Entry,
        (index, program): (usize, &Program),
    ) -> Result<(), Errno> {
        self.enter(wish, entry)?;
        entry.program.store(index as u16, Ordering::Relaxed);
        let account = entry.handle(|entry| &entry.account).unwrap_or(Handle(0));
        let threads = entry.thread_limit.load(Ordering::Relaxed);
        let space = memory::create_limited_space(account, threads).map_err(refused)?;
        entry.space.store(space.0, Ordering::Release);
        let draft = Draft { number, entry, space };
        let at = At { tables: &self.tables, cpu: turn.cpu.id().index() as u32, texts: &turn.replica.texts };
        let theirs = call::grant(space, Given(self.block).memory_space(), Rights::USE).map_err(refused)?;
        ask(|| self.memory_as_root.admit(number, theirs))?;
        for segment in &program.segments {
            self.load(at, draft, index, segment)?;
        }
        self.give_memory(draft)?;
        let window = ask(|| self.memory_as_root.window(number))?;
        // Known here as all servers' `window_of` knows it, so that it is taken from here, too, when the process ends.
        let window = ask(|| self.memory.window_of(number)).unwrap_or(window);
        entry.window.store(window, Ordering::Release);
        ask(|| self.files_as_root.attach(number, window, wish.parent))?;
        self.write_block(at, draft, wish)?;
        if !wish.is_held {
            self.run(wish.cpu, entry, program)?;
        }
        entry.set_state(State::Running);
        Ok(())
    }

    /// Makes its first thread.
    fn run(&self, cpu: u32, entry: &Entry, program: &Program) -> Result<(), Errno> {
        let space = entry.handle(|entry| &entry.space).ok_or(Errno::NoProcess)?;
        let place = Placement { cpu, priority: PRIORITY };
        let words = [program.entry, PROCESS_STACK_END, 0];
        let thread = call::thread_create_in(space, place, words, self.block.cpu_control).map_err(refused)?;
        entry.thread.store(thread.0, Ordering::Release);
        Ok(())
    }

    /// Lets a process run that was held until now.
    pub fn start_held(&self, turn: &Turn<'_, Self>, number: u64, entry: &Entry) -> Result<(), Errno> {
        let program = self.programs.get(usize::from(entry.program.load(Ordering::Relaxed)));
        let program = program.ok_or(Errno::BadProgram)?;
        let here = turn.cpu.id().index() as u32;
        let parent = Parent::of(&self.tables, turn.badge);
        if !entry.exchange(State::Running, State::Made(here)) {
            return Err(Errno::NoProcess);
        }
        let started = self.run(self.tables.home(number), entry, program);
        entry.set_state(State::Running);
        self.end_for_nobody(turn, parent, number, entry)?;
        started
    }

    /// Writes down a capability that a held process inherits.
    pub fn bequeath(&self, entry: &Entry, place: u64, handle: Handle) -> Result<(), Errno> {
        let place = usize::try_from(place).ok().filter(|&place| place < Block::INHERITED);
        let place = place.ok_or(Errno::Invalid)?;
        self.stock.change(entry.block.load(Ordering::Relaxed), |page| {
            // SAFETY: the page has a block, as `write_block` made it.
            unsafe { &mut *page.as_mut_ptr().cast::<Block>() }.inherited[place] = handle;
        });
        Ok(())
    }

    /// Takes down whose process it is, and makes its account.
    fn enter(&self, wish: Wish<'_>, entry: &Entry) -> Result<(), Errno> {
        let mut name = [0; NAME];
        let length = wish.program.len().min(NAME);
        name[..length].copy_from_slice(&wish.program[..length]);
        let name = u128::from_le_bytes(name);
        entry.name[0].store(name as u64, Ordering::Relaxed);
        entry.name[1].store((name >> 64) as u64, Ordering::Relaxed);
        entry.parent.store(wish.parent, Ordering::Relaxed);
        entry.request.store(wish.request, Ordering::Relaxed);
        entry.is_trusted.store(wish.may_place.into(), Ordering::Relaxed);
        let Some(parent) = self.tables.find(wish.parent) else { return Ok(()) };
        if parent.is_parent.load(Ordering::Relaxed) == 0 {
            parent.is_parent.store(1, Ordering::Relaxed);
        }
        let threads = parent.thread_limit.load(Ordering::Relaxed);
        entry.thread_limit.store(threads, Ordering::Relaxed);
        entry.is_limited.store((threads != 0).into(), Ordering::Relaxed);
        let limit = parent.limit.load(Ordering::Relaxed);
        if limit != 0 {
            entry.limit.store(limit, Ordering::Relaxed);
            let account = memory::create_account(Handle(0), limit).map_err(refused)?;
            entry.account.store(account.0, Ordering::Release);
        }
        Ok(())
    }

    /// Maps what a segment has data for; the memory server is the pager of the rest.
    fn load(&self, at: At<'_>, draft: Draft<'_>, program: usize, segment: &Segment) -> Result<(), Errno> {
        let (mut first, mut from, mut count) = (0, segment.first_page(), 0);
        let map = |first, from, count| {
            if count == 0 {
                return Ok(());
            }
            self.stock.map(first, draft.space, from, u64::from(count), segment.access).map_err(refused)
        };
        for address in (segment.first_page()..segment.filled()).step_by(PAGE as usize) {
            let index = ((address - segment.first_page()) / PAGE) as usize;
            let copy = |memory: &mut [u8; PAGE as usize]| segment.copy(memory, address);
            let page = match segment.text {
                Some(text) => self.stock.text(at, (program, text + index), copy),
                None => self.stock.take_for(at, (draft.number, draft.entry), copy),
            };
            let page = page.ok_or(Errno::NoMemory)?;
            // Neighbours are mapped by one call.
            if count == 0 || page != first + count || u64::from(count) == abi::MAP_LIMIT {
                map(first, from, count)?;
                (first, from, count) = (page, address, 0);
            }
            count += 1;
        }
        map(first, from, count)?;
        if segment.filled() < segment.end {
            let length = (segment.end - segment.filled()).next_multiple_of(PAGE);
            self.give_region(draft.number, segment.filled(), length)?;
        }
        Ok(())
    }

    fn give_region(&self, number: u64, start: u64, length: u64) -> Result<(), Errno> {
        until_done(|| self.memory_as_root.anonymous(number, start, length), Errno::Exists).map_err(failed)
    }

    /// Makes the memory server the pager of heap and stacks.
    fn give_memory(&self, draft: Draft<'_>) -> Result<(), Errno> {
        let cpus = u64::from(self.block.cpus);
        for (start, length) in [
            (HEAP, region_of_parts(cpus, ARENA)),
            (PROCESS_STACK_END - STACK, STACK),
            (THREAD_STACKS, region_of_parts(cpus, THREAD_STACKS_OF_CPU)),
        ] {
            self.give_region(draft.number, start, length)?;
        }
        Ok(())
    }

    /// Grants the capabilities that every process has, and writes its start block.
    fn write_block(&self, at: At<'_>, draft: Draft<'_>, wish: Wish<'_>) -> Result<(), Errno> {
        let Draft { number, entry, space } = draft;
        let given = Given(self.block);
        let grant = |endpoint| call::grant_badged(endpoint, space, Rights::USE, number).map_err(refused);
        let (memory, files) = (grant(given.memory())?, grant(given.files())?);
        let processes = grant(self.block.endpoint)?;
        let cpu_control = if wish.may_place {
            let rights = Rights(Rights::USE.0 | Rights::GRANT.0);
            call::grant(self.block.cpu_control, space, rights).map_err(refused)?
        } else {
            Handle(0)
        };
        let text = wish.text.unwrap_or(self.block.text().as_bytes());
        let page = self.stock.take_for(at, (number, entry), |page| {
            // SAFETY: a page is larger than a block and as aligned; zeroes are a valid one.
            let block = unsafe { &mut *page.as_mut_ptr().cast::<Block>() };
            let length = text.len().min(Block::TEXT);
            *block = Block {
                process: number,
                cpus: self.block.cpus,
                cpu: wish.cpu,
                memory,
                files,
                processes,
                cpu_control,
                words: [wish.word, 0, 0, 0],
                text_length: length as u32,
                ..Block::NOTHING
            };
            block.text[..length].copy_from_slice(&text[..length]);
        });
        let page = page.ok_or(Errno::NoMemory)?;
        entry.block.store(page, Ordering::Relaxed);
        self.stock.map(page, space, START_BLOCK, 1, Access::READ).map_err(refused)
    }
}

const _: () = assert!(badge::ROOT < badge::FIRST_USER && align_of::<Block>() <= PAGE as usize);
