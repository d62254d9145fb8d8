//! Work recorded once as a CUDA graph and replayed: a network of a thousand small launches then costs the host one.

use super::gpu::{Gpu, fault};
use crate::error::{Error, ErrorKind, Result};
use crate::ops::Kept;
use candle_core::{DType, Tensor, TensorId};
use cudarc::driver::CudaGraph;
use cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// A piece of work, and the shapes and types of its inputs, in order.
type Key = (u64, Vec<(Vec<usize>, DType)>);

/// Recordings that are kept at once; the least recently used one makes room.
const KEPT: usize = 12;

/// The next number of rows of a ladder whose steps are at most half apart. Each number of rows has its own plans and its
/// own recording, which keeps memory: a server that batches would meet them all.
fn rung(rows: usize) -> usize {
    let power = rows.next_power_of_two();
    if rows <= power / 4 * 3 { power / 4 * 3 } else { power }
}

/// `x` with its last row repeated until it has `rows` rows.
fn filled(x: &Tensor, rows: usize) -> Result<Tensor> {
    let own = x.dim(0)?;
    let last = x.narrow(0, own - 1, 1)?;
    let mut parts = vec![x.clone()];
    parts.extend((own..rows).map(|_| last.clone()));
    Ok(Tensor::cat(&parts, 0)?)
}

/// Rows that what the first of `rows` rows alone have is filled up to, with zeros: half of them or all, so that each number of
/// rows has two recordings at most.
fn kept_rung(own: usize, rows: usize) -> usize {
    if own <= rows / 2 { rows / 2 } else { rows }
}

/// What is known of work on inputs of some shapes.
enum State {
    /// It has run once: the libraries have made their plans.
    Warm,
    /// It is recorded.
    Recorded(Recording),
    /// It cannot be recorded.
    Direct,
}

/// A graph with the tensors that it reads and fills.
struct Recording {
    graph: CudaGraph,
    inputs: Vec<Tensor>,
    /// What is made of one input alone, and what that was put together from.
    kept: Vec<Tensor>,
    of: Vec<TensorId>,
    outputs: Vec<Tensor>,
}

/// What is recorded on a GPU, of all pieces of work; the most recently used last.
#[derive(Default)]
pub(super) struct Recordings {
    states: RefCell<Vec<(Key, State)>>,
}

/// One piece of work. Its recordings lie with the GPU, since they belong to the thread that works there.
pub(in crate::ops) struct Replay {
    id: u64,
}

impl Default for Replay {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

/// What is made of inputs and of what is kept of one of them.
type Body<'a> = dyn Fn(&[&Tensor], &[Tensor]) -> Result<Vec<Tensor>> + 'a;

/// Work, with what it reads.
struct Job<'a> {
    inputs: &'a [&'a Tensor],
    kept: &'a Kept<'a>,
    work: &'a Body<'a>,
}

impl Job<'_> {
    /// Does it, launch by launch.
    fn run(&self) -> Result<Vec<Tensor>> {
        (self.work)(self.inputs, &(self.kept.make)(self.inputs[self.kept.input])?)
    }
}

impl Replay {
    /// What `work` makes of `inputs`, whose first axis is the rows of the batch, as is that of its outputs, and of what is
    /// `kept`. It must be a function of them and of weights alone, read nothing back from the device, and upload nothing but
    /// the parameters of launches.
    pub fn run(&self, inputs: &[&Tensor], kept: &Kept, work: &Body) -> Result<Vec<Tensor>> {
        let rows = inputs[0].dim(0)?;
        let own = inputs[kept.input].dim(0)?;
        let (all, with) = (rung(rows), kept_rung(own, rung(rows)));
        if (all, with) == (rows, own) {
            return self.run_rung(&Job { inputs, kept, work });
        }
        let fill = |(at, input): (usize, &&Tensor)| match at == kept.input && own < rows {
            true => Ok(input.pad_with_zeros(0, 0, with - own)?),
            false => filled(input, all),
        };
        let inputs = inputs.iter().enumerate().map(fill).collect::<Result<Vec<_>>>()?;
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let outputs = self.run_rung(&Job { inputs: &inputs, kept, work })?;
        outputs.iter().map(|output| Ok(output.narrow(0, 0, rows)?)).collect()
    }

