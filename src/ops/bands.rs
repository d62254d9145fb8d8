//! Pictures in bands of lines, which are let go as soon as they were read: between two layers of a large picture there
//! is never more than one of them whole. On the CPU alone.
//!
//! A band is normalised, bent and enlarged on its way into a convolution, and rounded to the type that it is kept in on
//! its way out. A pixel depends, to the last bit, neither on the bands' heights nor on the number of threads.

use super::cpu::hands::share_out;
use super::cpu::isa::Isa;
use super::cpu::norm::map_channels;
use super::cpu::product::ranges;
use super::cpu::shared::{Slot, filled};
use super::cpu::values::{Kept, Values, append_rounded, repeat};
use super::host::{holds, plain, read, tensor};
use crate::error::{Error, Result};
use candle_core::{DType, Tensor};
use half::bf16;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

/// Pixels of a band: enough to read a convolution's weights for, few enough that caches hold what is between two layers.
const PIXELS: usize = 1 << 12;
/// Lines of a band are a multiple of this, so that minimal filtering has the same tiles in every band. Two more are normalised and bent
/// for each, which those around it need too.
const LINES: usize = 4;
/// Numbers of a part of what is kept in bf16: two of the system's large pages.
const PART: usize = 1 << 21;

/// Bands of one picture `[H, W, C]`, from top to bottom: those that are still held of those that were pushed.
#[derive(Debug)]
pub struct Bands {
    size: (usize, usize),
    channels: usize,
    dtype: DType,
    /// The most pixels of a band of more than [`LINES`] lines.
    most: usize,
    /// Lines of each band, or in bf16 of each part of the picture, and its numbers.
    bands: VecDeque<(Range<usize>, Kept)>,
    spares: Spares,
}

/// Memory of parts that were let go, which those of the layers behind take, all of one size: an allocator that has to find room
/// for sizes of all kinds takes an eighth more from the system.
#[derive(Debug, Clone, Default)]
struct Spares(Arc<Mutex<Vec<Vec<bf16>>>>);

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<bf16>>> {
        self.0.lock().expect("nothing that holds the lock can panic")
    }

    /// Memory for a part, or for a line of `length` numbers where that is longer.
    fn take(&self, length: usize) -> Vec<bf16> {
        let spare = if length > PART { None } else { self.lock().pop() };
        spare.unwrap_or_else(|| Vec::with_capacity(length.max(PART)))
    }

    fn put(&self, mut part: Vec<bf16>) {
        if part.capacity() == PART {
            part.clear();
            self.lock().push(part);
        }
    }
}

impl Bands {
    /// Whether pictures like `x` can be cut into bands.
    pub fn take(x: &Tensor) -> bool {
        holds(x) && x.dtype() == DType::F32
    }

    /// The picture `[1, H, W, C]`, to be kept in bf16 or else in f32.
    pub fn of(picture: Tensor, dtype: DType) -> Result<Self> {
        let (_, height, width, channels) = picture.dims4()?;
        let (size, bands) = ((height, width), VecDeque::new());
        let spares = Spares::default();
        let mut bands = Self { size, channels, dtype, most: PIXELS, bands, spares };
        bands.push(0..height, read(&plain(&picture)?).slice()?.to_vec());
        Ok(bands)
    }

    /// No band yet of a picture `times` as high and wide with `channels`.
    pub fn next(&self, times: usize, channels: usize) -> Self {
        let size = (times * self.size.0, times * self.size.1);
        Self { size, channels, bands: VecDeque::new(), spares: self.spares.clone(), ..*self }
    }

