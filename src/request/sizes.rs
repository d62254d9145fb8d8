//! The size of a file, and the sizes that a model draws well.

use super::Size;
use super::values::{shortened, sides};
use crate::error::{Error, Result};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Width and height of a file in pixels, each within [`Size::MIN`]..=[`Size::MAX`]; unlike a [`Size`] not bound to the
/// grid of the latents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    width: u32,
    height: u32,
}

impl Extent {
    /// An extent of `width` by `height` pixels.
    ///
    /// # Errors
    /// If a side is out of bounds.
    pub fn new(width: u32, height: u32) -> Result<Self> {
        let fits = |side| (Size::MIN..=Size::MAX).contains(&side);
        if fits(width) && fits(height) {
            return Ok(Self { width, height });
        }
        Err(Self::refused(&format!("{width}x{height}")))
    }

    /// The extent of a file that shows a picture of `width` by `height` pixels whole: its own where that is within
    /// bounds; the largest of the same shape where a side is too long; and a side that is too short is drawn out.
    pub fn holding(width: u32, height: u32) -> Self {
        let longer = u64::from(width.max(height)).max(u64::from(Size::MAX));
        // At most Size::MAX, since no side is longer than the longer one.
        let side = |side: u32| ((u64::from(side) * u64::from(Size::MAX) + longer / 2) / longer) as u32;
        Self { width: side(width).max(Size::MIN), height: side(height).max(Size::MIN) }
    }

    /// Width in pixels.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Height in pixels.
    pub fn height(self) -> u32 {
        self.height
    }

    /// Pixels in all.
    pub fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn refused(given: &str) -> Error {
        let bound = format!("WIDTHxHEIGHT, each from {} to {}", Size::MIN, Size::MAX);
        Error::parameter("size", format!("size must be {bound}; got '{}'", shortened(given)))
    }
}

impl From<Size> for Extent {
    fn from(size: Size) -> Self {
        Self { width: size.width(), height: size.height() }
    }
}

impl FromStr for Extent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match sides(text) {
            Some((width, height)) => Self::new(width, height),
            None => Err(Self::refused(text)),
        }
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// The sizes that a model draws well: those whose area lies between the areas of two squares, and whose longer side is
/// at most [`Sizes::RATIO`] times the shorter one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizes(Option<RangeInclusive<u32>>);

impl Sizes {
    /// Every size there is.
    pub const ANY: Self = Self(None);
    /// How many times the shorter side the longer one may be: the bound of the buckets that SDXL was trained with
    /// (Podell et al. 2023, appendix I).
    pub const RATIO: u32 = 4;

    /// The sizes of areas from that of the smaller square to that of the larger one, given by their sides.
    ///
    /// # Errors
    /// If a side is out of the bounds of a [`Size`], or the first is larger than the second.
    pub fn between(smaller: u32, larger: u32) -> Result<Self> {
        if Size::MIN <= smaller && smaller <= larger && larger <= Size::MAX {
            return Ok(Self(Some(smaller..=larger)));
        }
        Err(Self::refused(&format!("{smaller}..{larger}")))
    }

    /// What suits a model that was trained with squares of `native`'s area, where nobody has looked.
    ///
    /// One of SDXL's size was taught in buckets near that area and knows a picture's size as an input: three quarters
    /// to nine eighths of its side. Any other is held to its own area and a little less.
    pub fn around(native: Size) -> Self {
        let area = Extent::from(native).area();
        let side = (area as f64).sqrt().round() as u32;
        let sides = if area == SDXL_AREA { side * 3 / 4..=side * 9 / 8 } else { side * 7 / 8..=side };
        Self(Some(*sides.start().max(&Size::MIN)..=*sides.end().min(&Size::MAX)))
    }

    /// The size to draw for a file of `asked`: that very size where it is one of these and on the grid, and otherwise
    /// the nearest one of the same shape.
    ///
    /// Nearest is what keeps the shape best, a deviation of it counting [`SHAPE`] times one of the area. A shape
    /// beyond [`Sizes::RATIO`] is drawn at that ratio.
    pub fn nearest(&self, asked: Extent) -> Size {
        let Some(sides) = &self.0 else { return Size::nearest(asked.width, asked.height) };
        let (long, short) = (asked.width.max(asked.height), asked.width.min(asked.height));
        let area = |side: &u32| u64::from(*side) * u64::from(*side);
        let areas = area(sides.start())..=area(sides.end());
        if areas.contains(&asked.area())
            && long <= Self::RATIO * short
            && let Ok(size) = Size::new(asked.width, asked.height)
        {
            return size;
        }
        let shape = (f64::from(long) / f64::from(short)).min(f64::from(Self::RATIO));
        let area = asked.area().clamp(*areas.start(), *areas.end()) as f64;
        let far = |&(long, short): &(u32, u32)| {
            let (long, short) = (f64::from(long), f64::from(short));
            SHAPE * (long / short / shape).ln().abs() + (long * short / area).ln().abs()
        };
        let shorts = (Size::MIN..=Size::MAX).step_by(Size::STEP as usize);
        let sizes = shorts.map(|short| {
            let size = Size::nearest((f64::from(short) * shape).round() as u32, short);
            (size.width(), short)
        });
        let (long, short) = sizes.min_by(|a, b| far(a).total_cmp(&far(b))).unwrap_or((long, short));
        if asked.width >= asked.height { Size::nearest(long, short) } else { Size::nearest(short, long) }
    }

    fn refused(given: &str) -> Error {
        let (min, max) = (Size::MIN, Size::MAX);
        let bound = format!("any, or SMALLER..LARGER, the sides of two squares from {min} to {max}");
        Error::config(format!("sizes must be {bound}; got '{}'", shortened(given)))
    }
}

