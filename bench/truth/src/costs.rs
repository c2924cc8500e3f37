//! Loops around single events. What an event costs beyond its instructions is the region's cycles less its
//! instructions, an operation.
use crate::boot::{self, BASE};
use crate::command::Command;
use crate::team::TEAM;
use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use smp::marker::{ENTER, LEAVE, OPERATION, mark};

/// Workload numbers of this module; 210 to 213 are in `user.s`.
mod number {
    pub const WRITE_CR3: u8 = 214;
    pub const WRITE_CR0: u8 = 215;
    pub const CLTS: u8 = 216;
    pub const INVLPG: u8 = 217;
    pub const SWAPGS: u8 = 218;
    pub const WRFSBASE: u8 = 219;
    pub const RDGSBASE: u8 = 220;
    pub const WRMSR: u8 = 221;
    pub const RDMSR: u8 = 222;
    pub const APIC_WRITE: u8 = 223;
    pub const APIC_READ: u8 = 224;
    pub const PAUSE: u8 = 225;
    pub const FXSAVE: u8 = 226;
    pub const FXRSTOR: u8 = 227;
    pub const XSAVE: u8 = 228;
    pub const XRSTOR: u8 = 229;
    pub const LOCKED: u8 = 230;
    pub const XCHG: u8 = 231;
    pub const IPI_SEND: u8 = 232;
    pub const FIRST_TOUCH: u8 = 233;
    pub const STORE_TRANSFER: u8 = 234;
    pub const LOAD_TRANSFER: u8 = 235;
    pub const CROSSING: u8 = 236;
    pub const STRING_TRANSFER: u8 = 237;
    pub const STRING_LENGTH: u8 = 238;
    pub const IPI_WAKE: u8 = 239;
    pub const TEN_INSTRUCTIONS: u8 = 240;
    pub const THOUSAND_INSTRUCTIONS: u8 = 241;
}

/// Most operations: each uses up lines.
const MOST: usize = 400;
const LINE: usize = 64;
const PAGE: usize = 4096;
/// An IPI to oneself, and one to the other CPU (the high half names it).
const IPI_SELF: u32 = 0x0004_00f1;
const OTHER_CPU: u32 = 1 << 24;
const MSR_KERNEL_GS: u32 = 0xc000_0102;

/// Memory whose lines are used once each.
#[repr(align(4096))]
struct Area(#[expect(dead_code, reason = "used by address")] [u8; MOST * LINE * 2]);

static mut FRESH: Area = Area([0; MOST * LINE * 2]);
static mut FOREIGN: [Area; 4] = [const { Area([0; MOST * LINE * 2]) }; 4];
static mut SCRATCH: Area = Area([0; MOST * LINE * 2]);
static mut USER_STACK: Area = Area([0; MOST * LINE * 2]);
static WORD: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static ipis_taken: AtomicU64;
    fn enter_user(address: u64, stack: u64, ops: u64);
    fn user_syscall_sysret();
    fn user_syscall_iret();
    fn user_interrupt_iret();
    fn user_interrupt_sysret();
}

/// `ops` marked turns of `turn`, which gets its number, after `warm` unmarked ones.
#[inline(always)]
fn measured<const NUMBER: u8>(warm: usize, ops: usize, mut turn: impl FnMut(usize)) {
    for _ in 0..warm {
        turn(0);
    }
    mark::<ENTER, NUMBER>();
    for i in 0..ops {
        turn(i);
        mark::<OPERATION, NUMBER>();
    }
    mark::<LEAVE, NUMBER>();
}

/// Runs all loops on CPU 0, with CPU 1's help; false if there are not two workers.
pub fn run(cpu: usize, command: &Command) -> bool {
    if command.workers != 2 {
        return false;
    }
    let ops = usize::try_from(command.ops).unwrap_or(MOST).min(MOST);
    if cpu == 1 {
        own_foreign_lines();
        TEAM.meet(2);
        take_ipis(ops as u64);
    } else {
        TEAM.meet(2);
        counted(ops as u64);
        user_mode(ops as u64);
        privileged(ops);
        atomics_and_states(ops);
        lines(ops);
        wake(ops);
    }
    true
}

/// CPU 1 writes to all lines that CPU 0 will fetch from it.
fn own_foreign_lines() {
    let start = (&raw mut FOREIGN).cast::<u64>();
    for i in (0..size_of::<[Area; 4]>()).step_by(LINE) {
        // SAFETY: inside the areas, which nobody else uses before the meeting.
        unsafe { start.byte_add(i).write_volatile(1) }
    }
}

