//! Private user, network and mount namespaces for tests, demos and benchmarks.
