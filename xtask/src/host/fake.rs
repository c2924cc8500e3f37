//! A machine for tests: what it has is a table, and installing changes the table.
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Host;

/// What a command does to the machine; true if it succeeds.
pub type Effect = Box<dyn Fn(&mut Things) -> bool>;

/// What a machine has.
#[derive(Default)]
pub struct Things {
    /// Programs on the search path.
    pub programs: BTreeSet<String>,
    /// Files and folders.
    pub files: BTreeSet<String>,
    /// Symbolic links and where they lead.
    pub links: BTreeMap<String, String>,
    /// Standard output of commands.
    pub outputs: BTreeMap<String, String>,
    /// Notes that were kept.
    pub notes: BTreeSet<String>,
}

/// A machine for tests.
#[derive(Default)]
pub struct FakeHost {
    /// What it has.
    pub things: RefCell<Things>,
    /// What commands do; a command that is not here fails.
    pub effects: BTreeMap<String, Effect>,
    /// Commands that were run.
    pub ran: RefCell<Vec<String>>,
    /// Lines that were said.
    pub said: RefCell<Vec<String>>,
    /// Whether the user is the superuser.
    pub root: bool,
    /// What the user answers; nobody is there if `None`.
    pub answer: Option<bool>,
}

impl FakeHost {
    /// Adds a program to the search path.
    pub fn program(self, name: &str) -> Self {
        self.things.borrow_mut().programs.insert(name.to_owned());
        self
    }

    /// Adds a file.
    pub fn file(self, path: &str) -> Self {
        self.things.borrow_mut().files.insert(path.to_owned());
        self
    }

    /// Adds a symbolic link.
    pub fn link(self, path: &str, target: &str) -> Self {
        self.things.borrow_mut().links.insert(path.to_owned(), target.to_owned());
        self
    }

    /// Adds what a command prints.
    pub fn prints(self, command: &str, text: &str) -> Self {
        self.things.borrow_mut().outputs.insert(command.to_owned(), text.to_owned());
        self
    }

    /// Adds what a command does.
    pub fn does(mut self, command: &str, effect: impl Fn(&mut Things) -> bool + 'static) -> Self {
        self.effects.insert(command.to_owned(), Box::new(effect));
        self
    }
}

impl Host for FakeHost {
    fn find(&self, name: &str) -> Option<PathBuf> {
        self.things.borrow().programs.contains(name).then(|| Path::new("/path").join(name))
    }

    fn exists(&self, path: &Path) -> bool {
        self.things.borrow().files.contains(&*path.to_string_lossy())
    }

    fn names_in(&self, folder: &Path) -> Vec<String> {
        let inside = format!("{}/", folder.display());
        self.things
            .borrow()
            .files
            .iter()
            .filter_map(|file| Some(file.strip_prefix(&inside)?.to_owned()))
            .collect()
    }

    fn real_path(&self, path: &Path) -> Option<PathBuf> {
        let path = path.to_string_lossy();
        let things = self.things.borrow();
        let (link, target) = things.links.iter().find(|(link, _)| path.starts_with(link.as_str()))?;
        Some(path.replacen(link, target, 1).into())
    }

    fn output(&self, command: &[&str]) -> Option<String> {
        self.things.borrow().outputs.get(&command.join(" ")).cloned()
    }

    fn run(&self, command: &[&str], _shown: bool, _timeout: Duration) -> bool {
        let command = command.join(" ");
        self.ran.borrow_mut().push(command.clone());
        self.effects.get(&command).is_some_and(|effect| effect(&mut self.things.borrow_mut()))
    }

    fn remembers(&self, name: &str, _age: Duration) -> bool {
        self.things.borrow().notes.contains(name)
    }

    fn remember(&self, name: &str) {
        self.things.borrow_mut().notes.insert(name.to_owned());
    }

    fn is_root(&self) -> bool {
        self.root
    }

    fn confirm(&self, _question: &str) -> Option<bool> {
        self.answer
    }

    fn say(&self, line: &str) {
        self.said.borrow_mut().push(line.to_owned());
    }
}
