//! Replies that come late.

use super::{Kind, Test};
use crate::cell::Cell;
use crate::ipc::reply::{self, Message};
use crate::mem::account;
use crate::mem::layout::PAGE;
use crate::mem::space::Space;
use crate::object::Tag;
use crate::sched::Thread;
use crate::sched::thread::Start;
use abi::{Error, Handle};

/// The tests of this file.
pub const TESTS: &[Test] = &[Test { name: "late_reply_is_no_other_calls", kind: Kind::Kernel(reply_late) }];

/// A reply was under way from another CPU when its caller gave up, called again, and was kept again: it is not for that call.
fn reply_late(cell: &mut Cell) -> Result<(), &'static str> {
    account::root().hold();
    let space = Space::create(cell, "replies", account::root(), 0, 0).map_err(|_| "no space")?;
    let start = Start { entry: PAGE, stack: 0, arguments: [0; 3] };
    let replier = cell.make_thread(space, 0, start).map_err(|_| "no thread")?;
    let caller = cell.make_thread(space, 0, start).map_err(|_| "no thread")?;
    let outcome = keep_twice(cell, space, replier, caller);
    cell.end_thread(replier, 0);
    cell.end_thread(caller, 0);
    space.destroy(cell, space.tag).map_err(|_| "the space ended before")?;
    outcome
}

fn keep_twice(
    cell: &mut Cell,
    space: &Space,
    replier: &Thread,
    caller: &mut Thread,
) -> Result<(), &'static str> {
    let keep = |cell: &mut Cell, caller: &mut Thread| {
        reply::keep(cell, space, caller, |_, _, tag| Ok(tag)).map_err(|_| "it was not kept")
    };
    let give = |cell: &mut Cell, caller: &mut Thread, tag: Tag| {
        reply::give(cell, replier, caller, tag, Message::new(Handle(0), [7; 4], 0))
    };
    let first = keep(cell, caller)?;
    reply::forget(caller);
    let second = keep(cell, caller)?;
    if give(cell, caller, first) != Err(Error::NoCaller) {
        return Err("a call got the reply to the one before it");
    }
    if give(cell, caller, second) != Ok(0) || caller.registers.rsi != 7 {
        return Err("it did not get its own reply");
    }
    match give(cell, caller, second) {
        Err(Error::NoCaller) => Ok(()),
        _ => Err("it got its reply twice"),
    }
}
