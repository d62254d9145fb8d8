//! Where a file keeps its generation parameters: a text chunk in PNG, the EXIF user comment in JPEG and WebP.
//!
//! The places are A1111's, so that its readers, ComfyUI's and those of the galleries find them: PNG's
//! `parameters` chunk as Pillow writes it (`tEXt` for Latin-1, else `iTXt`), and EXIF tag 0x9286 as piexif's
//! `UserComment` helper writes it.

use exif::{In, Reader, Tag, Value};
use image::ImageFormat;
use img_parts::jpeg::{Jpeg, JpegSegment, markers};
use img_parts::webp::WebP;
use img_parts::{Bytes, ImageEXIF};
use std::io::{Cursor, Write};

/// The keyword of the PNG chunk.
const KEYWORD: &str = "parameters";
/// The eight bytes that say that a user comment is Unicode: UTF-16, big-endian by custom.
const UNICODE: &[u8; 8] = b"UNICODE\0";
/// What stands before the TIFF structure in a JPEG's APP1 segment (and, by some writers, in a WebP's chunk).
const EXIF_PREFIX: &[u8] = b"Exif\0\0";
/// The most bytes that a JPEG segment holds after its length.
const SEGMENT_BYTES: usize = 65_533;
/// The most text that is read out of a compressed chunk; two prompts of the largest size need a tenth of it.
const TEXT_BYTES: usize = 4 << 20;

/// Adds `text` to the chunks that come before the pixels.
pub(super) fn into_png<W: Write>(
    encoder: &mut png::Encoder<'_, W>,
    text: &str,
) -> Result<(), png::EncodingError> {
    let latin1 = text.chars().all(|c| u32::from(c) <= 0xFF);
    if latin1 {
        encoder.add_text_chunk(KEYWORD.to_owned(), text.to_owned())
    } else {
        encoder.add_itxt_chunk(KEYWORD.to_owned(), text.to_owned())
    }
}

/// Puts `text` into the EXIF of a JPEG file.
///
/// EXIF beyond one segment's 64 KiB (some 32 000 characters) is continued in further ones, which Pillow joins
/// again; other readers may find no comment in such a file.
pub(super) fn into_jpeg(file: Vec<u8>, text: &str) -> Result<Vec<u8>, img_parts::Error> {
    let mut jpeg = Jpeg::from_bytes(file.into())?;
    let exif = exif_of(text);
    let segments = exif
        .chunks(SEGMENT_BYTES - EXIF_PREFIX.len())
        .map(|part| JpegSegment::new_with_contents(markers::APP1, Bytes::from([EXIF_PREFIX, part].concat())));
    let after_jfif = jpeg.segments().iter().take_while(|segment| segment.marker() == markers::APP0).count();
    jpeg.segments_mut().splice(after_jfif..after_jfif, segments);
    Ok(jpeg.encoder().bytes().to_vec())
}

/// Puts `text` into the EXIF chunk of a WebP file, which becomes one of the extended kind (VP8X).
pub(super) fn into_webp(file: Vec<u8>, text: &str) -> Result<Vec<u8>, img_parts::Error> {
    let mut webp = WebP::from_bytes(file.into())?;
    webp.set_exif(Some(exif_of(text).into()));
    Ok(webp.encoder().bytes().to_vec())
}

/// The generation parameters inside a PNG, JPEG or WebP file; `None` where there are none or the file is
/// damaged.
pub fn read_parameters(file: &[u8]) -> Option<String> {
    match image::guess_format(file).ok()? {
        ImageFormat::Png => from_png(file),
        ImageFormat::Jpeg => from_jpeg(file),
        ImageFormat::WebP => from_webp(file),
        _ => None,
    }
}

fn from_png(file: &[u8]) -> Option<String> {
    let reader = png::Decoder::new(Cursor::new(file)).read_info().ok()?;
    let info = reader.info();
    if let Some(chunk) = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        return Some(chunk.text.clone());
    }
    if let Some(chunk) = info.utf8_text.iter().find(|chunk| chunk.keyword == KEYWORD) {
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(TEXT_BYTES).ok()?;
        return chunk.get_text().ok();
    }
    let mut chunk = info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == KEYWORD)?.clone();
    chunk.decompress_text_with_limit(TEXT_BYTES).ok()?;
    chunk.get_text().ok()
}

