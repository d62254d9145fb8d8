//! A drawn picture as the file shows it: at the file's size, with what was to stay put back.

use crate::request::{Finish, Kept, Mask, Picture};

/// The picture of a file: `drawn` resampled to the files' size, and under a mask the given picture's own pixels outside
/// of it, bit for bit.
///
/// Inside the mask the two blend into one another from its edge on, so that no line shows where the drawing meets what
/// was there. The seam is a sixty-fourth of the picture's shorter side wide, at least 2 pixels and at most 32, and never
/// more than a quarter of the way to the mask's middle, so that small parts are drawn too. The picture's own border is
/// no edge of the mask.
pub fn finished(drawn: &Picture, finish: &Finish) -> Picture {
    let fitted = drawn.clone().fitted(finish.extent);
    match &finish.kept {
        None => fitted,
        Some(Kept { picture, mask }) => composed(&fitted, picture, mask),
    }
}

fn composed(drawn: &Picture, kept: &Picture, mask: &Mask) -> Picture {
    let depths = depths(mask);
    let whole = (seam(mask, &depths) + 1) * SIDE;
    let mut pixels = kept.as_image().clone();
    for ((own, new), depth) in pixels.pixels_mut().zip(drawn.as_image().pixels()).zip(depths) {
        let depth = depth.min(whole);
        for (own, new) in own.0.iter_mut().zip(new.0) {
            let sum = u32::from(*own) * (whole - depth) + u32::from(new) * depth;
            // A mean of two bytes is a byte.
            *own = ((sum + whole / 2) / whole) as u8;
        }
    }
    Picture::new(pixels).expect("a kept picture has pixels")
}

/// How many pixels inside the mask are not yet wholly drawn ones.
fn seam(mask: &Mask, depths: &[u32]) -> u32 {
    let middle = depths.iter().copied().max().unwrap_or(0) / SIDE;
    (mask.width().min(mask.height()) / 64).clamp(2, 32).min(middle / 4)
}

/// The length of a step to the side, and of one across: the unit of depths is a fifth of a pixel, in which both are
/// nearly true (Borgefors 1986, "Distance transformations in digital images").
const SIDE: u32 = 5;
const ACROSS: u32 = 7;

/// How deep in the mask each pixel lies, as the length of the shortest way to a pixel outside; 0 there. Where the mask
/// is all there is, every pixel is as deep as can be.
fn depths(mask: &Mask) -> Vec<u32> {
    let (width, height) = (mask.width() as usize, mask.height() as usize);
    let mut depths: Vec<u32> =
        mask.as_bytes().iter().map(|&drawn| if drawn == 0 { 0 } else { u32::MAX }).collect();
    // Once with the neighbours above and to the left, and once turned round with the others.
    for _ in 0..2 {
        for y in 0..height {
            for x in 0..width {
                let at = y * width + x;
                let mut nearest = depths[at];
                let mut reach =
                    |from: usize, step: u32| nearest = nearest.min(depths[from].saturating_add(step));
                if x > 0 {
                    reach(at - 1, SIDE);
                }
                if y > 0 {
                    reach(at - width, SIDE);
                }
                if y > 0 && x > 0 {
                    reach(at - width - 1, ACROSS);
                }
                if y > 0 && x + 1 < width {
                    reach(at - width + 1, ACROSS);
                }
                depths[at] = nearest;
            }
        }
        depths.reverse();
    }
    depths
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage};

    const OLD: [u8; 3] = [10, 20, 30];
    const NEW: [u8; 3] = [210, 220, 230];

    fn plain(side: u32, colour: [u8; 3]) -> Picture {
        Picture::new(RgbImage::from_pixel(side, side, Rgb(colour))).unwrap()
    }

    /// A picture of `NEW` into the part of one of `OLD` that `drawn` says.
    fn into(side: u32, drawn: impl Fn(u32, u32) -> bool) -> RgbImage {
        let mask = GrayImage::from_fn(side, side, |x, y| Luma([if drawn(x, y) { 255 } else { 0 }]));
        let kept = Kept { picture: plain(side, OLD), mask: Mask::new(mask) };
        let finish = Finish { extent: format!("{side}x{side}").parse().unwrap(), kept: Some(kept) };
        finished(&plain(64, NEW), &finish).as_image().clone()
    }

    #[test]
    fn what_is_outside_the_mask_stays_and_the_seam_lies_inside_it() {
        let file = into(256, |x, _| x >= 128);
        let row: Vec<u8> = (0..256).map(|x| file.get_pixel(x, 100).0[0]).collect();
        assert!(row[..128].iter().all(|&value| value == 10), "{row:?}");
        assert_eq!(row[128..134], [50, 90, 130, 170, 210, 210], "four pixels of 256 / 64, evenly");
        assert!(row[134..].iter().all(|&value| value == 210), "the picture's border is no edge: {row:?}");
    }

    #[test]
    fn a_mask_of_everything_leaves_nothing_and_one_of_nothing_leaves_all() {
        assert!(into(64, |_, _| true).pixels().all(|pixel| pixel.0 == NEW));
        assert!(into(64, |_, _| false).pixels().all(|pixel| pixel.0 == OLD));
    }

    #[test]
    fn a_small_part_is_drawn_for_all_its_seam() {
        let dot = into(1024, |x, y| x == 500 && y == 500);
        assert_eq!((dot.get_pixel(500, 500).0, dot.get_pixel(499, 500).0), (NEW, OLD));
        let spot = into(1024, |x, y| (500..510).contains(&x) && (500..510).contains(&y));
        assert_eq!((spot.get_pixel(505, 505).0, spot.get_pixel(500, 505).0[0]), (NEW, 110));
    }

    #[test]
    fn depths_are_those_of_the_nearest_pixel_outside_within_a_twelfth() {
        let outside = [(3, 4), (40, 9), (22, 50)];
        let mask = Mask::new(GrayImage::from_fn(60, 55, |x, y| {
            Luma([if outside.contains(&(x as i32, y as i32)) { 0 } else { 255 }])
        }));
        for (at, depth) in depths(&mask).into_iter().enumerate() {
            let (x, y) = (at as i32 % 60, at as i32 / 60);
            let squares = outside.iter().map(|(ox, oy)| (x - ox).pow(2) + (y - oy).pow(2));
            let want = f64::from(squares.min().unwrap()).sqrt();
            assert!((f64::from(depth) / 5.0 - want).abs() <= want / 12.0, "{x} {y}: {depth} {want}");
        }
    }
}
