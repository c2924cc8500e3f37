//! What is done with a program from outside beside destroying it: end it and keep its space, be told of its end, and let
//! threads run in the space again. So a server that died is started anew behind the endpoints that its clients have, with
//! the mappings and capabilities that it had.

use abi::{Error, Handle, Rights, program};

use super::space::Space;
use crate::arch::smp::cpu_numbered;
use crate::cap::{self, Capability};
use crate::cell::Cell;
use crate::ipc::call;
use crate::ipc::notification::Notification;
use crate::object::{Object, Tag};
use crate::sched::errand::{Target, Work};
use crate::sched::life;
use crate::syscall::Return;

/// Exit status of a program that was ended from outside.
const KILLED: u64 = 255;

/// Who is told when a program has ended.
#[derive(Clone, Copy, Debug)]
pub struct Watcher {
    notification: &'static Notification,
    tag: Tag,
    bits: u64,
}

impl Space {
    /// Tells whoever watches it that it has ended, and its last thread with it.
    #[cold]
    pub fn tell_watcher(&self, cell: &mut Cell) {
        let watcher = *self.watcher.lock();
        // Notifications stay in memory until a grace period is over.
        if let Some(Watcher { notification, tag, bits }) = watcher
            && notification.header().tag() == tag
        {
            notification.notify(cell, bits);
        }
    }
}

/// `Call` of an address space: see [`abi::program`].
pub fn operate(cell: &mut Cell, capability: &Capability<'_>, words: [u64; 4]) -> Return {
    match words {
        [program::TALLY, cpu, ..] => tally(cell, capability, cpu).unwrap_or_else(Return::error),
        _ => match change(cell, capability, words) {
            Ok(()) => call::answer(cell, [0; 4]),
            Err(error) => Return::error(error),
        },
    }
}

/// Asks the CPU of this number, unless it has nothing to do with the program.
fn tally(cell: &mut Cell, capability: &Capability<'_>, cpu: u64) -> Result<Return, Error> {
    let space = capability.object::<Space>()?;
    if !capability.rights.contain(Rights::DESTROY) {
        return Err(Error::NoRight);
    }
    let cpu = cpu_numbered(cpu).ok_or(Error::BadArgument)?;
    if !space.try_hold(cell, capability.tag) {
        return Err(Error::Destroyed);
    }
    let is_there = space.local_of(cpu).is_some();
    space.let_go(cell);
    if !is_there {
        return Ok(Return::value(0));
    }
    let asker = Target::of(cell.running());
    Ok(cell.run_errand(Work::Tally(space, capability.tag, cpu), asker, 0, 0))
}

fn change(cell: &mut Cell, capability: &Capability<'_>, words: [u64; 4]) -> Result<(), Error> {
    let space = capability.object::<Space>()?;
    if !capability.rights.contain(Rights::DESTROY) {
        return Err(Error::NoRight);
    }
    let own = cell.running().space;
    if core::ptr::eq(space, own) {
        return Err(Error::Busy);
    }
    let tag = capability.tag;
    let watcher = match words {
        [program::WATCH, notification, bits, _] => find_watcher(own, Handle(notification), bits)?,
        _ => None,
    };
    if !space.try_hold(cell, tag) {
        return Err(Error::Destroyed);
    }
    let result = match words[0] {
        program::END => {
            if space.die(KILLED) {
                life::end_everywhere(cell, space);
            }
            Ok(())
        }
        // The maker's hold, and this one.
        program::REVIVE | program::HAS_ENDED if !space.is_dead() || !space.is_left_to(1) => Err(Error::Busy),
        program::REVIVE => {
            space.revive();
            Ok(())
        }
        program::HAS_ENDED => Ok(()),
        program::WATCH => {
            *space.watcher.lock() = watcher;
            Ok(())
        }
        _ => Err(Error::BadArgument),
    };
    // Where this is the last hold beside the maker's, and the program is dead, the watcher is told.
    space.let_go(cell);
    result
}

fn find_watcher(own: &Space, notification: Handle, bits: u64) -> Result<Option<Watcher>, Error> {
    if notification == Handle(0) {
        return Ok(None);
    }
    let capability = cap::lookup(&own.table, notification)?;
    let found = capability.object::<Notification>()?;
    if !capability.rights.contain(Rights::USE) {
        return Err(Error::NoRight);
    }
    if bits >= 1 << 63 {
        return Err(Error::BadArgument);
    }
    Ok(Some(Watcher { notification: found, tag: capability.tag, bits }))
}
