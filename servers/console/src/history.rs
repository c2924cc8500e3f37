//! The lines that were entered last.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Lines that are remembered.
const LINES: usize = 64;

/// Lines, the last at the end, and where in them the user looks.
#[derive(Clone, Debug, Default)]
pub struct History {
    lines: VecDeque<Vec<u8>>,
    /// How far back the user looks; 0 is the line that is being edited.
    back: usize,
    /// That line, while the user looks back.
    draft: Vec<u8>,
}

impl History {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { lines: VecDeque::new(), back: 0, draft: Vec::new() }
    }

    /// Remembers a line, unless it is empty or the last one once more. The user looks at a new one.
    pub fn add(&mut self, line: &[u8]) {
        self.back = 0;
        if line.is_empty() || self.lines.back().is_some_and(|last| last == line) {
            return;
        }
        if self.lines.len() == LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_vec());
    }

    /// The user gives up the line that is being edited.
    pub fn leave(&mut self) {
        self.back = 0;
    }

    /// The line before the one that is looked at, which is `current`.
    pub fn older(&mut self, current: &[u8]) -> Option<Vec<u8>> {
        let index = self.lines.len().checked_sub(self.back + 1)?;
        if self.back == 0 {
            self.draft = current.to_vec();
        }
        self.back += 1;
        self.lines.get(index).cloned()
    }

    /// The line after the one that is looked at.
    pub fn newer(&mut self) -> Option<Vec<u8>> {
        self.back = self.back.checked_sub(1)?;
        if self.back == 0 {
            return Some(core::mem::take(&mut self.draft));
        }
        self.lines.get(self.lines.len() - self.back).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_back_and_forth_ends_where_it_began() {
        let mut history = History::new();
        for line in ["one", "two", "two", ""] {
            history.add(line.as_bytes());
        }
        assert_eq!(history.older(b"thr").as_deref(), Some(&b"two"[..]));
        assert_eq!(history.older(b"two").as_deref(), Some(&b"one"[..]));
        assert_eq!(history.older(b"one"), None);
        assert_eq!(history.newer().as_deref(), Some(&b"two"[..]));
        assert_eq!(history.newer().as_deref(), Some(&b"thr"[..]));
        assert_eq!(history.newer(), None);
    }

    #[test]
    fn only_so_many_lines_are_remembered() {
        let mut history = History::new();
        for line in 0..=LINES {
            history.add(alloc::format!("{line}").as_bytes());
        }
        let mut oldest = None;
        while let Some(line) = history.older(b"") {
            oldest = Some(line);
        }
        assert_eq!(oldest.as_deref(), Some(&b"1"[..]));
    }
}
