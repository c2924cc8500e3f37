//! Services: what a client can ask a server for, described once.
//!
//! [`crate::interface!`] takes the description of a service and makes both sides from it: a client with a function
//! an operation, and a trait that the server implements, whose provided `dispatch` takes a message apart and calls
//! the function that was meant. Types say how they travel: [`Argument`] and [`Reply`].
//!
//! # On the wire
//!
//! Word 0 of a request is the operation's number (8 bits) and the slot of the client's window from bit 16 on; words
//! 1 to 3 are arguments. The label of a reply is 0, or the [`Errno`] of a refusal; its words are the value, and what
//! does not fit is in the slot ([`crate::window`]).

use abi::Handle;

use crate::call;
use crate::errno::Errno;
use crate::here;
use crate::window::{DATA, SLOT, Slot};

/// Where a slot's number stands in word 0.
pub const SLOT_SHIFT: u32 = 16;
/// The operation in word 0.
pub const OPERATION: u64 = 0xff;
/// The number of no service's operation: whoever started the server says that it can begin.
pub const BEGIN: u64 = 0xff;

/// Why a client got no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The kernel could not deliver the call, or the server died in it.
    Kernel(abi::Error),
    /// The server refused it.
    Refused(Errno),
}

/// What became of what a server was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was certainly not done.
    NotDone,
    /// The server died in it: it was done, or not, but no part of it alone.
    Unknown,
}

impl Failure {
    /// What became of the request, where the server was dead or died; `None` if there is another reason for the failure.
    #[must_use]
    pub const fn fate(self) -> Option<Fate> {
        match self {
            Self::Kernel(abi::Error::NoPeer) => Some(Fate::NotDone),
            Self::Kernel(abi::Error::PeerDied) => Some(Fate::Unknown),
            _ => None,
        }
    }
}

/// How long a client rests between two tries, in nanoseconds, and how often: a minute, without the time in which a server had the
/// request, which may have been any before it died.
const REST: u64 = 1_000_000;
const MOST_RESTS: u64 = 60_000;

fn repeat<R>(ask: &mut dyn FnMut() -> Result<R, Failure>, repeats: fn(Fate) -> bool) -> Result<R, Failure> {
    let mut rests = 0;
    loop {
        let answer = ask();
        let fate = answer.as_ref().err().and_then(|failure| match failure {
            // Right after its start a server's first workers are not ready yet.
            Failure::Kernel(abi::Error::NoWorker) => Some(Fate::NotDone),
            failure => failure.fate(),
        });
        match fate {
            Some(fate) if repeats(fate) && rests < MOST_RESTS => {
                rests += 1;
                if call::sleep_until(call::now() + REST).is_err() {
                    call::yield_now();
                }
            }
            _ => return answer,
        }
    }
}

/// Asks until the server, which may be dead and about to be started anew, has the request. It is asked once at most: where it
/// died in it, the failure says so.
///
/// # Errors
/// Those of `ask`.
pub fn until_served<R>(mut ask: impl FnMut() -> Result<R, Failure>) -> Result<R, Failure> {
    repeat(&mut ask, |fate| fate == Fate::NotDone)
}

/// Asks until there is an answer, also where the server died in it: for what may be done twice.
///
/// # Errors
/// Those of `ask`.
pub fn until_answered<R>(mut ask: impl FnMut() -> Result<R, Failure>) -> Result<R, Failure> {
    repeat(&mut ask, |_| true)
}

/// [`until_answered`] for what is refused with `also` where it was done before: as good as done, if it was asked more than once.
///
/// # Errors
/// Those of `ask`.
pub fn until_done(mut ask: impl FnMut() -> Result<(), Failure>, also: Errno) -> Result<(), Failure> {
    let mut asked = 0;
    let answer = until_answered(|| {
        asked += 1;
        ask()
    });
    match answer {
        Err(Failure::Refused(errno)) if asked > 1 && errno == also => Ok(()),
        answer => answer,
    }
}

