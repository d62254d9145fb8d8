//! The OpenAPI document in the repository is the one that the server gives.
#![cfg(feature = "server")]

#[test]
fn the_document_in_the_repository_is_the_servers() {
    let document = easel::api::document().to_pretty_json().expect("the document is JSON");
    let committed = include_str!("../openapi/openapi.json");
    assert!(
        committed.trim_end() == document,
        "openapi/openapi.json is not the routes' document; write it anew: easel openapi > openapi/openapi.json"
    );
}
