//! Pipes: bytes from one writer to one reader, in order, through a page that both have mapped.
//!
//! **Idea.** Each end keeps count of its bytes on a line of its own and reads the other's; so bytes pass without a call
//! of the kernel while there are some to read, or room to write. Who has to wait says so on its line, looks once more, and
//! waits for its *bell*, a notification, which the other end rings if it sees that said. Each side writes its own word and
//! then reads the other's, with a full fence between (Dekker), so that nobody is left waiting.
//!
//! **Trust.** The ends may be of different programs. What the other end writes is bytes and counts: a wrong count gives wrong
//! bytes, but reaches nothing outside the page. Who does not ring keeps the other one waiting.
//!
//! **Source.** L. Lamport, "Specifying Concurrent Program Modules", TOPLAS 1983 (the ring with a counter an end).
//!
//! **Cost.** A byte that somebody waits for: one `Notify`, one `Wait`. On two CPUs three lines move.

use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use abi::{Error, Handle, PAGE};
use crossbeam_utils::CachePadded;

use crate::call;

/// How long an end that nobody equipped yet rests between two looks, in nanoseconds.
const REST: u64 = 100_000;
const WORD: usize = size_of::<u64>();

/// One end's part of the page. Zeroes are its beginning.
#[derive(Debug)]
struct End {
    /// Bytes that it wrote, or read.
    count: AtomicU64,
    /// Whether it waits for its bell.
    waits: AtomicU32,
    /// Whether it is closed.
    is_closed: AtomicU32,
    /// Handles of its program: the bell that it waits for, and the other end's.
    bells: [AtomicU64; 2],
}

/// Bytes of a pipe that are on their way.
pub const CAPACITY: usize = PAGE as usize - 2 * size_of::<CachePadded<End>>();

/// What is in the page.
#[derive(Debug)]
#[repr(C)]
struct Ring {
    writer: CachePadded<End>,
    reader: CachePadded<End>,
    words: [AtomicU64; CAPACITY / WORD],
}

const _: () = assert!(size_of::<Ring>() == PAGE as usize && CAPACITY.is_multiple_of(WORD));

/// The notifications of one end, as its own program has them.
#[derive(Clone, Copy, Debug)]
pub struct Bells {
    /// It waits for this one. One thread may do that for all its pipes by one notification.
    pub own: Handle,
    /// It rings this one.
    pub other: Handle,
}

/// Which end of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// The one that writes.
    Writer,
    /// The one that reads.
    Reader,
}

/// A page with a pipe in it.
#[derive(Clone, Copy, Debug)]
pub struct Pipe(&'static Ring);

impl Pipe {
    /// The pipe in the page at `address`, which began with zeroes.
    ///
    /// # Safety
    /// The page is mapped there, readable and writable, for good, and whoever writes it besides this program does so as a
    /// pipe's end or not at the same time.
    #[must_use]
    pub const unsafe fn new(address: u64) -> Self {
        // SAFETY: mapped for good, by the caller; only atomics, all of whose values are valid; a page is aligned enough.
        Self(unsafe { &*(address as *const Ring) })
    }

    fn end(self, which: Which) -> &'static End {
        match which {
            Which::Writer => &self.0.writer,
            Which::Reader => &self.0.reader,
        }
    }

    /// Tells an end its bells. Whoever has that end waits until this is done.
    pub fn equip(self, which: Which, bells: Bells) {
        let [own, other] = &self.end(which).bells;
        other.store(bells.other.0, Ordering::Relaxed);
        own.store(bells.own.0, Ordering::Release);
    }

    /// The bells of an end, as soon as it has some.
    fn bells(self, which: Which) -> Bells {
        let [own, other] = &self.end(which).bells;
        loop {
            let handle = own.load(Ordering::Acquire);
            if handle != 0 {
                return Bells { own: Handle(handle), other: Handle(other.load(Ordering::Relaxed)) };
            }
            if call::sleep_until(call::now() + REST).is_err() {
                call::yield_now();
            }
        }
    }

    /// The end that writes; waits until it is equipped. One thread of one program asks, once.
    #[must_use]
    pub fn writer(self) -> Writer {
        Writer(Side { ring: self.0, bells: self.bells(Which::Writer), count: 0 })
    }

    /// The end that reads; as [`Pipe::writer`].
    #[must_use]
    pub fn reader(self) -> Reader {
        Reader(Side { ring: self.0, bells: self.bells(Which::Reader), count: 0 })
    }
}