    /// The same, to be kept in `dtype`.
    pub fn kept_in(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Lines of the bands that all of the picture is to be made in, in groups that are made at the same time.
    pub fn cuts(&self) -> Vec<Group> {
        let (height, width) = self.size;
        let most = (self.most / width).max(LINES);
        let step = height.div_ceil(height.div_ceil(most).max(1)).next_multiple_of(LINES);
        let bands: Vec<_> = ranges(height, step).collect();
        bands.chunks(rayon::current_num_threads()).map(|bands| Group { bands: bands.to_vec() }).collect()
    }

    /// Adds the band of `lines`, which follow those of the last one.
    pub fn push(&mut self, lines: Range<usize>, numbers: Vec<f32>) {
        match self.dtype {
            DType::BF16 => self.round(lines.start, &numbers),
            _ => self.bands.push_back((lines, Kept::F32(numbers))),
        }
    }

    /// Fills parts with the lines from `first` on, the last one before them first.
    fn round(&mut self, mut first: usize, mut numbers: &[f32]) {
        let length = self.size.1 * self.channels;
        while !numbers.is_empty() {
            let mut part = match self.bands.pop_back() {
                Some((lines, Kept::Bf16(part))) if part.capacity() - part.len() >= length => (lines, part),
                full => {
                    self.bands.extend(full);
                    (first..first, self.spares.take(length))
                }
            };
            let room = (part.1.capacity() - part.1.len()) / length * length;
            let (fitting, rest) = numbers.split_at(room.min(numbers.len()));
            append_rounded(Isa::current(), fitting, &mut part.1);
            first += fitting.len() / length;
            self.bands.push_back((part.0.start..first, Kept::Bf16(part.1)));
            numbers = rest;
        }
    }

    /// Lets go of the bands above `line`.
    pub fn release(&mut self, line: usize) {
        while self.bands.front().is_some_and(|(lines, _)| lines.end <= line) {
            if let Some((_, Kept::Bf16(part))) = self.bands.pop_front() {
                self.spares.put(part);
            }
        }
    }

    /// Height and width.
    pub(super) fn size(&self) -> (usize, usize) {
        self.size
    }

    /// The channels of a pixel.
    pub(super) fn channels(&self) -> usize {
        self.channels
    }

    /// All lines, from top to bottom.
    pub(super) fn lines(&self) -> impl Iterator<Item = Values<'_>> {
        (0..self.size.0).map(|line| self.line(line))
    }

    fn line(&self, line: usize) -> Values<'_> {
        let band = self.bands.iter().find(|(lines, _)| lines.contains(&line));
        let (lines, kept) = band.expect("the line was pushed, and not yet let go");
        let length = self.size.1 * self.channels;
        kept.values().part((line - lines.start) * length..(line - lines.start + 1) * length)
    }

    /// `lines` in f32; where they are a band that is kept so, no copy of it.
    pub fn numbers(&self, lines: Range<usize>) -> Cow<'_, [f32]> {
        match self.bands.iter().find(|(band, _)| *band == lines) {
            Some((_, Kept::F32(numbers))) => Cow::Borrowed(numbers),
            _ => Cow::Owned(View::plain(self).window(Isa::current(), lines, 0)),
        }
    }

    /// All of the picture, `[1, H, W, C]`.
    pub fn whole(&self) -> Result<Tensor> {
        let (height, width) = self.size;
        tensor(self.numbers(0..height).into_owned(), (1, height, width, self.channels))
    }
}

/// Bands that follow each other, one for each thread: each is a thread's own, and threads wait for each other at the end alone.
#[derive(Debug)]
pub struct Group {
    bands: Vec<Range<usize>>,
}

impl Group {
    /// The line behind the last.
    pub fn end(&self) -> usize {
        self.bands.last().map_or(0, |lines| lines.end)
    }

    /// Adds each band that `make` makes of its lines to `to`.
    pub fn make(&self, to: &mut Bands, make: impl Fn(&Range<usize>) -> Vec<f32> + Sync) {
        let made = share_out(self.bands.len(), |at| make(&self.bands[at]));
        self.bands.iter().zip(made).for_each(|(lines, band)| to.push(lines.clone(), band));
    }
}

/// What a convolution sees of bands.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The bands.
    pub of: &'a Bands,
    /// Factors, then summands, for each channel, before SiLU.
    pub map: Option<&'a [f32]>,
    /// How often each pixel is repeated, down and across.
    pub times: usize,
}

impl<'a> View<'a> {
    /// The bands as they are.
    pub fn plain(of: &'a Bands) -> Self {
        Self { of, map: None, times: 1 }
    }

