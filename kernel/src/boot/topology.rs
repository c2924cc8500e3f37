//! The machine's CPUs and the NUMA nodes that they belong to.
//!
//! A CPU's number is its place in the firmware's list, so that the same CPU has the same number in every
//! boot, and vCPU n of a simulated machine is CPU n.

use crate::mem::layout::MAX_CPUS;
use spin::Once;

/// One CPU of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// What the interrupt controller calls it.
    pub apic_id: u32,
    /// Its NUMA node.
    pub node: u32,
}

/// All CPUs, by number.
#[derive(Clone, Debug)]
pub struct Topology {
    cpus: [Cpu; MAX_CPUS],
    count: usize,
}

static TOPOLOGY: Once<Topology> = Once::new();

impl Default for Topology {
    fn default() -> Self {
        Self { cpus: [Cpu::default(); MAX_CPUS], count: 0 }
    }
}

impl Topology {
    /// Adds the next CPU; one that is listed twice keeps its first number.
    pub fn add_cpu(&mut self, apic_id: u32) -> Result<(), &'static str> {
        if self.cpus().iter().any(|cpu| cpu.apic_id == apic_id) {
            return Ok(());
        }
        if self.count == MAX_CPUS {
            return Err("the machine has more than 1024 CPUs");
        }
        self.cpus[self.count] = Cpu { apic_id, node: 0 };
        self.count += 1;
        Ok(())
    }

    /// Notes the node of a CPU; unknown ones are ignored.
    pub fn set_node(&mut self, apic_id: u32, node: u32) {
        let cpus = &mut self.cpus[..self.count];
        if let Some(cpu) = cpus.iter_mut().find(|cpu| cpu.apic_id == apic_id) {
            cpu.node = node;
        }
    }

    /// The CPUs by number.
    #[must_use]
    pub fn cpus(&self) -> &[Cpu] {
        &self.cpus[..self.count]
    }
}

/// Makes the topology readable by all CPUs. Boot CPU, once.
pub fn publish(topology: &Topology) {
    TOPOLOGY.call_once(|| topology.clone());
}

/// The NUMA node of CPU `number`.
#[must_use]
pub fn node_of(number: u32) -> u32 {
    TOPOLOGY.get().and_then(|t| t.cpus().get(number as usize)).map_or(0, |cpu| cpu.node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_listed_twice_has_one_number() {
        let mut topology = Topology::default();
        for id in [4, 2, 4, 9] {
            topology.add_cpu(id).unwrap();
        }
        topology.set_node(2, 1);
        topology.set_node(77, 1);
        let ids: Vec<(u32, u32)> = topology.cpus().iter().map(|c| (c.apic_id, c.node)).collect();
        assert_eq!(ids, [(4, 0), (2, 1), (9, 0)]);
    }
}
