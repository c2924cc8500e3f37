//! Translated blocks: the costs and properties of straight-line code, worked out once at translation.
use crate::decode::{Decoded, Event, decode};
use crate::profile::Costs;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// Whose code a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// User code.
    User = 0,
    /// User code in an address range named as a server.
    Server = 1,
    /// Kernel code: bit 63 of the address is set.
    Kernel = 2,
}

/// Number of [`Class`]es.
pub const CLASSES: usize = 3;

/// One instruction of a block, as far as its memory accesses need it.
#[derive(Debug, Default)]
pub struct Site {
    /// Virtual address.
    pub address: u64,
    /// Cycles of the block from this instruction's access on (its own extra cost included).
    pub cycles_after: u32,
    /// Kernel code.
    pub kernel: bool,
    /// A string instruction with a repeat prefix.
    pub string: bool,
    /// Kept for the translator: how it last saw an access of this instruction.
    pub memo: AtomicU64,
}

/// A marker inside a block.
#[derive(Clone, Copy, Debug)]
pub struct Marker {
    /// The verb.
    pub verb: u8,
    /// The argument.
    pub arg: u8,
    /// Cycles of the block after this instruction.
    pub cycles_after: u32,
    /// Instructions of the block after this one.
    pub insns_after: u32,
    /// Whose code it is in.
    pub class: Class,
}

/// A translated block. What each execution looks at comes first, on one host cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Block {
    /// Dense number of the block, for counters.
    pub id: u32,
    /// Instructions in it.
    pub insns: u32,
    /// Cycles of all its instructions, transfers and entries apart.
    pub cycles: u32,
    /// Whose code it is.
    pub class: Class,
    /// It ends in `syscall`.
    pub ends_in_syscall: bool,
    /// It starts at the page fault handler's entry.
    pub fault_entry: bool,
    /// It can make the processor forget address translations, at its end.
    pub flushes: bool,
    /// It has a `pause`: the mark of a spinning loop.
    pub pause: bool,
    /// Its last instruction is a string instruction at this address.
    pub ends_in_repeat: Option<u64>,
    /// It is one string instruction (a later iteration looks like this), and its address.
    pub repeat: Option<u64>,
    /// Virtual address of its first instruction.
    pub address: u64,
    /// Its instructions.
    pub sites: Box<[Site]>,
    /// For each instruction, the marker that it is.
    pub markers: Box<[Option<Marker>]>,
}

/// What blocks need to know of the run.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// User address ranges that hold servers, end exclusive.
    pub servers: Vec<(u64, u64)>,
    /// Address of the kernel's page fault entry.
    pub fault_entry: Option<u64>,
}

impl Layout {
    fn class(&self, address: u64) -> Class {
        if address >> 63 != 0 {
            Class::Kernel
        } else if self.servers.iter().any(|&(low, high)| (low..high).contains(&address)) {
            Class::Server
        } else {
            Class::User
        }
    }
}

/// Cycles of one instruction beyond `costs.instruction`, lock included.
fn extra(costs: &Costs, decoded: Decoded) -> u32 {
    let event = match decoded.event {
        Event::None | Event::Marker(..) => 0,
        Event::Syscall => costs.syscall,
        Event::Sysret => costs.sysret,
        Event::Iret => costs.iretq,
        Event::WriteCr3 => costs.write_cr3,
        Event::WriteCr0 => costs.write_cr0,
        Event::Invlpg => costs.invlpg,
        Event::Swapgs => costs.swapgs,
        Event::Wrmsr => costs.wrmsr,
        Event::Rdmsr => costs.rdmsr,
        Event::Pause => costs.pause,
        Event::Xsave => costs.xsave,
    };
    event + if decoded.locked { costs.locked } else { 0 }
}

/// An instruction as the translator gives it.
#[derive(Clone, Copy, Debug, Hash)]
pub struct Raw<'a> {
    /// Virtual address.
    pub address: u64,
    /// Its bytes.
    pub bytes: &'a [u8],
}

