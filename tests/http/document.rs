//! What the OpenAPI document and its table of fields say is what the server does.

use crate::forms::{data_url, png, scene};
use crate::support::{GENERATIONS, exchange, quick, shared};
use serde_json::{Value, json};

/// The document.
fn document() -> Value {
    exchange(shared(), "GET /openapi.json HTTP/1.1", b"").json()
}

/// The properties of the JSON body of a route.
fn properties(document: &Value, path: &str) -> Vec<String> {
    let content = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"];
    let reference = content["schema"]["$ref"].as_str().expect("the body has a named schema");
    let name = reference.rsplit('/').next().expect("a reference has an end");
    let properties = document["components"]["schemas"][name]["properties"].as_object().expect("properties");
    properties.keys().cloned().collect()
}

/// A body that is drawn at once by both routes.
fn edit(fields: Value) -> Value {
    let mut body = quick(fields);
    body["images"] = json!([{"image_url": data_url("image/png", &png(scene(64, 64)))}]);
    body
}

#[test]
fn a_value_of_the_wrong_type_is_refused_in_the_name_of_its_field() {
    let document = document();
    let edits = "POST /v1/images/edits HTTP/1.1\r\ncontent-type: application/json";
    let routes = [
        (GENERATIONS, "/v1/images/generations", quick(json!({}))),
        (edits, "/v1/images/edits", edit(json!({}))),
    ];
    for (head, path, good) in routes {
        for name in properties(&document, path) {
            let mut body = good.clone();
            body[&name] = if name == "images" { json!(5) } else { json!([{}]) };
            let (param, message) = exchange(shared(), head, body.to_string().as_bytes()).error(400);
            assert_eq!(param, name.as_str(), "{path}: {message}");
        }
    }
}

#[test]
fn the_fields_that_the_table_calls_ignored_are_named_and_no_others() {
    let docs = include_str!("../../docs/api.md");
    let rows = docs.lines().filter(|line| line.starts_with("| `"));
    let cells = |row: &str| row.split(" | ").map(|cell| cell.trim_matches(['|', ' ']).to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.map(cells).collect();
    let ignored: Vec<&Vec<String>> = rows.iter().filter(|row| row[1] == "ignored").collect();
    assert!(ignored.len() > 2, "the table has rows");
    let mut body = quick(json!({"nonsense": 1, "steps": 1, "n": 1, "strength": null}));
    for row in &ignored {
        let last = row[5].rsplit('`').nth(1).unwrap_or("me");
        body[row[0].trim_matches('`')] = json!(last);
    }
    let answer = exchange(shared(), GENERATIONS, body.to_string().as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut names: Vec<&str> = ignored.iter().map(|row| row[0].trim_matches('`')).collect();
    names.push("nonsense");
    names.sort_unstable();
    assert_eq!(answer.header("easel-ignored"), Some(names.join(", ").as_str()));
}

#[test]
fn the_pages_of_the_docs_come_from_this_server_alone() {
    let page = |path: &str| exchange(shared(), &format!("GET /docs/{path} HTTP/1.1"), b"");
    let index = page("");
    assert_eq!(index.header("content-type"), Some("text/html"));
    assert!(
        index.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'self'"))
    );
    let parts: Vec<String> = index
        .text()
        .split(['"'])
        .filter(|part| [".css", ".js", ".png"].iter().any(|ending| part.ends_with(ending)))
        .map(str::to_owned)
        .collect();
    assert!(parts.len() > 3, "{parts:?}");
    for part in parts {
        assert!(!part.contains("//"), "{part} lies elsewhere");
        assert_eq!(page(part.trim_start_matches("./")).status, 200, "{part}");
    }
    assert!(page("swagger-initializer.js").text().contains("../openapi.json"));
    page("none.js").error(404);
    let entrance = exchange(shared(), "GET /docs HTTP/1.1", b"");
    assert_eq!((entrance.status, entrance.header("location")), (308, Some("docs/")));
}
