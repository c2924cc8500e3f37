//! Finds processes that a command left running: the command gets a mark in its environment, which all its
//! descendants inherit.
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The variable that carries the mark.
const VARIABLE: &str = "STORMCELL_TEST_MARK";

/// A mark that no other command of this machine carries.
pub struct Mark {
    value: String,
}

impl Mark {
    /// A new one.
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self { value: format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)) }
    }

    /// Name and value of the environment variable.
    pub fn variable(&self) -> (&'static str, &str) {
        (VARIABLE, &self.value)
    }

    /// Living processes with this mark: number and name.
    pub fn carriers(&self) -> Vec<(i32, String)> {
        let wanted = format!("{VARIABLE}={}", self.value);
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let carries = |folder: &Path| {
            let environment = fs::read(folder.join("environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|entry| entry == wanted.as_bytes())
        };
        processes
            .filter_map(|entry| {
                let number = entry.file_name().to_str()?.parse().ok()?;
                let name = fs::read_to_string(entry.path().join("comm")).ok()?;
                carries(&entry.path()).then(|| (number, name.trim().to_owned()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_that_was_left_is_found_and_one_that_ended_is_not() {
        let mark = Mark::new();
        let (name, value) = mark.variable();
        let mut child = Command::new("sleep").arg("100").env(name, value).spawn().unwrap();
        let own = i32::try_from(child.id()).unwrap();
        // Between fork and exec the child still has our environment.
        let found = (0..100).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(10));
            mark.carriers().iter().any(|(number, _)| *number == own)
        });
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found);
        assert_eq!(mark.carriers(), []);
    }
}
