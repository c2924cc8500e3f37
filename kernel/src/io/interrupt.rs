//! Interrupts of devices: each is bound to a notification and to the CPU that takes it.
//!
//! After an interrupt came it does not come again before it was acknowledged (`Call` of its capability), so that a
//! driver that does not keep up is not overrun, and one that is preempted finds a device that waits. A line that its
//! device holds is masked at the I/O APIC until then. One that is signalled by a change must not be: a change while
//! it is masked would be lost. It is masked when it came a second time, which is remembered, as for messages, which
//! cannot be masked here at all.
//!
//! There are as many interrupts as vectors, so all of them stand in one table. Vectors mean the same on all CPUs.

use core::ptr;
use core::sync::atomic::Ordering;
use smp::CpuId;
use spin::Once;
use spin::mutex::SpinMutex;

use crate::arch::idt::vector::{DEVICES, FIRST_DEVICE};
use crate::arch::io_apic::{self, Line};
use crate::arch::smp::{APIC_IDS, cpu_numbered};
use crate::cap::{self, Capability};
use crate::cell::Cell;
use crate::ipc::notification::Notification;
use crate::object::{Header, Object, Tag};
use abi::interrupt::{ISA, MESSAGE};
use abi::{Error, Handle, Kind, Rights};

/// An interrupt, or the right to all of them.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Interrupt {
    header: Header,
    binding: SpinMutex<Option<Binding>>,
}

// SAFETY: `repr(C)` with the header first; all of them are static.
unsafe impl Object for Interrupt {
    const KIND: Kind = Kind::Interrupt;

    fn header(&self) -> &Header {
        &self.header
    }
}

/// Where an interrupt comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// A line of an I/O APIC.
    Line(Line),
    /// A device that writes a message.
    Message,
}

/// Whether an interrupt waits for being acknowledged.
#[derive(Debug)]
struct Flow {
    source: Source,
    is_unacknowledged: bool,
    came_again: bool,
}

/// Who wants an interrupt.
#[derive(Debug)]
struct Binding {
    tag: Tag,
    flow: Flow,
    cpu: CpuId,
    notification: &'static Notification,
    notification_tag: Tag,
    bits: u64,
}

impl Interrupt {
    const fn unbound() -> Self {
        Self { header: Header::new(Kind::Interrupt), binding: SpinMutex::new(None) }
    }

    /// Ends its binding, if it still has the one that `tag` names; true then.
    pub fn end(&self, tag: Tag) -> bool {
        let mut place = self.binding.lock();
        let is_it = place.as_ref().is_some_and(|binding| binding.tag == tag);
        if is_it {
            unbind(self, &mut place);
        }
        is_it
    }
}

/// By vector, from [`FIRST_DEVICE`] on.
static INTERRUPTS: [Interrupt; DEVICES] = [const { Interrupt::unbound() }; DEVICES];

/// The right to bind interrupts.
static ALL: Interrupt = Interrupt::unbound();
static ALL_TAG: Once<Tag> = Once::new();

/// Puts a capability to all interrupts into the table of `space`. Boot CPU.
pub fn insert_all(cell: &mut Cell, table: &cap::table::Table) -> Result<Handle, Error> {
    let tag = *ALL_TAG.call_once(|| ALL.header.revive());
    cap::insert(cell, table, &ALL, tag)
}

/// Which interrupt is to be bound, as `Create` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    source: Source,
    cpu: CpuId,
    bits: u64,
}

impl Wish {
    fn decode(source: u64, target: u64) -> Result<Self, Error> {
        const BIT_AT: u32 = 16;
        const NOTIFICATION_BITS: u64 = 63;
        let source = match source {
            MESSAGE => Source::Message,
            line if line & ISA != 0 => {
                Source::Line(io_apic::isa_line(line & !ISA).ok_or(Error::BadArgument)?)
            }
            line => Source::Line(io_apic::global_line(line).ok_or(Error::BadArgument)?),
        };
        let (cpu, bit) = (target & ((1 << BIT_AT) - 1), target >> BIT_AT);
        let Some(cpu) = cpu_numbered(cpu).filter(|_| bit < NOTIFICATION_BITS) else {
            return Err(Error::BadArgument);
        };
        Ok(Self { source, cpu, bits: 1 << bit })
    }
}

/// The APIC ID of `cpu`, if devices can reach it without an interrupt remapper: they name 8 bits of it.
fn destination(cpu: CpuId) -> Result<u8, Error> {
    u8::try_from(APIC_IDS[cpu.index()].load(Ordering::Relaxed)).map_err(|_| Error::BadArgument)
}

