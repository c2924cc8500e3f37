//! Which thread runs next on a CPU, and what happens between two of them.

use core::ptr;

use super::Cell;
use crate::arch::{cpu, entry, time};
use crate::hooks;
use crate::ipc::turn;
use crate::mem::kernel_space;
use crate::mem::shootdown::{self, Hardware};
use crate::object::retire;
use crate::sched::thread::Notes;
use crate::sched::{State, Thread};
use smp::CpuId;

impl Cell {
    /// Makes `thread` the one that leaves the kernel next.
    #[inline]
    pub fn switch_to(&mut self, thread: &mut Thread) -> *mut Thread {
        self.running = thread;
        self.segments.set_entry_stack(thread.frame_top());
        // SAFETY: a thread's root is that of its CPU's part of its program, which lives as long as it has threads
        // there.
        let root = unsafe { &*thread.root };
        if self.public().loaded().switch(&Hardware::of(thread.space), root) {
            shootdown::settle(self, thread.space, root);
        }
        thread
    }

    /// Takes `thread`, which is ready, out of the queue and runs it, for what is left of the running one's slice.
    pub fn run_now(&mut self, thread: &mut Thread) -> *mut Thread {
        self.ready.remove(thread);
        thread.state = State::Running;
        let thread = self.switch_to(thread);
        self.arm_slice();
        thread
    }

    /// Takes `thread`, which is ready, out of the queue.
    pub fn take_from_ready(&mut self, thread: &mut Thread) {
        self.ready.remove(thread);
    }

    /// Puts `thread` behind those of its priority that are ready on this CPU.
    #[inline]
    pub fn make_ready(&mut self, thread: &mut Thread) {
        thread.state = State::Ready;
        self.ready.push(thread);
    }

    /// Gives `thread`, which is this CPU's, another priority; if it is ready, it goes behind those of that one.
    pub fn prioritise(&mut self, thread: &mut Thread, priority: u8) {
        let is_ready = thread.state == State::Ready;
        if is_ready {
            self.take_from_ready(thread);
        }
        thread.priority = priority;
        if is_ready {
            self.make_ready(thread);
        }
    }

    /// Whether a thread with a higher priority is ready.
    #[inline]
    #[must_use]
    pub fn has_ready_above(&self, priority: u8) -> bool {
        self.ready.highest().is_some_and(|highest| highest > priority)
    }

    /// Whether the running `thread` gives way to one of higher priority that is ready.
    #[inline(always)]
    fn gives_way(&mut self, thread: &mut Thread) -> bool {
        self.has_ready_above(thread.priority) && self.gives_way_as_worker(thread)
    }

    #[cold]
    #[inline(never)]
    fn gives_way_as_worker(&mut self, thread: &mut Thread) -> bool {
        turn::lend_own(self, thread);
        self.has_ready_above(thread.priority)
    }

    /// Lets a thread that became ready run before the running one if its priority is higher. `result` is what
    /// the running thread's system call returns.
    #[inline(always)]
    pub fn reschedule(&mut self, result: u64) -> crate::syscall::Return {
        let running = self.running();
        if self.gives_way(running) {
            return self.give_way(running, result);
        }
        self.arm_slice();
        crate::syscall::Return::value(result)
    }

    /// The same for what a call returns that may have made threads ready.
    #[inline(always)]
    pub fn reschedule_with(&mut self, result: crate::syscall::Return) -> crate::syscall::Return {
        match result.back_to_caller() {
            Some(value) => self.reschedule(value),
            None => result,
        }
    }

    #[cold]
    #[inline(never)]
    fn give_way(&mut self, running: &mut Thread, result: u64) -> crate::syscall::Return {
        running.set_result(result);
        self.make_ready(running);
        crate::syscall::Return::switch(self.next_thread())
    }

    /// The next thread to run; waits, with the kernel's own page table loaded, until there is one.
    pub fn next_thread(&mut self) -> *mut Thread {
        self.pass_quiescent_point();
        if !self.is_asked()
            && let Some(thread) = self.ready.pop_living()
        {
            return self.start_turn(thread);
        }
        self.wait_for_thread()
    }

