//! Who has reported: a tree of small words, so that no line is written by every CPU.

use crossbeam_utils::CachePadded;

use crate::platform::CpuId;
use crate::sync::{AtomicU64, Ordering};

/// Children of a node.
const FANOUT: usize = 8;
/// The bits of a node's word that stand for its children; above them is the period's clock.
const CHILDREN: u64 = (1 << FANOUT) - 1;

/// A node of the tree, on lines of its own.
#[derive(Debug)]
pub struct TreeNode(CachePadded<AtomicU64>);

impl Default for TreeNode {
    fn default() -> Self {
        Self(CachePadded::new(AtomicU64::new(0)))
    }
}

/// The CPUs (or the nodes below) that have not reported in the period, eight to a node; the leaves come first,
/// the root is last.
#[derive(Debug)]
pub struct Tree<'m> {
    nodes: &'m [TreeNode],
    cpus: usize,
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

    pub(super) fn new(nodes: &'m [TreeNode], cpus: usize) -> Self {
        assert!(nodes.len() >= Self::nodes(cpus), "the tree has too few nodes");
        Self { nodes, cpus }
    }

    /// Marks everybody as not having reported in the period of `clock`. Nobody reports meanwhile.
    pub(super) fn set_up(&self, clock: u64) {
        let (mut children, mut first) = (self.cpus, 0);
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

    /// CPU `id` reports, which it has not yet in the running period; true if it was the last of all.
    pub(super) fn report(&self, id: CpuId) -> bool {
        self.climb(0, self.cpus, id.index())
    }

    /// Reports for CPU `id` in the period of `clock`, unless it has reported or the period is over; true if it was
    /// the last of all.
    pub(super) fn report_for(&self, id: CpuId, clock: u64) -> bool {
        let (node, bit) = (&self.nodes[id.index() / FANOUT].0, 1 << (id.index() % FANOUT));
        let mut word = node.load(Ordering::Relaxed);
        // The clock in the word: by now another period may run, in which the CPU is inside.
        while word >> FANOUT == clock & (u64::MAX >> FANOUT) && word & bit != 0 {
            match node.compare_exchange_weak(word, word & !bit, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) if word & CHILDREN != bit => return false,
                Ok(_) => {
                    let leaves = self.cpus.div_ceil(FANOUT);
                    return leaves <= 1 || self.climb(leaves, leaves, id.index() / FANOUT);
                }
                Err(now) => word = now,
            }
        }
        false
    }

    /// Calls `visit` with each CPU that has not reported in the period of `clock`.
    pub(super) fn silent(&self, clock: u64, mut visit: impl FnMut(CpuId)) {
        for leaf in 0..self.cpus.div_ceil(FANOUT) {
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

    /// Clears the bit of `child` in the level of nodes from `first` on that has `children`, and goes on to the
    /// parent if it was the last; true if that was the root's last.
    fn climb(&self, mut first: usize, mut children: usize, mut child: usize) -> bool {
        loop {
            let bit = 1 << (child % FANOUT);
            // Release what this CPU did in the period, acquire what the others reported before it.
            let before = self.nodes[first + child / FANOUT].0.fetch_and(!bit, Ordering::AcqRel);
            if before & CHILDREN != bit {
                return false;
            }
            let level = children.div_ceil(FANOUT);
            if level <= 1 {
                return true;
            }
            (first, children, child) = (first + level, level, child / FANOUT);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
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
            let tree = Tree::new(&nodes, cpus);
            for clock in [1, 3] {
                tree.set_up(clock);
                // A step that is coprime to the number visits every CPU.
                let step = (seed % cpus..).find(|step| gcd(*step, cpus) == 1).unwrap();
                for turn in 0..cpus {
                    let id = CpuId::new((seed % cpus + turn * step) % cpus).unwrap();
                    let mut silent = 0;
                    tree.silent(clock, |_| silent += 1);
                    prop_assert_eq!(silent, cpus - turn);
                    prop_assert!(!tree.report_for(id, clock + 2), "reported in a period that does not run");
                    let last = if turn % 3 == 0 { tree.report_for(id, clock) } else { tree.report(id) };
                    prop_assert_eq!(last, turn + 1 == cpus);
                    prop_assert!(!tree.report_for(id, clock), "reported twice");
                }
            }
        }
    }

    fn gcd(a: usize, b: usize) -> usize {
        if b == 0 { a } else { gcd(b, a % b) }
    }
}
