//! Pixels at another size.
//!
//! Shrinking averages light, so it is done on linear values: on encoded ones fine patterns darken. Enlarging fits a
//! curve through the pixels, which overshoots at edges; on encoded values the overshoot is even to the eye, on linear
//! ones it draws dark lines. The filter is Lanczos of three lobes for shrinking and Catmull and Rom's for enlarging,
//! whose overshoot is the least of those that stay sharp.

use super::Extent;
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{
    FilterType, PixelComponentMapper, PixelType, ResizeAlg, ResizeOptions, Resizer, create_srgb_mapper,
};
use image::{GrayImage, RgbImage};
use std::sync::LazyLock;

/// Between sRGB's encoding and linear light.
static LIGHT: LazyLock<PixelComponentMapper> = LazyLock::new(create_srgb_mapper);

/// The picture at another size.
pub(super) fn rgb(picture: &RgbImage, to: Extent) -> RgbImage {
    let from = ImageRef::new(picture.width(), picture.height(), picture.as_raw(), PixelType::U8x3)
        .expect("an RGB picture has three bytes a pixel");
    let mut fitted = Image::new(to.width(), to.height(), PixelType::U8x3);
    if to.area() < u64::from(picture.width()) * u64::from(picture.height()) {
        let mut wide = Image::new(picture.width(), picture.height(), PixelType::U16x3);
        LIGHT.forward_map(&from, &mut wide).expect("both are of one size");
        let mut narrow = Image::new(to.width(), to.height(), PixelType::U16x3);
        filtered(FilterType::Lanczos3, |resizer, options| resizer.resize(&wide, &mut narrow, options));
        LIGHT.backward_map(&narrow, &mut fitted).expect("both are of one size");
    } else {
        filtered(FilterType::CatmullRom, |resizer, options| resizer.resize(&from, &mut fitted, options));
    }
    RgbImage::from_raw(to.width(), to.height(), fitted.into_vec()).expect("three bytes a pixel")
}

/// Single values at another size, in between where they lie between others; for masks.
pub(super) fn grey(mask: &GrayImage, to: Extent) -> GrayImage {
    let from = ImageRef::new(mask.width(), mask.height(), mask.as_raw(), PixelType::U8)
        .expect("a grey picture has one byte a pixel");
    let mut fitted = Image::new(to.width(), to.height(), PixelType::U8);
    filtered(FilterType::Bilinear, |resizer, options| resizer.resize(&from, &mut fitted, options));
    GrayImage::from_raw(to.width(), to.height(), fitted.into_vec()).expect("one byte a pixel")
}

/// Runs a resampling with a filter.
fn filtered(
    filter: FilterType,
    resize: impl FnOnce(&mut Resizer, &ResizeOptions) -> Result<(), fast_image_resize::ResizeError>,
) {
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter));
    resize(&mut Resizer::new(), &options).expect("both have the same kind of pixels");
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Luma, Rgb};

    fn at(text: &str) -> Extent {
        text.parse().unwrap()
    }

    #[test]
    fn a_fine_pattern_keeps_its_light_when_it_shrinks() {
        let stripes = RgbImage::from_fn(64, 64, |x, _| Rgb([if x % 2 == 0 { 255 } else { 0 }; 3]));
        // Half the light of 255 is 188 in sRGB's encoding; half of the encoded value is 128.
        let small = rgb(&stripes, at("32x32"));
        for x in 4..28 {
            let value = small.get_pixel(x, 16).0[0];
            assert!(value.abs_diff(188) <= 6, "{value} at {x}");
        }
    }

    #[test]
    fn one_colour_stays_the_very_same_at_any_size() {
        for colour in [[0, 0, 0], [255, 255, 255], [1, 2, 3], [200, 40, 90], [127, 128, 129]] {
            let plain = RgbImage::from_pixel(40, 44, Rgb(colour));
            for to in ["37x32", "80x48", "32x32", "40x100", "33x300"] {
                let fitted = rgb(&plain, at(to));
                assert!(fitted.pixels().all(|pixel| pixel.0 == colour), "{colour:?} at {to}");
            }
        }
    }

    #[test]
    fn an_enlarged_edge_stays_where_it_was_and_overshoots_alike_on_both_sides() {
        let edge = RgbImage::from_fn(16, 16, |x, _| Rgb([if x < 8 { 64 } else { 192 }; 3]));
        let wide = rgb(&edge, at("64x64"));
        let row: Vec<u8> = (0..64).map(|x| wide.get_pixel(x, 8).0[0]).collect();
        assert_eq!((row[8], row[55]), (64, 192));
        assert!(row[31] < 128 && row[32] > 128, "{row:?}");
        let (least, most) = (*row.iter().min().unwrap(), *row.iter().max().unwrap());
        assert!((50..64).contains(&least) && (193..=206).contains(&most), "{least} {most}");
        assert!((64 - least).abs_diff(most - 192) <= 1, "{least} {most}");
    }

    #[test]
    fn a_mask_is_interpolated_between_its_values() {
        let half = GrayImage::from_fn(16, 16, |x, _| Luma([if x < 8 { 0 } else { 255 }]));
        let wide = grey(&half, at("32x32"));
        assert_eq!((wide.get_pixel(0, 0).0[0], wide.get_pixel(31, 31).0[0]), (0, 255));
    }
}
