//! The one error type of the library: a kind that callers match on, and a sentence for a person.

use std::fmt;

/// What went wrong, as far as a caller can act on it. The HTTP status of each kind stands in `api/error.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// A request's parameter is out of its bounds, of the wrong type, or unknown.
    InvalidParameter {
        /// The parameter's name as the caller wrote it, for instance `size`.
        param: &'static str,
    },
    /// A picture that came with a request cannot be read.
    InvalidImage {
        /// The parameter that carried the picture.
        param: &'static str,
        /// What is wrong with it.
        flaw: ImageFlaw,
    },
    /// A checkpoint is missing, damaged, or of a kind that is not supported.
    Checkpoint,
    /// A setting of the program is wrong.
    Config,
    /// The caller went away or asked to stop.
    Cancelled,
    /// No more requests fit into the queue.
    QueueFull {
        /// Whole seconds after which a place is likely to be free.
        retry_after: u32,
    },
    /// The request's time was up before it was done.
    Timeout,
    /// The engine has ended, or is about to, and takes on nothing.
    Unavailable,
    /// The device has too little memory for the work.
    DeviceMemory,
    /// Reading or writing a file failed.
    Io,
    /// The store of pictures cannot be written or read.
    Storage,
    /// A fault of the program or the device.
    Internal,
}

/// What is wrong with a picture that came with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFlaw {
    /// It is damaged, cut short, or of a kind that its format's decoder does not know.
    Damaged,
    /// It is no picture, or not of the format that it claims.
    Format,
    /// It is of a format that is not read.
    MediaType,
    /// It has no bytes.
    Empty,
    /// It has too many pixels.
    TooLarge,
    /// It has too many bytes.
    FileTooLarge,
    /// It is not the base64 that it must be.
    Base64,
    /// It is behind a URL that may not be fetched.
    Url,
    /// It is behind a URL, and did not arrive.
    Download,
}

/// An error: its kind and a message that names the parameter or file, the bound, and the value found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of any kind with its sentence.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A parameter that is out of bounds; the sentence must name the bound and the value given.
    pub fn parameter(param: &'static str, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidParameter { param }, message)
    }

    /// A picture that is damaged.
    pub fn image(param: &'static str, message: impl Into<String>) -> Self {
        Self::flawed(param, ImageFlaw::Damaged, message)
    }

    /// A picture that cannot be used, and why.
    pub fn flawed(param: &'static str, flaw: ImageFlaw, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidImage { param, flaw }, message)
    }

    /// A checkpoint that cannot be used.
    pub fn checkpoint(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Checkpoint, message)
    }

    /// A wrong setting.
    pub fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    /// A failed read or write of `path`.
    pub fn io(path: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Io, format!("{path}: {cause}"))
    }

    /// A fault that no caller can mend.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// What the device's library says in `cause`: that its memory is full, or another fault.
    pub(crate) fn of_device(cause: impl Into<String>) -> Self {
        let cause = cause.into();
        let full = cause.to_lowercase().replace('_', " ").contains("out of memory");
        if full {
            return Self::new(ErrorKind::DeviceMemory, format!("the device has too little memory: {cause}"));
        }
        Self::internal(cause)
    }

    /// What a caller can match on.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// The sentence for a person.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The name of the parameter at fault, where there is one.
    pub fn param(&self) -> Option<&'static str> {
        match self.kind {
            ErrorKind::InvalidParameter { param } | ErrorKind::InvalidImage { param, .. } => Some(param),
            _ => None,
        }
    }

    /// The same error with words put before its sentence, for instance the file it came from.
    #[must_use]
    pub fn context(mut self, before: impl fmt::Display) -> Self {
        self.message = format!("{before}: {}", self.message);
        self
    }
}

impl From<candle_core::Error> for Error {
    /// Keeps an error of this crate that passed through candle, and tells a full device from other faults. Of a traced
    /// error only the sentence is kept: what is said to callers is no place for the program's insides.
    fn from(error: candle_core::Error) -> Self {
        match error {
            candle_core::Error::WithBacktrace { inner, .. } => Self::from(*inner),
            candle_core::Error::WrappedContext { wrapped, context } => match wrapped.downcast::<Self>() {
                Ok(own) => *own,
                Err(wrapped) => Self::of_device(format!("{context}: {wrapped}")),
            },
            other => Self::of_device(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Error as Candle;
    use std::backtrace::Backtrace;

    fn traced(inner: Candle) -> Candle {
        Candle::WithBacktrace { inner: Box::new(inner), backtrace: Box::new(Backtrace::force_capture()) }
    }

    #[test]
    fn a_full_device_is_told_in_one_line_even_where_errors_are_traced() {
        let full = traced(Candle::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into()));
        let error = Error::from(full);
        assert_eq!(*error.kind(), ErrorKind::DeviceMemory);
        assert_eq!(error.message().lines().count(), 1, "{error}");
        assert!(error.message().starts_with("the device has too little memory"), "{error}");
    }

    #[test]
    fn an_error_of_ours_comes_out_of_candle_as_it_went_in() {
        let own = Error::parameter("size", "size must be small");
        let wrapped =
            || Candle::WrappedContext { wrapped: Box::new(own.clone()), context: "a tensor".into() };
        assert_eq!(Error::from(wrapped()), own);
        assert_eq!(Error::from(traced(wrapped())), own);
    }
}
