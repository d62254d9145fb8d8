//! Pictures that are fetched by their address: `/images/{name}`, and the addresses that answers name.

use super::dto::{ErrorAnswer, Image};
use super::error::{ApiError, ApiResult, Fault};
use super::{State, now, shown};
use crate::config::PublicUrl;
use crate::error::Result;
use crate::output::{Format, Name};
use actix_web::body::SizedStream;
use actix_web::http::header::{self, HeaderMap};
use actix_web::http::{Method, StatusCode};
use actix_web::rt::time::sleep;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, route};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream;
use object_store::GetRange;
use std::ops::Range;
use std::time::Duration;

/// The server's address as the caller of `http` knows it: the public one where there is a setting, or else the host
/// that the request names. What proxies add (`x-forwarded-host`) is not believed: any caller can write it.
///
/// # Errors
/// If the request's host is none.
pub(super) fn base(http: &HttpRequest, state: &State) -> ApiResult<PublicUrl> {
    if let Some(public) = &state.settings.public_url {
        return Ok(public.clone());
    }
    let host =
        http.headers().get(header::HOST).map_or("".into(), |host| String::from_utf8_lossy(host.as_bytes()));
    PublicUrl::of_host(&host).ok_or_else(|| {
        let message = format!(
            "an answer by url needs a host header with the server's name; got '{}'. Send response_format b64_json, or \
             start the server with --public-url",
            shown(&host)
        );
        ApiError::new(Fault::Host, message)
    })
}

/// Keeps `files`, and gives their addresses.
///
/// # Errors
/// If the store fails: no address is given for what cannot be fetched.
pub(super) async fn keep(
    state: &State,
    base: &PublicUrl,
    files: Vec<Vec<u8>>,
    format: Format,
) -> Result<Vec<Image>> {
    let keep = async |file: Vec<u8>| {
        let (now, bytes) = (now(), file.len() as u64);
        let name = state.store.put(file, format, now).await?;
        state.metrics.stored_bytes.inc_by(bytes);
        let own = || base.join(&format!("/images/{}", name.as_str()));
        Ok(Image::at(state.store.address(&name, now).await?.unwrap_or_else(own)))
    };
    let kept = try_join_all(files.into_iter().map(keep)).await;
    kept.inspect_err(|_| failed(state, "write"))
}

/// Deletes pictures whose time is up, as long as the server runs.
pub(super) async fn sweep(state: State) {
    // A link is dead at its second; the sweep only frees the room.
    let every = state.settings.url_lifetime.clamp(Duration::from_secs(1), Duration::from_secs(60));
    loop {
        match state.store.sweep(now()).await {
            Ok(0) => {}
            Ok(swept) => tracing::debug!(swept, "pictures past their time are deleted"),
            Err(error) => {
                failed(&state, "sweep");
                tracing::warn!(%error, "the store is not swept");
            }
        }
        sleep(every).await;
    }
}

/// `GET /images/{name}`: a stored picture, until its time is up.
#[utoipa::path(
    get,
    path = "/images/{name}",
    tag = "images",
    summary = "Fetch a picture by its address, until its time is up",
    params(("name" = String, Path, description = "The last part of an answer's `url`")),
    responses(
        (
            status = 200,
            description = "The picture's file",
            content((String = "image/png"), (String = "image/jpeg"), (String = "image/webp"))
        ),
        (
            status = 206,
            description = "The part that `range` asks for",
            content((String = "image/png"), (String = "image/jpeg"), (String = "image/webp"))
        ),
        (status = 304, description = "It is what `if-none-match` names"),
        (status = 404, description = "There is no such picture, or no longer", body = ErrorAnswer),
        (status = 500, description = "The store cannot be read", body = ErrorAnswer)
    )
)]
#[route("/images/{name}", method = "GET", method = "HEAD")]
pub(super) async fn image(http: HttpRequest, state: Data<State>) -> ApiResult<HttpResponse> {
    let asked = http.match_info().query("name");
    let now = now();
    let name = Name::parse(asked).filter(|name| name.expires() > now).ok_or_else(|| gone(asked))?;
    let get = async |range| match state.store.get(&name, range).await {
        Ok(found) => found.ok_or_else(|| gone(asked)),
        Err(error) => {
            failed(&state, "read");
            Err(error.into())
        }
    };
    let mut found = get(None).await?;
    let tag = format!("\"{}\"", name.as_str());
    let mut answer = HttpResponse::Ok();
    answer
        .insert_header((
            header::CACHE_CONTROL,
            format!("public, max-age={}, immutable", name.expires() - now),
        ))
        .insert_header((header::ETAG, tag.as_str()));
    if names(http.headers(), header::IF_NONE_MATCH, &tag) {
        return Ok(answer.status(StatusCode::NOT_MODIFIED).finish());
    }
    let size = found.meta.size;
    if let Some(range) = part(http.headers(), size, &tag) {
        let Range { start, end } = range;
        found = get(Some(GetRange::Bounded(range))).await?;
        answer
            .status(StatusCode::PARTIAL_CONTENT)
            .insert_header((header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1)));
    }
    answer
        .content_type(name.mime())
        .insert_header((header::CONTENT_DISPOSITION, "inline"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::ACCEPT_RANGES, "bytes"));
    let length = found.range.end - found.range.start;
    // An answer to HEAD tells the length of a body that it does not have.
    let body = if http.method() == Method::HEAD { stream::empty().boxed() } else { found.into_stream() };
    Ok(answer.body(SizedStream::new(length, body)))
}

/// The one part of a file of `size` bytes that is asked for; none where all of it is, or several parts are, or none
/// that it has: a server may ignore ranges (RFC 9110, 14.2).
fn part(headers: &HeaderMap, size: u64, tag: &str) -> Option<Range<u64>> {
    let header::Range::Bytes(parts) = headers.get(header::RANGE)?.to_str().ok()?.parse().ok()? else {
        return None;
    };
    let [part] = parts.as_slice() else { return None };
    let same = !headers.contains_key(header::IF_RANGE) || names(headers, header::IF_RANGE, tag);
    let (first, last) = part.to_satisfiable_range(size).filter(|_| same)?;
    Some(first..last + 1)
}

/// Whether a header that lists entity tags names `tag`, or any.
fn names(headers: &HeaderMap, header: header::HeaderName, tag: &str) -> bool {
    let lists = headers.get_all(header).filter_map(|list| list.to_str().ok());
    lists
        .flat_map(|list| list.split(','))
        .map(str::trim)
        .any(|named| named == "*" || named.strip_prefix("W/").unwrap_or(named) == tag)
}

/// The refusal of a name that is none, never was one, or was one once: a guesser learns nothing.
fn gone(asked: &str) -> ApiError {
    let message = format!("there is no picture '{}' (any more)", shown(asked));
    ApiError::new(Fault::UnknownImage, message)
}

fn failed(state: &State, operation: &str) {
    state.metrics.storage_failures.with_label_values(&[operation]).inc();
}
