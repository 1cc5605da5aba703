//! Every bound of the HTTP door, and what happens at it.

use std::time::Duration;

/// Bytes of a body: a form-encoded content of 10 MiB is up to 30. Beyond: 413.
pub(super) const BODY_BYTES_MAX: usize = 32 << 20;
/// Bytes of a request line of POST and PUT: old Python clients publish in the query. Beyond: 414.
pub(super) const LONG_LINE_BYTES_MAX: usize = 1 << 20;
/// A longer request line is rescued ([`super::wire`]); other methods get 414 where `http::Uri` ends, 64 KiB.
pub(super) const SHORT_LINE_BYTES_MAX: usize = 48 << 10;
/// Over-long request lines being read at a time, in the whole process: 64 MiB. Beyond: 503.
pub(super) const LONG_LINES_MAX: usize = 64;
/// Bytes of all headers, names and values. Beyond: 431.
pub(super) const HEADER_BYTES_MAX: usize = 16 << 10;
/// Headers of a request. Beyond: 431.
pub(super) const HEADERS_MAX: usize = 100;
/// hyper's buffer: the longest ordinary request line, the headers, and some. Beyond: 431.
pub(super) const READ_BUFFER_BYTES_MAX: usize = 128 << 10;
/// A head must be complete so long after its first byte (after the connect for the first one). Beyond:
/// the connection is closed.
pub(super) const HEAD_WAIT: Duration = Duration::from_secs(10);
/// A body must bring its next bytes within this. Beyond: 408 and the connection is closed.
pub(super) const BODY_WAIT: Duration = Duration::from_secs(30);
/// An idle connection is kept so long.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// File descriptors left to everything else: logs, tables, peers, gRPC.
pub(super) const DESCRIPTORS_RESERVED: usize = 1_024;
/// Connections at a time when the limit of open files is not known.
pub(super) const CONNECTIONS_DEFAULT: usize = 10_000;
/// Bodies that are being read, in the whole process. Beyond: 503.
pub(super) const BODIES_BYTES_MAX: usize = 512 << 20;
/// Smaller bodies are not counted.
pub(super) const BODY_SMALL_BYTES_MAX: usize = 64 << 10;
