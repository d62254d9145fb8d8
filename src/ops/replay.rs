//! Running a network's body again and again on inputs of the same shapes.

use super::cpu::hands::share_out;
use super::host::{holds, in_pool};
use crate::error::Result;
use candle_core::{Tensor, TensorId};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What is made of one input alone, and kept from call to call for as long as that input stays the same. It may have fewer rows
/// than the others: those that come first have it.
pub struct Kept<'a> {
    /// Which input.
    pub input: usize,
    /// What that input is put together from: it stays the same while these do.
    pub of: Vec<TensorId>,
    /// What is made of it.
    pub make: &'a dyn Fn(&Tensor) -> Result<Vec<Tensor>>,
}

/// Recordings of one piece of work, by the shapes of its inputs. On the CPU nothing is recorded, but rows go apart.
#[derive(Default)]
pub struct Replay {
    /// What was made last of the input that is kept, on the CPU.
    made: Mutex<Option<Made>>,
    #[cfg(feature = "cuda")]
    cuda: super::cuda::replay::Replay,
}

/// What was made of an input, and what that was put together from.
struct Made {
    of: Vec<TensorId>,
    tensors: Vec<Tensor>,
}

impl Replay {
    /// What `work` makes of `inputs`, whose first axis is the rows of the batch, as is that of its outputs.
    ///
    /// It is also given what `kept` made of one of them, whose first axis is the rows too.
    ///
    /// It must be a function of them and of weights alone, read nothing back from the device, and upload no data: on a
    /// GPU it is recorded the second time that it runs on inputs of the same shapes, and replayed from then on.
    pub fn run(
        &self,
        inputs: &[&Tensor],
        kept: Kept,
        work: impl Fn(&[&Tensor], &[Tensor]) -> Result<Vec<Tensor>> + Sync,
    ) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if inputs[0].device().is_cuda() {
            return self.cuda.run(inputs, &kept, &work);
        }
        let made = self.made(inputs[kept.input], kept)?;
        if inputs.iter().all(|input| holds(input)) {
            return apart(inputs, &made, work);
        }
        work(inputs, &made)
    }

    /// What `kept` makes of `input`, or made of it the last time.
    fn made(&self, input: &Tensor, kept: Kept) -> Result<Vec<Tensor>> {
        // Taken out, not looked at: what was made before makes room for what is made now.
        let known = self.lock().take();
        let made = match known.filter(|made| made.of == kept.of) {
            Some(made) => made,
            None => Made { tensors: (kept.make)(input)?, of: kept.of },
        };
        let tensors = made.tensors.clone();
        *self.lock() = Some(made);
        Ok(tensors)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// [`Replay::run`] with nothing kept, and rows left together on the CPU.
    pub fn record(
        &self,
        inputs: &[&Tensor],
        work: impl Fn(&[&Tensor]) -> Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        #[cfg(feature = "cuda")]
        if inputs[0].device().is_cuda() {
            let nothing = Kept { input: 0, of: Vec::new(), make: &|_| Ok(Vec::new()) };
            return self.cuda.run(inputs, &nothing, &|inputs, _| work(inputs));
        }
        work(inputs)
    }
}

/// `work`, done by each thread for its share of the rows: threads that share every kernel wait for each other hundreds
/// of times in an evaluation, and threads with rows of their own only at its end, where they help each other out.
fn apart(
    inputs: &[&Tensor],
    made: &[Tensor],
    work: impl Fn(&[&Tensor], &[Tensor]) -> Result<Vec<Tensor>> + Sync,
) -> Result<Vec<Tensor>> {
    let rows = inputs[0].dim(0)?;
    let threads = rayon::current_num_threads();
    let shares = rows.min(threads);
    if shares < 2 {
        return in_pool(inputs[0], || work(inputs, made));
    }
    let share = |share: usize| {
        let (from, to) = (share * rows / shares, (share + 1) * rows / shares);
        // Of what the first rows alone have, what falls to this share.
        let own = |x: &Tensor| {
            let end = to.min(x.dim(0)?);
            Ok(x.narrow(0, from.min(end), end - from.min(end))?)
        };
        let inputs = inputs.iter().map(|input| own(input)).collect::<Result<Vec<_>>>()?;
        let made = made.iter().map(own).collect::<Result<Vec<_>>>()?;
        work(&inputs.iter().collect::<Vec<_>>(), &made)
    };
    let outputs = share_out(shares, share).into_iter().collect::<Result<Vec<_>>>()?;
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
