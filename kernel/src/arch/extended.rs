//! What a thread has beyond its general registers: x87, SSE and AVX registers, and the bases of FS and GS.
//!
//! A thread that never touches them has none, and costs nothing: its first use is an exception, by which it gets
//! them. From then on they are saved and loaded eagerly, by whoever leaves the kernel next: a CPU that is about to
//! run a thread holds that thread's registers or the initial ones, never those of another ([`exchange`]). So there
//! is nothing of a neighbour's that a program, or the CPU's speculation, could read (CVE-2018-3665 is what becomes
//! of the usual laziness).
//!
//! The code that leaves the kernel looks whether there is anything to do: at one byte of the thread beside another
//! one that it reads anyway, and at one word of the cell.

use core::ptr;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{FsBase, GsBase};
use x86_64::registers::xcontrol::{XCr0, XCr0Flags};

use super::boot::features;
use super::cpu::Features;
use crate::cell::Cell;
use crate::mem::layout::{PAGE, USER_END, memory_at};
use crate::mem::page_map::Frames;
use crate::sched::Thread;
use abi::Error;

bitflags::bitflags! {
    /// What of its extended state a thread has.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Parts: u8 {
        /// x87 and SIMD registers.
        const FLOAT = 1;
        /// Bases of FS and GS.
        const BASES = 2;
    }
}

/// A thread's extended state while no CPU holds it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Saved {
    /// The frame in which its x87 and SIMD registers are, if it has some.
    area: u64,
    fs_base: u64,
    gs_base: u64,
}

/// Whose extended state a CPU holds.
#[derive(Debug)]
#[repr(C)]
pub struct Holder {
    /// The thread, or null while the CPU holds the initial state. Known to `entry.s`.
    thread: *mut Thread,
    /// What a program may touch just now.
    enabled: Parts,
}

impl Holder {
    /// A CPU that holds the initial state.
    #[must_use]
    pub const fn nobody() -> Self {
        Self { thread: ptr::null_mut(), enabled: Parts::empty() }
    }
}

/// How registers are saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// `fxsave`: x87 and SSE.
    Legacy,
    /// `xsave`: these parts.
    Extensible(u64),
    /// `xsaveopt`: the same, but leaves out what the area has already.
    Optimised(u64),
}

static FORMAT: Once<Format> = Once::new();

/// Length of the legacy area and the header behind it (Intel, SDM volume 1, 13.4).
const HEADER_END: usize = 576;
/// Where the control word of the x87 unit and that of SSE are in the area, and what they are initially.
const CONTROL_WORD: (usize, u16) = (0, 0x37f);
const SSE_CONTROL: (usize, u32) = (24, 0x1f80);

/// An area that says that all registers have their initial values.
#[repr(C, align(64))]
struct Initial([u8; HEADER_END]);

static INITIAL: Initial = {
    let mut bytes = [0; HEADER_END];
    let (at, word) = CONTROL_WORD;
    [bytes[at], bytes[at + 1]] = word.to_le_bytes();
    let (at, word) = SSE_CONTROL;
    [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]] = word.to_le_bytes();
    Initial(bytes)
};

/// Lets this CPU's programs have extended state, in the form that `features` allow. Each CPU, once, before any
/// program runs on it.
pub fn prepare(features: &Features) {
    let mut parts = XCr0Flags::X87 | XCr0Flags::SSE;
    parts.set(XCr0Flags::AVX, features.avx);
    // SAFETY: all CPUs of x86-64 have `fxsave` and SSE; what else is turned on is there (`features`). The kernel is
    // compiled without any of it.
    unsafe {
        Cr4::update(|cr4| {
            cr4.insert(Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE);
            cr4.set(Cr4Flags::OSXSAVE, features.xsave);
        });
        if features.xsave {
            XCr0::write(parts);
        }
    }
    FORMAT.call_once(|| match (features.xsave, features.xsaveopt) {
        (true, true) => Format::Optimised(parts.bits()),
        (true, false) => Format::Extensible(parts.bits()),
        (false, _) => Format::Legacy,
    });
    forbid_float(false);
    load_float((&raw const INITIAL).cast());
    forbid_float(true);
}

