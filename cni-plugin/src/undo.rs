//! What a failed ADD takes back.

use crate::Error;

type Action<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// A stack of inverse actions. On failure [`Undo::run`] carries them out in reverse and reports what it could
/// not take back; on success [`Undo::forget`] drops them. Dropping it is the net for a panic.
#[derive(Default)]
pub struct Undo<'a> {
    actions: Vec<Action<'a>>,
    last: Option<Action<'a>>,
}

impl<'a> Undo<'a> {
    /// Remembers how to take back what is about to be made. It is pushed *before* the change, because a change
    /// whose answer got lost may have been made.
    pub fn push(&mut self, action: impl FnOnce() -> Result<(), Error> + 'a) {
        self.actions.push(Box::new(action));
    }

    /// Remembers what is to be taken back when everything else is, and only if all of that succeeded: an address
    /// that something still uses stays leased.
    pub fn last(&mut self, action: impl FnOnce() -> Result<(), Error> + 'a) {
        self.last = Some(Box::new(action));
    }

    /// The failure, together with what could not be taken back.
    #[must_use]
    pub fn run(mut self, failure: Error) -> Error {
        let undo = self.take_back();
        if undo.is_empty() { failure } else { Error::Undo { failure: Box::new(failure), undo } }
    }

    /// Nothing is to be taken back any more.
    pub fn forget(mut self) {
        self.actions.clear();
        self.last = None;
    }

    fn take_back(&mut self) -> Vec<Error> {
        let mut errors = Vec::new();
        while let Some(action) = self.actions.pop() {
            errors.extend(action().err());
        }
        if let Some(action) = self.last.take().filter(|_| errors.is_empty()) {
            errors.extend(action().err());
        }
        errors
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.take_back();
    }
}
