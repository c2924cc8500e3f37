//! Programs: an address space, a name, and the threads that run in it.
//!
//! A process ends when its last thread did; an exception in one of its threads, or a call that says so, ends
//! all of them, on whatever CPU, and nothing else.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use x86_64::structures::paging::{FrameAllocator, PhysFrame};

use crate::arch::boot::refuse;
use crate::arch::cpu::Registers;
use crate::arch::idt::{exception_name, vector};
use crate::arch::smp;
use crate::boot::topology::node_of;
use crate::cell::{Cell, CpuNumber};
use crate::log;
use crate::mem::address_space::{AddressSpace, MapError, Rights};
use crate::mem::frames::FromNode;
use crate::mem::layout::{self, PAGE, physical_to_virtual};
use crate::thread::Thread;

/// Longest name of a program.
const NAME: usize = 32;
/// The first thread's stack ends here.
const STACK_END: u64 = 0x7fff_0000_0000;
const STACK_PAGES: u64 = 16;
/// Exit value of a program that an exception ended.
pub const KILLED: u64 = u64::MAX;

static LIVE: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// A program that was started.
#[derive(Debug)]
pub struct Process {
    name: [u8; NAME],
    name_length: usize,
    space: AddressSpace,
    threads: AtomicU32,
    dead: AtomicBool,
}

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It is no complete ELF program for this machine.
    BadProgram(&'static str),
    /// There is not enough memory.
    NoMemory,
}

impl From<MapError> for LoadError {
    fn from(error: MapError) -> Self {
        match error {
            MapError::NoMemory => Self::NoMemory,
            MapError::BadRange => Self::BadProgram("a segment lies outside the user's addresses"),
            MapError::Occupied => Self::BadProgram("two segments share a page"),
        }
    }
}

/// Number of processes that ended by failure since the last call.
pub fn take_failures() -> u32 {
    FAILED.swap(0, Ordering::AcqRel)
}

/// True when no process has a thread.
#[must_use]
pub fn none_left() -> bool {
    LIVE.load(Ordering::Acquire) == 0
}

impl Process {
    /// The program's name.
    #[must_use]
    pub fn name(&self) -> &str {
        core::str::from_utf8(&self.name[..self.name_length]).unwrap_or("?")
    }

    /// Top of its page table.
    #[must_use]
    pub fn root(&self) -> PhysFrame {
        self.space.root()
    }

    /// Its address space.
    #[must_use]
    pub fn space(&self) -> &AddressSpace {
        &self.space
    }

    /// True when its threads must not run any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    /// Counts a new thread.
    pub fn thread_starts(&self) {
        self.threads.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a thread's end; the last one ends the process.
    pub fn thread_ends(&self) {
        if self.threads.fetch_sub(1, Ordering::AcqRel) == 1 && LIVE.fetch_sub(1, Ordering::AcqRel) == 1 {
            let cell = Cell::current();
            if cell.number() != CpuNumber(0) {
                cell.interrupt(CpuNumber(0));
            }
        }
    }

    /// Ends all threads: those of this CPU when they would run next, the others after an interrupt.
    fn kill(&self, cell: &mut Cell) {
        if self.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = cell.number();
        for cpu in (0..smp::cpu_count()).map(CpuNumber).filter(|&cpu| cpu != here) {
            cell.interrupt(cpu);
        }
    }

    /// Ends the process with `status`; 0 is success.
    pub fn exit(&self, cell: &mut Cell, status: u64) {
        if status != 0 && !self.is_dead() {
            FAILED.fetch_add(1, Ordering::AcqRel);
        }
        self.kill(cell);
    }
}

/// Starts `program` of the boot archive on CPU `cpu`, with `arguments` in its first registers.
pub fn start(cell: &mut Cell, name: &str, cpu: CpuNumber, arguments: [u64; 2]) -> Result<(), LoadError> {
    let file = crate::boot::archive().program(name);
    let file = file.ok_or(LoadError::BadProgram("it is not in the boot archive"))?;
    let node = node_of(cpu.0);
    let mut space = AddressSpace::new(node)?;
    let entry = load(file, &mut space)?;
    for page in 1..=STACK_PAGES {
        space.map_fresh(STACK_END - page * PAGE, Rights::Write)?;
    }
    let mut stored_name = [0; NAME];
    let name_length = name.len().min(NAME);
    stored_name[..name_length].copy_from_slice(&name.as_bytes()[..name_length]);
    let process = allocate(
        node,
        Process {
            name: stored_name,
            name_length,
            space,
            threads: AtomicU32::new(0),
            dead: AtomicBool::new(false),
        },
    )?;
    LIVE.fetch_add(1, Ordering::AcqRel);
    let thread = allocate(node, Thread::new(process, entry, STACK_END, arguments))?;
    cell.send(cpu, thread);
    Ok(())
}

/// Starts another thread of the caller's process on CPU `cpu`.
pub fn start_thread(
    cell: &mut Cell,
    cpu: CpuNumber,
    entry: u64,
    stack: u64,
    argument: u64,
) -> Result<(), abi::Error> {
    if cpu.0 >= smp::cpu_count() || !layout::is_user(&(entry..entry.saturating_add(1))) {
        return Err(abi::Error::BadArgument);
    }
    // SAFETY: a system call has a running thread, which is alive.
    let process = unsafe { (*cell.running()).process() };
    let thread = Thread::new(process, entry, stack, [argument, 0]);
    match allocate(node_of(cpu.0), thread) {
        Ok(thread) => cell.send(cpu, thread),
        Err(_) => {
            process.thread_ends();
            return Err(abi::Error::NoMemory);
        }
    }
    Ok(())
}

/// Puts `value` on a frame of its own, for good.
fn allocate<T>(node: u32, value: T) -> Result<&'static mut T, LoadError> {
    const { assert!(size_of::<T>() as u64 <= PAGE) };
    let frame = FromNode(node).allocate_frame().ok_or(LoadError::NoMemory)?;
    let place: *mut T = physical_to_virtual(frame.start_address()).as_mut_ptr();
    // SAFETY: the frame is fresh, mapped, page-aligned and large enough, and never freed.
    unsafe {
        place.write(value);
        Ok(&mut *place)
    }
}

