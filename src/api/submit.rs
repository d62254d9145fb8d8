//! A request's way into the engine, for whoever sent it.

use super::State;
use super::error::{ApiError, ApiResult, Fault};
use crate::engine::{Submission, Ticket};
use crate::error::Error;
use crate::request::GenerateRequest;
use actix_web::{HttpMessage, HttpRequest};

/// Puts `request` into the engine, with so many previews of each picture. The caller's places stay taken until the last
/// byte of the answer to `http` is sent.
///
/// # Errors
/// If the caller has too many pictures in the server already, or the engine takes on nothing.
pub(super) fn submit(
    http: &HttpRequest,
    state: &State,
    request: GenerateRequest,
    previews: u32,
) -> ApiResult<Ticket> {
    let place = match &state.places {
        None => None,
        Some(places) => {
            let (each, pictures) = (places.each(), request.count.get());
            if pictures > each {
                let message = format!("n must be at most {each} on this server; got {pictures}");
                return Err(Error::parameter("n", message).into());
            }
            let caller = state.callers.accountable(http, &state.settings.keys);
            let place = places.take(caller, pictures);
            Some(place.ok_or_else(|| {
                let retry_after = state.engine.retry_after();
                let message = format!(
                    "at most {each} pictures of a caller are drawn at once, and with this request it would be more; \
                     one is likely to be done in {retry_after} s"
                );
                ApiError::new(Fault::Places { retry_after }, message)
            })?)
        }
    };
    let caller = state.callers.number(http);
    let timeout = state.settings.timeout;
    let ticket = state.engine.submit(Submission { request, caller, previews, timeout })?;
    if let Some(place) = place {
        http.extensions_mut().insert(place);
    }
    Ok(ticket)
}