fn from_jpeg(file: &[u8]) -> Option<String> {
    let jpeg = Jpeg::from_bytes(Bytes::copy_from_slice(file)).ok()?;
    let parts = jpeg.segments_by_marker(markers::APP1).map(|segment| segment.contents().as_ref());
    let exif: Vec<u8> =
        parts.filter_map(|contents: &[u8]| contents.strip_prefix(EXIF_PREFIX)).flatten().copied().collect();
    text_of(exif)
}

fn from_webp(file: &[u8]) -> Option<String> {
    let exif = WebP::from_bytes(Bytes::copy_from_slice(file)).ok()?.exif()?;
    let exif = exif.strip_prefix(EXIF_PREFIX).unwrap_or(&exif);
    text_of(exif.to_vec())
}

/// A TIFF structure whose one entry is the Exif directory, whose one entry is the user comment.
fn exif_of(text: &str) -> Vec<u8> {
    let comment: Vec<u8> =
        UNICODE.iter().copied().chain(text.encode_utf16().flat_map(u16::to_be_bytes)).collect();
    let mut exif = b"MM\0\x2A\0\0\0\x08".to_vec(); // big-endian; the first directory is at byte 8
    exif.extend(directory(0x8769, 4, 1, 26)); // ExifIFDPointer: LONG, one, the directory at byte 26
    exif.extend(directory(0x9286, 7, comment.len(), 44)); // UserComment: UNDEFINED, its bytes from byte 44 on
    exif.extend(comment);
    exif
}