/// Loops whose instructions are counted here by hand: marker, body, and the two that close the loop. `tens` bodies of
/// 10 instructions and `sevens` of 7 make `10 * tens + 7 * sevens + 3`. All of it is one piece of assembly, so that
/// the compiler adds nothing.
macro_rules! counted_loop {
    ($number:expr, $ops:expr, $tens:literal, $sevens:literal) => {
        mark::<ENTER, { $number }>();
        // SAFETY: writes only registers that are given away and a word of the scratch area, on whose first page
        // nobody else relies.
        unsafe {
            asm!(
                "2:",
                concat!(".rept ", $tens),
                "nop",
                "mov eax, 3",
                "lea ecx, [rax + rax]",
                "imul ecx, eax",
                "mov [{word}], rcx",
                "add rcx, [{word}]",
                "xor edx, edx",
                "cmp ecx, 1",
                // Taken, to the next instruction.
                "jne 3f",
                "3: nop",
                ".endr",
                concat!(".rept ", $sevens),
                "push rax",
                "pop rax",
                "test eax, eax",
                "cmovz eax, ecx",
                "bswap eax",
                "movzx eax, al",
                "nop dword ptr [rax]",
                ".endr",
                ".byte 0x0f, 0x1f, 0x80, {number}, {verb}, 0x11, 0x5c",
                "dec {ops}",
                "jnz 2b",
                word = in(reg) (&raw mut SCRATCH),
                ops = inout(reg) $ops => _,
                number = const $number,
                verb = const OPERATION,
                out("rax") _,
                out("rcx") _,
                out("rdx") _,
            )
        }
        mark::<LEAVE, { $number }>();
    };
}

fn counted(ops: u64) {
    // Touched for the first time here, and the stack by the calls that led here.
    // SAFETY: the area's first word, which nobody else uses.
    unsafe { (&raw mut SCRATCH).cast::<u64>().write_volatile(0) }
    counted_loop!(number::TEN_INSTRUCTIONS, ops, 0, 1);
    counted_loop!(number::THOUSAND_INSTRUCTIONS, ops, 99, 1);
}

fn user_mode(ops: u64) {
    boot::prepare_user_mode();
    let stack = (&raw const USER_STACK) as u64 - BASE + PAGE as u64;
    let loops: [unsafe extern "C" fn(); 4] =
        [user_syscall_sysret, user_syscall_iret, user_interrupt_iret, user_interrupt_sysret];
    for start in loops {
        // SAFETY: the loops are position-independent user code that ends in the system call that brings
        // control back here; code and stack are mapped for user mode below `BASE`.
        unsafe { enter_user(start as *const () as u64 - BASE, stack, ops) }
    }
}

/// Measures one instruction written in assembly, which changes nothing that this program relies on.
macro_rules! instruction {
    ($number:expr, $ops:expr, $($asm:tt)*) => {
        measured::<{ $number }>(8, $ops, |_| {
            // SAFETY: each writes back what was read before, or touches state that nobody here uses.
            unsafe { asm!($($asm)*) }
        })
    };
}

fn privileged(ops: usize) {
    let (cr3, cr0): (u64, u64);
    // SAFETY: reads of control registers.
    unsafe { asm!("mov {}, cr3", "mov {}, cr0", out(reg) cr3, out(reg) cr0) }
    let scratch = &raw mut SCRATCH;
    instruction!(number::WRITE_CR3, ops, "mov cr3, {}", in(reg) cr3);
    instruction!(number::WRITE_CR0, ops, "mov cr0, {}", in(reg) cr0);
    instruction!(number::CLTS, ops, "clts");
    instruction!(number::INVLPG, ops, "invlpg [{}]", in(reg) scratch);
    instruction!(number::SWAPGS, ops, "swapgs");
    instruction!(number::WRFSBASE, ops, "wrfsbase {}", in(reg) 0u64);
    instruction!(number::RDGSBASE, ops, "rdgsbase {}", out(reg) _);
    instruction!(number::WRMSR, ops, "wrmsr", in("ecx") MSR_KERNEL_GS, in("eax") 0, in("edx") 0);
    instruction!(number::RDMSR, ops, "rdmsr", in("ecx") MSR_KERNEL_GS, out("eax") _, out("edx") _);
    measured::<{ number::APIC_WRITE }>(8, ops, |_| boot::write_apic(boot::APIC_PRIORITY, 0));
    measured::<{ number::APIC_READ }>(8, ops, |_| _ = boot::read_apic(boot::APIC_PRIORITY));
    measured::<{ number::IPI_SEND }>(8, ops, |_| boot::write_apic(boot::APIC_COMMAND, IPI_SELF));
}

