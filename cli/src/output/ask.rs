//! Asking a person before what cannot be undone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use crate::{Error, Result};

/// `--yes`.
#[derive(clap::Args, Debug, Clone, Copy)]
pub struct YesArgument {
    /// Do not ask; needed where there is no terminal.
    #[arg(long, short)]
    pub yes: bool,
}

/// What a person has to type to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word<'a> {
    /// `y` or `yes`.
    Yes,
    /// Exactly this: for what reaches many devices, so that nobody answers without having read.
    Exactly(&'a str),
}

/// Goes on if `--yes` was given or a person types the word.
///
/// # Errors
/// [`Error::Declined`] when the answer is another one, or nobody can be asked.
pub fn confirm(yes: YesArgument, question: &str, word: Word<'_>) -> Result<()> {
    if yes.yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Error::Declined(format!(
            "{question}\nThis cannot be undone, and there is no terminal to ask at: give --yes to go on. Nothing was changed"
        )));
    }
    match word {
        Word::Yes => eprint!("{question} [y/N] "),
        Word::Exactly(word) => eprint!("{question}\nType {word} to go on: "),
    }
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(Error::file("the terminal".as_ref()))?;
    if agrees(&answer, word) {
        Ok(())
    } else {
        Err(Error::Declined("not confirmed; nothing was changed".to_owned()))
    }
}

fn agrees(answer: &str, word: Word<'_>) -> bool {
    let answer = answer.trim();
    match word {
        Word::Yes => ["y", "yes"].contains(&answer.to_lowercase().as_str()),
        Word::Exactly(word) => answer == word,
    }
}

#[cfg(test)]
mod tests {
    use super::{Word, agrees};

    #[test]
    fn only_the_word_agrees() {
        assert!(agrees("Yes\n", Word::Yes) && agrees(" y ", Word::Yes));
        assert!(!agrees("", Word::Yes) && !agrees("yep\n", Word::Yes));
        assert!(agrees("500\n", Word::Exactly("500")));
        assert!(!agrees("y\n", Word::Exactly("500")) && !agrees("50\n", Word::Exactly("500")));
    }
}
