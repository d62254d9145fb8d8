//! The OpenAPI document, made from the routes themselves.

use super::dto::{ErrorAnswer, StreamEvent};
use super::routes;
use actix_web::dev::ResourceDef;
use actix_web::web::Data;
use actix_web::{App, HttpResponse, route};
use std::collections::BTreeMap;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, PathItem, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_actix_web::AppExt;

/// What stands above the routes in the document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Easel",
        description = "OpenAI's Images API over an SDXL model that stays on one device.\n\nFields that change \
                       nothing are named in the `easel-ignored` header of the answer.",
    ),
    components(schemas(ErrorAnswer, StreamEvent)),
    modifiers(&Keys),
    tags(
        (name = "images", description = "Pictures"),
        (name = "models", description = "The resident model"),
        (name = "operations", description = "For those who run the server"),
    )
)]
struct Head;

/// The API key, which a server may ask for.
struct Keys;

impl Modify for Keys {
    fn modify(&self, document: &mut Document) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("key", SecurityScheme::Http(bearer));
    }
}

/// The OpenAPI document of all routes.
pub fn document() -> Document {
    let (_, document) =
        App::new().into_utoipa_app().openapi(Head::openapi()).configure(routes).split_for_parts();
    document
}

/// The refusals that any route under `/v1` may answer with.
pub(super) struct Refusals;

/// Those of a route that draws.
pub(super) struct DrawingRefusals;

/// Status and meaning of [`Refusals`].
const REFUSALS: &[(u16, &str)] = &[
    (400, "A field is missing, out of its bounds, or cannot be honoured; `param` names it"),
    (401, "The server asks for a key, and this is none of its keys"),
    (404, "There is no such model"),
    (429, "Too many requests, or the queue is full; `retry-after` says when to come back"),
    (500, "The server failed; its log names the cause under the answer's `x-request-id`"),
    (503, "The model is loading, the server is leaving, or the device has no room; come back"),
];

/// Status and meaning of what [`DrawingRefusals`] has beyond [`REFUSALS`].
const DRAWING_REFUSALS: &[(u16, &str)] = &[
    (403, "A web page of another origin may not send forms without a key"),
    (408, "The body took too long to arrive"),
    (409, "The `Idempotency-Key` belongs to another request"),
    (413, "The body is too large"),
    (415, "The body is of a media type that the route does not read"),
    (504, "The picture was not done within the server's time limit"),
];

impl IntoResponses for Refusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        REFUSALS.iter().map(refusal).collect()
    }
}

impl IntoResponses for DrawingRefusals {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        REFUSALS.iter().chain(DRAWING_REFUSALS).map(refusal).collect()
    }
}

fn refusal(&(status, meaning): &(u16, &str)) -> (String, RefOr<Response>) {
    let body = Content::new(Some(Ref::from_schema_name("ErrorAnswer")));
    let answer = ResponseBuilder::new().description(meaning).content("application/json", body).build();
    (status.to_string(), answer.into())
}

/// `GET /openapi.json`.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operations",
    summary = "This document",
    responses((status = 200, description = "The OpenAPI document", content_type = "application/json"))
)]
#[route("/openapi.json", method = "GET", method = "HEAD")]
pub(super) async fn show(document: Data<Document>) -> HttpResponse {
    HttpResponse::Ok().json(document.as_ref())
}

/// The methods of each route, as the document lists them.
pub(super) struct Methods(Vec<(ResourceDef, String)>);

impl Methods {
    /// Reads them off the document.
    pub(super) fn of(document: &Document) -> Self {
        Self(
            document
                .paths
                .paths
                .iter()
                .map(|(path, item)| (ResourceDef::new(path.as_str()), allowed(item)))
                .collect(),
        )
    }

    /// The methods of whatever route `path` is on.
    pub(super) fn on(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|(route, _)| route.is_match(path)).map(|(_, methods)| methods.as_str())
    }
}

/// The methods of a path, as the `allow` header lists them; what can be read can be asked for its head.
fn allowed(item: &PathItem) -> String {
    let methods =
        [(item.get.is_some(), "GET, HEAD"), (item.post.is_some(), "POST"), (item.delete.is_some(), "DELETE")];
    let known: Vec<&str> = methods.into_iter().filter_map(|(there, name)| there.then_some(name)).collect();
    known.join(", ")
}
