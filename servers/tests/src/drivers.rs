//! Drivers as programs: ports and interrupts of the clocks that every PC has.

use abi::{Error, Fact, Handle, Rights, initial, interrupt};
use rt::{call, io};

use crate::companion::command::{READ_PORT, READ_WITHOUT, WRITE_PORT};

const MILLISECOND: u64 = 1_000_000;
const BYTE: u64 = 1;
/// Interrupts that are waited for.
const INTERRUPTS: u32 = 5;
const BIT: u32 = 3;

/// The real-time clock: an index and a data port.
mod rtc {
    pub const INDEX: u16 = 0x70;
    pub const DATA: u16 = 0x71;
    pub const IRQ: u64 = 8;
    pub const A: u32 = 0x0a;
    pub const B: u32 = 0x0b;
    pub const C: u32 = 0x0c;
    /// 1,024 interrupts a second.
    pub const RATE: u32 = 0x26;
    pub const PERIODIC: u32 = 0x40;
}

/// The first PCs' timer.
mod pit {
    pub const COUNTER: u16 = 0x40;
    pub const CONTROL: u16 = 0x43;
    pub const IRQ: u64 = 0;
    /// Counter 0, both bytes, a pulse each time it reaches 0.
    pub const RATE_GENERATOR: u32 = 0x34;
    /// About a millisecond.
    pub const DIVISOR: u32 = 1193;
}

/// A port without effect: the scratch register of the first serial port.
const SCRATCH: u16 = 0x3ff;

fn write(ports: Handle, port: u16, value: u32) -> Result<(), Error> {
    // SAFETY: these devices touch no memory.
    unsafe { io::write_port(ports, port, BYTE, value) }
}

/// Reads and writes, and each reason for which they are refused.
fn ports_are_held_by_rights() {
    let all = initial::PORTS;
    assert_eq!(write(all, SCRATCH, 0x5a), Ok(()));
    assert_eq!(io::read_port(all, SCRATCH, BYTE), Ok(0x5a));
    let one = io::derive_ports(all, SCRATCH, 1).expect("a part of all ports");
    assert_eq!(write(one, SCRATCH, 0xa5), Ok(()));
    assert_eq!(io::read_port(one, SCRATCH, BYTE), Ok(0xa5));
    for outside in [SCRATCH - 1, SCRATCH + 1, 0, u16::MAX] {
        assert_eq!(io::read_port(one, outside, BYTE), Err(Error::BadAddress));
        assert_eq!(write(one, outside, 0), Err(Error::BadAddress));
    }
    assert_eq!(io::read_port(one, SCRATCH, 2), Err(Error::BadAddress), "its second byte lies outside");
    assert_eq!(io::read_port(one, SCRATCH, 3), Err(Error::BadArgument));
    assert_eq!(call::call(one, [1, 1 << 16, 0, 0]), Err(Error::BadAddress));
    for (first, count) in [(SCRATCH, 2), (SCRATCH - 1, 2), (0, 1), (SCRATCH, 0)] {
        assert_eq!(io::derive_ports(one, first, count), Err(Error::BadArgument));
    }
    let readable = call::mint(one, Rights::USE, 7).expect("derive");
    assert_eq!(io::read_port(readable, SCRATCH, BYTE), Ok(0xa5), "a badge does not change the range");
    assert_eq!(write(readable, SCRATCH, 0), Err(Error::NoRight));
    assert_eq!(io::derive_ports(readable, SCRATCH, 1), Err(Error::NoRight));
    let writable = call::mint(one, Rights::WRITE, 0).expect("derive");
    assert_eq!(write(writable, SCRATCH, 1), Ok(()));
    assert_eq!(io::read_port(writable, SCRATCH, BYTE), Err(Error::NoRight));
    assert_eq!(call::revoke(one), Ok(()));
    assert_eq!(io::read_port(readable, SCRATCH, BYTE), Err(Error::Revoked));
    assert_eq!(call::delete(one), Ok(()));
    assert_eq!(io::read_port(one, SCRATCH, BYTE), Err(Error::StaleHandle));
    assert_eq!(io::derive_ports(initial::INTERRUPTS, 0, 1), Err(Error::WrongKind));
}

fn select(ports: Handle, register: u32) {
    assert_eq!(write(ports, rtc::INDEX, register), Ok(()));
}

fn set_rtc(ports: Handle, register: u32, value: u32) {
    select(ports, register);
    assert_eq!(write(ports, rtc::DATA, value), Ok(()));
}

/// Tells the clock that its interrupt was seen.
fn served(ports: Handle) {
    select(ports, rtc::C);
    assert!(io::read_port(ports, rtc::DATA, BYTE).is_ok());
}

