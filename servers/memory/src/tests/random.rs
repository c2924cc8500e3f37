//! All CPUs at once: the server ends on all of them wherever each is just then.

use super::script::{Play, Step};
use super::world::World;
use super::{PAGE, ROOT, alone};

const ROUNDS: u64 = 300;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What CPU `cpu` does for its process.
fn steps(cpu: u32, random: &mut Random) -> Vec<Step> {
    let (process, base) = (30 + u64::from(cpu), 0x100_0000 * (1 + u64::from(cpu)));
    let mut steps = vec![Step::Admit(process)];
    for round in 0..2 + random.below(4) {
        let (place, object) = (base + round * 0x10_0000, (cpu as usize) << 8 | round as usize);
        if random.below(2) == 0 {
            let pages = 1 + random.below(40);
            steps.push(Step::Anonymous(process, place, pages));
            (0..pages).for_each(|page| steps.push(Step::Write(process, place + page * PAGE, round + page)));
        } else {
            let pages = 1 + random.below(30);
            steps.push(Step::Create(process, object, pages));
            steps.push(Step::Map(process, object, place, pages));
            (0..pages).for_each(|page| steps.push(Step::Write(process, place + page * PAGE, round + page)));
            steps.push(Step::Destroy(process, object));
        }
        if random.below(2) == 0 {
            steps.push(Step::Release(process, place));
        }
    }
    steps.push(Step::Dismiss(process));
    steps
}

#[test]
fn nothing_is_lost_by_ends_while_all_cpus_are_busy() {
    let _alone = alone();
    let mut random = Random(7);
    for _ in 0..ROUNDS {
        let world = World::new();
        let mut first = Play::new(world, Vec::new());
        first.run(Step::Admit(ROOT));
        let mut plays = vec![first.on(0), first.on(1)];
        let mut left: Vec<_> = (0..2).map(|cpu| steps(cpu, &mut random).into_iter().peekable()).collect();
        while left.iter_mut().any(|steps| steps.peek().is_some()) {
            super::crash::live_for(Some(random.below(600)));
            std::thread::scope(|scope| {
                for (play, steps) in plays.iter_mut().zip(&mut left) {
                    scope.spawn(move || {
                        while let Some(&step) = steps.peek() {
                            if !play.try_here(step) {
                                break;
                            }
                            steps.next();
                        }
                    });
                }
            });
            first.restart();
            for play in &mut plays {
                play.go_on_with(&first);
                play.check();
            }
        }
        first.run(Step::Dismiss(ROOT));
        drop(plays);
        first.finish();
        // SAFETY: the plays are over.
        unsafe { world.free() };
    }
}