/// What a server answers: a label, and words.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// 0, or the number of an [`Errno`].
    pub label: u64,
    /// The value.
    pub words: [u64; 4],
}

impl Answer {
    /// A refusal.
    #[must_use]
    #[inline(always)]
    pub const fn refused(why: Errno) -> Self {
        Self { label: why as u64, words: [0; 4] }
    }

    /// The result of an operation.
    #[inline(always)]
    pub fn of<R: Reply>(result: Result<R, Errno>, slot: Option<Slot>) -> Self {
        match result {
            Ok(value) => match value.put(slot) {
                Some(words) => Self { label: 0, words },
                None => Self::refused(Errno::Invalid),
            },
            Err(why) => Self::refused(why),
        }
    }
}

/// A request that is being put together.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    words: [u64; 4],
    used: usize,
    text: usize,
    slot: Slot,
}

impl Request {
    /// The request for operation `number` by the calling thread.
    #[inline(always)]
    #[must_use]
    pub fn new(number: u64) -> Self {
        let slot = here::get().slot;
        let word0 = number | u64::from(slot) << SLOT_SHIFT;
        Self { words: [word0, 0, 0, 0], used: 1, text: 0, slot: Slot::own(slot) }
    }

    /// Adds a word.
    #[inline(always)]
    pub fn word(&mut self, word: u64) {
        if let Some(place) = self.words.get_mut(self.used) {
            *place = word;
        }
        self.used += 1;
    }

    /// Sends it and takes the reply apart.
    ///
    /// # Errors
    /// [`Failure`].
    #[inline(always)]
    pub fn send<R: Reply>(self, endpoint: Handle) -> Result<R, Failure> {
        self.send_by(|words| call::call(endpoint, words))
    }

    /// The same, but gives up at `deadline` (nanoseconds of [`call::now`]).
    ///
    /// # Errors
    /// [`Failure`].
    pub fn send_until<R: Reply>(self, endpoint: Handle, deadline: u64) -> Result<R, Failure> {
        self.send_by(|words| call::call_until(endpoint, words, deadline))
    }

    /// The same by a call of another kind.
    #[inline(always)]
    pub(crate) fn send_by<R: Reply>(
        self,
        call: impl FnOnce([u64; 4]) -> Result<call::Message, abi::Error>,
    ) -> Result<R, Failure> {
        match call(self.words) {
            Ok(reply) if reply.first == 0 => Ok(R::take(reply.words, self.slot)),
            Ok(reply) => Err(Failure::Refused(Errno::from_number(reply.first))),
            Err(error) => Err(Failure::Kernel(error)),
        }
    }
}

/// The arguments of a request that came.
#[derive(Clone, Copy, Debug)]
pub struct Arguments {
    words: [u64; 4],
    used: usize,
    /// The slot that the client shares, where it has one.
    pub slot: Option<Slot>,
}

impl Arguments {
    /// Those of a message's words.
    #[inline(always)]
    #[must_use]
    pub const fn new(words: [u64; 4], slot: Option<Slot>) -> Self {
        Self { words, used: 1, slot }
    }

    /// The next word; 0 behind the last.
    #[inline(always)]
    pub fn word(&mut self) -> u64 {
        let word = self.words.get(self.used).copied().unwrap_or(0);
        self.used += 1;
        word
    }
}

/// What can be an argument of an operation: how the client gives it, and how the server takes it.
pub trait Argument {
    /// What the client's function takes.
    type Given<'a>;
    /// What the server's function takes.
    type Taken;

    /// Puts it into a request.
    fn give(given: Self::Given<'_>, request: &mut Request);

    /// Takes it from a request; `None` if it is malformed.
    fn take(arguments: &mut Arguments) -> Option<Self::Taken>;

    /// Why `take` has just taken nothing: asked then only, so that nobody else pays for the reason.
    #[cold]
    fn refusal(_: &Arguments) -> Errno {
        Errno::Invalid
    }
}

/// What can be the value of an operation.
pub trait Reply: Sized {
    /// Puts it into the words of a reply, and the slot; `None` if it needs a slot and the client has none.
    fn put(self, slot: Option<Slot>) -> Option<[u64; 4]>;

