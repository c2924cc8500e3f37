//! The file server: a file system in memory.
#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(target_os = "none", no_main)]

use rt::call::Message;
use rt::errno::Errno;
use rt::server::{Server, Turn};
use rt::service::Answer;
use rt::start::Block;
use smp::Cpu;

struct Files;

rt::server!(Files, 64);

impl Server for Files {
    type Replica = ();

    fn new(_: &'static Block) -> Self {
        Self
    }

    fn replica(&self, _: Cpu<'_>) {}

    fn serve(&self, _: &Turn<'_, Self>, _: Message) -> Answer {
        Answer::refused(Errno::NoOperation)
    }
}
