//! The server ends at each of its steps, and whatever was acknowledged before is so afterwards; nothing is lost.

pub mod crash;
mod random;
mod room;
mod script;
mod windows;
mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

use script::{Play, Step};
use world::World;

/// Steps are counted for one server at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const ROOT: u64 = api::badge::ROOT;
const FIRST: u64 = 20;
const SECOND: u64 = 21;
const PAGE: u64 = abi::PAGE;

const STEPS: &[Step] = {
    use Step::*;
    &[
        Admit(ROOT),
        Admit(FIRST),
        Admit(SECOND),
        Anonymous(FIRST, 0x10_0000, 40),
        Write(FIRST, 0x10_0000, 1),
        Write(FIRST, 0x10_1000, 2),
        Write(FIRST, 0x10_2000, 3),
        Fail(SECOND, 0x10_0000),
        Create(FIRST, 1, 30),
        Provide(FIRST, 1, 18, 7),
        Find("shared", 0),
        Name(FIRST, 1, "shared"),
        Find("shared", 1),
        Map(FIRST, 1, 0x20_0000, 30),
        Write(FIRST, 0x20_0000, 11),
        Write(FIRST, 0x20_0000 + 25 * PAGE, 12),
        Map(SECOND, 1, 0x30_0000, 30),
        Read(SECOND, 0x30_0000, 11),
        Read(SECOND, 0x30_0000 + 25 * PAGE, 12),
        Read(SECOND, 0x30_0000 + 3 * PAGE, 0),
        Copy(SECOND, 2, 1),
        Map(SECOND, 2, 0x40_0000, 30),
        Read(SECOND, 0x40_0000, 11),
        Write(SECOND, 0x40_0000, 21),
        Write(SECOND, 0x40_0000 + 25 * PAGE, 22),
        Read(FIRST, 0x20_0000, 11),
        Read(SECOND, 0x30_0000, 11),
        Read(SECOND, 0x40_0000 + 4 * PAGE, 0),
        Window(FIRST),
        Contiguous(FIRST, 5),
        Destroy(FIRST, 1),
        Find("shared", 0),
        Read(SECOND, 0x30_0000 + 25 * PAGE, 12),
        Release(FIRST, 0x20_0000),
        Fail(FIRST, 0x20_0000),
        Renew(FIRST, 0x10_0000),
        Read(FIRST, 0x10_0000, 0),
        Write(FIRST, 0x10_1000, 5),
        Release(FIRST, 0x10_0000),
        Anonymous(FIRST, 0x10_0000, 8),
        Write(FIRST, 0x10_3000, 6),
        Release(SECOND, 0x30_0000),
        Read(SECOND, 0x40_0000, 21),
        Dismiss(FIRST),
        Read(SECOND, 0x40_0000 + 25 * PAGE, 22),
        Destroy(SECOND, 2),
        Release(SECOND, 0x40_0000),
        Create(SECOND, 3, 5),
        DestroyAgain(SECOND, 2),
        Create(SECOND, 4, 5),
        DestroyAgain(FIRST, 1),
        Map(SECOND, 3, 0x50_0000, 5),
        Write(SECOND, 0x50_0000, 31),
        Map(SECOND, 4, 0x60_0000, 5),
        Read(SECOND, 0x60_0000, 0),
        Destroy(SECOND, 4),
        Dismiss(SECOND),
        Dismiss(ROOT),
    ]
};

/// Does all steps, with lives of so many steps, the last first. Returns how many were left in the life at the end.
fn play(lives: Vec<u64>) -> u64 {
    let world = World::new();
    let mut play = Play::new(world, lives);
    STEPS.iter().for_each(|&step| play.run(step));
    let left = crash::left();
    play.finish();
    // SAFETY: the play is over.
    unsafe { world.free() };
    left
}

/// Steps of the server's in a life that does not end before the script.
fn all_steps() -> u64 {
    const MANY: u64 = 1 << 40;
    MANY - play(vec![MANY])
}

#[test]
fn nothing_is_lost_by_an_end_at_any_step() {
    let _alone = alone();
    let steps = all_steps();
    assert!(steps > 10 * STEPS.len() as u64, "{steps} steps are not all");
    (0..steps).for_each(|life| {
        play(vec![life]);
    });
}

#[test]
fn nothing_is_lost_by_an_end_at_any_step_and_others_soon_after() {
    let _alone = alone();
    let steps = all_steps();
    let mut random = 1_u64;
    for life in (0..steps).step_by(7) {
        let mut lives = vec![life];
        for _ in 0..3 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            lives.insert(0, (random >> 33) % 400);
        }
        play(lives);
    }
}