    /// The bands after a norm's `map` and SiLU.
    pub fn normed(of: &'a Bands, map: &'a [f32]) -> Self {
        Self { of, map: Some(map), times: 1 }
    }

    /// The bands twice as high and wide.
    pub fn doubled(of: &'a Bands) -> Self {
        Self { of, map: None, times: 2 }
    }

    /// Height and width of what is seen.
    pub(super) fn size(&self) -> (usize, usize) {
        let (height, width) = self.of.size();
        (self.times * height, self.times * width)
    }

    /// `lines` of what is seen with `margin` pixels around them, zeros outside the picture.
    pub(super) fn window(&self, isa: Isa, lines: Range<usize>, margin: usize) -> Vec<f32> {
        let (height, width) = self.size();
        let length = (width + 2 * margin) * self.of.channels;
        let write = |out: &mut [Slot]| {
            out.par_chunks_mut(length).enumerate().for_each(|(at, out)| {
                let line = (lines.start + at).checked_sub(margin).filter(|line| *line < height);
                self.write(isa, line, margin, out);
            });
        };
        // SAFETY: each line is written whole.
        unsafe { filled((lines.len() + 2 * margin) * length, write) }
    }

    /// Writes a line between its margins, or zeros.
    fn write(&self, isa: Isa, line: Option<usize>, margin: usize, out: &mut [Slot]) {
        let Some(line) = line else { return zero(out) };
        let channels = self.of.channels;
        let (before, rest) = out.split_at_mut(margin * channels);
        let (out, after) = rest.split_at_mut(self.size().1 * channels);
        zero(before);
        zero(after);
        let pixels = self.of.line(line / self.times);
        match self.map {
            Some(map) => map_channels(isa, pixels, (map, true), out),
            None => repeat(isa, pixels, (channels, self.times), out),
        }
    }
}

fn zero(out: &mut [Slot]) {
    out.iter_mut().for_each(|slot| _ = slot.write(0.0));
}

/// What bands answer where there are no kernels for them.
pub(super) fn elsewhere() -> Error {
    Error::internal("pictures are cut into bands on the CPU alone")
}

#[cfg(test)]
mod tests {
    use super::super::cpu::isa::forced::each;
    use super::super::testing::{assert_near, random};
    use super::*;
    use crate::ops::{Conv2d, ConvShape, GroupNorm};
    use candle_core::Device;
    use candle_nn::VarBuilder;
    use std::collections::HashMap;

    /// As wide as what norms take their statistics from at once, so that they sum in one order by bands and in one piece.
    const WIDTH: usize = 64;
    const HEIGHT: usize = 22;
    const CHANNELS: usize = 32;

    fn conv(shape: ConvShape) -> Conv2d {
        let ConvShape { inputs, outputs, kernel, .. } = shape;
        let weight = random(&[outputs, inputs, kernel, kernel], 1);
        let tensors = [("weight".to_owned(), weight), ("bias".to_owned(), random(&[outputs], 2))];
        let vb = VarBuilder::from_tensors(HashMap::from(tensors), DType::F32, &Device::Cpu);
        Conv2d::load(&vb, shape).unwrap()
    }

    fn norm() -> GroupNorm {
        let tensors =
            [("weight", 3), ("bias", 4)].map(|(name, seed)| (name.to_owned(), random(&[CHANNELS], seed)));
        let vb = VarBuilder::from_tensors(HashMap::from(tensors), DType::F32, &Device::Cpu);
        GroupNorm::load(&vb, CHANNELS, 8, 1e-6).unwrap()
    }

    fn picture() -> Tensor {
        random(&[1, HEIGHT, WIDTH, CHANNELS], 5)
    }

    /// `picture` in bands of up to `lines` lines.
    fn cut(picture: &Tensor, dtype: DType, lines: usize) -> Bands {
        let mut whole = Bands::of(picture.clone(), dtype).unwrap();
        whole.most = lines * WIDTH;
        let mut bands = whole.next(1, CHANNELS);
        for group in bands.cuts() {
            group.make(&mut bands, |lines| whole.numbers(lines.clone()).into_owned());
        }
        bands
    }

