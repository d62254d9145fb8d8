//! Pixels to the bytes of a file: the formats, their names, and [`encode`].

use super::{embed, stripes};
use crate::error::{Error, Result};
use crate::request::Picture;
use flate2::Compression;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::webp::WebPEncoder;
use image::{ExtendedColorType, ImageEncoder};
use std::fmt;
use std::path::Path;

/// How true a lossy file is to its picture, 0 to 100: OpenAI's `output_compression`, whose default is 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quality(u8);

impl Quality {
    /// The truest.
    pub const MAX: Self = Self(100);

    /// Checks `value`.
    ///
    /// # Errors
    /// If it is not from 0 to 100.
    pub fn new(value: i64) -> Result<Self> {
        match u8::try_from(value) {
            Ok(inside) if inside <= Self::MAX.0 => Ok(Self(inside)),
            _ => Err(Error::parameter(
                "output_compression",
                format!("output_compression must be a whole number from 0 to 100; got {value}"),
            )),
        }
    }

    /// The number itself.
    pub fn get(self) -> u8 {
        self.0
    }
}

impl Default for Quality {
    fn default() -> Self {
        Self::MAX
    }
}

/// What a picture is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Every pixel kept.
    Png,
    /// Lossy, with colour as finely sampled as brightness (4:4:4).
    Jpeg {
        /// The IJG quality; 0 counts as 1, its lowest.
        quality: Quality,
    },
    /// Lossy, with colour at half the resolution (4:2:0), as the format has it.
    WebpLossy {
        /// libwebp's quality factor.
        quality: Quality,
    },
    /// Every pixel kept, in a file a fifth smaller than PNG for photographs.
    WebpLossless,
}

impl Format {
    /// The names that [`Format::named`] knows, those of OpenAI's `output_format`.
    pub const NAMES: &[&str] = &["png", "jpeg", "webp"];

    /// The format of OpenAI's `output_format` and `output_compression`; `jpg` is read as `jpeg`, in any case. A PNG
    /// keeps every pixel at any quality.
    ///
    /// WebP is lossless at quality 100 and lossy below it: 100 is what a caller gets who did not ask for
    /// compression, and a lossy WebP is not true at any quality, since it halves the resolution of colour.
    ///
    /// # Errors
    /// If the name is unknown.
    pub fn named(name: &str, quality: Quality) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "png" => Ok(Self::Png),
            "jpeg" | "jpg" => Ok(Self::Jpeg { quality }),
            "webp" if quality == Quality::MAX => Ok(Self::WebpLossless),
            "webp" => Ok(Self::WebpLossy { quality }),
            _ => Err(unknown("output_format", "output_format", name)),
        }
    }

    /// The format of a file's extension, at quality 100.
    ///
    /// # Errors
    /// If the extension is missing or none of `png`, `jpg`, `jpeg` and `webp`; the error's parameter is
    /// `output`.
    pub fn of_path(path: &Path) -> Result<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        Self::named(extension, Quality::MAX)
            .map_err(|_| unknown("output", "the extension of output", extension))
    }

    /// The media type of HTTP's `Content-Type`.
    pub fn mime(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg { .. } => "image/jpeg",
            Self::WebpLossy { .. } | Self::WebpLossless => "image/webp",
        }
    }

    /// The usual extension of a file, without its dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg { .. } => "jpg",
            Self::WebpLossy { .. } | Self::WebpLossless => "webp",
        }
    }
}

fn unknown(param: &'static str, what: &str, given: &str) -> Error {
    let given: String = given.chars().take(40).collect();
    Error::parameter(param, format!("{what} must be one of {}; got '{given}'", Format::NAMES.join(", ")))
}