/// Whether touching x87 and SIMD registers is an exception.
fn forbid_float(is_forbidden: bool) {
    // SAFETY: the kernel itself uses none of these registers.
    unsafe { Cr0::update(|cr0| cr0.set(Cr0Flags::TASK_SWITCHED, is_forbidden)) };
}

/// Whether programs may write the bases of FS and GS themselves, where the CPU has instructions for that.
fn allow_bases(is_allowed: bool) {
    if features().fsgsbase {
        // SAFETY: the kernel uses neither base.
        unsafe { Cr4::update(|cr4| cr4.set(Cr4Flags::FSGSBASE, is_allowed)) };
    }
}

fn format() -> Format {
    FORMAT.get().copied().unwrap_or(Format::Legacy)
}

/// Stores this CPU's x87 and SIMD registers at `area`.
fn save_float(area: *mut u8) {
    // SAFETY: the area is a frame of a thread's, aligned and longer than what any of these store (`Features::detect`
    // takes only parts that fit), and nobody refers to it.
    unsafe {
        match format() {
            Format::Legacy => core::arch::asm!("fxsave64 [{}]", in(reg) area, options(nostack)),
            Format::Extensible(parts) => core::arch::asm!(
                "xsave64 [{}]", in(reg) area, in("eax") parts as u32, in("edx") 0, options(nostack)
            ),
            Format::Optimised(parts) => core::arch::asm!(
                "xsaveopt64 [{}]", in(reg) area, in("eax") parts as u32, in("edx") 0, options(nostack)
            ),
        }
    }
}

/// Loads this CPU's x87 and SIMD registers from `area`.
fn load_float(area: *const u8) {
    // SAFETY: the area was filled by `save_float` or is [`INITIAL`], so that no bit is set that the CPU refuses; of
    // parts that its header does not name nothing is read. The kernel uses none of these registers.
    unsafe {
        match format() {
            Format::Legacy => core::arch::asm!("fxrstor64 [{}]", in(reg) area, options(nostack, readonly)),
            Format::Extensible(parts) | Format::Optimised(parts) => core::arch::asm!(
                "xrstor64 [{}]", in(reg) area, in("eax") parts as u32, in("edx") 0, options(nostack, readonly)
            ),
        }
    }
}

/// Stores what `thread` has of the CPU's extended state.
fn save(thread: &mut Thread) {
    let (parts, saved) = (thread.extended, &mut thread.saved);
    if parts.contains(Parts::FLOAT) {
        save_float(memory_at(saved.area));
    }
    if parts.contains(Parts::BASES) {
        saved.fs_base = FsBase::read().as_u64();
        saved.gs_base = GsBase::read().as_u64();
    }
}

/// Makes this CPU, which holds what `holder` says, hold the state of `next`, or the initial one.
fn load(holder: &mut Holder, next: Option<&mut Thread>) {
    let (parts, saved) = next.as_ref().map_or_else(Default::default, |next| (next.extended, next.saved));
    let before = core::mem::replace(&mut holder.enabled, parts);
    holder.thread = next.map_or(ptr::null_mut(), ptr::from_mut);
    if before.union(parts).contains(Parts::FLOAT) {
        forbid_float(false);
        let has_some = parts.contains(Parts::FLOAT);
        let initial: *const u8 = (&raw const INITIAL).cast();
        load_float(if has_some { memory_at(saved.area) } else { initial });
        forbid_float(!has_some);
    }
    if before.union(parts).contains(Parts::BASES) {
        // What was saved was in the register before, or was checked by `set_base`.
        FsBase::write(VirtAddr::new_truncate(saved.fs_base));
        GsBase::write(VirtAddr::new_truncate(saved.gs_base));
        allow_bases(parts.contains(Parts::BASES));
    }
}

