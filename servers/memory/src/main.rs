//! The memory server: pager of anonymous memory and of memory objects.
//!
//! A fault is answered on the faulting CPU from what that CPU has: [`replica`] holds its frames. [`frames`] is where
//! they come from, in batches; [`region`] and [`object`] say what is where, and are only read by faults. What a
//! region was given is in logs a CPU, which go home whole when it ends.
//!
//! Nothing is mapped here but the server's own few pages: what is given is mapped by the kernel, by the reply.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

extern crate alloc;

mod frames;
mod log;
mod object;
mod region;
mod replica;
mod service;

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use abi::{Access, Handle, fault};
use api::badge::PROCESSES;
use api::memory::Memory as _;
use rt::call::Message;
use rt::heap;
use rt::layout::{STACK, WORKER_STACKS};
use rt::server::{Server, Turn};
use rt::service::Answer;
use rt::start::Block;
use smp::Cpu;
use smp::platform::MAX_CPUS;

use frames::{Frame, Frames};
use object::{Object, Objects};
use region::{Kind, Regions};
use replica::Replica;

/// Clustered objects that it needs.
const ENTRIES: usize = 64;
rt::server!(Memory, ENTRIES);

/// Reading and writing.
const BOTH: Access = Access::READ.with(Access::WRITE);
/// Pages of each CPU's heap, which no pager fills.
const HEAP_PAGES: u64 = 32;
/// Pages of a worker's stack that are mapped: its start, and so many below its end.
const STACK_PAGES: u64 = 4;

static REGIONS: Regions = Regions::new();
static OBJECTS: Objects = Objects::new();
static SPACES: [AtomicU64; PROCESSES] = [const { AtomicU64::new(0) }; PROCESSES];
static REPLICAS: [AtomicPtr<Replica>; MAX_CPUS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS];

/// What all replicas share.
struct Memory {
    frames: Frames,
    regions: &'static Regions,
    objects: &'static Objects,
    /// The address spaces of the processes, by number.
    spaces: &'static [AtomicU64; PROCESSES],
    replicas: &'static [AtomicPtr<Replica>; MAX_CPUS],
    /// The server's own endpoint, as pager of the regions that it makes.
    endpoint: Handle,
    cpus: u32,
}

/// Maps fresh memory of this server's at `address`. The kernel refuses frames that are mapped somewhere yet.
fn map_own(handle: Handle, page: u64, address: u64, count: u64) -> Result<(), abi::Error> {
    // SAFETY: the callers' addresses are this server's own, each used for one thing, where nothing is yet.
    unsafe { rt::memory::map(handle, page, Handle(0), address, count, BOTH.with(Access::ZERO)) }
}

impl Memory {
    /// The address space of a process.
    fn space(&self, process: u64) -> Option<Handle> {
        let space = self.spaces.get(process as usize)?.load(Ordering::Acquire);
        (space != 0).then_some(Handle(space))
    }

    /// What there is on another CPU.
    fn replica_of(&self, cpu: u32) -> Option<&Replica> {
        // SAFETY: replicas stay for good.
        unsafe { self.replicas[cpu as usize].load(Ordering::Acquire).as_ref() }
    }

    fn replicas(&self) -> impl Iterator<Item = &Replica> {
        (0..self.cpus).filter_map(|cpu| self.replica_of(cpu))
    }

    /// Answers a page fault: see [`abi::fault`].
    #[inline(always)]
    fn fault(&self, turn: &Turn<'_, Self>, badge: u64, offset: u64) -> Answer {
        const REFUSED: Answer = Answer { label: fault::REFUSED, words: [0; 4] };
        let given = match Kind::of_badge(badge) {
            Kind::Anonymous => self.fresh(turn.replica, region::index_of(badge)),
            Kind::Object => {
                let region = self.regions.get(region::index_of(badge));
                region.and_then(|region| {
                    self.object_page(turn.replica, self.objects.get(region.object())?, offset)
                })
            }
            Kind::Objects => self.shown_page(turn.replica, region::index_of(badge), offset),
        };
        match given {
            Some((frame, access)) => {
                let words = [self.frames.handle(frame).0, frame.page(), access.0, 0];
                Answer { label: fault::MAP, words }
            }
            None => REFUSED,
        }
    }

    /// A fresh page for the anonymous region `region`.
    #[inline(always)]
    fn fresh(&self, replica: &Replica, region: usize) -> Option<(Frame, Access)> {
        let frame = replica.take(&self.frames)?;
        replica.record(&self.frames, region, frame)?;
        Some((frame, BOTH.with(Access::ZERO)))
    }

    /// The page at `offset` of an object.
    #[inline(always)]
    fn object_page(&self, replica: &Replica, object: &Object, offset: u64) -> Option<(Frame, Access)> {
        let page = offset / abi::PAGE;
        let frame = match object.frame(page) {
            Some(frame) => frame,
            None => object.make(page, replica, &self.frames)?,
        };
        Some((frame, BOTH))
    }

    /// The page at `offset` of all objects, as the server sees it to which the region `region` shows them.
    fn shown_page(&self, replica: &Replica, region: usize, offset: u64) -> Option<(Frame, Access)> {
        let object = self.objects.get((offset / rt::layout::OBJECT) as u32)?;
        if !object.is_shown_to(self.regions.get(region)?.process()) {
            return None;
        }
        self.object_page(replica, object, offset % rt::layout::OBJECT)
    }
}

impl Server for Memory {
    type Replica = &'static Replica;

    fn prepare(block: &Block, cpu: u32) {
        let first = u64::from(cpu) * HEAP_PAGES;
        if let Err(error) = map_own(block.ranges[0], first, heap::arena_of(cpu), HEAP_PAGES) {
            rt::log!("memory: no heap for CPU {cpu}: {error:?}");
        }
    }

    fn new(block: &'static Block) -> Self {
        let own = HEAP_PAGES * u64::from(block.cpus);
        let frames = Frames::new(block, own);
        for cpu in 1..block.cpus {
            let start = WORKER_STACKS + u64::from(cpu) * STACK;
            let top = start + STACK - STACK_PAGES * abi::PAGE;
            for (address, count) in [(start, 1), (top, STACK_PAGES)] {
                let mapped = frames
                    .take_run(count)
                    .map(|first| map_own(frames.handle(first), first.page(), address, count));
                if !matches!(mapped, Some(Ok(()))) {
                    rt::log!("memory: no stack for CPU {cpu}");
                }
            }
        }
        Self {
            frames,
            regions: &REGIONS,
            objects: &OBJECTS,
            spaces: &SPACES,
            replicas: &REPLICAS,
            endpoint: block.endpoint,
            cpus: block.cpus,
        }
    }

    fn replica(&self, cpu: Cpu<'_>) -> &'static Replica {
        let replica = Replica::new(cpu.id().index() as u32);
        self.replicas[cpu.id().index()].store(ptr::from_ref(replica).cast_mut(), Ordering::Release);
        replica
    }

    #[inline(always)]
    fn serve(&self, turn: &Turn<'_, Self>, message: Message) -> Answer {
        if message.first & region::FAULT != 0 {
            return self.fault(turn, message.first, message.words[2]);
        }
        self.dispatch(turn, message.words)
    }
}
