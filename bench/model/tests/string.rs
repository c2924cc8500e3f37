//! String instructions: each iteration is a block of its own to the emulator, and the contract counts one instruction
//! and one access a line.
use model::block::{Block, Layout, Raw};
use model::cpu::{Access, Cpu};
use model::machine::{Machine, Options};

const REP_STOSQ: &[u8] = &[0xf3, 0x48, 0xab];
const REP_MOVSB: &[u8] = &[0xf3, 0xa4];
const NOP: &[u8] = &[0x90];
const ENTER: &[u8] = &[0x0f, 0x1f, 0x80, 9, 1, 0x11, 0x5c];
const LEAVE: &[u8] = &[0x0f, 0x1f, 0x80, 9, 2, 0x11, 0x5c];
const LINE: u64 = 64;
const WORD: u64 = 8;
/// Kinds of access, as the emulator tells them apart.
const LOAD: u32 = 1;
const STORE: u32 = 2;

fn block(id: u32, code: &'static [u8]) -> Block {
    let raw = [Raw { address: u64::from(id) << 8, bytes: code }];
    Block::new(id, &raw, &Options::default().profile.costs, &Layout::default())
}

/// One iteration's access, as the emulator's callback makes it; false when it was left out.
fn iterate(cpu: &mut Cpu, machine: &Machine, code: &Block, kind: u32, address: u64, size: u64) -> bool {
    if cpu.string_again(kind, address) {
        return false;
    }
    let access = Access { physical: address, virtual_address: address, size, store: kind == STORE };
    cpu.access(machine, &code.sites[0], access);
    true
}

/// A machine whose CPU 0 is inside a region and whose CPU 1 owns `lines` lines from address 0 on.
fn machine(lines: u64) -> (Machine, Cpu, Cpu) {
    let machine = Machine::new(2, Options::default());
    let (mut own, mut other) = (Cpu::new(0), Cpu::new(1));
    let nop = block(1, NOP);
    other.resume(&machine);
    other.begin_block(&machine, &nop);
    for line in 0..lines {
        let (physical, virtual_address) = (line * LINE, line * LINE);
        other.access(&machine, &nop.sites[0], Access { physical, virtual_address, size: WORD, store: true });
    }
    // Off, it holds nobody back.
    other.halt(&machine);
    own.resume(&machine);
    let enter = block(2, ENTER);
    own.begin_block(&machine, &enter);
    own.marker(&machine, &enter.markers[0].unwrap());
    (machine, own, other)
}

/// Instructions and lines that string instructions moved, of CPU 0's region.
fn leave(machine: &Machine, own: &mut Cpu) -> (u64, u64) {
    let leave = block(3, LEAVE);
    own.begin_block(machine, &leave);
    own.marker(machine, &leave.markers[0].unwrap());
    let total = machine.report().regions[0].total.clone();
    // Without the marker's own instruction.
    (total.insns_user - 1, total.transfers_string)
}

#[test]
fn all_iterations_are_one_instruction_and_one_access_a_line() {
    let (machine, mut own, _) = machine(4);
    let string = block(4, REP_STOSQ);
    let mut made = 0;
    for address in (0..4 * LINE).step_by(WORD as usize) {
        own.begin_block(&machine, &string);
        made += u64::from(iterate(&mut own, &machine, &string, STORE, address, WORD));
    }
    assert_eq!(made, 4);
    assert_eq!(leave(&machine, &mut own), (1, 4));
}

#[test]
fn a_copy_accesses_each_line_of_its_source_and_of_its_destination_once() {
    let (machine, mut own, _) = machine(4);
    let string = block(4, REP_MOVSB);
    let mut made = 0;
    for offset in 0..2 * LINE - WORD {
        own.begin_block(&machine, &string);
        made += u64::from(iterate(&mut own, &machine, &string, LOAD, offset, 1));
        made += u64::from(iterate(&mut own, &machine, &string, STORE, 2 * LINE + offset, 1));
    }
    // The last bytes of a line are never left out, as a longer element could cross into the next.
    assert_eq!(made, 4 + 2 * (WORD - 1));
    assert_eq!(leave(&machine, &mut own), (1, 4));
}

#[test]
fn a_line_that_is_taken_meanwhile_is_still_one_access() {
    let (machine, mut own, mut other) = machine(1);
    let (string, nop) = (block(4, REP_STOSQ), block(5, NOP));
    own.begin_block(&machine, &string);
    assert!(iterate(&mut own, &machine, &string, STORE, 0, WORD));
    let load = Access { physical: 0, virtual_address: 0, size: WORD, store: false };
    other.access(&machine, &nop.sites[0], load);
    own.begin_block(&machine, &string);
    assert!(!iterate(&mut own, &machine, &string, STORE, WORD, WORD));
    assert_eq!(leave(&machine, &mut own), (1, 1));
}

#[test]
fn the_next_string_instruction_accesses_the_line_anew() {
    let (machine, mut own, mut other) = machine(1);
    let (string, nop) = (block(4, REP_STOSQ), block(5, NOP));
    for _ in 0..2 {
        own.begin_block(&machine, &string);
        assert!(iterate(&mut own, &machine, &string, STORE, 0, WORD));
        let load = Access { physical: 0, virtual_address: 0, size: WORD, store: false };
        other.access(&machine, &nop.sites[0], load);
        own.begin_block(&machine, &nop);
    }
    // Two string instructions and what stands between them; the line was taken and came back.
    assert_eq!(leave(&machine, &mut own), (4, 2));
}
