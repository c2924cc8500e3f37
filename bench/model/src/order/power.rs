//! CPUs that go off and come on, and the IPIs that wake them.
use super::Synchroniser;
use super::shared::{OFF, RUNNING};
use crate::futex;
use std::sync::atomic::{Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

/// How long the host may take to wake a CPU to which an IPI was sent.
const WAKE_TIME: Duration = Duration::from_millis(1);
/// How often that time is granted while a CPU that is off waits for the host.
const WAKE_TRIES: u32 = 40;
impl Synchroniser {
    /// `cpu` goes off: it holds nobody back.
    pub fn halt(&self, cpu: u32) {
        self.shared(cpu).state.store(OFF, SeqCst);
        if self.is_strict() {
            let mut queue = self.lock();
            self.release(&mut queue);
        }
    }

    /// `cpu` comes on at `position`.
    pub fn resume(&self, cpu: u32, position: u64) {
        let shared = self.shared(cpu);
        shared.position.store(position, SeqCst);
        shared.woken.store(position.max(1), SeqCst);
        shared.limit.store(0, Relaxed);
        if shared.thread.load(Relaxed) == 0 {
            shared.thread.store(futex::thread_id(), Relaxed);
        }
        shared.state.store(RUNNING, SeqCst);
        if self.is_strict() {
            self.resumes.fetch_add(1, SeqCst);
            futex::wake(&self.resumes);
            for (_, other) in self.active() {
                other.limit.store(0, Relaxed);
            }
        }
    }

    /// An IPI sent at `sent` reaches its handler at `floor`: CPUs that came on since it was sent, and at
    /// most `age` cycles ago, are raised to that. (The emulator may wake a CPU before the sender's access
    /// is reported.) True when there was one.
    pub fn raise_woken(&self, sent: u64, floor: u64, age: u64) -> bool {
        let mut any = false;
        for (_, shared) in self.active() {
            let (woken, now) = (shared.woken.load(Relaxed), shared.position.load(Relaxed));
            let recent = woken != 0
                && woken + u64::from(self.order.quantum) >= sent
                && now < floor
                && now < woken + age;
            if recent {
                shared.raise.fetch_max(floor, Relaxed);
                shared.limit.store(0, Relaxed);
                any = true;
            }
        }
        any
    }

    /// Called by the sender of an IPI: while a CPU is off, the IPI may be about to wake it, which takes the
    /// host some time. Without this wait the sender would run on for that time.
    pub fn await_wake(&self) {
        let before = self.resumes.load(SeqCst);
        if !self.is_strict() || self.active().count() == self.cpus.len() {
            return;
        }
        for _ in 0..WAKE_TRIES {
            let woke = futex::wait(&self.resumes, before, WAKE_TIME) || self.resumes.load(SeqCst) != before;
            if woke || !self.any_off_wants_to_run() {
                return;
            }
        }
    }

    /// True when the host is about to run a CPU that is still off: it has been woken, but waits for its
    /// turn on a busy host.
    fn any_off_wants_to_run(&self) -> bool {
        let off = self.cpus.iter().filter(|c| c.state.load(Relaxed) == OFF);
        off.map(|c| c.thread.load(Relaxed)).any(futex::is_runnable)
    }

    /// True when `cpu` is on.
    #[inline]
    #[must_use]
    pub fn is_on(&self, cpu: u32) -> bool {
        self.shared(cpu).state.load(Relaxed) != OFF
    }
}
