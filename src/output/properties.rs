//! What holds of every file and text that comes in: no reader panics, and what is read is within its bounds.

use super::fuzzing::{Corpus, holds};
use super::{Limits, Parameters, media_type, read_cutout, read_mask, read_parameters, read_picture};

/// Chunks and markers of the three formats, and lengths that lie.
const WORDS: &[&[u8]] = &[
    b"IHDR",
    b"IDAT",
    b"IEND",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"tEXtparameters\0",
    b"eXIf",
    b"acTL",
    b"fcTL",
    b"fdAT",
    b"PLTE",
    b"tRNS",
    b"VP8X",
    b"VP8L",
    b"VP8 ",
    b"ANIM",
    b"ANMF",
    b"ALPH",
    b"ICCP",
    b"EXIF",
    b"RIFF",
    b"WEBP",
    b"\xFF\xD8",
    b"\xFF\xD9",
    b"\xFF\xDA",
    b"\xFF\xC0",
    b"\xFF\xC2",
    b"\xFF\xC4",
    b"\xFF\xDB",
    b"\xFF\xE1",
    b"Exif\0\0",
    b"UNICODE\0",
    b"\0\0\0\0",
    b"\xFF\xFF\xFF\xFF",
    b"\x7F\xFF\xFF\xFF",
    b"\0\0\xFF\xFF",
    b"\0\x01\0\0",
    b"MM\0\x2A",
    b"II\x2A\0",
];

/// The words of a parameters text.
const NAMES: &[&[u8]] = &[
    b"\n",
    b"Steps: ",
    b", Sampler: ",
    b"Euler a",
    b", Schedule type: ",
    b"Karras",
    b", CFG scale: ",
    b", Seed: ",
    b", Size: ",
    b"64x64",
    b", Model: ",
    b", Denoising strength: ",
    b", Clip skip: ",
    b"\nNegative prompt: ",
    b"Prompt: ",
    b"\"",
    b"\\u0000",
    b"\\ud800",
    b"1e999",
    b"-1",
    b"18446744073709551616",
    b"NaN",
    b"\0",
    b"\xC3\xA9",
    b"\xF0\x9F\xA6\x80",
];

#[test]
fn no_file_makes_a_reader_of_pictures_panic_or_pass_its_bounds() {
    let limits = Limits { max_side: 512, max_pixels: 1 << 16 };
    holds(Corpus::of_folder("src/output/fixtures", WORDS).damaged(), |file| {
        let kind = media_type(&file);
        let is_within = |width: u32, height: u32| width.max(height) <= 512 && width * height <= 1 << 16;
        if let Ok((picture, mask)) = read_cutout(&file, "image", limits) {
            assert!(kind.is_some() && is_within(picture.width(), picture.height()));
            assert!(
                mask.is_none_or(|mask| mask.width() == picture.width() && mask.as_bytes().contains(&255))
            );
            assert_eq!(read_picture(&file, "image", limits), Ok(picture));
        }
        if let Ok(mask) = read_mask(&file, "mask", limits) {
            assert!(is_within(mask.width(), mask.height()));
        }
    });
}

#[test]
fn no_file_makes_the_reader_of_its_parameters_panic() {
    holds(Corpus::of_folder("src/output/fixtures", WORDS).damaged(), |file| {
        drop(read_parameters(&file).map(|text| Parameters::parse(&text)));
    });
}

#[test]
fn parameters_that_can_be_read_are_written_so_that_they_are_read_again() {
    holds(Corpus::of_folder("tests/corpus/parameters", NAMES).damaged(), |text| {
        let text = String::from_utf8_lossy(&text);
        if let Ok(parameters) = Parameters::parse(&text) {
            assert_eq!(Parameters::parse(&parameters.to_text()), Ok(parameters));
        }
    });
}
