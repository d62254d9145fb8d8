//! HTTP: the only place that knows its words, JSON's and OpenAI's.
//!
//! A body is read once, in `parse`, into a checked request; [`Engine::submit`] draws it; `output` makes a file of it.
//! Every request passes `gate`, every answer `edge`, and every refusal is written by `error`.
//!
//! The server answers from the moment it is bound: while the model loads and while the engine drains, requests for
//! pictures are refused with 503 and `/readyz` says why.

mod body;
mod caller;
mod cors;
mod data_url;
mod docs;
mod dto;
mod edge;
mod edits;
mod error;
mod fetch;
mod fields;
mod files;
mod gate;
mod idempotency;
mod ids;
mod ignored;
mod images;
mod inputs;
mod keys;
mod models;
mod multipart;
mod openapi;
mod ops;
mod panics;
mod parse;
mod places;
#[cfg(test)]
mod properties;
mod rate;
mod room;
mod stored;
mod stream;
mod submit;
mod usage;
mod wire;

use crate::config::{FetchHost, ModelAliases, Origins, PublicUrl};
use crate::engine::{self, Engine};
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::output::Store;
use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::time::timeout;
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, rt};
use caller::Callers;
use error::{ApiError, ApiResult, Fault};
use fetch::Fetcher;
use idempotency::Once;
use openapi::Methods;
use places::Places;
use rate::Rate;
use room::Room;
use std::cell::Cell;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use utoipa_actix_web::AppExt;

pub use keys::{Keys, Source as KeySource};
pub use openapi::document;

/// What every handler may use.
#[derive(Debug, Clone)]
struct State {
    engine: Engine,
    metrics: Metrics,
    callers: Callers,
    store: Store,
    settings: Settings,
    rate: Option<Arc<Rate>>,
    places: Option<Places>,
    once: Once,
    room: Room,
    /// Pictures that are decoded at once.
    decoders: Arc<Semaphore>,
    fetcher: Fetcher,
    /// When the server began, in Unix seconds.
    since: u64,
}

/// How the server behaves; the defaults are those of the command line.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A request, its wait included; `None` is no limit.
    pub timeout: Option<Duration>,
    /// The requests that the engine has when the server is told to stop.
    pub grace: Duration,
    /// Names that mean the resident model beside its own.
    pub model_aliases: ModelAliases,
    /// Where pictures are kept that callers fetch: see [`Store::open`].
    pub storage: Option<String>,
    /// How long they are kept.
    pub url_lifetime: Duration,
    /// How callers reach the server; `None` is by the host that a request names.
    pub public_url: Option<PublicUrl>,
    /// How long the reader of a stream is left without a byte.
    pub keep_alive: Duration,
    /// Who may call.
    pub keys: Keys,
    /// Requests of each caller in a minute; `None` is no limit.
    pub requests_per_minute: Option<NonZeroU32>,
    /// Pictures of each caller in the server at once; `None` is no limit.
    pub pictures_per_caller: Option<NonZeroU32>,
    /// Origins of web pages that may call.
    pub cors_origins: Origins,
    /// Hosts that pictures may be fetched from.
    pub fetch_from: Vec<FetchHost>,
    /// Bytes of callers' pictures that are held at once.
    pub room: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Some(Duration::from_secs(600)),
            grace: Duration::from_secs(30),
            model_aliases: ModelAliases::default(),
            storage: None,
            url_lifetime: Duration::from_secs(3600),
            public_url: None,
            keep_alive: Duration::from_secs(15),
            keys: Keys::default(),
            requests_per_minute: None,
            pictures_per_caller: None,
            cors_origins: Origins::default(),
            fetch_from: Vec::new(),
            room: 1 << 30,
        }
    }
}

/// The HTTP server, bound to its address and not yet answering.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    state: State,
}

/// Threads that speak HTTP. Pictures are drawn and encoded elsewhere, so a few serve thousands of connections.
const WORKERS: usize = 2;

/// Pictures that are decoded at once: the largest takes more than a gigabyte while it is.
const DECODERS: usize = 2;

/// How long a stopping server waits, after the engine has ended, until its last answers are encoded and read.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How long past the grace time the device may take for the step that it is in.
const LAST_STEP: Duration = Duration::from_secs(10);

