//! The simulator against a naive sequential reference, on random programs of a few CPUs and lines.
//!
//! Events are given to both in one order, as on a host with one thread. The reference keeps sets in maps and
//! counts by the words of the contract; it knows nothing of chunks, bit sets or locks.
use model::block::{Block, Layout, Raw};
use model::cpu::{Access, Cpu};
use model::machine::{Machine, Options};
use model::profile::Profile;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

const CPUS: u32 = 70;
const LINE: u64 = 64;
const NOP: &[u8] = &[0x90];
const LOCK_INC: &[u8] = &[0xf0, 0x48, 0xff, 0x00];
const REP_STOSQ: &[u8] = &[0xf3, 0x48, 0xab];
const LAST: &[u8] = &[0x0f, 0x1f, 0x80, 1, 2, 0x11, 0x5c];

/// One step of one CPU: a block of one accessing instruction.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u32,
    line: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Load,
    Store,
    Locked,
    String,
}

impl Kind {
    fn stores(self) -> bool {
        !matches!(self, Self::Load)
    }
    fn code(self) -> &'static [u8] {
        match self {
            Self::Load | Self::Store => NOP,
            Self::Locked => LOCK_INC,
            Self::String => REP_STOSQ,
        }
    }
}

/// What a line is to the reference.
#[derive(Default)]
struct Line {
    holders: BTreeSet<u32>,
    touched: bool,
    /// The only holder may write without asking.
    alone: bool,
    free_at: u64,
    busy_from: u64,
}

#[derive(Default)]
struct Reference {
    lines: HashMap<u64, Line>,
    clocks: HashMap<u32, u64>,
    transfers: u64,
}

impl Reference {
    fn step(&mut self, step: Step, profile: &Profile, queues: bool) {
        let costs = &profile.costs;
        let clock = self.clocks.entry(step.cpu).or_default();
        let line = self.lines.entry(step.line).or_default();
        let began = *clock;
        *clock += u64::from(costs.instruction);
        if matches!(step.kind, Kind::Locked) {
            *clock += u64::from(costs.locked);
        }
        let at = began + u64::from(costs.instruction);
        let mine = line.holders.contains(&step.cpu);
        let hit = mine && (!step.kind.stores() || line.alone);
        if !line.touched {
            *clock += u64::from(costs.first_touch);
        } else if !hit {
            self.transfers += 1;
            let string = matches!(step.kind, Kind::String);
            let cost = u64::from(if string { costs.string_line } else { costs.transfer });
            let earlier = at + cost <= line.busy_from;
            let start = if queues && !earlier { at.max(line.free_at) } else { at };
            if queues && !earlier {
                if start > line.free_at + 2 * cost {
                    line.busy_from = start;
                }
                line.free_at = start + cost;
            }
            *clock += start - at + cost;
        }
        if !line.touched || step.kind.stores() {
            line.holders = BTreeSet::from([step.cpu]);
            line.alone = true;
        } else if !hit {
            line.holders.insert(step.cpu);
            line.alone = false;
        }
        line.touched = true;
    }
}

fn block(id: u32, code: &[&'static [u8]], profile: &Profile) -> Block {
    let raw: Vec<Raw<'_>> = code.iter().zip(1..).map(|(&bytes, address)| Raw { address, bytes }).collect();
    Block::new(id, &raw, &profile.costs, &Layout::default())
}

/// Runs the steps through the simulator; `region` puts them all inside a region of interest.
fn simulate(steps: &[Step], profile: &Profile, region: bool) -> (HashMap<u32, u64>, u64) {
    let machine = Machine::new(CPUS, Options { profile: profile.clone(), ..Options::default() });
    let mut cpus: Vec<Cpu> = (0..CPUS).map(Cpu::new).collect();
    let used: BTreeSet<u32> = steps.iter().map(|s| s.cpu).collect();
    let enter = block(0, &[&[0x0f, 0x1f, 0x80, 9, 1, 0x11, 0x5c]], profile);
    let leave = block(0, &[&[0x0f, 0x1f, 0x80, 9, 2, 0x11, 0x5c]], profile);
    let marker = |b: &Block| b.markers[0].expect("the code is a marker");
    for &cpu in &used {
        cpus[cpu as usize].resume(&machine);
    }
    for &cpu in used.iter().filter(|_| region) {
        cpus[cpu as usize].marker(&machine, &marker(&enter));
    }
    for (step, id) in steps.iter().zip(1..) {
        let cpu = &mut cpus[step.cpu as usize];
        // Blocks end in a marker that does nothing here, so that no block is taken for a string
        // instruction's next iteration; its cycle is taken off below.
        let code = block(id, &[step.kind.code(), LAST], profile);
        cpu.begin_block(&machine, &code);
        let access = Access {
            physical: step.line * LINE,
            virtual_address: step.line * LINE,
            size: 8,
            store: step.kind.stores(),
        };
        cpu.access(&machine, &code.sites[0], access);
    }
    let own: HashMap<u32, u64> = used.iter().map(|&c| (c, cpus[c as usize].clock())).collect();
    for &cpu in used.iter().filter(|_| region) {
        cpus[cpu as usize].marker(&machine, &marker(&leave));
    }
    let transfers =
        machine.report().regions.first().map_or(0, |r| r.total.transfers_user + r.total.transfers_string);
    (own, transfers)
}

/// The same steps by the reference, with the marker that ends each block.
fn expect(steps: &[Step], profile: &Profile, queues: bool) -> (HashMap<u32, u64>, u64) {
    let mut reference = Reference::default();
    for &step in steps {
        reference.step(step, profile, queues);
        *reference.clocks.entry(step.cpu).or_default() += u64::from(profile.costs.instruction);
    }
    (reference.clocks, reference.transfers)
}

/// Nobody is held back: the test runs all CPUs on one thread.
fn unordered() -> Profile {
    let free = |key: &str| format!("{key}:{}", u32::MAX);
    Profile::parse(model::profile::DEFAULT, &[free("quantum"), free("window"), "hot_interval:0".into()])
        .expect("a sound profile")
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let kind = prop_oneof![
        4 => Just(Kind::Load),
        3 => Just(Kind::Store),
        2 => Just(Kind::Locked),
        1 => Just(Kind::String),
    ];
    // Few CPUs, some of them in the second word of a sharer set; few lines, on both sides of a chunk.
    let cpu = prop_oneof![0..4u32, 62..CPUS];
    let line = prop_oneof![0..5u64, (1u64 << 20) - 2..(1u64 << 20) + 2];
    prop::collection::vec((cpu, line, kind).prop_map(|(cpu, line, kind)| Step { cpu, line, kind }), 1..200)
}

proptest! {
    // Each case builds two machines; more would not fit the time of a test run.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn outside_regions_clocks_are_those_of_the_reference(steps in steps()) {
        let profile = unordered();
        let (clocks, _) = simulate(&steps, &profile, false);
        prop_assert_eq!(clocks, expect(&steps, &profile, false).0);
    }

    #[test]
    fn inside_a_region_queues_and_transfers_are_those_of_the_reference(steps in steps()) {
        let profile = unordered();
        prop_assert_eq!(simulate(&steps, &profile, true), expect(&steps, &profile, true));
    }
}
