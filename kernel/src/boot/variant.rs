//! Ablations: `variant=NAME` on the command line runs the kernel without one of its ideas, to show what that is
//! worth. The choice is looked at where something is made or a slow path is taken, never on a fast path.

use core::sync::atomic::{AtomicU8, Ordering};

use super::command_line::CommandLine;

/// What the kernel does differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Variant {
    /// Nothing.
    Baseline,
    /// `biglock`: one lock around the kernel.
    BigLock,
    /// `onehome`: a capability table has one part and an account one credit for all CPUs; whatever may use one of
    /// these runs under one lock.
    OneHome,
    /// `sharedpool`: CPUs keep no free frames and kernel objects of their own: all take them from one pool with one
    /// lock.
    SharedPool,
    /// `sharedpt`: all CPUs use one page table of a space, so an unmap has to reach all that run it.
    SharedTables,
    /// `broadcast`: an unmap reaches all CPUs (on machines of more than 64: all of 64).
    Broadcast,
}

static CHOSEN: AtomicU8 = AtomicU8::new(Variant::Baseline as u8);

/// The variants that memory has, by their names.
const NAMES: [(&str, Variant); 5] = [
    ("biglock", Variant::BigLock),
    ("onehome", Variant::OneHome),
    ("sharedpool", Variant::SharedPool),
    ("sharedpt", Variant::SharedTables),
    ("broadcast", Variant::Broadcast),
];

/// Reads the command line. Boot CPU, once. Names of other variants are others' to know.
pub fn choose() {
    let name = CommandLine::get().value("variant").unwrap_or_default();
    if let Some((_, variant)) = NAMES.iter().find(|(known, _)| *known == name) {
        CHOSEN.store(*variant as u8, Ordering::Relaxed);
    }
}

/// The variant that runs.
#[must_use]
pub fn get() -> Variant {
    let chosen = CHOSEN.load(Ordering::Relaxed);
    NAMES
        .iter()
        .map(|(_, variant)| *variant)
        .find(|&known| known as u8 == chosen)
        .unwrap_or(Variant::Baseline)
}