/// What both ends have in common.
#[derive(Debug)]
struct Side {
    ring: &'static Ring,
    bells: Bells,
    /// This end's own count, which nobody else can change here.
    count: u64,
}

impl Side {
    /// Waits until `is_ready`, or until `other` is closed.
    #[inline]
    fn wait(&self, own: &End, other: &End, is_ready: impl Fn() -> bool) -> Result<(), Error> {
        while !is_ready() {
            own.waits.store(1, Ordering::Relaxed);
            // Pairs with the one in `tell`.
            fence(Ordering::SeqCst);
            if is_ready() || other.is_closed.load(Ordering::Acquire) != 0 {
                own.waits.store(0, Ordering::Relaxed);
                break;
            }
            call::wait(self.bells.own, 0)?;
        }
        Ok(())
    }

    /// Shows the new count, and rings if `other` waits.
    #[inline]
    fn tell(&self, own: &End, other: &End) {
        own.count.store(self.count, Ordering::Release);
        self.ring_bell(other);
    }

    #[inline]
    fn ring_bell(&self, other: &End) {
        fence(Ordering::SeqCst);
        if other.waits.load(Ordering::Relaxed) != 0 {
            other.waits.store(0, Ordering::Relaxed);
            // An end that is gone needs no bell.
            let _ = call::notify(self.bells.other, 1);
        }
    }

    fn close(&self, own: &End, other: &End) {
        own.is_closed.store(1, Ordering::Release);
        self.ring_bell(other);
    }

    /// Where the next `length` bytes are: so many in the first part, the rest at the ring's start.
    #[inline]
    fn places(&self, length: usize) -> [(*mut u8, usize); 2] {
        let start = self.ring.words.as_ptr().cast::<u8>().cast_mut();
        let offset = (self.count % CAPACITY as u64) as usize;
        let first = length.min(CAPACITY - offset);
        // SAFETY: within the words.
        [(unsafe { start.add(offset) }, first), (start, length - first)]
    }
}

/// The end that writes. It is closed when it is dropped.
#[derive(Debug)]
pub struct Writer(Side);

impl Writer {
    #[inline]
    fn room(&self) -> usize {
        let read = self.0.ring.reader.count.load(Ordering::Acquire);
        CAPACITY.saturating_sub(self.0.count.wrapping_sub(read) as usize)
    }

    /// Writes as many of `bytes` as there is room for; waits while there is none. Returns how many: none where `bytes` is
    /// empty, or the reader is closed.
    ///
    /// # Errors
    /// Those of [`call::wait`].
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let (own, other) = (&self.0.ring.writer, &self.0.ring.reader);
        if bytes.is_empty() || other.is_closed.load(Ordering::Relaxed) != 0 {
            return Ok(0);
        }
        self.0.wait(own, other, || self.room() > 0)?;
        let count = self.room().min(bytes.len());
        if count == 0 {
            return Ok(0);
        }
        let [(first, length), (second, rest)] = self.0.places(count);
        // SAFETY: within the page, and the bytes; the other end leaves these places alone, or is to blame for what it reads.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), first, length);
            ptr::copy_nonoverlapping(bytes.as_ptr().add(length), second, rest);
        }
        self.0.count += count as u64;
        self.0.tell(own, other);
        Ok(count)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.close(&self.0.ring.writer, &self.0.ring.reader);
    }
}

/// The end that reads. It is closed when it is dropped.
#[derive(Debug)]
pub struct Reader(Side);

impl Reader {
    #[inline]
    fn ready(&self) -> usize {
        let written = self.0.ring.writer.count.load(Ordering::Acquire);
        (written.wrapping_sub(self.0.count) as usize).min(CAPACITY)
    }

