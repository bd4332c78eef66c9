//! The only crate that talks to Linux: namespaces, rtnetlink, nf_tables, sysctl.
