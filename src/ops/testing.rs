//! What the tests of the ops share.

use candle_core::{Device, Tensor};

/// `count` numbers in -1..1 that depend on the seed alone.
pub(super) fn numbers(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// A tensor of numbers in -1..1 that depend on the seed alone.
pub(super) fn random(shape: &[usize], seed: u32) -> Tensor {
    let values = numbers(shape.iter().product(), seed.wrapping_mul(2_654_435_761).wrapping_add(1));
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Asserts that shapes agree, and values within `bound` of the greatest magnitude; a bound of 0 means the same bits.
pub(super) fn assert_near(got: &Tensor, want: &Tensor, bound: f32) {
    assert_eq!(got.dims(), want.dims());
    let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let (got, want) = (values(got), values(want));
    if bound == 0.0 {
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&got) == bits(&want), "bits differ");
        return;
    }
    let scale = want.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let worst = got.iter().zip(&want).fold(0f32, |most, (a, b)| {
        assert!(a.is_finite(), "a value is not finite");
        most.max((a - b).abs())
    });
    assert!(worst <= bound * scale, "off by {:e} relative, {bound:e} allowed", worst / scale);
}