/// Writes `picture` as a file of `format`, with `parameters` (the text of [`Parameters::to_text`]) inside
/// where given, at the place where A1111 puts and seeks it.
///
/// Takes some tens of milliseconds a megapixel, so not for an asynchronous thread.
///
/// # Errors
/// If the picture is larger than the format allows (JPEG 65535, WebP 16383 pixels a side).
///
/// [`Parameters::to_text`]: super::Parameters::to_text
pub fn encode(picture: &Picture, format: Format, parameters: Option<&str>) -> Result<Vec<u8>> {
    let bytes = match format {
        Format::Png => return png(picture, parameters).map_err(|cause| failed(format, cause)),
        Format::Jpeg { quality } => jpeg(picture, quality),
        Format::WebpLossy { quality } => webp_lossy(picture, quality),
        Format::WebpLossless => webp_lossless(picture),
    }?;
    match (parameters, format) {
        (None, _) => Ok(bytes),
        (Some(text), Format::Jpeg { .. }) => {
            embed::into_jpeg(bytes, text).map_err(|cause| failed(format, cause))
        }
        (Some(text), _) => embed::into_webp(bytes, text).map_err(|cause| failed(format, cause)),
    }
}

/// Level 2 with the adaptive filter: 30 ms of work a megapixel, shared out to threads, for files an eighth larger than those of
/// level 6, which takes ten times as long; the encoder's own fast mode (8 ms) leaves photographs 45 % larger.
fn png(picture: &Picture, parameters: Option<&str>) -> std::result::Result<Vec<u8>, png::EncodingError> {
    let zipped = stripes::zipped(picture.as_bytes(), 3 * picture.width() as usize, Compression::new(2))?;
    let mut bytes = Vec::with_capacity(zipped.len() + 1024);
    let mut encoder = png::Encoder::new(&mut bytes, picture.width(), picture.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if let Some(text) = parameters {
        embed::into_png(&mut encoder, text)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_chunk(png::chunk::IDAT, &zipped)?;
    writer.finish()?;
    Ok(bytes)
}

fn jpeg(picture: &Picture, quality: Quality) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality.0)
        .write_image(picture.as_bytes(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|cause| failed(Format::Jpeg { quality }, cause))?;
    Ok(bytes)
}

/// libwebp with method 2: half the time of its default 4, for files as large below quality 100.
fn webp_lossy(picture: &Picture, quality: Quality) -> Result<Vec<u8>> {
    let fault = |cause: &dyn fmt::Debug| failed(Format::WebpLossy { quality }, format!("{cause:?}"));
    let mut config = webp::WebPConfig::new().map_err(|cause| fault(&cause))?;
    config.quality = f32::from(quality.0);
    config.method = 2;
    let encoder = webp::Encoder::from_rgb(picture.as_bytes(), picture.width(), picture.height());
    let memory = encoder.encode_advanced(&config).map_err(|cause| fault(&cause))?;
    Ok(memory.to_vec())
}

/// The encoder of image-webp: a sixth of libwebp's least time, for files as large as libwebp's at that
/// setting.
fn webp_lossless(picture: &Picture) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    WebPEncoder::new_lossless(&mut bytes)
        .encode(picture.as_bytes(), picture.width(), picture.height(), ExtendedColorType::Rgb8)
        .map_err(|cause| failed(Format::WebpLossless, cause))?;
    Ok(bytes)
}

