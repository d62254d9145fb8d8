//! What callers read when something fails: the one table from errors to HTTP, and OpenAI's error object.

use super::dto::{ErrorAnswer, ErrorObject};
use crate::error::{Error, ErrorKind, ImageFlaw};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use std::time::Duration;

/// What is wrong with a request: an error of the library, or a refusal that only HTTP knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// Anything behind the API.
    Library(ErrorKind),
    /// The body is no JSON object or no form, or broke off.
    Body,
    /// The body takes too long to arrive.
    SlowBody,
    /// The body is over the limit.
    LargeBody,
    /// The body is of a media type that the route does not read.
    MediaType,
    /// There is no such route.
    UnknownRoute,
    /// The route has other methods.
    Method {
        /// Those that it has, as the `allow` header lists them.
        allow: String,
    },
    /// There is no such model.
    UnknownModel,
    /// The model is not the caller's to delete.
    NotDeletable,
    /// There is no such stored picture, or no longer.
    UnknownImage,
    /// The request does not say which host it asks, and the answer must.
    Host,
    /// A key is needed and none came.
    NoKey,
    /// The key that came is none of the server's.
    WrongKey,
    /// A web page of another origin sends what its visitor's browser does not ask about.
    ForeignOrigin,
    /// The caller has used up its requests.
    Rate {
        /// When the next will be let in.
        wait: Duration,
    },
    /// The caller has as many pictures in the server as it may.
    Places {
        /// Whole seconds after which one is likely to be done.
        retry_after: u32,
    },
    /// The `Idempotency-Key` belongs to another request.
    KeyReused,
    /// The first request with this `Idempotency-Key` left nothing to answer with.
    KeyFreed,
}

/// A fault and its sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct ApiError {
    fault: Fault,
    message: String,
}

/// The result of whatever answers a request.
pub(super) type ApiResult<T> = Result<T, ApiError>;

/// A row of the table: the status, OpenAI's `type`, OpenAI's `code`, and the reason that the metrics count.
type Row = (u16, &'static str, Option<&'static str>, &'static str);

/// The row of each fault.
fn row(fault: &Fault) -> Row {
    const REQUEST: &str = "invalid_request_error";
    const SERVER: &str = "server_error";
    const LIMIT: &str = "rate_limit_error";
    const BUSY: &str = "service_unavailable_error";
    match fault {
        Fault::Library(kind) => match kind {
            ErrorKind::InvalidParameter { .. } => (400, REQUEST, Some("invalid_value"), "invalid_value"),
            ErrorKind::InvalidImage { flaw, .. } => (400, REQUEST, Some(image_code(*flaw)), "invalid_image"),
            ErrorKind::QueueFull { .. } => (429, LIMIT, Some("rate_limit_exceeded"), "queue_full"),
            ErrorKind::Cancelled => (499, REQUEST, Some("request_cancelled"), "cancelled"),
            ErrorKind::Timeout => (504, SERVER, Some("timeout"), "timeout"),
            ErrorKind::Unavailable => (503, BUSY, Some("server_is_overloaded"), "unavailable"),
            ErrorKind::DeviceMemory => (503, BUSY, Some("out_of_memory"), "out_of_memory"),
            ErrorKind::Checkpoint | ErrorKind::Config | ErrorKind::Io | ErrorKind::Internal => {
                (500, SERVER, None, "internal")
            }
            ErrorKind::Storage => (500, SERVER, Some("storage_failed"), "storage"),
        },
        Fault::Body => (400, REQUEST, None, "invalid_body"),
        Fault::SlowBody => (408, REQUEST, Some("request_timeout"), "slow_body"),
        Fault::LargeBody => (413, REQUEST, Some("request_too_large"), "large_body"),
        Fault::MediaType => (415, REQUEST, Some("unsupported_media_type"), "media_type"),
        Fault::UnknownRoute => (404, REQUEST, Some("unknown_url"), "unknown_route"),
        Fault::Method { .. } => (405, REQUEST, Some("method_not_supported"), "method"),
        Fault::UnknownModel => (404, REQUEST, Some("model_not_found"), "unknown_model"),
        Fault::NotDeletable => (403, REQUEST, Some("permission_denied"), "not_deletable"),
        Fault::UnknownImage => (404, REQUEST, Some("image_not_found"), "unknown_image"),
        Fault::Host => (400, REQUEST, Some("invalid_host"), "host"),
        Fault::NoKey => (401, REQUEST, None, "no_key"),
        Fault::WrongKey => (401, REQUEST, Some("invalid_api_key"), "wrong_key"),
        Fault::ForeignOrigin => (403, REQUEST, Some("origin_not_allowed"), "foreign_origin"),
        Fault::Rate { .. } => (429, LIMIT, Some("rate_limit_exceeded"), "rate"),
        Fault::Places { .. } => (429, LIMIT, Some("rate_limit_exceeded"), "places"),
        Fault::KeyReused => (409, REQUEST, Some("idempotency_key_reused"), "key_reused"),
        Fault::KeyFreed => (409, REQUEST, Some("idempotency_key_freed"), "key_freed"),
    }
}

/// OpenAI's code for what is wrong with a picture.
fn image_code(flaw: ImageFlaw) -> &'static str {
    match flaw {
        ImageFlaw::Damaged => "invalid_image",
        ImageFlaw::Format => "invalid_image_format",
        ImageFlaw::MediaType => "unsupported_image_media_type",
        ImageFlaw::Empty => "empty_image_file",
        ImageFlaw::TooLarge => "image_too_large",
        ImageFlaw::FileTooLarge => "image_file_too_large",
        ImageFlaw::Base64 => "invalid_base64_image",
        ImageFlaw::Url => "invalid_image_url",
        ImageFlaw::Download => "failed_to_download_image",
    }
}

