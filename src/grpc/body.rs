//! Reading messages from HTTP/2 streams: one of a unary request here, those of a stream in `stream`.

use std::future::poll_fn;
use std::io::Read;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::GzDecoder;
use h2::RecvStream;
use http::{HeaderMap, header::HeaderName};
use proto::grpc::{Frame, FrameDecoder, FrameError, MESSAGE_BYTES_MAX};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::clock;

/// A request must be whole so long after its head. Beyond: the stream is reset.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Bytes of requests that are being read or worked on, in the whole process. Beyond: the request is refused.
pub(super) const BODIES_BYTES_MAX: usize = 256 << 20;
/// The same of one connection, so that one cannot take all the room: three of the largest messages.
pub(super) const CONNECTION_BODIES_BYTES_MAX: usize = 32 << 20;
/// A message that is whole at once and no larger is not counted. One that is not whole is, however little of
/// it has come: a thousand streams of 64 KiB each, none of them ended, would be 64 MiB of one connection
/// (windows do not bound them: they are given back as bytes come).
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Counted at a time, at least.
pub(super) const STEP_BYTES: usize = 4 << 10;
/// Unit of the budget.
const UNIT_BYTES: usize = 1 << 10;

/// Room for messages that are read, in the whole process.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(super) fn new(bytes: usize) -> Budget {
        Budget(Arc::new(Semaphore::new(bytes / UNIT_BYTES)))
    }

    /// Room for so many bytes, if there is.
    pub(super) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

/// The room one message takes: of its connection's, and of the process's.
#[derive(Debug)]
pub(super) struct Room {
    budgets: [Budget; 2],
    taken: [Option<OwnedSemaphorePermit>; 2],
    bytes: usize,
}

impl Room {
    pub(super) fn new(connection: &Budget, process: &Budget) -> Room {
        Room {
            budgets: [connection.clone(), process.clone()],
            taken: [None, None],
            bytes: 0,
        }
    }

    /// Takes more until it is room for so many bytes.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), BodyError> {
        if bytes <= self.bytes {
            return Ok(());
        }
        let step = (bytes - self.bytes).max(STEP_BYTES);
        for (budget, taken) in self.budgets.iter().zip(&mut self.taken) {
            let more = budget.take(step).ok_or(BodyError::NoRoom)?;
            match taken {
                Some(taken) => taken.merge(more),
                None => *taken = Some(more),
            }
        }
        self.bytes += step;
        Ok(())
    }
}

/// How the messages of a stream are compressed, from its `grpc-encoding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// No message is.
    Identity,
    /// Some may be, by gzip.
    Gzip,
    /// By something else: such a message cannot be read.
    Other,
}

impl Encoding {
    pub(super) fn of(headers: &HeaderMap) -> Encoding {
        const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
        match headers.get(GRPC_ENCODING).map(http::HeaderValue::as_bytes) {
            None | Some(b"identity") => Encoding::Identity,
            Some(b"gzip") => Encoding::Gzip,
            Some(_) => Encoding::Other,
        }
    }
}

/// A message did not come, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    /// The client ended, reset or lost the stream.
    #[error("the stream broke off")]
    Gone,
    /// Not in time.
    #[error("the message was not whole within {} s", BODY_WITHIN.as_secs())]
    Late,
    /// Not gRPC, or too long.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Compressed by something this side does not know.
    #[error("a message compressed by something other than gzip")]
    Encoding,
    /// Compressed, and not readable or too long.
    #[error("a compressed message that is damaged or larger than {0} bytes")]
    Compressed(usize),
    /// No room at the moment.
    #[error("too many large requests at a time")]
    NoRoom,
}

impl BodyError {
    /// The gRPC status that tells it: number and text.
    pub(super) fn status(&self) -> (&'static str, &'static str) {
        match self {
            BodyError::Gone => ("1", "cancelled"),
            BodyError::Late => ("4", "the request was not whole in time"),
            BodyError::Frame(FrameError::TooLong { .. }) | BodyError::Compressed(_) => {
                ("8", "a message is larger than 10485760 bytes or damaged")
            }
            BodyError::Frame(FrameError::Flag(_)) => ("13", "not a gRPC message"),
            BodyError::Encoding => ("12", "only gzip is understood"),
            BodyError::NoRoom => ("8", "too many large requests at a time"),
        }
    }
}

/// A message, with the room it takes.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    _room: Room,
}

