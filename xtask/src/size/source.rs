//! Code lines of a crate: lines with something of the language on them. Comments, documentation, blank lines, and what is
//! compiled for tests only do not count.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// A file and its code lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Path from the workspace on.
    pub path: PathBuf,
    /// Code lines.
    pub lines: usize,
}

/// Counts the crate whose first file is `first` (from `root` on) with all its modules, and assembly that it includes.
pub fn count_crate(root: &Path, first: &Path, counted: &mut Vec<Counted>) -> Result<()> {
    let folder = first.parent().unwrap_or(Path::new(""));
    count_module(root, first, folder, counted)
}

/// Counts the file `path` whose modules are in `folder`.
fn count_module(root: &Path, path: &Path, folder: &Path, counted: &mut Vec<Counted>) -> Result<()> {
    let text = fs::read_to_string(root.join(path)).with_context(|| format!("reading {}", path.display()))?;
    let tokens: TokenStream = text.parse().map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let mut seen = Seen::default();
    seen.read(tokens);
    counted.push(Counted { path: path.to_owned(), lines: seen.lines.len() });
    let beside = path.parent().unwrap_or(Path::new(""));
    for included in &seen.included {
        let path = beside.join(included);
        let text = fs::read_to_string(root.join(&path))?;
        counted.push(Counted { path, lines: assembly_lines(&text) });
    }
    for module in &seen.modules {
        let inside = folder.join(module);
        let file = Some(inside.with_extension("rs")).filter(|path| root.join(path).exists());
        count_module(root, &file.unwrap_or_else(|| inside.join("mod.rs")), &inside, counted)?;
    }
    Ok(())
}

/// Lines of assembly that are neither blank nor comments.
fn assembly_lines(text: &str) -> usize {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).count()
}

/// What was seen of a file.
#[derive(Default)]
struct Seen {
    lines: BTreeSet<usize>,
    /// Modules in files of their own.
    modules: Vec<String>,
    /// Assembly files.
    included: Vec<String>,
}

impl Seen {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            let rest = &tokens[at..];
            at += match attribute(rest) {
                Some((group, length)) if is_test(group) => length + item_length(&rest[length..]),
                Some((group, length)) if is_documentation(group) => length,
                _ => {
                    self.note(rest);
                    1
                }
            };
        }
    }

    /// Takes note of the first of `tokens`.
    fn note(&mut self, tokens: &[TokenTree]) {
        match tokens {
            [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Punct(end), ..]
                if word == "mod" && end.as_char() == ';' =>
            {
                self.modules.push(name.to_string());
            }
            [TokenTree::Ident(word), TokenTree::Punct(_), TokenTree::Group(name), ..]
                if word == "include_str" =>
            {
                let name = name.stream().to_string();
                self.included.extend(Some(name.trim_matches('"').to_owned()).filter(|n| n.ends_with(".s")));
            }
            _ => {}
        }
        match &tokens[0] {
            TokenTree::Group(group) => {
                self.lines.insert(group.span_open().start().line);
                self.lines.insert(group.span_close().end().line);
                self.read(group.stream());
            }
            token => self.lines.extend(token.span().start().line..=token.span().end().line),
        }
    }
}

/// The attribute that `tokens` begin with, and how many tokens it is.
fn attribute(tokens: &[TokenTree]) -> Option<(&Group, usize)> {
    let bracket = |group: &&Group| group.delimiter() == Delimiter::Bracket;
    match tokens {
        [TokenTree::Punct(hash), TokenTree::Group(group), ..] if hash.as_char() == '#' => {
            Some((group, 2)).filter(|(group, _)| bracket(group))
        }
        [TokenTree::Punct(hash), TokenTree::Punct(bang), TokenTree::Group(group), ..]
            if hash.as_char() == '#' && bang.as_char() == '!' =>
        {
            Some((group, 3)).filter(|(group, _)| bracket(group))
        }
        _ => None,
    }
}

fn words(group: &Group) -> String {
    group.stream().to_string().chars().filter(|c| !c.is_whitespace()).collect()
}

fn is_test(attribute: &Group) -> bool {
    let words = words(attribute);
    words == "cfg(test)" || words.starts_with("cfg(all(test,")
}

fn is_documentation(attribute: &Group) -> bool {
    words(attribute).starts_with("doc=")
}

/// Tokens up to the end of an item: a semicolon or a block in braces, attributes before it included.
fn item_length(tokens: &[TokenTree]) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Punct(mark) => mark.as_char() == ';' || mark.as_char() == ',',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(is_end).map_or(tokens.len(), |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(text: &str) -> Seen {
        let mut seen = Seen::default();
        seen.read(text.parse().unwrap());
        seen
    }

    #[test]
    fn only_lines_with_code_count() {
        let text =
            "//! Page.\n\nuse a::b; // why\n/// Says.\n/// More.\nfn f() {\n    // no\n\n    g();\n}\n";
        assert_eq!(seen(text).lines.into_iter().collect::<Vec<_>>(), [3, 6, 9, 10]);
    }

    #[test]
    fn what_is_for_tests_does_not_count() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod more;\nfn c() {}\n";
        let seen = seen(text);
        assert_eq!(seen.lines.into_iter().collect::<Vec<_>>(), [1, 9]);
        assert!(seen.modules.is_empty());
    }

    #[test]
    fn modules_and_assembly_are_followed() {
        let seen = seen(
            "pub mod one;\nmod two { fn f() {} }\nglobal_asm!(include_str!(\"boot.s\"), X = const 1);\n",
        );
        assert_eq!((seen.modules, seen.included), (vec!["one".to_owned()], vec!["boot.s".to_owned()]));
        assert_eq!(assembly_lines("# why\n\nmain:\n    nop # here\n"), 2);
    }

    #[test]
    fn a_text_over_several_lines_counts_with_all_of_them() {
        assert_eq!(seen("const T: &str = \"a\nb\nc\";\n").lines.len(), 3);
    }
}
