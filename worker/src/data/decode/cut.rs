//! Whether a file that only ffmpeg reads lacks its end, or is encrypted: what its container says about itself.
//!
//! ffmpeg reads to the end of what there is, and says of some containers only that something was missing there.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::bytes::Bytes;
use super::container::Container;
use super::fault::Fault;

/// Bytes at the front of a file that hold the headers looked at here.
const HEAD: u64 = 1 << 16;
/// Bytes at the end of a file in which a last packet begins.
const TAIL: u64 = 1 << 17;

/// Whether a file ends before its container says it does. `false` also where the container does not say.
pub(super) fn is_cut(file: &File, length: u64, container: Container) -> Result<bool, Fault> {
    let cut = match container {
        Container::Avi => riff(file, length)?,
        Container::Matroska => matroska(&head(file, length)?, length),
        Container::FlashVideo => flash(file, length)?,
        Container::WindowsMedia => windows_media(&head(file, length)?, length),
        Container::TransportStream(packet) => Some(!length.is_multiple_of(packet as u64)),
        Container::ProgramStream => program_stream(&tail(file, length)?),
        Container::Ogg => ogg(&tail(file, length)?),
        Container::Mp4 | Container::Elementary | Container::Unknown => None,
    };
    Ok(cut.unwrap_or(false))
}

/// Whether the pictures are encrypted by the container's own scheme.
pub(super) fn encrypted(file: &File, length: u64, container: Container) -> Result<bool, Fault> {
    let head = head(file, length)?;
    Ok(match container {
        Container::Matroska => matroska_holds(&head, &MATROSKA_ENCRYPTION),
        Container::WindowsMedia => {
            contains(&head, &ASF_CONTENT_ENCRYPTION) || contains(&head, &ASF_EXTENDED_ENCRYPTION)
        }
        Container::TransportStream(packet) => scrambled(&head, packet),
        _ => false,
    })
}

/// Where encryption is told: Segment, Tracks, TrackEntry, ContentEncodings, ContentEncoding, ContentEncryption (RFC 9559,
/// section 5.1.4.1.31).
const MATROSKA_ENCRYPTION: [u64; 6] = [0x1853_8067, 0x1654_ae6b, 0xae, 0x6d80, 0x6240, 0x5035];
/// GUIDs as stored (ASF specification, section 10.2).
const ASF_CONTENT_ENCRYPTION: [u8; 16] =
    [0xfb, 0xb3, 0x11, 0x22, 0x23, 0xbd, 0xd2, 0x11, 0xb4, 0xb7, 0, 0xa0, 0xc9, 0x55, 0xfc, 0x6e];
const ASF_EXTENDED_ENCRYPTION: [u8; 16] =
    [0x14, 0xe6, 0x8a, 0x29, 0x22, 0x26, 0x17, 0x4c, 0xb9, 0x35, 0xda, 0xe0, 0x7e, 0xe9, 0x28, 0x9c];
const ASF_FILE_PROPERTIES: [u8; 16] =
    [0xa1, 0xdc, 0xab, 0x8c, 0x47, 0xa9, 0xcf, 0x11, 0x8e, 0xe4, 0, 0xc0, 0x0c, 0x20, 0x53, 0x65];

fn part(file: &File, from: u64, to: u64) -> Result<Vec<u8>, Fault> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from).map_err(Fault::Read)?;
    Ok(bytes)
}

fn head(file: &File, length: u64) -> Result<Vec<u8>, Fault> {
    part(file, 0, length.min(HEAD))
}

fn tail(file: &File, length: u64) -> Result<Vec<u8>, Fault> {
    part(file, length.saturating_sub(TAIL), length)
}

fn find(bytes: &[u8], sign: &[u8]) -> Option<usize> {
    bytes.windows(sign.len()).position(|window| window == sign)
}

fn contains(bytes: &[u8], sign: &[u8]) -> bool {
    find(bytes, sign).is_some()
}

fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// A chain of RIFF chunks, one a gigabyte in long files (OpenDML); a size of 0 is that of a recording never closed.
fn riff(file: &File, length: u64) -> Result<Option<bool>, Fault> {
    let mut at = 0;
    while length - at >= 12 {
        let header = part(file, at, at + 12)?;
        if !header.starts_with(b"RIFF") {
            return Ok(Some(false));
        }
        let size = little(&header[4..8]);
        if size == 0 || size >= u64::from(u32::MAX - 8) {
            return Ok(None);
        }
        // Writers disagree on whether the byte that makes a size even is counted.
        at += 8 + size;
        if at > length {
            return Ok(Some(true));
        }
        at += size % 2;
        if at > length {
            return Ok(Some(false));
        }
    }
    Ok(Some(false))
}