    fn run_rung(&self, job: &Job) -> Result<Vec<Tensor>> {
        let shapes = job.inputs.iter().map(|input| (input.dims().to_vec(), input.dtype())).collect();
        let key: Key = (self.id, shapes);
        let gpu = Gpu::of(job.inputs[0])?;
        match attempt(gpu, &key, job) {
            // What is recorded keeps its memory to itself: it makes room before work is refused.
            Err(error) if *error.kind() == ErrorKind::DeviceMemory && gpu.recordings.clear() => {
                tracing::warn!(%error, "memory is full; what was recorded is dropped");
                gpu.release_memory()?;
                attempt(gpu, &key, job)
            }
            done => done,
        }
    }
}

/// Runs, records or replays work, whichever its `key` is due for.
fn attempt(gpu: &Gpu, key: &Key, job: &Job) -> Result<Vec<Tensor>> {
    let known = gpu.recordings.take(key);
    // Parameters of launches are uploaded once and found again while recording.
    let cached = job.inputs[0].device().as_cuda_device()?.enable_cuda_graph_htod_cache();
    let (outputs, state) = match known {
        None => (job.run()?, State::Warm),
        Some(State::Direct) => (job.run()?, State::Direct),
        Some(State::Recorded(mut recording)) => (recording.replay(job)?, State::Recorded(recording)),
        Some(State::Warm) => match Recording::new(job) {
            Ok(mut recording) => (recording.replay(job)?, State::Recorded(recording)),
            Err(error) => {
                tracing::warn!(%error, "work cannot be recorded as a graph; it runs launch by launch");
                (job.run()?, State::Direct)
            }
        },
    };
    drop(cached);
    gpu.recordings.put(key.clone(), state);
    Ok(outputs)
}

impl Recordings {
    fn take(&self, key: &Key) -> Option<State> {
        let mut states = self.states.borrow_mut();
        let at = states.iter().position(|(known, _)| known == key)?;
        Some(states.remove(at).1)
    }

    /// Drops all recordings; whether there were any.
    fn clear(&self) -> bool {
        let mut states = self.states.borrow_mut();
        let before = states.len();
        states.retain(|(_, state)| !matches!(state, State::Recorded(_)));
        states.len() < before
    }

    fn put(&self, key: Key, state: State) {
        let mut states = self.states.borrow_mut();
        states.push((key, state));
        let recorded = |(_, state): &(Key, State)| matches!(state, State::Recorded(_));
        if states.iter().filter(|state| recorded(state)).count() > KEPT
            && let Some(oldest) = states.iter().position(recorded)
        {
            states.remove(oldest);
        }
    }
}

impl Recording {
    fn new(job: &Job) -> Result<Self> {
        let gpu = Gpu::of(job.inputs[0])?;
        let inputs = job.inputs.iter().map(|input| Ok(input.copy()?)).collect::<Result<Vec<_>>>()?;
        let read: Vec<&Tensor> = inputs.iter().collect();
        let kept = (job.kept.make)(read[job.kept.input])?;
        // A dry run says how large the outputs are. They lie outside the graph, whose own memory is gone at its end.
        let outputs = (job.work)(&read, &kept)?;
        let outputs = outputs.iter().map(|output| Ok(output.copy()?)).collect::<Result<Vec<_>>>()?;
        gpu.stream.begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(fault)?;
        let recorded = (job.work)(&read, &kept).and_then(|made| {
            for (output, made) in outputs.iter().zip(&made) {
                output.slice_set(made, 0, 0)?;
            }
            Ok(())
        });
        let flags = CUgraphInstantiate_flags(0);
        let graph = gpu.stream.end_capture(flags).map_err(fault);
        recorded?;
        let graph = graph?.ok_or_else(|| Error::internal("nothing was recorded"))?;
        graph.upload().map_err(fault)?;
        let of = job.kept.of.clone();
        Ok(Self { graph, inputs, kept, of, outputs })
    }

