//! Memory comes back.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{Kind, Test};
use crate::arch::smp::{cpu_count, cpus};
use crate::boot::program::start_or_refuse;
use crate::cell::{Cell, Public};
use crate::ipc::notification::Notification;
use crate::mem::account::{self, Account};
use crate::mem::bill::Bill;
use crate::mem::frame::Frame;
use crate::mem::frames::{self, FromNode};
use crate::mem::layout::PAGE;
use crate::mem::page_map::Frames;
use crate::object::pool;
use abi::Error;
use smp::CpuId;

/// The tests of this file. Each starts programs in rounds.
pub const TESTS: &[Test] = &[
    Test { name: "memory_comes_back", kind: Kind::Rounds(start_some, PROGRAMS / AT_ONCE, check) },
    Test { name: "memory_taken_back", kind: Kind::Programs(start_everywhere, take_everything) },
    Test { name: "late_payments_come_back", kind: Kind::Kernel(pay_late) },
    Test { name: "late_refunds_come_back", kind: Kind::Kernel(refund_late) },
    Test { name: "objects_come_back", kind: Kind::Rounds(start_untidy, UNTIDY, check_objects) },
];

/// Programs in all, and how many run at once.
const PROGRAMS: u32 = 1000;
const AT_ONCE: u32 = 8;
/// Rounds after which everything that is kept for good is there: objects of pools, parts of tables.
const SETTLED: u32 = 10;
/// What the test program does: null calls, on the CPU on which it was started.
const NULL_CALLS_ALONE: u64 = 3;

/// Programs that leave objects behind, one after the other, and after how many all pools have what they need.
const UNTIDY: u32 = 110;
const UNTIDY_SETTLED: u32 = 10;
/// What the test program does: leaves an endpoint, workers, threads and notifications behind.
const LEAVE_ALL_BEHIND: u64 = 14;

static UNTIDY_ROUND: AtomicU32 = AtomicU32::new(0);
static UNTIDY_FREE_THEN: AtomicU64 = AtomicU64::new(0);
static ROUND: AtomicU32 = AtomicU32::new(0);
static FREE_THEN: AtomicU64 = AtomicU64::new(0);

fn start_some(cell: &mut Cell) {
    let round = ROUND.fetch_add(1, Ordering::Relaxed);
    if round == SETTLED {
        FREE_THEN.store(frames::free_frames(), Ordering::Relaxed);
    }
    for index in 0..AT_ONCE {
        let cpu = CpuId::new(((round + index) % cpu_count()) as usize).unwrap_or(CpuId::BOOT);
        start_or_refuse(cell, "tests", cpu, [NULL_CALLS_ALONE, 1]);
    }
}

fn start_everywhere(cell: &mut Cell) {
    for cpu in cpus() {
        start_or_refuse(cell, "tests", cpu, [NULL_CALLS_ALONE, 1]);
    }
}

fn check(failed: u32) -> Result<(), &'static str> {
    let (then, now) = (FREE_THEN.load(Ordering::Relaxed), frames::free_frames());
    // Each of these programs leaves one frame of capability slots behind for programs that others make: its own
    // handles had to have generation 1, which a slot has once.
    let kept = u64::from((PROGRAMS / AT_ONCE - SETTLED) * AT_ONCE);
    crate::log!("free frames after {SETTLED} rounds: {then}; at the end: {now}, and {kept} kept for slots");
    // A pool takes another frame when more of its objects are alive at once than ever before on that CPU.
    let pools = 2 * u64::from(cpu_count());
    match (failed, (now + kept).abs_diff(then) <= pools) {
        (0, true) => Ok(()),
        (0, false) => Err("memory was lost"),
        _ => Err("a program failed"),
    }
}

fn start_untidy(cell: &mut Cell) {
    if UNTIDY_ROUND.fetch_add(1, Ordering::Relaxed) == UNTIDY_SETTLED {
        UNTIDY_FREE_THEN.store(frames::free_frames(), Ordering::Relaxed);
    }
    start_or_refuse(cell, "tests", CpuId::BOOT, [LEAVE_ALL_BEHIND, cpu_count().into()]);
}

