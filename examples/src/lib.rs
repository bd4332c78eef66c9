//! A demo runtime that attaches real pods, and conflists to start from.
