//! Reading and writing HTTP/2 streams within their windows.

use std::future::poll_fn;

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};

use super::handshake::Frame;
use super::limits::HANDSHAKE_BYTES_MAX;

/// A stream did not bring what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// HTTP/2 or the connection failed.
    #[error(transparent)]
    Http(#[from] h2::Error),
    /// It ended too early.
    #[error("the stream ended early")]
    Ended,
    /// Pings are not answered.
    #[error("pings are not answered")]
    Silent,
    /// It brought more than it may.
    #[error("more than {0} bytes")]
    TooLarge(usize),
    /// It brought something else.
    #[error("not a handshake frame")]
    BadFrame,
}

/// Waits until at least one byte may be sent, and says how many.
///
/// # Cancel safety
/// Nothing is lost by dropping it.
pub(super) async fn capacity(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<usize, StreamError> {
    stream.reserve_capacity(wanted);
    loop {
        let ready = stream.capacity();
        if ready > 0 {
            return Ok(ready);
        }
        match poll_fn(|cx| stream.poll_capacity(cx)).await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error.into()),
            None => return Err(StreamError::Ended),
        }
    }
}

/// Sends all of `data`, as the windows permit.
pub(super) async fn send_all(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    end: bool,
) -> Result<(), StreamError> {
    while !data.is_empty() {
        let now = capacity(stream, data.len()).await?.min(data.len());
        let piece = data.split_to(now);
        stream.send_data(piece, end && data.is_empty())?;
    }
    Ok(())
}

/// The next bytes of a stream, already given back to its window; `None` at its end.
pub(super) async fn next_chunk(body: &mut RecvStream) -> Result<Option<Bytes>, StreamError> {
    match body.data().await {
        None => Ok(None),
        Some(chunk) => {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            Ok(Some(chunk))
        }
    }
}

/// All of a stream, at most `bytes_max`.
pub(super) async fn read_all(body: &mut RecvStream, bytes_max: usize) -> Result<BytesMut, StreamError> {
    let mut all = BytesMut::new();
    while let Some(chunk) = next_chunk(body).await? {
        if all.len() + chunk.len() > bytes_max {
            return Err(StreamError::TooLarge(bytes_max));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

/// The next handshake frame of a stream; `buffer` keeps what came beyond it.
pub(super) async fn next_frame(body: &mut RecvStream, buffer: &mut BytesMut) -> Result<Frame, StreamError> {
    loop {
        if let Some(frame) = Frame::take(buffer).map_err(|_| StreamError::BadFrame)? {
            return Ok(frame);
        }
        let chunk = next_chunk(body).await?.ok_or(StreamError::Ended)?;
        if buffer.len() + chunk.len() > 2 * HANDSHAKE_BYTES_MAX {
            return Err(StreamError::TooLarge(2 * HANDSHAKE_BYTES_MAX));
        }
        buffer.extend_from_slice(&chunk);
    }
}
