//! A kernel and processes for the server: what the kernel keeps, it keeps when the server ends.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use abi::{Access, Error, Handle, fault};

use super::crash;
use crate::frames::Frame;
use crate::kept::{Kept64, step};
use crate::log::Log;
use crate::outside::Outside;
use crate::pager::{Life, Pager};
use crate::replica::Replica;
use crate::state::State;

/// Pages of the only range, and those that are the server's own.
pub const PAGES: u64 = 400;
pub const OWN: u64 = 3;
pub const CPUS: u32 = 2;
const WORDS: usize = PAGES.div_ceil(64) as usize;

/// Handles of the processes' spaces, by their numbers.
pub fn space_of(process: u64) -> Handle {
    Handle(1000 + process)
}

/// A region as the kernel has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelRegion {
    pub length: u64,
    pub badge: u64,
}

/// Where a frame is mapped: a space (0: the server) and an address.
type Place = (u64, u64);

#[derive(Debug, Default)]
pub struct Kernel {
    pub regions: BTreeMap<Place, KernelRegion>,
    pub mapped: BTreeMap<Place, (Frame, Access)>,
    /// How often each frame is mapped.
    counts: BTreeMap<Frame, u32>,
    pub capabilities: BTreeSet<u64>,
    next_handle: u64,
}

impl Kernel {
    pub fn is_mapped(&self, frame: Frame) -> bool {
        self.counts.contains_key(&frame)
    }

    pub fn map(&mut self, place: Place, frame: Frame, access: Access) -> Result<(), Error> {
        if access.contains(Access::ZERO) && self.is_mapped(frame) {
            return Err(Error::Busy);
        }
        if self.mapped.contains_key(&place) {
            if !access.contains(Access::REPLACE) {
                return Err(Error::Busy);
            }
            self.unmap(place, 1);
        }
        self.mapped.insert(place, (frame, access));
        *self.counts.entry(frame).or_default() += 1;
        Ok(())
    }

    pub fn unmap(&mut self, (space, address): Place, pages: u64) {
        let end = (space, address + pages * abi::PAGE);
        let places: Vec<_> = self.mapped.range((space, address)..end).map(|(place, _)| *place).collect();
        for place in places {
            let (frame, _) = self.mapped.remove(&place).unwrap();
            let count = self.counts.get_mut(&frame).unwrap();
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&frame);
            }
        }
    }

    /// The space is at its end.
    pub fn end_space(&mut self, space: u64) {
        self.regions.retain(|&(of, _), _| of != space);
        let places: Vec<_> =
            self.mapped.range((space, 0)..=(space, u64::MAX)).map(|(place, _)| *place).collect();
        places.into_iter().for_each(|place| self.unmap(place, 1));
    }

    fn meets(&self, space: u64, start: u64, length: u64) -> bool {
        let its = self.regions.range((space, 0)..=(space, u64::MAX));
        its.into_iter().any(|((_, other), region)| start < other + region.length && *other < start + length)
    }
}

/// What outlives the server, at places that stay.
pub struct World {
    pub kernel: Mutex<Kernel>,
    state: &'static State,
    replicas: [&'static Replica; CPUS as usize],
    logs: *mut u8,
    marks: [AtomicU64; WORDS],
    log_marks: [Kept64; WORDS],
    lives: Mutex<Vec<&'static Life>>,
    /// What comes in the midst of the server's work: when it has next unmapped something of this space.
    after_unmap: Mutex<Option<(Handle, Work)>>,
}

type Work = Box<dyn FnOnce() + Send>;

// SAFETY: the pointer is to pages whose users share them as the server's CPUs do.
unsafe impl Sync for World {}

fn zeroed<T>() -> &'static T {
    // SAFETY: only used for what zeroes are valid for, with a size; it is leaked.
    unsafe { &*alloc_zeroed(Layout::new::<T>()).cast() }
}