/// A TIFF directory of one entry, 18 bytes: the count, the entry, and no next directory.
fn directory(tag: u16, kind: u16, count: usize, value: u32) -> Vec<u8> {
    let count = u32::try_from(count).expect("a comment holds two prompts of bounded length");
    let mut bytes = vec![0, 1];
    bytes.extend(tag.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(value.to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

/// The user comment of an EXIF structure. Tags that other software left damaged do not hide it.
fn text_of(exif: Vec<u8>) -> Option<String> {
    let exif = Reader::new()
        .continue_on_error(true)
        .read_raw(exif)
        .or_else(|error| error.distill_partial_result(|_| ()))
        .ok()?;
    match &exif.get_field(Tag::UserComment, In::PRIMARY)?.value {
        Value::Undefined(comment, _) => decoded(comment),
        _ => None,
    }
}

/// The text of a user comment: UTF-16 after `UNICODE`, else UTF-8, with or without the eight bytes of a kind.
fn decoded(comment: &[u8]) -> Option<String> {
    if let Some(utf16) = comment.strip_prefix(UNICODE) {
        let units = utf16.as_chunks::<2>().0.iter().copied().map(u16::from_be_bytes);
        return Some(char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect());
    }
    let text =
        [b"ASCII\0\0\0", &[0; 8]].iter().find_map(|kind| comment.strip_prefix(*kind)).unwrap_or(comment);
    std::str::from_utf8(text).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::{Format, Quality, encode};
    use super::*;
    use crate::request::Picture;

    fn file(format: Format, text: &str) -> Vec<u8> {
        let picture = Picture::new(image::RgbImage::from_pixel(9, 8, image::Rgb([9, 99, 199]))).unwrap();
        encode(&picture, format, Some(text)).unwrap()
    }

    fn formats() -> [Format; 4] {
        let quality = Quality::MAX;
        [Format::Png, Format::Jpeg { quality }, Format::WebpLossy { quality }, Format::WebpLossless]
    }

    #[test]
    fn every_format_gives_its_text_back() {
        let long = "日本語 ".repeat(40_000);
        for text in
            ["", "a", "ab", "a cat\nSteps: 5", "café\u{ff}", "🦀\n\"日本\"", "nul \u{0} inside", &long]
        {
            for format in formats() {
                assert!(
                    read_parameters(&file(format, text)).as_deref() == Some(text),
                    "{format:?} {text:.20}"
                );
            }
        }
    }

    #[test]
    fn a_file_without_parameters_has_none() {
        let picture = Picture::new(image::RgbImage::new(8, 8)).unwrap();
        for format in formats() {
            assert_eq!(read_parameters(&encode(&picture, format, None).unwrap()), None);
        }
        assert_eq!(read_parameters(include_bytes!("fixtures/turned.jpg")), None);
        assert_eq!(read_parameters(include_bytes!("fixtures/other.gif")), None);
        assert_eq!(read_parameters(b""), None);
    }

    #[test]
    fn a_png_has_a_plain_chunk_for_latin_1_and_an_international_one_beyond() {
        let kind_of = |text| {
            let file = file(Format::Png, text);
            let at = file.windows(10).position(|bytes| bytes == b"parameters").unwrap();
            String::from_utf8(file[at - 4..at].to_vec()).unwrap()
        };
        assert_eq!((kind_of("café"), kind_of("カフェ")), ("tEXt".to_owned(), "iTXt".to_owned()));
    }

    #[test]
    fn the_exif_of_a_jpeg_comes_after_its_jfif_segment_which_must_be_the_first() {
        let file = file(Format::Jpeg { quality: Quality::MAX }, "a");
        let exif = 4 + usize::from(u16::from_be_bytes([file[4], file[5]]));
        assert_eq!((&file[2..4], &file[exif..exif + 2]), (&[0xFF, 0xE0][..], &[0xFF, 0xE1][..]));
    }

    #[test]
    fn the_exif_is_what_piexif_writes_for_the_same_comment() {
        let expected = b"MM\0\x2a\0\0\0\x08\0\x01\x87\x69\0\x04\0\0\0\x01\0\0\0\x1a\0\0\0\0\
                         \0\x01\x92\x86\0\x07\0\0\0\x0c\0\0\0\x2c\0\0\0\0UNICODE\0\0h\0i";
        assert_eq!(exif_of("hi"), expected);
    }

    #[test]
    fn files_of_pillow_and_piexif_are_read() {
        let latin1 = read_parameters(include_bytes!("fixtures/text.png")).unwrap();
        assert!(
            latin1.starts_with("a café, \"quoted\"\nsecond line\nNegative prompt: blurry: yes\nSteps: 20, ")
        );
        assert_eq!(read_parameters(include_bytes!("fixtures/ztxt.png")).unwrap(), latin1);
        let unicode = latin1.replace("café", "カフェ 🦀");
        let files: [&[u8]; 4] = [
            include_bytes!("fixtures/itxt.png"),
            include_bytes!("fixtures/itxt_zipped.png"),
            include_bytes!("fixtures/comment.jpg"),
            include_bytes!("fixtures/comment.webp"),
        ];
        for file in files {
            assert_eq!(read_parameters(file).as_deref(), Some(unicode.as_str()));
        }
    }

    #[test]
    fn comments_of_other_kinds_are_read_as_utf_8() {
        assert_eq!(decoded(b"ASCII\0\0\0abc").as_deref(), Some("abc"));
        assert_eq!(decoded(b"\0\0\0\0\0\0\0\0abc").as_deref(), Some("abc"));
        assert_eq!(decoded("naïve".as_bytes()).as_deref(), Some("naïve"));
        assert_eq!(decoded(b"UNICODE\0\xd8\0\0a\0").as_deref(), Some("\u{fffd}a"));
        assert_eq!(decoded(b"\xff\xfe"), None);
    }

    #[test]
    fn a_text_that_unpacks_to_more_than_any_prompt_is_not_read() {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 1, 1);
        encoder.add_ztxt_chunk(KEYWORD.to_owned(), "a".repeat(TEXT_BYTES + 1)).unwrap();
        encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
        assert!(file.len() < 100_000);
        assert_eq!(read_parameters(&file), None);
    }
}