impl Server {
    /// Takes the address; port 0 lets the system choose one. Opens the store.
    ///
    /// # Errors
    /// If the host is unknown, the port is taken or not allowed, the store cannot be used, or pictures are to be fetched
    /// and cannot be.
    pub fn bind(host: &str, port: u16, engine: Engine, metrics: Metrics, settings: Settings) -> Result<Self> {
        let listener = TcpListener::bind((host, port))
            .map_err(|cause| Error::config(format!("cannot listen on {host}:{port}: {cause}")))?;
        // Another part of the process may have chosen one before; any will do.
        drop(rustls::crypto::ring::default_provider().install_default());
        let store = Store::open(settings.storage.as_deref(), settings.url_lifetime)?;
        let state = State {
            engine,
            metrics,
            callers: Callers::default(),
            store,
            rate: settings.requests_per_minute.map(|limit| Arc::new(Rate::new(limit))),
            places: settings.pictures_per_caller.map(Places::new),
            once: Once::new(settings.url_lifetime),
            room: Room::new(settings.room),
            decoders: Arc::new(Semaphore::new(DECODERS)),
            fetcher: Fetcher::new(&settings.fetch_from)?,
            settings,
            since: now(),
        };
        Ok(Self { listener, state })
    }

    /// The address that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|cause| Error::io("the server's address", cause))
    }

    /// Answers until `stop` resolves and what the engine then has is done, or the grace time is over. Blocks the
    /// thread.
    ///
    /// # Errors
    /// If the system has no room for the server's threads, or the engine ends by itself: the model cannot be loaded.
    pub fn run(self, stop: impl Future<Output = ()> + 'static) -> Result<()> {
        let Self { listener, state } = self;
        let (engine, grace) = (state.engine.clone(), state.settings.grace);
        let served = rt::System::new().block_on(async {
            rt::spawn(stored::sweep(state.clone()));
            let document = document();
            let methods = Data::new(Methods::of(&document));
            let document = Data::new(document);
            let server = HttpServer::new(move || {
                App::new()
                    .app_data(Data::new(state.clone()))
                    .app_data(document.clone())
                    .app_data(methods.clone())
                    .wrap(from_fn(panics::caught))
                    .wrap(from_fn(gate::pass))
                    .wrap(from_fn(edge::answer))
                    .into_utoipa_app()
                    .configure(routes)
                    .into_app()
                    .configure(pages)
            })
            .workers(WORKERS)
            .disable_signals()
            .shutdown_timeout(LAST_ANSWERS.as_secs())
            // A caller who closes the connection drops the handler, and with it the ticket of the request.
            .h1_allow_half_closed(false)
            .listen(listener)?
            .run();
            let told = Rc::new(Cell::new(false));
            let tell = Rc::clone(&told);
            let stop = async move {
                stop.await;
                tell.set(true);
            };
            rt::spawn(when_told(engine.clone(), server.handle(), stop, grace));
            rt::spawn(when_ended(engine.clone(), server.handle()));
            server.await.map(|()| told.get())
        });
        if served.map_err(|cause| Error::io("the server", cause))? {
            return Ok(());
        }
        let cause = engine.model().err();
        Err(cause.unwrap_or_else(|| Error::internal("the device thread has ended by itself")))
    }
}

/// Stops taking work when `stop` resolves, and stops the server at the latest when the grace time is over. The server
/// goes on answering in between: a load balancer needs a while to learn that this one is leaving.
async fn when_told(engine: Engine, server: ServerHandle, stop: impl Future<Output = ()>, grace: Duration) {
    stop.await;
    let loading = engine.state() == engine::State::Loading;
    engine.drain(grace);
    // A model that is being loaded has nothing to finish, and its loading cannot be cut short.
    if !loading && timeout(grace + LAST_STEP, engine.ended()).await.is_err() {
        tracing::warn!("the device is still in a step although the grace time is over");
    }
    server.stop(true).await;
}

/// Stops the server when the engine has ended: drained, or because the model cannot be loaded.
async fn when_ended(engine: Engine, server: ServerHandle) {
    engine.ended().await;
    server.stop(true).await;
}

/// Every route that the OpenAPI document shows. A path that is none of these is refused as OpenAI does, and so is a
/// wrong method.
fn routes(config: &mut utoipa_actix_web::service_config::ServiceConfig) {
    config
        .service(images::generations)
        .service(edits::edits)
        .service(edits::variations)
        .service(stored::image)
        .service(models::list)
        .service(models::retrieve)
        .service(models::remove)
        .service(ops::healthz)
        .service(ops::readyz)
        .service(ops::metrics)
        .service(openapi::show);
}

/// What is for people, and what is nowhere.
fn pages(config: &mut ServiceConfig) {
    config.service(docs::entrance).service(docs::page).default_service(web::to(unknown));
}

/// Refuses a path that is no route, and a method that the route does not have.
async fn unknown(request: HttpRequest, methods: Data<Methods>) -> ApiResult<HttpResponse> {
    let (method, path) = (request.method(), shown(request.path()));
    Err(match methods.on(request.path()) {
        Some(allow) => {
            let message = format!("{method} is not allowed on {path}; allowed: {allow}");
            ApiError::new(Fault::Method { allow: allow.to_owned() }, message)
        }
        None => ApiError::new(Fault::UnknownRoute, format!("there is no route {method} {path}")),
    })
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