impl World {
    pub fn new() -> &'static Self {
        let layout = Layout::from_size_align((PAGES * abi::PAGE) as usize, abi::PAGE as usize).unwrap();
        let world = Self {
            kernel: Mutex::default(),
            state: zeroed(),
            replicas: [zeroed(), zeroed()],
            // SAFETY: it has a size.
            logs: unsafe { alloc_zeroed(layout) },
            marks: [const { AtomicU64::new(0) }; WORDS],
            log_marks: [const { Kept64::zero() }; WORDS],
            lives: Mutex::default(),
            after_unmap: Mutex::default(),
        };
        Box::leak(Box::new(world))
    }

    /// Gives its memory back.
    ///
    /// # Safety
    /// Nobody uses it, or what was reached through it, any more.
    pub unsafe fn free(&'static self) {
        let pages = Layout::from_size_align((PAGES * abi::PAGE) as usize, abi::PAGE as usize).unwrap();
        // SAFETY: the caller's; all of it came from these allocations.
        unsafe {
            for life in self.lives.lock().unwrap().drain(..) {
                drop(Box::from_raw(std::ptr::from_ref(life).cast_mut()));
            }
            for replica in self.replicas {
                dealloc(std::ptr::from_ref(replica).cast_mut().cast(), Layout::new::<Replica>());
            }
            dealloc(std::ptr::from_ref(self.state).cast_mut().cast(), Layout::new::<State>());
            dealloc(self.logs, pages);
            drop(Box::from_raw(std::ptr::from_ref(self).cast_mut()));
        }
    }

    /// CPU `cpu`'s part.
    pub fn replica_of(&self, cpu: u32) -> &'static Replica {
        self.replicas[cpu as usize]
    }

    /// Whether the server takes a frame for free when a life has begun.
    pub fn is_free(&self, frame: Frame) -> bool {
        let (word, bit) = frame.bit();
        self.marks[word].load(Ordering::Relaxed) & bit != 0
    }

    /// What is written in the page of a frame is its first word.
    pub fn word(&self, frame: Frame) -> *mut u64 {
        // SAFETY: within the pages.
        unsafe { self.logs.add((frame.page() * abi::PAGE) as usize).cast() }
    }

    /// Does `work` as soon as the server has unmapped something of `space`.
    pub fn after_unmap(&self, space: Handle, work: impl FnOnce() + Send + 'static) {
        *self.after_unmap.lock().unwrap() = Some((space, Box::new(work)));
    }

    /// Whether nothing is to come.
    pub fn is_all_done(&self) -> bool {
        self.after_unmap.lock().unwrap().is_none()
    }

    fn changing<R>(&self, change: impl FnOnce(&mut Kernel) -> R) -> R {
        step();
        change(&mut self.kernel.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Outside for &'static World {
    fn state(&self) -> &'static State {
        self.state
    }

    fn replica(&self, cpu: u32) -> &'static Replica {
        self.replicas[cpu as usize]
    }

    fn pages(&self, range: usize) -> u64 {
        if range == 0 { PAGES } else { 0 }
    }

    fn own_pages(&self) -> u64 {
        OWN
    }

    fn marks(&self, range: usize) -> &'static [AtomicU64] {
        let this: &'static World = self;
        if range == 0 { &this.marks } else { &[] }
    }

    fn log_marks(&self, range: usize) -> &'static [Kept64] {
        let this: &'static World = self;
        if range == 0 { &this.log_marks } else { &[] }
    }

    fn log(&self, frame: Frame) -> *mut Log {
        self.word(frame).cast()
    }

    fn frame_of(&self, log: &Log) -> Frame {
        Frame::new(0, (std::ptr::from_ref(log) as u64 - self.logs as u64) / abi::PAGE)
    }

    fn map_log(&self, frame: Frame) -> Result<(), Error> {
        let address = self.log(frame) as u64;
        self.changing(|kernel| kernel.map((0, address), frame, Access::READ.with(Access::ZERO)))?;
        // SAFETY: nobody else maps the frame.
        unsafe { self.word(frame).cast::<u8>().write_bytes(0, abi::PAGE as usize) };
        Ok(())
    }

    fn unmap_log(&self, frame: Frame) {
        self.changing(|kernel| kernel.unmap((0, self.log(frame) as u64), 1));
    }

    fn clear(&self, cpu: u32, frame: Frame) -> Result<(), Error> {
        let desk = u64::from(cpu) * abi::PAGE;
        self.changing(|kernel| kernel.map((0, desk), frame, Access::READ.with(Access::ZERO)))?;
        // SAFETY: nobody else maps the frame.
        unsafe { self.word(frame).write(0) };
        self.changing(|kernel| kernel.unmap((0, desk), 1));
        Ok(())
    }

    fn copy(&self, cpu: u32, from: Frame, to: Frame) -> Result<(), Error> {
        self.clear(cpu, to)?;
        // SAFETY: as above; the other page is there.
        unsafe { self.word(to).write(self.word(from).read()) };
        Ok(())
    }

    fn clean_desks(&self) {
        self.changing(|kernel| kernel.unmap((0, 0), CPUS.into()));
    }

    fn region(
        &self,
        space: Handle,
        start: u64,
        length: u64,
        _: Option<Handle>,
        badge: u64,
    ) -> Result<(), Error> {
        self.changing(|kernel| {
            if kernel.meets(space.0, start, length) {
                return Err(Error::Busy);
            }
            kernel.regions.insert((space.0, start), KernelRegion { length, badge });
            Ok(())
        })
    }

    fn end_region(&self, space: Handle, start: u64, length: u64) {
        self.changing(|kernel| {
            if kernel.regions.get(&(space.0, start)).is_some_and(|region| region.length == length) {
                kernel.regions.remove(&(space.0, start));
            }
        });
    }

    fn unmap(&self, space: Handle, start: u64, pages: u64) {
        // As the kernel does, piece by piece.
        let end = (space.0, start + pages * abi::PAGE);
        let next =
            |kernel: &mut Kernel| kernel.mapped.range((space.0, start)..end).next().map(|(place, _)| *place);
        while self.changing(|kernel| next(kernel).map(|place| kernel.unmap(place, 1))).is_some() {}
        let due = self.after_unmap.lock().unwrap().take_if(|(of, _)| *of == space);
        if let Some((_, work)) = due {
            work();
        }
    }

    fn derive(&self, _: Frame, _: u64) -> Result<Handle, Error> {
        Ok(self.changing(|kernel| {
            kernel.next_handle += 1;
            kernel.capabilities.insert(kernel.next_handle);
            Handle(kernel.next_handle)
        }))
    }

    fn grant(&self, memory: Handle, _: Handle) -> Result<Handle, Error> {
        step();
        Ok(Handle(memory.0 | 1 << 32))
    }

    fn delete(&self, handle: Handle) {
        self.changing(|kernel| kernel.capabilities.remove(&handle.0));
    }
}