/// Maps the segments of the ELF program `file` into `space`; returns its entry point.
fn load(file: &[u8], space: &mut AddressSpace) -> Result<u64, LoadError> {
    let bad = LoadError::BadProgram;
    let program = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| bad("it is no ELF file"))?;
    if program.ehdr.e_machine != EM_X86_64 || program.ehdr.e_type != ET_EXEC {
        return Err(bad("it is no fixed-address x86-64 program"));
    }
    let segments = program.segments().ok_or(bad("it has no segments"))?;
    for segment in segments.iter().filter(|s| s.p_type == PT_LOAD && s.p_memsz > 0) {
        let data = program.segment_data(&segment).map_err(|_| bad("a segment is cut off"))?;
        let rights = match (segment.p_flags & PF_W != 0, segment.p_flags & PF_X != 0) {
            (true, true) => return Err(bad("a segment is writable and executable")),
            (true, false) => Rights::Write,
            (false, true) => Rights::Execute,
            (false, false) => Rights::Read,
        };
        let end = segment.p_vaddr.checked_add(segment.p_memsz).filter(|&end| end <= layout::USER_END);
        let end = end.ok_or(bad("a segment lies outside the user's addresses"))?;
        if data.len() as u64 > segment.p_memsz {
            return Err(bad("a segment is longer in the file than in memory"));
        }
        let mut page = segment.p_vaddr & !(PAGE - 1);
        while page < end {
            let memory = space.map_fresh(page, rights)?;
            let from = page.max(segment.p_vaddr);
            let to = (page + PAGE).min(segment.p_vaddr + data.len() as u64);
            if from < to {
                let source = &data[(from - segment.p_vaddr) as usize..(to - segment.p_vaddr) as usize];
                // SAFETY: the page was just mapped for the program, `from..to` lies in it, and nobody else
                // uses it yet.
                unsafe {
                    let target = memory.add((from - page) as usize);
                    core::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
                }
            }
            page += PAGE;
        }
    }
    let entry = program.ehdr.e_entry;
    if layout::is_user(&(entry..entry.saturating_add(1))) {
        Ok(entry)
    } else {
        Err(bad("it has no entry point"))
    }
}

/// Starts the first server, or ends the machine with the reason why it can't.
pub fn start_first_server(cell: &mut Cell) {
    start_or_refuse(cell, "root", CpuNumber(0), [smp::cpu_count().into(), 0]);
}

/// Starts a program, or ends the machine with the reason why it can't.
pub fn start_or_refuse(cell: &mut Cell, name: &str, cpu: CpuNumber, arguments: [u64; 2]) {
    match start(cell, name, cpu, arguments) {
        Ok(()) => {}
        Err(LoadError::BadProgram(why)) => {
            refuse(format_args!("the program `{name}` in the boot archive can't be started: {why}"))
        }
        Err(LoadError::NoMemory) => {
            refuse(format_args!("not enough memory to start `{name}`; give the machine more"))
        }
    }
}

/// An exception of `thread`, which runs on this CPU: reports it and ends the program. `address` is that of the
/// access where it is a page fault. Returns the thread to go on with.
pub fn exception(cell: &mut Cell, thread: &mut Thread, address: u64) -> *mut Thread {
    let process = thread.process();
    report(process, &thread.registers, address);
    process.exit(cell, KILLED);
    thread.end();
    cell.next_thread()
}

fn report(process: &Process, registers: &Registers, address: u64) {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 2;
    const FETCH: u64 = 16;
    let what = exception_name(registers.vector);
    if registers.vector == vector::PAGE_FAULT {
        let access = match registers.error {
            error if error & FETCH != 0 => "executing",
            error if error & WRITE != 0 => "writing",
            _ => "reading",
        };
        let why = if registers.error & PRESENT != 0 {
            "which its rights forbid"
        } else {
            "where nothing is mapped"
        };
        log!("program `{}` ended: {what}: {access} {address:#x}, {why}", process.name());
    } else {
        log!("program `{}` ended: {what}, error code {:#x}", process.name(), registers.error);
    }
    log!("  at {:#018x}", registers.rip);
    registers.describe(|line| log!("  {line}"));
    let mut frame = registers.rbp;
    const DEPTH: usize = 16;
    for _ in 0..DEPTH {
        let mut words = [0u8; 16];
        if !frame.is_multiple_of(8) || process.space().copy_from_user(frame, &mut words) < words.len() {
            break;
        }
        let word = |i: usize| words[i..i + 8].try_into().map_or(0, u64::from_le_bytes);
        if word(8) == 0 {
            break;
        }
        log!("  at {:#018x}", word(8));
        frame = word(0);
    }
}