/// `Create(kind=Interrupt, all, source, notification, target)`: see [`abi::interrupt`].
pub fn create(cell: &mut Cell, [all, source, notification, target]: [u64; 4]) -> Result<Handle, Error> {
    let table = &cell.running().space.table;
    let (root, _) = cap::object::<Interrupt>(table, Handle(all), Rights::USE)?;
    if !ptr::eq(root, &ALL) {
        return Err(Error::WrongKind);
    }
    let wish = Wish::decode(source, target)?;
    let id = destination(wish.cpu)?;
    let capability = cap::lookup(table, Handle(notification))?;
    let notification = capability.object::<Notification>()?;
    if !capability.rights.contain(Rights::USE) {
        return Err(Error::NoRight);
    }
    let (index, tag) = bind(wish, notification, capability.tag)?;
    let interrupt = &INTERRUPTS[index];
    let handle = cap::insert_or_end(cell, table, interrupt, tag)?;
    if let Source::Line(line) = wish.source {
        io_apic::route(line, (FIRST_DEVICE as usize + index) as u8, id);
        io_apic::set_masked(line, false);
    }
    Ok(handle)
}

/// Only one CPU binds at a time, so that a line is bound once.
static BINDING: SpinMutex<()> = SpinMutex::new(());

/// Finds a vector for `wish`; returns its index and the interrupt's tag. A line is bound to one notification.
fn bind(
    wish: Wish,
    notification: &'static Notification,
    notification_tag: Tag,
) -> Result<(usize, Tag), Error> {
    let _one_at_a_time = BINDING.lock();
    let mut free = None;
    for (index, interrupt) in INTERRUPTS.iter().enumerate() {
        let mut place = interrupt.binding.lock();
        if place.as_ref().is_some_and(|binding| !binding.is_wanted()) {
            unbind(interrupt, &mut place);
        }
        match place.as_ref() {
            None => free = free.or(Some(index)),
            Some(binding) if binding.flow.is_line_of(wish.source) => return Err(Error::Busy),
            Some(_) => {}
        }
    }
    let index = free.ok_or(Error::NoMemory)?;
    let interrupt = &INTERRUPTS[index];
    let tag = interrupt.header.revive();
    *interrupt.binding.lock() = Some(Binding {
        tag,
        flow: Flow { source: wish.source, is_unacknowledged: false, came_again: false },
        cpu: wish.cpu,
        notification,
        notification_tag,
        bits: wish.bits,
    });
    Ok((index, tag))
}

/// Ends what `place`, that of `interrupt`, says.
fn unbind(interrupt: &Interrupt, place: &mut Option<Binding>) {
    if let Some(binding) = place.take() {
        binding.flow.set_masked(true);
        interrupt.header.kill(binding.tag);
    }
}

impl Binding {
    /// Whether the notification is still there.
    fn is_wanted(&self) -> bool {
        self.notification.header().tag() == self.notification_tag
    }
}

impl Flow {
    fn set_masked(&self, is_masked: bool) {
        if let Source::Line(line) = self.source {
            io_apic::set_masked(line, is_masked);
        }
    }

    /// Whether it is the line that `source` is; messages are many.
    fn is_line_of(&self, source: Source) -> bool {
        matches!(source, Source::Line(_)) && self.source == source
    }

    /// Takes note of an interrupt; true if the driver is to be told.
    fn came(&mut self) -> bool {
        if self.is_unacknowledged {
            self.set_masked(true);
            self.came_again = true;
            return false;
        }
        self.is_unacknowledged = true;
        if let Source::Line(Line { is_level: true, .. }) = self.source {
            self.set_masked(true);
        }
        true
    }

    /// Lets the interrupt come again; true if it came meanwhile and the driver is to be told now.
    fn acknowledge(&mut self) -> bool {
        let again = core::mem::take(&mut self.came_again);
        self.is_unacknowledged = again;
        self.set_masked(false);
        again
    }
}

/// An interrupt came to this CPU by `vector`, one of the devices'. The local APIC is told by the caller, afterwards.
pub fn arrived(cell: &mut Cell, vector: u64) {
    let Some(interrupt) = INTERRUPTS.get((vector - FIRST_DEVICE) as usize) else { return };
    cell.device_interrupts += 1;
    tell(cell, interrupt, Flow::came);
}

/// Changes the binding of `interrupt` by `change`, and tells the driver if that says so. Nobody may be told under the
/// lock: that can take long.
fn tell(cell: &mut Cell, interrupt: &Interrupt, change: impl FnOnce(&mut Flow) -> bool) {
    let mut place = interrupt.binding.lock();
    let Some(binding) = place.as_mut() else { return };
    if !binding.is_wanted() {
        return unbind(interrupt, &mut place);
    }
    let (is_told, notification, bits) = (change(&mut binding.flow), binding.notification, binding.bits);
    drop(place);
    if is_told {
        notification.notify(cell, bits);
    }
}

