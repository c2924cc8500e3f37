//! What clients do, and what they know: whatever was acknowledged must be so, also when the server ended meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use api::badge::ROOT;
use api::memory::Name;
use rt::errno::Errno;

use super::crash;
use super::world::{CPUS, OWN, PAGES, Server, World, begin, space_of, touch};
use crate::object::{Made, Sharing};
use crate::operations::Caller;
use crate::region::{Kind, Shape};

/// One thing that a client does. `which` is a client's own name of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Admit(u64),
    Anonymous(u64, u64, u64),
    Create(u64, usize, u64),
    Copy(u64, usize, usize),
    /// Pages of an object are made: the first, and how many.
    Provide(u64, usize, u64, u64),
    Name(u64, usize, &'static str),
    Find(&'static str, usize),
    Map(u64, usize, u64, u64),
    Release(u64, u64),
    Destroy(u64, usize),
    /// Of an object that was ended by [`Step::Destroy`], whoever has its place now.
    DestroyAgain(u64, usize),
    Renew(u64, u64),
    Contiguous(u64, u64),
    Window(u64),
    Dismiss(u64),
    /// A store, which the program sees from then on.
    Write(u64, u64, u64),
    /// A load, which sees this.
    Read(u64, u64, u64),
    /// An access that is an error of the program.
    Fail(u64, u64),
}

/// The server, and what its clients know.
pub struct Play {
    pub world: &'static World,
    pub server: Server,
    cpu: u32,
    objects: BTreeMap<usize, u64>,
    /// Objects that were ended.
    ended: BTreeMap<usize, u64>,
    /// Regions that were acknowledged, and whether they are of fresh memory: length.
    regions: BTreeMap<(u64, u64), (u64, bool)>,
    /// What was written in pages that are mapped.
    written: BTreeMap<(u64, u64), u64>,
    /// Steps of the lives to come; the last one does not end.
    pub lives: Vec<u64>,
    /// The step that was asked for last got no answer.
    is_again: bool,
}

/// What an earlier life did before it ended is as good where it is asked for again.
fn done<R: Default>(result: Result<R, Errno>, is_again: bool, also: Errno) -> Result<R, Errno> {
    match result {
        Err(errno) if is_again && errno == also => Ok(R::default()),
        result => result,
    }
}

impl Play {
    /// The first life, and the steps of each.
    pub fn new(world: &'static World, mut lives: Vec<u64>) -> Self {
        let server = loop {
            crash::live_for(lives.pop());
            if let Some(server) = begin(world) {
                break server;
            }
        };
        Self::of(world, server, 0, lives)
    }

    /// Does a step, whatever becomes of the server; each on the other CPU.
    pub fn run(&mut self, step: Step) {
        self.cpu = (self.cpu + 1) % CPUS;
        let mut is_again = false;
        while self.ask(step, is_again).is_none() {
            self.restart();
            is_again = true;
        }
    }

    /// Starts the server anew until it lives.
    pub fn restart(&mut self) {
        self.server = loop {
            crash::live_for(self.lives.pop());
            if let Some(server) = begin(self.world) {
                break server;
            }
        };
        self.check();
    }

    /// Clients of CPU `cpu` alone, of the same server.
    pub fn on(&self, cpu: u32) -> Self {
        Self::of(self.world, self.server.clone(), cpu, Vec::new())
    }

    fn of(world: &'static World, server: Server, cpu: u32, lives: Vec<u64>) -> Self {
        let (objects, ended) = (BTreeMap::new(), BTreeMap::new());
        let (regions, written) = (BTreeMap::new(), BTreeMap::new());
        Self { world, server, cpu, objects, ended, regions, written, lives, is_again: false }
    }

    /// Does a step; false if the server ended in it.
    pub fn try_here(&mut self, step: Step) -> bool {
        self.is_again = self.ask(step, self.is_again).is_none();
        !self.is_again
    }

    /// The server was started anew.
    pub fn go_on_with(&mut self, other: &Self) {
        self.server = other.server.clone();
    }

    fn object(&self, which: usize) -> u64 {
        self.objects.get(&which).copied().unwrap_or_default()
    }

    fn forget(&mut self, process: u64, start: u64) {
        if let Some((length, _)) = self.regions.remove(&(process, start)) {
            self.written.retain(|&(of, page), _| of != process || !(start..start + length).contains(&page));
        }
    }

    fn ask(&mut self, step: Step, is_again: bool) -> Option<()> {
        let (server, replica) = (&self.server, self.world.replica_of(self.cpu));
        let caller = |process| Caller { process, replica };
        match step {
            Step::Admit(process) => {
                crash::serve(|| server.admit(process, space_of(process)))?.expect("a process");
            }
            Step::Anonymous(process, start, pages) => {
                let length = pages * abi::PAGE;
                let shape = Shape { kind: Kind::Anonymous, process, object: 0, start, length };
                let made = crash::serve(|| server.make_region(caller(process), shape))?;
                done(made, is_again, Errno::Exists).expect("a region");
                self.regions.insert((process, start), (length, true));
            }
            Step::Create(owner, which, pages) => {
                let made = Made { owner, pages, sharing: Sharing::Own, original: 0, pager: 0 };
                let made = crash::serve(|| server.make_object(caller(owner), &made))?;
                self.objects.insert(which, made.expect("an object"));
            }
            Step::Copy(process, which, original) => {
                let original = self.object(original);
                let made = crash::serve(|| server.copy(caller(process), original))?;
                self.objects.insert(which, made.expect("a copy"));
            }
            Step::Name(process, which, name) => {
                let (number, name) = (self.object(which), Name::new(name).unwrap());
                crash::serve(|| server.name(caller(process), number, name))?.expect("a name");
            }
            Step::Find(name, which) => {
                let found = crash::serve(|| server.find(Name::new(name).unwrap()))?;
                let object = self.object(which);
                let wanted = if object == 0 { Err(Errno::NoEntry) } else { Ok(object) };
                assert_eq!(found, wanted, "the object of the name");
            }
            Step::Map(process, which, start, pages) => {
                let (number, length) = (self.object(which), pages * abi::PAGE);
                let made = crash::serve(|| server.map(caller(process), process, number, start, length))?;
                // A copy is shown by the region that was asked for.
                let made = done(made, is_again, Errno::Busy);
                done(made, is_again, Errno::Exists).expect("a region of an object");
                self.regions.insert((process, start), (length, false));
            }
            Step::Release(process, start) => {
                self.forget(process, start);
                let released = crash::serve(|| self.server.release(caller(process), process, start))?;
                done(released, is_again, Errno::Invalid).expect("its end");
            }
            _ => return self.ask_more(step, is_again),
        }
        Some(())
    }

    fn ask_more(&mut self, step: Step, is_again: bool) -> Option<()> {
        let replica = self.world.replica_of(self.cpu);
        let caller = |process| Caller { process, replica };
        match step {
            Step::Destroy(process, which) => {
                let number = self.object(which);
                let ended = crash::serve(|| self.server.destroy(caller(process), number))?;
                done(ended, is_again, Errno::NoEntry).expect("the object's end");
                self.objects.remove(&which);
                self.ended.insert(which, number);
            }
            Step::DestroyAgain(process, which) => {
                let number = self.ended[&which];
                let ended = crash::serve(|| self.server.destroy(caller(process), number))?;
                assert_eq!(ended, Err(Errno::NoEntry), "object {number} is gone");
            }
            Step::Provide(process, which, first, count) => {
                let number = self.object(which);
                let made = crash::serve(|| self.server.provide(caller(process), number, first, count))?;
                made.expect("pages of an object");
            }
            Step::Renew(process, start) => {
                let region = self.regions[&(process, start)];
                self.forget(process, start);
                self.regions.insert((process, start), region);
                crash::serve(|| self.server.renew(caller(ROOT), process, start))?.expect("fresh memory");
            }
            Step::Contiguous(process, pages) => {
                crash::serve(|| self.server.contiguous(caller(process), pages))?.expect("a piece");
            }
            Step::Window(process) => {
                let number = crash::serve(|| self.server.window(caller(ROOT), process))?.expect("a window");
                let found = crash::serve(|| self.server.window_of(ROOT, process))?;
                assert_eq!(found, Ok(number), "root is told the window");
            }
            Step::Dismiss(process) => {
                self.regions.retain(|&(of, _), _| of != process);
                self.written.retain(|&(of, _), _| of != process);
                self.world.kernel.lock().unwrap().end_space(space_of(process).0);
                crash::serve(|| self.server.dismiss(caller(ROOT), process))?.expect("its end");
            }
            Step::Write(process, address, value) => {
                let frame = touch(self.world, &self.server, self.cpu, process, address, true)?;
                // SAFETY: the page is the program's, which has no other thread.
                unsafe { self.world.word(frame.expect("a page")).write(value) };
                self.written.insert((process, address), value);
            }
            Step::Read(process, address, value) => {
                let frame = touch(self.world, &self.server, self.cpu, process, address, false)?;
                // SAFETY: as above.
                let found = unsafe { self.world.word(frame.expect("a page")).read() };
                assert_eq!(found, value, "what process {process} sees at {address:#x}");
            }
            Step::Fail(process, address) => {
                let failed = touch(self.world, &self.server, self.cpu, process, address, true)?;
                assert!(failed.is_err(), "the access is refused");
            }
            other => panic!("{other:?} is no step"),
        }
        Some(())
    }

    /// What holds when a life has begun: all that was acknowledged, and no frame is free that somebody has.
    pub fn check(&self) {
        let kernel = self.world.kernel.lock().unwrap();
        for (&(process, start), &(length, _)) in &self.regions {
            let region = kernel.regions.get(&(space_of(process).0, start));
            assert_eq!(region.map(|r| r.length), Some(length), "region of {process} at {start:#x}");
        }
        for (&(process, page), &value) in &self.written {
            let mapped = kernel.mapped.get(&(space_of(process).0, page));
            let (frame, _) = mapped.expect("what was mapped stays");
            // SAFETY: no thread runs.
            assert_eq!(unsafe { self.world.word(*frame).read() }, value, "what {process} wrote at {page:#x}");
        }
        let mut fresh = BTreeSet::new();
        for (&(space, page), &(frame, _)) in &kernel.mapped {
            assert!(
                !self.world.is_free(frame),
                "frame {frame:?} is free, and mapped at {page:#x} of {space}"
            );
            let mut regions = self.regions.iter();
            let is_fresh = regions.any(|(&(process, start), &(length, is_fresh))| {
                is_fresh && space_of(process).0 == space && (start..start + length).contains(&page)
            });
            assert!(!is_fresh || fresh.insert(frame), "fresh memory is nobody else's: {frame:?}");
        }
    }

    /// When all processes have ended and the server was started anew, all frames but its own are free.
    pub fn finish(mut self) {
        self.lives.clear();
        self.restart();
        assert_eq!(self.server.free_pages(), PAGES - OWN, "frames are lost");
        let kernel = self.world.kernel.lock().unwrap();
        assert!(kernel.mapped.is_empty(), "nothing is mapped: {:?}", kernel.mapped);
        assert!(kernel.regions.is_empty(), "there are no regions: {:?}", kernel.regions);
    }
}
