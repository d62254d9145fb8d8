//! Pictures and masks that come with a request: bytes to pixels, with bounds checked before any pixel is
//! decoded.

use crate::error::{Error, ImageFlaw, Result};
use crate::request::{Mask, Picture};
use image::metadata::Orientation;
use image::{DynamicImage, GrayAlphaImage, GrayImage, ImageDecoder, ImageError, ImageFormat, ImageReader};
use img_parts::{Bytes, jpeg::Jpeg};
use std::io::{Cursor, ErrorKind};

/// How large a picture may be, as its header tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most pixels on a side.
    pub max_side: u32,
    /// The most pixels in all.
    pub max_pixels: u64,
}

impl Default for Limits {
    /// 16384 a side and 64 Mpx: what phones take, and under a gigabyte while such a picture is decoded.
    fn default() -> Self {
        Self { max_side: 16_384, max_pixels: 64 << 20 }
    }
}

/// Decodes a PNG, JPEG or WebP file (told by its content), turned upright by its EXIF orientation.
///
/// Grey, palette, 16-bit and CMYK pictures become RGB of eight bits. Transparency is dropped and the colour
/// under it kept, not blended: OpenAI's edits send a picture whose transparent part is the mask. Of an
/// animation the first frame is taken. Colour profiles are not applied.
///
/// # Errors
/// If the file is of another format, cut short or damaged, or larger than `limits`; the error names `param`.
pub fn read_picture(bytes: &[u8], param: &'static str, limits: Limits) -> Result<Picture> {
    Picture::new(decode(bytes, param, limits)?.into_rgb8())
}

/// Decodes a picture as [`read_picture`] does, and the mask that its own transparency is: what is more transparent than
/// not (alpha up to 127). A picture without such a part has no mask.
///
/// # Errors
/// As [`read_picture`].
pub fn read_cutout(bytes: &[u8], param: &'static str, limits: Limits) -> Result<(Picture, Option<Mask>)> {
    let image = decode(bytes, param, limits)?;
    let mask = image.color().has_alpha().then(|| by_transparency(&image.to_luma_alpha8()));
    let mask = mask.filter(|mask| mask.as_bytes().contains(&255));
    Ok((Picture::new(image.into_rgb8())?, mask))
}

/// The media type of a file, as far as its first bytes tell; `None` where it is none of those that are read.
pub fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match image::guess_format(bytes).ok()? {
        ImageFormat::Png => Some("image/png"),
        ImageFormat::Jpeg => Some("image/jpeg"),
        ImageFormat::WebP => Some("image/webp"),
        _ => None,
    }
}

/// Decodes a mask, a file as in [`read_picture`], by the rule that its transparency calls for:
///
/// - OpenAI's, where any pixel is the least transparent: what is more transparent than not (alpha up to 127,
///   so fully transparent above all) is drawn anew, whatever its colour.
/// - A1111's and diffusers', where none is: what is lighter than not (grey from 128 on) is drawn anew.
///
/// # Errors
/// As [`read_picture`].
pub fn read_mask(bytes: &[u8], param: &'static str, limits: Limits) -> Result<Mask> {
    let image = decode(bytes, param, limits)?;
    if !image.color().has_alpha() {
        return Ok(Mask::new(image.into_luma8()));
    }
    let pixels = image.into_luma_alpha8();
    if pixels.pixels().any(|pixel| pixel.0[1] < 255) {
        return Ok(by_transparency(&pixels));
    }
    Ok(Mask::new(GrayImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        image::Luma([pixels.get_pixel(x, y).0[0]])
    })))
}

fn by_transparency(pixels: &GrayAlphaImage) -> Mask {
    Mask::new(GrayImage::from_fn(pixels.width(), pixels.height(), |x, y| {
        image::Luma([255 - pixels.get_pixel(x, y).0[1]])
    }))
}

fn decode(bytes: &[u8], param: &'static str, limits: Limits) -> Result<DynamicImage> {
    let format = format_of(bytes, param)?;
    let damaged = |cause: ImageError| match is_cut_short(bytes, format, &cause) {
        true => cut_short(param, format),
        false => Error::image(param, format!("{param} is damaged or of an unsupported kind: {cause}")),
    };
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(beside_the_pixels());
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    check_size(decoder.dimensions(), param, limits)?;
    if format == ImageFormat::Jpeg && !has_end(bytes) {
        return Err(cut_short(param, format));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// What the decoders may allocate before and beside the pixels, colour profiles and texts that unpack to a thousand
/// times their length among it. The pixels are bounded by [`check_size`].
fn beside_the_pixels() -> image::Limits {
    let mut bounds = image::Limits::no_limits();
    bounds.max_alloc = Some(64 << 20);
    bounds
}

fn format_of(bytes: &[u8], param: &'static str) -> Result<ImageFormat> {
    if bytes.is_empty() {
        return Err(Error::flawed(param, ImageFlaw::Empty, format!("{param} is empty")));
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP)) => Ok(format),
        Ok(other) => Err(Error::flawed(
            param,
            ImageFlaw::MediaType,
            format!("{param} must be a PNG, JPEG or WebP file; it is {other:?}"),
        )),
        Err(_) => Err(Error::flawed(
            param,
            ImageFlaw::Format,
            format!("{param} must be a PNG, JPEG or WebP file; it is none"),
        )),
    }
}

