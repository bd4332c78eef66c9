//! Runs any CNI plugin against the CNI spec.
