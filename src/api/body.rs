//! The body of a request: its media type, its bounds, and the time it may take.

use super::data_url;
use super::error::{ApiError, ApiResult, Fault};
use super::room::Hold;
use super::shown;
use actix_web::HttpRequest;
use actix_web::error::PayloadError;
use actix_web::http::header;
use actix_web::web::Bytes;
use futures_util::stream::{LocalBoxStream, Stream, StreamExt, unfold};
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// What a body may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// The most bytes.
    pub bytes: usize,
    /// How long it may take, however small it is.
    pub time: Duration,
    /// The bytes for which it may take another second.
    pub rate: usize,
}

impl Bounds {
    /// A JSON body without pictures.
    pub const TEXT: Self = Self::of(1 << 20);
    /// A JSON body with a picture and a mask in it.
    pub const PICTURES: Self = Self::of(2 * data_url::MOST_CHARS + (1 << 20));

    /// A body of at most `bytes`: a minute, and a second more for each 256 KiB. Whoever sends more slowly keeps the
    /// room that the body takes from others.
    pub const fn of(bytes: usize) -> Self {
        Self { bytes, time: Duration::from_secs(60), rate: 256 << 10 }
    }

    /// The time after which a body is late of which `had` bytes are there.
    fn late(&self, had: usize) -> Duration {
        self.time + Duration::from_secs((had / self.rate) as u64)
    }
}

/// The media type of a body, in lower case and without its parameters; empty where the request has none.
pub(super) fn media_type(request: &HttpRequest) -> String {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = given.and_then(|given| given.split(';').next()).unwrap_or("");
    kind.trim().to_ascii_lowercase()
}

/// The refusal of a body that is of none of the media types in `allowed`.
///
/// A missing content type is refused like a wrong one: a web page of another origin can make a browser send either
/// without being asked.
pub(super) fn wrong_media_type(request: &HttpRequest, allowed: &str) -> ApiError {
    let given = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let message = format!("the content-type must be {allowed}; got '{}'", shown(given.unwrap_or("")));
    ApiError::new(Fault::MediaType, message)
}

/// Reads a JSON body without pictures.
pub(super) async fn json(
    request: &HttpRequest,
    payload: impl Stream<Item = Result<Bytes, PayloadError>> + 'static,
) -> ApiResult<Bytes> {
    if media_type(request) != "application/json" {
        return Err(wrong_media_type(request, "application/json"));
    }
    whole(payload, Bounds::TEXT, None).await
}

/// Reads a body to its end. What it takes is held in `hold`, if there is one.
pub(super) async fn whole(
    payload: impl Stream<Item = Result<Bytes, PayloadError>> + 'static,
    bounds: Bounds,
    mut hold: Option<&mut Hold>,
) -> ApiResult<Bytes> {
    let mut chunks = bounded(payload, bounds);
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|cause| broken(&cause, bounds))?;
        if let Some(hold) = &mut hold {
            hold.grow(chunk.len())?;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// The chunks of a body. Past a bound the last item is an error, which [`broken`] puts into words.
pub(super) fn bounded<S>(
    payload: S,
    bounds: Bounds,
) -> impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + 'static
where
    S: Stream<Item = Result<Bytes, PayloadError>> + 'static,
{
    let began = Instant::now();
    let start = Some((payload.boxed_local(), 0_usize));
    let next = move |state: Option<(LocalBoxStream<'static, Result<Bytes, PayloadError>>, usize)>| async move {
        let (mut payload, had) = state?;
        let chunk = match timeout_at(began + bounds.late(had), payload.next()).await {
            Ok(None) => return None,
            Ok(Some(Ok(chunk))) => chunk,
            Ok(Some(Err(cause))) => return Some((Err(cause), None)),
            Err(_) => return Some((Err(PayloadError::Io(io::ErrorKind::TimedOut.into())), None)),
        };
        let had = had + chunk.len();
        if had > bounds.bytes {
            return Some((Err(PayloadError::Io(io::ErrorKind::FileTooLarge.into())), None));
        }
        Some((Ok(chunk), Some((payload, had))))
    };
    // Fused, since a form's reader asks again after the end.
    unfold(start, next).fuse().boxed_local()
}

/// Why a body could not be read.
pub(super) fn broken(cause: &PayloadError, bounds: Bounds) -> ApiError {
    match cause {
        PayloadError::Io(cause) if cause.kind() == io::ErrorKind::FileTooLarge => {
            ApiError::new(Fault::LargeBody, format!("the body is larger than {} bytes", bounds.bytes))
        }
        PayloadError::Io(cause) if cause.kind() == io::ErrorKind::TimedOut => {
            let (seconds, rate) = (bounds.time.as_secs(), bounds.rate);
            let message =
                format!("the body took more than {seconds} s, and a second more for each {rate} bytes");
            ApiError::new(Fault::SlowBody, message)
        }
        cause => ApiError::new(Fault::Body, format!("the body did not arrive whole: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::room::Room;
    use actix_web::ResponseError;
    use futures_util::stream::{iter, pending};

    const SHORT: Bounds = Bounds { bytes: 100, time: Duration::from_millis(60), rate: 10 };

    fn chunks(of: &[usize]) -> impl Stream<Item = Result<Bytes, PayloadError>> + 'static {
        iter(of.iter().map(|&length| Ok(vec![b'x'; length].into())).collect::<Vec<_>>())
    }

    #[actix_web::test]
    async fn a_body_up_to_the_bound_is_read_and_one_byte_more_is_refused() {
        assert_eq!(whole(chunks(&[60, 40]), SHORT, None).await.unwrap().len(), 100);
        let refused = whole(chunks(&[60, 41, 1 << 30]), SHORT, None).await.unwrap_err();
        assert_eq!(refused.status_code().as_u16(), 413);
        assert!(refused.to_string().contains("100 bytes"), "{refused}");
    }

    #[actix_web::test]
    async fn a_body_that_does_not_come_is_refused_in_time() {
        let refused = whole(pending(), SHORT, None).await.unwrap_err();
        assert_eq!(refused.status_code().as_u16(), 408);
    }

    #[test]
    fn a_body_has_more_time_the_more_of_it_is_there() {
        let late = |had| Bounds::of(1 << 30).late(had).as_secs();
        assert_eq!([late(0), late(256 << 10), late(100 << 20)], [60, 61, 460]);
    }

    #[actix_web::test]
    async fn a_body_for_which_there_is_no_room_is_refused_while_it_comes() {
        let room = Room::new(4096);
        let bounds = Bounds::of(1 << 20);
        let mut hold = room.hold();
        let refused = whole(chunks(&[4000, 4000]), bounds, Some(&mut hold)).await.unwrap_err();
        assert_eq!(refused.status_code().as_u16(), 503);
        drop(hold);
        let mut hold = room.hold();
        assert!(whole(chunks(&[2000, 2000]), bounds, Some(&mut hold)).await.is_ok());
    }
}
