//! What is printed.

mod html;
mod junit;
mod listing;
mod progress;
mod saved;
mod table;

pub use html::html;
pub use junit::junit;
pub use listing::{explain, explain_untestable, list, list_json};
pub use progress::Progress;
pub use saved::saved;
pub use table::table;

/// Text for XML and HTML. Control characters have no place there.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            other if other.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}
