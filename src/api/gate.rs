//! What a request passes before it is answered: its key, its caller's allowance, and whether it came before.
//!
//! Everything under `/v1` does. What lies beside it needs no key: health, readiness and metrics are asked for by
//! machines of the same cluster, the description of the API holds no secret, and a stored picture's name is its key.

use super::State;
use super::caller::bearer;
use super::cors;
use super::error::{ApiError, ApiResult, Fault};
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage};
use std::sync::Arc;

/// The name of the key that a request came with, left in its extensions for the log.
#[derive(Debug, Clone)]
pub(super) struct KeyName(pub Arc<str>);

/// Lets a request through to its handler, or refuses it.
pub(super) async fn pass(
    state: Data<State>,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Some(answer) = cors::preflight(&state.settings.cors_origins, request.request()) {
        return Ok(request.into_response(answer));
    }
    if !is_api(&request) {
        return next.call(request).await;
    }
    if let Err(refused) = admit(&state, &request) {
        return Ok(request.error_response(refused));
    }
    let caller = state.callers.number(request.request());
    let Some(rate) = &state.rate else { return state.once.answer(caller, request, next).await };
    let standing = rate.count(state.callers.accountable(request.request(), &state.settings.keys));
    let mut answer = match standing.wait {
        None => state.once.answer(caller, request, next).await?,
        Some(wait) => request.error_response(standing.refusal(wait)),
    };
    standing.put(answer.headers_mut());
    Ok(answer)
}

/// Whether a request is for the API proper. Judged by the path that the router goes by, whose escapes are resolved.
fn is_api(request: &ServiceRequest) -> bool {
    let path = request.match_info().as_str();
    path.strip_prefix("/v1").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Refuses a caller without a key where one is needed, and pages that their visitor's browser should not trust.
fn admit(state: &State, request: &ServiceRequest) -> ApiResult<()> {
    let keys = &state.settings.keys;
    if keys.asked_for() {
        let key = bearer(request.headers()).ok_or_else(|| {
            let message = "this server needs an API key, and none came: send it in the header \
                           'Authorization: Bearer KEY', or set it as your client's api_key";
            ApiError::new(Fault::NoKey, message)
        })?;
        let name = keys.name_of(key).ok_or_else(|| {
            ApiError::new(
                Fault::WrongKey,
                "the API key that came with the request is not one of this server's",
            )
        })?;
        request.extensions_mut().insert(KeyName(name));
    }
    cors::refuse_forms_of_strangers(&state.settings.cors_origins, request.request())
}
