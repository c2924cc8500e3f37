//! Where things are in every program's address space, beside its image.
//!
//! The image is linked at an address of its own for each program (`xtask/src/programs.rs`), below 4 GiB.

/// Where what a process has from its start on lies, its image apart: close together, and in the gigabyte of the images, so that it
/// takes few page tables.
const START: u64 = 0x3000_0000;
/// Bytes of every stack, and what its start is aligned to: see [`crate::here`].
pub const STACK: u64 = 64 << 10;
/// Where the stacks of threads begin that a program makes by [`crate::thread`]: a part for each CPU.
pub const THREAD_STACKS: u64 = 0x1800_0000_0000;
/// Bytes of addresses of one CPU's part of [`THREAD_STACKS`]: far enough apart for page tables of their own.
pub const THREAD_STACKS_OF_CPU: u64 = 1 << 30;
/// The window of a client: a slot for each of its threads, shared with the servers that it calls.
pub const WINDOW: u64 = START;
/// The heap: an arena for each CPU.
pub const HEAP: u64 = 0x3000_0000_0000;
/// Bytes of addresses of one CPU's arena.
pub const ARENA: u64 = 1 << 32;
/// What a place of the topmost node of a tree over addresses covers: a region of such bytes takes no node below.
const TOPMOST: u64 = 1 << 39;

/// Bytes of a region with parts for so many CPUs, of so many bytes each, that costs the same whatever their number: what is
/// behind the last CPU's part is nobody's.
#[must_use]
pub const fn region_of_parts(cpus: u64, part: u64) -> u64 {
    (cpus * part).next_multiple_of(TOPMOST)
}

const _: () = assert!(HEAP.is_multiple_of(TOPMOST) && THREAD_STACKS.is_multiple_of(TOPMOST));
const _: () = assert!(HEAP + region_of_parts(MAX_CPUS, ARENA) <= OBJECTS);
const _: () = assert!(THREAD_STACKS + region_of_parts(MAX_CPUS, THREAD_STACKS_OF_CPU) <= HEAP);

/// The memory objects that a server may use, by place.
pub const OBJECTS: u64 = 0x4000_0000_0000;
/// Bytes of addresses of one object, and so its largest size.
pub const OBJECT: u64 = 64 << 20;
/// Places for objects. The number of an object is its place, and above that how often the place was used before.
pub const OBJECT_PLACES: u64 = 8192;

/// Where a server sees the object of this number.
#[must_use]
#[inline(always)]
pub const fn object_address(number: u64) -> u64 {
    OBJECTS + number % OBJECT_PLACES * OBJECT
}

/// What a server keeps over its own death: see [`crate::saved`]. First the part that all replicas share, then one a CPU.
pub const SAVED: u64 = 0x5000_0000_0000;
/// Bytes of addresses of a part of [`SAVED`].
pub const SAVED_BYTES: u64 = 1 << 30;
/// Where the stacks of a server's workers begin: CPU by CPU, worker by worker.
pub const WORKER_STACKS: u64 = 0x6000_0000_0000;
/// The end of root's first thread's stack.
pub const MAIN_STACK_END: u64 = 0x7fff_0000_0000;
/// The start block: see [`crate::start::Block`].
pub const START_BLOCK: u64 = START + (8 << 20);
/// The end of the first thread's stack of a process.
pub const PROCESS_STACK_END: u64 = START_BLOCK + 2 * STACK;
/// The boot archive, where a program was given it.
pub const ARCHIVE: u64 = 0x7ffe_0000_0000;
/// Most CPUs that there are.
pub const MAX_CPUS: u64 = smp::platform::MAX_CPUS as u64;
