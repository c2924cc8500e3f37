//! Accesses that end a program: each is refused whatever the page tables held before.

use abi::{Access, Handle, Rights, initial};
use core::sync::atomic::Ordering;
use rt::{call, memory};

use crate::memory::{AREA, ELSEWHERE, MEMORY, OWN, PAGE, both, load, manner, map, prepare, store, unmap};

/// Pages of a large page.
const LARGE: u64 = 512;

/// `ret`.
const RETURN: u64 = 0xc3;

fn execute(address: u64) {
    // SAFETY: it holds `ret`, or the jump there ends the program.
    let function: extern "C" fn() = unsafe { core::mem::transmute(address as *const ()) };
    function();
}

/// Maps a page that holds `ret` with `access`, and comes back from it only if it may be executed.
fn execute_mapped(access: Access, count: u64) {
    let handle = initial::memory(0);
    map(handle, 0, OWN, ELSEWHERE, 1, both()).expect("a page");
    store(ELSEWHERE, RETURN);
    unmap(ELSEWHERE, 1).expect("unmapped again");
    map(handle, 0, OWN, ELSEWHERE, count, access).expect("mapped with other rights");
    execute(ELSEWHERE);
}

/// A page can be executed if the capability and the mapping say so, and is not writable then.
pub fn code_is_executed() {
    execute_mapped(Access::READ.with(Access::EXECUTE), 1);
    unmap(ELSEWHERE, 1).expect("unmapped again");
    execute_mapped(Access::READ.with(Access::EXECUTE).with(Access::LARGE), LARGE);
    unmap(ELSEWHERE, LARGE).expect("unmapped again");
    let handle = initial::memory(0);
    let data = call::mint(handle, Rights(Rights::USE.0 | Rights::WRITE.0), 0).expect("data only");
    let code = map(data, 0, OWN, ELSEWHERE, 1, Access::READ.with(Access::EXECUTE));
    assert_eq!(code, Err(abi::Error::NoRight));
}

/// Ends this program in one of several ways.
pub fn end_by(how: u64) {
    match how {
        0 => {
            prepare(1, manner::REFUSE, both());
            store(AREA, 1);
        }
        1 => {
            prepare(1, manner::SELF, both());
            store(AREA, 1);
        }
        2 => {
            prepare(1, manner::LINEAR, Access::READ);
            store(AREA, 1);
        }
        3 => {
            let pager = prepare(1, manner::LINEAR, both());
            call::destroy(pager).expect("the pager goes");
            store(AREA, 1);
        }
        4 => {
            prepare(1, manner::LINEAR, both());
            call::delete(Handle(MEMORY.load(Ordering::Relaxed))).expect("the pager's memory goes");
            store(AREA, 1);
        }
        5 => {
            let handle = initial::memory(0);
            map(handle, 0, OWN, ELSEWHERE, 1, both()).expect("a page");
            store(ELSEWHERE, 1);
            unmap(ELSEWHERE, 1).expect("unmapped again");
            store(ELSEWHERE, 1);
        }
        6 => execute_mapped(both(), 1),
        7 => execute_mapped(both().with(Access::LARGE), LARGE),
        8 => {
            execute_mapped(Access::READ.with(Access::EXECUTE), 1);
            store(ELSEWHERE, 1);
        }
        9 => {
            let handle = initial::memory(0);
            map(handle, 0, OWN, ELSEWHERE, LARGE, Access::READ.with(Access::LARGE)).expect("a large page");
            load(ELSEWHERE + 7 * PAGE);
            store(ELSEWHERE + 8 * PAGE, 1);
        }
        10 => {
            let handle = initial::memory(0);
            map(handle, 0, OWN, ELSEWHERE, LARGE, both().with(Access::LARGE)).expect("a large page");
            store(ELSEWHERE, 1);
            unmap(ELSEWHERE + 8 * PAGE, 1).expect("a part of it unmapped");
            store(ELSEWHERE + 7 * PAGE, 1);
            store(ELSEWHERE + 9 * PAGE, 1);
            store(ELSEWHERE + 8 * PAGE, 1);
        }
        _ => {
            // Through the capability that is gone, a large page.
            let child = memory::derive(initial::memory(0), 0, LARGE).expect("a large page's memory");
            map(child, 0, OWN, ELSEWHERE, LARGE, both().with(Access::LARGE)).expect("a large page");
            store(ELSEWHERE + 100 * PAGE, 1);
            call::delete(child).expect("deleted");
            store(ELSEWHERE + 100 * PAGE, 1);
        }
    }
    rt::log!("end {how} did not come");
    call::exit(0);
}
