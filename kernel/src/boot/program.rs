//! Programs of the boot archive: loading the first one, and what becomes of a program that faults.

use core::sync::atomic::{AtomicU32, Ordering};
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use smp::CpuId;

use crate::arch::boot::refuse;
use crate::arch::cpu::Registers;
use crate::arch::idt::{exception_name, vector};
use crate::arch::smp::cpu_count;
use crate::boot::command_line::CommandLine;
use crate::boot::variant::{self, Variant};
use crate::cell::Cell;
use crate::io::{interrupt, ports};
use crate::log;
use crate::mem::account;
use crate::mem::frames::{self, FREE};
use crate::mem::layout::{self, PAGE, memory_at};
use crate::mem::local;
use crate::mem::mapping;
use crate::mem::page_map::{Frames, state};
use crate::mem::space::Space;
use crate::object::{Header, Object, Tag};
use crate::sched::thread::Start;
use crate::sched::{Thread, life};
use abi::{Error, Kind};
use spin::Once;

/// The first thread's stack ends here.
const STACK_END: u64 = 0x7fff_0000_0000;
const STACK_PAGES: u64 = 16;
/// Where a program finds the kernel's command line.
const COMMAND_LINE: u64 = 0x7fff_1000_0000;
/// Where the stacks of the companion's workers are, a page a CPU.
const COMPANION_STACKS: u64 = 0x6000_0000_0000;
/// Workers that the companion may have on a CPU.
const COMPANION_WORKERS: u64 = 2;
/// Priority of the first thread.
const PRIORITY: u8 = 32;
/// Exit status of a program that an exception ended.
const KILLED: u64 = 255;

static LIVE: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// The right to place threads on any CPU with any priority: an object without state.
#[derive(Debug)]
#[repr(C)]
pub struct CpuControl {
    header: Header,
}

// SAFETY: `repr(C)` with the header first; the only one is static.
unsafe impl Object for CpuControl {
    const KIND: Kind = Kind::CpuControl;

    fn header(&self) -> &Header {
        &self.header
    }
}

static CPU_CONTROL: CpuControl = CpuControl { header: Header::new(Kind::CpuControl) };
static CPU_CONTROL_TAG: Once<Tag> = Once::new();

// SAFETY: the header's link is only used by pools, and this object is in none.
unsafe impl Sync for CpuControl {}

/// Why a program could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// It is no complete ELF program for this machine.
    BadProgram(&'static str),
    /// There is not enough memory.
    NoMemory,
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        match error {
            Error::Busy => Self::BadProgram("two segments share a page"),
            _ => Self::NoMemory,
        }
    }
}

/// Number of programs that ended by failure since the last call.
pub fn take_failures() -> u32 {
    FAILED.swap(0, Ordering::AcqRel)
}

/// True when no program has a thread.
#[must_use]
pub fn none_left() -> bool {
    LIVE.load(Ordering::Acquire) == 0
}

/// Nobody uses `space` any more: counts it, and takes it apart. Any CPU. While another one is being taken apart here, that
/// is finished first, so that a chain of programs that made each other needs no more stack than one.
pub fn ended(cell: &mut Cell, space: &'static Space) {
    if cell.is_taking_apart {
        space.next_ended.store(cell.ended.cast_mut(), Ordering::Relaxed);
        cell.ended = space;
        return;
    }
    cell.is_taking_apart = true;
    take_apart(cell, space);
    // SAFETY: a space in the list is nobody's but ours, and stays in memory.
    while let Some(space) = unsafe { cell.ended.as_ref() } {
        cell.ended = space.next_ended.load(Ordering::Relaxed);
        take_apart(cell, space);
    }
    cell.is_taking_apart = false;
}

fn take_apart(cell: &mut Cell, space: &'static Space) {
    let (has_failed, is_counted) = (space.has_failed(), space.is_counted.load(Ordering::Relaxed));
    space.take_apart(cell);
    if !is_counted {
        return;
    }
    if has_failed {
        FAILED.fetch_add(1, Ordering::AcqRel);
    }
    if LIVE.fetch_sub(1, Ordering::AcqRel) == 1 && cell.id() != CpuId::BOOT {
        cell.interrupt(CpuId::BOOT);
    }
}

/// A program that was loaded and has no thread yet.
struct Loaded {
    space: &'static Space,
    entry: u64,
}

/// Loads `name` of the boot archive, with `stacks` besides.
fn load_program(cell: &mut Cell, name: &str, stacks: core::ops::Range<u64>) -> Result<Loaded, LoadError> {
    let file = crate::boot::archive().program(name);
    let file = file.ok_or(LoadError::BadProgram("it is not in the boot archive"))?;
    account::root().hold();
    let space =
        Space::create(cell, name, account::root(), 0, 0).inspect_err(|_| account::root().let_go(cell))?;
    space.table.start_fresh();
    let entry = load(cell, file, space)?;
    for page in stacks.step_by(PAGE as usize) {
        map_fresh(cell, space, page, state::WRITE)?;
    }
    if let Some(text) = Some(CommandLine::get().text()).filter(|text| !text.is_empty()) {
        let page = map_fresh(cell, space, COMMAND_LINE, 0)?;
        const { assert!(CommandLine::CAPACITY <= PAGE as usize) };
        // SAFETY: the page is fresh, and the line shorter than a page.
        unsafe { core::ptr::copy_nonoverlapping(text.as_ptr(), page, text.len()) };
    }
    Ok(Loaded { space, entry })
}