    /// What `conv` makes of `view` in bands like those of the view.
    fn convolved(conv: &Conv2d, view: View, outputs: usize, residual: Option<&Tensor>) -> Tensor {
        let conv = conv.for_bands(view).unwrap();
        let residual = residual.map(|residual| Bands::of(residual.clone(), DType::F32).unwrap());
        let mut out = view.of.next(view.times, outputs).kept_in(DType::F32);
        for group in out.cuts() {
            group.make(&mut out, |lines| {
                let residual = residual.as_ref().map(|residual| residual.numbers(lines.clone()));
                conv.band(view, lines, residual.as_deref())
            });
        }
        out.whole().unwrap()
    }

    #[test]
    fn convolutions_of_bands_are_those_of_the_whole_to_the_last_bit() {
        let (wide, narrow) = (ConvShape::same3(CHANNELS, 40), ConvShape::same3(CHANNELS, 3));
        each(|_| {
            for shape in [wide, narrow, ConvShape::pointwise(CHANNELS, 7)] {
                let (conv, norm, x) = (conv(shape), norm(), picture());
                let residual = random(&[1, HEIGHT, WIDTH, shape.outputs], 6);
                for lines in [4, 9, 100] {
                    let bands = cut(&x, DType::F32, lines);
                    let plain = convolved(&conv, View::plain(&bands), shape.outputs, None);
                    assert_near(&plain, &conv.forward(&x).unwrap(), 0.0);
                    let map = norm.map(&bands).unwrap();
                    let normed = View::normed(&bands, &map);
                    let got = convolved(&conv, normed, shape.outputs, Some(&residual));
                    let want = conv.forward_add(&norm.forward_silu(&x).unwrap(), &residual).unwrap();
                    assert_near(&got, &want, 0.0);
                }
            }
        });
    }

    #[test]
    fn doubled_bands_are_convolved_as_the_doubled_picture() {
        let (conv, x) = (conv(ConvShape::same3(CHANNELS, 40)), picture());
        let want = conv.forward_enlarged(&x, (2 * HEIGHT, 2 * WIDTH)).unwrap();
        for lines in [4, 9, 100] {
            let got = convolved(&conv, View::doubled(&cut(&x, DType::F32, lines)), 40, None);
            assert_near(&got, &want, 0.0);
        }
    }

    #[test]
    fn bands_in_bf16_hold_each_number_rounded() {
        let x = picture();
        let want = x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert_near(&cut(&x, DType::BF16, 4).whole().unwrap(), &want, 0.0);
    }

    #[test]
    fn parts_in_bf16_hold_many_bands_and_are_taken_again_by_the_next_layer() {
        let lines = PART / (WIDTH * CHANNELS);
        let x = random(&[1, lines + 8, WIDTH, CHANNELS], 5);
        let mut bands = cut(&x, DType::BF16, 24);
        let parts: Vec<Range<usize>> = bands.bands.iter().map(|(lines, _)| lines.clone()).collect();
        assert_eq!(parts, [0..lines, lines..lines + 8]);
        let want = x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap();
        assert_near(&bands.whole().unwrap(), &want, 0.0);
        let mut next = bands.next(1, 2 * CHANNELS);
        bands.release(lines - 1);
        assert_eq!((bands.bands.len(), bands.spares.lock().len()), (2, 0));
        bands.release(lines);
        assert_eq!((bands.bands.len(), bands.spares.lock().len()), (1, 1));
        next.push(0..4, vec![1.0; 4 * WIDTH * 2 * CHANNELS]);
        assert_eq!(next.spares.lock().len(), 0);
        assert!(next.lines().take(4).all(|line| line.len() == WIDTH * 2 * CHANNELS));
    }

    #[test]
    fn bands_are_let_go_once_they_end_above_a_line() {
        let mut bands = cut(&picture(), DType::F32, 4);
        assert_eq!(bands.bands.len(), 6);
        bands.release(7);
        assert_eq!(bands.bands.len(), 5);
        bands.release(8);
        assert_eq!((bands.bands.len(), bands.bands[0].0.clone()), (4, 8..12));
    }
}
