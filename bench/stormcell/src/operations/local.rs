//! The primitives of the `smp` crate as a server's replicas use them: one worker a CPU, which nobody else of the
//! program interrupts on that CPU. All but the last claim that they move no line in steady state.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rt::call;
use smp::backing::{Backing, Exhausted};
use smp::chain::{Chain, Node};
use smp::clustered::{Account, Clustered, Counter, Degree, Ids, Replicated};
use smp::cpu_set::CpuSet;
use smp::grace::{Grace, Local, Reclaim, Retired, Tree, TreeNode};
use smp::mailbox::Mailbox;
use smp::per_cpu::{PerCpu, Slot};
use smp::platform::{CpuLocal, RemoteTable};
use smp::pool::{Pool, Share, Slabs};
use smp::remote::{Calls, Desk};
use smp::sync::AtomicU64 as Word;
use smp::{Cpu, CpuId, Platform};
use workloads::table::number;

use crate::runner::{self, Operation};

/// The most CPUs that these workloads have memory for.
const CPUS: usize = 32;
/// Objects that a CPU retires before it asks for a grace period.
const BATCH: usize = 1024;
/// Objects to retire for each CPU: four batches can wait at a time; the rest comes from what is done.
const OBJECTS: usize = 6 * BATCH;
/// Objects that a worker frees at a time when a period is over.
const REAPED: usize = 64;
/// Credit that a CPU takes at a time.
const CREDIT: usize = 1024;
/// Blocks that a worker holds while it allocates and frees others.
const HELD: usize = 16;
/// Entries of a CPU's table.
const ENTRIES: usize = 64;
/// Bytes of the arena that representatives and slabs come from.
const ARENA: usize = 1 << 20;
const SLAB: usize = 4096;
/// Class of the replicated value's lock.
const VALUE_LOCK: u8 = 32;

/// The tables of the CPUs.
static LOCALS: [CpuLocal<ENTRIES>; CPUS] = {
    let mut locals = [const { MaybeUninit::<CpuLocal<ENTRIES>>::uninit() }; CPUS];
    let mut index = 0;
    while index < CPUS {
        locals[index] = MaybeUninit::new(match CpuId::new(index) {
            Some(id) => CpuLocal::new(id),
            None => panic!("fewer CPUs than there can be"),
        });
        index += 1;
    }
    // SAFETY: the loop wrote every element, and `MaybeUninit` has the layout of what it holds.
    unsafe { core::mem::transmute(locals) }
};

/// What the library stands on here.
struct Replicas;

// SAFETY: a worker makes its own CPU's token, and is the only one there that does. Tables are by number.
unsafe impl Platform for Replicas {
    fn cpu(&self) -> Cpu<'_> {
        token(call::cpu_number())
    }

    fn cpus(&self) -> usize {
        CPUS
    }

    fn wake(&self, _: CpuId) {
        // Workers look by themselves.
    }

    fn table(&self, id: CpuId) -> RemoteTable<'_> {
        LOCALS[id.index()].remote()
    }
}

fn token(cpu: u32) -> Cpu<'static> {
    // SAFETY: called by the one worker of the program on that CPU, which stays there.
    unsafe { Cpu::new(&LOCALS[cpu as usize]) }
}

/// Memory that the program writes through pointers.
#[repr(transparent)]
struct Static<T>(UnsafeCell<T>);

// SAFETY: it gives out pointers only; whoever uses one answers for the access.
unsafe impl<T> Sync for Static<T> {}

impl<T> Static<T> {
    const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    const fn get(&self) -> *mut T {
        self.0.get()
    }
}

/// Memory that is never given back, on pages of its own.
#[repr(C, align(4096))]
struct Arena(MaybeUninit<[u8; ARENA]>);

static MEMORY: Static<Arena> = Static::new(Arena(MaybeUninit::uninit()));
static TAKEN: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug)]
struct FromArena;

// SAFETY: each byte is handed out once; slabs and representatives are aligned to at most a page, as the arena is.
unsafe impl Backing for FromArena {
    fn take(&self, layout: Layout, _: CpuId) -> Result<NonNull<u8>, Exhausted> {
        let mut start = 0;
        let end = |taken: usize| {
            start = taken.next_multiple_of(layout.align());
            Some(start + layout.size()).filter(|end| *end <= ARENA)
        };
        TAKEN.fetch_update(Ordering::AcqRel, Ordering::Acquire, end).map_err(|_| Exhausted)?;
        // SAFETY: within the arena.
        NonNull::new(unsafe { MEMORY.get().cast::<u8>().add(start) }).ok_or(Exhausted)
    }

    unsafe fn give(&self, _: NonNull<u8>, _: Layout) {}
}

/// A message of a worker to itself.
type Letter = Node<u64>;

