//! Columns as kubectl prints them.

/// Between two columns.
const GAP: &str = "   ";

/// Rows below a head.
#[derive(Debug, Default)]
pub struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(head: impl IntoIterator<Item = &'static str>) -> Self {
        Self {
            head: head.into_iter().collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; one that is too short ends in empty cells.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| one_line(&cell)).collect());
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text; each line ends without blanks.
    pub fn text(&self) -> String {
        let mut widths: Vec<usize> = self.head.iter().map(|head| width(head)).collect();
        for row in &self.rows {
            for (column, cell) in widths.iter_mut().zip(row) {
                *column = (*column).max(width(cell));
            }
        }
        let head: Vec<String> = self.head.iter().map(|&head| head.to_owned()).collect();
        let line = |cells: &Vec<String>| {
            let padded = cells
                .iter()
                .zip(&widths)
                .map(|(cell, wide)| format!("{cell}{}", " ".repeat(wide.saturating_sub(width(cell)))));
            let line = padded.collect::<Vec<_>>().join(GAP);
            format!("{}\n", line.trim_end())
        };
        std::iter::once(&head).chain(&self.rows).map(line).collect()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// What comes from devices and objects must neither break a table nor speak to the terminal.
fn one_line(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_lines_end_without_blanks() {
        let mut table = Table::new(["NAME", "STATE"]);
        table.row(["a-long-name".to_owned(), String::new()]);
        table.row(["é".to_owned(), "Ready".to_owned()]);
        assert_eq!(table.text(), "NAME          STATE\na-long-name\né             Ready\n");
    }

    #[test]
    fn a_cell_cannot_move_the_cursor_or_add_a_line() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\nb\u{1b}[2Jc".to_owned()]);
        assert_eq!(table.text(), "NAME\na b [2Jc\n");
    }
}
