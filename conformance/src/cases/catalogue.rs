//! What the spec says and no suite for plugins can ask, with the reason.

/// A statement of the checklist without a question.
#[derive(Debug, Clone, Copy)]
pub struct Untestable {
    /// Its id in the checklist.
    pub id: &'static str,
    /// What it says.
    pub statement: &'static str,
    /// Why nobody can ask.
    pub why: &'static str,
}

/// All of them.
pub const UNTESTABLE: &[Untestable] = &[];
