//! What accounts pay for, as `exhausted` tries it.

use abi::{Access, Call, Error, Handle, Item, Kind, Rights, ThreadOperation, initial};
use rt::call::{self, Placement};
use rt::memory;

use crate::count::MILLISECOND;
use crate::giver::{self, manner};
use crate::hand::{self, CODE, DATA, Hand, WORD};
use crate::memory::{PAGE, map};

/// Where nothing is mapped near.
pub const FAR: u64 = 0x20_0000_0000;
/// Far enough from each other that each needs tables of its own.
pub const APART: u64 = 1 << 30;
/// A priority below that of the test's own thread.
const LOW: u8 = 1;

/// An operation by, or on, a hand.
pub struct Operation {
    pub name: &'static str,
    /// Makes what it needs, while there is enough.
    pub prepare: fn(&mut Stage),
    pub act: fn(&mut Stage) -> Result<u64, Error>,
    /// With what it is refused. A program that ends was not refused a call, which could have an error.
    pub errors: &'static [Error],
    /// Whether the hand's page tables can pay for it where they can be discarded.
    pub is_paid_by_tables: bool,
    /// Whether the hand has run before.
    pub is_started: bool,
    /// CPUs that it needs.
    pub cpus: u32,
    /// What a part costs that it makes and that stays, even where it is refused in the end: the replica of an endpoint.
    pub replica: u64,
}

/// One try.
pub struct Stage {
    pub hand: Hand,
    /// Handles that the preparation left, here or there.
    pub handles: [u64; 3],
}

impl Stage {
    fn tell(&self, call: Call, arguments: &[u64]) -> Result<u64, Error> {
        self.hand.tell(call as u64, arguments)
    }

    fn create(&self, kind: Kind, arguments: [u64; 4]) -> Result<u64, Error> {
        let [first, second, third, fourth] = arguments;
        self.tell(Call::Create, &[kind as u64, first, second, third, fourth])
    }

    /// A thread of the hand that spins, on CPU `cpu`.
    fn start_thread(&mut self, cpu: u32) -> Result<u64, Error> {
        let place = Placement { cpu, priority: LOW };
        let made =
            call::thread_create_in(self.hand.space, place, [hand::spin(), DATA, 0], initial::CPU_CONTROL)?;
        Ok(self.hand.keep(made).0)
    }

    /// An endpoint of the hand's own, which its account pays, for the test to call.
    fn own_endpoint(&mut self) -> Handle {
        let here = self.hand.give(initial::ADDRESS_SPACE);
        let made = self.create(Kind::Endpoint, [0, CODE, CODE, 1024 | 1 << 32]).expect("an endpoint");
        let granted = self.tell(Call::Grant, &[made, here, Rights::ALL.0.into()]);
        self.hand.keep(Handle(granted.expect("granted")))
    }

    /// Sends the hand items.
    fn send(&self, items: &[Item]) -> Result<u64, Error> {
        hand::list(items);
        call::call_with_items(self.hand.endpoint, [0; 4], 0).map(|reply| reply.words[0])
    }
}

/// Nothing.
fn none(_: &mut Stage) {}

const OPERATION: Operation = Operation {
    name: "",
    prepare: none,
    act: |_| Ok(0),
    errors: &[Error::NoMemory],
    is_paid_by_tables: true,
    is_started: true,
    cpus: 1,
    replica: 0,
};

