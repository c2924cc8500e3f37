//! Taking processes apart: when their parents ask for it, where they could not be made, and where an earlier life of this
//! server left them half made or half taken apart.

use core::sync::atomic::{Ordering, fence};

use abi::{Handle, Kind};
use alloc::vec::Vec;
use rt::errno::Errno;
use rt::server::Turn;
use rt::{call, program};

use crate::make::ask;
use crate::table::{Entry, State};
use crate::{Given, Processes, Recovery};

/// How long is waited for a process's last thread to end between two looks, in nanoseconds.
const REST: u64 = 20_000;
/// The same for a CPU that is busy with what an earlier life left.
const RECOVERY_REST: u64 = 200_000;

/// Rests.
fn rest(time: u64) {
    if call::sleep_until(call::now() + time).is_err() {
        call::yield_now();
    }
}

impl Processes {
    /// Takes a process apart, with what the servers keep of it; frees its entry, which is in the state `from`. Each step may
    /// have been done before.
    pub fn take_apart(&self, number: u64, entry: &Entry, from: State) -> Result<(), Errno> {
        if let Some(space) = entry.handle(|entry| &entry.space) {
            end_space(space);
            entry.space.store(0, Ordering::Release);
        }
        if let Some(thread) = entry.handle(|entry| &entry.thread) {
            // Gone already where it could not be derived from.
            let _ = call::delete(thread);
        }
        match ask(|| self.files_as_root.detach(number)) {
            // It did not come so far.
            Ok(()) | Err(Errno::NoProcess) => {}
            Err(why) => return Err(why),
        }
        match ask(|| self.memory_as_root.dismiss(number)) {
            // It had no space there, or that was taken back before.
            Ok(()) | Err(Errno::Invalid) => {}
            Err(why) => return Err(why),
        }
        self.stock.give_back(&self.tables, (number, entry), from != State::Running);
        if let Some(account) = entry.handle(|entry| &entry.account)
            && let Err(error) = call::destroy(account).and_then(|()| call::delete(account).or(Ok(())))
            && error != abi::Error::StaleHandle
        {
            rt::log!("process: the account of a process can't be ended: {error:?}");
        }
        self.places.forget(number);
        entry.clear();
        entry.set_state(State::Free);
        Ok(())
    }

    /// Takes apart a process that has ended, and first those that it started and did not wait for, which end with it.
    pub fn reap(&self, turn: &Turn<'_, Self>, number: u64, entry: &Entry) -> Result<(), Errno> {
        let here = turn.cpu.id().index() as u32;
        if !entry.exchange(State::Running, State::Ending(here)) {
            return Err(Errno::NoProcess);
        }
        // Whoever starts one for it looks the other way round.
        fence(Ordering::SeqCst);
        if entry.is_parent.load(Ordering::Relaxed) != 0 {
            self.reap_descendants(here, number);
        }
        self.take_apart(number, entry, State::Running)
    }

    /// Takes apart those that a process started, those that they started, and so on, the last ones first.
    fn reap_descendants(&self, here: u32, ancestor: u64) {
        let mut found = Vec::new();
        self.end_children(here, ancestor, &mut found);
        let mut next = 0;
        while let Some(&(number, entry)) = found.get(next) {
            if entry.is_parent.load(Ordering::Relaxed) != 0 {
                self.end_children(here, number, &mut found);
            }
            next += 1;
        }
        for (number, entry) in found.into_iter().rev() {
            if let Err(why) = self.take_apart(number, entry, State::Running) {
                rt::log!("process: {number} is still there: {why:?}");
            }
        }
    }

