//! What can be wrong with a video, without its name: [`crate::data::video::VideoError`] adds that.

use std::io;

/// Why a video cannot be read. Each completes the sentence "video `x` ...".
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The file cannot be opened.
    #[error("cannot be opened: {0}")]
    Open(#[source] io::Error),
    /// The file system failed while reading.
    #[error("cannot be read: {0}")]
    Read(#[source] io::Error),
    /// Zero bytes.
    #[error("is empty")]
    Empty,
    /// Nothing that a decoder knows.
    #[error("is not a video: {0}")]
    NotVideo(String),
    /// Sound or text only.
    #[error("has no video track")]
    NoVideo,
    /// The index comes last in the file and is gone.
    #[error("is cut short: its index (the box `moov`) is missing")]
    MissingIndex,
    /// The index is whole, the data are not.
    #[error("is cut short: only its first {readable} frames can be read")]
    Truncated {
        /// Frames whose data are there.
        readable: u64,
    },
    /// Its pictures are locked by a key that the file does not hold.
    #[error("is encrypted ({0}): the key is not in the file")]
    Encrypted(String),
    /// Bytes that contradict themselves.
    #[error("is damaged: {0}")]
    Damaged(String),
    /// A whole file that the embedded decoder cannot read.
    #[error("cannot be read by the embedded decoder: {0}")]
    Unsupported(String),
    /// `ffmpeg` is needed and not there.
    #[error("needs `ffmpeg`, which is not on PATH: {0}")]
    NoFfmpeg(String),
    /// `ffmpeg` or `ffprobe` gave up.
    #[error("cannot be read by `ffmpeg`: {0}")]
    Ffmpeg(String),
    /// `ffmpeg` or `ffprobe` was silent for too long and was ended.
    #[error("made `{program}` hang: no output for {seconds} s")]
    Hung {
        /// Which of the two.
        program: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// More pixels than a decoder is asked to hold.
    #[error("has pictures of {width}x{height}, more than the {limit} pixels that are decoded")]
    TooLarge {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Largest number of pixels.
        limit: usize,
    },
    /// A request that makes no sense for any video.
    #[error("cannot be sampled: {0}")]
    Request(String),
}

impl Fault {
    pub(super) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }

    pub(super) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }

    /// Whether the file system failed, which says nothing of the file's bytes.
    pub(crate) fn is_of_storage(&self) -> bool {
        matches!(self, Self::Open(_) | Self::Read(_))
    }

    /// What to do about it.
    pub(in crate::data) fn hint(&self) -> &'static str {
        match self {
            Self::Open(_) => "check the key `data.videos` and the permissions of the file",
            Self::Read(_) => "check the disk or network share that the videos lie on",
            Self::Empty | Self::MissingIndex => "download or copy the file again",
            Self::Truncated { .. } => {
                "copy the file again, or set `data.allow_truncated = true` to use the readable frames"
            }
            Self::NotVideo(_) | Self::NoVideo => "remove the file from the annotations or replace it",
            Self::Encrypted(_) => "decrypt the file first, or take a copy without protection",
            Self::Damaged(_) => {
                "copy the file again, or re-encode it: `ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4`"
            }
            Self::Unsupported(_) => {
                "set `data.decoder = \"auto\"` and install ffmpeg, or re-encode: `ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4`"
            }
            Self::NoFfmpeg(_) => {
                "install ffmpeg, or re-encode the video to progressive H.264 in MP4 on another machine"
            }
            Self::Ffmpeg(_) | Self::Hung { .. } => "try the file with `ffmpeg -v error -i FILE -f null -`",
            Self::TooLarge { .. } => "scale the video down first: `ffmpeg -i IN -vf scale=-2:720 OUT.mp4`",
            Self::Request(_) => "check the keys `data.fps`, `data.frame_height` and `data.frame_width`",
        }
    }
}
