//! System calls, one function each; `abi` documents them.

use core::sync::atomic::AtomicU32;

use abi::{Buffer, Call, Error, Fact, Handle, ITEMS, Kind, Rights, ThreadOperation};

/// Makes a system call without a message.
#[inline(always)]
pub(crate) fn raw<const N: usize>(call: Call, arguments: [u64; N]) -> Result<u64, Error> {
    let mut all = [0; 6];
    all[..N].copy_from_slice(&arguments);
    abi::decode(raw_number(call as u64, all))
}

/// Makes the system call of this number, which need not exist; returns the result register.
#[inline(always)]
pub fn raw_number(number: u64, [first, second, third, fourth, fifth, sixth]: [u64; 6]) -> u64 {
    let result;
    // SAFETY: the kernel checks all it is given, reads and writes no memory of ours but what the arguments
    // name, and keeps the registers that are not listed here.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            inlateout("rdi") first => _,
            inlateout("rsi") second => _,
            inlateout("rdx") third => _,
            inlateout("r10") fourth => _,
            inlateout("r8") fifth => _,
            inlateout("r9") sixth => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    result
}

/// A message as it comes: what the other side said first (a label or a badge), and its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Label of a reply; badge of the capability that a call was made by.
    pub first: u64,
    /// The words.
    pub words: [u64; 4],
    /// How many items came with it; the receiver's message buffer has what of each.
    pub items: u64,
}

#[inline(always)]
fn exchange(call: Call, first: u64, words: [u64; 4], deadline: u64) -> Result<Message, Error> {
    let [mut word0, mut word1, mut word2, mut word3] = words;
    let (result, came): (u64, u64);
    // SAFETY: as in `raw_number`.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") call as u64 => result,
            inlateout("rdi") first => came,
            inlateout("rsi") word0,
            inlateout("rdx") word1,
            inlateout("r10") word2,
            inlateout("r8") word3,
            inlateout("r9") deadline => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    abi::decode(result).map(|items| Message { first: came, words: [word0, word1, word2, word3], items })
}

/// Enters the kernel and comes back.
#[inline(always)]
pub fn null() -> Result<u64, Error> {
    raw(Call::Null, [])
}

/// Writes a line of at most 256 bytes.
pub fn log(text: &[u8]) -> Result<(), Error> {
    raw(Call::Log, [text.as_ptr() as u64, text.len() as u64]).map(drop)
}

/// Calls a server on this CPU; returns the label and words of its reply.
#[inline(always)]
pub fn call(endpoint: Handle, words: [u64; 4]) -> Result<Message, Error> {
    exchange(Call::Call, endpoint.0, words, 0)
}

/// The same, but gives up at `deadline` (nanoseconds of [`now`]).
pub fn call_until(endpoint: Handle, words: [u64; 4], deadline: u64) -> Result<Message, Error> {
    exchange(Call::Call, endpoint.0, words, deadline)
}

/// A worker's reply and its wait for the next call; returns badge and words of that.
#[inline(always)]
pub fn reply_wait(label: u64, words: [u64; 4]) -> Result<Message, Error> {
    exchange(Call::ReplyWait, label, words, 0)
}

/// [`call_until`] with the items that this thread's message buffer lists.
pub fn call_with_items(endpoint: Handle, words: [u64; 4], deadline: u64) -> Result<Message, Error> {
    exchange(Call::Call, endpoint.0, words, deadline | ITEMS)
}

/// [`reply_wait`] with the items that this thread's message buffer lists. If they can't be given, the worker still has
/// its caller.
pub fn reply_wait_with_items(label: u64, words: [u64; 4]) -> Result<Message, Error> {
    exchange(Call::ReplyWait, label | ITEMS, words, 0)
}

/// Makes `buffer` the calling thread's message buffer.
///
/// # Safety
/// It stays where it is and is this thread's alone, until the thread ends or has another one; what its window names may
/// be written by the kernel whenever the thread receives a message.
pub unsafe fn set_buffer(buffer: *mut Buffer) -> Result<(), Error> {
    raw(Call::ThreadControl, [0, ThreadOperation::Buffer as u64, buffer as u64]).map(drop)
}

