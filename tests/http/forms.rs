//! `multipart/form-data` bodies, well formed or not, and the pictures that go into them.

use crate::support::{Answer, exchange, shared};
use base64::Engine as _;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use std::io::Cursor;
use std::net::SocketAddr;

/// The route of edits.
pub const EDITS: &str = "/v1/images/edits";
/// The route of variations.
pub const VARIATIONS: &str = "/v1/images/variations";

const BOUNDARY: &str = "a-boundary-of-tests";

/// A form that is being written.
#[derive(Clone, Default)]
pub struct Form(Vec<u8>);

impl Form {
    /// A form for the quickest picture there is.
    pub fn quick() -> Self {
        let fields = [("size", "64x64"), ("steps", "2"), ("guidance_scale", "1"), ("seed", "7")];
        let form = fields.into_iter().fold(Self::default(), |form, (name, text)| form.text(name, text));
        form.text("response_format", "b64_json")
    }

    /// One for an edit of `file`.
    pub fn edit(file: &[u8]) -> Self {
        Self::quick().text("prompt", "red apple").file("image", file)
    }

    /// A text more.
    pub fn text(self, name: &str, text: &str) -> Self {
        self.part(&format!("content-disposition: form-data; name=\"{name}\""), text.as_bytes())
    }

    /// A file more.
    pub fn file(self, name: &str, file: &[u8]) -> Self {
        let head = format!("content-disposition: form-data; name=\"{name}\"; filename=\"a.png\"");
        self.part(&format!("{head}\r\ncontent-type: application/octet-stream"), file)
    }

    /// A part more, with any headers.
    pub fn part(mut self, head: &str, content: &[u8]) -> Self {
        self.0.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").bytes());
        self.0.extend(content);
        self.0.extend(b"\r\n");
        self
    }

    /// The body, without its end.
    pub fn open(&self) -> &[u8] {
        &self.0
    }

    /// The whole body.
    pub fn body(&self) -> Vec<u8> {
        [&self.0, format!("--{BOUNDARY}--\r\n").as_bytes()].concat()
    }

    /// What the shared server answers to it.
    pub fn post(&self, route: &str) -> Answer {
        self.post_to(shared(), route)
    }

    /// What `server` answers to it.
    pub fn post_to(&self, server: SocketAddr, route: &str) -> Answer {
        exchange(server, &head(route), &self.body())
    }
}

/// The head of a request with a form.
pub fn head(route: &str) -> String {
    format!("POST {route} HTTP/1.1\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}")
}

/// A PNG file.
pub fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    written(image, ImageFormat::Png)
}

/// A file of any format.
pub fn written(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).expect("the picture is written");
    file.into_inner()
}

/// A picture with something in it.
pub fn scene(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (x * 255 / width, y * 255 / height);
        let inside = (x.abs_diff(128).pow(2) + y.abs_diff(128).pow(2)) < 70 * 70;
        if inside { Rgb([200, 30, 40]) } else { Rgb([x as u8, 160, y as u8]) }
    })
}

/// The picture with its left half transparent.
pub fn cut_out(picture: &RgbImage) -> RgbaImage {
    let half = picture.width() / 2;
    RgbaImage::from_fn(picture.width(), picture.height(), |x, y| {
        let Rgb([r, g, b]) = *picture.get_pixel(x, y);
        Rgba([r, g, b, if x < half { 0 } else { 255 }])
    })
}

/// A file as a data URL.
pub fn data_url(kind: &str, file: &[u8]) -> String {
    format!("data:{kind};base64,{}", base64::engine::general_purpose::STANDARD.encode(file))
}