/// An element of Matroska: its name, the length it claims unless that is open, and what of its body is there (EBML, RFC 8794).
struct Element<'a> {
    name: u64,
    length: Option<u64>,
    /// Bytes before the body.
    header: usize,
    body: &'a [u8],
}

/// A number and its bytes; names keep the bit that says how long they are.
fn ebml_number(bytes: &[u8], name: bool) -> Option<(u64, usize)> {
    let count = bytes.first()?.leading_zeros() as usize + 1;
    let value = big(bytes.get(..count).filter(|_| count <= 8)?);
    Some((if name { value } else { value & ((1 << (7 * count)) - 1) }, count))
}

fn elements(mut bytes: &[u8]) -> impl Iterator<Item = Element<'_>> {
    std::iter::from_fn(move || {
        let (name, name_bytes) = ebml_number(bytes, true)?;
        let (length, length_bytes) = ebml_number(&bytes[name_bytes..], false)?;
        let length = (length != (1 << (7 * length_bytes)) - 1).then_some(length);
        let header = name_bytes + length_bytes;
        let rest = &bytes[header..];
        let there = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(usize::MAX);
        let (body, behind) = rest.split_at(there.min(rest.len()));
        bytes = behind;
        Some(Element { name, length, header, body })
    })
}

fn matroska_holds(bytes: &[u8], path: &[u64]) -> bool {
    let Some((name, inner)) = path.split_first() else {
        return true;
    };
    elements(bytes).any(|element| element.name == *name && matroska_holds(element.body, inner))
}

/// The EBML header, then one segment that says how long it is, unless it was written to a pipe.
fn matroska(head: &[u8], length: u64) -> Option<bool> {
    let mut at = 0;
    for element in elements(head) {
        let body = at + element.header as u64;
        if element.name == MATROSKA_ENCRYPTION[0] {
            return element.length.filter(|claimed| *claimed > 0).map(|claimed| body + claimed > length);
        }
        at = body + element.length?;
    }
    None
}

/// Tags that each are followed by their own length; the metadata may hold the length of the whole file.
fn flash(file: &File, length: u64) -> Result<Option<bool>, Fault> {
    let head = head(file, length)?;
    if let Some(at) = find(&head, b"filesize\0") {
        // An AMF0 number: a 64-bit float.
        let size = head.get(at + 9..at + 17).map(|bytes| f64::from_bits(big(bytes)));
        if size.is_some_and(|size| size > length as f64) {
            return Ok(Some(true));
        }
    }
    if length < 32 {
        return Ok(None);
    }
    let size = big(&part(file, length - 4, length)?);
    let Some(tag) = (length - 4).checked_sub(size).filter(|_| size >= 11) else {
        return Ok(Some(true));
    };
    Ok(Some(big(&part(file, tag + 1, tag + 4)?) + 11 != size))
}

/// The file's size in its header, which is 0 in recordings never closed (ASF specification, section 3.2).
fn windows_media(head: &[u8], length: u64) -> Option<bool> {
    let at = find(head, &ASF_FILE_PROPERTIES)?;
    let size = little(head.get(at + 40..at + 48)?);
    (size > 0).then_some(size > length)
}

/// Packets of known lengths behind the last pack's header (ISO/IEC 13818-1, section 2.5.3).
fn program_stream(tail: &[u8]) -> Option<bool> {
    let pack = tail.windows(4).rposition(|window| window == [0, 0, 1, 0xba])?;
    let mut bytes = Bytes::new(&tail[pack..]);
    loop {
        if bytes.is_empty() {
            return Some(false);
        }
        match bytes.take(4) {
            // The end code, or padding behind the last packet.
            Some([0, 0, 1, 0xb9] | [0, 0, 0, 0]) => return Some(false),
            Some([0, 0, 1, 0xba]) => {
                // MPEG-2's header has ten bytes and says how many of stuffing follow, MPEG-1's has eight.
                let Some(first) = bytes.u8() else { return Some(true) };
                let stuffing = if first & 0xc0 == 0x40 {
                    bytes.take(8).and_then(|_| bytes.u8()).map(|last| usize::from(last & 7))
                } else {
                    bytes.take(7).map(|_| 0)
                };
                if stuffing.and_then(|count| bytes.take(count)).is_none() {
                    return Some(true);
                }
            }
            Some([0, 0, 1, 0xbb..=0xff]) => {
                let Some(size) = bytes.u16() else { return Some(true) };
                if bytes.take(usize::from(size)).is_none() {
                    return Some(true);
                }
            }
            Some(_) => return None,
            None => return Some(bytes.rest().iter().any(|byte| *byte != 0)),
        }
    }
}

