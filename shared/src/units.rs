//! Quantities with a unit, as distinct types.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A time or a length of time within a video or a run, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub f64);

impl Seconds {
    /// As a [`Duration`]; a negative or non-finite value is zero.
    pub fn duration(self) -> Duration {
        Duration::try_from_secs_f64(self.0).unwrap_or(Duration::ZERO)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0)
    }
}

/// A number with its noun, which takes an s unless it is one: `1 video`, `2 videos`.
pub fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A part of a video in seconds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
pub struct TimeSegment {
    /// Its start.
    pub start: Seconds,
    /// Its end.
    pub end: Seconds,
}

/// A part of a window or video in frames at the configured rate; positions between two frames are fractions.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
pub struct FrameSegment {
    /// Its start.
    pub start: f32,
    /// Its end.
    pub end: f32,
}

/// Position of a frame in a video that is sampled at the configured rate; negative before the video's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FrameIndex(pub i64);

/// A number of bytes; written `512MiB` or `12GiB` in settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteCount(pub u64);

const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = UNITS
            .iter()
            .find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size))
            .copied()
            .unwrap_or(("B", 1));
        write!(f, "{}{unit}", self.0 / size)
    }
}

/// A text that is not a number of bytes.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a number of bytes such as `512MiB`, `12GiB` or `4096B`")]
pub struct NotBytes(String);

impl FromStr for ByteCount {
    type Err = NotBytes;

    fn from_str(text: &str) -> Result<Self, NotBytes> {
        let digits = text.trim().trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
        let unit = text.trim()[digits.len()..].trim();
        let scale = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, size)| *size);
        let scale = if unit.is_empty() { Some(1) } else { scale };
        digits
            .parse::<u64>()
            .ok()
            .zip(scale)
            .and_then(|(count, scale)| count.checked_mul(scale))
            .map(Self)
            .ok_or_else(|| NotBytes(text.to_owned()))
    }
}

impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_as_they_are_written() {
        for (text, bytes) in [("512MiB", 512 << 20), ("12GiB", 12 << 30), ("0B", 0), ("4097B", 4097)] {
            assert_eq!(text.parse::<ByteCount>().unwrap().0, bytes);
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
        assert_eq!("1 gib".parse::<ByteCount>().unwrap().0, 1 << 30);
        for text in ["", "GiB", "1.5GiB", "12 parsecs", "99999999999TiB"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }
}
