//! Registers beyond the general ones: each thread has its own, whatever its neighbours do, and a thread that has none
//! yet sees none of theirs.

use abi::{Error, Handle, Kind, Rights, ThreadOperation, initial};
use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::call::{self, Message, Placement};
use rt::memory;

use crate::count;

/// CPUs that take part, threads on each, and bytes of a stack.
const MOST_CPUS: usize = 8;
const THREADS: usize = 3;
const STACK: usize = 16 << 10;
const PRIORITY: u8 = 32;
const MILLISECOND: u64 = 1_000_000;
const ROUNDS: u64 = 8;

#[repr(C, align(4096))]
struct Stacks([[u8; STACK]; MOST_CPUS * THREADS]);

static mut STACKS: Stacks = Stacks([[0; STACK]; MOST_CPUS * THREADS]);
static mut WORKER_STACKS: Stacks = Stacks([[0; STACK]; MOST_CPUS * THREADS]);
static DONE: AtomicU64 = AtomicU64::new(0);
static ENDPOINT: AtomicU64 = AtomicU64::new(0);

/// What `fxsave` or `xsave` store.
#[repr(C, align(64))]
#[derive(Clone)]
struct Image([u8; Self::LENGTH]);

/// Where in an image things are (Intel, SDM volume 1, 10.5.1 and 13.4).
mod place {
    pub const CONTROL_WORD: usize = 0;
    pub const TAGS: usize = 4;
    pub const SSE_CONTROL: usize = 24;
    pub const X87: usize = 32;
    pub const SSE: usize = 160;
    pub const LEGACY_END: usize = 416;
    pub const PARTS: usize = 512;
    pub const AVX: usize = 576;
}

/// x87, SSE and AVX.
const ALL_PARTS: u64 = 7;

/// Whether programs may use `xsave`, with AVX among what it saves.
fn has_avx() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const AVX: u32 = 1 << 28;
    __cpuid(1).ecx & (OSXSAVE | AVX) == OSXSAVE | AVX
}

/// Whether the CPU has `wrfsbase` and its kin.
fn has_base_instructions() -> bool {
    __cpuid_count(7, 0).ebx & 1 != 0
}

impl Image {
    const LENGTH: usize = 832;

    /// Values in all registers that only this seed has.
    fn of(seed: u64) -> Self {
        let mut image = Self([0; Self::LENGTH]);
        let number = |at: usize| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (at % 7)) as u8 ^ at as u8;
        let legacy = (place::X87..place::LEGACY_END).chain(place::AVX..Self::LENGTH);
        legacy.for_each(|at| image.0[at] = number(at));
        // Of the 16 bytes of an x87 register the last six are not there.
        (place::X87..place::SSE).filter(|at| at % 16 >= 10).for_each(|at| image.0[at] = 0);
        // All exceptions masked; the rounding is the seed's. All x87 registers are in use.
        let rounding = seed as u8 & 3;
        image.0[place::CONTROL_WORD..][..2].copy_from_slice(&[0x7f, 0x03 | rounding << 2]);
        image.0[place::TAGS] = 0xff;
        image.0[place::SSE_CONTROL..][..2].copy_from_slice(&[0x80, 0x1f | rounding << 5]);
        image.0[place::PARTS] = ALL_PARTS as u8;
        image
    }

    /// Fills the registers. The instruction before is for QEMU, whose `xsave` and `xrstor` do not look whether the
    /// registers may be touched, as those of a real CPU do.
    fn load(&self) {
        // SAFETY: nothing that is compiled for this program uses any of these registers; the image is aligned and
        // has no bit that is refused.
        unsafe {
            if has_avx() {
                core::arch::asm!("fnop", "xrstor64 [{}]", in(reg) self, in("eax") ALL_PARTS as u32, in("edx") 0);
            } else {
                core::arch::asm!("fxrstor64 [{}]", in(reg) self);
            }
        }
    }

    /// What is in the registers.
    fn now() -> Self {
        let mut image = Self([0; Self::LENGTH]);
        // SAFETY: the image is aligned and long enough for these parts.
        unsafe {
            if has_avx() {
                core::arch::asm!("fnop", "xsave64 [{}]", in(reg) &mut image, in("eax") ALL_PARTS as u32, in("edx") 0);
            } else {
                core::arch::asm!("fxsave64 [{}]", in(reg) &mut image);
            }
        }
        image
    }

    /// The bytes that count: registers and control words.
    fn bytes(&self) -> impl Iterator<Item = u8> + '_ {
        let avx = if has_avx() { place::AVX..Self::LENGTH } else { 0..0 };
        let control = [place::CONTROL_WORD, place::CONTROL_WORD + 1, place::TAGS, place::SSE_CONTROL + 1];
        control.into_iter().chain(place::X87..place::LEGACY_END).chain(avx).map(|at| self.0[at])
    }

    fn is_there(&self) -> bool {
        self.bytes().eq(Self::now().bytes())
    }
}

