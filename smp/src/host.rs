//! A platform of ordinary threads: CPU i is the thread that claimed number i.
//!
//! **Idea.** What runs in a kernel is tested where tests are easy to write, to repeat and to check. For tests, examples
//! and benchmarks; the only part of this crate that uses the standard library. Under the model checker the threads
//! are `loom`'s. One thread may claim several CPUs and play them in turn.
//!
//! **What the user answers for.** A structure is used with the CPUs of one machine only: a token says which CPU it is
//! of, not of which machine, and two machines' CPUs of one number would both take that CPU's part for theirs. This
//! could not be left to the user in a kernel, where there is one machine; here it keeps tests free of `unsafe`.
//!
//! **Source.** Kernel code in user mode for tests, as in NrOS (Bhardwaj et al., OSDI'21) and Rump kernels (Kantee, 2012).
//!
//! **Cost in lines moved.** Not reckoned: the host has its own.
//!
//! ```
//! use smp::{CpuId, Platform, host::Machine};
//! let machine = Machine::new(4);
//! assert_eq!(machine.run(|cpu| cpu.id().index()), [0, 1, 2, 3]);
//! machine.wake(CpuId::BOOT);
//! assert_eq!(machine.wakes(CpuId::BOOT), 1);
//! ```

use core::alloc::Layout;
use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

use crate::backing::{Backing, Exhausted};
use crate::platform::{Cpu, CpuId, CpuLocal, Platform, RemoteTable};
use crate::range_map::Deferred;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// Entries of a host CPU's translation table. The model checker tracks each, so it has few.
pub const ENTRIES: usize = if cfg!(loom) { 4 } else { 4096 };

/// What the host keeps for one CPU.
struct Seat {
    local: CpuLocal<ENTRIES>,
    claimed: AtomicBool,
    wakes: AtomicUsize,
}

/// A machine whose CPUs are threads.
pub struct Machine {
    seats: Box<[Seat]>,
    /// Tells machines of one process apart.
    number: usize,
}

/// How many machines this process has made.
static MACHINES: core::sync::atomic::AtomicUsize = core::sync::atomic::AtomicUsize::new(0);

std::thread_local! {
    /// The machine and the CPU that this thread claimed last.
    static CURRENT: core::cell::Cell<(usize, usize)> = const { core::cell::Cell::new((usize::MAX, 0)) };
}

impl Machine {
    /// A machine of `cpus` CPUs.
    ///
    /// # Panics
    ///
    /// If there are more than [`MAX_CPUS`](crate::platform::MAX_CPUS).
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        let seat = |index| Seat {
            local: CpuLocal::new(CpuId::new(index).expect("at most MAX_CPUS CPUs")),
            claimed: AtomicBool::new(false),
            wakes: AtomicUsize::new(0),
        };
        let number = MACHINES.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        Self { seats: (0..cpus).map(seat).collect::<Vec<_>>().into_boxed_slice(), number }
    }

    /// Makes the calling thread CPU `id`, for good. The token reaches what belongs to that CPU in any structure, so no
    /// structure may be used with tokens of two machines (see the module's page).
    ///
    /// # Panics
    ///
    /// If another thread is that CPU already, or there is no such CPU.
    pub fn claim(&self, id: CpuId) -> Cpu<'_> {
        let seat = &self.seats[id.index()];
        assert!(!seat.claimed.swap(true, Ordering::AcqRel), "CPU {} is another thread", id.index());
        CURRENT.set((self.number, id.index()));
        // SAFETY: the flag lets one thread only be this CPU, and the token cannot leave the thread.
        unsafe { Cpu::new(&seat.local) }
    }

    /// Makes the calling thread a CPU that another thread was.
    ///
    /// # Safety
    ///
    /// No other thread is that CPU any more.
    #[cfg(loom)]
    pub unsafe fn again(&self, id: CpuId) -> Cpu<'_> {
        // SAFETY: the caller's.
        unsafe { Cpu::new(&self.seats[id.index()].local) }
    }

    /// Runs `work` once on each CPU, each on a thread of its own, and returns what each returned.
    ///
    /// # Panics
    ///
    /// If `work` panics on any of them, or the machine has run before.
    #[cfg(not(loom))]
    pub fn run<R: Send>(&self, work: impl Fn(Cpu<'_>) -> R + Sync) -> Vec<R> {
        let work = &work;
        std::thread::scope(|scope| {
            let ids = (0..self.seats.len()).map(|index| self.seats[index].local.id());
            let threads: Vec<_> = ids.map(|id| scope.spawn(move || work(self.claim(id)))).collect();
            threads.into_iter().map(|thread| thread.join().expect("a CPU panicked")).collect()
        })
    }

    /// How often CPU `id` has been woken.
    #[must_use]
    pub fn wakes(&self, id: CpuId) -> usize {
        self.seats[id.index()].wakes.load(Ordering::Acquire)
    }
}