    /// Reads as many bytes as there are, to the end of `bytes`; waits while there are none. Returns how many: none where
    /// `bytes` is empty, or the writer is closed and everything was read.
    ///
    /// # Errors
    /// Those of [`call::wait`].
    #[inline]
    pub fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Error> {
        let (own, other) = (&self.0.ring.reader, &self.0.ring.writer);
        if bytes.is_empty() {
            return Ok(0);
        }
        self.0.wait(own, other, || self.ready() > 0)?;
        let count = self.ready().min(bytes.len());
        if count == 0 {
            return Ok(0);
        }
        let [(first, length), (second, rest)] = self.0.places(count);
        // SAFETY: within the page, and the bytes; the other end may write meanwhile, and any bytes will do.
        unsafe {
            ptr::copy_nonoverlapping(first, bytes.as_mut_ptr(), length);
            ptr::copy_nonoverlapping(second, bytes.as_mut_ptr().add(length), rest);
        }
        self.0.count += count as u64;
        self.0.tell(own, other);
        Ok(count)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.close(&self.0.ring.reader, &self.0.ring.writer);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec;
    use std::vec::Vec;

    #[repr(align(4096))]
    struct Page([u8; PAGE as usize]);

    /// Both ends of a pipe; its bells are never rung, since nobody waits here.
    fn pipe() -> (Writer, Reader) {
        let page = std::boxed::Box::leak(std::boxed::Box::new(Page([0; PAGE as usize])));
        // SAFETY: zeroes, there for good.
        let pipe = unsafe { Pipe::new(page.0.as_mut_ptr() as u64) };
        let bells = Bells { own: Handle(1), other: Handle(2) };
        pipe.equip(Which::Writer, bells);
        pipe.equip(Which::Reader, bells);
        (pipe.writer(), pipe.reader())
    }

    #[test]
    fn what_is_written_comes_out_in_order_however_it_is_cut() {
        let (mut writer, mut reader) = pipe();
        let sent: Vec<u8> = (0..100_000_u32).map(|number| ((number * 31) >> 3) as u8).collect();
        let mut came = Vec::new();
        let (mut written, mut length) = (0, 1);
        while came.len() < sent.len() {
            // What fits in any case, since nobody could wait.
            let room = CAPACITY - (written - came.len());
            let count = length.min(room).min(sent.len() - written);
            assert_eq!(writer.write(&sent[written..written + count]), Ok(count));
            written += count;
            let mut bytes = vec![0; (length * 7 % 1000 + 1).min(written - came.len()).max(1)];
            let count = reader.read(&mut bytes).unwrap();
            assert_eq!(count, bytes.len());
            came.extend_from_slice(&bytes);
            length = length * 13 % 3001 + 1;
        }
        assert!(came == sent);
    }

    #[test]
    fn no_more_is_taken_than_there_is_room_for() {
        let (mut writer, mut reader) = pipe();
        assert_eq!(writer.write(&[7; CAPACITY + 10]), Ok(CAPACITY));
        let mut all = [0; CAPACITY + 10];
        assert_eq!(reader.read(&mut all), Ok(CAPACITY));
        assert!(all.starts_with(&[7; CAPACITY]) && all.ends_with(&[0; 10]));
    }

    #[test]
    fn the_end_comes_after_the_last_byte_and_nobody_writes_to_a_closed_reader() {
        let (mut writer, mut reader) = pipe();
        assert_eq!(writer.write(b"last"), Ok(4));
        drop(writer);
        let mut bytes = [0; 8];
        assert_eq!((reader.read(&mut bytes), &bytes[..4]), (Ok(4), &b"last"[..]));
        assert_eq!(reader.read(&mut bytes), Ok(0));
        let (mut writer, reader) = pipe();
        drop(reader);
        assert_eq!(writer.write(b"late"), Ok(0));
    }

    #[test]
    fn a_wrong_count_of_the_other_end_reaches_nothing_outside_the_page() {
        let (writer, mut reader) = pipe();
        for count in [u64::MAX, u64::MAX / 2, 1 << 32, CAPACITY as u64 + 1] {
            writer.0.ring.writer.count.store(count, Ordering::Relaxed);
            let mut bytes = vec![0; 2 * CAPACITY];
            assert!(reader.read(&mut bytes).unwrap() <= CAPACITY);
        }
    }
}