/// Reads the one message of a unary request.
///
/// # Cancel safety
/// What was read is lost with it; the stream is of no use then.
pub(super) async fn read_one(
    body: &mut RecvStream,
    encoding: Encoding,
    mut room: Room,
) -> Result<Body, BodyError> {
    let mut decoder = FrameDecoder::new(MESSAGE_BYTES_MAX);
    let mut deadline = None;
    let mut read = 0;
    loop {
        let chunk = next_chunk(body, &mut deadline).await?;
        read += chunk.len();
        decoder.push(chunk);
        let frame = decoder.next_frame()?;
        if frame.is_none() || read > SMALL_BYTES_MAX {
            // What is announced has its room before it is there.
            room.grow_to(read.max(decoder.held_bytes().min(SMALL_BYTES_MAX)))?;
        }
        let Some(frame) = frame else { continue };
        let is_compressed = frame.compressed;
        let bytes = inflate(frame, encoding, MESSAGE_BYTES_MAX)?;
        if is_compressed {
            room.grow_to(read.saturating_add(bytes.len()))?;
        }
        return Ok(Body { bytes, _room: room });
    }
}

/// The next bytes of a stream, already given back to its window. The deadline begins with the first wait:
/// a request that is here already needs no timer.
async fn next_chunk(body: &mut RecvStream, deadline: &mut Option<Instant>) -> Result<Bytes, BodyError> {
    let here = poll_fn(|cx| Poll::Ready(body.poll_data(cx))).await;
    let chunk = match here {
        Poll::Ready(chunk) => chunk,
        Poll::Pending => {
            let deadline = *deadline.get_or_insert_with(|| clock::now() + BODY_WITHIN);
            let next = timeout_at(deadline, poll_fn(|cx| body.poll_data(cx)));
            next.await.map_err(|_| BodyError::Late)?
        }
    };
    let chunk = chunk.ok_or(BodyError::Gone)?.map_err(|_| BodyError::Gone)?;
    body.flow_control()
        .release_capacity(chunk.len())
        .map_err(|_| BodyError::Gone)?;
    Ok(chunk)
}

/// The message of a frame, decompressed if it is compressed, at most `bytes_max`.
pub(super) fn inflate(frame: Frame, encoding: Encoding, bytes_max: usize) -> Result<Bytes, BodyError> {
    if !frame.compressed {
        return Ok(frame.message);
    }
    if encoding != Encoding::Gzip {
        return Err(BodyError::Encoding);
    }
    let mut plain = Vec::new();
    // One byte more than allowed tells a message that is too long from one that just fits.
    let mut limited = GzDecoder::new(&*frame.message).take(bytes_max as u64 + 1);
    match limited.read_to_end(&mut plain) {
        Ok(read) if read <= bytes_max => Ok(Bytes::from(plain)),
        _ => Err(BodyError::Compressed(bytes_max)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Frame {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        Frame {
            compressed: true,
            message: encoder.finish().unwrap().into(),
        }
    }

    #[test]
    fn a_compressed_message_may_be_as_large_as_a_plain_one_and_no_larger() {
        let fits = inflate(gzip(&[7; 1000]), Encoding::Gzip, 1000).unwrap();
        assert_eq!(&*fits, &[7; 1000]);
        let bomb = gzip(&vec![0; 4 << 20]);
        assert!(bomb.message.len() < 64 << 10);
        assert!(matches!(
            inflate(bomb, Encoding::Gzip, 1000),
            Err(BodyError::Compressed(1000))
        ));
    }

    #[test]
    fn damaged_and_unknown_compression_is_refused() {
        let mut damaged = gzip(b"some text that is long enough to be damaged");
        damaged.message = damaged.message.slice(..damaged.message.len() - 9);
        assert!(matches!(
            inflate(damaged, Encoding::Gzip, 1000),
            Err(BodyError::Compressed(_))
        ));
        for encoding in [Encoding::Identity, Encoding::Other] {
            assert!(matches!(
                inflate(gzip(b"x"), encoding, 1000),
                Err(BodyError::Encoding)
            ));
        }
    }

    #[test]
    fn one_connection_takes_no_more_than_its_own_room() {
        let (connection, process) = (Budget::new(64 << 10), Budget::new(1 << 20));
        let mut room = Room::new(&connection, &process);
        room.grow_to(1).unwrap();
        room.grow_to(40 << 10).unwrap();
        assert!(Room::new(&connection, &process).grow_to(40 << 10).is_err());
        assert!(connection.take(25 << 10).is_none());
        let other = Budget::new(64 << 10);
        Room::new(&other, &process).grow_to(60 << 10).unwrap();
        drop(room);
        assert!(connection.take(64 << 10).is_some() && process.take(1 << 20).is_some());
    }

    #[test]
    fn room_comes_back() {
        let budget = Budget::new(10 << 10);
        let taken = budget.take(9 << 10).unwrap();
        assert!(budget.take(2 << 10).is_none());
        drop(taken);
        assert!(budget.take(10 << 10).is_some());
    }
}
