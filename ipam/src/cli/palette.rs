//! The colours of an address's state, in the terminal and in pictures.

use anstyle::{AnsiColor, Style};

/// Held by a pod.
pub(super) const ACTIVE: Style = AnsiColor::Green.on_default();
/// At rest after a release.
pub(super) const COOLING: Style = AnsiColor::Cyan.on_default();
/// Set aside by a person.
pub(super) const RESERVED: Style = AnsiColor::Magenta.on_default();
/// Never leased: network, broadcast, gateway, excluded, outside of the pool.
pub(super) const OUTSIDE: Style = AnsiColor::BrightBlack.on_default();
/// Something is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something may be wrong.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default();
