//! The memory server: regions of processes, and memory objects.
//!
//! A process is named by its number; 0 is the caller itself, and only servers may name others. Lengths and
//! addresses are in bytes and whole pages.

use abi::{Handle, Rights};
use rt::service::{Argument, Arguments, Failure, Request};

/// The name of an object: up to 16 bytes, filled up with zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub [u64; 2]);

impl Name {
    /// Bytes at most.
    pub const BYTES: usize = 16;

    /// The name with this text; `None` if that is empty or too long.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() {
            return None;
        }
        let mut bytes = [0; Self::BYTES];
        bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        let word = |at: usize| (at..at + 8).rev().fold(0, |word, index| word << 8 | u64::from(bytes[index]));
        Some(Self([word(0), word(8)]))
    }
}

impl Argument for Name {
    type Given<'a> = Self;
    type Taken = Self;

    fn give(given: Self, request: &mut Request) {
        given.0.into_iter().for_each(|word| request.word(word));
    }

    fn take(arguments: &mut Arguments) -> Option<Self> {
        Some(Self([arguments.word(), arguments.word()]))
    }
}

rt::interface! {
    /// Gives processes memory, and is the pager of all regions that it makes.
    Memory, MemoryClient {
        /// Takes notice of a process and its address space, whose handle is the memory server's. For root.
        1 admit(process: u64, space: Handle) -> ();
        /// Takes back all that a process had; its address space is at its end. For root.
        2 dismiss(process: u64) -> ();
        /// Makes a region of fresh memory, zeroed where it is first touched.
        3 anonymous(process: u64, address: u64, length: u64) -> ();
        /// Makes a memory object of so many pages, zeroed, for the process `owner`. Returns its number, which no other object
        /// has had before it for long: see [`rt::layout::OBJECT_PLACES`].
        4 create(owner: u64, pages: u64) -> u64;
        /// Makes a region that shows an object from its start; the upper half of `process_object` is the process,
        /// the lower the object.
        5 map(process_object: u64, address: u64, length: u64) -> ();
        /// Ends the region that begins at `address`; fresh memory in it is given back.
        6 release(process: u64, address: u64) -> ();
        /// A capability of the caller's to so many pages in one piece, for what maps memory itself. It is taken back
        /// when the process ends.
        7 contiguous(pages: u64) -> Handle;
        /// Pages that are neither in use nor set aside.
        8 free_pages() -> u64;
        /// Ends an object of the caller's. Regions that show it, and copies, keep its pages until they end. Where it is asked
        /// for again, it is refused with [`rt::errno::Errno::NoEntry`]: the number is never another object's by then.
        9 destroy(object: u64) -> ();
        /// Lets every process map an object of the caller's.
        10 share(object: u64) -> ();
        /// Lets a server see all its objects, and all windows, at [`rt::layout::OBJECTS`]. For root.
        11 show_objects(process: u64) -> ();
        /// Makes the window of a process, at [`rt::layout::WINDOW`]. Returns its object. For root.
        12 window(process: u64) -> u64;
        /// Takes back what was given in the region that begins at `address`: it is fresh again. For root.
        13 renew(process: u64, address: u64) -> ();
        /// The window of a process, for a server that is shown objects. Returns its object.
        14 window_of(process: u64) -> u64;
        /// The object of the caller's that comes behind `object`, the first one for 0; its window is none.
        15 next_object(object: u64) -> u64;
        /// Makes a copy of an object that the caller may map: a page that is not written in the copy is the original's, also as
        /// it is written there later. A copy is its maker's alone, and one region shows it at a time. Returns its number.
        16 copy(object: u64) -> u64;
        /// Gives an object of the caller's a name, by which every process finds and maps it. The name ends with the object.
        17 name(object: u64, name: Name) -> ();
        /// The object of this name.
        18 find(name: Name) -> u64;
        /// Makes an object of so many pages, each of which comes from a pager elsewhere when it is first touched: a fault on one
        /// is a call to that pager, on the faulting CPU, as [`abi::fault`] says; its badge is [`paged_badge`], its offset the
        /// page's in the object. The capability to the pager goes with the request: [`MemoryClient::paged_by`]. Servers are not
        /// shown such an object, and there are no copies of it. Returns its number.
        19 paged(pages: u64) -> u64;
        /// Makes `pages` pages of an object of the caller's, from its page `first` on, where they are not made yet: at most
        /// [`PROVIDED`]. Whoever touches them needs no memory for that any more. Where there is too little, that is refused with
        /// [`rt::errno::Errno::NoMemory`], and some of them may be made.
        20 provide(object: u64, first: u64, pages: u64) -> ();
    }
}

/// Most pages of one [`MemoryClient::provide`].
pub const PROVIDED: u64 = 64;

/// Pages that only servers take: of those that are free, programs, and contents that grow, leave so many.
pub const RESERVE: u64 = 2048;

/// The number of [`MemoryClient::paged`].
pub const PAGED: u64 = 19;
/// That of [`MemoryClient::renew`].
const RENEW: u64 = 13;

/// The badge of faults that a pager is asked to answer for the object of this number. Clients' badges are all lower.
#[must_use]
pub const fn paged_badge(object: u64) -> u64 {
    /// Of a region of the memory server's, and that its pages do not come from there.
    const ELSEWHERE: u64 = 1 << 63 | 3 << 60;
    ELSEWHERE | (object % rt::layout::OBJECT_PLACES)
}

impl MemoryClient {
    /// [`renew`](Self::renew) that gives up at `deadline` (nanoseconds of [`rt::call::now`]).
    ///
    /// # Errors
    /// [`Failure`].
    pub fn renew_until(&self, process: u64, address: u64, deadline: u64) -> Result<(), Failure> {
        let mut request = Request::new(RENEW);
        request.word(process);
        request.word(address);
        request.send_until(self.0, deadline)
    }

    /// [`paged`](Self::paged) by `pager`, an endpoint of the caller's, with the right to receive.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn paged_by(&self, pages: u64, pager: Handle) -> Result<u64, Failure> {
        let mut request = Request::new(PAGED);
        request.word(pages);
        rt::items::send(request, self.0, pager, Rights(Rights::USE.0 | Rights::RECEIVE.0))
    }
}
