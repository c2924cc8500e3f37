//! The attributes of an inode: a copy for each CPU that asked, and one change at a time, which shows on all CPUs at once.
//! They are a replicated value of `smp`; this says what its words are.

use api::files::Attributes;
use smp::Cpu;
use smp::clustered::{Clustered, Degree, Replicated};
use smp::lock::Briefly;

use crate::outside::Allocator;

/// Class of these locks for the instrument.
const CLASS: u8 = 40;
const WORDS: usize = Attributes::WORDS;

/// The attributes: the original, and the copies.
pub type Shared = Replicated<WORDS, CLASS, Allocator>;

/// These attributes, to be shared.
pub fn new(attributes: Attributes) -> Shared {
    Shared::new(Allocator, Degree::Cpu, attributes.to_words())
}

/// Changes them. `change` reads no attributes.
pub fn change(shared: &Clustered<Shared>, change: impl FnOnce(&mut Attributes)) {
    shared.root().update(&Briefly, |words| {
        let mut attributes = Attributes::from_words(words);
        change(&mut attributes);
        attributes.to_words()
    });
}

/// What `look` makes of the attributes' words, each by its place, if this CPU has a copy that nobody is changing; else
/// what it saw is to be forgotten.
#[inline(always)]
pub fn look_at_once<R>(
    shared: &Clustered<Shared>,
    cpu: Cpu<'_>,
    look: impl FnOnce(&dyn Fn(usize) -> u64) -> R,
) -> Option<R> {
    shared.reference().look_at_once(cpu, look)
}

/// The attributes as this CPU sees them.
#[inline(always)]
pub fn read(shared: &Clustered<Shared>, cpu: Cpu<'_>) -> Attributes {
    Attributes::from_words(shared.reference().read(cpu, &Briefly))
}
