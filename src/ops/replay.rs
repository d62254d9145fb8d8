//! Running a network's body again and again on inputs of the same shapes.

use crate::error::Result;
use candle_core::Tensor;
use std::fmt;

/// Recordings of one piece of work, by the shapes of its inputs. On the CPU nothing is recorded.
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
        work: impl Fn(&[&Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if inputs[0].device().is_cuda() {
            return self.cuda.run(inputs, work);
        }
        work(inputs)
    }
}

impl fmt::Debug for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Replay")
    }
}
