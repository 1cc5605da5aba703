//! Black-box proofs.
fn main() {}
