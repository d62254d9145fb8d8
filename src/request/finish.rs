//! What becomes of a drawn picture before it is a file.

use super::{Extent, Mask, Picture};

/// The size of a request's files, and what they keep of the picture that was repainted.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Width and height of each file: what was asked for, whatever size was drawn.
    pub extent: Extent,
    /// What stays as it was where a request draws into a part of a picture.
    pub kept: Option<Kept>,
}

/// A picture whose unmasked part stays as it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    /// The picture, of the files' size.
    pub picture: Picture,
    /// The part that is drawn anew, of the files' size.
    pub mask: Mask,
}
