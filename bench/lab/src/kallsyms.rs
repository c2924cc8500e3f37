//! The symbols of a Linux kernel, from the text of its `/proc/kallsyms`.
use std::collections::BTreeMap;

/// Symbols of a kernel, with those of its per-CPU area apart.
#[derive(Clone, Debug, Default)]
pub struct Kallsyms {
    /// Sorted by address; of several names at one address the first in the file.
    symbols: Vec<(u64, String)>,
    /// Offsets in a per-CPU area.
    per_cpu: Vec<(u64, String)>,
    /// Size of the static part of a per-CPU area.
    per_cpu_end: u64,
}

/// The lowest address of the kernel's image; below it symbols are offsets in the per-CPU area.
const IMAGE: u64 = 0xffff_ffff_8000_0000;
/// Labels that the compiler puts before each function, and that name nothing more.
const PADDING: &str = "__pfx_";
/// How far behind a symbol an address still belongs to it, where no later symbol ends it.
const LONGEST: u64 = 1 << 20;

impl Kallsyms {
    /// Reads `text`: lines of address, kind and name.
    #[must_use]
    pub fn parse(text: &str) -> Kallsyms {
        let mut image = BTreeMap::new();
        let mut per_cpu = BTreeMap::new();
        let mut per_cpu_end = 0;
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_kind), Some(name)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if name == "__per_cpu_end" {
                per_cpu_end = address;
            }
            if name.starts_with(PADDING) || words.next().is_some() {
                continue;
            }
            let table = if address < IMAGE { &mut per_cpu } else { &mut image };
            table.entry(address).or_insert_with(|| name.to_owned());
        }
        per_cpu.retain(|&address, _| address < per_cpu_end);
        Kallsyms { symbols: image.into_iter().collect(), per_cpu: per_cpu.into_iter().collect(), per_cpu_end }
    }

    /// Whether anything was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The address of the symbol called `name`.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|(_, symbol)| symbol == name).map(|(address, _)| *address)
    }

    /// The symbol at or before `address` in the kernel's image, and the distance from it.
    #[must_use]
    pub fn at(&self, address: u64) -> Option<(&str, u64)> {
        nearest(&self.symbols, address)
    }

    /// The symbol at or before `offset` in a per-CPU area; `None` behind its static part.
    #[must_use]
    pub fn per_cpu_at(&self, offset: u64) -> Option<(&str, u64)> {
        (offset < self.per_cpu_end).then(|| nearest(&self.per_cpu, offset))?
    }
}

fn nearest(table: &[(u64, String)], address: u64) -> Option<(&str, u64)> {
    let after = table.partition_point(|(start, _)| *start <= address);
    let (start, name) = table.get(after.checked_sub(1)?)?;
    let distance = address - start;
    (distance < LONGEST).then_some((name, distance))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "0000000000000000 A __per_cpu_start\n\
        0000000000001000 A cpu_tss_rw\n\
        0000000000035000 A __per_cpu_end\n\
        ffffffff81000000 T _text\n\
        ffffffff81000100 t __pfx_do_fork\n\
        ffffffff81000110 t do_fork\n\
        ffffffff81000110 t do_fork_alias\n\
        ffffffff82000040 D tasklist_lock\n\
        ffffffffc0000000 t in_module\t[module]\n";

    #[test]
    fn addresses_are_named_by_the_symbol_before_them() {
        let symbols = Kallsyms::parse(TEXT);
        assert_eq!(symbols.at(0xffff_ffff_8100_0115), Some(("do_fork", 5)));
        assert_eq!(symbols.at(0xffff_ffff_8100_0105), Some(("_text", 0x105)), "padding names nothing");
        assert_eq!(symbols.at(0xffff_ffff_8200_0044), Some(("tasklist_lock", 4)));
        assert_eq!(symbols.at(0xffff_ffff_9000_0000), None, "too far behind");
        assert_eq!(symbols.at(5), None);
        assert_eq!(symbols.address("do_fork"), Some(0xffff_ffff_8100_0110));
    }

    #[test]
    fn the_per_cpu_area_has_its_own_symbols() {
        let symbols = Kallsyms::parse(TEXT);
        assert_eq!(symbols.per_cpu_at(0x1010), Some(("cpu_tss_rw", 0x10)));
        assert_eq!(symbols.per_cpu_at(0x35000), None);
    }
}
