//! Nodes over loopback sockets: doors, transports, listeners. Nothing sleeps: everything waits for what
//! the other side is seen to do, within [`support::PATIENCE`].

mod hostile;
mod links;
mod messages;
mod refusals;
mod support;
