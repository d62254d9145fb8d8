//! Running a network's body again and again on inputs of the same shapes.

use super::host::holds;
use crate::error::Result;
use candle_core::Tensor;
use rayon::prelude::*;
use std::fmt;

/// Recordings of one piece of work, by the shapes of its inputs. On the CPU nothing is recorded, but rows go apart.
#[derive(Default)]
pub struct Replay {
    #[cfg(feature = "cuda")]
    cuda: super::cuda::replay::Replay,
}

impl Replay {
    /// What `work` makes of `inputs`, whose first axis is the rows of the batch, as is that of its outputs.
    ///
    /// It must be a function of them and of weights alone, read nothing back from the device, and upload no data: on a
    /// GPU it is recorded the second time that it runs on inputs of the same shapes, and replayed from then on.
    pub fn run(
        &self,
        inputs: &[&Tensor],
        work: impl Fn(&[&Tensor]) -> Result<Vec<Tensor>> + Sync,
    ) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if inputs[0].device().is_cuda() {
            return self.cuda.run(inputs, work);
        }
        if inputs.iter().all(|input| holds(input)) {
            return apart(inputs, work);
        }
        work(inputs)
    }
}

/// `work`, done by each thread for its share of the rows: threads that share every kernel wait for each other hundreds
/// of times in an evaluation, and threads with rows of their own only at its end, where they help each other out.
fn apart(inputs: &[&Tensor], work: impl Fn(&[&Tensor]) -> Result<Vec<Tensor>> + Sync) -> Result<Vec<Tensor>> {
    let rows = inputs[0].dim(0)?;
    let shares = rows.min(rayon::current_num_threads());
    if shares < 2 {
        return work(inputs);
    }
    let share = |share: usize| {
        let (from, to) = (share * rows / shares, (share + 1) * rows / shares);
        let inputs: Vec<Tensor> =
            inputs.iter().map(|input| Ok(input.narrow(0, from, to - from)?)).collect::<Result<_>>()?;
        work(&inputs.iter().collect::<Vec<_>>())
    };
    let outputs = (0..shares).into_par_iter().map(share).collect::<Result<Vec<_>>>()?;
    let joined = |output: usize| {
        let parts: Vec<&Tensor> = outputs.iter().map(|outputs| &outputs[output]).collect();
        Ok(Tensor::cat(&parts, 0)?)
    };
    (0..outputs[0].len()).map(joined).collect()
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replay")
    }
}
