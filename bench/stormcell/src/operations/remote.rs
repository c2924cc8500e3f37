//! What the `smp` crate does on other CPUs, as a server's replicas use it: worker 0 asks, the others serve.

use core::sync::atomic::{Ordering, fence};
use smp::CpuId;
use smp::cpu_set::CpuSet;
use smp::shootdown::{Pages, Root, Tlb};
use workloads::table::number;

use super::world::{CPUS, Here, Replicas};
use crate::worker::{self, Operation};

/// All workers but the first.
fn others() -> CpuSet {
    let mut others = CpuSet::first(worker::workers() as usize);
    others.remove(CpuId::BOOT);
    others
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
        Self { here: Here::new(cpu), others: (cpu == 0).then(others), rounds: worker::rounds() }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Here { cpu, world } = self.here;
        let marked = self.rounds > 0;
        self.rounds = self.rounds.saturating_sub(1);
        if let Some(others) = &self.others.filter(|_| marked) {
            world.calls.call(&Replicas, cpu, others, (), &mut |()| {});
            return true;
        }
        // Beyond the rounds nobody calls: some have stopped already.
        while marked && self.others.is_none() && !world.calls.is_asked(cpu) {
            core::hint::spin_loop();
        }
        world.calls.serve(cpu, &mut |()| {});
        true
    }
}

/// Page tables that nobody walks: what is measured is the protocol.
struct NoTlb;

impl Tlb for NoTlb {
    fn load(&self, _: u64) {
        fence(Ordering::SeqCst);
    }

    fn clear(&self, _: Pages) {}

    fn flush_all(&self) {}
}

/// Each CPU's root that is shot at, and the one that it has loaded in between.
static ROOTS: [[Root; 2]; CPUS] = [const { [Root::new(0x1000, 1), Root::new(0x2000, 2)] }; CPUS];
const PAGE: Pages = Pages::new(0, 1);

/// Loads one of the worker's two roots.
fn load(Here { cpu, world }: Here, number: usize) {
    let root = &ROOTS[cpu.id().index()][number];
    if world.shootdown.switch(cpu, &NoTlb, root) {
        world.shootdown.settle(cpu, &NoTlb, root);
    }
}

/// Worker 0 shoots a page down on all the others. Their operations are empty, so that what is counted is worker 0's
/// alone; once they are through with them they serve, and load another root and the first again after each time.
pub struct ShootDown {
    here: Here,
    /// Operations left of the warm-up, or for the others of all that are marked.
    rest: u64,
}

impl Operation<{ number::SMP_SHOOTDOWN }> for ShootDown {
    fn prepare(cpu: u32) -> Self {
        let here = Here::new(cpu);
        load(here, 0);
        Self { here, rest: if cpu == 0 { worker::warmup() } else { worker::rounds() } }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Here { cpu, world } = self.here;
        if self.rest > 0 {
            self.rest -= 1;
            return true;
        }
        let roots = &ROOTS[cpu.id().index()];
        let mut settle = |_: &Pages| world.shootdown.attend(cpu, &NoTlb, &roots[0]);
        if cpu.id() == CpuId::BOOT {
            let called =
                world.shootdown.publish(&others(), |id| ROOTS.get(id.index()).map(|roots| &roots[0]), PAGE);
            world.shootdowns.call(&Replicas, cpu, &called, PAGE, &mut settle);
        } else if world.shootdowns.is_asked(cpu) {
            world.shootdowns.serve(cpu, &mut settle);
            [1, 0].into_iter().for_each(|root| load(self.here, root));
        }
        true
    }
}
