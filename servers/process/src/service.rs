//! What processes ask for.

use core::sync::atomic::Ordering;

use abi::{Handle, Rights, ThreadOperation};
use api::badge;
use api::process::{HELD, MAY_PLACE, NAME, ProcessState, REPEATED, REQUEST_SHIFT, Tally};
use rt::errno::Errno;
use rt::server::Turn;
use rt::service::Text;
use rt::{call, program};

use crate::Processes;
use crate::make::{Wish, refused};
use crate::table::{Entry, State};

/// The word of a program that is started as the first of its kind, not by one of its own.
const FIRST: u64 = u64::MAX;
/// The CPU of a placing.
const CPU: u64 = MAY_PLACE - 1;

impl<'a> Wish<'a> {
    /// A process of `program`, for `parent`, placed as [`api::process::ProcessClient::begin`] says.
    const fn new(program: &'a [u8], parent: u64, placing: u64) -> Self {
        let (cpu, request) = ((placing & CPU) as u32, (placing >> REQUEST_SHIFT) as u32);
        let (may_place, is_held) = (placing & MAY_PLACE != 0, placing & HELD != 0);
        Self { program, parent, request, cpu, may_place, is_held, word: FIRST, text: None }
    }
}

impl Processes {
    /// Makes what is wished for, unless that is there from an earlier request.
    fn spawn(&self, turn: &Turn<'_, Self>, wish: Wish<'_>, placing: u64) -> Result<u64, Errno> {
        if wish.cpu >= self.block.cpus {
            return Err(Errno::Invalid);
        }
        if placing & REPEATED != 0 {
            let is_it = |entry: &Entry| {
                entry.state() == State::Running
                    && entry.parent.load(Ordering::Relaxed) == wish.parent
                    && entry.request.load(Ordering::Relaxed) == wish.request
            };
            if let Some((number, _)) = self.tables.entries(wish.cpu).find(|(_, entry)| is_it(entry)) {
                return Ok(number);
            }
        }
        self.make(turn, wish)
    }

    /// The process `number`, which `caller` started, and which was not taken apart.
    fn child(&self, caller: u64, number: u64) -> Result<&'static Entry, Errno> {
        let entry = self.running(number)?;
        let is_child = entry.parent.load(Ordering::Relaxed) == caller;
        if is_child || caller == badge::ROOT { Ok(entry) } else { Err(Errno::NotPermitted) }
    }

    /// The same of one that does not run yet.
    fn held(&self, caller: u64, number: u64) -> Result<&'static Entry, Errno> {
        let entry = self.child(caller, number)?;
        if entry.handle(|entry| &entry.thread).is_none() { Ok(entry) } else { Err(Errno::Busy) }
    }

    fn running(&self, number: u64) -> Result<&'static Entry, Errno> {
        let entry = self.tables.find(number).ok_or(Errno::NoProcess)?;
        if entry.state() == State::Running { Ok(entry) } else { Err(Errno::NoProcess) }
    }

    fn caller(&self, turn: &Turn<'_, Self>) -> Result<&'static Entry, Errno> {
        self.tables.find(turn.badge).ok_or(Errno::NoProcess)
    }

    fn state_of(&self, number: u64, entry: &Entry) -> ProcessState {
        let [low, high] = [0, 1].map(|index: usize| u128::from(entry.name[index].load(Ordering::Relaxed)));
        let name: [u8; NAME] = (low | high << 64).to_le_bytes();
        let time = match entry.handle(|entry| &entry.thread) {
            Some(thread) => call::thread_control(thread, ThreadOperation::Time, 0, None),
            // It is held.
            None => Ok(0),
        };
        ProcessState {
            number,
            parent: entry.parent.load(Ordering::Relaxed),
            cpu: self.tables.home(number),
            time: time.unwrap_or_default(),
            has_ended: time.is_err(),
            name,
        }
    }
}

impl api::process::Processes for Processes {
    fn lookup(&self, turn: &Turn<'_, Self>, name: Text) -> Result<Handle, Errno> {
        let caller = self.caller(turn)?;
        let space = caller.handle(|entry| &entry.space).ok_or(Errno::NoProcess)?;
        let is_trusted = caller.is_trusted.load(Ordering::Relaxed) != 0;
        self.names.give(name.bytes(), space, turn.badge, is_trusted)
    }