/// The registers of a thread that never used them.
fn are_initial() -> bool {
    let mut initial = Image([0; Image::LENGTH]);
    initial.0[place::CONTROL_WORD..][..2].copy_from_slice(&[0x7f, 0x03]);
    initial.0[place::SSE_CONTROL..][..2].copy_from_slice(&[0x80, 0x1f]);
    initial.is_there()
}

/// The words at the bases of FS and GS.
fn words_at_bases() -> (u64, u64) {
    let (fs, gs);
    // SAFETY: the caller set both bases to the addresses of words.
    unsafe { core::arch::asm!("mov {}, fs:[0]", "mov {}, gs:[0]", out(reg) fs, out(reg) gs) };
    (fs, gs)
}

fn bases() -> (u64, u64) {
    let (fs, gs);
    // SAFETY: reads two registers; the caller knows that the instructions are there.
    unsafe { core::arch::asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs) };
    (fs, gs)
}

fn set_bases(fs: u64, gs: u64) {
    // SAFETY: nothing that is compiled for this program uses these registers; the caller knows that the instructions
    // are there.
    unsafe { core::arch::asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs) };
}

/// A server that uses the registers itself.
fn server(first: Message) -> ! {
    let mut message = first;
    let mut mine = None;
    loop {
        let was = mine.replace(Image::of(message.words[0] | 1 << 40));
        let is_kept = was.as_ref().map_or_else(are_initial, Image::is_there);
        if let Some(image) = &mine {
            image.load();
        }
        message = call::reply_wait(0, [is_kept.into(), 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(serve, server);

/// A thread that uses all registers, and is preempted, calls, moves.
extern "C" fn user(argument: u64) -> ! {
    let (cpus, seed) = (argument >> 32, argument & 0xffff_ffff);
    let endpoint = Handle(ENDPOINT.load(Ordering::Relaxed));
    assert!(are_initial(), "a new thread sees registers of another");
    let words = [seed, !seed];
    let at = |index: usize| (&raw const words[index]) as u64;
    let own_instructions = has_base_instructions();
    if own_instructions {
        assert_eq!(bases(), (0, 0), "a new thread sees bases of another");
        set_bases(at(0), at(1));
    }
    for round in 0..ROUNDS {
        let image = Image::of(seed << 8 | round);
        image.load();
        let end = call::now() + 3 * MILLISECOND;
        while call::now() < end {
            assert!(image.is_there(), "registers changed while the thread ran");
        }
        call::yield_now();
        assert!(image.is_there(), "registers changed while others ran");
        let reply = call::call(endpoint, [seed, 0, 0, 0]).expect("a reply");
        assert_eq!(reply.words[0], 1, "the server's registers changed between two calls");
        assert!(image.is_there(), "registers changed during a call");
        let there = (u64::from(call::cpu_number()) + 1) % cpus;
        // A busy replica on the way may hold a move up; it is not what is tested here.
        let me = own_thread();
        let moved = call::thread_control(me, ThreadOperation::Migrate, there, Some(initial::CPU_CONTROL));
        assert_eq!(moved, Ok(0));
        assert_eq!(u64::from(call::cpu_number()), there);
        assert!(image.is_there(), "registers changed on the way to another CPU");
        if own_instructions {
            assert_eq!(bases(), (at(0), at(1)));
            assert_eq!(words_at_bases(), (seed, !seed));
        }
    }
    DONE.fetch_add(1, Ordering::Release);
    call::thread_exit(0)
}

static SELVES: [AtomicU64; MOST_CPUS * THREADS] = [const { AtomicU64::new(0) }; MOST_CPUS * THREADS];

/// The capability to the calling thread, by the stack that it runs on.
fn own_thread() -> Handle {
    let here = 0u8;
    let index = ((&raw const here) as usize - (&raw const STACKS) as usize) / STACK;
    loop {
        match SELVES[index].load(Ordering::Acquire) {
            0 => call::yield_now(),
            handle => return Handle(handle),
        }
    }
}

/// A thread that uses none of them, until it looks what is there.
extern "C" fn late_user(_: u64) -> ! {
    let end = call::now() + 20 * MILLISECOND;
    while call::now() < end {
        call::yield_now();
    }
    assert!(are_initial(), "a thread's first use shows registers of another");
    if has_base_instructions() {
        assert_eq!(bases(), (0, 0), "a thread's first use shows bases of another");
    }
    DONE.fetch_add(1, Ordering::Release);
    call::thread_exit(0)
}

fn start(cpu: usize, index: usize, entry: extern "C" fn(u64) -> !, argument: u64) -> Handle {
    let place = Placement { cpu: cpu as u32, priority: PRIORITY };
    let slot = cpu * THREADS + index;
    SELVES[slot].store(0, Ordering::Relaxed);
    // SAFETY: each thread has a stack of its own.
    let thread = unsafe {
        let stack = (&raw mut STACKS.0[slot]).cast::<u8>().add(STACK - 8);
        call::thread_create(place, entry, stack, argument, Some(initial::CPU_CONTROL))
    };
    let thread = thread.expect("a thread starts");
    SELVES[slot].store(thread.0, Ordering::Release);
    thread
}

/// A server that uses no registers until it is told.
fn late_server(first: Message) -> ! {
    let mut message = first;
    loop {
        let answer = match message.words[0] {
            LOOK => u64::from(are_initial()),
            FILL => {
                Image::of(FILL).load();
                1
            }
            _ => 1,
        };
        message = call::reply_wait(0, [answer, 0, 0, 0]).expect("a worker waits for calls");
    }
}

rt::worker!(serve_late, late_server);

const PASS: u64 = 0;
const LOOK: u64 = 1;
const FILL: u64 = 2;

/// A thread that uses none of them, but calls a server that does.
extern "C" fn late_caller(_: u64) -> ! {
    let filled = call::call(Handle(ENDPOINT.load(Ordering::Relaxed)), [FILL, 0, 0, 0]);
    let status = u64::from(filled.is_ok() && are_initial());
    call::thread_exit(status)
}

/// Over a call and a reply where nothing else runs between.
fn on_the_two_sides_of_a_call() {
    let threads = count::objects(Kind::Thread);
    // SAFETY: the stacks are used for nothing else meanwhile.
    let endpoint = unsafe {
        let (entry, stacks) = (serve_late as *const () as u64, (&raw const WORKER_STACKS) as u64);
        call::create_endpoint(initial::ADDRESS_SPACE, entry, stacks, STACK as u64, 1)
    };
    let endpoint = endpoint.expect("an endpoint");
    ENDPOINT.store(endpoint.0, Ordering::Relaxed);
    let ask = |what| call::call(endpoint, [what, 0, 0, 0]).map(|reply| reply.words[0]);
    assert_eq!(ask(PASS), Ok(1), "its worker is there");
    let (mine, words) = (Image::of(77), [5, 6]);
    mine.load();
    let (fs, gs) = ((&raw const words[0]) as u64, (&raw const words[1]) as u64);
    if has_base_instructions() {
        set_bases(fs, gs);
    }
    assert_eq!(ask(PASS), Ok(1));
    assert!(mine.is_there(), "registers changed during a call of who has none");
    if has_base_instructions() {
        assert_eq!(bases(), (fs, gs), "bases changed during a call of who has none");
    }
    assert_eq!(ask(LOOK), Ok(1), "a server sees its caller's registers");
    assert!(mine.is_there(), "registers changed during a call");
    let caller = start(call::cpu_number() as usize, 0, late_caller, 0);
    assert_eq!(call::join(caller, 0), Ok(1), "a caller sees its server's registers");
    assert_eq!(call::destroy(endpoint), Ok(()));
    count::wait_until("its worker has ended, with its registers", || count::objects(Kind::Thread) == threads);
}

/// Users and a late user on every CPU, and a server that all call; then what was used is given back.
pub fn are_own(cpus: u64) {
    let cpus = cpus.min(MOST_CPUS as u64);
    set_by_the_kernel();
    on_the_two_sides_of_a_call();
    // SAFETY: the stacks are used for nothing else.
    let endpoint = unsafe {
        let entry = serve as *const () as u64;
        call::create_endpoint(
            initial::ADDRESS_SPACE,
            entry,
            (&raw const WORKER_STACKS) as u64,
            STACK as u64,
            1,
        )
    };
    ENDPOINT.store(endpoint.expect("an endpoint").0, Ordering::Relaxed);
    let all_at_once = |entry: extern "C" fn(u64) -> !| {
        DONE.store(0, Ordering::Relaxed);
        let mut threads = [None; MOST_CPUS * THREADS];
        for cpu in 0..cpus as usize {
            for index in 0..THREADS {
                let seed = (cpu * THREADS + index + 1) as u64;
                let entry = if index == THREADS - 1 { late_user } else { entry };
                threads[cpu * THREADS + index] = Some(start(cpu, index, entry, cpus << 32 | seed));
            }
        }
        // Their capabilities, which they need to move, are gone when they are joined.
        while DONE.load(Ordering::Acquire) < cpus * THREADS as u64 {
            assert_eq!(call::sleep_until(call::now() + MILLISECOND), Ok(()));
        }
        for thread in threads.into_iter().flatten() {
            assert_eq!(call::join(thread, 0), Ok(0));
        }
    };
    all_at_once(user);
    let before = memory::balance(Handle(0));
    all_at_once(user);
    assert_eq!(memory::balance(Handle(0)), before, "memory of registers was not given back");
}

/// Bases that a thread sets by `ThreadControl`, which any CPU has.
fn set_by_the_kernel() {
    let words = [0x1234_5678_9abc_def0u64, 77];
    let set = |operation, value| call::thread_control(initial::THREAD, operation, value, None);
    assert_eq!(set(ThreadOperation::FsBase, (&raw const words[0]) as u64), Ok(0));
    assert_eq!(set(ThreadOperation::GsBase, (&raw const words[1]) as u64), Ok(0));
    assert_eq!(words_at_bases(), (words[0], words[1]));
    call::yield_now();
    assert_eq!(words_at_bases(), (words[0], words[1]), "bases changed while others ran");
    for wrong in [1 << 47, 0xffff_8000_0000_0000, u64::MAX] {
        assert_eq!(set(ThreadOperation::GsBase, wrong), Err(Error::BadAddress));
    }
    assert_eq!(words_at_bases(), (words[0], words[1]), "a refused base was set");
    let weak = call::mint(initial::THREAD, Rights::USE, 0).expect("derive");
    assert_eq!(call::thread_control(weak, ThreadOperation::FsBase, 0, None), Err(Error::NoRight));
    if has_base_instructions() {
        // The base of GS may be anything while the kernel is entered: it finds its own.
        for base in [0xffff_8000_0000_0000, 0xffff_f000_0001_0000, u64::MAX, 0] {
            set_bases(base, base);
            assert_eq!(call::null(), Ok(0));
            call::yield_now();
            assert_eq!(bases(), (base, base));
        }
    }
}
