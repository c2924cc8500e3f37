//! The least server: answers a word with the next one. Its workers start at the program's entry point.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use rt::call::{self, Message};

rt::server!(serve);

fn serve(mut message: Message) -> ! {
    loop {
        let [word, ..] = message.words;
        match call::reply_wait(0, [word.wrapping_add(1), 0, 0, 0]) {
            Ok(next) => message = next,
            Err(_) => call::exit(1),
        }
    }
}