/// Makes this CPU hold the extended state of the thread that leaves the kernel next. The entry code calls this where
/// it is not so yet.
pub(super) extern "C" fn exchange(next: *mut Thread) -> *mut Thread {
    let cell = Cell::current();
    // SAFETY: the entry code passes the thread that runs next, which is this CPU's and in no other use.
    let thread = unsafe { &mut *next };
    if !ptr::eq(cell.extended.thread, next) {
        set_aside_holder(cell);
        let has_some = !thread.extended.is_empty();
        load(&mut cell.extended, has_some.then_some(thread));
    }
    next
}

/// Stores the state of the thread whose state this CPU holds, if it holds one's.
fn set_aside_holder(cell: &mut Cell) {
    // SAFETY: a thread is this CPU's while the CPU holds its state (`set_aside`, `forget`), and is not referred to
    // here otherwise.
    if let Some(before) = unsafe { cell.extended.thread.as_mut() } {
        save(before);
    }
}

/// Stores the state of `thread`, which is about to leave this CPU.
pub fn set_aside(cell: &mut Cell, thread: &mut Thread) {
    if ptr::eq(cell.extended.thread, thread) {
        save(thread);
        load(&mut cell.extended, None);
    }
}

/// Takes the extended state of `thread`, which ends on this CPU, apart.
pub fn forget(cell: &mut Cell, thread: &mut Thread) {
    if thread.extended.is_empty() {
        return;
    }
    if ptr::eq(cell.extended.thread, thread) {
        load(&mut cell.extended, None);
    }
    let area = core::mem::take(&mut thread.saved).area;
    if area != 0 {
        thread.space.frames(cell).give(area);
    }
    thread.extended = Parts::empty();
}

/// The running thread touched x87 or SIMD registers for the first time: lets it have them. The thread's account pays
/// for the memory in which they are saved.
pub fn use_float(cell: &mut Cell, thread: &mut Thread) -> Result<(), Error> {
    let space = thread.space;
    let area = space.with_room(cell, |cell| space.frames(cell).take().ok_or(Error::NoMemory))?;
    let memory: *mut u8 = memory_at(area);
    // SAFETY: the frame is the thread's alone from now on; the header has to be zero before the first `xsave`.
    unsafe { ptr::copy_nonoverlapping((&raw const INITIAL).cast(), memory, HEADER_END) };
    thread.saved.area = area;
    begin(cell, thread, Parts::FLOAT);
    Ok(())
}

/// The running thread wants to write the base of FS or GS for the first time: lets it, if the CPU has instructions
/// for that and it may not yet. Returns whether it may now.
pub fn use_bases(cell: &mut Cell, thread: &mut Thread) -> bool {
    let is_new = features().fsgsbase && !thread.extended.contains(Parts::BASES);
    if is_new {
        begin(cell, thread, Parts::BASES);
    }
    is_new
}

/// Gives `thread`, which runs on this CPU, `part`, whose registers have their initial values.
fn begin(cell: &mut Cell, thread: &mut Thread, part: Parts) {
    set_aside(cell, thread);
    thread.extended.insert(part);
    load(&mut cell.extended, Some(thread));
}

/// A base to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Of FS.
    Fs,
    /// Of GS.
    Gs,
}

/// Sets a base of `thread`, which is this CPU's.
pub fn set_base(cell: &mut Cell, thread: &mut Thread, base: Base, value: u64) -> Result<u64, Error> {
    if value >= USER_END {
        return Err(Error::BadAddress);
    }
    set_aside(cell, thread);
    thread.extended.insert(Parts::BASES);
    match base {
        Base::Fs => thread.saved.fs_base = value,
        Base::Gs => thread.saved.gs_base = value,
    }
    if cell.is_serving(thread) {
        set_aside_holder(cell);
        load(&mut cell.extended, Some(thread));
    }
    Ok(0)
}

const _: () = assert!(HEADER_END as u64 <= PAGE);