/// The area of SDXL's own pictures.
const SDXL_AREA: u64 = 1024 * 1024;

/// How many times worse a deviation of shape is than one of area.
const SHAPE: f64 = 8.0;

impl FromStr for Sizes {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "any" {
            return Ok(Self::ANY);
        }
        let sides = text.split_once("..").and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        sides.map_or_else(|| Err(Self::refused(text)), |(smaller, larger)| Self::between(smaller, larger))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("any"),
            Some(sides) => write!(f, "{}..{}", sides.start(), sides.end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(sizes: &str, asked: &str) -> String {
        sizes.parse::<Sizes>().unwrap().nearest(asked.parse().unwrap()).to_string()
    }

    #[test]
    fn what_a_model_draws_well_is_drawn_as_it_was_asked_for() {
        for asked in ["224x224", "256x256", "240x240", "208x312", "336x192", "440x144"] {
            assert_eq!(drawn("224..256", asked), asked);
        }
        for asked in ["1024x1024", "768x768", "1216x832", "832x1216", "640x1536", "512x2048"] {
            assert_eq!(drawn("768..1152", asked), asked);
        }
    }

    #[test]
    fn sizes_that_clients_hard_code_are_drawn_near_the_models_own_in_their_shape() {
        let cases = [
            ("256x256", "256x256"),
            ("512x512", "256x256"),
            ("1024x1024", "256x256"),
            ("1536x1024", "312x208"),
            ("1024x1536", "208x312"),
            ("1792x1024", "336x192"),
            ("1024x1792", "192x336"),
            ("64x64", "224x224"),
            ("1000x500", "368x184"),
        ];
        for (asked, want) in cases {
            assert_eq!(drawn("224..256", asked), want, "for {asked}");
        }
        assert_eq!(drawn("768..1152", "256x256"), "768x768");
        assert_eq!(drawn("768..1152", "1536x1024"), "1416x944");
        assert_eq!(drawn("768..1152", "4096x4096"), "1152x1152");
    }

    #[test]
    fn the_shape_is_kept_to_two_in_a_hundred_and_the_area_to_one_in_eight_up_to_the_widest() {
        let sides = (40..=4096).step_by(212).flat_map(|w| (40..=4096).step_by(156).map(move |h| (w, h)));
        for (smaller, larger) in [(224, 256), (768, 1152), (448, 640)] {
            let sizes = Sizes::between(smaller, larger).unwrap();
            for (width, height) in sides.clone() {
                let size = Extent::from(sizes.nearest(Extent { width, height }));
                let shape = f64::from(width) / f64::from(height);
                let off = f64::from(size.width) / f64::from(size.height) / shape.clamp(0.25, 4.0);
                assert!((0.98..1.02).contains(&off), "{width}x{height} became {size}");
                let side = (size.area() as f64).sqrt();
                let (least, most) = (0.94 * f64::from(smaller), 1.06 * f64::from(larger));
                assert!((least..most).contains(&side), "{width}x{height} became {size}");
                let turned = Extent::from(sizes.nearest(Extent { width: height, height: width }));
                assert_eq!((turned.width, turned.height), (size.height, size.width));
            }
        }
    }

    #[test]
    fn a_size_off_the_grid_and_a_shape_beyond_the_widest_go_to_the_nearest() {
        assert_eq!(drawn("224..256", "255x250"), "256x248");
        assert_eq!(drawn("224..256", "4096x32"), "512x128");
        assert_eq!(drawn("224..256", "33x4096"), "128x512");
    }

    #[test]
    fn where_any_size_is_drawn_it_is_the_one_asked_for() {
        assert_eq!(drawn("any", "4096x32"), "4096x32");
        assert_eq!(drawn("any", "100x33"), "104x32");
    }

    #[test]
    fn an_unknown_model_is_held_to_what_its_native_size_promises() {
        let around = |side| Sizes::around(Size::new(side, side).unwrap()).to_string();
        assert_eq!(
            (around(1024), around(512), around(32)),
            ("768..1152".into(), "448..512".into(), "32..32".into())
        );
    }

    #[test]
    fn ranges_that_are_none_are_refused_with_the_bound_and_the_value() {
        for given in ["", "256", "256..", "256..128", "0..256", "256..5000", "a..b", "-1..3"] {
            let message = given.parse::<Sizes>().unwrap_err().message().to_owned();
            assert!(message.contains("SMALLER..LARGER") && message.contains(given), "{message}");
        }
    }

    #[test]
    fn a_file_holds_a_picture_at_its_own_size_and_a_vast_one_in_its_shape() {
        let holding = |w, h| Extent::holding(w, h).to_string();
        assert_eq!((holding(500, 333), holding(32, 4096)), ("500x333".into(), "32x4096".into()));
        assert_eq!((holding(16_384, 4096), holding(300, 8192)), ("4096x1024".into(), "150x4096".into()));
        assert_eq!((holding(u32::MAX, 1), holding(1, 1)), ("4096x32".into(), "32x32".into()));
    }

    #[test]
    fn sizes_of_files_out_of_bounds_are_refused_by_name_with_the_value() {
        for given in ["0x0", "7x7", "100000x64", "31x64", "64x4097", "128", "128x", "-8x64", "128x128x3", ""]
        {
            let error = given.parse::<Extent>().unwrap_err();
            assert_eq!(error.param(), Some("size"), "{given}");
            let message = error.message();
            assert!(message.contains(given) && message.contains("each from 32 to 4096"), "{message}");
        }
        assert_eq!("101X4096".parse::<Extent>().map(|extent| extent.to_string()), Ok("101x4096".into()));
    }
}
