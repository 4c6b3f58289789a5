//! Text files as people's programs save them: UTF-8 with or without a byte order mark, or UTF-16.

use std::io;
use std::path::{Path, PathBuf};

use crate::hint::{ExitCode, Hint};

/// A file that gives no text.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It cannot be read.
    #[error("`{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Bytes of another encoding.
    #[error("line {line} of `{}` is not UTF-8", path.display())]
    NotUnicode {
        /// The file.
        path: PathBuf,
        /// The first such line, from 1.
        line: usize,
    },
    /// An archive or a compressed file.
    #[error("`{}` is packed ({kind}), not text", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
        /// The format.
        kind: &'static str,
    },
}

impl Hint for TextError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => None,
            Self::NotUnicode { .. } => Some("save the file as UTF-8".into()),
            Self::Packed { .. } => Some("unpack it and name the file inside".into()),
        }
    }

    fn exit(&self) -> ExitCode {
        match self {
            Self::Read { source, .. } => ExitCode::of_named_file(source),
            Self::NotUnicode { .. } | Self::Packed { .. } => ExitCode::NeverRestart,
        }
    }
}

/// The text of a file, without its byte order mark.
///
/// # Errors
/// A file that cannot be read, or is neither UTF-8 nor UTF-16.
pub fn read(path: &Path) -> Result<String, TextError> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    if let Some(kind) = packing(&bytes) {
        return Err(TextError::Packed { path: path.to_owned(), kind });
    }
    decode(bytes).map_err(|line| TextError::NotUnicode { path: path.to_owned(), line })
}

/// The format of bytes that are no text, where it is known by its first bytes.
fn packing(bytes: &[u8]) -> Option<&'static str> {
    let known: [(&[u8], &str); 5] = [
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "zip"),
        (b"7z\xbc\xaf", "7z"),
        (b"\xfd7zXZ", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ];
    known.into_iter().find(|(start, _)| bytes.starts_with(start)).map(|(_, kind)| kind)
}

/// The text, or the first line that is none.
fn decode(bytes: Vec<u8>) -> Result<String, usize> {
    let pairs = |pair: fn([u8; 2]) -> u16| {
        let units = bytes.chunks_exact(2).map(|two| pair([two[0], two[1]]));
        let text = String::from_utf16_lossy(&units.collect::<Vec<_>>());
        match text.find(char::REPLACEMENT_CHARACTER) {
            Some(at) => Err(1 + text[..at].matches('\n').count()),
            None => Ok(text.trim_start_matches('\u{feff}').to_owned()),
        }
    };
    // The first character of annotations, lists and settings is ASCII: one zero byte beside it means UTF-16.
    match bytes[..] {
        [0xff, 0xfe, ..] | [1..=0x7f, 0, ..] => return pairs(u16::from_le_bytes),
        [0xfe, 0xff, ..] | [0, 1..=0x7f, ..] => return pairs(u16::from_be_bytes),
        _ => {}
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(error) => {
            let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
            Err(1 + valid.matches('\n').count())
        }
    }
}

/// A name with composed accents (NFC), so that names compare alike: macOS decomposes them in the names of files.
pub(crate) fn composed(name: &str) -> std::borrow::Cow<'_, str> {
    if name.is_ascii() {
        return name.into();
    }
    icu_normalizer::ComposingNormalizerBorrowed::new_nfc().normalize(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    #[test]
    fn every_encoding_of_windows_and_unix_gives_the_same_text() {
        let text = "{\"caf\u{e9}\": \"\u{1f600}\"}\n";
        let marked = format!("\u{feff}{text}");
        for bytes in [
            text.as_bytes().to_vec(),
            marked.as_bytes().to_vec(),
            utf16(text, u16::to_le_bytes),
            utf16(text, u16::to_be_bytes),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
        ] {
            assert_eq!(decode(bytes).as_deref(), Ok(text));
        }
        assert_eq!(decode(Vec::new()).as_deref(), Ok(""));
    }

    #[test]
    fn another_encoding_is_named_with_its_line() {
        assert_eq!(decode(b"{\n\"caf\xe9\"}".to_vec()), Err(2));
        assert_eq!(decode(b"{\0\n\0\0\xd8}\0".to_vec()), Err(2));
    }

    #[test]
    fn packed_files_are_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("annotations.json");
        std::fs::write(&path, b"PK\x03\x04rest").unwrap();
        let error = read(&path).unwrap_err();
        assert!(error.to_string().ends_with("annotations.json` is packed (zip), not text"), "{error}");
        assert_eq!(error.exit(), ExitCode::NeverRestart);
        assert_eq!(read(&folder.path().join("none")).unwrap_err().exit(), ExitCode::NeverRestart);
    }

    #[test]
    fn composed_and_decomposed_accents_are_one_name() {
        assert_eq!(composed("cafe\u{301}"), "caf\u{e9}");
        assert_eq!(composed("caf\u{e9}"), "caf\u{e9}");
    }
}
