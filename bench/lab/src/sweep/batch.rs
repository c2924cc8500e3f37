//! What is booted next: entries that one command line can ask for.
use workloads::{BootArgs, Entry};

use crate::qemu::Accel;
use crate::system::Boot;

/// An entry that is still to be measured.
#[derive(Clone, Copy)]
pub struct Pending {
    /// What is run.
    pub entry: Entry,
    /// Marked operations of each worker.
    pub ops: u64,
    /// How often it failed.
    pub tries: u32,
}

/// What to boot next: everything that has not failed yet and takes as many operations as the first of it, as far
/// as one command line can ask for it; then what has failed, each alone.
pub fn take_batch(pending: &mut Vec<Pending>) -> Vec<Pending> {
    let Some(first) = pending.iter().find(|one| one.tries == 0).copied() else {
        return vec![pending.remove(0)];
    };
    let together = |one: &Pending| one.tries == 0 && one.ops == first.ops;
    let (mut batch, rest): (Vec<_>, Vec<_>) = pending.drain(..).partition(together);
    *pending = rest;
    if !is_product(&batch) {
        let mode = batch[0].entry.mode;
        let (same, other): (Vec<_>, Vec<_>) = batch.into_iter().partition(|one| one.entry.mode == mode);
        batch = same;
        pending.splice(0..0, other);
    }
    batch
}

/// Whether a guest that gets the boot arguments for `batch` runs exactly these entries, in this order.
pub fn is_product(batch: &[Pending]) -> bool {
    let entries: Vec<Entry> = batch.iter().map(|pending| pending.entry).collect();
    let boot = Boot {
        cpus: 1,
        entries: entries.clone(),
        ops: 1,
        warmup: 0,
        seed: 0,
        variant: String::new(),
        accel: Accel::Tcg,
    };
    BootArgs::parse(&boot.arguments()).is_ok_and(|args| args.entries().eq(entries))
}
