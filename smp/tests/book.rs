//! Every page of the book says the same four things.
#![cfg(not(any(loom, miri)))]

use std::fs;
use std::path::{Path, PathBuf};

/// Files whose module is no page: private ones, and those of tests.
fn is_page(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    let is_test = name.ends_with("_tests.rs") || name.ends_with("_model.rs");
    let is_private = ["lib.rs", "tree.rs", "node.rs", "checked.rs", "model.rs"].contains(&name);
    !is_test && !is_private
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if is_page(&path) {
            found.push(path);
        }
    }
}

#[test]
fn each_module_opens_with_idea_source_cost_and_an_example() {
    let mut pages = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut pages);
    assert!(pages.len() > 20, "only {} pages", pages.len());
    for path in pages {
        let text = fs::read_to_string(&path).unwrap();
        let page: Vec<_> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        for part in ["//! **Idea.**", "//! **Source.**", "//! **Cost in lines moved.**", "//! ```"] {
            let says = page.iter().any(|line| line.starts_with(part));
            assert!(says, "{} does not open with {part}", path.display());
        }
    }
}