/// A life of the server.
pub type Server = Pager<&'static World>;

/// Begins a life; `None` if the server ended in it.
pub fn begin(world: &'static World) -> Option<Server> {
    let life: &'static Life = Box::leak(Box::new(Life::new()));
    world.lives.lock().unwrap().push(life);
    let server = Pager { outside: world, state: world.state, life, cpus: CPUS };
    crash::serve(|| server.begin())?;
    Some(server)
}

/// A program touches `address`: what the kernel does about that. `None` if the server ended meanwhile, which the kernel tries
/// again later; the frame that is there then, or an error of the program.
pub fn touch(
    world: &'static World,
    server: &Server,
    cpu: u32,
    process: u64,
    address: u64,
    writes: bool,
) -> Option<Result<Frame, ()>> {
    /// A page that is somebody's yet is asked for anew.
    const TRIES: u32 = 1000;
    let (space, page) = (space_of(process).0, address & !(abi::PAGE - 1));
    let wanted = if writes { Access::WRITE } else { Access::READ };
    for _ in 0..TRIES {
        let (start, region) = {
            let kernel = world.kernel.lock().unwrap();
            if let Some(&(frame, access)) = kernel.mapped.get(&(space, page))
                && access.contains(wanted)
            {
                return Some(Ok(frame));
            }
            let before = kernel.regions.range((space, 0)..=(space, address)).next_back();
            let Some((&(_, start), &region)) = before else { return Some(Err(())) };
            if address >= start + region.length {
                return Some(Err(()));
            }
            (start, region)
        };
        let words = [address, wanted.0, address - start, 0];
        let replica = world.replica(cpu);
        let answer = crash::serve(|| server.fault(replica, region.badge, words, |frame| frame.0.into()))?;
        if answer.label != fault::MAP {
            return Some(Err(()));
        }
        let (frame, access) = (Frame(answer.words[0] as u32), Access(answer.words[2]));
        let mut kernel = world.kernel.lock().unwrap();
        if kernel.map((space, page), frame, access).is_ok() && access.contains(Access::ZERO) {
            // SAFETY: nobody else maps the frame.
            unsafe { world.word(frame).write(0) };
        }
    }
    panic!("no page after {TRIES} tries");
}