    /// Takes it from them.
    fn take(words: [u64; 4], slot: Slot) -> Self;
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Argument for $number {
            type Given<'a> = $number;
            type Taken = $number;

            #[inline(always)]
            fn give(given: $number, request: &mut Request) {
                request.word(given as u64);
            }

            #[inline(always)]
            fn take(arguments: &mut Arguments) -> Option<$number> {
                <$number>::try_from(arguments.word()).ok()
            }
        }

        impl Reply for $number {
            #[inline(always)]
            fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
                Some([self as u64, 0, 0, 0])
            }

            #[inline(always)]
            fn take(words: [u64; 4], _: Slot) -> $number {
                words[0] as $number
            }
        }
    )*};
}

numbers!(u64, u32, u16);

impl Reply for () {
    #[inline(always)]
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        Some([0; 4])
    }

    #[inline(always)]
    fn take(_: [u64; 4], _: Slot) {}
}

impl Argument for Handle {
    type Given<'a> = Handle;
    type Taken = Handle;

    #[inline(always)]
    fn give(given: Handle, request: &mut Request) {
        request.word(given.0);
    }

    #[inline(always)]
    fn take(arguments: &mut Arguments) -> Option<Handle> {
        Some(Handle(arguments.word()))
    }
}

impl Reply for Handle {
    #[inline(always)]
    fn put(self, _: Option<Slot>) -> Option<[u64; 4]> {
        Some([self.0, 0, 0, 0])
    }

    #[inline(always)]
    fn take(words: [u64; 4], _: Slot) -> Handle {
        Handle(words[0])
    }
}

/// Most bytes of a text.
pub const TEXT: usize = 1024;

/// A short text: a path, a name. The server gets a copy of its own.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    bytes: [u8; TEXT],
    length: usize,
}

impl Text {
    /// Its bytes.
    #[must_use]
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Argument for Text {
    type Given<'a> = &'a [u8];
    type Taken = Text;

    #[inline(always)]
    fn give(given: &[u8], request: &mut Request) {
        // What does not fit is cut by the slot; the length says so, and the server refuses it.
        request.slot.write(request.text, given.get(..TEXT).unwrap_or(given));
        request.word((request.text as u64) << 32 | given.len() as u64);
        request.text += TEXT;
    }

    #[inline(always)]
    fn take(arguments: &mut Arguments) -> Option<Text> {
        let word = arguments.word();
        let (offset, length) = ((word >> 32) as usize, (word & u64::from(u32::MAX)) as usize);
        let slot = arguments.slot?;
        if length > TEXT || offset > DATA - TEXT {
            return None;
        }
        let mut text = Text { bytes: [0; TEXT], length };
        slot.read(offset, &mut text.bytes[..length]);
        Some(text)
    }

    #[cold]
    fn refusal(arguments: &Arguments) -> Errno {
        let word = arguments.used.checked_sub(1).and_then(|last| arguments.words.get(last));
        let is_long = word.is_some_and(|word| (word & u64::from(u32::MAX)) as usize > TEXT);
        if is_long { Errno::NameTooLong } else { Errno::Invalid }
    }
}

/// Bytes in the data part of the caller's slot, as many as the argument says: for what is read or written. The
/// client fills the part before the call, or finds the data there after it ([`Slot::data`]).
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// Where they are, as the server sees it.
    pub start: *mut u8,
    /// How many.
    pub length: usize,
}

/// Most bytes of [`Data`].
pub const DATA_BYTES: usize = SLOT as usize - DATA;

impl Argument for Data {
    type Given<'a> = usize;
    type Taken = Data;

    #[inline(always)]
    fn give(given: usize, request: &mut Request) {
        request.word(given as u64);
    }

    #[inline(always)]
    fn take(arguments: &mut Arguments) -> Option<Data> {
        let length = arguments.word() as usize;
        if length > DATA_BYTES {
            return None;
        }
        Some(Data { start: arguments.slot?.data(), length })
    }
}
