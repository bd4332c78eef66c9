//! A demo runtime that attaches real pods, and conflists to start from.
//!
//! [`manifest`] and [`conflist`] read what a kubelet and its runtime would read; [`container`] makes a
//! runtime's parameters of it; [`runtime`] calls the chain as libcni does. [`stage`] is a private world of
//! network namespaces, [`server`] and [`exchange`] are the two ends of a question asked in it, [`proof`] is
//! the list of questions and [`residue`] what is left when all is over. [`demo`] plays it from beginning to
//! end, [`cluster`] plays it on several nodes, [`report`] prints it, [`cli`] is its command line.
//!
//! What this crate does not do: it runs no containers. A pod is its network namespace, and a server in it. The package
//! `podwire-runtimes` has real runtimes play on the same stage; [`serve`] is what runs in their containers, [`shipped`]
//! what both play with.

pub mod cli;
pub mod cluster;
pub mod conflist;
pub mod container;
pub mod demo;
pub mod exchange;
pub mod leases;
pub mod manifest;
pub mod proof;
pub mod report;
pub mod residue;
pub mod runtime;
pub mod serve;
pub mod server;
pub mod shipped;
pub mod stage;
pub mod swap;
