//! A handler that panics costs its own request an error, and no other caller anything.

use super::error::ApiError;
use crate::error::Error as Refusal;
use actix_web::Error;
use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use futures_util::FutureExt;
use std::any::Any;
use std::panic::AssertUnwindSafe;

/// Turns the panic of a handler into an internal error.
pub(super) async fn caught(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    // What a handler shares with others stands behind locks and channels that bear an unwinding thread.
    let answer = AssertUnwindSafe(async { next.call(request).await }).catch_unwind().await;
    answer.unwrap_or_else(|panic| {
        let message = format!("a handler panicked: {}", words(&*panic));
        Err(ApiError::from(Refusal::internal(message)).into())
    })
}

/// What a panic says.
fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, try_call_service};
    use actix_web::{App, HttpResponse, rt, web};
    use serde_json::{Value, json};

    #[test]
    fn a_panic_is_an_internal_error_in_the_error_shape_and_the_next_request_is_served() {
        rt::System::new().block_on(async {
            let fails = || async { panic!("the {} broke", "lamp") as HttpResponse };
            let works = || async { HttpResponse::Ok().finish() };
            let app = App::new().wrap(from_fn(caught));
            let app =
                init_service(app.route("/fails", web::get().to(fails)).route("/works", web::get().to(works)))
                    .await;
            let refused =
                try_call_service(&app, TestRequest::get().uri("/fails").to_request()).await.unwrap_err();
            assert!(refused.to_string().contains("the lamp broke"), "the log has it: {refused}");
            let answer = refused.error_response();
            assert_eq!(answer.status().as_u16(), 500);
            let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(
                (&body["error"]["type"], &body["error"]["param"]),
                (&json!("server_error"), &Value::Null)
            );
            assert!(!body.to_string().contains("lamp"), "a caller has no use for it: {body}");
            let next = try_call_service(&app, TestRequest::get().uri("/works").to_request()).await.unwrap();
            assert_eq!(next.status().as_u16(), 200);
        });
    }
}