/// Pages that say how long they are (RFC 3533, section 6).
fn ogg(tail: &[u8]) -> Option<bool> {
    let page = tail.windows(5).rposition(|window| window == b"OggS\0")?;
    let Some(segments) = tail.get(page + 26).map(|count| usize::from(*count)) else {
        return Some(true);
    };
    let Some(table) = tail.get(page + 27..page + 27 + segments) else {
        return Some(true);
    };
    let body: usize = table.iter().map(|size| usize::from(*size)).sum();
    Some(page + 27 + segments + body > tail.len())
}

/// Whether most packets with a payload say that it is scrambled (ISO/IEC 13818-1, section 2.4.3.3).
fn scrambled(head: &[u8], packet: usize) -> bool {
    let sync = if packet == 192 { 4 } else { 0 };
    let control = |packet: &[u8]| packet.get(sync + 3).map(|flags| flags & 0xc0 != 0);
    let (scrambled, clear): (Vec<bool>, Vec<bool>) =
        head.chunks(packet).filter_map(control).partition(|scrambled| *scrambled);
    scrambled.len() > clear.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of Matroska with a length of one byte.
    fn element(name: u64, body: &[u8]) -> Vec<u8> {
        let name: Vec<u8> = name.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
        [&*name, &[0x80 | body.len() as u8], body].concat()
    }

    #[test]
    fn encryption_is_found_where_matroska_tells_it_and_nowhere_else() {
        let nested = MATROSKA_ENCRYPTION.iter().rev().fold(vec![7], |body, name| element(*name, &body));
        let file = [element(0x1a45_dfa3, &[1, 2, 3]), nested].concat();
        assert!(matroska_holds(&file, &MATROSKA_ENCRYPTION));
        // The same bytes as a picture's.
        let picture = element(0x1853_8067, &element(0x1f43_b675, &element(0x5035, &[7])));
        assert!(!matroska_holds(&picture, &MATROSKA_ENCRYPTION));
        assert!((0..file.len() - 1).all(|end| !matroska_holds(&file[..end.min(12)], &MATROSKA_ENCRYPTION)));
    }

    #[test]
    fn a_segment_is_cut_where_it_claims_more_than_there_is() {
        let file = [element(0x1a45_dfa3, &[1, 2, 3]), element(0x1853_8067, &[9; 40])].concat();
        let length = file.len() as u64;
        assert_eq!(matroska(&file, length), Some(false));
        assert_eq!(matroska(&file[..length as usize - 1], length - 1), Some(true));
        // An open length says nothing.
        let open = [&[0x18, 0x53, 0x80, 0x67, 0xff], [9; 9].as_slice()].concat();
        assert_eq!(matroska(&open, open.len() as u64), None);
    }

    #[test]
    fn a_transport_stream_is_scrambled_where_most_of_its_packets_are() {
        let packet = |flags: u8| [&[0x47, 0, 0, flags], [0; 184].as_slice()].concat();
        assert!(scrambled(&[packet(0x10), packet(0x90), packet(0xd0)].concat(), 188));
        assert!(!scrambled(&[packet(0x10), packet(0x10), packet(0x90)].concat(), 188));
    }

    #[test]
    fn a_program_stream_is_cut_in_its_last_packet() {
        let pack = [0, 0, 1, 0xba, 0x44, 0, 4, 0, 4, 1, 0, 0, 3, 0xf8];
        let packet = [0, 0, 1, 0xe0, 0, 5, 1, 2, 3, 4, 5];
        let whole = [pack.as_slice(), &packet].concat();
        assert_eq!(program_stream(&whole), Some(false));
        assert_eq!(program_stream(&[&*whole, &[0, 0, 1, 0xb9]].concat()), Some(false));
        for end in pack.len() + 5..whole.len() {
            assert_eq!(program_stream(&whole[..end]), Some(true), "{end}");
        }
    }
}
