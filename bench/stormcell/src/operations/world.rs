//! What the workers of the `smp` workloads share: the platform that the library stands on here, its memory, and the
//! objects.

use core::alloc::Layout;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use rt::call;
use smp::backing::{Backing, Exhausted};
use smp::chain::{Chain, Node};
use smp::clustered::{Account, Clustered, Counter, Degree, Ids, Replicated};
use smp::grace::{Grace, Local, Reclaim, Retired, Tree, TreeNode};
use smp::mailbox::Mailbox;
use smp::per_cpu::{PerCpu, Slot};
use smp::platform::{CpuLocal, RemoteTable};
use smp::pool::{Pool, Share, Slabs};
use smp::remote::{Calls, Desk};
use smp::shootdown::{Loaded, Pages, Shootdown};
use smp::sync::AtomicU64 as Word;
use smp::{Cpu, CpuId, Platform};

/// The most CPUs that these workloads have memory for.
pub const CPUS: usize = 32;
/// Objects that a CPU retires before it asks for a grace period.
const BATCH: usize = 2048;
/// Objects to retire for each CPU: four batches can wait at a time; the rest comes from what is done.
const OBJECTS: usize = 5 * BATCH;
/// Credit that a CPU takes at a time.
const CREDIT: u64 = 1024;
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
pub struct Replicas;

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

/// Memory from the arena.
#[derive(Debug)]
pub struct FromArena;

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
pub type Letter = Node<u64>;

/// What all workers share.
pub struct World {
    pub counter: Clustered<Counter<FromArena>>,
    pub account: Clustered<Account<FromArena>>,
    pub value: Clustered<Replicated<2, VALUE_LOCK, FromArena>>,
    pub pool: Pool<Slabs<FromArena>, PerCpu<'static, Share>>,
    pub grace: Grace<'static>,
    pub mailboxes: PerCpu<'static, Mailbox<u64>>,
    pub calls: Calls<(), PerCpu<'static, Desk<()>>>,
    pub shootdown: Shootdown<PerCpu<'static, Loaded>>,
    pub shootdowns: Calls<Pages, PerCpu<'static, Desk<Pages>>>,
}

static IDS: [Word; 1] = [Word::new(0)];
static WORLD: Static<MaybeUninit<World>> = Static::new(MaybeUninit::uninit());
static SHARES: Static<[Slot<Share>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static LOCAL: Static<[Slot<Local>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static MAILBOXES: Static<[Slot<Mailbox<u64>>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static DESKS: Static<[Slot<Desk<()>>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static LOADED: Static<[Slot<Loaded>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
static ORDERS: Static<[Slot<Desk<Pages>>; CPUS]> = Static::new([const { PerCpu::SLOT }; CPUS]);
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
            shootdown: Shootdown::new(&mut *LOADED.get()),
            shootdowns: Calls::new(&mut *ORDERS.get()),
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
pub struct Here {
    pub cpu: Cpu<'static>,
    pub world: &'static World,
}

impl Here {
    /// The worker of CPU `cpu`; ends the program if there is no memory for so many.
    pub fn new(cpu: u32) -> Self {
        if cpu as usize >= CPUS {
            rt::log!("this workload has memory for {CPUS} CPUs");
            call::exit(1);
        }
        Self { cpu: token(cpu), world: world() }
    }
}

/// Frees an object: puts it back on its CPU's list.
unsafe fn put_back(object: NonNull<Retired>) {
    let first = OBJECTS_OF.get().addr();
    let cpu = (object.addr().get() - first) / size_of::<[Retired; OBJECTS]>();
    // SAFETY: objects are reaped on the CPU that retired them, and it takes its own; so this is that CPU's list.
    unsafe { (*FREE[cpu].get()).objects.push(object) };
}

/// CPU `cpu`'s objects that are not retired, made on the first call; for its worker alone.
pub fn objects(cpu: u32) -> *mut Chain<Reclaim> {
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
    &raw mut own.objects
}
