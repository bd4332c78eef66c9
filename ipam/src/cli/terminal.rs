//! Where a command reads and writes.

use std::io::{BufRead, IsTerminal, Write};

use clap::ValueEnum;

use super::exit::{Exit, Stop};

/// Whether to colour what is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Colour {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl Colour {
    /// What it comes to for standard output (<https://no-color.org>).
    pub fn of_stdout(self) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => {
                let is_terminal = std::io::stdout().is_terminal() && anstyle_query::term_supports_color();
                !anstyle_query::no_color() && (is_terminal || anstyle_query::clicolor_force())
            }
        }
    }
}

/// Where a command reads and writes: data to `out`, everything about it to `err`.
pub(super) struct Terminal<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    /// Somebody who can be asked, if there is anybody.
    pub person: Option<&'a mut dyn BufRead>,
    /// Whether to colour what goes to `out`.
    pub colour: bool,
}

impl Terminal<'_> {
    pub fn print(&mut self, text: &str) -> Result<(), Stop> {
        self.out.write_all(text.as_bytes()).map_err(Stop::from_printing)
    }

    /// A line about what is done, to standard error.
    pub fn note(&mut self, text: &str) -> Result<(), Stop> {
        writeln!(self.err, "{text}").map_err(Stop::from_printing)
    }

    /// Asks before something is changed. Only a yes is a yes.
    pub fn confirm(&mut self, question: &str, yes: bool) -> Result<(), Stop> {
        if yes {
            return Ok(());
        }
        let Some(person) = self.person.as_mut() else {
            return Err(Stop::new(Exit::Refused, "nobody is there to be asked: add --yes, or run it on a terminal"));
        };
        write!(self.err, "{question} [y/N] ").and_then(|()| self.err.flush()).map_err(Stop::from_printing)?;
        let mut answer = String::new();
        person.read_line(&mut answer).map_err(Stop::from_printing)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Stop::new(Exit::Refused, "nothing was changed")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(yes: bool, person: Option<&str>) -> Result<(), Exit> {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut says = person.map(str::as_bytes);
        let person = says.as_mut().map(|says| says as &mut dyn BufRead);
        let mut terminal = Terminal { out: &mut out, err: &mut err, person, colour: false };
        let result = terminal.confirm("Release?", yes);
        assert_eq!(out, b"", "a question is no output");
        result.map_err(|stop| stop.exit)
    }

    #[test]
    fn only_a_yes_is_a_yes() {
        for (yes, person, expected) in [
            (true, None, Ok(())),
            (true, Some("n\n"), Ok(())),
            (false, None, Err(Exit::Refused)),
            (false, Some("y\n"), Ok(())),
            (false, Some("yes\n"), Ok(())),
            (false, Some("n\n"), Err(Exit::Refused)),
            (false, Some("\n"), Err(Exit::Refused)),
            (false, Some(""), Err(Exit::Refused)),
        ] {
            assert_eq!(asked(yes, person), expected, "--yes {yes}, {person:?}");
        }
    }
}