/// The clock's interrupts come to the CPU that was chosen, and only after they were acknowledged.
fn clock_interrupts_come(ports: Handle, notification: Handle, cpu: u32) {
    let here = call::fact(Fact::DeviceInterrupts);
    let bind = || io::bind_interrupt(initial::INTERRUPTS, interrupt::ISA | rtc::IRQ, notification, cpu, BIT);
    let clock = bind().expect("the clock's interrupt");
    assert_eq!(bind(), Err(Error::Busy), "a line is bound once");
    set_rtc(ports, rtc::A, rtc::RATE);
    set_rtc(ports, rtc::B, rtc::PERIODIC | 2);
    let soon = || crate::count::patience();
    for _ in 0..INTERRUPTS {
        assert_eq!(call::wait(notification, soon()), Ok(1 << BIT), "no interrupt from the clock");
        served(ports);
        assert_eq!(io::acknowledge(clock), Ok(()));
    }
    // Not acknowledged, it stays away.
    assert_eq!(call::wait(notification, soon()), Ok(1 << BIT));
    served(ports);
    assert_eq!(call::wait(notification, call::now() + 30 * MILLISECOND), Err(Error::TimedOut));
    served(ports);
    let weak = call::mint(clock, Rights::GRANT, 0).expect("derive");
    assert_eq!(io::acknowledge(weak), Err(Error::NoRight));
    assert_eq!(io::acknowledge(clock), Ok(()));
    assert_eq!(call::wait(notification, soon()), Ok(1 << BIT), "none after the acknowledgement");
    let taken = call::fact(Fact::DeviceInterrupts) - here;
    if cpu == call::cpu_number() {
        assert!(taken >= INTERRUPTS.into(), "only {taken} interrupts came to the chosen CPU");
    } else {
        assert_eq!(taken, 0, "interrupts came to another CPU than the chosen one");
    }
    assert_eq!(call::destroy(weak), Err(Error::NoRight));
    assert_eq!(call::destroy(clock), Ok(()));
    assert_eq!(io::acknowledge(clock), Err(Error::Destroyed));
    set_rtc(ports, rtc::B, 2);
    served(ports);
    // What came before the end is dropped.
    let _ = call::wait(notification, call::now() + MILLISECOND);
}

/// The timer's line has another number than its interrupt, as the firmware says.
fn timer_interrupts_come(notification: Handle, cpu: u32) {
    let ports = io::derive_ports(initial::PORTS, pit::COUNTER, 4).expect("the timer's ports");
    let source = interrupt::ISA | pit::IRQ;
    let timer = io::bind_interrupt(initial::INTERRUPTS, source, notification, cpu, 0).expect("the timer's");
    assert_eq!(write(ports, pit::CONTROL, pit::RATE_GENERATOR), Ok(()));
    assert_eq!(write(ports, pit::COUNTER, pit::DIVISOR & 0xff), Ok(()));
    assert_eq!(write(ports, pit::COUNTER, pit::DIVISOR >> 8), Ok(()));
    for _ in 0..INTERRUPTS {
        let bits = call::wait(notification, crate::count::patience());
        assert_eq!(bits, Ok(1), "no interrupt from the timer");
        assert_eq!(io::acknowledge(timer), Ok(()));
    }
    // A driver whose notification is gone is not told, and its line is free again.
    let other = call::create_notification().expect("a notification");
    assert_eq!(call::destroy(timer), Ok(()));
    let lost = io::bind_interrupt(initial::INTERRUPTS, source, other, cpu, 0).expect("the timer's");
    assert_eq!(call::destroy(other), Ok(()));
    let again = io::bind_interrupt(initial::INTERRUPTS, source, notification, cpu, 1).expect("free again");
    assert_ne!(io::acknowledge(lost), Ok(()));
    let wait = || call::wait(notification, crate::count::patience());
    // One that came before the first binding's end may still be there.
    let bits = wait().and_then(|bits| if bits & 2 == 0 { wait() } else { Ok(bits) });
    assert_eq!(bits.map(|bits| bits & 2), Ok(2));
    assert_eq!(call::destroy(again), Ok(()));
    // Stopped: a counter that was not given a value does not count.
    assert_eq!(write(ports, pit::CONTROL, pit::RATE_GENERATOR), Ok(()));
}