    fn replay(&mut self, job: &Job) -> Result<Vec<Tensor>> {
        for (place, input) in self.inputs.iter().zip(job.inputs) {
            place.slice_set(&input.contiguous()?, 0, 0)?;
        }
        if self.of != job.kept.of {
            self.of.clear();
            let made = (job.kept.make)(&self.inputs[job.kept.input])?;
            for (place, made) in self.kept.iter().zip(&made) {
                place.slice_set(made, 0, 0)?;
            }
            self.of.clone_from(&job.kept.of);
        }
        self.graph.launch().map_err(fault)?;
        self.outputs.iter().map(|output| Ok(output.copy()?)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{assert_near, gpu, there};
    use super::*;
    use crate::ops::Replay;
    use crate::ops::testing::random;
    use candle_core::Device;
    use std::cell::Cell;

    #[test]
    fn rows_climb_a_ladder_whose_steps_are_at_most_half_apart() {
        let rungs: Vec<usize> = (1..=17).map(rung).collect();
        assert_eq!(rungs, [1, 2, 3, 4, 6, 6, 8, 8, 12, 12, 12, 12, 16, 16, 16, 16, 24]);
    }

    #[test]
    fn what_the_first_rows_have_is_filled_up_to_half_of_them_or_all() {
        let filled = [(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 6), (2, 6), (4, 6), (5, 12), (7, 12)];
        let rungs = filled.map(|(own, rows)| kept_rung(own, rows));
        assert_eq!(rungs, [1, 1, 2, 1, 3, 3, 3, 6, 6, 12]);
    }

    #[test]
    fn the_last_row_is_repeated() {
        let x = Tensor::arange(0f32, 10.0, &Device::Cpu).unwrap().reshape((5, 2)).unwrap();
        let rows = filled(&x, 6).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(rows.len(), 6);
        assert_eq!((&rows[4], &rows[5]), (&vec![8.0, 9.0], &vec![8.0, 9.0]));
    }

    #[test]
    fn what_is_kept_of_an_input_is_made_anew_when_it_is_another() -> Result<()> {
        let device = gpu();
        let replay = Replay::default();
        let made = Cell::new(0);
        let make = |x: &Tensor| {
            made.set(made.get() + 1);
            Ok(vec![(x * 2.0)?])
        };
        let rows: Vec<Tensor> =
            (0..3).map(|seed| there(&random(&[1, 8], seed), DType::F32, &device)).collect();
        for (call, [a, b]) in
            [[0, 1], [0, 1], [0, 1], [1, 0], [1, 0], [0, 2], [0, 1], [0, 1]].into_iter().enumerate()
        {
            let x = there(&random(&[2, 8], 9 + call as u32), DType::F32, &device);
            let both = Tensor::cat(&[&rows[a], &rows[b]], 0)?;
            let kept = Kept { input: 1, of: vec![rows[a].id(), rows[b].id()], make: &make };
            let got = replay.run(&[&x, &both], kept, |inputs, kept| Ok(vec![(inputs[0] + &kept[0])?]))?;
            assert_near("with what is kept", &got[0], &(&x + (&both * 2.0)?)?, 1e-6);
        }
        // Once as it comes, once to be recorded, and for each change since.
        assert_eq!(made.get(), 5);
        Ok(())
    }

    #[test]
    fn what_the_first_rows_alone_have_is_filled_up_with_zeros() -> Result<()> {
        let device = gpu();
        let replay = Replay::default();
        for (call, (rows, own)) in
            [(5, 3), (5, 3), (5, 3), (5, 5), (4, 2), (4, 3), (4, 3), (7, 1)].into_iter().enumerate()
        {
            let x = there(&random(&[rows, 8], call as u32), DType::F32, &device);
            let few = there(&random(&[own, 8], 20 + call as u32), DType::F32, &device);
            let kept = Kept { input: 1, of: vec![few.id()], make: &|x| Ok(vec![(x * 2.0)?]) };
            let got = replay.run(&[&x, &few], kept, |inputs, kept| {
                let missing = inputs[0].dim(0)? - kept[0].dim(0)?;
                Ok(vec![(inputs[0] + kept[0].pad_with_zeros(0, 0, missing)?)?])
            })?;
            let want = (&x + (few.pad_with_zeros(0, 0, rows - own)? * 2.0)?)?;
            assert_near(&format!("{own} of {rows} rows"), &got[0], &want, 1e-6);
        }
        Ok(())
    }
}
