//! Threads and CPUs.

use super::Return;
use crate::cell::{Cell, CpuNumber};
use crate::thread::Thread;
use crate::{arch, process};
use abi::Error;

/// `CpuNumber()`: number of the calling CPU.
pub extern "C" fn cpu_number(_: u64, _: u64, _: u64, _: u64) -> Return {
    Return::value(Cell::current().number().0.into())
}

/// `CpuCount()`: CPUs of the machine.
pub extern "C" fn cpu_count(_: u64, _: u64, _: u64, _: u64) -> Return {
    Return::value(arch::smp::cpu_count().into())
}

/// `Yield()`: lets the other ready threads of this CPU run first.
pub extern "C" fn yield_now(_: u64, _: u64, _: u64, _: u64) -> Return {
    let cell = Cell::current();
    let thread = running(cell);
    thread.registers.rax = 0;
    cell.make_ready(thread);
    Return::switch(cell.next_thread())
}

/// `ThreadStart(cpu, entry, stack, argument)`: a new thread of this process on that CPU.
pub extern "C" fn start(cpu: u64, entry: u64, stack: u64, argument: u64) -> Return {
    let Ok(cpu) = u32::try_from(cpu) else {
        return Return::error(Error::BadArgument);
    };
    process::start_thread(Cell::current(), CpuNumber(cpu), entry, stack, argument).map(|()| 0).into()
}

/// `ThreadExit()`: ends the calling thread.
pub extern "C" fn exit(_: u64, _: u64, _: u64, _: u64) -> Return {
    let cell = Cell::current();
    running(cell).end();
    Return::switch(cell.next_thread())
}

/// `Exit(status)`: ends all threads of the process.
pub extern "C" fn exit_process(status: u64, _: u64, _: u64, _: u64) -> Return {
    let cell = Cell::current();
    let thread = running(cell);
    thread.process().exit(cell, status);
    thread.end();
    Return::switch(cell.next_thread())
}

/// The thread that made the call.
fn running(cell: &mut Cell) -> &'static mut Thread {
    // SAFETY: a system call has a running thread: it is alive, in no queue, and only this CPU uses it.
    unsafe { &mut *cell.running() }
}