/// Starts `name` of the boot archive on CPU `cpu` with `arguments`, and with the capabilities of
/// [`abi::initial`], all in the boot CPU's part of its table. The boot CPU only.
pub fn start(
    cell: &mut Cell,
    name: &str,
    cpu: CpuId,
    arguments: [u64; 3],
    companion: Option<&'static Space>,
) -> Result<(), LoadError> {
    let Loaded { space, entry } = load_program(cell, name, STACK_END - STACK_PAGES * PAGE..STACK_END)?;
    LIVE.fetch_add(1, Ordering::AcqRel);
    space.is_counted.store(true, Ordering::Relaxed);
    let start = Start { entry, stack: STACK_END, arguments };
    let thread = cell.prepare_thread(cpu, space, PRIORITY, start)?;
    let control = *CPU_CONTROL_TAG.call_once(|| CPU_CONTROL.header.revive());
    let table = &space.table;
    crate::cap::insert(cell, table, space, space.tag)?;
    crate::cap::insert(cell, table, thread, thread.tag)?;
    crate::cap::insert(cell, table, &CPU_CONTROL, control)?;
    match companion {
        Some(companion) => crate::cap::insert(cell, table, companion, companion.tag)?,
        None => {
            let (start, pages) = super::archive_pages();
            crate::cap::insert_value(cell, table, Kind::Memory, [start, pages])?
        }
    };
    crate::cap::insert_value(cell, table, Kind::Ports, ports::ALL)?;
    interrupt::insert_all(cell, table)?;
    for range in USER_MEMORY.get().into_iter().flatten().filter(|range| range.start < range.end) {
        let pages = (range.end - range.start) / PAGE;
        crate::cap::insert_value(cell, table, Kind::Memory, [range.start, pages])?;
    }
    cell.start_thread(thread);
    space.leave_to_its_threads(cell);
    Ok(())
}

/// Loads `name` as a companion: a program whose threads are workers, made by calls. Returns it with its entry
/// point.
pub fn load_companion(cell: &mut Cell, name: &str) -> (&'static Space, u64) {
    let length = u64::from(cpu_count()) * COMPANION_WORKERS * PAGE;
    let stacks = COMPANION_STACKS..COMPANION_STACKS + length;
    let loaded = load_program(cell, name, stacks).unwrap_or_else(|why| refuse_program(name, why));
    // Its maker's hold stays: it does not end with its last thread, and does not keep the machine running.
    (loaded.space, loaded.entry)
}

/// Maps the segments of the ELF program `file` into `space`; returns its entry point.
fn load(cell: &mut Cell, file: &[u8], space: &Space) -> Result<u64, LoadError> {
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
            (true, false) => state::WRITE,
            (false, true) => state::EXECUTE,
            (false, false) => 0,
        };
        let end = segment.p_vaddr.checked_add(segment.p_memsz).filter(|&end| end <= layout::USER_END);
        let end = end.ok_or(bad("a segment lies outside the user's addresses"))?;
        if data.len() as u64 > segment.p_memsz {
            return Err(bad("a segment is longer in the file than in memory"));
        }
        map_segment(cell, space, segment.p_vaddr..end, data, rights)?;
    }
    let entry = program.ehdr.e_entry;
    if layout::is_user(&(entry..entry.saturating_add(1))) {
        Ok(entry)
    } else {
        Err(bad("it has no entry point"))
    }
}

/// Maps zeroed memory of the kernel's at `address` of `space`; it goes back when the program ends. Returns where
/// the kernel sees it.
fn map_fresh(cell: &mut Cell, space: &Space, address: u64, rights: u64) -> Result<*mut u8, LoadError> {
    if !layout::is_user(&(address..address.saturating_add(PAGE))) {
        return Err(LoadError::BadProgram("a segment lies outside the user's addresses"));
    }
    let mut frames = space.frames(cell);
    let frame = frames.take().ok_or(LoadError::NoMemory)?;
    let page = frame | rights | state::PRESENT | state::OWNED;
    let nothing = abi::Access(0);
    if let Err(error) = mapping::map(cell, space, address / PAGE, page, None, nothing, false) {
        frames.give(frame);
        return Err(error.into());
    }
    Ok(memory_at(frame))
}

fn map_segment(
    cell: &mut Cell,
    space: &Space,
    range: core::ops::Range<u64>,
    data: &[u8],
    rights: u64,
) -> Result<(), LoadError> {
    let mut page = range.start & !(PAGE - 1);
    while page < range.end {
        let memory = map_fresh(cell, space, page, rights)?;
        let from = page.max(range.start);
        let to = (page + PAGE).min(range.start + data.len() as u64);
        if from < to {
            let source = &data[(from - range.start) as usize..(to - range.start) as usize];
            // SAFETY: the page was just mapped for the program, `from..to` lies in it, and nobody else uses it
            // yet.
            unsafe {
                let target = memory.add((from - page) as usize);
                core::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
            }
        }
        page += PAGE;
    }
    Ok(())
}

