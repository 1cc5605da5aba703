//! The protocol in motion.

mod sim;