/// Adds bits to a notification.
pub fn notify(notification: Handle, bits: u64) -> Result<(), Error> {
    raw(Call::Notify, [notification.0, bits]).map(drop)
}

/// Takes the bits of a notification, waiting until there are some or until `deadline` (nanoseconds, 0 never).
pub fn wait(notification: Handle, deadline: u64) -> Result<u64, Error> {
    raw(Call::Wait, [notification.0, deadline])
}

/// A number that the kernel tells about the machine or the caller; 0 if it does not.
#[must_use]
pub fn fact(what: Fact) -> u64 {
    raw(Call::Info, [what as u64]).unwrap_or_default()
}

/// What the caller has in slot `slot` of CPU `cpu`'s part of its table: see [`Fact::OwnCapability`].
pub fn own_capability(cpu: u32, slot: u32) -> Result<(Handle, Option<Kind>), Error> {
    let place = Handle::new(cpu, slot, 0);
    let found = raw(Call::Info, [Fact::OwnCapability as u64, place.0])?;
    Ok((Handle(found & ((1 << Handle::BITS) - 1)), Kind::from_number(found >> Handle::BITS)))
}

/// Number of the CPU that the caller runs on.
#[must_use]
pub fn cpu_number() -> u32 {
    fact(Fact::CpuNumber) as u32
}

/// CPUs of the machine.
#[must_use]
pub fn cpu_count() -> u32 {
    fact(Fact::CpuCount) as u32
}

/// Nanoseconds since boot.
#[must_use]
pub fn now() -> u64 {
    fact(Fact::Time)
}

/// Lets other ready threads of this CPU run first.
pub fn yield_now() {
    // Yielding has no error.
    let _ = raw(Call::Yield, []);
}

/// Sleeps until `deadline` (nanoseconds of [`now`]).
pub fn sleep_until(deadline: u64) -> Result<(), Error> {
    raw(Call::Wait, [0, deadline]).map(drop)
}

/// Makes an endpoint of the program `space`: workers start at `entry`, with stacks of `stack_size` bytes (below
/// 4 GiB) from `stacks` on, `workers` a CPU.
///
/// # Safety
/// That memory is used for nothing else, and is enough for all CPUs.
pub unsafe fn create_endpoint(
    space: Handle,
    entry: u64,
    stacks: u64,
    stack_size: u64,
    workers: u32,
) -> Result<Handle, Error> {
    let shape = stack_size | u64::from(workers) << 32;
    let arguments = [Kind::Endpoint as u64, space.0, entry, stacks, shape];
    raw(Call::Create, arguments).map(Handle)
}

/// Derives from `endpoint` a capability to its replica on `cpu`: calls by it are served there, wherever they are made. They
/// carry no items. `control` is the right to place threads.
pub fn create_replica(endpoint: Handle, cpu: u32, control: Handle) -> Result<Handle, Error> {
    raw(Call::Create, [Kind::Replica as u64, endpoint.0, cpu.into(), control.0]).map(Handle)
}

/// Makes a notification.
pub fn create_notification() -> Result<Handle, Error> {
    raw(Call::Create, [Kind::Notification as u64]).map(Handle)
}

/// Destroys an object.
pub fn destroy(handle: Handle) -> Result<(), Error> {
    raw(Call::Destroy, [handle.0]).map(drop)
}

/// Derives a capability with some of the rights of another and a badge.
pub fn mint(handle: Handle, rights: Rights, badge: u64) -> Result<Handle, Error> {
    raw(Call::Mint, [handle.0, rights.0.into(), badge]).map(Handle)
}

/// Gives up a capability and all derived from it.
pub fn delete(handle: Handle) -> Result<(), Error> {
    raw(Call::Delete, [handle.0]).map(drop)
}

/// Takes back all capabilities derived from this one.
pub fn revoke(handle: Handle) -> Result<(), Error> {
    raw(Call::Revoke, [handle.0]).map(drop)
}

/// Where a thread runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// CPU.
    pub cpu: u32,
    /// Priority; higher runs first.
    pub priority: u8,
}

