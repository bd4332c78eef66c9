//! Quantities as Kubernetes writes them: `10M`, `1.5Gi`, `64e6`. Pure.
//!
//! Source: the type `resource.Quantity` of k8s.io/apimachinery, as its documentation describes it.

/// The longest number that is read: with it and the largest suffix nothing overflows.
const DIGITS_MAX: usize = 18;

/// A whole number that is not smaller, if the text is a quantity.
#[must_use]
pub fn quantity(text: &str) -> Option<u64> {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.len() > DIGITS_MAX {
        return None;
    }
    let value = digits.parse::<u128>().ok()?.checked_mul(multiplier(suffix)?)?;
    let parts = 10_u128.checked_pow(fraction.len().try_into().ok()?)?;
    u64::try_from(value.div_ceil(parts)).ok()
}

fn multiplier(suffix: &str) -> Option<u128> {
    const DECIMAL: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = |names: &[&str]| names.iter().position(|name| *name == suffix).and_then(|power| power.try_into().ok());
    if let Some(power) = power(&DECIMAL) {
        return 1000_u128.checked_pow(power);
    }
    if let Some(power) = power(&BINARY) {
        return 1024_u128.checked_pow(power);
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|exponent| *exponent <= 18)?;
    10_u128.checked_pow(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_count_as_kubernetes_has_them() {
        for (text, value) in [
            ("0", 0),
            ("8000", 8000),
            ("10M", 10_000_000),
            ("1.5k", 1500),
            (".5k", 500),
            ("1Ki", 1024),
            ("1.5Gi", 1_610_612_736),
            ("64e6", 64_000_000),
            ("1E3", 1000),
            ("2E", 2_000_000_000_000_000_000),
            ("0.1", 1),
        ] {
            assert_eq!(quantity(text), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in [
            "",
            ".",
            "M",
            "-1",
            "+1",
            "1 M",
            "10m",
            "10Mb",
            "10K",
            "1e",
            "1e99",
            "1.2.3",
            "99999999999999999999",
            "99E",
        ] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }
}