    fn begin(&self, turn: &Turn<'_, Self>, program: Text, placing: u64, word: u64) -> Result<u64, Errno> {
        self.spawn(turn, Wish { word, ..Wish::new(program.bytes(), turn.badge, placing) }, placing)
    }

    fn begin_with(
        &self,
        turn: &Turn<'_, Self>,
        program: Text,
        placing: u64,
        text: Text,
    ) -> Result<u64, Errno> {
        core::str::from_utf8(text.bytes()).map_err(|_| Errno::Invalid)?;
        let text = Some(text.bytes());
        self.spawn(turn, Wish { text, ..Wish::new(program.bytes(), turn.badge, placing) }, placing)
    }

    fn ended(&self, turn: &Turn<'_, Self>, process: u64) -> Result<u64, Errno> {
        let entry = self.child(turn.badge, process)?;
        self.wait_for_end(turn, process, entry)
    }

    fn reap(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        let entry = self.child(turn.badge, process)?;
        // One that is held has none.
        if let Some(thread) = entry.handle(|entry| &entry.thread)
            && call::thread_control(thread, ThreadOperation::Time, 0, None).is_ok()
        {
            return Err(Errno::Busy);
        }
        self.reap(turn, process, entry)
    }

    fn kill(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        let entry = self.child(turn.badge, process)?;
        // An error says that it has ended.
        let _ = program::end(entry.handle(|entry| &entry.space).ok_or(Errno::NoProcess)?);
        Ok(())
    }

    fn space_of(&self, turn: &Turn<'_, Self>, process: u64) -> Result<Handle, Errno> {
        let space = |entry: &Entry| entry.handle(|entry| &entry.space).ok_or(Errno::NoProcess);
        let theirs = space(self.child(turn.badge, process)?)?;
        call::grant(theirs, space(self.caller(turn)?)?, Rights::USE).map_err(refused)
    }

    fn limit(&self, turn: &Turn<'_, Self>, bytes: u64, threads: u64) -> Result<(), Errno> {
        let caller = self.caller(turn)?;
        let threads = u32::try_from(threads).map_err(|_| Errno::Invalid)?;
        // Who is limited gives no more than it was given.
        let raises = |new: u64, now: u64| new == 0 || new > now;
        let is_limited =
            (caller.handle(|entry| &entry.account).is_some(), caller.is_limited.load(Ordering::Relaxed) != 0);
        if is_limited.0 && raises(bytes, caller.limit.load(Ordering::Relaxed))
            || is_limited.1 && raises(threads.into(), caller.thread_limit.load(Ordering::Relaxed).into())
        {
            return Err(Errno::NotPermitted);
        }
        caller.limit.store(bytes, Ordering::Relaxed);
        caller.thread_limit.store(threads, Ordering::Relaxed);
        Ok(())
    }

    fn hand(&self, turn: &Turn<'_, Self>, process: u64, place: u64, handle: Handle) -> Result<(), Errno> {
        self.bequeath(self.held(turn.badge, process)?, place, handle)
    }

    fn start(&self, turn: &Turn<'_, Self>, process: u64) -> Result<(), Errno> {
        match self.held(turn.badge, process) {
            Ok(entry) => self.start_held(turn, process, entry),
            // It was, before the server died.
            Err(Errno::Busy) => Ok(()),
            Err(why) => Err(why),
        }
    }

    fn tally(&self, _: &Turn<'_, Self>, process: u64, cpu: u64) -> Result<Tally, Errno> {
        let space = self.running(process)?.handle(|entry| &entry.space).ok_or(Errno::NoProcess)?;
        let cpu = u32::try_from(cpu).map_err(|_| Errno::Invalid)?;
        program::tally(space, cpu).map(Tally).map_err(refused)
    }

    fn next(&self, _: &Turn<'_, Self>, number: u64) -> Result<ProcessState, Errno> {
        (number.max(badge::FIRST_USER)..=self.tables.last())
            .find_map(|number| self.running(number).ok().map(|entry| self.state_of(number, entry)))
            .ok_or(Errno::NoProcess)
    }

    fn ending(&self, turn: &Turn<'_, Self>, status: u64) -> Result<(), Errno> {
        self.caller(turn)?.status.store(status, Ordering::Release);
        Ok(())
    }
}