/// By the hand, with a table of capabilities that has room or has none.
pub const CREATIONS: &[Operation] = &[
    Operation {
        name: "create a notification",
        act: |stage| stage.create(Kind::Notification, [0; 4]),
        ..OPERATION
    },
    Operation {
        name: "create an endpoint",
        act: |stage| stage.create(Kind::Endpoint, [0, CODE, CODE, 1024 | 1 << 32]),
        ..OPERATION
    },
    Operation {
        name: "create an account",
        act: |stage| stage.create(Kind::Account, [0, 2 * PAGE, 0, 0]),
        ..OPERATION
    },
    Operation {
        name: "create a space",
        act: |stage| stage.create(Kind::AddressSpace, [0, 1, 0, 0]),
        ..OPERATION
    },
    Operation {
        name: "create a space with shared tables",
        act: |stage| stage.create(Kind::AddressSpace, [0, 2, 0, 0]),
        ..OPERATION
    },
    Operation {
        name: "create a thread",
        act: |stage| stage.tell(Call::ThreadCreate, &[0, u64::from(LOW) << 16, hand::spin(), DATA]),
        ..OPERATION
    },
    Operation {
        name: "create a reply capability",
        act: |stage| {
            let soon = call::now() + 3 * MILLISECOND;
            match stage.hand.tell_until(soon, Call::Create as u64, &[Kind::Reply as u64]) {
                // It keeps this thread, which so gets no reply.
                Err(Error::TimedOut) => Ok(0),
                result => result,
            }
        },
        ..OPERATION
    },
    Operation {
        name: "derive memory",
        prepare: |stage| give(stage, initial::memory(0)),
        act: |stage| stage.create(Kind::Memory, [stage.handles[0], 0, 1, 0]),
        ..OPERATION
    },
    Operation {
        name: "derive ports",
        prepare: |stage| give(stage, initial::PORTS),
        act: |stage| stage.create(Kind::Ports, [stage.handles[0], 0x80, 1, 0]),
        ..OPERATION
    },
    Operation {
        name: "mint",
        prepare: |stage| give(stage, initial::PORTS),
        act: |stage| stage.tell(Call::Mint, &[stage.handles[0], Rights::ALL.0.into(), 0]),
        ..OPERATION
    },
    Operation {
        name: "derive a replica",
        prepare: |stage| {
            stage.handles[1] = stage.hand.give(initial::CPU_CONTROL);
            let endpoint = stage.hand.endpoint;
            give(stage, endpoint);
        },
        act: |stage| stage.create(Kind::Replica, [stage.handles[0], 0, stage.handles[1], 0]),
        ..OPERATION
    },
    Operation {
        name: "bind an interrupt",
        prepare: |stage| {
            let notification = call::create_notification().expect("a notification");
            stage.hand.keep(notification);
            stage.handles[1] = stage.hand.give(notification);
            give(stage, initial::INTERRUPTS);
        },
        act: |stage| {
            // A binding that is left behind keeps others from this line.
            const CLOCK: u64 = abi::interrupt::ISA | 8;
            stage.create(Kind::Interrupt, [stage.handles[0], CLOCK, stage.handles[1], 0])
        },
        ..OPERATION
    },
];

/// Gives the hand a capability, and so many others that one more needs another frame.
fn give(stage: &mut Stage, handle: Handle) {
    stage.handles[0] = stage.hand.give(handle);
    stage.hand.fill_table();
}

pub const MEMORY: &[Operation] = &[
    Operation {
        name: "map into another program",
        act: |stage| map(initial::memory(0), 2, stage.hand.space, FAR, 1, Access::READ).map(|()| 0),
        ..OPERATION
    },
    Operation {
        name: "map pages that need several leaves",
        prepare: |stage| give(stage, initial::memory(0)),
        act: |stage| stage.tell(Call::Map, &[stage.handles[0], 2, 0, FAR + APART - 70 * PAGE, 140, 1]),
        ..OPERATION
    },
    Operation {
        name: "make a region",
        prepare: |stage| {
            let endpoint = stage.hand.endpoint;
            give(stage, endpoint);
        },
        act: |stage| {
            let access = Access::READ.0;
            stage.tell(Call::Region, &[0, FAR + 3 * PAGE, APART, access, stage.handles[0], 0])
        },
        ..OPERATION
    },
    Operation {
        name: "make a region of another program",
        act: |stage| {
            let (space, pager) = (stage.hand.space, stage.hand.endpoint);
            memory::region(space, FAR + 3 * PAGE, APART, Access::READ, pager, 0).map(|()| 0)
        },
        ..OPERATION
    },
    Operation {
        name: "wait at an address",
        act: |stage| match stage.tell(Call::AddressWait, &[WORD, 0, call::now() + MILLISECOND]) {
            Err(Error::TimedOut) => Ok(0),
            result => result,
        },
        ..OPERATION
    },
    Operation {
        name: "use a page that is mapped",
        prepare: |stage| {
            let mapped = map(initial::memory(0), 2, stage.hand.space, FAR, 1, Access::READ);
            assert_eq!(mapped, Ok(()));
            end_by_exceptions(stage);
        },
        act: |stage| stage.hand.tell(hand::LOAD, &[FAR]),
        errors: &[Error::PeerDied],
        ..OPERATION
    },
    Operation {
        name: "use a page that a pager gives",
        prepare: |stage| {
            let pager = giver::server();
            let made = memory::region(stage.hand.space, FAR, PAGE, Access::READ, pager, manner::PAGE);
            assert_eq!(made, Ok(()));
            end_by_exceptions(stage);
        },
        act: |stage| stage.hand.tell(hand::LOAD, &[FAR]),
        errors: &[Error::PeerDied],
        ..OPERATION
    },
    Operation {
        name: "use vector registers",
        prepare: end_by_exceptions,
        act: |stage| stage.hand.tell(hand::USE_VECTORS, &[]),
        errors: &[Error::PeerDied],
        ..OPERATION
    },
];