/// Memory that the kernel did not keep.
static USER_MEMORY: Once<[frames::Range; abi::initial::MEMORY_RANGES as usize]> = Once::new();

/// Splits the memory that is still free between the kernel and the first program: `reserve=N` on the command line
/// keeps an Nth for the kernel. Boot CPU, once.
pub fn share_memory() {
    /// The kernel's part where nothing else is said; and where tests start many programs of its memory.
    const PART: u64 = 16;
    const PART_FOR_TESTS: u64 = 2;
    /// What the kernel keeps at least, and at least for each CPU, in bytes. At 200 CPUs 3 MiB for each were not enough for the
    /// page tables of the first servers and a program that are there on every CPU.
    const LEAST: u64 = 16 << 20;
    const LEAST_A_CPU: u64 = 8 << 20;
    let arguments = CommandLine::get();
    let part = match arguments.value("reserve").map(str::parse) {
        Some(Ok(part)) if part > 1 => part,
        Some(_) => refuse(format_args!(
            "`reserve` is no number above 1: give the part that the kernel keeps, as reserve=16"
        )),
        None if arguments.value("test").is_some() => PART_FOR_TESTS,
        None => PART,
    };
    let mut free = FREE.lock();
    let all = free.bytes();
    let least = (LEAST + LEAST_A_CPU * u64::from(cpu_count())).min(all / 2);
    let mut ranges = [frames::Range::default(); abi::initial::MEMORY_RANGES as usize];
    let mut places = ranges.iter_mut();
    free.share((all / part).max(least), |range| {
        if let Some(place) = places.next() {
            *place = range;
        }
    });
    account::root().deposit(free.bytes());
    USER_MEMORY.call_once(|| ranges);
    drop(free);
    local::choose();
    frames::go_local(variant::get() == Variant::SharedPool);
}

/// Starts the first server, or ends the machine with the reason why it can't.
pub fn start_first_server(cell: &mut Cell) {
    let line = [COMMAND_LINE, CommandLine::get().text().len() as u64, super::archive_bytes()];
    start(cell, "root", CpuId::BOOT, line, None).unwrap_or_else(|why| refuse_program("root", why));
}

/// Starts a program, or ends the machine with the reason why it can't.
pub fn start_or_refuse(cell: &mut Cell, name: &str, cpu: CpuId, arguments: [u64; 2]) {
    let [first, second] = arguments;
    start(cell, name, cpu, [first, second, 0], None).unwrap_or_else(|why| refuse_program(name, why));
}

fn refuse_program(name: &str, why: LoadError) -> ! {
    match why {
        LoadError::BadProgram(why) => {
            refuse(format_args!("the program `{name}` in the boot archive can't be started: {why}"))
        }
        LoadError::NoMemory => {
            refuse(format_args!("not enough memory to start `{name}`; give the machine more"))
        }
    }
}

/// Ends the program of the running thread with `status`. Returns the thread to go on with.
pub fn exit(cell: &mut Cell, status: u64) -> *mut Thread {
    end(cell, cell.running(), status);
    cell.next_thread()
}

/// Ends the program of `thread`, a thread of this CPU, which ends first.
fn end(cell: &mut Cell, thread: &mut Thread, status: u64) {
    let space = thread.space;
    // Keeps the last thread's end from being the program's before all CPUs are told.
    space.hold();
    let first = space.die(status);
    cell.end_thread(thread, status);
    if first {
        life::end_everywhere(cell, space);
    }
    space.let_go(cell);
}

/// An exception of `thread`, a thread of this CPU, about which nobody wants to know: reports it and ends the program.
/// `address` is that of the access where it is a page fault.
pub fn fail(cell: &mut Cell, thread: &mut Thread, address: u64) {
    report(thread.space, &thread.registers, address);
    end(cell, thread, KILLED);
}

fn report(space: &Space, registers: &Registers, address: u64) {
    const PRESENT: u64 = 1;
    const WRITE: u64 = 2;
    const FETCH: u64 = 16;
    let what = exception_name(registers.vector);
    let error = registers.error;
    let name = space.name();
    if registers.vector == vector::PAGE_FAULT {
        let access = match error {
            error if error & FETCH != 0 => "executing",
            error if error & WRITE != 0 => "writing",
            _ => "reading",
        };
        let why = if error & PRESENT != 0 { "which its rights forbid" } else { "where nothing is mapped" };
        log!("program `{name}` ended: {what}: {access} {address:#x}, {why}");
    } else {
        log!("program `{name}` ended: {what}, error code {error:#x}");
    }
    log!("  at {:#018x}", registers.rip);
    registers.describe(|line| log!("  {line}"));
    let mut frame = registers.rbp;
    const DEPTH: usize = 16;
    for _ in 0..DEPTH {
        let mut words = [0u8; 16];
        let is_aligned = frame.is_multiple_of(8);
        if !is_aligned || mapping::read_user(space, frame, &mut words) < words.len() {
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