// SAFETY: a thread becomes a CPU by `claim`, which lets one thread only be each CPU; `CURRENT` is that
// thread's own. The number of seats never changes, and a seat holds the table of its own CPU.
unsafe impl Platform for Machine {
    #[cfg(loom)]
    fn cpu(&self) -> Cpu<'_> {
        // The model checker's threads share one thread of the host: there a token is passed on instead.
        unimplemented!("the model checker has no current CPU")
    }

    #[cfg(not(loom))]
    fn cpu(&self) -> Cpu<'_> {
        let (machine, index) = CURRENT.get();
        assert_eq!(machine, self.number, "this thread has claimed no CPU of this machine");
        // SAFETY: this thread claimed the seat, for good; see `claim`.
        unsafe { Cpu::new(&self.seats[index].local) }
    }

    fn cpus(&self) -> usize {
        self.seats.len()
    }

    fn wake(&self, target: CpuId) {
        self.seats[target.index()].wakes.fetch_add(1, Ordering::AcqRel);
    }

    fn table(&self, id: CpuId) -> RemoteTable<'_> {
        self.seats[id.index()].local.remote()
    }

    fn relax(&self, _cpu: Cpu<'_>) {
        // The host may have fewer CPUs than the machine.
        #[cfg(not(loom))]
        std::thread::yield_now();
        #[cfg(loom)]
        crate::sync::relax();
    }
}

/// The host's allocator.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

// SAFETY: the host's allocator keeps the promise.
unsafe impl Backing for Heap {
    fn take(&self, layout: Layout, _near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        assert!(layout.size() > 0, "nothing here needs memory of no size");
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { std::alloc::alloc(layout) }).ok_or(Exhausted)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's: from `take` with the same layout.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) }
    }
}

/// The host's allocator, but only so many pieces at once; for testing exhaustion.
#[derive(Debug)]
pub struct Limited {
    limit: usize,
    out: core::sync::atomic::AtomicUsize,
}

impl Limited {
    /// A backing of `limit` pieces.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self { limit, out: core::sync::atomic::AtomicUsize::new(0) }
    }

    /// How many pieces are taken now.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out.load(core::sync::atomic::Ordering::Relaxed)
    }
}

// SAFETY: `Heap` keeps the promise.
unsafe impl Backing for Limited {
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        use core::sync::atomic::Ordering::Relaxed;
        let another = |out| (out < self.limit).then_some(out + 1);
        self.out.fetch_update(Relaxed, Relaxed, another).map_err(|_| Exhausted)?;
        Heap.take(layout, near)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        self.out.fetch_sub(1, core::sync::atomic::Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { Heap.give(memory, layout) }
    }
}

/// The host's allocator; what is retired is kept until the graveyard is dropped.
#[derive(Default)]
pub struct Graveyard {
    out: core::sync::atomic::AtomicUsize,
    retired: std::sync::Mutex<Vec<(usize, Layout)>>,
}

impl Graveyard {
    /// How many pieces are taken now, and neither given back nor retired.
    #[must_use]
    pub fn out(&self) -> usize {
        self.out.load(core::sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Graveyard {
    fn drop(&mut self) {
        for (address, layout) in self.retired.get_mut().expect("nobody panics with it locked").drain(..) {
            let memory = core::ptr::with_exposed_provenance_mut(address);
            // SAFETY: it was taken from the heap with this layout; nobody is left to read it.
            unsafe { std::alloc::dealloc(memory, layout) };
        }
    }
}

// SAFETY: `Heap` keeps the promise.
unsafe impl Backing for Graveyard {
    fn take(&self, layout: Layout, near: CpuId) -> Result<NonNull<u8>, Exhausted> {
        self.out.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
        Heap.take(layout, near)
    }

    unsafe fn give(&self, memory: NonNull<u8>, layout: Layout) {
        self.out.fetch_sub(1, core::sync::atomic::Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { Heap.give(memory, layout) }
    }
}

// SAFETY: what is retired stays until the graveyard is dropped.
unsafe impl Deferred for Graveyard {
    unsafe fn retire(&self, _cpu: Cpu<'_>, memory: NonNull<u8>, layout: Layout) {
        self.out.fetch_sub(1, core::sync::atomic::Ordering::Relaxed);
        let address = memory.as_ptr().expose_provenance();
        self.retired.lock().expect("nobody panics with it locked").push((address, layout));
    }
}

// SAFETY: the backing behind the reference keeps the promise.
unsafe impl Deferred for &Graveyard {
    unsafe fn retire(&self, cpu: Cpu<'_>, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { (**self).retire(cpu, memory, layout) }
    }
}

// SAFETY: a test with this backing has one thread, which reads nothing that it has retired.
unsafe impl Deferred for Limited {
    unsafe fn retire(&self, _cpu: Cpu<'_>, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { self.give(memory, layout) }
    }
}

/// Has the model checker try `test` in every order of accesses with at most `preemptions` places where a
/// thread that could go on is stopped for another.
#[cfg(loom)]
pub fn check(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}
