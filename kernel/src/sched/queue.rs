//! Lists of threads, linked through the threads, so that they need no memory.

use core::mem::offset_of;
use core::ptr;

use abi::PRIORITIES;

use super::Thread;

/// Threads in order of arrival.
///
/// All threads in it are alive, belong to the CPU that uses the queue, and are in no other queue.
#[derive(Debug)]
pub struct Queue {
    head: *mut Thread,
    tail: *mut Thread,
}

impl Queue {
    /// Offset of the pointer to the first thread, null where there is none.
    pub const HEAD_AT: usize = offset_of!(Self, head);

    /// No threads.
    #[must_use]
    pub const fn new() -> Self {
        Self { head: ptr::null_mut(), tail: ptr::null_mut() }
    }

    /// True when there is no thread.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Adds a thread at the end.
    #[inline]
    pub fn push(&mut self, thread: &mut Thread) {
        let pointer: *mut Thread = thread;
        thread.next = ptr::null_mut();
        thread.previous = self.tail;
        if self.tail.is_null() {
            self.head = pointer;
        } else {
            // SAFETY: the tail is in this queue, so alive and ours.
            unsafe { (*self.tail).next = pointer };
        }
        self.tail = pointer;
    }

    /// Adds a thread at the start.
    pub fn push_front(&mut self, thread: &mut Thread) {
        let pointer: *mut Thread = thread;
        thread.next = self.head;
        thread.previous = ptr::null_mut();
        if self.head.is_null() {
            self.tail = pointer;
        } else {
            // SAFETY: the head is in this queue, so alive and ours.
            unsafe { (*self.head).previous = pointer };
        }
        self.head = pointer;
    }

    /// The first thread that is `wanted`.
    pub fn find(&mut self, wanted: impl Fn(&Thread) -> bool) -> Option<&'static mut Thread> {
        let mut next = self.head;
        // SAFETY: threads in the queue are alive and ours.
        while let Some(thread) = unsafe { next.as_mut() } {
            if wanted(thread) {
                return Some(thread);
            }
            next = thread.next;
        }
        None
    }

    /// Its threads.
    pub fn iter(&self) -> impl Iterator<Item = &Thread> {
        // SAFETY: threads in the queue are alive and ours.
        core::iter::successors(unsafe { self.head.as_ref() }, |thread| unsafe { thread.next.as_ref() })
    }

    /// The highest priority of its threads.
    #[must_use]
    pub fn highest_priority(&self) -> Option<u8> {
        self.iter().map(|thread| thread.priority).max()
    }

    /// Takes the first thread out.
    #[inline]
    pub fn pop(&mut self) -> Option<&'static mut Thread> {
        // SAFETY: threads in the queue are alive and ours; taken out, it is the caller's.
        let thread = unsafe { self.head.as_mut()? };
        self.head = thread.next;
        // SAFETY: as above.
        match unsafe { self.head.as_mut() } {
            Some(next) => next.previous = ptr::null_mut(),
            None => self.tail = ptr::null_mut(),
        }
        thread.next = ptr::null_mut();
        Some(thread)
    }

    /// Takes `thread` out of the middle; it is in this queue.
    #[inline]
    pub fn remove(&mut self, thread: &mut Thread) {
        debug_assert!(!thread.previous.is_null() || ptr::eq(self.head, thread), "it is in no queue");
        // SAFETY: neighbours in the queue are alive and ours.
        unsafe {
            match thread.previous.as_mut() {
                Some(previous) => previous.next = thread.next,
                None => self.head = thread.next,
            }
            match thread.next.as_mut() {
                Some(next) => next.previous = thread.previous,
                None => self.tail = thread.previous,
            }
        }
        thread.next = ptr::null_mut();
        thread.previous = ptr::null_mut();
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self::new()
    }
}

/// The ready threads of a CPU: a queue a priority, and a bit for each queue that is not empty.
#[derive(Debug)]
pub struct RunQueue {
    occupied: u64,
    queues: [Queue; PRIORITIES],
}

const _: () = assert!(PRIORITIES == u64::BITS as usize);

impl RunQueue {
    /// No threads.
    #[must_use]
    pub const fn new() -> Self {
        Self { occupied: 0, queues: [const { Queue::new() }; PRIORITIES] }
    }

    /// Adds a thread behind those of its priority.
    #[inline]
    pub fn push(&mut self, thread: &mut Thread) {
        let priority = usize::from(thread.priority) % PRIORITIES;
        self.queues[priority].push(thread);
        self.occupied |= 1 << priority;
    }

    /// Takes `thread`, which is in it, out.
    pub fn remove(&mut self, thread: &mut Thread) {
        let priority = usize::from(thread.priority) % PRIORITIES;
        self.queues[priority].remove(thread);
        if self.queues[priority].is_empty() {
            self.occupied &= !(1 << priority);
        }
    }

    /// The highest priority that has a thread.
    #[inline]
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        self.occupied.checked_ilog2().map(|priority| priority as u8)
    }

    /// Takes the first thread of the highest priority out.
    #[inline]
    pub fn pop(&mut self) -> Option<&'static mut Thread> {
        let priority = usize::from(self.highest()?);
        let thread = self.queues[priority].pop();
        if self.queues[priority].is_empty() {
            self.occupied &= !(1 << priority);
        }
        thread
    }
}

impl RunQueue {
    /// Takes the first thread of the highest priority out, unless its program is over.
    #[inline]
    pub fn pop_living(&mut self) -> Option<&'static mut Thread> {
        let priority = usize::from(self.highest()?);
        let queue = &mut self.queues[priority];
        // SAFETY: threads in the queues are alive and ours.
        if unsafe { queue.head.as_ref() }?.space.is_dead() {
            return None;
        }
        let thread = queue.pop();
        if queue.is_empty() {
            self.occupied &= !(1 << priority);
        }
        thread
    }
}

impl Default for RunQueue {
    fn default() -> Self {
        Self::new()
    }
}