impl ApiError {
    /// A fault with its sentence, which must name the bound and the value given where there are any.
    pub(super) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into() }
    }

    /// Why the request was refused, in the metrics' words.
    pub(super) fn reason(&self) -> &'static str {
        row(&self.fault).3
    }

    fn param(&self) -> Option<&'static str> {
        match self.fault {
            Fault::Library(ErrorKind::InvalidParameter { param } | ErrorKind::InvalidImage { param, .. }) => {
                Some(param)
            }
            Fault::UnknownModel | Fault::NotDeletable => Some("model"),
            _ => None,
        }
    }

    /// The sentence for the caller. What broke inside stays in the log: it may name files, and no caller can mend it.
    fn sentence(&self, status: StatusCode) -> &str {
        if self.fault == Fault::Library(ErrorKind::Storage) {
            return "the server cannot keep or read the picture's file; response_format b64_json needs no store. Its \
                    log names the cause under this answer's x-request-id";
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            return "the server failed; its log names the cause under this answer's x-request-id";
        }
        &self.message
    }

    /// The body that tells of it.
    pub(super) fn answer(&self) -> ErrorAnswer<'_> {
        let (_, kind, code, _) = row(&self.fault);
        let message = self.sentence(self.status_code());
        ErrorAnswer { error: ErrorObject { message, kind, param: self.param(), code } }
    }

    fn headers(&self, answer: &mut HttpResponseBuilder) {
        match &self.fault {
            Fault::Method { allow } => {
                answer.insert_header((header::ALLOW, allow.as_str()));
            }
            Fault::Library(ErrorKind::QueueFull { retry_after }) | Fault::Places { retry_after } => {
                come_back(answer, Duration::from_secs(u64::from(*retry_after)));
            }
            Fault::Rate { wait } => come_back(answer, *wait),
            Fault::NoKey => {
                answer.insert_header((header::WWW_AUTHENTICATE, "Bearer realm=\"easel\""));
            }
            Fault::WrongKey => {
                let why = "Bearer realm=\"easel\", error=\"invalid_token\"";
                answer.insert_header((header::WWW_AUTHENTICATE, why));
            }
            Fault::Library(ErrorKind::Unavailable | ErrorKind::DeviceMemory) => come_back(answer, SOON),
            // The picture was drawn, and a client that tries again has it drawn again.
            Fault::Library(ErrorKind::Storage) => no_retry(answer),
            // A second attempt would draw as long again in vain, or be refused again.
            Fault::Library(ErrorKind::Timeout) | Fault::KeyReused => no_retry(answer),
            _ => {}
        }
    }
}

/// Tells OpenAI's clients, which try again after 408, 409, 429 and 5xx, that this would not help.
fn no_retry(answer: &mut HttpResponseBuilder) {
    answer.insert_header(("x-should-retry", "false"));
}

/// The time after which to ask a server again that loads, drains or is short of memory: nothing measured, but what
/// keeps callers from asking at once.
const SOON: Duration = Duration::from_secs(5);

/// Says when to ask again; OpenAI's clients read either header.
fn come_back(answer: &mut HttpResponseBuilder, wait: Duration) {
    let ms = wait.as_micros().div_ceil(1000);
    answer.insert_header((header::RETRY_AFTER, ms.div_ceil(1000).to_string()));
    answer.insert_header(("retry-after-ms", ms.to_string()));
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::new(Fault::Library(error.kind().clone()), error.message())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(row(&self.fault).0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        self.headers(&mut answer);
        answer.json(self.answer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::body::MessageBody;
    use serde_json::{Value, json};

    fn answer(error: ApiError) -> (u16, Value) {
        let answer = error.error_response();
        let status = answer.status().as_u16();
        let body = answer.into_body().try_into_bytes().unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn all_four_keys_stand_in_every_error() {
        let unknown = answer(ApiError::new(Fault::UnknownRoute, "there is no such route"));
        let expected = json!({"error": {
            "message": "there is no such route", "type": "invalid_request_error", "param": null, "code": "unknown_url"
        }});
        assert_eq!(unknown, (404, expected));
        let (status, body) = answer(Error::parameter("size", "size is off").into());
        assert_eq!((status, &body["error"]["param"]), (400, &json!("size")));
        assert_eq!(body["error"]["code"], "invalid_value");
    }

    #[test]
    fn what_broke_inside_is_not_told() {
        let (status, body) = answer(Error::io("someone/weights", "gone").into());
        assert_eq!((status, &body["error"]["type"]), (500, &json!("server_error")));
        assert!(!body.to_string().contains("someone"), "{body}");
    }

    #[test]
    fn a_full_queue_and_an_absent_engine_say_when_to_come_back() {
        let full =
            ApiError::from(Error::new(ErrorKind::QueueFull { retry_after: 3 }, "full")).error_response();
        assert_eq!(full.status().as_u16(), 429);
        assert_eq!(full.headers().get("retry-after").unwrap(), "3");
        assert_eq!(full.headers().get("retry-after-ms").unwrap(), "3000");
        let away = ApiError::from(Error::new(ErrorKind::Unavailable, "loading")).error_response();
        assert_eq!(
            (away.status().as_u16(), away.headers().get("retry-after").unwrap().as_bytes()),
            (503, &b"5"[..])
        );
    }
}
