//! The five verbs.

use cni_spec::{AddRequest, CheckRequest, CniResult, DelRequest, GcRequest, Plugin, StatusRequest};

use crate::{Error, add, backend, check, del, gc, status};

/// The CNI main plugin `podwire`.
pub struct Podwire;

impl Plugin for Podwire {
    type Error = Error;

    fn about(&self) -> String {
        let node = backend::explain().join("\n  ");
        format!(
            "podwire {}: CNI main plugin, one routed veth pair per pod\nOn this node:\n  {node}",
            env!("CARGO_PKG_VERSION")
        )
    }

    fn add(&self, request: &AddRequest) -> Result<CniResult, Error> {
        add::add(request)
    }

    fn del(&self, request: &DelRequest) -> Result<(), Error> {
        del::del(request)
    }

    fn check(&self, request: &CheckRequest) -> Result<(), Error> {
        check::check(request)
    }

    fn gc(&self, request: &GcRequest) -> Result<(), Error> {
        gc::gc(request)
    }

    fn status(&self, request: &StatusRequest) -> Result<(), Error> {
        status::status(request)
    }
}
