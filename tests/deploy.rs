//! What `deploy/` reads is what the server writes.

use std::collections::BTreeSet;
use std::path::Path;

const FILES: [&str; 4] = [
    "deploy/grafana/easel.json",
    "deploy/prometheus/alerts.yaml",
    "deploy/prometheus/alerts_test.yaml",
    "deploy/prometheus/prometheus.yaml",
];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|cause| panic!("{}: {cause}", path.display()))
}

/// The words of a text that begin with `easel_`.
fn words(text: &str) -> BTreeSet<&str> {
    let ends = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(ends).filter(|word| word.starts_with("easel_") && word.len() > "easel_".len()).collect()
}

/// The metrics as `src/metrics.rs` declares them, each in quotes, without its unit tests.
fn declared() -> BTreeSet<String> {
    let source = read("src/metrics.rs");
    let code = source.split("#[cfg(test)]\nmod tests").next().expect("a text has a beginning");
    words(code).into_iter().filter(|name| code.contains(&format!("\"{name}\""))).map(str::to_owned).collect()
}

/// The metric of a series: a histogram's series have a word more.
fn metric(series: &str) -> &str {
    let ends =
        ["_seconds_bucket", "_seconds_sum", "_seconds_count", "_rows_bucket", "_rows_sum", "_rows_count"];
    match ends.iter().find(|end| series.ends_with(**end)) {
        Some(_) => &series[..series.rfind('_').expect("the end has one")],
        None => series,
    }
}

#[test]
fn every_metric_that_dashboards_and_alerts_read_exists() {
    let declared = declared();
    assert!(declared.len() > 10, "{declared:?}");
    for file in FILES {
        let text = read(file);
        for series in words(&text) {
            assert!(declared.contains(metric(series)), "{file} reads {series}, which nothing writes");
        }
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let dashboard = read(FILES[0]);
    let shown: BTreeSet<&str> = words(&dashboard).into_iter().map(metric).collect();
    for name in declared() {
        assert!(shown.contains(name.as_str()), "{name} is on no panel");
    }
}

#[test]
fn histograms_are_read_by_their_series_and_nothing_else_is() {
    let histograms = ["_seconds", "_rows"];
    for file in FILES {
        for series in words(&read(file)) {
            let histogram = histograms.iter().any(|end| metric(series).ends_with(end));
            assert_eq!(histogram, series != metric(series), "{file} reads {series}");
        }
    }
}

#[test]
fn the_dashboard_is_json_whose_panels_have_ids_of_their_own() {
    let dashboard: serde_json::Value = serde_json::from_str(&read(FILES[0])).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().expect("a number")).collect();
    assert_eq!(ids.len(), panels.len());
}