fn bindings_are_checked(notification: Handle, cpus: u32) {
    let bind = |all, source, target, cpu, bit| io::bind_interrupt(all, source, target, cpu, bit);
    let all = initial::INTERRUPTS;
    let message = bind(all, interrupt::MESSAGE, notification, cpus - 1, 5).expect("a message");
    let (address, data) = io::message(message).expect("what a device has to write");
    assert!(address & !0xf_ffff == 0xfee0_0000 && (0x30..0xe0).contains(&data), "{address:#x}, {data:#x}");
    let second = bind(all, interrupt::MESSAGE, notification, cpus - 1, 5).expect("another message");
    assert_ne!(io::message(second).map(|(_, data)| data), Ok(data), "each has a vector of its own");
    assert_eq!(bind(all, interrupt::ISA | 16, notification, 0, 0), Err(Error::BadArgument));
    assert_eq!(bind(all, 1 << 20, notification, 0, 0), Err(Error::BadArgument), "no such line");
    assert_eq!(bind(all, interrupt::MESSAGE, notification, cpus, 0), Err(Error::BadArgument));
    assert_eq!(bind(all, interrupt::MESSAGE, notification, 0, 63), Err(Error::BadArgument));
    assert_eq!(bind(message, interrupt::MESSAGE, notification, 0, 0), Err(Error::WrongKind));
    assert_eq!(bind(all, interrupt::MESSAGE, all, 0, 0), Err(Error::WrongKind));
    assert_eq!(bind(Handle(0), interrupt::MESSAGE, notification, 0, 0), Err(Error::NoCapability));
    let weak = call::mint(notification, Rights::RECEIVE, 0).expect("derive");
    assert_eq!(bind(all, interrupt::MESSAGE, weak, 0, 0), Err(Error::NoRight));
    let weak = call::mint(all, Rights::DESTROY, 0).expect("derive");
    assert_eq!(bind(weak, interrupt::MESSAGE, notification, 0, 0), Err(Error::NoRight));
    assert_eq!(call::destroy(weak), Err(Error::WrongKind), "the right to all of them is nobody's to end");
    assert_eq!(io::acknowledge(all), Err(Error::WrongKind));
    for handle in [message, second] {
        assert_eq!(call::destroy(handle), Ok(()));
        assert_eq!(io::message(handle), Err(Error::Destroyed));
    }
}

/// Drives the two clocks, on the first CPU and the last.
pub fn get_interrupts(cpus: u64) {
    let notification = call::create_notification().expect("a notification");
    bindings_are_checked(notification, cpus as u32);
    let ports = io::derive_ports(initial::PORTS, rtc::INDEX, 2).expect("the clock's ports");
    for cpu in [0, cpus as u32 - 1] {
        clock_interrupts_come(ports, notification, cpu);
        timer_interrupts_come(notification, cpu);
    }
}

/// Tries ports.
pub fn use_ports() {
    ports_are_held_by_rights();
}

/// Another program, whose workers start at `entry`, has the ports that it was given, and as far as it was.
pub fn use_ports_of_others(entry: u64) {
    let rogue = crate::ill_will::rogue_endpoint(entry, 1);
    let try_port = |command, ports: Handle, port: u16| {
        let reply = call::call(rogue, [command, ports.0, port.into(), 0]);
        abi::decode(reply.expect("the companion lives").words[0])
    };
    let both = |ports, port| (try_port(READ_PORT, ports, port), try_port(WRITE_PORT, ports, port));
    let refused = |error| (Err(error), Err(error));
    assert_eq!(write(initial::PORTS, SCRATCH, 0x5a), Ok(()));
    // What names the ports here names nothing there.
    assert_eq!(both(initial::PORTS, SCRATCH), refused(Error::NoCapability));
    assert_eq!(both(Handle(0), SCRATCH), refused(Error::NoCapability));
    let one = io::derive_ports(initial::PORTS, SCRATCH, 1).expect("a part of all ports");
    let give = |rights| call::grant(one, initial::COMPANION, rights).expect("granted");
    let readable = give(Rights::USE);
    assert_eq!(both(readable, SCRATCH), (Ok(0x5a), Err(Error::NoRight)));
    let writable = give(Rights::WRITE);
    assert_eq!(both(writable, SCRATCH), (Err(Error::NoRight), Ok(0)));
    assert_eq!(io::read_port(one, SCRATCH, BYTE), Ok(0x3c), "the companion wrote it");
    let all = give(Rights::ALL);
    assert_eq!(both(all, SCRATCH), (Ok(0x3c), Ok(0)));
    for outside in [SCRATCH - 1, SCRATCH + 1, 0, u16::MAX] {
        assert_eq!(both(all, outside), refused(Error::BadAddress));
    }
    assert_eq!(call::revoke(one), Ok(()));
    assert_eq!(both(all, SCRATCH), refused(Error::Revoked));
    // By the instruction itself it has none, which ends it.
    let reply = call::call(rogue, [READ_WITHOUT, SCRATCH.into(), 0, 0]);
    assert_eq!(reply.map(|reply| reply.words), Err(Error::PeerDied));
}
