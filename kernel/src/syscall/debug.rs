//! Messages of programs to the early console, and facts.

use crate::arch::{smp, time};
use crate::cap;
use crate::cell::Cell;
use crate::io::interrupt;
use crate::mem::account::Paid;
use crate::mem::frames;
use crate::mem::mapping::{self, Memory};
use crate::object::{pool, retire};
use abi::{Error, Fact, Handle, Kind};

/// Longest message of one call.
const LONGEST: usize = 256;

/// `Log(address, length)`: writes a line.
pub fn log(cell: &mut Cell, address: u64, length: u64) -> Result<u64, Error> {
    if length > LONGEST as u64 {
        return Err(Error::BadArgument);
    }
    let mut text = [0; LONGEST];
    let wanted = &mut text[..length as usize];
    if mapping::read_user(cell.running().space, address, wanted) < wanted.len() {
        return Err(Error::BadAddress);
    }
    let text = core::str::from_utf8(wanted).map_err(|_| Error::BadArgument)?;
    text.lines().for_each(|line| crate::log!("{line}"));
    Ok(0)
}

/// `Info(what, handle)`.
pub fn info(cell: &mut Cell, what: u64, handle: Handle) -> Result<u64, Error> {
    match what {
        what if what == Fact::CpuNumber as u64 => Ok(cell.id().index() as u64),
        what if what == Fact::CpuCount as u64 => Ok(smp::cpu_count().into()),
        what if what == Fact::Time as u64 => Ok(time::now()),
        what if what == Fact::MemoryPages as u64 => {
            Memory::find(&cell.running().space.table, handle).map(|memory| memory.pages)
        }
        what if what == Fact::FreeFrames as u64 => Ok(frames::free_frames()),
        what if what == Fact::AccountBalance as u64 => super::memory::balance(cell, handle),
        what if what == Fact::InterruptsSent as u64 => Ok(cell.interrupts_sent()),
        what if what == Fact::GracePeriods as u64 => Ok(retire::periods()),
        what if what == Fact::KernelObjects as u64 => {
            Kind::from_number(handle.0).map(pool::alive).ok_or(Error::BadArgument)
        }
        what if what == Fact::InterruptsTaken as u64 => Ok(cell.cpu_interrupts),
        what if what == Fact::TimerInterrupts as u64 => Ok(cell.timer_interrupts),
        what if what == Fact::OwnCapability as u64 => cap::describe(&cell.running().space.table, handle),
        what if what == Fact::PaidFrames as u64 => {
            let purpose = abi::Paid::ALL.into_iter().find(|purpose| *purpose as u64 == handle.0);
            purpose.map(Paid::frames).ok_or(Error::BadArgument)
        }
        what if what == Fact::DeviceInterrupts as u64 => Ok(cell.device_interrupts),
        what if what == Fact::MessageAddress as u64 => message(cell, handle).map(|message| message.address),
        what if what == Fact::MessageData as u64 => message(cell, handle).map(|message| message.data),
        _ => Err(Error::BadArgument),
    }
}

fn message(cell: &Cell, handle: Handle) -> Result<interrupt::Message, Error> {
    interrupt::message(&cap::lookup(&cell.running().space.table, handle)?)
}
