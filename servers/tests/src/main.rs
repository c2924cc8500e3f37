//! Plays the user's part in the kernel tests: the first word that it is started with chooses the part
//! (`kernel/src/tests/programs.rs` has the same list), the second is the number of CPUs.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

mod accounts;
mod addresses;
mod afar;
mod bad_calls;
mod calls;
mod capabilities;
mod companion;
mod control;
mod count;
mod drivers;
mod ends;
mod exceptions;
mod exhausted;
mod extended;
mod giver;
mod hand;
mod handlers;
mod idle;
mod ill_will;
mod inside;
mod interrupts;
mod isolation;
mod items;
mod kept;
mod killed;
mod large;
mod memory;
mod notifications;
mod operations;
mod pagers;
mod pressure;
mod shares;
mod stacks;
mod threads;
mod time;
mod torture;
mod turns;

use rt::call;

rt::program!(run);

/// Null calls that each thread makes.
const CALLS: u32 = 10_000;

/// The third word is what the part needs besides: an address, how many CPUs share a page table, or seconds.
fn run([part, cpus, companion]: [u64; 3]) {
    let degree = companion;
    match part {
        0 => threads::on_every_cpu(cpus, null_calls),
        1 => threads::on_every_cpu(cpus, threads::place_and_yield),
        2 => bad_calls::all_are_refused(),
        3 => null_calls(call::cpu_number()),
        4 => threads::on_every_cpu(cpus, threads::create_and_join),
        5 => calls::to_one_server(cpus),
        14 => calls::leave_all_behind(cpus),
        6 => capabilities::obey(),
        7 => notifications::arrive(cpus),
        9 => control::works_from_afar(cpus),
        12 => kept::callers_wait(cpus, companion),
        13 => handlers::are_told(),
        11 => items::go_where_they_may(companion),
        10 => addresses::are_waited_at(cpus),
        8 => ill_will::is_contained(companion),
        63 => shares::are_kept(),
        64 => inside::clients_are_stopped_and_killed(cpus),
        65 => killed::leaves_nothing(cpus, companion),
        66 => isolation::is_kept(),
        67 => torture::leaves_nothing(cpus, companion),
        68 => control::threads_move(cpus),
        69 => time::is_charged(cpus),
        70 => interrupts::are_sent_once(cpus),
        73 => pressure::takes_tables_back(cpus, degree),
        72 => accounts::go_back(companion),
        71 => drivers::use_ports_of_others(companion),
        75 => turns::are_not_held_up(),
        74 => afar::are_served_there(cpus, companion),
        76 => exhausted::get_errors(cpus),
        32 => memory::by_pager(),
        33 => memory::refuses(),
        35 => accounts::are_exact(cpus),
        60 => extended::are_own(cpus),
        61 => drivers::use_ports(),
        62 => drivers::get_interrupts(cpus),
        34 => memory::from_all(cpus, degree),
        36 => large::are_entered_and_split(degree),
        37 => large::are_shot_down(cpus, degree),
        38 => pressure::discards_tables(degree),
        39 => pagers::harm_only_who_depends_on_them(cpus),
        58 => idle::are_left_alone(cpus, degree),
        59 => ends::code_is_executed(),
        end @ 40..58 => ends::end_by(end - 40),
        kind => exceptions::raise(kind - exceptions::FIRST),
    }
}

fn null_calls(cpu: u32) {
    for _ in 0..CALLS {
        assert_eq!(call::null(), Ok(0));
    }
    assert_eq!(call::cpu_number(), cpu, "the thread moved");
}
