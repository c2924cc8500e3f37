//! A line of input: words, and where the output goes.
//!
//! Words are parted by blanks. In single quotes everything is text; in double quotes everything but a backslash before
//! `"` or `\`; elsewhere a backslash makes the next character text. `> FILE` and `>> FILE` may stand anywhere; `&` ends
//! a line that is not waited for. There are no variables, no patterns and no pipes.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::iter::Peekable;
use core::str::Chars;

/// Where output goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// The file.
    pub path: String,
    /// Behind what it holds, and not instead of it.
    pub appends: bool,
}

/// A line, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The command and its arguments.
    pub words: Vec<String>,
    /// The file that gets the output.
    pub output: Option<Redirection>,
    /// Whether the shell goes on at once.
    pub in_background: bool,
}

/// Why a line can't be taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A quote has no end.
    OpenQuote(char),
    /// Nothing follows a backslash.
    LastBackslash,
    /// No file follows `>`.
    NoFile,
    /// There are two outputs.
    TwoOutputs,
    /// Something follows `&`.
    BehindBackground,
    /// The line has no command.
    NoCommand,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "{quote} without an end: add another {quote}"),
            Self::LastBackslash => f.write_str("\\ without a character: write \\\\ for a backslash"),
            Self::NoFile => f.write_str("no file behind >: give one, as in > /FILE"),
            Self::TwoOutputs => f.write_str("two outputs: give one > or >>"),
            Self::BehindBackground => f.write_str("& ends a line: put what follows into a line of its own"),
            Self::NoCommand => f.write_str("no command: give one before > or &"),
        }
    }
}

/// What a line is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Output { appends: bool },
    Background,
}

impl Line {
    /// Takes `text` apart. An empty line has no words.
    ///
    /// # Errors
    /// [`Mistake`].
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let mut line = Self::default();
        let mut characters = text.chars().peekable();
        let mut is_empty = true;
        while let Some(token) = token(&mut characters)? {
            is_empty = false;
            if line.in_background {
                return Err(Mistake::BehindBackground);
            }
            match token {
                Token::Word(word) => line.words.push(word),
                Token::Background => line.in_background = true,
                Token::Output { appends } => {
                    let Some(Token::Word(path)) = self::token(&mut characters)? else {
                        return Err(Mistake::NoFile);
                    };
                    if line.output.replace(Redirection { path, appends }).is_some() {
                        return Err(Mistake::TwoOutputs);
                    }
                }
            }
        }
        if line.words.is_empty() && !is_empty { Err(Mistake::NoCommand) } else { Ok(line) }
    }
}

fn token(characters: &mut Peekable<Chars<'_>>) -> Result<Option<Token>, Mistake> {
    while characters.next_if(|c| c.is_whitespace()).is_some() {}
    let Some(&first) = characters.peek() else { return Ok(None) };
    if first == '>' {
        characters.next();
        return Ok(Some(Token::Output { appends: characters.next_if_eq(&'>').is_some() }));
    }
    if first == '&' {
        characters.next();
        return Ok(Some(Token::Background));
    }
    word(characters).map(|word| Some(Token::Word(word)))
}

fn word(characters: &mut Peekable<Chars<'_>>) -> Result<String, Mistake> {
    let mut word = String::new();
    while let Some(c) = characters.next_if(|c| !c.is_whitespace() && !matches!(c, '>' | '&')) {
        match c {
            '\'' | '"' => quoted(c, characters, &mut word)?,
            '\\' => word.push(characters.next().ok_or(Mistake::LastBackslash)?),
            c => word.push(c),
        }
    }
    Ok(word)
}

/// Takes what is quoted, and the quote that ends it.
fn quoted(quote: char, characters: &mut Peekable<Chars<'_>>, word: &mut String) -> Result<(), Mistake> {
    loop {
        match characters.next().ok_or(Mistake::OpenQuote(quote))? {
            c if c == quote => return Ok(()),
            '\\' if quote == '"' => {
                let next = characters.next_if(|c| matches!(c, '"' | '\\'));
                word.push(next.unwrap_or('\\'));
            }
            c => word.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<String>, Mistake> {
        Line::parse(text).map(|line| line.words)
    }

    #[test]
    fn quotes_keep_what_is_between_them_together() {
        let table: [(&str, &[&str]); 8] = [
            ("  echo  a b ", &["echo", "a", "b"]),
            ("echo 'a  b'", &["echo", "a  b"]),
            (r#"echo "a \"b\" \n" c"#, &["echo", r#"a "b" \n"#, "c"]),
            (r"echo a\ b\\ \>", &["echo", "a b\\", ">"]),
            ("echo '' x''y", &["echo", "", "xy"]),
            (r#"echo 'a "b" \' "it's""#, &["echo", r#"a "b" \"#, "it's"]),
            ("echo '>' \"&\"", &["echo", ">", "&"]),
            ("", &[]),
        ];
        for (text, wanted) in table {
            assert_eq!(
                words(text).as_deref(),
                Ok(wanted.iter().map(|w| String::from(*w)).collect::<Vec<_>>().as_slice()),
                "{text}"
            );
        }
    }

    #[test]
    fn output_may_stand_anywhere() {
        for (text, appends) in [("echo a >/f b", false), ("echo a b >> '/f'", true), (">/f echo a b", false)]
        {
            let line = Line::parse(text).unwrap();
            assert_eq!(line.words, ["echo", "a", "b"], "{text}");
            assert_eq!(line.output, Some(Redirection { path: String::from("/f"), appends }), "{text}");
        }
        assert!(Line::parse("run spin&").unwrap().in_background);
    }

    #[test]
    fn mistakes_are_told_apart() {
        let table = [
            ("echo 'a", Mistake::OpenQuote('\'')),
            ("echo \"a\\\"", Mistake::OpenQuote('"')),
            ("echo a\\", Mistake::LastBackslash),
            ("echo a >", Mistake::NoFile),
            ("echo a > > b", Mistake::NoFile),
            ("echo a > b >> c", Mistake::TwoOutputs),
            ("run spin & echo a", Mistake::BehindBackground),
            ("> /f", Mistake::NoCommand),
            ("&", Mistake::NoCommand),
        ];
        for (text, mistake) in table {
            assert_eq!(Line::parse(text), Err(mistake), "{text}");
        }
    }
}
