//! One process, one request: environment and standard input in, one JSON document out.