fn check_size((width, height): (u32, u32), param: &'static str, limits: Limits) -> Result<()> {
    let Limits { max_side, max_pixels } = limits;
    let pixels = u64::from(width) * u64::from(height);
    if width == 0 || height == 0 {
        return Err(Error::image(param, format!("{param} has no pixels; it is {width}x{height}")));
    }
    if width > max_side || height > max_side || pixels > max_pixels {
        let bound = format!("at most {max_side} pixels a side and {max_pixels} in all");
        let message = format!("{param} may have {bound}; it is {width}x{height}");
        return Err(Error::flawed(param, ImageFlaw::TooLarge, message));
    }
    Ok(())
}

/// Whether a JPEG's pixels are followed by the end marker; the decoder fills up a file that stops before it
/// with grey. A file whose headers make no sense is left for the decoder to refuse.
fn has_end(bytes: &[u8]) -> bool {
    let Ok(jpeg) = Jpeg::from_bytes(Bytes::copy_from_slice(bytes)) else { return true };
    let after_headers = jpeg.segments().last().map_or(0, |scan| scan.len_with_entropy() - scan.len());
    bytes[bytes.len() - after_headers..].windows(2).any(|pair| pair == [0xFF, 0xD9])
}

/// Whether decoding failed because the file stops early: the decoder says so, or a WebP is shorter than its
/// header claims.
fn is_cut_short(bytes: &[u8], format: ImageFormat, cause: &ImageError) -> bool {
    let claimed = bytes.get(4..).and_then(|bytes| bytes.first_chunk()).copied().map(u32::from_le_bytes);
    let missing = claimed.is_some_and(|claimed| claimed as usize > bytes.len() - 8);
    let ended = matches!(cause, ImageError::IoError(cause) if cause.kind() == ErrorKind::UnexpectedEof);
    ended || (format == ImageFormat::WebP && missing)
}

