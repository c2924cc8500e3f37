//! Names for addresses in a guest: functions for code, symbols or kinds of memory for data.
use std::ops::Range;

use crate::kallsyms::Kallsyms;
use crate::symbols::Symbols;

/// The first address of the upper half, where kernels live.
const UPPER_HALF: u64 = 1 << 63;
/// A range of addresses that Linux gives one use, with 4-level and with 5-level page tables and without
/// randomisation.
struct Area {
    ranges: [Range<u64>; 2],
    what: &'static str,
}

const AREAS: [Area; 3] = [
    Area {
        ranges: [0xffff_8880_0000_0000..0xffff_c880_0000_0000, 0xff11_0000_0000_0000..0xff91_0000_0000_0000],
        what: "allocated object or page",
    },
    Area {
        ranges: [0xffff_c900_0000_0000..0xffff_e900_0000_0000, 0xffa0_0000_0000_0000..0xffd2_0000_0000_0000],
        what: "vmalloc memory or kernel stack",
    },
    Area {
        ranges: [0xffff_ea00_0000_0000..0xffff_eb00_0000_0000, 0xffd4_0000_0000_0000..0xffd6_0000_0000_0000],
        what: "page descriptor",
    },
];

/// All that is known of the addresses of one guest.
#[derive(Default)]
pub struct Naming {
    /// Symbols of a Linux kernel.
    pub kernel: Kallsyms,
    /// Where the per-CPU areas of that kernel begin, in order of CPU.
    pub per_cpu: Vec<u64>,
    /// Programs with debug information: user programs, and a kernel that is an ELF file.
    pub programs: Symbols,
    /// What a kernel address without a symbol holds, where the system's layout tells.
    pub memory: Option<fn(u64) -> Option<String>>,
}

impl Naming {
    /// The function that holds a code address; the address itself where none is known.
    #[must_use]
    pub fn function(&self, address: u64) -> String {
        if let Some((name, _)) = self.kernel.at(address) {
            return name.to_owned();
        }
        self.programs.place(address).unwrap_or_else(|| format!("{address:#x}"))
    }

    /// The same without file and line: a name that stays from one build to the next.
    #[must_use]
    pub fn routine(&self, address: u64) -> String {
        if let Some((name, _)) = self.kernel.at(address) {
            return name.to_owned();
        }
        self.programs.routine(address).unwrap_or_else(|| format!("{address:#x}"))
    }

    /// The object that holds a data address, as far as it can be told: a symbol, a CPU's area, or the kind of
    /// memory.
    #[must_use]
    pub fn data(&self, address: u64) -> String {
        if let Some((cpu, offset)) = self.per_cpu_offset(address) {
            return match self.kernel.per_cpu_at(offset) {
                Some((name, 0)) => format!("{name}, per-CPU of {cpu}"),
                Some((name, distance)) => format!("{name}+{distance:#x}, per-CPU of {cpu}"),
                None => format!("allocated per-CPU memory of {cpu}, offset {offset:#x}"),
            };
        }
        if let Some((name, distance)) = self.kernel.at(address) {
            return if distance == 0 { name.to_owned() } else { format!("{name}+{distance:#x}") };
        }
        if let Some((name, distance)) = self.programs.data(address) {
            return if distance == 0 { name } else { format!("{name}+{distance:#x}") };
        }
        let known = self.memory.and_then(|name| name(address));
        known.unwrap_or_else(|| self.kind(address).to_owned())
    }

    /// The CPU whose per-CPU area holds `address`, and the offset in it.
    fn per_cpu_offset(&self, address: u64) -> Option<(usize, u64)> {
        let (cpu, base) = self
            .per_cpu
            .iter()
            .enumerate()
            .filter(|(_, base)| **base <= address)
            .max_by_key(|(_, base)| **base)?;
        // Areas are equally large and adjacent; one alone is bounded by its static part.
        let size = match self.per_cpu[..] {
            [first, second, ..] => first.abs_diff(second),
            _ => PER_CPU_ALONE,
        };
        (address - base < size).then_some((cpu, address - base))
    }

    fn kind(&self, address: u64) -> &'static str {
        if self.kernel.is_empty() {
            return if address >= UPPER_HALF { "kernel memory" } else { "user memory" };
        }
        match AREAS.iter().find(|area| area.ranges.iter().any(|range| range.contains(&address))) {
            Some(area) => area.what,
            None if address >= UPPER_HALF => "kernel memory",
            None => "user memory",
        }
    }
}

/// How much is taken for a per-CPU area when there is only one.
const PER_CPU_ALONE: u64 = 256 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        let text = "0000000000000040 A runqueues\n0000000000001000 A __per_cpu_end\n\
                    ffffffff81000000 T _text\nffffffff82000000 D tasklist_lock\n";
        Naming {
            kernel: Kallsyms::parse(text),
            per_cpu: vec![0xffff_8880_3000_0000, 0xffff_8880_3008_0000],
            ..Naming::default()
        }
    }

    #[test]
    fn per_cpu_areas_are_told_by_cpu_and_symbol() {
        let naming = naming();
        assert_eq!(naming.data(0xffff_8880_3008_0040), "runqueues, per-CPU of 1");
        assert_eq!(naming.data(0xffff_8880_3000_0048), "runqueues+0x8, per-CPU of 0");
        let allocated = naming.data(0xffff_8880_3008_2000);
        assert_eq!(allocated, "allocated per-CPU memory of 1, offset 0x2000");
    }

    #[test]
    fn what_is_no_symbol_is_named_by_its_kind() {
        let naming = naming();
        assert_eq!(naming.data(0xffff_ffff_8200_0000), "tasklist_lock");
        assert_eq!(naming.data(0xffff_8880_3010_0000), "allocated object or page");
        assert_eq!(naming.data(0xffff_ea00_0000_1000), "page descriptor");
        assert_eq!(naming.data(0xff11_0000_0000_1000), "allocated object or page");
        assert_eq!(naming.data(0x40_0000), "user memory");
        assert_eq!(naming.function(0x1234), "0x1234");
    }
}