    #[cold]
    #[inline(never)]
    fn wait_for_thread(&mut self) -> *mut Thread {
        loop {
            self.serve_others();
            match self.ready.pop() {
                None => self.idle(),
                Some(thread) if thread.space.is_dead() => {
                    // It is in the queue no more: it must not be taken out once again, with all that are in it.
                    thread.state = State::Stopped;
                    self.end_thread(thread, 0);
                }
                Some(thread) => return self.start_turn(thread),
            }
        }
    }

    /// Runs `thread`, which was taken out of the queue.
    #[inline(always)]
    fn start_turn(&mut self, thread: &mut Thread) -> *mut Thread {
        thread.state = State::Running;
        self.charge(thread);
        self.running = thread;
        self.slice_end = 0;
        self.arm_slice();
        self.switch_to(thread)
    }

    /// Loads the kernel's own page table if this CPU has the one of `root`'s value loaded.
    pub fn leave_root(&mut self, root: u64) {
        if self.public().loaded().value() == root {
            self.load_kernel_root();
        }
    }

    /// Loads the kernel's own page table, from which nothing is unmapped: an unmapping elsewhere leaves this CPU alone.
    fn load_kernel_root(&mut self) {
        let root = kernel_space::kernel_root(self.id);
        self.public().loaded().leave_for(root, entry::load_root);
    }

    fn idle(&mut self) {
        self.charge(ptr::null_mut());
        self.running = ptr::null_mut();
        self.load_kernel_root();
        self.hurry_retired();
        if !self.tended.is_empty() {
            self.tend_replicas();
        }
        if self.ready.highest().is_some() {
            return;
        }
        if self.id == CpuId::BOOT && crate::boot::program::none_left() {
            if !retire::is_anything_left() {
                crate::tests::go_on(self);
                return;
            }
            self.public().look_soon();
        }
        self.slice_end = 0;
        self.arm_timer();
        let vector = self.rest(|cell| hooks::while_idle(cell, cpu::wait_for_interrupt));
        entry::interrupt(self, vector);
    }

    /// Serves this CPU's threads for good.
    pub fn run(&mut self) -> ! {
        let thread = self.next_thread();
        hooks::end(self);
        entry::leave_to(thread)
    }

    /// Goes on after an interrupt of the running thread: with it, unless another one is to run.
    pub fn after_interrupt(&mut self) -> *mut Thread {
        let thread: *mut Thread = self.running;
        self.pass_quiescent_point_with_time();
        self.serve_others();
        if !self.tended.is_empty() {
            self.tend_replicas();
        }
        // SAFETY: an interrupt of user mode has a running thread, which is alive: only its own CPU ends it, and
        // `serve_others` only marks the running one.
        let thread = unsafe { &mut *thread };
        let slice_is_over = self.slice_end != 0 && time::now() >= self.slice_end;
        if slice_is_over {
            // If nobody wants the next one, the timer is not to fire for this one again.
            self.slice_end = 0;
        }
        let gives_way =
            self.gives_way(thread) || slice_is_over && self.ready.highest() == Some(thread.priority);
        if thread.notes.contains(Notes::DYING) || thread.space.is_dead() {
            self.end_thread(thread, 0);
            return self.next_thread();
        }
        if thread.notes.contains(Notes::STOPPED) {
            thread.state = State::Stopped;
            return self.next_thread();
        }
        if gives_way {
            self.make_ready(thread);
            return self.next_thread();
        }
        self.arm_slice();
        thread
    }

    /// Whether [`serve_others`](Self::serve_others) may have something to do: loads of lines of this CPU's own.
    #[inline]
    fn is_asked(&self) -> bool {
        let public = self.public();
        !public.mailbox().is_empty() || shootdown::is_asked(self) || self.timers.soonest().is_some()
    }

    /// Does what other CPUs asked and what time asks for.
    fn serve_others(&mut self) {
        let public = self.public();
        if shootdown::is_asked(self) {
            shootdown::serve(self);
        }
        if !public.mailbox().is_empty() {
            self.read_letters();
        }
        if self.timers.soonest().is_some() {
            self.end_due_waits();
        }
    }

    #[cold]
    fn end_due_waits(&mut self) {
        let now = time::now();
        while let Some(thread) = self.timers.pop_due(now) {
            thread.deadline = 0;
            self.time_out(thread);
        }
    }
}
