//! Time for people: ages, and the moments and durations they type.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};

/// Two units are enough: 45s, 3m20s, 5h12m, 8d3h.
pub(super) fn age(since: Timestamp, now: Timestamp) -> String {
    length(now.duration_since(since))
}

/// A duration as two units.
pub(super) fn length(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match () {
        () if days > 0 => format!("{days}d{}h", hours % 24),
        () if hours > 0 => format!("{hours}h{}m", minutes % 60),
        () if minutes > 0 => format!("{minutes}m{}s", seconds % 60),
        () => format!("{seconds}s"),
    }
}

/// Seconds are enough for people.
pub(super) fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A moment as people type it: RFC 3339 (UTC if it names no offset), a day, or how long ago.
pub(super) fn parse_moment(text: &str) -> Result<Timestamp, String> {
    if text == "now" {
        return Ok(Timestamp::now());
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return TimeZone::UTC.to_timestamp(civil).map_err(|error| error.to_string());
    }
    let ago = parse_length(text.trim_end_matches("ago").trim()).map_err(|_| {
        "is no time: write 2026-11-26T10:00:00Z, 2026-11-26T10:00 (UTC), 2026-11-26, 90m or 2d ago".to_owned()
    })?;
    Timestamp::now().checked_sub(ago).map_err(|error| error.to_string())
}

/// A duration as people type it: 30s, 5m, 24h, 7d, 1h30m. A day has 24 hours.
pub(super) fn parse_length(text: &str) -> Result<SignedDuration, String> {
    let wrong = || "is no duration: write 30s, 5m, 24h or 7d".to_owned();
    let span: Span = text.parse().map_err(|_| wrong())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    if duration.is_negative() { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let cases = [
            ("2026-11-23T11:59:15Z", "45s"),
            ("2026-11-23T11:56:40Z", "3m20s"),
            ("2026-11-23T06:48:00Z", "5h12m"),
            ("2026-11-15T09:00:00Z", "8d3h"),
            ("2026-11-23T13:00:00Z", "0s"),
        ];
        for (since, expected) in cases {
            assert_eq!(age(since.parse().unwrap(), now), expected, "{since}");
        }
    }

    #[test]
    fn moments_are_read_as_people_type_them() {
        for (text, expected) in [
            ("2026-09-01T10:00:00Z", "2026-09-01T10:00:00Z"),
            ("2026-09-01T12:00:00+02:00", "2026-09-01T10:00:00Z"),
            ("2026-09-01T10:00", "2026-09-01T10:00:00Z"),
            ("2026-09-01 10:00:00", "2026-09-01T10:00:00Z"),
            ("2026-09-01", "2026-09-01T00:00:00Z"),
        ] {
            assert_eq!(moment(parse_moment(text).unwrap()), expected, "{text}");
        }
        for text in ["90m", "90m ago", "1h30m ago"] {
            let at = parse_moment(text).unwrap();
            let seconds = Timestamp::now().duration_since(at).as_secs();
            assert!((5400..5460).contains(&seconds), "{text}: {seconds}");
        }
        for text in ["", "yesterday", "10:00", "-5m"] {
            assert!(parse_moment(text).unwrap_err().starts_with("is no time"), "{text:?}");
        }
    }

    #[test]
    fn durations_are_read_as_people_type_them() {
        for (text, seconds) in [("30s", 30), ("5m", 300), ("24h", 86400), ("7d", 604_800), ("1h30m", 5400)] {
            assert_eq!(parse_length(text).unwrap().as_secs(), seconds, "{text}");
        }
        for text in ["", "5", "-5m", "5 parsecs"] {
            assert!(parse_length(text).is_err(), "{text:?}");
        }
    }
}
