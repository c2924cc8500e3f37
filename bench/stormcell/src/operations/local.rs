//! The primitives of the `smp` crate as a server's replicas use them: one worker a CPU, which nobody else of the
//! program interrupts on that CPU. They claim that they move no line in steady state.

use core::ptr::NonNull;

use smp::chain::{Chain, Node};
use smp::grace::Reclaim;
use smp::lock::Spinning;
use workloads::table::number;

use super::world::{Here, Letter, Replicas, objects};
use crate::worker::{self, Operation};

/// Blocks that a worker holds while it allocates and frees others.
const HELD: usize = 16;

/// Objects that a worker frees at a time when a period is over.
const REAPED: usize = 64;

/// Reads a replicated value.
pub struct Deref(Here);

impl Operation<{ number::SMP_DEREF }> for Deref {
    fn prepare(cpu: u32) -> Self {
        Self(Here::new(cpu))
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Here { cpu, world } = self.0;
        world.value.reference().read(cpu, &Spinning::new(&Replicas, cpu)) == [1, 2]
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

impl Operation<{ number::SMP_RETIRE }> for Retire {
    fn prepare(cpu: u32) -> Self {
        let here = Here::new(cpu);
        let free = objects(cpu);
        Self { here, free, warmup: worker::warmup(), outside: true }
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
