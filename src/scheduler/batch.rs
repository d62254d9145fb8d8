//! Which jobs of a group share the next UNet call, and how much that call is worth.

use super::JobId;
use std::time::Duration;

/// A job that could be in the next call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    pub id: JobId,
    pub rows: u32,
    /// When it is due; the earliest go first.
    pub due: Duration,
    /// The share of its work that is left which one evaluation does.
    pub share: f64,
    /// Whether it is encoded.
    pub ready: bool,
}

/// What a group's calls cost, and how many wait for the device.
#[derive(Debug)]
pub(super) struct Terms {
    /// Seconds of a call, by its rows, from none to the budget at least, and to two.
    pub seconds: Vec<f64>,
    /// The most rows of a call, unless it is for a single job.
    pub budget: u32,
    /// All jobs that want the device, in this group and others, and those that are likely to come while it is busy.
    pub jobs: usize,
}

/// Jobs for one UNet call.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub members: Vec<Candidate>,
    pub rows: u32,
    /// How many jobs a second such calls finish, if each job's work were spread evenly.
    pub worth: f64,
}

/// The batch that the earliest due of `candidates` lead.
///
/// Further jobs share the call where that saves others more time than it costs those inside. Each makes the call
/// longer by `longer`, for each of the jobs that are in it already; and it spares the device a call of its own, less
/// what it lengthens this one by, which is won for that job itself and for each that waits or will. Of all numbers of
/// jobs the one that wins most is taken: a device may run some numbers of rows no faster than more. On a device where
/// rows cost the same each, nothing is ever won, and the call has one job.
pub(super) fn assemble(mut candidates: Vec<Candidate>, terms: &Terms) -> Batch {
    candidates.sort_by_key(|candidate| (candidate.due, candidate.id));
    let seconds = |rows: u32| terms.seconds[rows as usize];
    let mut batch = Batch::default();
    let mut won = 0.0;
    // What the best batch so far wins, and its members.
    let mut best = (0.0, 1);
    for candidate in candidates {
        let (inside, rows) = (batch.members.len(), batch.rows + candidate.rows);
        if inside > 0 {
            if rows > terms.budget {
                continue;
            }
            let longer = seconds(rows) - seconds(batch.rows);
            let spared = seconds(candidate.rows) - longer;
            won += (terms.jobs - inside) as f64 * spared - inside as f64 * longer;
        }
        batch.rows = rows;
        batch.members.push(candidate);
        if won > best.0 {
            best = (won, inside + 1);
        }
    }
    batch.members.truncate(best.1);
    batch.rows = batch.members.iter().map(|member| member.rows).sum();
    let shares: f64 = batch.members.iter().map(|member| member.share).sum();
    batch.worth = shares / seconds(batch.rows).max(f64::MIN_POSITIVE);
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Stage;
    use crate::scheduler::testing::{Device, FLAT, H100};

    fn terms(device: &Device, area: u64, jobs: usize) -> Terms {
        let time = |rows| if rows == 0 { 0.0 } else { device.seconds(Stage::Denoise, area, rows) };
        Terms { seconds: (0..=16).map(time).collect(), budget: device.costs(16).budget(area, 16), jobs }
    }

    fn candidates(count: u64, rows: u32) -> Vec<Candidate> {
        let one = |id| Candidate {
            id: JobId(id),
            rows,
            due: Duration::from_secs(100 - id),
            share: 0.05,
            ready: true,
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn a_device_whose_rows_cost_the_same_each_takes_the_earliest_due_alone() {
        for rows in [1, 2] {
            let batch = assemble(candidates(50, rows), &terms(&FLAT, 4096, 1000));
            assert_eq!(batch.members.iter().map(|member| member.id).collect::<Vec<_>>(), [JobId(49)]);
        }
    }

    #[test]
    fn a_batch_fills_up_where_many_wait_and_never_passes_its_budget() {
        assert_eq!(assemble(candidates(50, 1), &terms(&H100, 4096, 50)).rows, 16);
        assert_eq!(assemble(candidates(50, 2), &terms(&H100, 16384, 1000)).rows, 16);
    }

    #[test]
    fn rows_that_save_little_share_a_call_only_if_enough_others_wait() {
        assert_eq!(assemble(candidates(2, 1), &terms(&H100, 4096, 2)).rows, 2);
        assert_eq!(assemble(candidates(2, 1), &terms(&H100, 16384, 2)).rows, 1);
        assert_eq!(assemble(candidates(2, 1), &terms(&H100, 16384, 20)).rows, 2);
    }

    #[test]
    fn a_batch_grows_past_rows_that_cost_as_much_as_more_would() {
        // Three rows cost as much as four, so that the third saves nothing by itself.
        let seconds = vec![0.0, 1.0, 1.9, 2.9, 2.9];
        let terms = Terms { seconds, budget: 4, jobs: 40 };
        assert_eq!(assemble(candidates(3, 1), &terms).rows, 2);
        assert_eq!(assemble(candidates(4, 1), &terms).rows, 4);
    }

    #[test]
    fn a_single_row_fills_the_gap_that_two_rows_leave() {
        let mut all = candidates(8, 2);
        all[0].due = Duration::from_secs(1);
        all[0].rows = 1;
        all.extend(candidates(1, 1).into_iter().map(|single| Candidate { id: JobId(9), ..single }));
        assert_eq!(assemble(all, &terms(&H100, 4096, 100)).rows, 16);
    }
}
