//! `--output`, `--columns`, `--no-headers`: one way to print for all commands.

use std::fmt::Display;

use anstyle::Style;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::contract::API_VERSION;
use super::exit::{Exit, Stop};
use super::terminal::Terminal;

/// The formats of `--output`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people
    #[default]
    Table,
    /// More columns
    Wide,
    /// One JSON document
    Json,
    /// One JSON object a line
    Jsonl,
    /// The same document as YAML
    Yaml,
    /// Prometheus' text format, for `ipam stats` and `ipam metrics` only
    Prometheus,
}

/// How to print.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Output {
    /// How to print.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    pub output: Format,
    /// Leaves the line with the column names out.
    #[arg(long, help_heading = "Output")]
    pub no_headers: bool,
    /// Only these columns, in this order: names as in the header, with commas between.
    #[arg(long, value_delimiter = ',', value_name = "NAMES", help_heading = "Output")]
    pub columns: Vec<String>,
}

/// A document for programs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a, T> {
    api_version: &'static str,
    kind: &'static str,
    items: &'a [T],
}

/// What stands in a cell, and how it is coloured.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    pub fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: plain(&text.into()), style }
    }
}

/// Text that comes from pods, runtimes and files, without what a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|it| if it.is_control() { char::REPLACEMENT_CHARACTER } else { it }).collect()
}

/// A number of things, whose name takes an s where there are several.
pub(super) fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

/// An empty text is shown as a dash, so that columns can be cut out by their number.
impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        let text = text.into();
        Self::styled(if text.is_empty() { "-".to_owned() } else { text }, Style::new())
    }
}

/// A column of rows of one type.
pub(super) struct Column<R> {
    pub name: &'static str,
    /// Whether it is shown with `-o wide` only.
    pub wide: bool,
    pub cell: fn(&R) -> Cell,
}

impl<R> Column<R> {
    pub const fn new(name: &'static str, cell: fn(&R) -> Cell) -> Self {
        Self { name, wide: false, cell }
    }

    pub const fn wide(name: &'static str, cell: fn(&R) -> Cell) -> Self {
        Self { name, wide: true, cell }
    }
}

impl Output {
    pub fn is_for_people(&self) -> bool {
        matches!(self.output, Format::Table | Format::Wide)
    }

    /// Prints a list: rows and columns for people, items for programs.
    pub fn print<T: Serialize, R>(
        &self,
        terminal: &mut Terminal<'_>,
        kind: &'static str,
        items: &[T],
        rows: &[R],
        columns: &[Column<R>],
    ) -> Result<(), Stop> {
        let text = match self.document(kind, items)? {
            Some(text) => text,
            None => self.table(rows, columns, terminal.colour)?,
        };
        terminal.print(&text)
    }

    /// Prints that there is nothing: programs get a document without items, and people nothing here.
    pub fn print_none(&self, terminal: &mut Terminal<'_>, kind: &'static str) -> Result<(), Stop> {
        terminal.print(&self.document::<()>(kind, &[])?.unwrap_or_default())
    }

    /// The items for programs; none if people read it.
    pub fn document<T: Serialize>(&self, kind: &'static str, items: &[T]) -> Result<Option<String>, Stop> {
        let failed = |error: &dyn Display| Stop::new(Exit::Failed, format!("cannot print: {error}"));
        let document = Document { api_version: API_VERSION, kind, items };
        Ok(Some(match self.output {
            Format::Table | Format::Wide => return Ok(None),
            Format::Json => {
                let text = serde_json::to_string_pretty(&document).map_err(|error| failed(&error))?;
                format!("{text}\n")
            }
            Format::Jsonl => {
                let line = |item| serde_json::to_string(item).map(|text| format!("{text}\n"));
                items.iter().map(line).collect::<Result<_, _>>().map_err(|error| failed(&error))?
            }
            Format::Yaml => serde_saphyr::to_string(&document).map_err(|error| failed(&error))?,
            Format::Prometheus => {
                let text = "only `ipam stats` and `ipam metrics` print in Prometheus' format";
                return Err(Stop::new(Exit::Usage, text));
            }
        }))
    }