    /// Ends the programs of those that `parent` started, which are about to be taken apart here, and adds them to `found`.
    fn end_children(&self, here: u32, parent: u64, found: &mut Vec<(u64, &'static Entry)>) {
        for (number, child) in self.tables.all() {
            let is_child = || child.parent.load(Ordering::Relaxed) == parent;
            if child.state() != State::Running
                || !is_child()
                || !child.exchange(State::Running, State::Ending(here))
            {
                continue;
            }
            if !is_child() {
                // Another's by now, and as it was.
                child.set_state(State::Running);
                continue;
            }
            if let Some(space) = child.handle(|child| &child.space) {
                // An error says that it has ended.
                let _ = program::end(space);
            }
            fence(Ordering::SeqCst);
            found.push((number, child));
        }
    }

    /// Ends what an earlier life left half done on this CPU. Others that call here wait for it.
    #[cold]
    pub fn recover(&self, turn: &Turn<'_, Self>) {
        while turn.replica.recovery.get() == Recovery::UnderWay {
            rest(RECOVERY_REST);
        }
        if turn.replica.recovery.replace(Recovery::UnderWay) == Recovery::Done {
            return turn.replica.recovery.set(Recovery::Done);
        }
        let here = turn.cpu.id().index() as u32;
        let is_first_life = self.block.restarts == 0;
        for (number, entry) in self.tables.all().take_while(|_| !is_first_life) {
            let state = entry.state();
            if state != State::Made(here) && state != State::Ending(here) {
                continue;
            }
            if entry.is_parent.load(Ordering::Relaxed) != 0 {
                self.reap_descendants(here, number);
            }
            if let Err(why) = self.take_apart(number, entry, state) {
                rt::log!("process: {number} can't be taken apart: {why:?}");
            }
        }
        if !is_first_life {
            self.reap_orphans(here);
            self.end_unknown(here);
        }
        turn.replica.recovery.set(Recovery::Done);
    }

    /// Takes apart those whose parents are gone: the server died before it saw that it had started them for nobody.
    fn reap_orphans(&self, here: u32) {
        for (number, entry) in self.tables.all() {
            let parent = self.tables.find(entry.parent.load(Ordering::Relaxed));
            let is_orphan = parent.is_some_and(|parent| parent.state() == State::Free);
            if entry.state() == State::Running
                && is_orphan
                && entry.exchange(State::Running, State::Ending(here))
            {
                self.reap_descendants(here, number);
                if let Err(why) = self.take_apart(number, entry, State::Running) {
                    rt::log!("process: {number} is still there: {why:?}");
                }
            }
        }
    }

    /// Ends address spaces, threads, accounts and notifications that were made on this CPU and that no entry knows: the server died before it
    /// took their handles down.
    fn end_unknown(&self, here: u32) {
        // Nobody else makes any on this CPU now, so what is not among these is nobody's.
        let fields = |entry: &Entry| {
            [&entry.space, &entry.thread, &entry.account].map(|field| field.load(Ordering::Acquire))
        };
        let mut known: Vec<u64> = self.tables.all().flat_map(|(_, entry)| fields(entry)).collect();
        known.push(Given(self.block).memory_space().0);
        known.sort_unstable();
        let mut accounts = Vec::new();
        for slot in 0..Handle::SLOTS as u32 {
            let (handle, kind) = match call::own_capability(here, slot) {
                Ok(found) => found,
                Err(abi::Error::NoCapability) => break,
                Err(_) => continue,
            };
            if known.binary_search(&handle.0).is_ok() {
                continue;
            }
            match kind {
                Some(Kind::AddressSpace) => end_space(handle),
                Some(Kind::Account) => accounts.push(handle),
                // Those that it waited by; this life has none here yet.
                Some(Kind::Notification) => {
                    let _ = call::destroy(handle);
                    let _ = call::delete(handle);
                }
                Some(Kind::Thread) => drop(call::delete(handle)),
                _ => {}
            }
        }
        // Now that no space pays by them.
        for account in accounts {
            let _ = call::destroy(account);
            let _ = call::delete(account);
        }
    }
}

/// Ends the program of an address space, waits for its last thread, and gives the space up, which is taken apart with that.
fn end_space(space: Handle) {
    // An error says that it is gone already.
    if program::end(space).is_ok() {
        while program::has_ended(space) == Ok(false) {
            rest(REST);
        }
        let _ = call::destroy(space);
    }
    let _ = call::delete(space);
}