/// Starts a thread of this program at `entry` with `argument`, its stack ending at `stack`. `control` is a
/// CPU control capability where the placement is not the caller's own CPU and at most its priority.
///
/// # Safety
/// `stack` is the end of memory that only the new thread uses, 8 below a multiple of 16.
pub unsafe fn thread_create(
    placement: Placement,
    entry: extern "C" fn(u64) -> !,
    stack: *mut u8,
    argument: u64,
    control: Option<Handle>,
) -> Result<Handle, Error> {
    let place = u64::from(placement.cpu) | u64::from(placement.priority) << 16;
    let control = control.map_or(0, |handle| handle.0);
    let arguments = [0, place, entry as usize as u64, stack as u64, argument, control];
    raw(Call::ThreadCreate, arguments).map(Handle)
}

/// Starts a thread of the program `space` at `entry`, its stack ending at `stack`, with one word; otherwise as
/// [`thread_create`].
pub fn thread_create_in(
    space: Handle,
    placement: Placement,
    [entry, stack, argument]: [u64; 3],
    control: Handle,
) -> Result<Handle, Error> {
    let place = u64::from(placement.cpu) | u64::from(placement.priority) << 16;
    raw(Call::ThreadCreate, [space.0, place, entry, stack, argument, control.0]).map(Handle)
}

/// Ends the calling thread.
pub fn thread_exit(status: u64) -> ! {
    let _ = raw(Call::ThreadExit, [status]);
    unreachable!("the kernel does not return from ThreadExit")
}

/// Waits for the end of a thread of this CPU; returns its status.
pub fn join(thread: Handle, deadline: u64) -> Result<u64, Error> {
    raw(Call::Join, [thread.0, deadline])
}

/// Ends the program; 0 is success.
pub fn exit(status: u64) -> ! {
    loop {
        let _ = raw(Call::Exit, [status]);
    }
}

/// Copies a capability into the table of the program `space`, with some of its rights. Returns its handle there.
pub fn grant(handle: Handle, space: Handle, rights: Rights) -> Result<Handle, Error> {
    raw(Call::Grant, [handle.0, space.0, rights.0.into()]).map(Handle)
}

/// The same with another badge, which is not 0: who holds it is known by that.
pub fn grant_badged(handle: Handle, space: Handle, rights: Rights, badge: u64) -> Result<Handle, Error> {
    raw(Call::Grant, [handle.0, space.0, rights.0.into(), badge]).map(Handle)
}

/// Does something with a thread, on whatever CPU it is. `control` is a CPU control capability, needed to move a
/// thread and to give it a priority above the caller's.
pub fn thread_control(
    thread: Handle,
    operation: ThreadOperation,
    value: u64,
    control: Option<Handle>,
) -> Result<u64, Error> {
    let control = control.map_or(0, |handle| handle.0);
    raw(Call::ThreadControl, [thread.0, operation as u64, value, control])
}

/// Waits at `word`, if it has the value `expected`, until somebody of this program wakes it there or until `deadline`
/// (nanoseconds, 0 never). [`Error::Changed`]: it has another value.
pub fn address_wait(word: &AtomicU32, expected: u32, deadline: u64) -> Result<(), Error> {
    raw(Call::AddressWait, [word.as_ptr() as u64, expected.into(), deadline]).map(drop)
}

/// Wakes at most `count` threads of this program that wait at `word`; returns how many.
pub fn address_wake(word: &AtomicU32, count: u32) -> u64 {
    raw(Call::AddressWake, [word.as_ptr() as u64, count.into()]).unwrap_or_default()
}

/// Makes a reply capability from the caller that this worker serves; the worker has no caller then, and its next
/// [`reply_wait`] only waits.
pub fn create_reply() -> Result<Handle, Error> {
    raw(Call::Create, [Kind::Reply as u64]).map(Handle)
}

/// Replies to the caller that a reply capability stands for; the capability is gone then.
pub fn reply(to: Handle, label: u64, words: [u64; 4]) -> Result<(), Error> {
    exchange(Call::Call, to.0, words, label).map(drop)
}
