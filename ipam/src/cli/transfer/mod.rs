//! `ipam export` and `ipam import`: leases and reservations as text.

mod document;
mod export;
pub(super) mod host_local;
mod import;
mod plan;

pub(super) use document::Line;
pub(super) use export::{EXAMPLES as EXPORT_EXAMPLES, Export};
pub(super) use import::{EXAMPLES as IMPORT_EXAMPLES, Import};
pub(super) use plan::PlannedAction;
