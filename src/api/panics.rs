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
    use crate::api::{Server, Settings, State, edge, gate};
    use crate::engine::{self, Engine};
    use crate::metrics::Metrics;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, try_call_service};
    use actix_web::web::{self, Data};
    use actix_web::{App, HttpResponse, rt};
    use serde_json::{Value, json};

    /// What handlers share on a server that has no model.
    fn state() -> State {
        let metrics = Metrics::new().unwrap();
        let work = engine::Settings { queue: 1, rows: None, remember: false };
        let engine = Engine::start(|| Err(Refusal::checkpoint("no model")), work, metrics.clone()).unwrap();
        let folder = std::env::temp_dir().join(format!("easel-panics-{}", std::process::id()));
        let settings = Settings { storage: Some(folder.display().to_string()), ..Settings::default() };
        Server::bind("127.0.0.1", 0, engine, metrics, settings).unwrap().state
    }

    #[test]
    fn a_panic_is_an_internal_error_with_all_that_an_answer_has_and_the_next_request_is_served() {
        rt::System::new().block_on(async {
            let fails = || async { panic!("the {} broke", "lamp") as HttpResponse };
            let works = || async { HttpResponse::Ok().finish() };
            let state = state();
            let app = App::new()
                .app_data(Data::new(state.clone()))
                .wrap(from_fn(caught))
                .wrap(from_fn(gate::pass))
                .wrap(from_fn(edge::answer))
                .route("/v1/fails", web::post().to(fails))
                .route("/v1/works", web::get().to(works));
            let app = init_service(app).await;
            // With a key, the handler runs in a task of its own; its failure leaves the key free.
            for key in [None, Some("one"), Some("one")] {
                let request = TestRequest::post().uri("/v1/fails");
                let request = key
                    .into_iter()
                    .fold(request, |request, key| request.insert_header(("idempotency-key", key)));
                let refused = try_call_service(&app, request.to_request()).await.unwrap_err();
                assert!(refused.to_string().contains("the lamp broke"), "the log has it: {refused}");
                let answer = refused.error_response();
                assert_eq!(answer.status().as_u16(), 500);
                assert!(answer.headers().contains_key("x-request-id"));
                assert!(answer.headers().contains_key("openai-processing-ms"));
                let body = actix_web::body::to_bytes(answer.into_body()).await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                let error = &body["error"];
                assert_eq!((&error["type"], &error["param"]), (&json!("server_error"), &Value::Null));
                assert!(!body.to_string().contains("lamp"), "a caller has no use for it: {body}");
            }
            let next =
                try_call_service(&app, TestRequest::get().uri("/v1/works").to_request()).await.unwrap();
            assert_eq!(next.status().as_u16(), 200);
            let failed = state.metrics.requests.with_label_values(&["/v1/fails", "500"]).get();
            assert_eq!(failed, 3, "each is counted");
        });
    }
}
