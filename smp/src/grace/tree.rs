//! Who has reported: a tree of small words, so that no line is written by every CPU.

use crossbeam_utils::CachePadded;

use crate::flaw::{self, Flaw, Variant};
use crate::platform::CpuId;
use crate::sync::{self, AtomicU64, Ordering};

/// Children of a node.
const FANOUT: usize = 8;
/// The bits of a node's word that stand for its children; above them is the period's clock.
const CHILDREN: u64 = (1 << FANOUT) - 1;

/// A node of the tree, on lines of its own.
#[derive(Debug)]
pub struct TreeNode(CachePadded<AtomicU64>);

impl Default for TreeNode {
    fn default() -> Self {
        Self::new()
    }
}

impl TreeNode {
    sync::const_new! {
        /// A node in which nobody has to report.
        pub fn new() -> Self {
            Self(CachePadded::new(AtomicU64::new(0)))
        }
    }
}

/// The CPUs (or the nodes below) that have not reported in the period, eight to a node; the leaves come first,
/// the root is last.
#[derive(Debug)]
pub struct Tree<'m> {
    nodes: &'m [TreeNode],
}

impl<'m> Tree<'m> {
    /// How many nodes `cpus` CPUs need.
    #[must_use]
    pub const fn nodes(cpus: usize) -> usize {
        let (mut level, mut sum) = (cpus.div_ceil(FANOUT), 0);
        while level > 1 {
            sum += level;
            level = level.div_ceil(FANOUT);
        }
        sum + 1
    }

    pub(super) const fn new(nodes: &'m [TreeNode]) -> Self {
        Self { nodes }
    }

    /// Marks each of `cpus` CPUs as not having reported in the period of `clock`. No period runs.
    pub(super) fn set_up(&self, cpus: usize, clock: u64) {
        let (mut children, mut first) = (cpus, 0);
        loop {
            let level = children.div_ceil(FANOUT).max(1);
            for (index, node) in self.nodes[first..first + level].iter().enumerate() {
                let count = (children - index * FANOUT).min(FANOUT);
                node.0.store(clock << FANOUT | ((1 << count) - 1), Ordering::Relaxed);
            }
            if level == 1 {
                return;
            }
            (children, first) = (level, first + level);
        }
    }

    /// Reports for CPU `id`, one of `cpus`, in the period of `clock`, unless it has reported or that period is over;
    /// true if it was the last of all. Any CPU may report for any, however late: the word names the period.
    pub(super) fn report<V: Variant>(&self, cpus: usize, id: CpuId, clock: u64) -> bool {
        let (node, bit) = (&self.nodes[id.index() / FANOUT].0, 1 << (id.index() % FANOUT));
        let mut word = node.load(Ordering::Relaxed);
        let any = flaw::has::<V>(Flaw::UnnamedPeriod);
        let of_period = |word: u64| any || word >> FANOUT == clock & (u64::MAX >> FANOUT);
        while of_period(word) && word & bit != 0 {
            // Release what this CPU did in the period, acquire what the others reported before it.
            match node.compare_exchange_weak(word, word & !bit, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if word & CHILDREN != bit => return false,
                Ok(_) => return self.climb(cpus, id.index() / FANOUT),
                Err(now) => word = now,
            }
        }
        false
    }

    /// Calls `visit` with each CPU, of `cpus`, that has not reported in the period of `clock`.
    pub(super) fn silent(&self, cpus: usize, clock: u64, mut visit: impl FnMut(CpuId)) {
        for leaf in 0..cpus.div_ceil(FANOUT) {
            let word = self.nodes[leaf].0.load(Ordering::Relaxed);
            if word >> FANOUT != clock & (u64::MAX >> FANOUT) {
                return;
            }
            (0..FANOUT)
                .filter(|child| word & (1 << child) != 0)
                .filter_map(|child| CpuId::new(leaf * FANOUT + child))
                .for_each(&mut visit);
        }
    }

    /// Goes up from leaf `child`, whose last bit the caller cleared, for as long as that was the last of a node; true
    /// if it was the root's. No check of the period: it cannot end before the caller has gone up.
    fn climb(&self, cpus: usize, mut child: usize) -> bool {
        let (mut first, mut children) = (0, cpus.div_ceil(FANOUT));
        while children > 1 {
            first += children;
            let bit = 1 << (child % FANOUT);
            let before = self.nodes[first + child / FANOUT].0.fetch_and(!bit, Ordering::AcqRel);
            if before & CHILDREN != bit {
                return false;
            }
            (children, child) = (children.div_ceil(FANOUT), child / FANOUT);
        }
        true
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::flaw::Sound;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        /// Whatever the order and whoever reports: the last report, and no other, ends the period.
        #[test]
        fn the_last_report_ends_the_period(
            cpus in prop_oneof![1..20usize, 60..70usize, 500..520usize, Just(1024)],
            seed in any::<usize>(),
        ) {
            let nodes: std::vec::Vec<_> = (0..Tree::nodes(cpus)).map(|_| TreeNode::default()).collect();
            let tree = Tree::new(&nodes);
            let report = |id, clock| tree.report::<Sound>(cpus, id, clock);
            for clock in [1, 3] {
                tree.set_up(cpus, clock);
                // A step that is coprime to the number visits every CPU.
                let step = (seed % cpus..).find(|step| gcd(*step, cpus) == 1).unwrap();
                for turn in 0..cpus {
                    let id = CpuId::new((seed % cpus + turn * step) % cpus).unwrap();
                    let mut silent = 0;
                    tree.silent(cpus, clock, |_| silent += 1);
                    prop_assert_eq!(silent, cpus - turn);
                    prop_assert!(!report(id, clock + 2), "reported in a period that does not run");
                    prop_assert_eq!(report(id, clock), turn + 1 == cpus);
                    prop_assert!(!report(id, clock), "reported twice");
                }
            }
        }
    }

    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
}
