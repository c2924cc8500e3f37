//! Bad ends on purpose, to show that the host tells them apart.

use super::{Kind, Test};
use crate::arch::cpu;
use crate::cell::Cell;

/// The tests of this file.
pub const TESTS: &[Test] = &[
    Test { name: "provoke_fail", kind: Kind::Provoke(|_| Err("on purpose")) },
    Test { name: "provoke_panic", kind: Kind::Provoke(panic) },
    Test { name: "provoke_fault", kind: Kind::Provoke(|_| cpu::provoke::kernel_fault()) },
    Test { name: "provoke_stack_overflow", kind: Kind::Provoke(|_| cpu::provoke::stack_overflow(0)) },
    Test { name: "provoke_triple_fault", kind: Kind::Provoke(|_| cpu::provoke::triple_fault()) },
    Test { name: "provoke_hang", kind: Kind::Provoke(|_| cpu::provoke::hang()) },
];

fn panic(_: &mut Cell) -> Result<(), &'static str> {
    panic!("on purpose")
}