impl Block {
    /// Works out a block. `code` is not empty.
    #[must_use]
    pub fn new(id: u32, code: &[Raw<'_>], costs: &Costs, layout: &Layout) -> Self {
        let address = code.first().map_or(0, |i| i.address);
        let class = layout.class(address);
        let decoded: Vec<Decoded> = code.iter().map(|i| decode(i.bytes)).collect();
        let mut sites = Vec::with_capacity(code.len());
        let mut markers = Vec::with_capacity(code.len());
        let mut cycles = 0;
        for ((raw, what), left) in code.iter().zip(&decoded).rev().zip(0..) {
            let after = cycles + extra(costs, *what);
            sites.push(Site {
                address: raw.address,
                cycles_after: after,
                kernel: class == Class::Kernel,
                string: what.string,
                memo: AtomicU64::new(0),
            });
            markers.push(match what.event {
                Event::Marker(verb, arg) => {
                    Some(Marker { verb, arg, cycles_after: cycles, insns_after: left, class })
                }
                _ => None,
            });
            cycles = after + costs.instruction;
        }
        sites.reverse();
        markers.reverse();
        let ends_in_repeat = decoded.last().filter(|d| d.string).and_then(|_| code.last()).map(|i| i.address);
        Self {
            id,
            address,
            insns: u32::try_from(code.len()).unwrap_or(u32::MAX),
            cycles,
            class,
            ends_in_syscall: decoded.last().is_some_and(|d| d.event == Event::Syscall),
            repeat: ends_in_repeat.filter(|_| code.len() == 1),
            ends_in_repeat,
            fault_entry: layout.fault_entry == Some(address),
            flushes: decoded.iter().any(|d| d.flushes),
            pause: decoded.iter().any(|d| d.event == Event::Pause),
            sites: sites.into(),
            markers: markers.into(),
        }
    }
}

/// All blocks ever translated. Blocks live as long as the process, because translated code points to
/// them; the same code translated again gets the same block.
#[derive(Debug, Default)]
pub struct Blocks {
    table: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_code: HashMap<u64, &'static Block>,
    all: Vec<&'static Block>,
}

impl Blocks {
    /// The block for `code`, new or known. Any thread; short lock.
    pub fn intern(&self, code: &[Raw<'_>], costs: &Costs, layout: &Layout) -> &'static Block {
        let mut hasher = DefaultHasher::new();
        code.hash(&mut hasher);
        let mut table = self.table.lock().expect("nobody panics with this lock");
        let id = u32::try_from(table.all.len()).unwrap_or(u32::MAX);
        let Known { by_code, all } = &mut *table;
        by_code.entry(hasher.finish()).or_insert_with(|| {
            let block: &'static Block = Box::leak(Box::new(Block::new(id, code, costs, layout)));
            all.push(block);
            block
        })
    }

    /// The block numbered `id`.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&'static Block> {
        self.table.lock().expect("nobody panics with this lock").all.get(id as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Profile;

    const NOP: &[u8] = &[0x90];
    const LOCK_INC: &[u8] = &[0xf0, 0x48, 0xff, 0x00];
    const REP_STOSQ: &[u8] = &[0xf3, 0x48, 0xab];
    const OPERATION: &[u8] = &[0x0f, 0x1f, 0x80, 0xc9, 0x03, 0x11, 0x5c];

    fn block(base: u64, code: &[&[u8]]) -> Block {
        let raw: Vec<Raw> = code.iter().zip(base..).map(|(&bytes, address)| Raw { address, bytes }).collect();
        let layout = Layout { servers: vec![(0x1000, 0x2000)], fault_entry: Some(0x3000) };
        Block::new(0, &raw, &Profile::default().costs, &layout)
    }

    #[test]
    fn costs_add_up_and_split_at_each_instruction() {
        let b = block(0x100, &[NOP, LOCK_INC, OPERATION, NOP]);
        assert_eq!((b.insns, b.cycles), (4, 22));
        assert_eq!(b.sites[1].cycles_after, 20);
        let marker = b.markers[2].expect("a marker");
        assert_eq!((marker.cycles_after, marker.insns_after, marker.verb, marker.arg), (1, 1, 3, 201));
    }

    #[test]
    fn classes_follow_the_address() {
        assert_eq!(block(0x100, &[NOP]).class, Class::User);
        assert_eq!(block(0x1fff, &[NOP]).class, Class::Server);
        assert_eq!(block(1 << 63, &[NOP]).class, Class::Kernel);
        assert!(block(0x3000, &[NOP]).fault_entry);
    }

    #[test]
    fn string_instructions_are_known_at_the_end_and_alone() {
        assert_eq!(block(0x100, &[NOP, REP_STOSQ]).ends_in_repeat, Some(0x101));
        assert_eq!(block(0x100, &[NOP, REP_STOSQ]).repeat, None);
        assert_eq!(block(0x101, &[REP_STOSQ]).repeat, Some(0x101));
    }

    #[test]
    fn the_same_code_is_the_same_block() {
        let blocks = Blocks::default();
        let raw = [Raw { address: 1, bytes: NOP }];
        let (costs, layout) = (Profile::default().costs, Layout::default());
        let first = blocks.intern(&raw, &costs, &layout);
        assert_eq!(first.id, blocks.intern(&raw, &costs, &layout).id);
        let other = blocks.intern(&[Raw { address: 1, bytes: LOCK_INC }], &costs, &layout);
        assert_eq!(other.id, 1);
    }
}
