//! The value types of a request. Each refuses what is out of its bounds, by the parameter's name.

use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Width and height of a picture in pixels, each a multiple of 8 within [`Size::MIN`]..=[`Size::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    width: u32,
    height: u32,
}

impl Size {
    /// The smallest side in pixels.
    pub const MIN: u32 = 32;
    /// The largest side in pixels.
    pub const MAX: u32 = 4096;
    /// Pixels per latent, so also the grid that sides lie on.
    pub const STEP: u32 = 8;

    /// A size of `width` by `height` pixels.
    ///
    /// # Errors
    /// If a side is out of bounds or not a multiple of 8.
    pub fn new(width: u32, height: u32) -> Result<Self> {
        let fits = |side: u32| (Self::MIN..=Self::MAX).contains(&side) && side.is_multiple_of(Self::STEP);
        if fits(width) && fits(height) {
            return Ok(Self { width, height });
        }
        Err(Self::refused(&format!("{width}x{height}")))
    }

    /// The allowed size nearest to a picture's own.
    pub fn nearest(width: u32, height: u32) -> Self {
        let side = |side: u32| {
            let rounded = (side.min(Self::MAX) + Self::STEP / 2) / Self::STEP * Self::STEP;
            rounded.clamp(Self::MIN, Self::MAX)
        };
        Self { width: side(width), height: side(height) }
    }

    /// Width in pixels.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(self) -> u32 {
        self.height
    }

    fn refused(given: &str) -> Error {
        Error::parameter(
            "size",
            format!(
                "size must be WIDTHxHEIGHT, each a multiple of {} from {} to {}; got '{}'",
                Self::STEP,
                Self::MIN,
                Self::MAX,
                shortened(given)
            ),
        )
    }
}

/// The two numbers of `WIDTHxHEIGHT`.
pub(super) fn sides(text: &str) -> Option<(u32, u32)> {
    let (width, height) = text.split_once(['x', 'X'])?;
    Some((width.parse().ok()?, height.parse().ok()?))
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match sides(text) {
            Some((width, height)) => Self::new(width, height),
            None => Err(Self::refused(text)),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A whole number within bounds, refused by its parameter's name otherwise.
macro_rules! bounded_integer {
    ($(#[$doc:meta])* $name:ident, $param:literal, $min:literal ..= $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// The smallest value.
            pub const MIN: u32 = $min;
            /// The largest value.
            pub const MAX: u32 = $max;

            /// Checks `value`.
            ///
            /// # Errors
            /// If it is out of bounds.
            pub fn new(value: i64) -> Result<Self> {
                match u32::try_from(value) {
                    Ok(inside) if (Self::MIN..=Self::MAX).contains(&inside) => Ok(Self(inside)),
                    _ => Err(Self::refused(&value)),
                }
            }

            /// The number itself.
            pub fn get(self) -> u32 {
                self.0
            }

            fn refused(given: &dyn fmt::Display) -> Error {
                let given = given.to_string();
                Error::parameter(
                    $param,
                    format!(
                        concat!($param, " must be a whole number from {} to {}; got {}"),
                        Self::MIN, Self::MAX, shortened(&given)
                    ),
                )
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.parse().map_err(|_| Self::refused(&text)).and_then(Self::new)
            }
        }
    };
}

bounded_integer!(
    /// Sampler steps; the training table has 1000 levels, so more steps than that have no meaning.
    Steps, "steps", 1..=1000
);
bounded_integer!(
    /// How many images a request asks for (OpenAI's `n`).
    Count, "n", 1..=10
);
bounded_integer!(
    /// How many layers to leave out of the text encoders beyond SDXL's own one; none unless asked for.
    #[derive(Default)]
    ClipSkip, "clip_skip", 0..=12
);

impl Steps {
    /// `times / of` times as many, rounded up, within the bounds.
    pub(super) fn scaled(self, times: u32, of: u32) -> Self {
        Self((self.0 * times).div_ceil(of).clamp(Self::MIN, Self::MAX))
    }
}

impl Default for Count {
    fn default() -> Self {
        Self(1)
    }
}

/// The strength of classifier-free guidance: 1 is none, and so is 0 (as turbo models are called).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guidance(f64);

impl Guidance {
    /// The largest value.
    pub const MAX: f64 = 100.0;

    /// Checks `value`.
    ///
    /// # Errors
    /// If it is not a number, negative, between 0 and 1, or above [`Guidance::MAX`].
    pub fn new(value: f64) -> Result<Self> {
        if value == 0.0 || (1.0..=Self::MAX).contains(&value) {
            return Ok(Self(value.max(1.0)));
        }
        Err(Self::refused(&value.to_string()))
    }

    /// The weight of the guided prediction, at least 1.
    pub fn get(self) -> f64 {
        self.0
    }

    /// Whether an unconditional row is needed at all.
    pub fn is_active(self) -> bool {
        self.0 > 1.0
    }

    fn refused(given: &str) -> Error {
        Error::parameter(
            "guidance_scale",
            format!(
                "guidance_scale must be a number from 1 to {}, or 0 for none; got {}",
                Self::MAX,
                shortened(given)
            ),
        )
    }
}

impl FromStr for Guidance {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map_err(|_| Self::refused(text)).and_then(Self::new)
    }
}

/// A number within 0..=1 (the lower bound included or not), refused by its parameter's name otherwise.
macro_rules! fraction {
    ($(#[$doc:meta])* $name:ident, $param:literal, $bounds:literal, $inside:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub struct $name(f64);

        impl $name {
            /// Checks `value`.
            ///
            /// # Errors
            /// If it is not a number within its bounds.
            pub fn new(value: f64) -> Result<Self> {
                let inside: fn(f64) -> bool = $inside;
                if inside(value) {
                    return Ok(Self(value));
                }
                Err(Self::refused(&value.to_string()))
            }

            /// The number itself.
            pub fn get(self) -> f64 {
                self.0
            }

            fn refused(given: &str) -> Error {
                Error::parameter(
                    $param,
                    format!(concat!($param, " must be a number ", $bounds, "; got {}"), shortened(given)),
                )
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                text.parse().map_err(|_| Self::refused(text)).and_then(Self::new)
            }
        }
    };
}

fraction!(
    /// How much of the schedule runs on a given picture: near 0 keeps it, 1 forgets it. Less than 0.001 would leave no step
    /// of the most steps there are.
    Strength, "strength", "from 0.001 to 1", |value| (0.001..=1.0).contains(&value)
);
fraction!(
    /// Guidance rescale (Lin et al. 2023, section 3.4): 0, the default, leaves the guided prediction as it is.
    #[derive(Default)]
    Rescale, "guidance_rescale", "from 0 to 1", |value| (0.0..=1.0).contains(&value)
);

impl Strength {
    /// The default on a picture, as in diffusers' SDXL image-to-image.
    pub const PICTURE: Self = Self(0.3);
    /// The default under a mask, as in diffusers' SDXL inpainting.
    pub const INPAINT: Self = Self(0.9999);
    /// The default of an edit without a mask: the prompt is to change what is there, which [`Strength::PICTURE`] hardly
    /// lets it.
    pub const EDIT: Self = Self(0.75);
    /// The default of an edit that is to keep much of the picture.
    pub const FAITHFUL_EDIT: Self = Self(0.5);
    /// The default under a mask where much of what was there is to be kept.
    pub const FAITHFUL_INPAINT: Self = Self(0.75);
    /// The default of a variation.
    pub const VARIATION: Self = Self(0.6);

    /// The same, or the least that leaves one of `steps` to run: what a default must not do is refuse a request.
    #[must_use]
    pub fn leaving_a_step(self, steps: Steps) -> Self {
        let steps = f64::from(steps.get());
        if steps * self.0 >= 1.0 {
            return self;
        }
        let least = 1.0 / steps;
        Self(if steps * least < 1.0 { least.next_up() } else { least })
    }
}

/// The seed of an image; image `k` of a request has the seed `k` further on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of image `k` of a request.
    #[must_use]
    pub fn image(self, k: u32) -> Self {
        Self(self.0.wrapping_add(u64::from(k)))
    }
}

impl FromStr for Seed {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|_| {
            let given = shortened(text);
            Error::parameter(
                "seed",
                format!("seed must be a whole number from 0 to {}; got {given}", u64::MAX),
            )
        })
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A prompt: text of at most [`Prompt::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Prompt(String);

impl Prompt {
    /// OpenAI's bound, in characters.
    pub const MAX_CHARS: usize = 32_000;

    /// What to draw.
    ///
    /// # Errors
    /// If the text is empty or too long.
    pub fn new(text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.trim().is_empty() {
            return Err(Error::parameter("prompt", "prompt must not be empty"));
        }
        Self::bounded("prompt", text)
    }

    /// What to steer away from; may be empty, which is not the same as absent.
    ///
    /// # Errors
    /// If the text is too long.
    pub fn negative(text: impl Into<String>) -> Result<Self> {
        Self::bounded("negative_prompt", text.into())
    }

    /// The empty prompt.
    pub fn empty() -> Self {
        Self(String::new())
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn bounded(param: &'static str, text: String) -> Result<Self> {
        let chars = text.chars().count();
        if chars > Self::MAX_CHARS {
            let most = Self::MAX_CHARS;
            return Err(Error::parameter(
                param,
                format!("{param} has {chars} characters; at most {most} fit"),
            ));
        }
        Ok(Self(text))
    }
}

/// At most forty characters of what the sender gave, for a message.
pub(super) fn shortened(given: &str) -> String {
    let mut text: String = given.chars().take(40).collect();
    if text.len() < given.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: fmt::Debug>(result: Result<T>) -> (Option<&'static str>, String) {
        let error = result.expect_err("the value is out of bounds");
        (error.param(), error.message().to_owned())
    }

    #[test]
    fn sizes_off_the_grid_or_out_of_bounds_are_refused_by_name_with_the_value() {
        for given in
            ["0x0", "7x7", "100000x8", "100x128", "128", "128x", "-8x64", "128x128x3", "", "99999999999x64"]
        {
            let (param, message) = refusal(given.parse::<Size>());
            assert_eq!(param, Some("size"), "{given}");
            assert!(
                message.contains(given) && message.contains("multiple of 8 from 32 to 4096"),
                "{message}"
            );
        }
        assert_eq!("1024x768".parse::<Size>().map(|s| (s.width(), s.height())), Ok((1024, 768)));
        assert_eq!("64X4096".parse::<Size>().map(|s| s.to_string()), Ok("64x4096".into()));
    }

    #[test]
    fn a_pictures_own_size_goes_to_the_nearest_allowed_one() {
        let nearest = |w, h| Size::nearest(w, h).to_string();
        assert_eq!(nearest(100, 100), "104x104");
        assert_eq!(nearest(3, 5000), "32x4096");
        assert_eq!(nearest(u32::MAX, 127), "4096x128");
    }

    #[test]
    fn whole_numbers_keep_their_bounds() {
        for given in [0, -1, 1001, 10_001, i64::MAX] {
            let (param, message) = refusal(Steps::new(given));
            assert_eq!(param, Some("steps"));
            assert!(message.contains("from 1 to 1000") && message.contains(&given.to_string()), "{message}");
        }
        assert_eq!(refusal(Count::new(11)).0, Some("n"));
        assert_eq!(refusal(Count::new(0)).0, Some("n"));
        assert_eq!(refusal("x1".parse::<Steps>()).1, "steps must be a whole number from 1 to 1000; got x1");
        assert_eq!((Steps::new(1).map(Steps::get), Steps::new(1000).map(Steps::get)), (Ok(1), Ok(1000)));
        assert_eq!((Count::default().get(), ClipSkip::default().get()), (1, 0));
    }

    #[test]
    fn guidance_is_none_at_zero_and_one_and_refused_between_and_beyond() {
        assert_eq!(Guidance::new(0.0).map(Guidance::get), Ok(1.0));
        assert!(!Guidance::new(1.0).is_ok_and(Guidance::is_active));
        assert!(Guidance::new(1.01).is_ok_and(Guidance::is_active));
        for given in [f64::NAN, f64::INFINITY, -1.0, 0.5, 100.5] {
            let (param, message) = refusal(Guidance::new(given));
            assert_eq!(param, Some("guidance_scale"));
            assert!(message.ends_with(&given.to_string()), "{message}");
        }
    }

    #[test]
    fn fractions_keep_their_bounds() {
        assert_eq!(refusal(Strength::new(0.0)).0, Some("strength"));
        assert_eq!(refusal(Strength::new(f64::NAN)).0, Some("strength"));
        assert_eq!(refusal(Rescale::new(-0.1)).0, Some("guidance_rescale"));
        assert_eq!(Strength::new(1.0).map(Strength::get), Ok(1.0));
        assert_eq!(Rescale::new(0.0).map(Rescale::get), Ok(0.0));
    }

    #[test]
    fn a_default_strength_leaves_a_step_however_few_there_are() {
        for count in 1..=1000 {
            let steps = Steps::new(count).unwrap();
            for strength in [Strength::VARIATION, Strength::INPAINT, Strength(0.0005)] {
                let least = strength.leaving_a_step(steps);
                assert!((count as f64 * least.get()).floor() >= 1.0 && least.get() <= 1.0, "{count}");
                assert!(least == strength || count as f64 * strength.get() < 1.0);
            }
        }
    }

    #[test]
    fn a_prompt_is_neither_empty_nor_endless() {
        assert_eq!(refusal(Prompt::new(" \n")).0, Some("prompt"));
        let (param, message) = refusal(Prompt::new("é".repeat(40_000)));
        assert_eq!((param, message.contains("40000") && message.contains("32000")), (Some("prompt"), true));
        assert!(Prompt::new("é".repeat(32_000)).is_ok());
        assert!(Prompt::negative("").is_ok());
        assert_eq!(refusal(Prompt::negative("x".repeat(32_001))).0, Some("negative_prompt"));
    }

    #[test]
    fn image_k_has_the_seed_k_further_on() {
        assert_eq!(Seed(7).image(3), Seed(10));
        assert_eq!(Seed(u64::MAX).image(1), Seed(0));
        assert_eq!(refusal("-1".parse::<Seed>()).0, Some("seed"));
    }
}
