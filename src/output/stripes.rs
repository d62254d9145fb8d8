//! A picture as the zlib stream of a PNG: filtered and deflated in stripes, each by a thread of its own.
//!
//! The stripes are those of the picture, not of the machine, so that files are the same everywhere. A stripe does not look back
//! into the one above, which costs a file less than a thousandth.

use flate2::Compression;
use flate2::write::DeflateEncoder;
use std::io::{Result, Write};
use std::ops::Range;
use std::thread;

/// The most stripes of a picture, and the fewest lines of one.
const STRIPES: usize = 8;
const LINES: usize = 64;
/// Bytes of a pixel.
const PIXEL: usize = 3;
/// The modulus of Adler's sums (RFC 1950).
const ADLER: u32 = 65_521;
/// Bytes whose sums surely fit in 32 bits.
const ADLER_RUN: usize = 5552;

/// What becomes of some lines.
struct Stripe {
    deflated: Vec<u8>,
    /// Adler's sums over the filtered lines, and how many bytes these are.
    sums: (u32, u32),
    bytes: usize,
}

/// The zlib stream of RGB `pixels`, `line` bytes a line, deflated at `level`.
///
/// # Errors
/// If a deflated stripe cannot be kept, which memory does not do.
pub(super) fn zipped(pixels: &[u8], line: usize, level: Compression) -> Result<Vec<u8>> {
    let lines = pixels.len() / line;
    let each = lines.div_ceil(STRIPES).max(LINES);
    let stripe = |from: usize| Stripe::new(pixels, line, from..(from + each).min(lines), level);
    let stripes = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..lines).step_by(each).map(|from| scope.spawn(move || stripe(from))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().expect("deflating does not panic"));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let sums = stripes.iter().fold((1, 0), |sums, stripe| joined(sums, stripe.sums, stripe.bytes));
    let mut zipped = vec![0x78, 0x01]; // deflate with a window of 32 KiB, quickly
    stripes.iter().for_each(|stripe| zipped.extend_from_slice(&stripe.deflated));
    zipped.extend_from_slice(&(sums.1 << 16 | sums.0).to_be_bytes());
    Ok(zipped)
}

impl Stripe {
    fn new(pixels: &[u8], line: usize, lines: Range<usize>, level: Compression) -> Result<Self> {
        let last = lines.end * line == pixels.len();
        let filtered = filtered(pixels, line, lines);
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(filtered.len() / 2), level);
        encoder.write_all(&filtered)?;
        let deflated = if last {
            encoder.finish()?
        } else {
            // Up to a whole byte, so that the next stripe can follow.
            encoder.flush()?;
            std::mem::take(encoder.get_mut())
        };
        Ok(Self { deflated, sums: adler(&filtered), bytes: filtered.len() })
    }
}

/// Lines, each behind the number of the filter that leaves the smallest differences.
fn filtered(pixels: &[u8], line: usize, lines: Range<usize>) -> Vec<u8> {
    // A pixel of zeros stands before every line, and a line of zeros above the first.
    let padded = |number: Option<usize>| {
        let mut padded = vec![0; PIXEL + line];
        if let Some(number) = number {
            padded[PIXEL..].copy_from_slice(&pixels[number * line..(number + 1) * line]);
        }
        padded
    };
    let mut above = padded(lines.start.checked_sub(1));
    let mut made = Vec::with_capacity(lines.len() * (1 + line));
    let mut tries = [const { Vec::new() }; 5];
    for number in lines {
        let own = padded(Some(number));
        for (filter, to) in tries.iter_mut().enumerate() {
            to.clear();
            differences(filter, &own, &above, to);
        }
        let size =
            |tried: &Vec<u8>| tried.iter().map(|byte| u64::from((*byte as i8).unsigned_abs())).sum::<u64>();
        let best =
            (0..tries.len()).min_by_key(|filter| size(&tries[*filter])).expect("there are five filters");
        made.push(best as u8);
        made.extend_from_slice(&tries[best]);
        above = own;
    }
    made
}

/// What a PNG's filter leaves of a line, given with a pixel of zeros before it, as is the line above.
fn differences(filter: usize, own: &[u8], above: &[u8], to: &mut Vec<u8>) {
    let near = own.iter().zip(&above[PIXEL..]).zip(above);
    let seen = own[PIXEL..].iter().zip(near).map(|(x, ((left, up), corner))| [*x, *left, *up, *corner]);
    match filter {
        0 => to.extend(seen.map(|[x, ..]| x)),
        1 => to.extend(seen.map(|[x, left, ..]| x.wrapping_sub(left))),
        2 => to.extend(seen.map(|[x, _, up, _]| x.wrapping_sub(up))),
        3 => to.extend(seen.map(|[x, left, up, _]| x.wrapping_sub(left.midpoint(up)))),
        _ => to.extend(seen.map(|[x, left, up, corner]| x.wrapping_sub(paeth(left, up, corner)))),
    }
}

/// That neighbour which lies nearest to `left + up - corner` (PNG, section 9.4).
fn paeth(left: u8, up: u8, corner: u8) -> u8 {
    let [a, b, c] = [left, up, corner].map(i16::from);
    let (by_left, by_up, by_corner) = ((b - c).abs(), (a - c).abs(), (a + b - 2 * c).abs());
    let other = if by_up <= by_corner { up } else { corner };
    if by_left <= by_up && by_left <= by_corner { left } else { other }
}

/// Adler's sums.
fn adler(bytes: &[u8]) -> (u32, u32) {
    bytes.chunks(ADLER_RUN).fold((1, 0), |sums, run| {
        let (low, high) = run.iter().fold(sums, |(low, high), byte| {
            let low = low + u32::from(*byte);
            (low, high + low)
        });
        (low % ADLER, high % ADLER)
    })
}

/// The sums of bytes and of `bytes` others behind them.
fn joined(before: (u32, u32), after: (u32, u32), bytes: usize) -> (u32, u32) {
    let modulus = u64::from(ADLER);
    let low = (u64::from(before.0) + u64::from(after.0) + modulus - 1) % modulus;
    let passed = bytes as u64 % modulus * ((u64::from(before.0) + modulus - 1) % modulus);
    let high = (u64::from(before.1) + u64::from(after.1) + passed) % modulus;
    (low as u32, high as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::ZlibDecoder;
    use std::io::Read;

    #[test]
    fn stripes_join_to_one_stream_whose_sum_is_right() {
        for lines in [1, 63, 64, 65, 128, 700] {
            let line = 3 * 31;
            let pixels: Vec<u8> = (0..lines * line).map(|k| (k * k / 7 % 251) as u8).collect();
            let zipped = zipped(&pixels, line, Compression::new(2)).unwrap();
            let mut read = Vec::new();
            // The decoder checks the sum.
            ZlibDecoder::new(&zipped[..]).read_to_end(&mut read).unwrap();
            assert_eq!(read, filtered(&pixels, line, 0..lines), "{lines} lines");
        }
    }
}
