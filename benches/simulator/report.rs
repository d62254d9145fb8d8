//! The tables.

use crate::policies::{Policy, Run};

/// Prints the head of a table of runs.
pub fn head() {
    println!("| load | policy | images/s | mean s | p50 s | p99 s | rows a call | wasted rows |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
}

/// Prints one run.
pub fn line(load: Option<f64>, policy: &str, run: &Run) {
    println!(
        "| {} | {policy} | {:.4} | {} | {} | {} | {:.1} | {} |",
        label(load),
        throughput(run),
        seconds(mean(run)),
        seconds(quantile(run, 0.5)),
        seconds(quantile(run, 0.99)),
        run.rows as f64 / run.calls as f64,
        run.wasted
    );
}

/// Prints the head of the table of ratios.
pub fn ratios_head() {
    println!(
        "| device and sizes | load | images/s to one at a time | mean to shortest first | p99 to static batches |"
    );
    println!("|---|---|---:|---:|---:|");
}

/// Prints what step-level is to the other policies, from the least to the most of several runs of all policies.
pub fn ratios(case: &str, load: Option<f64>, runs: &[[Run; 4]]) {
    let to = |other: Policy, of: fn(&Run) -> f64| {
        let ratios = runs.iter().map(|run| of(&run[Policy::StepLevel as usize]) / of(&run[other as usize]));
        let (least, most) =
            ratios.fold((f64::INFINITY, 0.0f64), |(least, most), ratio| (least.min(ratio), most.max(ratio)));
        format!("{least:.2} to {most:.2}")
    };
    let images = to(Policy::Fifo, throughput);
    let shortest = to(Policy::Shortest, mean);
    let tail = to(Policy::Static, |run| quantile(run, 0.99));
    println!("| {case} | {} | {images} | {shortest} | {tail} |", label(load));
}

/// Prints the head of a table of rates between `times`.
pub fn rates_head(times: &[f64]) {
    let spans =
        times.windows(2).map(|span| format!(" {:.0} to {:.0} s: images/s | mean s |", span[0], span[1]));
    println!("| clients | policy |{}", spans.collect::<String>());
    println!("|---|---|{}", "---:|---:|".repeat(times.len() - 1));
}

/// Prints how many pictures a second were done between `times`, and how long they took in the mean.
pub fn rates(clients: u64, policy: &str, run: &Run, times: &[f64]) {
    let spans = times.windows(2).map(|span| {
        let within = run.pictures.iter().filter(|picture| span[0] <= picture.at && picture.at < span[1]);
        let taken: Vec<f64> = within.map(|picture| picture.taken).collect();
        let rate = taken.len() as f64 / (span[1] - span[0]);
        format!(" {rate:.3} | {} |", seconds(mean_of(&taken)))
    });
    println!("| {clients} | {policy} |{}", spans.collect::<String>());
}

fn label(load: Option<f64>) -> String {
    load.map_or_else(|| "backlog".into(), |load| format!("{load:.2}"))
}

/// Three digits at least.
fn seconds(value: f64) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.1}") }
}

fn throughput(run: &Run) -> f64 {
    run.pictures.len() as f64 / run.end
}

fn taken(run: &Run) -> Vec<f64> {
    run.pictures.iter().map(|picture| picture.taken).collect()
}

fn mean(run: &Run) -> f64 {
    mean_of(&taken(run))
}

fn mean_of(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn quantile(run: &Run, share: f64) -> f64 {
    let mut waits = taken(run);
    waits.sort_by(f64::total_cmp);
    waits[((waits.len() - 1) as f64 * share).round() as usize]
}
