//! What the `smp` crate does on other CPUs, as a server's replicas use it: worker 0 asks, the others serve.

use smp::cpu_set::CpuSet;
use smp::shootdown::{Pages, Root, Tlb};
use smp::{Cpu, CpuId};
use workloads::table::number;

use super::world::{Here, Replicas};
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
    fn pcids(&self) -> usize {
        4
    }

    fn load(&self, _: Cpu<'_>, _: u64, _: u16, _: bool) {}

    fn flush_page(&self, _: Cpu<'_>, _: u64) {}

    fn flush_all(&self, _: Cpu<'_>) {}

    fn flush_global(&self, _: Cpu<'_>) {}
}

/// The root that is shot at, and the one that the others have loaded in between.
static ROOTS: [Root; 2] = [Root::new(1, 0), Root::new(2, 0)];
const PAGE: Pages = Pages::new(0, 1);

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
        here.world.shootdown.switch(here.cpu, &NoTlb, &ROOTS[0]);
        Self { here, rest: if cpu == 0 { worker::warmup() } else { worker::rounds() } }
    }

    #[inline(always)]
    fn run(&mut self) -> bool {
        let Here { cpu, world } = self.here;
        if self.rest > 0 {
            self.rest -= 1;
            return true;
        }
        let mut flush = |pages: &Pages| world.shootdown.flush(cpu, &NoTlb, &ROOTS[0], *pages);
        if cpu.id() == CpuId::BOOT {
            let stale = world.shootdown.publish(cpu, &others(), |_| &ROOTS[0]);
            world.shootdowns.call(&Replicas, cpu, &stale.others, PAGE, &mut flush);
        } else if world.shootdowns.is_asked(cpu) {
            world.shootdowns.serve(cpu, &mut flush);
            [1, 0].into_iter().for_each(|root| world.shootdown.switch(cpu, &NoTlb, &ROOTS[root]));
        }
        true
    }
}
