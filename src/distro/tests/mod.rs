//! The protocol in motion.

mod sim;
mod two;
