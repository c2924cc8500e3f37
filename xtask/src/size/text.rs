//! Text of the hot paths: the sizes of the functions that they are made of, from the kernel's symbols.

use anyhow::{Context, Result};
use lab::exit::{Exit, failure};
use object::{Object as _, ObjectSymbol as _};
use rustc_demangle::demangle;

/// The functions of a path, apart from what the compiler put into them.
const PATHS: &[(&str, &[&str])] = &[
    (
        "call",
        &["kernel::syscall::shell::call_slowly", "kernel::ipc::call::call", "kernel::ipc::call::begin_at"],
    ),
    ("reply", &["kernel::syscall::shell::reply_wait_slowly", "kernel::ipc::call::reply_wait"]),
    (
        "fault",
        &[
            "kernel::arch::entry::user_trap",
            "kernel::mem::fault::page_fault",
            "kernel::mem::fault::fill",
            "kernel::mem::fault::replied",
            "kernel::mem::mapping::map",
            "kernel::mem::mapping::prepare",
            "kernel::ipc::call::call_for_fault",
            "kernel::ipc::call::reply_to_fault",
        ],
    ),
    (
        "switch",
        &[
            "kernel::cell::run::<impl kernel::cell::Cell>::switch_to",
            "kernel::cell::run::<impl kernel::cell::Cell>::next_thread",
            "kernel::cell::run::<impl kernel::cell::Cell>::start_turn",
            "kernel::syscall::shell::yield_now",
        ],
    ),
];
/// Where the code lies by which the kernel is entered and left, in assembly.
const ENTRY: [&str; 2] = ["hot_start", "hot_end"];

/// A path and its functions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// What it is called.
    pub name: &'static str,
    /// Functions and their bytes.
    pub functions: Vec<(String, u64)>,
}

impl Group {
    /// Bytes of all its functions.
    pub fn bytes(&self) -> u64 {
        self.functions.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The hot paths of the kernel whose ELF file is `bytes`.
pub fn hot_paths(bytes: &[u8]) -> Result<Vec<Group>> {
    let kernel = object::File::parse(bytes).context("the kernel is no ELF file")?;
    let mut edges = [0; ENTRY.len()];
    let mut functions = Vec::new();
    for symbol in kernel.symbols() {
        let Ok(name) = symbol.name() else { continue };
        if let Some(edge) = ENTRY.iter().position(|edge| *edge == name) {
            edges[edge] = symbol.address();
        }
        functions.push((format!("{:#}", demangle(name)), symbol.size()));
    }
    let entry =
        Group { name: "entry", functions: vec![("entry.s, fastpath.s".to_owned(), edges[1] - edges[0])] };
    let mut groups = vec![entry];
    for (name, wanted) in PATHS {
        groups.push(group(name, wanted, &functions)?);
    }
    Ok(groups)
}

/// The functions named `wanted`. Some are parts of others; that none is there means that they have other names now.
fn group(name: &'static str, wanted: &[&str], functions: &[(String, u64)]) -> Result<Group> {
    let found: Vec<(String, u64)> =
        functions.iter().filter(|(function, _)| wanted.contains(&function.as_str())).cloned().collect();
    if found.is_empty() {
        let message = format!(
            "the kernel has no function of the path `{name}`: mend the list in xtask/src/size/text.rs"
        );
        return Err(failure(Exit::Failed, message));
    }
    Ok(Group { name, functions: found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_summed_up_and_a_path_without_any_is_an_error() {
        let functions = [("a::f".to_owned(), 3), ("a::f::g".to_owned(), 100), ("b".to_owned(), 4)];
        let both = group("path", &["a::f", "b", "inlined"], &functions).unwrap();
        assert_eq!(both.bytes(), 7);
        let error = group("path", &["renamed"], &functions).unwrap_err();
        assert!(error.to_string().contains("`path`"), "{error}");
    }
}