/// What all workers share.
struct World {
    counter: Clustered<Counter<FromArena>>,
    account: Clustered<Account<FromArena>>,
    value: Clustered<Replicated<2, VALUE_LOCK, FromArena>>,
    pool: Pool<'static, Slabs<FromArena>>,
    grace: Grace<'static>,
    mailboxes: PerCpu<'static, Mailbox<u64>>,
    calls: Calls<'static>,
}

static IDS: [Word; 1] = [Word::new(0)];
static WORLD: Static<MaybeUninit<World>> = Static::new(MaybeUninit::uninit());
static SHARES: Static<[Slot<Share>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static LOCAL: Static<[Slot<Local>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static MAILBOXES: Static<[Slot<Mailbox<u64>>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static DESKS: Static<[Slot<Desk>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static TREE: Static<MaybeUninit<[TreeNode; Tree::nodes(CPUS)]>> = Static::new(MaybeUninit::uninit());
static OBJECTS_OF: Static<MaybeUninit<[[Retired; OBJECTS]; CPUS]>> = Static::new(MaybeUninit::uninit());
/// Each CPU's objects that are not retired; touched by its worker alone.
static FREE: [Static<Own>; CPUS] = [const { Static::new(Own { objects: Chain::new(), made: false }) }; CPUS];
static THE_WORLD: AtomicPtr<World> = AtomicPtr::new(ptr::null_mut());

#[repr(C, align(128))]
struct Own {
    objects: Chain<Reclaim>,
    /// The objects have been made.
    made: bool,
}

/// Makes what all workers share. Called once, before any worker starts.
pub fn prepare() {
    // SAFETY: the first thread runs alone and once, so nobody else touches these statics. The numbers are the only
    // ones in use with the tables, and are as many as those have entries.
    unsafe {
        let ids = Ids::new(&IDS, CPUS);
        let tree = (*TREE.get()).write(Grace::tree());
        let clustered = "a fresh map has numbers";
        let boot = CpuId::BOOT;
        let world = World {
            counter: Clustered::new(&ids, boot, Counter::new(FromArena, Degree::Cpu)).expect(clustered),
            account: Clustered::new(&ids, boot, Account::new(FromArena, Degree::Cpu, u64::MAX / 2, CREDIT))
                .expect(clustered),
            value: Clustered::new(&ids, boot, Replicated::new(FromArena, Degree::Cpu, [1, 2]))
                .expect(clustered),
            pool: Pool::new(Slabs::new(FromArena, Layout::new::<[u64; 8]>(), SLAB), &mut *SHARES.get()),
            grace: Grace::new(&mut *LOCAL.get(), tree, BATCH),
            mailboxes: PerCpu::new(&mut *MAILBOXES.get(), |_| Mailbox::new()),
            calls: Calls::new(&mut *DESKS.get()),
        };
        THE_WORLD.store((*WORLD.get()).write(world), Ordering::Release);
    }
}

fn world() -> &'static World {
    // SAFETY: `prepare` wrote it before any worker was started, for good.
    unsafe { &*THE_WORLD.load(Ordering::Acquire) }
}

/// A worker of these workloads: its CPU, unless there is no memory for that many.
#[derive(Clone, Copy)]
struct Here {
    cpu: Cpu<'static>,
    world: &'static World,
}

impl Here {
    fn new(cpu: u32) -> Self {
        if cpu as usize >= CPUS {
            rt::log!("this workload has memory for {CPUS} CPUs");
            call::exit(1);
        }
        Self { cpu: token(cpu), world: world() }
    }
}

/// Reads a replicated value.
pub struct Deref(Here);

impl Operation<{ number::SMP_DEREF }> for Deref {
    fn prepare(cpu: u32) -> Self {
        Self(Here::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.0.world.value.reference().read(self.0.cpu) == [1, 2]
    }
}

/// Adds to a counter.
pub struct Add(Here);

impl Operation<{ number::SMP_COUNTER }> for Add {
    fn prepare(cpu: u32) -> Self {
        Self(Here::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.0.world.counter.reference().add(self.0.cpu, 1);
        true
    }
}

/// Pays from an account.
pub struct Pay(Here);

impl Operation<{ number::SMP_ACCOUNT }> for Pay {
    fn prepare(cpu: u32) -> Self {
        Self(Here::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        self.0.world.account.reference().pay(self.0.cpu, 1).is_ok()
    }
}

/// Allocates a block and frees the one that it has held for longest.
pub struct AllocFree {
    here: Here,
    held: [Option<NonNull<u8>>; HELD],
    next: usize,
}

impl AllocFree {
    fn swap(&mut self, block: Option<NonNull<u8>>) {
        if let Some(oldest) = core::mem::replace(&mut self.held[self.next % HELD], block) {
            // SAFETY: from this pool, and not used any more.
            unsafe { self.here.world.pool.free(self.here.cpu, oldest) };
        }
        self.next += 1;
    }
}

impl Operation<{ number::SMP_POOL }> for AllocFree {
    fn prepare(cpu: u32) -> Self {
        Self { here: Here::new(cpu), held: [None; HELD], next: 0 }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let block = self.here.world.pool.alloc(self.here.cpu).ok();
        self.swap(block);
        block.is_some()
    }
}

impl Drop for AllocFree {
    fn drop(&mut self) {
        (0..HELD).for_each(|_| self.swap(None));
    }
}

/// Sends a message to its own mailbox and empties it.
pub struct SendTake {
    here: Here,
    letter: Letter,
    number: u64,
}

impl Operation<{ number::SMP_MAILBOX }> for SendTake {
    fn prepare(cpu: u32) -> Self {
        Self { here: Here::new(cpu), letter: Node::new(0), number: 0 }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let mailbox = self.here.world.mailboxes.local(self.here.cpu);
        self.number += 1;
        self.letter.value = self.number;
        // SAFETY: the letter stays until it is taken, which is before this function returns.
        unsafe { mailbox.send(&Replicas, self.here.cpu.id(), NonNull::from(&mut self.letter)) };
        // SAFETY: as above.
        mailbox.take().map(|node| unsafe { node.as_ref() }.value).sum::<u64>() == self.number
    }
}

/// Retires an object, passes a quiescent point, and frees what may be freed.
pub struct Retire {
    here: Here,
    free: *mut Chain<Reclaim>,
    /// Operations left of the warm-up.
    warmup: u64,
    /// Has gone outside.
    outside: bool,
}

/// Frees an object: puts it back on its CPU's list.
unsafe fn put_back(object: NonNull<Retired>) {
    let first = OBJECTS_OF.get().addr();
    let cpu = (object.addr().get() - first) / size_of::<[Retired; OBJECTS]>();
    // SAFETY: objects are reaped on the CPU that retired them, and it takes its own; so this is that CPU's list.
    unsafe { (*FREE[cpu].get()).objects.push(object) };
}

impl Operation<{ number::SMP_RETIRE }> for Retire {
    fn prepare(cpu: u32) -> Self {
        let here = Here::new(cpu);
        // SAFETY: this CPU's list and objects are its worker's alone, and there is one worker at a time.
        let own = unsafe { &mut *FREE[cpu as usize].get() };
        if !own.made {
            own.made = true;
            // SAFETY: within the array.
            let objects = unsafe { OBJECTS_OF.get().cast::<Retired>().add(cpu as usize * OBJECTS) };
            for index in 0..OBJECTS {
                // SAFETY: within this CPU's part of the array; each is made once and is on no list.
                unsafe {
                    own.objects.push_new(NonNull::new_unchecked(objects.add(index)).cast(), Reclaim(put_back))
                };
            }
        }
        let free = &raw mut own.objects;
        Self { here, free, warmup: runner::warmup(), outside: true }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Here { cpu, world } = self.here;
        if self.outside {
            self.outside = false;
            world.grace.enter(cpu);
        }
        // SAFETY: this CPU's list; the reference ends at once.
        let Some(object) = (unsafe { (*self.free).pop() }) else { return false };
        // SAFETY: nobody ever looks the object up; it stays until it is put back.
        unsafe { world.grace.retire(cpu, object) };
        if world.grace.quiescent(&Replicas, cpu) {
            world.grace.reap(cpu, REAPED);
        }
        if self.warmup > 0 {
            self.warm();
        }
        true
    }
}

impl Retire {
    /// Goes outside after the warm-up: whoever waits for the other workers delays no period.
    #[cold]
    fn warm(&mut self) {
        let Here { cpu, world } = self.here;
        self.warmup -= 1;
        if self.warmup == 0 {
            world.grace.leave(&Replicas, cpu);
            self.outside = true;
        }
    }
}

impl Drop for Retire {
    fn drop(&mut self) {
        let Here { cpu, world } = self.here;
        world.grace.leave(&Replicas, cpu);
    }
}

/// Worker 0 has all the others do something and waits for them; each of the others does it once an operation.
pub struct CallAll {
    here: Here,
    others: Option<CpuSet>,
    /// Rounds that are marked or warm-up: the caller does each of them with all others.
    rounds: u64,
}

impl Operation<{ number::SMP_CALL }> for CallAll {
    fn prepare(cpu: u32) -> Self {
        let mut others = CpuSet::first(runner::workers() as usize);
        others.remove(CpuId::BOOT);
        Self { here: Here::new(cpu), others: (cpu == 0).then_some(others), rounds: runner::rounds() }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Here { cpu, world } = self.here;
        let marked = self.rounds > 0;
        self.rounds = self.rounds.saturating_sub(1);
        if let Some(others) = &self.others.filter(|_| marked) {
            world.calls.call(&Replicas, cpu, others, &|_| {});
            return true;
        }
        // Beyond the rounds nobody calls: some have stopped already.
        while marked && self.others.is_none() && !world.calls.is_asked(cpu) {
            core::hint::spin_loop();
        }
        world.calls.serve(cpu);
        true
    }
}
