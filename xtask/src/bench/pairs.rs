//! Paired measurements: both candidates in turns, so that what else the machine does hits both alike.

use std::time::Duration;

use comfy_table::{Table, presets};

/// Durations of one operation, round by round.
pub struct Pairs {
    name: String,
    base: Vec<f64>,
    ours: Vec<f64>,
}

impl Pairs {
    /// None yet.
    pub fn of(name: impl Into<String>) -> Self {
        Self { name: name.into(), base: Vec::new(), ours: Vec::new() }
    }

    /// Adds a round.
    pub fn push(&mut self, base: Duration, ours: Duration) {
        self.base.push(base.as_secs_f64() * 1000.0);
        self.ours.push(ours.as_secs_f64() * 1000.0);
    }

    fn row(&self) -> [String; 5] {
        let ratios: Vec<f64> = self.base.iter().zip(&self.ours).map(|(base, ours)| base / ours).collect();
        let [low, middle, high] = [0.1, 0.5, 0.9].map(|part| quantile(&ratios, part));
        [
            self.name.clone(),
            format!("{:.2} ms", quantile(&self.base, 0.5)),
            format!("{:.2} ms", quantile(&self.ours, 0.5)),
            format!("{middle:.2}x"),
            format!("{low:.2} - {high:.2}"),
        ]
    }
}

/// Medians, and how many times as fast ours is: the median of the rounds' ratios, and their 10th and 90th percentile.
pub fn table(base: &str, ours: &str, rows: &[Pairs]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", base, ours, "ratio", "10 % - 90 %"]);
    for row in rows {
        table.add_row(row.row());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The value below which a part of the values is; not a number if there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into a list of a few hundred"
)]
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_owned();
    sorted.sort_by(f64::total_cmp);
    let index = (sorted.len().saturating_sub(1)) as f64 * part;
    sorted.get(index.round() as usize).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_that_of_the_rounds() {
        let mut pairs = Pairs::of("lease");
        for (base, ours) in [(10, 5), (20, 5), (90, 30)] {
            pairs.push(Duration::from_millis(base), Duration::from_millis(ours));
        }
        assert_eq!(pairs.row(), ["lease", "20.00 ms", "5.00 ms", "3.00x", "2.00 - 4.00"]);
    }
}