/// `Call` of an interrupt: it may come again.
pub fn acknowledge(cell: &mut Cell, capability: &Capability<'_>) -> Result<u64, Error> {
    let interrupt = usable(capability, Rights::USE)?;
    tell(cell, interrupt, Flow::acknowledge);
    Ok(0)
}

/// Ends the binding of an interrupt.
pub fn destroy(capability: &Capability<'_>) -> Result<u64, Error> {
    let is_ended = usable(capability, Rights::DESTROY)?.end(capability.tag);
    if is_ended { Ok(0) } else { Err(Error::Destroyed) }
}

/// What a device has to write for its interrupt to come, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Physical address.
    pub address: u64,
    /// Value.
    pub data: u64,
}

impl Message {
    /// The message by which the CPU with APIC ID `id` takes `vector` (Intel, SDM volume 3, 11.11).
    fn new(id: u8, vector: u64) -> Self {
        const LOCAL_APICS: u64 = 0xfee0_0000;
        const DESTINATION_AT: u32 = 12;
        Self { address: LOCAL_APICS | u64::from(id) << DESTINATION_AT, data: vector }
    }
}

/// The message of an interrupt that comes by one.
pub fn message(capability: &Capability<'_>) -> Result<Message, Error> {
    let interrupt = usable(capability, Rights::USE)?;
    let place = interrupt.binding.lock();
    let binding = place.as_ref().filter(|binding| binding.tag == capability.tag).ok_or(Error::Destroyed)?;
    if binding.flow.source != Source::Message {
        return Err(Error::WrongKind);
    }
    let index = INTERRUPTS.iter().position(|other| ptr::eq(other, interrupt)).ok_or(Error::WrongKind)?;
    Ok(Message::new(destination(binding.cpu)?, FIRST_DEVICE + index as u64))
}

/// The interrupt that `capability` names, if it is one that is bound and gives `rights`.
fn usable(capability: &Capability<'_>, rights: Rights) -> Result<&'static Interrupt, Error> {
    let interrupt = capability.object::<Interrupt>()?;
    if ptr::eq(interrupt, &ALL) {
        return Err(Error::WrongKind);
    }
    if capability.rights.contain(rights) { Ok(interrupt) } else { Err(Error::NoRight) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_the_cpu_in_its_address_and_the_vector_in_its_data() {
        assert_eq!(Message::new(0, 0x30), Message { address: 0xfee0_0000, data: 0x30 });
        assert_eq!(Message::new(0xfe, 0xdf), Message { address: 0xfeef_e000, data: 0xdf });
    }

    #[test]
    fn what_comes_unacknowledged_is_told_once_and_remembered_once() {
        let line = |is_level| Source::Line(Line { global: 5, is_level, is_low: false });
        for source in [Source::Message, line(false), line(true)] {
            let mut flow = Flow { source, is_unacknowledged: false, came_again: false };
            assert!(flow.came(), "the first is told");
            assert!(!flow.came() && !flow.came(), "others are not, before it is acknowledged");
            assert!(flow.acknowledge(), "they are told then, as one");
            assert!(!flow.came(), "which is to be acknowledged itself");
            assert!(flow.acknowledge());
            assert!(!flow.acknowledge(), "nothing is left");
            assert!(flow.came());
        }
    }

    #[test]
    fn a_line_is_bound_once_and_messages_often() {
        let line = Source::Line(Line { global: 5, is_level: true, is_low: true });
        let flow = |source| Flow { source, is_unacknowledged: false, came_again: false };
        assert!(flow(line).is_line_of(line) && !flow(line).is_line_of(Source::Message));
        assert!(!flow(Source::Message).is_line_of(Source::Message));
    }

    #[test]
    fn a_source_that_is_not_there_is_refused() {
        assert_eq!(Wish::decode(ISA | 16, 0), Err(Error::BadArgument));
        assert_eq!(Wish::decode(1 << 40, 0), Err(Error::BadArgument));
        assert_eq!(
            Wish::decode(MESSAGE, 63 << 16),
            Err(Error::BadArgument),
            "bit 63 would look like an error"
        );
        assert_eq!(Wish::decode(MESSAGE, 1), Err(Error::BadArgument), "this host's table has one CPU");
        let wish = Wish { source: Source::Message, cpu: CpuId::BOOT, bits: 1 << 62 };
        assert_eq!(Wish::decode(MESSAGE, 62 << 16), Ok(wish));
    }
}