fn check_objects(failed: u32) -> Result<(), &'static str> {
    let (then, now) = (UNTIDY_FREE_THEN.load(Ordering::Relaxed), frames::free_frames());
    // As in `check`.
    let kept = u64::from(UNTIDY - UNTIDY_SETTLED);
    crate::log!(
        "free frames after {UNTIDY_SETTLED} programs: {then}; at the end: {now}, and {kept} kept for slots"
    );
    match (failed, now + kept >= then) {
        (0, true) => Ok(()),
        (0, false) => Err("objects were lost"),
        _ => Err("a program failed"),
    }
}

/// This CPU gets the frames that the others keep, to the last one, when there are no others.
fn take_everything(failed: u32) -> Result<(), &'static str> {
    let before = frames::free_frames();
    let others = cpus().filter(|&id| id != CpuId::BOOT).map(|id| Public::of(id).frames().count());
    let kept = others.sum::<u64>();
    let mut source = FromNode(0);
    let (mut taken, mut last) = (0, 0);
    while let Some(frame) = source.take() {
        Frame::at(frame).next.store(last, Ordering::Relaxed);
        (taken, last) = (taken + 1, frame);
    }
    let left = frames::free_frames();
    while last != 0 {
        let frame = last;
        last = Frame::at(frame).next.load(Ordering::Relaxed);
        source.give(frame);
    }
    match (failed, cpu_count() == 1 || kept > 0) {
        (0, true) if (taken, left, frames::free_frames()) == (before, 0, before) => Ok(()),
        (0, true) => Err("frames that other CPUs kept were not taken, or lost"),
        (0, false) => Err("the other CPUs keep none, which shows nothing"),
        _ => Err("a program failed"),
    }
}

/// An object ends, and with it the last that pays by its account, while another CPU is about to pay for a part of it.
fn pay_late(cell: &mut Cell) -> Result<(), &'static str> {
    const BYTES: u64 = 16 * PAGE;
    let accounts = || pool::alive(abi::Kind::Account);
    let (had, before) = (account::root().gather(), accounts());
    // What an account holds of its parent.
    account::root().hold();
    let payer = Account::create(cell, account::root(), BYTES).map_err(|_| "no account")?;
    let bill = Bill::open(payer, PAGE).map_err(|_| "too little in the account")?;
    bill.begin().map_err(|_| "it has not ended")?;
    bill.close(cell);
    payer.abandon(cell, payer.tag());
    if accounts() != before + 1 {
        return Err("the account ended before its last payment");
    }
    payer.pay(PAGE).map_err(|_| "too little in the account")?;
    bill.finish(cell, PAGE);
    match (account::root().gather() == had, accounts() == before) {
        (true, true) if bill.add(cell, PAGE) == Err(Error::Destroyed) => Ok(()),
        (true, true) => Err("a bill that is closed took a payment"),
        (false, _) => Err("credit was lost"),
        (true, false) => Err("an account was lost"),
    }
}

/// A notification is destroyed while another CPU ends the program that paid for it, and with that the account.
fn refund_late(cell: &mut Cell) -> Result<(), &'static str> {
    let accounts = || pool::alive(abi::Kind::Account);
    let (had, before) = (account::root().gather(), accounts());
    account::root().hold();
    let payer = Account::create(cell, account::root(), PAGE).map_err(|_| "no account")?;
    let notification = Notification::create(cell, payer).map_err(|_| "no notification")?;
    payer.abandon(cell, payer.tag());
    notification.destroy(cell, notification.tag).map_err(|_| "it was destroyed before")?;
    match (account::root().gather() == had, accounts() == before) {
        (true, true) => Ok(()),
        (false, _) => Err("credit was lost"),
        (true, false) => Err("an account was lost"),
    }
}
