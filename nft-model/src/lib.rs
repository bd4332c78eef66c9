//! What nf_tables holds, as values that print as nft(8) text.