fn failed(format: Format, cause: impl fmt::Display) -> Error {
    Error::internal(format!("cannot write {}: {cause}", format.mime()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::RgbImage;

    /// A gradient with noise on it, of a size that is a multiple of no block.
    fn picture() -> Picture {
        let mut state = 1_u32;
        Picture::new(RgbImage::from_fn(85, 67, |x, y| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = (state >> 28) as u8;
            image::Rgb([x as u8 * 2 + noise, y as u8 * 3 + noise, 200 - x as u8 + noise])
        }))
        .unwrap()
    }

    fn formats(quality: i64) -> [Format; 4] {
        let quality = Quality::new(quality).unwrap();
        [Format::Png, Format::Jpeg { quality }, Format::WebpLossy { quality }, Format::WebpLossless]
    }

    fn mean_difference(file: &[u8], picture: &Picture) -> f64 {
        let read = image::load_from_memory(file).unwrap().into_rgb8();
        assert_eq!(read.dimensions(), (picture.width(), picture.height()));
        let pairs = read.as_raw().iter().zip(picture.as_bytes());
        pairs.map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / read.as_raw().len() as f64
    }

    #[test]
    fn png_and_lossless_webp_keep_every_pixel_with_parameters_and_without() {
        let picture = picture();
        for format in [Format::Png, Format::WebpLossless] {
            for parameters in [None, Some("x\nSteps: 1"), Some("日本\nSteps: 1")] {
                assert_eq!(mean_difference(&encode(&picture, format, parameters).unwrap(), &picture), 0.0);
            }
        }
    }

    #[test]
    fn lossy_files_grow_truer_and_larger_with_quality_and_are_no_different_for_their_parameters() {
        let picture = picture();
        for kind in [1, 2] {
            let files =
                [0, 50, 90, 100].map(|quality| encode(&picture, formats(quality)[kind], None).unwrap());
            let differences = files.each_ref().map(|file| mean_difference(file, &picture));
            assert!(files.is_sorted_by_key(Vec::len), "{:?}", files.each_ref().map(Vec::len));
            assert!(differences.is_sorted_by(|a, b| a > b) && differences[3] < 4.0, "{differences:?}");
            let with = encode(&picture, formats(90)[kind], Some("x")).unwrap();
            assert_eq!(mean_difference(&with, &picture), differences[2]);
        }
    }

    #[test]
    fn a_jpeg_keeps_colour_at_full_resolution() {
        let file = encode(&picture(), formats(100)[1], None).unwrap();
        let frame = file.windows(4).position(|bytes| bytes == [0xFF, 0xC0, 0, 17]).unwrap();
        let sampling: Vec<u8> = (0..3).map(|component| file[frame + 11 + 3 * component]).collect();
        assert_eq!(sampling, [0x11, 0x11, 0x11]);
    }

    #[test]
    fn names_and_qualities_choose_the_format() {
        let at = |name, quality| Format::named(name, Quality::new(quality).unwrap());
        let [png, jpeg, lossy, _] = formats(40);
        assert_eq!((at("png", 100), at("JPEG", 40), at("jpg", 40)), (Ok(png), Ok(jpeg), Ok(jpeg)));
        assert_eq!((at("webp", 40), at("webp", 100)), (Ok(lossy), Ok(Format::WebpLossless)));
        assert_eq!(at("png", 40), Ok(png));
        let error = at("gif", 100).unwrap_err();
        assert_eq!(error.message(), "output_format must be one of png, jpeg, webp; got 'gif'");
        assert_eq!(error.param(), Some("output_format"));
        for value in [-1, 101, i64::MIN] {
            let error = Quality::new(value).unwrap_err();
            assert_eq!(error.param(), Some("output_compression"));
            assert!(error.message().ends_with(&value.to_string()));
        }
    }

    #[test]
    fn a_path_chooses_the_format_by_its_extension() {
        assert_eq!(Format::of_path(Path::new("a/b.PNG")), Ok(Format::Png));
        assert_eq!(Format::of_path(Path::new("b.jpg")), Ok(formats(100)[1]));
        assert_eq!(Format::of_path(Path::new("b.c.webp")), Ok(Format::WebpLossless));
        for path in ["png", "b.gif", "", "."] {
            assert_eq!(Format::of_path(Path::new(path)).unwrap_err().param(), Some("output"), "{path}");
        }
    }

    #[test]
    fn each_file_is_what_its_media_type_and_extension_say() {
        for format in formats(80) {
            let file = encode(&picture(), format, None).unwrap();
            assert_eq!(image::guess_format(&file).unwrap().to_mime_type(), format.mime());
            assert_eq!(
                image::ImageFormat::from_extension(format.extension()).unwrap().to_mime_type(),
                format.mime()
            );
        }
    }
}
