//! What those who run the server see: readiness, metrics, timing.

use crate::support::{
    Answer, GENERATIONS, Samples, eventually, exchange, quick, serve, serve_until, shared, start,
};
use easel::engine::Settings;
use easel::error::Error;
use easel::pipeline::{LoadOptions, Pipeline};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::mpsc::channel;

const ANY: Settings = Settings { queue: 8, rows: None, remember: false };

fn get(server: SocketAddr, path: &str) -> Answer {
    exchange(server, &format!("GET {path} HTTP/1.1"), b"")
}

fn ask(server: SocketAddr, fields: Value) -> Answer {
    exchange(server, GENERATIONS, quick(fields).to_string().as_bytes())
}

#[test]
fn the_server_answers_while_the_model_loads_and_is_ready_afterwards() {
    let (go_on, gate) = channel::<()>();
    let load = move || {
        gate.recv().ok();
        Pipeline::load(&LoadOptions::sketch())
    };
    let (server, _) = serve(load, ANY);
    assert_eq!(get(server, "/healthz").status, 200);
    let loading = get(server, "/readyz");
    assert_eq!((loading.status, loading.json()), (503, json!({"status": "loading"})));
    for refused in [ask(server, json!({})), get(server, "/v1/models"), get(server, "/v1/models/sketch")] {
        refused.error(503);
        assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    }
    ask(server, json!({"prompt": 5})).error(503);
    assert_eq!(Samples::of(server).get("easel_rejected_total{reason=\"unavailable\"}"), 4.0);

    go_on.send(()).expect("the model is being loaded");
    eventually("the server is ready", || get(server, "/readyz").status == 200);
    assert_eq!(get(server, "/readyz").json(), json!({"status": "ready"}));
    assert_eq!(exchange(server, "HEAD /readyz HTTP/1.1", b"").status, 200);
    assert_eq!(ask(server, json!({})).files().len(), 1);
    assert_eq!(get(server, "/v1/models").json()["data"][0]["id"], "sketch");
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server_with_its_reason() {
    let (_, ended) = serve(|| Err(Error::checkpoint("the weights are torn")), ANY);
    let reason = ended.join().expect("the server does not panic").expect_err("there is no model");
    assert!(reason.message().contains("the weights are torn"), "{reason}");
}

#[test]
fn a_server_that_is_told_to_stop_while_its_model_loads_does_not_wait_for_it() {
    let (stop, told) = tokio::sync::oneshot::channel::<()>();
    let (_go_on, gate) = channel::<()>();
    let load = move || {
        gate.recv().ok();
        Pipeline::load(&LoadOptions::sketch())
    };
    let (server, ended) = serve_until(async { drop(told.await) }, load, ANY);
    assert_eq!(get(server, "/readyz").status, 503);
    stop.send(()).expect("the server runs");
    eventually("the server ends", || ended.is_finished());
    ended.join().expect("the server does not panic").expect("it was told to end");
}

#[test]
fn metrics_are_prometheus_text() {
    let answer = get(shared(), "/metrics");
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for kind in [
        "easel_requests_total counter",
        "easel_request_seconds histogram",
        "easel_queue_depth gauge",
        "easel_batch_rows histogram",
    ] {
        // A counter with labels is shown from its first use on.
        ask(shared(), json!({}));
        let text = get(shared(), "/metrics").text();
        assert!(text.lines().any(|line| line == format!("# TYPE {kind}")), "{kind} is not in\n{text}");
    }
    assert_eq!(exchange(shared(), "HEAD /metrics HTTP/1.1", b"").status, 200);
}

#[test]
fn metrics_add_up_with_what_callers_saw() {
    let server = start(8);
    let before = Samples::of(server);
    let drawn = [json!({}), json!({"n": 2, "guidance_scale": 3}), json!({"steps": 3})];
    assert!(drawn.into_iter().all(|fields| ask(server, fields).status == 200));
    ask(server, json!({"size": "7x7"})).error(400);
    exchange(server, GENERATIONS, b"{").error(400);
    exchange(server, "POST /v1/images/generations HTTP/1.1", b"{}").error(415);
    ask(server, json!({"model": "other"})).error(404);
    get(server, "/v1/images/generations").error(405);
    get(server, "/nowhere").error(404);
    get(server, "/nowhere/else").error(404);
    let moved = |series: &str| Samples::of(server).get(series) - before.get(series);
    for (route, status, times) in [
        ("/v1/images/generations", 200, 3.0),
        ("/v1/images/generations", 400, 2.0),
        ("/v1/images/generations", 415, 1.0),
        ("/v1/images/generations", 404, 1.0),
        ("/v1/images/generations", 405, 1.0),
        ("unknown", 404, 2.0),
    ] {
        let series = format!("easel_requests_total{{route=\"{route}\",status=\"{status}\"}}");
        assert_eq!(moved(&series), times, "{series}");
    }
    for (reason, times) in [
        ("invalid_value", 1.0),
        ("invalid_body", 1.0),
        ("media_type", 1.0),
        ("unknown_model", 1.0),
        ("method", 1.0),
        ("unknown_route", 2.0),
        ("queue_full", 0.0),
    ] {
        assert_eq!(moved(&format!("easel_rejected_total{{reason=\"{reason}\"}}")), times, "{reason}");
    }
    assert_eq!(moved("easel_images_total"), 4.0);
    assert_eq!(moved("easel_stage_seconds_count{stage=\"output\"}"), 3.0);
    eventually("every request has its time", || {
        // The request that reads the metrics is in neither.
        let now = Samples::of(server);
        now.get("easel_request_seconds_count") == now.sum("easel_requests_total")
    });
    eventually("nothing is left inside", || Samples::of(server).inside() == 0.0);
    assert_eq!(moved("easel_queue_wait_seconds_count"), 4.0);
    assert_eq!(moved("easel_cancelled_total"), 0.0);
    let now = Samples::of(server);
    assert_eq!(now.sum("easel_step_seconds_count"), now.get("easel_batch_rows_count"));
    assert!(now.get("easel_batch_rows_sum") >= 2.0 + 2.0 * 2.0 * 2.0 + 3.0);
}

#[test]
fn an_answer_says_how_long_it_waited_and_took() {
    let answer = ask(shared(), json!({}));
    let time = |name: &str| -> u64 { answer.header(name).expect(name).parse().expect("milliseconds") };
    assert!(time("easel-queue-ms") <= time("openai-processing-ms"));
    assert_eq!(ask(shared(), json!({"n": 0})).header("easel-queue-ms"), None);
}