    /// A table without lines, as the field's other tools print them.
    pub fn table<R>(&self, rows: &[R], columns: &[Column<R>], colour: bool) -> Result<String, Stop> {
        let columns = self.chosen(columns)?;
        let cells: Vec<Vec<Cell>> =
            rows.iter().map(|row| columns.iter().map(|column| (column.cell)(row)).collect()).collect();
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        if !self.no_headers {
            table.set_header(columns.iter().map(|column| column.name));
        }
        for row in &cells {
            table.add_row(row.iter().map(|cell| cell.text.as_str()));
        }
        if rows.is_empty() && self.no_headers {
            return Ok(String::new());
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        let text = format!("{}\n", table.trim_fmt());
        if !colour {
            return Ok(text);
        }
        let widths: Vec<usize> = table.column_max_content_widths().into_iter().map(usize::from).collect();
        let headers = usize::from(!self.no_headers);
        let coloured = text.lines().enumerate().map(|(number, line)| match number.checked_sub(headers) {
            Some(row) => cells.get(row).map_or_else(|| line.to_owned(), |cells| coloured(line, cells, &widths)),
            None => format!("{0}{line}{0:#}", Style::new().dimmed()),
        });
        Ok(coloured.map(|line| format!("{line}\n")).collect())
    }

    fn chosen<'a, R>(&self, columns: &'a [Column<R>]) -> Result<Vec<&'a Column<R>>, Stop> {
        if self.columns.is_empty() {
            let wide = self.output == Format::Wide;
            return Ok(columns.iter().filter(|column| wide || !column.wide).collect());
        }
        let named = |name: &String| {
            columns.iter().find(|column| column.name.eq_ignore_ascii_case(name)).ok_or_else(|| {
                let names: Vec<String> = columns.iter().map(|column| column.name.to_lowercase()).collect();
                Stop::new(Exit::Usage, format!("there is no column {name:?}; there are {}", names.join(", ")))
            })
        };
        self.columns.iter().map(named).collect()
    }
}

/// Puts styles around the cells of a line that was laid out without them.
fn coloured(line: &str, cells: &[Cell], widths: &[usize]) -> String {
    let characters: Vec<char> = line.chars().collect();
    let mut from = 0;
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let until = (from + width + 2).min(characters.len());
        let piece: String = characters.get(from..until).unwrap_or_default().iter().collect();
        let word = piece.trim_end();
        text.push_str(&format!("{0}{word}{0:#}{1}", cell.style, &piece[word.len()..]));
        from = until;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column<(&str, &str)>; 3] = [
        Column::new("NAME", |row| row.0.into()),
        Column::new("STATE", |row| Cell::styled(row.1, anstyle::AnsiColor::Red.on_default())),
        Column::wide("LENGTH", |row| row.0.len().to_string().into()),
    ];

    fn table(output: &Output, colour: bool) -> String {
        output.table(&[("long-name", "up"), ("", "down")], &COLUMNS, colour).unwrap()
    }

    #[test]
    fn columns_are_aligned_chosen_and_coloured() {
        let mut output = Output::default();
        assert_eq!(table(&output, false), "NAME       STATE\nlong-name  up\n-          down\n");
        output.output = Format::Wide;
        assert_eq!(table(&output, false), "NAME       STATE  LENGTH\nlong-name  up     9\n-          down   0\n");
        output.columns = vec!["length".to_owned(), "name".to_owned()];
        output.no_headers = true;
        assert_eq!(table(&output, false), "9  long-name\n0  -\n");
        output.columns = vec!["state".to_owned()];
        assert_eq!(table(&output, true), "\u{1b}[31mup\u{1b}[0m\n\u{1b}[31mdown\u{1b}[0m\n");
        output.columns = vec!["size".to_owned()];
        let refused = output.table(&[], &COLUMNS, false).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert_eq!(refused.text.unwrap(), "there is no column \"size\"; there are name, state, length");
    }

    #[test]
    fn nothing_at_all_is_nothing() {
        let output = Output { no_headers: true, ..Output::default() };
        assert_eq!(output.table(&[], &COLUMNS, true).unwrap(), "");
    }
}
