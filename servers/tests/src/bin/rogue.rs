//! A server that does what its caller tells it, good or bad: the first word of a message is one of the
//! commands that `ill_will` has, too.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use abi::Handle;
use rt::call::{self, Message};

rt::server!(serve);

fn serve(mut message: Message) -> ! {
    loop {
        let [command, word, ..] = message.words;
        let answer = match command {
            0 => word + 1,
            1 => spin_until(word),
            // SAFETY: none: it is meant to fault.
            2 => unsafe { core::ptr::read_volatile(0x10 as *const u64) },
            3 => call::sleep_until(word).map_or(0, |()| word),
            4 => call::thread_exit(0),
            5 => call_back(Handle(word)),
            _ => call::exit(9),
        };
        match call::reply_wait(command, [answer, 0, 0, 0]) {
            Ok(next) => message = next,
            Err(_) => call::exit(1),
        }
    }
}

fn spin_until(time: u64) -> u64 {
    while call::now() < time {
        core::hint::spin_loop();
    }
    time
}

fn call_back(endpoint: Handle) -> u64 {
    match call::call(endpoint, [0; 4]) {
        Ok(reply) => reply.words[0],
        Err(error) => error.to_raw(),
    }
}
