//! What a store's error means: whether another attempt can mend it, and what to tell if not.

use std::error::Error as _;
use std::io::ErrorKind;

use object_store::Error;

/// What an error means for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It may pass.
    Transient,
    /// It will come again.
    Final,
    /// There is no such object, or no such bucket.
    Absent,
    /// The space is used up.
    Full,
    /// Not allowed.
    Denied,
}

/// Codes in the body of an answer with status 400 that say that the credentials are no good.
const BAD_CREDENTIALS: [&str; 4] =
    ["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "RequestTimeTooSkewed"];

impl Fate {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::NotFound { .. } => Self::Absent,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied,
            // Status 409: another operation on the object is on its way. Where an object is to be created, whoever asks
            // has looked whether it exists.
            Error::AlreadyExists { .. } => Self::Transient,
            Error::Generic { .. } => match (io_kind(error), status(error)) {
                (Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge), _)
                | (_, Some(507)) => Self::Full,
                // Answers to a listing keep their status to themselves.
                (Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem), _)
                | (_, Some(401 | 403)) => Self::Denied,
                (_, Some(400)) if names_bad_credentials(error) => Self::Denied,
                (_, Some(404)) => Self::Absent,
                (_, Some(408 | 429)) => Self::Transient,
                (_, Some(300..=499)) => Self::Final,
                _ => Self::Transient,
            },
            _ => Self::Final,
        }
    }
}

/// An attempt that got no answer in time.
pub(super) fn no_answer(limit: std::time::Duration) -> Error {
    let message = format!("no answer for {} s", limit.as_secs_f64());
    generic(std::io::Error::new(ErrorKind::TimedOut, message))
}

/// An answer that ended early.
pub(super) fn cut_short(got: u64, whole: u64) -> Error {
    let message = format!("the answer ended after {got} of {whole} bytes");
    generic(std::io::Error::new(ErrorKind::UnexpectedEof, message))
}

/// A name that is said to exist and cannot be found: somebody's write of it is on its way.
pub(super) fn contended() -> Error {
    generic(std::io::Error::other("another write of it is on its way"))
}

fn generic(error: std::io::Error) -> Error {
    Error::Generic { store: "object store", source: Box::new(error) }
}

/// The operating system's error below a store's error.
fn io_kind(error: &Error) -> Option<ErrorKind> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = inner.source();
    }
    None
}

/// The status of the HTTP answer below a store's error. The crate's error types are private, so their text is read.
fn status(error: &Error) -> Option<u16> {
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if let Some((_, rest)) = text.split_once("Server returned non-2xx status code: ") {
            return rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok();
        }
        cause = inner.source();
    }
    None
}

fn names_bad_credentials(error: &Error) -> bool {
    let text = error.to_string();
    BAD_CREDENTIALS.iter().any(|code| text.contains(code))
}
