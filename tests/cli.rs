//! The command line as a user types it.

use easel::output::{Parameters, read_parameters};
use std::path::PathBuf;
use std::process::{Command, Output};

fn easel(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_easel")).args(arguments).output().expect("easel runs")
}

/// A folder for a test's files, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("easel-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the folder is made");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Small pictures are quick, however they look.
const QUICK: [&str; 8] = ["--sizes", "any", "--size", "64x64", "--steps", "2", "--seed", "7"];

#[test]
fn four_pictures_of_seed_seven_are_those_of_seven_to_ten_alone() {
    let folder = Folder::new("four");
    let file = folder.file("all.png");
    let four = easel(&[&["generate", "red apple", "-n", "4", "-o", &file], &QUICK[..]].concat());
    assert!(four.status.success(), "{}", String::from_utf8_lossy(&four.stderr));
    let names: Vec<String> = String::from_utf8_lossy(&four.stdout).lines().map(str::to_owned).collect();
    assert_eq!(names, [1, 2, 3, 4].map(|k| folder.file(&format!("all-{k}.png"))));
    let pixels = |name: &str| image::open(name).expect("a picture").into_rgb8().into_raw();
    for (k, name) in names.iter().enumerate() {
        let (seed, alone) = ((7 + k).to_string(), folder.file("alone.png"));
        let one =
            easel(&[&["generate", "red apple", "-o", &alone], &QUICK[..6], &["--seed", &seed]].concat());
        assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
        assert!(pixels(name) == pixels(&alone), "seed {seed} alone gives another picture");
    }
}

#[test]
fn a_file_says_what_drew_it_in_any_format() {
    let folder = Folder::new("formats");
    for name in ["a.png", "a.jpg", "a.webp"] {
        let file = folder.file(name);
        let asked = [
            "generate",
            "a (red:1.2) apple",
            "--negative",
            "blue",
            "--sampler",
            "DPM++ 2M Karras",
            "-o",
            &file,
        ];
        let drawn = easel(&[&asked, &QUICK[..]].concat());
        assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
        let bytes = std::fs::read(&file).expect("the picture is read");
        let text = read_parameters(&bytes).expect("the parameters are inside");
        let parameters = Parameters::parse(&text).expect("they are well formed");
        assert_eq!((parameters.prompt.as_str(), parameters.seed.0), ("a (red:1.2) apple", 7), "{text}");
        assert!(text.contains("Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras"), "{text}");
    }
}

#[test]
fn a_picture_and_a_mask_are_drawn_from_and_what_is_outside_the_mask_stays() {
    let folder = Folder::new("inpaint");
    let (start, mask, end) = (folder.file("start.png"), folder.file("mask.png"), folder.file("end.png"));
    let given = image::RgbImage::from_fn(70, 50, |x, y| image::Rgb([200, (x * 3) as u8, (y * 5) as u8]));
    given.save(&start).expect("a picture");
    let half = |x, _| image::Luma([if x < 35 { 0u8 } else { 255 }]);
    image::GrayImage::from_fn(70, 50, half).save(&mask).expect("a mask");
    let drawn = easel(&["generate", "tree", "--image", &start, "--mask", &mask, "--steps", "2", "-o", &end]);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    let picture = image::open(&end).expect("a picture").into_rgb8();
    assert_eq!(picture.dimensions(), (70, 50));
    let is_kept = |x: u32| (0..50).all(|y| picture.get_pixel(x, y) == given.get_pixel(x, y));
    assert!((0..35).all(is_kept), "a pixel outside the mask has changed");
    assert!(!(40..70).any(is_kept), "nothing was drawn");
}

#[test]
fn a_size_that_the_model_does_not_draw_is_resampled_to_and_the_file_says_so() {
    let folder = Folder::new("sizes");
    let file = folder.file("large.png");
    let drawn = easel(&["generate", "red apple", "--size", "1000x500", "--steps", "1", "-o", &file]);
    assert!(drawn.status.success(), "{}", String::from_utf8_lossy(&drawn.stderr));
    assert_eq!(image::image_dimensions(&file).expect("a picture"), (1000, 500));
    let text = read_parameters(&std::fs::read(&file).expect("the picture is read")).expect("parameters");
    assert!(text.contains("Size: 368x184,") && text.contains("Hires resize: 1000x500,"), "{text}");
}

#[test]
fn wrong_values_are_refused_by_name_and_nothing_is_drawn() {
    let long = "x".repeat(40_000);
    let cases: [(&[&str], &str); 14] = [
        (&["x", "--size", "0x0"], "size must be"),
        (&["x", "--size", "7x7"], "size must be"),
        (&["x", "--size", "100000x8"], "size must be"),
        (&["x", "--size", "100x31"], "each from 32 to 4096; got '100x31'"),
        (&["x", "--sizes", "9..5"], "sizes must be any, or SMALLER..LARGER"),
        (&["x", "--steps", "0"], "steps must be a whole number from 1 to 1000; got 0"),
        (&["x", "--steps", "10001"], "got 10001"),
        (
            &["x", "--guidance", "NaN"],
            "guidance_scale must be a number from 1 to 100, or 0 for none; got NaN",
        ),
        (&["x", "-n", "0"], "n must be a whole number from 1 to 10; got 0"),
        (&["x", "-n", "11"], "got 11"),
        (&["x", "--sampler", "magic"], "known: euler, euler_ancestral"),
        (&["x", "--schedule", "magic"], "known: normal, karras"),
        (&[""], "prompt must not be empty"),
        (&[&long], "prompt has 40000 characters; at most 32000 fit"),
    ];
    for (arguments, words) in cases {
        let refused = easel(&[&["generate"], arguments].concat());
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(words), "{arguments:.60?}: {said}");
    }
}

#[cfg(unix)]
#[test]
fn a_prompt_that_is_no_unicode_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let refused =
        Command::new(env!("CARGO_BIN_EXE_easel")).arg("generate").arg(odd).output().expect("easel runs");
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("invalid UTF-8"));
}

#[test]
fn a_file_that_cannot_be_written_is_named_and_leaves_nothing() {
    let folder = Folder::new("nowhere");
    let file = folder.file("missing/a.png");
    let refused = easel(&[&["generate", "x", "-o", &file], &QUICK[..]].concat());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && said.contains(&file) && said.contains("cannot be written"),
        "{said}"
    );
}