fn cut_short(param: &'static str, format: ImageFormat) -> Error {
    Error::image(param, format!("{param} is cut short: its {format:?} data ends before the picture does"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use image::{GrayAlphaImage, ImageBuffer, Luma, LumaA, Rgb, RgbImage, Rgba, RgbaImage};

    fn written(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.into().write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn read(file: &[u8]) -> Picture {
        read_picture(file, "image", Limits::default()).unwrap()
    }

    fn refusal(file: &[u8], limits: Limits) -> String {
        let error = read_picture(file, "image[]", limits).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidImage { param: "image[]", .. }), "{error:?}");
        error.message().to_owned()
    }

    fn is_near(picture: &Picture, (x, y): (u32, u32), colour: [u8; 3]) -> bool {
        picture.as_image().get_pixel(x, y).0.iter().zip(colour).all(|(a, b)| a.abs_diff(b) < 12)
    }

    #[test]
    fn the_three_formats_are_told_by_their_content() {
        let image = RgbImage::from_fn(31, 17, |x, y| Rgb([x as u8 * 8, y as u8 * 15, 90]));
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            assert_eq!(read(&written(image.clone(), format)).as_image(), &image);
        }
        let jpeg = read(&written(image.clone(), ImageFormat::Jpeg));
        assert_eq!((jpeg.width(), jpeg.height()), (31, 17));
    }

    #[test]
    fn grey_deep_and_transparent_pictures_become_rgb_with_the_colour_under_transparency_kept() {
        let pixel =
            |image: DynamicImage| read(&written(image, ImageFormat::Png)).as_image().get_pixel(1, 1).0;
        assert_eq!(pixel(GrayImage::from_pixel(2, 2, Luma([77])).into()), [77; 3]);
        assert_eq!(pixel(GrayAlphaImage::from_pixel(2, 2, LumaA([77, 0])).into()), [77; 3]);
        assert_eq!(pixel(RgbaImage::from_pixel(2, 2, Rgba([1, 2, 3, 0])).into()), [1, 2, 3]);
        let deep: ImageBuffer<Rgb<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Rgb([0xFFFF, 0x8080, 0]));
        assert_eq!(pixel(deep.into()), [255, 128, 0]);
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Luma([0x4040]));
        assert_eq!(pixel(deep.into()), [64; 3]);
    }

    #[test]
    fn palettes_and_single_bits_are_unpacked() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::One);
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
        encoder.set_trns(vec![255, 0]);
        encoder.write_header().unwrap().write_image_data(&[0b0100_0000]).unwrap();
        assert_eq!(read(&file).as_bytes(), [10, 20, 30, 40, 50, 60]);
        assert_eq!(read_mask(&file, "mask", Limits::default()).unwrap().as_bytes(), [0, 255]);
    }

    #[test]
    fn cmyk_and_progressive_jpegs_are_read() {
        let cyan = read(include_bytes!("fixtures/cmyk.jpg"));
        assert!(is_near(&cyan, (8, 8), [0, 255, 255]), "{:?}", cyan.as_image().get_pixel(8, 8));
        assert!(is_near(&read(include_bytes!("fixtures/progressive.jpg")), (28, 8), [0, 0, 255]));
    }

    #[test]
    fn a_picture_is_turned_as_its_exif_says() {
        let files: [&[u8]; 2] =
            [include_bytes!("fixtures/turned.jpg"), include_bytes!("fixtures/turned.webp")];
        for file in files {
            let picture = read(file);
            assert_eq!((picture.width(), picture.height()), (16, 32));
            assert!(is_near(&picture, (8, 4), [255, 0, 0]) && is_near(&picture, (8, 28), [0, 0, 255]));
        }
        assert_eq!(read_mask(files[0], "mask", Limits::default()).unwrap().height(), 32);
    }

    #[test]
    fn of_an_animation_the_first_frame_is_taken() {
        assert!(is_near(&read(include_bytes!("fixtures/animated.webp")), (4, 4), [255, 0, 0]));
        assert!(is_near(&read(include_bytes!("fixtures/animated.png")), (4, 4), [255, 0, 0]));
    }

    #[test]
    fn a_picture_beyond_the_limits_is_refused_with_its_size_and_the_bound() {
        let file = written(RgbImage::new(30, 20), ImageFormat::Png);
        let limits = |max_side, max_pixels| Limits { max_side, max_pixels };
        assert!(read_picture(&file, "image", limits(30, 600)).is_ok());
        let message = refusal(&file, limits(29, 600));
        assert_eq!(message, "image[] may have at most 29 pixels a side and 600 in all; it is 30x20");
        assert!(refusal(&file, limits(30, 599)).ends_with("599 in all; it is 30x20"));
        let tall = written(RgbImage::new(20, 30), ImageFormat::WebP);
        assert!(refusal(&tall, limits(29, 600)).ends_with("it is 20x30"));
    }

    #[test]
    fn a_header_that_claims_much_is_refused_before_anything_is_decoded() {
        let mut png = written(RgbImage::new(8, 8), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
        let crc = flipped_crc(&png[12..29]);
        png[29..33].copy_from_slice(&crc.to_be_bytes());
        assert!(refusal(&png, Limits::default()).ends_with("it is 65535x65535"));
        let mut jpeg = written(RgbImage::new(8, 8), ImageFormat::Jpeg);
        let frame = jpeg.windows(4).position(|bytes| bytes == [0xFF, 0xC0, 0, 17]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xFF; 4]);
        assert!(refusal(&jpeg, Limits::default()).ends_with("it is 65535x65535"));
    }

    /// CRC-32 as PNG has it, bit by bit.
    fn flipped_crc(bytes: &[u8]) -> u32 {
        let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
    }

    /// A PNG of `side` pixels a side with a chunk of `kind` that unpacks to `unpacked` zeros.
    fn png_with(kind: &[u8; 4], unpacked: usize, side: u32) -> Vec<u8> {
        let mut file = written(RgbImage::from_pixel(side, side, Rgb([7, 8, 9])), ImageFormat::Png);
        let mut donor = Vec::new();
        let mut encoder = png::Encoder::new(&mut donor, 1, 1);
        encoder.add_ztxt_chunk("a".to_owned(), "\0".repeat(unpacked)).unwrap();
        encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
        let at = donor.windows(4).position(|name| name == b"zTXt").unwrap();
        let length = u32::from_be_bytes(*donor[at - 4..at].first_chunk().unwrap()) as usize;
        // zTXt and iCCP alike: a name, a zero, the method, and what is packed.
        let named = [kind, &donor[at + 4..at + 4 + length]].concat();
        let chunk = [&(length as u32).to_be_bytes()[..], &named, &flipped_crc(&named).to_be_bytes()].concat();
        file.splice(33..33, chunk);
        file
    }

    #[test]
    fn what_unpacks_to_much_beside_the_pixels_does_not_hinder_them() {
        for kind in [b"zTXt", b"iCCP"] {
            let file = png_with(kind, 200 << 20, 40);
            assert!(file.len() < 1 << 20, "{}", file.len());
            assert_eq!(read(&file).as_image(), &RgbImage::from_pixel(40, 40, Rgb([7, 8, 9])));
        }
    }

    #[test]
    fn a_picture_whose_pixels_are_more_than_what_may_stand_beside_them_is_read() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 6000, 2000);
        encoder.set_color(png::ColorType::Rgba);
        encoder.set_depth(png::BitDepth::Sixteen);
        encoder.write_header().unwrap().write_image_data(&vec![0x80; 6000 * 2000 * 8]).unwrap();
        assert_eq!(read(&file).as_image().get_pixel(5999, 1999).0, [128; 3]);
        for format in [ImageFormat::Jpeg, ImageFormat::WebP] {
            let file = written(RgbImage::from_pixel(6000, 4000, Rgb([128; 3])), format);
            assert_eq!(read(&file).width(), 6000, "{format:?}");
        }
    }

    #[test]
    fn a_cut_out_picture_has_its_transparency_as_its_mask_and_an_opaque_one_has_none() {
        let alphas = [255, 128, 127, 0];
        let image = RgbaImage::from_fn(4, 1, |x, _| Rgba([9, 8, 7, alphas[x as usize]]));
        let limits = Limits::default();
        let (picture, mask) = read_cutout(&written(image, ImageFormat::Png), "image", limits).unwrap();
        assert_eq!(picture.as_image().get_pixel(3, 0).0, [9, 8, 7]);
        assert_eq!(mask.unwrap().as_bytes(), [0, 0, 255, 255]);
        for alpha in [128, 255] {
            let image = RgbaImage::from_pixel(2, 2, Rgba([255, 255, 255, alpha]));
            let (_, mask) = read_cutout(&written(image, ImageFormat::WebP), "image", limits).unwrap();
            assert_eq!(mask, None);
        }
    }

    #[test]
    fn other_formats_and_nothing_are_refused_by_name() {
        let limits = Limits::default();
        assert_eq!(refusal(b"", limits), "image[] is empty");
        assert_eq!(refusal(b"hello", limits), "image[] must be a PNG, JPEG or WebP file; it is none");
        let gif = refusal(include_bytes!("fixtures/other.gif"), limits);
        assert_eq!(gif, "image[] must be a PNG, JPEG or WebP file; it is Gif");
    }

    #[test]
    fn a_file_that_stops_early_is_refused_wherever_it_stops() {
        let image = RgbImage::from_fn(40, 40, |x, y| Rgb([(x * y) as u8, x as u8, y as u8]));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let file = written(image.clone(), format);
            for length in (12..file.len() - 16).step_by(7) {
                let message = refusal(&file[..length], Limits::default());
                assert!(message.contains("cut short") || message.contains("damaged"), "{message}");
            }
            let half = refusal(&file[..file.len() / 2], Limits::default());
            assert!(half.contains("cut short"), "{format:?}: {half}");
        }
    }

    #[test]
    fn a_mask_with_transparency_draws_where_it_is_transparent_whatever_its_colour() {
        let alphas = [255, 254, 128, 127, 1, 0];
        let image = RgbaImage::from_fn(6, 1, |x, _| Rgba([255, 255, 255, alphas[x as usize]]));
        let mask = read_mask(&written(image, ImageFormat::Png), "mask", Limits::default()).unwrap();
        assert_eq!(mask.as_bytes(), [0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn the_least_transparency_makes_a_mask_one_by_transparency() {
        let image = RgbaImage::from_fn(2, 1, |x, _| Rgba([255, 255, 255, 255 - x as u8]));
        let mask = read_mask(&written(image, ImageFormat::Png), "mask", Limits::default()).unwrap();
        assert_eq!(mask.as_bytes(), [0, 0]);
    }

    #[test]
    fn a_mask_without_transparency_draws_where_it_is_white_even_if_it_has_an_alpha_channel() {
        let greys = [0, 127, 128, 255];
        let grey = GrayImage::from_fn(4, 1, |x, _| Luma([greys[x as usize]]));
        let opaque = RgbaImage::from_fn(4, 1, |x, _| {
            let grey = greys[x as usize];
            Rgba([grey, grey, grey, 255])
        });
        for file in [written(grey, ImageFormat::Png), written(opaque, ImageFormat::WebP)] {
            assert_eq!(read_mask(&file, "mask", Limits::default()).unwrap().as_bytes(), [0, 0, 255, 255]);
        }
    }

    #[test]
    fn a_mask_that_cannot_be_read_is_refused_as_the_mask() {
        assert_eq!(read_mask(b"GIF89a", "mask", Limits::default()).unwrap_err().param(), Some("mask"));
    }
}
