//! Where a program and its threads start, and what it is given.

use abi::Handle;

use crate::call::{self, Message};
use crate::here::{self, Here};
use crate::layout::START_BLOCK;

/// What whoever starts a program gives it, in a page of its own at [`START_BLOCK`], read-only.
#[derive(Debug)]
#[repr(C)]
pub struct Block {
    /// The process's number, which is its badge at every server.
    pub process: u64,
    /// CPUs of the machine.
    pub cpus: u32,
    /// The CPU that its first thread is on.
    pub cpu: u32,
    /// How often it was started anew; servers only.
    pub restarts: u64,
    /// The server of memory.
    pub memory: Handle,
    /// The file server.
    pub files: Handle,
    /// The server of processes, which is also the name service.
    pub processes: Handle,
    /// The right to place threads on CPUs; 0 where it was not given.
    pub cpu_control: Handle,
    /// A server's own endpoint, with all rights; 0 where it was not given.
    pub endpoint: Handle,
    /// Memory that it was given, up to the first 0.
    pub ranges: [Handle; abi::initial::MEMORY_RANGES as usize],
    /// Words for the program itself.
    pub words: [u64; 4],
    /// Bytes of `text`.
    pub text_length: u32,
    /// Its arguments, as text.
    pub text: [u8; Self::TEXT],
    /// Capabilities that whoever started it let it have, in the order in which they were named; then zeroes.
    pub inherited: [Handle; Self::INHERITED],
}

impl Block {
    /// Most bytes of the arguments.
    pub const TEXT: usize = 2048;

    /// Most capabilities that a program inherits.
    pub const INHERITED: usize = 8;

    /// That of nobody.
    pub const NOTHING: Self = Self {
        process: 0,
        cpus: 0,
        cpu: 0,
        restarts: 0,
        memory: Handle(0),
        files: Handle(0),
        processes: Handle(0),
        cpu_control: Handle(0),
        endpoint: Handle(0),
        ranges: [Handle(0); abi::initial::MEMORY_RANGES as usize],
        words: [0; 4],
        text_length: 0,
        text: [0; Self::TEXT],
        inherited: [Handle(0); Self::INHERITED],
    };

    /// The arguments as text.
    #[must_use]
    pub fn text(&self) -> &str {
        let bytes = self.text.get(..self.text_length as usize).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

const _: () = assert!(size_of::<Block>() <= abi::PAGE as usize);

/// The program's start block. Only programs that the server of processes started have one.
#[must_use]
pub fn block() -> &'static Block {
    // SAFETY: mapped read-only at this place before the program starts, for as long as it lives; any bytes are a
    // valid block.
    unsafe { &*(START_BLOCK as *const Block) }
}

/// What a program's first thread does before anything else. `cpu` is the CPU that it is on.
#[doc(hidden)]
pub fn begin(cpu: u32) {
    here::set(Here { cpu, slot: 0 });
}

/// The operation by which a process tells the server of processes how it ends.
pub const ENDING: u64 = 4;

/// Ends a program that the server of processes started; 0 is success.
pub fn end(status: u64) -> ! {
    let mut request = crate::service::Request::new(ENDING);
    request.word(status);
    // Who can't tell ends all the same, and its parent takes it for a failure.
    let _: Result<(), _> = crate::service::until_answered(|| request.send(block().processes));
    crate::call::exit(status)
}

/// Makes `$main`, an `fn([u64; 3])` of the words that the kernel starts the first program with, its start. The
/// program ends with success when `$main` returns.
#[macro_export]
macro_rules! program {
    ($main:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main(first: u64, second: u64, third: u64) -> ! {
            let main: fn([u64; 3]) = $main;
            main([first, second, third]);
            $crate::call::exit(0)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn([u64; 3]) = $main;
        }
    };
}

/// Makes `$main`, an `fn(&'static Block)`, the start of a program that the server of processes starts. The
/// program ends with success when `$main` returns.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main() -> ! {
            let main: fn(&'static $crate::start::Block) = $main;
            let block = $crate::start::block();
            $crate::start::begin(block.cpu);
            main(block);
            $crate::start::end(0)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn(&'static $crate::start::Block) = $main;
        }
    };
}

// The first instructions: a stack on which a function can be called, and an end to backtraces.
#[cfg(target_os = "none")]
core::arch::global_asm!(
    ".global _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call program_main",
    "ud2",
);

/// Makes `$entry`, the address at which workers of an endpoint start, from `$serve`, an
/// `fn(Message) -> !` that is given the first message and waits for the others itself. `$prepare`, a `fn()`, is called
/// before the worker waits for its first message.
#[macro_export]
macro_rules! worker {
    ($entry:ident, $serve:path) => {
        $crate::worker!($entry, $serve, (|| ()));
    };
    ($entry:ident, $serve:path, $prepare:expr) => {
        extern "C" fn $entry() -> ! {
            $crate::start::serve($prepare, $serve)
        }
    };
}

/// What a worker does: prepares itself, waits for its first message, and serves.
pub fn serve(prepare: fn(), serve: fn(Message) -> !) -> ! {
    prepare();
    match call::reply_wait(0, [0; 4]) {
        Ok(first) => serve(first),
        Err(_) => call::thread_exit(1),
    }
}

/// Makes `$serve`, an `fn(Message) -> !`, the start of a program that has no thread but workers, without the
/// framework of [`mod@crate::server`]. `$prepare` as in [`worker!`].
#[macro_export]
macro_rules! raw_server {
    ($serve:path, $prepare:expr) => {
        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main() -> ! {
            $crate::start::serve($prepare, $serve)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn($crate::call::Message) -> ! = $serve;
            let _: fn() = $prepare;
        }
    };
}

/// Makes `$Server`, a [`crate::server::Server`], the program: it has no thread but the workers of its endpoint.
/// `$entries` is how many clustered objects it may have at a time.
#[macro_export]
macro_rules! server {
    ($Server:ty, $entries:expr) => {
        static SERVER: $crate::server::Place<$Server, $entries> = $crate::server::Place::new();

        #[cfg(target_os = "none")]
        #[unsafe(no_mangle)]
        extern "C" fn program_main() -> ! {
            $crate::server::work(&SERVER)
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn(&'static $crate::server::Place<$Server, $entries>) -> ! = $crate::server::work;
        }
    };
}
