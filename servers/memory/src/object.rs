//! Memory objects: pages that several processes see, each made when it is first touched. Frames of an object are
//! zeroed before anybody sees them, so making a page takes longer than giving a fresh one; a page that is there is
//! found by reading alone.

use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use abi::Handle;
use spin::mutex::SpinMutex;

use crate::frames::{Frame, Frames};
use crate::log::{CAPACITY, Log};
use crate::map_own;
use crate::replica::Replica;

/// Objects that there can be at a time.
pub const OBJECTS: usize = 8192;
/// Pages that an object can have.
pub const MOST_PAGES: u64 = rt::layout::OBJECT / abi::PAGE;
const TABLES: usize = (MOST_PAGES as usize).div_ceil(CAPACITY);
/// Where a page of an object is cleared: a page a CPU.
const CLEARING: u64 = 0x7000_0000_0000;

/// Who may see an object beside its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Sharing {
    /// Nobody.
    Own = 0,
    /// Servers that are shown objects: it is a window.
    Window = 1,
    /// Everybody may map it.
    All = 2,
}

/// An object; owner 0 is none. On lines of its own.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Object {
    owner: AtomicU32,
    pages: AtomicU32,
    sharing: AtomicU32,
    tables: [AtomicPtr<Log>; TABLES],
}

impl Object {
    /// The frame of a page, if it was made.
    #[inline(always)]
    pub fn frame(&self, page: u64) -> Option<Frame> {
        // SAFETY: logs stay for good.
        let table = unsafe { self.tables.get(page as usize / CAPACITY)?.load(Ordering::Acquire).as_ref()? };
        let frame = table.place(page as usize % CAPACITY).load(Ordering::Acquire);
        (frame != 0).then_some(Frame(frame))
    }

    /// Makes a page; or finds that another CPU made it.
    #[cold]
    #[inline(never)]
    pub fn make(&self, page: u64, replica: &Replica, frames: &Frames) -> Option<Frame> {
        if page >= self.pages() {
            return None;
        }
        let place = self.tables.get(page as usize / CAPACITY)?;
        let mut table = place.load(Ordering::Acquire);
        if table.is_null() {
            let fresh = replica.empty_log(frames)?;
            fresh.clear();
            let pointer = ptr::from_ref(fresh).cast_mut();
            match place.compare_exchange(ptr::null_mut(), pointer, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => table = pointer,
                Err(other) => {
                    fresh.close();
                    replica.take_home(fresh);
                    table = other;
                }
            }
        }
        let frame = cleared(replica, frames)?;
        // SAFETY: logs stay for good.
        let table = unsafe { &*table };
        let entry = table.place(page as usize % CAPACITY);
        match entry.compare_exchange(0, frame.0, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                table.filled();
                Some(frame)
            }
            Err(other) => {
                replica.give(frame);
                Some(Frame(other))
            }
        }
    }

    /// Its pages.
    pub fn pages(&self) -> u64 {
        self.pages.load(Ordering::Relaxed).into()
    }

    /// Its owner.
    #[inline(always)]
    pub fn owner(&self) -> u64 {
        self.owner.load(Ordering::Acquire).into()
    }

    /// Whether a server that is shown its objects sees this one.
    pub fn is_shown_to(&self, process: u64) -> bool {
        self.owner() == process || self.sharing.load(Ordering::Relaxed) == Sharing::Window as u32
    }

    /// Whether a process may map it.
    pub fn is_mappable_by(&self, process: u64) -> bool {
        self.owner() == process || self.sharing.load(Ordering::Relaxed) == Sharing::All as u32
    }

    /// Says who may see it.
    pub fn share(&self, sharing: Sharing) {
        self.sharing.store(sharing as u32, Ordering::Relaxed);
    }
}

/// A frame of zeroes. The kernel clears what it maps.
fn cleared(replica: &Replica, frames: &Frames) -> Option<Frame> {
    let frame = replica.take(frames)?;
    let address = CLEARING + u64::from(rt::here::get().cpu) * abi::PAGE;
    map_own(frames.handle(frame), frame.page(), address, 1).ok()?;
    // SAFETY: just mapped there, and used for nothing.
    unsafe { rt::memory::unmap(Handle(0), address, 1) }.ok()?;
    Some(frame)
}

/// All objects.
pub struct Objects {
    all: [Object; OBJECTS],
    hint: SpinMutex<usize>,
}

impl Objects {
    /// None.
    pub const fn new() -> Self {
        let all = [const {
            Object {
                owner: AtomicU32::new(0),
                pages: AtomicU32::new(0),
                sharing: AtomicU32::new(0),
                tables: [const { AtomicPtr::new(ptr::null_mut()) }; TABLES],
            }
        }; OBJECTS];
        Self { all, hint: SpinMutex::new(0) }
    }

    /// The object `number`; 0 is none.
    #[inline(always)]
    pub fn get(&self, number: u32) -> Option<&Object> {
        self.all.get(number as usize)
    }

    /// Makes an object. Cold: a lock.
    pub fn add(&self, owner: u64, pages: u64, sharing: Sharing) -> Option<u64> {
        let mut hint = self.hint.lock();
        let free = |&index: &usize| index != 0 && self.all[index].owner() == 0;
        let number = (0..OBJECTS).map(|step| (*hint + step) % OBJECTS).find(free)?;
        *hint = number + 1;
        let object = &self.all[number];
        object.pages.store(pages as u32, Ordering::Relaxed);
        object.share(sharing);
        object.owner.store(owner as u32, Ordering::Release);
        Some(number as u64)
    }

    /// The numbers of a process's objects.
    pub fn of(&self, owner: u64) -> impl Iterator<Item = u64> {
        (1..OBJECTS as u64).filter(move |&number| self.all[number as usize].owner() == owner)
    }

    /// Ends an object: its logs of frames, for whom they belong to.
    pub fn remove(&self, number: u64, mut each: impl FnMut(&'static Log)) {
        let object = &self.all[number as usize];
        for table in &object.tables {
            let log = table.swap(ptr::null_mut(), Ordering::AcqRel);
            // SAFETY: logs stay for good.
            if let Some(log) = unsafe { log.as_ref() } {
                log.close();
                each(log);
            }
        }
        let is_own = object.sharing.load(Ordering::Relaxed) == Sharing::Own as u32;
        object.owner.store(0, Ordering::Release);
        if is_own {
            // Low numbers are used again, so that who sees its objects by number has page tables for few addresses.
            let mut hint = self.hint.lock();
            *hint = (*hint).min(number as usize);
        }
    }
}