pub const CALLS: &[Operation] = &[
    Operation {
        name: "grant to another program",
        act: |stage| call::grant(initial::PORTS, stage.hand.space, Rights::ALL).map(|handle| handle.0),
        ..OPERATION
    },
    Operation {
        name: "start a thread of another program",
        act: |stage| stage.start_thread(call::cpu_number()),
        is_paid_by_tables: false,
        is_started: false,
        ..OPERATION
    },
    Operation {
        name: "start a thread on another CPU",
        act: |stage| stage.start_thread(1),
        cpus: 2,
        ..OPERATION
    },
    Operation {
        name: "move a thread to another CPU",
        prepare: |stage| stage.handles[0] = stage.start_thread(call::cpu_number()).expect("a thread"),
        act: |stage| {
            let control = Some(initial::CPU_CONTROL);
            call::thread_control(Handle(stage.handles[0]), ThreadOperation::Migrate, 1, control)
        },
        cpus: 2,
        ..OPERATION
    },
    Operation {
        name: "call a program for the first time",
        act: |stage| stage.tell(Call::Null, &[]),
        // It can't use its first page.
        errors: &[Error::NoMemory, Error::NoPeer],
        replica: PAGE,
        is_paid_by_tables: false,
        is_started: false,
        ..OPERATION
    },
    Operation {
        name: "call an endpoint for the first time",
        prepare: |stage| stage.handles[0] = stage.own_endpoint().0,
        act: |stage| call::call(Handle(stage.handles[0]), [0; 4]).map(|_| 0),
        is_paid_by_tables: false,
        ..OPERATION
    },
    Operation {
        name: "call an endpoint on another CPU for the first time",
        prepare: |stage| {
            let endpoint = stage.own_endpoint();
            let replica = call::create_replica(endpoint, 1, initial::CPU_CONTROL).expect("a replica");
            stage.handles[0] = stage.hand.keep(replica).0;
        },
        act: |stage| call::call(Handle(stage.handles[0]), [0; 4]).map(|_| 0),
        is_paid_by_tables: false,
        cpus: 2,
        replica: PAGE,
        ..OPERATION
    },
    Operation {
        name: "send a capability",
        prepare: |stage| {
            stage.hand.open_window(FAR);
            stage.hand.fill_table();
        },
        act: |stage| stage.send(&[Item::capability(initial::PORTS, Rights::ALL)]),
        ..OPERATION
    },
    Operation {
        name: "send a capability and pages",
        prepare: |stage| stage.hand.open_window(FAR),
        act: |stage| {
            let pages = Item::pages(initial::memory(0), 2, 2, Access::READ);
            stage.send(&[Item::capability(initial::PORTS, Rights::ALL), pages])
        },
        ..OPERATION
    },
    Operation {
        name: "get a capability with a reply",
        prepare: |stage| get_ready(stage, manner::REPLY),
        act: get,
        ..OPERATION
    },
    Operation {
        name: "get a capability with a later reply",
        prepare: |stage| get_ready(stage, manner::REPLY_LATER),
        act: get,
        ..OPERATION
    },
    Operation {
        name: "sleep",
        act: |stage| stage.tell(Call::Wait, &[0, call::now() + MILLISECOND]),
        errors: &[],
        ..OPERATION
    },
    Operation {
        name: "delete a capability",
        prepare: |stage| give(stage, initial::PORTS),
        act: |stage| stage.tell(Call::Delete, &[stage.handles[0]]),
        errors: &[],
        ..OPERATION
    },
];

/// What would end the hand's program ends its thread only.
fn end_by_exceptions(stage: &mut Stage) {
    let handler = stage.hand.keep(giver::in_manner(manner::END));
    let handler = stage.hand.give(handler);
    assert_eq!(stage.tell(Call::ThreadControl, &[0, ThreadOperation::Handler as u64, handler]), Ok(0));
}

fn get_ready(stage: &mut Stage, how: u64) {
    stage.hand.open_window(FAR);
    let server = stage.hand.keep(giver::in_manner(how));
    give(stage, server);
}

fn get(stage: &mut Stage) -> Result<u64, Error> {
    giver::get(|| stage.tell(Call::Call, &[stage.handles[0]]))
}
