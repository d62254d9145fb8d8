//! Running an operation on each row of a batch by itself.
//!
//! Matrix products choose their blocking by the size of the whole operand, so computing the rows together would
//! let a row's last bits depend on the number of its neighbours.

use crate::error::Result;
use candle_core::Tensor;

/// Applies `op` to every row `[1, ..]` of `x` and joins the results along the batch axis.
pub(super) fn each_row(x: &Tensor, op: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    by_row(x.dim(0)?, |row| op(&x.narrow(0, row, 1)?))
}

/// Joins the results `[1, ..]` of `op` for the rows `0..rows` along the batch axis.
pub(super) fn by_row(rows: usize, op: impl Fn(usize) -> Result<Tensor>) -> Result<Tensor> {
    if rows == 1 {
        return op(0);
    }
    let results = (0..rows).map(op).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&results, 0)?)
}