fn atomics_and_states(ops: usize) {
    let scratch = &raw mut SCRATCH;
    instruction!(number::PAUSE, ops, "pause");
    instruction!(number::FXSAVE, ops, "fxsave [{}]", in(reg) scratch);
    instruction!(number::FXRSTOR, ops, "fxrstor [{}]", in(reg) scratch);
    instruction!(number::XSAVE, ops, "xsave [{}]", in(reg) scratch, in("eax") 3, in("edx") 0);
    instruction!(number::XRSTOR, ops, "xrstor [{}]", in(reg) scratch, in("eax") 3, in("edx") 0);
    instruction!(number::LOCKED, ops, "lock inc qword ptr [{}]", in(reg) WORD.as_ptr());
    instruction!(number::XCHG, ops, "xchg [{}], {}", in(reg) WORD.as_ptr(), inout(reg) 0u64 => _);
}

fn lines(ops: usize) {
    let fresh = (&raw mut FRESH).cast::<u64>();
    let area = |i: usize| (&raw mut FOREIGN).cast::<Area>().wrapping_add(i).cast::<u64>();
    let [store, load, crossing, string] = [area(0), area(1), area(2), area(3)];
    measured::<{ number::FIRST_TOUCH }>(0, ops, |i| {
        // SAFETY: `ops` is at most `MOST`, so the line lies inside the area; nobody else uses it.
        unsafe { fresh.byte_add(i * LINE).write_volatile(1) }
    });
    measured::<{ number::STORE_TRANSFER }>(0, ops, |i| {
        // SAFETY: as above; CPU 1 is done with it.
        unsafe { store.byte_add(i * LINE).write_volatile(2) }
    });
    measured::<{ number::LOAD_TRANSFER }>(0, ops, |i| {
        // SAFETY: as above.
        unsafe { _ = load.byte_add(i * LINE).read_volatile() }
    });
    measured::<{ number::CROSSING }>(0, ops, |i| {
        // SAFETY: as above, with two lines an operation; assembly, because the store is not aligned.
        unsafe { asm!("mov qword ptr [{}], 3", in(reg) crossing.byte_add(i * 2 * LINE + LINE - 4)) }
    });
    measured::<{ number::STRING_TRANSFER }>(0, ops, |i| {
        // SAFETY: as above.
        unsafe { store_string(string.byte_add(i * LINE), LINE / 8) }
    });
    let scratch = (&raw mut SCRATCH).cast::<u64>();
    measured::<{ number::STRING_LENGTH }>(8, ops, |_| {
        // SAFETY: a page of the area.
        unsafe { store_string(scratch, PAGE / 8) }
    });
}

/// Stores `words` zero words.
///
/// # Safety
/// The memory must be the caller's.
#[inline(always)]
unsafe fn store_string(start: *mut u64, words: usize) {
    // SAFETY: the caller's obligation; the direction flag is clear.
    unsafe {
        asm!("rep stosq", inout("rdi") start => _, inout("rcx") words => _, in("rax") 0, options(nostack));
    }
}

/// CPU 1 halts until an IPI comes, `ops` times.
fn take_ipis(ops: u64) {
    // SAFETY: the counter of `user.s`, only used atomically. `sti` takes effect after `hlt` has begun, so no
    // IPI is lost between the check and the halt.
    unsafe {
        while ipis_taken.load(SeqCst) < ops {
            asm!("sti", "hlt", "cli");
        }
    }
}

fn wake(ops: usize) {
    boot::write_apic(boot::APIC_TARGET, OTHER_CPU);
    let taken = || {
        // SAFETY: as in `take_ipis`.
        unsafe { ipis_taken.load(SeqCst) }
    };
    measured::<{ number::IPI_WAKE }>(0, ops, |i| {
        boot::write_apic(boot::APIC_COMMAND, boot::WAKE_VECTOR);
        while taken() <= i as u64 {
            spin_loop();
        }
        // Time for the other CPU to halt again.
        for _ in 0..100 {
            spin_loop();
        }
    });
}
