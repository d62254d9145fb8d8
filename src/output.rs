//! Pixels to bytes, and the reading of pictures that come in.
//!
//! [`finished`] brings a drawn picture to its file's size. [`encode()`] writes it as PNG, JPEG or WebP, with the
//! [`Parameters`] that drew it inside; [`read_parameters`] takes them out again. [`read_picture`], [`read_cutout`] and
//! [`read_mask`] decode what a request brings. A [`Store`] keeps files for callers who fetch them by their address.

mod embed;
mod encode;
mod finish;
#[cfg(test)]
pub(crate) mod fuzzing;
mod metadata;
#[cfg(test)]
mod properties;
mod read;
#[cfg(feature = "server")]
mod store;
mod stripes;

pub use embed::read_parameters;
pub use encode::{Format, Quality, encode};
pub use finish::finished;
pub use metadata::Parameters;
pub use read::{Limits, media_type, read_cutout, read_mask, read_picture};
#[cfg(feature = "server")]
pub use store::{Name, Store};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Picture;

    const FIXTURES: &[&[u8]] = &[
        include_bytes!("output/fixtures/text.png"),
        include_bytes!("output/fixtures/ztxt.png"),
        include_bytes!("output/fixtures/itxt_zipped.png"),
        include_bytes!("output/fixtures/animated.png"),
        include_bytes!("output/fixtures/comment.jpg"),
        include_bytes!("output/fixtures/turned.jpg"),
        include_bytes!("output/fixtures/progressive.jpg"),
        include_bytes!("output/fixtures/cmyk.jpg"),
        include_bytes!("output/fixtures/comment.webp"),
        include_bytes!("output/fixtures/turned.webp"),
        include_bytes!("output/fixtures/animated.webp"),
    ];

    fn read_every_way(file: &[u8]) {
        let limits = Limits { max_side: 4096, max_pixels: 1 << 16 };
        let text = read_parameters(file);
        let _ = text.map(|text| Parameters::parse(&text));
        let _ = read_picture(file, "image", limits);
        let _ = read_mask(file, "mask", limits);
    }

    #[test]
    fn no_cut_file_makes_a_reader_panic() {
        for file in FIXTURES {
            (0..file.len()).for_each(|length| read_every_way(&file[..length]));
        }
    }

    #[test]
    fn no_damaged_file_makes_a_reader_panic() {
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for round in 0..400 {
            for file in FIXTURES {
                let mut file = file.to_vec();
                for _ in 0..=round % 4 {
                    let at = random(file.len());
                    file[at] = [0, 1, 0x7F, 0xFF, random(256) as u8][random(5)];
                }
                read_every_way(&file);
            }
        }
    }

    #[test]
    fn a_picture_tells_what_drew_it_after_any_format() {
        let text = read_parameters(include_bytes!("output/fixtures/comment.jpg")).unwrap();
        let parameters = Parameters::parse(&text).unwrap();
        let picture = Picture::new(image::RgbImage::new(16, 16)).unwrap();
        for (name, quality) in [("png", 100), ("jpeg", 80), ("webp", 80), ("webp", 100)] {
            let format = Format::named(name, Quality::new(quality).unwrap()).unwrap();
            let file = encode(&picture, format, Some(&parameters.to_text())).unwrap();
            assert_eq!(Parameters::parse(&read_parameters(&file).unwrap()), Ok(parameters.clone()));
        }
    }
}
