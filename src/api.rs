//! HTTP: the only place that knows its words, JSON's and OpenAI's.
//!
//! A body is read once, in `parse`, into a checked request; [`Engine::submit`] draws it; `output` makes a file of it.
//! Every answer passes `edge`, and every refusal is written by `error`.

mod body;
mod dto;
mod edge;
mod error;
mod fields;
mod ids;
mod images;
mod models;
mod ops;
mod parse;

use crate::engine::Engine;
use crate::error::{Error, Result};
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Resource, guard};
use error::{ApiError, ApiResult, Fault};
use std::net::{SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

/// What every handler may use.
#[derive(Debug, Clone)]
struct State {
    engine: Engine,
    /// When the server began, in Unix seconds.
    since: u64,
}

/// The HTTP server, bound to its address and not yet answering.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    state: State,
}

/// Threads that speak HTTP. Pictures are drawn and encoded elsewhere, so a few serve thousands of connections.
const WORKERS: usize = 2;

/// How long a stopping server waits for the requests it has, in seconds.
const GRACE: u64 = 30;

impl Server {
    /// Takes the address; port 0 lets the system choose one.
    ///
    /// # Errors
    /// If the host is unknown, or the port is taken or not allowed.
    pub fn bind(host: &str, port: u16, engine: Engine) -> Result<Self> {
        let listener = TcpListener::bind((host, port))
            .map_err(|cause| Error::config(format!("cannot listen on {host}:{port}: {cause}")))?;
        Ok(Self { listener, state: State { engine, since: now() } })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|cause| Error::io("the server's address", cause))
    }

    /// Answers until SIGTERM (finishing the requests it has) or SIGINT (at once). Blocks the thread.
    ///
    /// # Errors
    /// If the system has no room for the server's threads.
    pub fn run(self) -> Result<()> {
        let Self { listener, state } = self;
        let served = actix_web::rt::System::new().block_on(async move {
            HttpServer::new(move || {
                App::new().app_data(Data::new(state.clone())).wrap(from_fn(edge::answer)).configure(routes)
            })
            .workers(WORKERS)
            .shutdown_timeout(GRACE)
            // A caller who closes the connection drops the handler, and with it the ticket of the request.
            .h1_allow_half_closed(false)
            .listen(listener)?
            .run()
            .await
        });
        served.map_err(|cause| Error::io("the server", cause))
    }
}

/// Every route. A path that is none of these is refused as OpenAI does, and so is a wrong method.
fn routes(config: &mut ServiceConfig) {
    let get = || web::route().guard(guard::Any(guard::Get()).or(guard::Head()));
    config
        .service(resource("/v1/images/generations", "POST").route(web::post().to(images::generations)))
        .service(resource("/v1/models", "GET, HEAD").route(get().to(models::list)))
        .service(resource("/v1/models/{id:.+}", "GET, HEAD").route(get().to(models::retrieve)))
        .service(resource("/healthz", "GET, HEAD").route(get().to(ops::healthz)))
        .default_service(web::to(unknown));
}

/// A path that refuses all methods but those of `allow`.
fn resource(path: &str, allow: &'static str) -> Resource {
    web::resource(path).default_service(web::to(move |request: HttpRequest| async move {
        let message =
            format!("{} is not allowed on {}; allowed: {allow}", request.method(), shown(request.path()));
        Err::<HttpResponse, _>(ApiError::new(Fault::Method { allow }, message))
    }))
}

async fn unknown(request: HttpRequest) -> ApiResult<HttpResponse> {
    let message = format!("there is no route {} {}", request.method(), shown(request.path()));
    Err(ApiError::new(Fault::UnknownRoute, message))
}

/// As much of a caller's text as belongs into a message.
fn shown(text: &str) -> String {
    const MOST: usize = 80;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

/// Unix seconds.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
