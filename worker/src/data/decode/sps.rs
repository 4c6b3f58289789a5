//! What an H.264 sequence parameter set says about size, colour and coding tools (ITU-T H.264, sections 7.3.2.1 and E.1).

use super::bytes::Bits;
use super::colour::{Matrix, Range};

/// The part of a sequence parameter set that decides who can decode the stream and how its colours are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sps {
    pub(super) profile: u8,
    /// Size of the cropped picture in pixels.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Whether every picture is a whole frame.
    pub(super) progressive: bool,
    /// 0 grey, 1 is 4:2:0, 2 is 4:2:2, 3 is 4:4:4.
    pub(super) chroma_format: u32,
    pub(super) bit_depth: u32,
    /// As written in the stream; `None` where it says nothing.
    pub(super) matrix: Option<Matrix>,
    pub(super) range: Option<Range>,
}

/// Profiles whose parameter set has the chroma fields (ITU-T H.264, section 7.3.2.1.1).
const HIGH_PROFILES: [u8; 13] = [100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135];

impl Sps {
    /// Of a NAL unit with its header byte; `None` where the bits make no sense.
    pub(super) fn parse(nal: &[u8]) -> Option<Self> {
        let payload = without_emulation_prevention(nal.get(1..)?);
        let mut bits = Bits::new(&payload);
        let profile = bits.bits(8)? as u8;
        bits.bits(16)?;
        bits.unsigned()?;
        let (mut chroma_format, mut bit_depth) = (1, 8);
        if HIGH_PROFILES.contains(&profile) {
            chroma_format = bits.unsigned()?;
            if chroma_format == 3 {
                bits.flag()?;
            }
            let luma = bits.unsigned()?;
            let chroma = bits.unsigned()?;
            bit_depth = luma.max(chroma).checked_add(8)?;
            bits.flag()?;
            if bits.flag()? {
                skip_scaling_lists(&mut bits, if chroma_format == 3 { 12 } else { 8 })?;
            }
        }
        bits.unsigned()?;
        skip_picture_order(&mut bits)?;
        bits.unsigned()?;
        bits.flag()?;
        let columns = bits.unsigned()?.checked_add(1)?.checked_mul(16)?;
        let map_units = bits.unsigned()?.checked_add(1)?.checked_mul(16)?;
        let progressive = bits.flag()?;
        let rows = if progressive { map_units } else { map_units.checked_mul(2)? };
        if !progressive {
            bits.flag()?;
        }
        bits.flag()?;
        let (crop_width, crop_height) = cropping(&mut bits, chroma_format, progressive)?;
        let (matrix, range) = if bits.flag()? { video_signal(&mut bits)? } else { (None, None) };
        Some(Self {
            profile,
            width: columns.checked_sub(crop_width)? as usize,
            height: rows.checked_sub(crop_height)? as usize,
            progressive,
            chroma_format,
            bit_depth,
            matrix,
            range,
        })
    }
}

/// Main and high profile; and scalable baseline, whose parameter set has the same fields as high's.
const MAIN: u8 = 77;
const HIGH: u8 = 100;
const SCALABLE_BASELINE: u8 = 83;

/// The same parameter set with a profile for which OpenH264 gives each picture right after its data, in decoding order.
///
/// For main and high it sorts pictures by a rule of thumb, and never frees those that are fetched before their turn. It knows
/// the profile only as this one number, so the coding tools stay what they are.
pub(super) fn in_decoding_order(nal: &[u8]) -> Option<Vec<u8>> {
    match *nal.get(1)? {
        HIGH => {
            let mut copy = nal.to_vec();
            copy[1] = SCALABLE_BASELINE;
            Some(copy)
        }
        MAIN => {
            let payload = without_emulation_prevention(&nal[1..]);
            let mut bits = Bits::new(&payload);
            bits.bits(24)?;
            bits.unsigned()?;
            let head = bits.position();
            let bit = |at: usize| payload[at / 8] >> (7 - at % 8) & 1;
            // 4:2:0, 8 bits of luma and chroma, no lossless mode, no scaling matrix: what main profile means.
            let fields = [0, 1, 0, 1, 1, 0, 0];
            let all: Vec<u8> =
                (0..head).map(bit).chain(fields).chain((head..payload.len() * 8).map(bit)).collect();
            let bytes = all
                .chunks(8)
                .map(|byte| byte.iter().enumerate().fold(0, |value, (at, bit)| value | bit << (7 - at)));
            let mut copy: Vec<u8> = bytes.collect();
            copy[0] = SCALABLE_BASELINE;
            Some(with_emulation_prevention(nal[0], &copy))
        }
        _ => Some(nal.to_vec()),
    }
}

/// Display orientation, a message of supplemental enhancement information (ITU-T H.264, sections D.1.28 and D.2.28).
const DISPLAY_ORIENTATION: usize = 47;

/// Whether a NAL unit of supplemental information says that pictures are to be turned or mirrored.
pub(super) fn turns(nal: &[u8]) -> bool {
    let payload = without_emulation_prevention(nal.get(1..).unwrap_or_default());
    let mut rest = payload.as_slice();
    // Types and sizes are written in bytes of 255 and a last one.
    let number = |rest: &mut &[u8]| {
        let whole = rest.iter().take_while(|byte| **byte == 0xff).count();
        let last = *rest.get(whole)?;
        *rest = &rest[whole + 1..];
        Some(whole * 255 + usize::from(last))
    };
    while let Some((kind, size)) = number(&mut rest).and_then(|kind| Some((kind, number(&mut rest)?))) {
        let Some((message, behind)) = rest.split_at_checked(size) else {
            return false;
        };
        if kind == DISPLAY_ORIENTATION {
            // A flag that cancels, then two that mirror, then an angle of 16 bits.
            let bits = message.iter().take(3).fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            return message.len() >= 3 && bits >> 23 == 0 && bits & 0x7f_ffe0 != 0;
        }
        rest = behind;
    }
    false
}

fn with_emulation_prevention(header: u8, payload: &[u8]) -> Vec<u8> {
    let end = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let mut nal = vec![header];
    let mut zeros = 0;
    for &byte in &payload[..end] {
        if zeros >= 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        nal.push(byte);
    }
    nal
}

fn skip_scaling_lists(bits: &mut Bits<'_>, lists: usize) -> Option<()> {
    for list in 0..lists {
        if !bits.flag()? {
            continue;
        }
        let (mut last, mut next) = (8i32, 8i32);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = last.checked_add(bits.signed()?)?.rem_euclid(256);
            }
            last = if next == 0 { last } else { next };
        }
    }
    Some(())
}

fn skip_picture_order(bits: &mut Bits<'_>) -> Option<()> {
    match bits.unsigned()? {
        0 => {
            bits.unsigned()?;
        }
        1 => {
            bits.flag()?;
            bits.signed()?;
            bits.signed()?;
            for _ in 0..bits.unsigned().filter(|cycle| *cycle <= 255)? {
                bits.signed()?;
            }
        }
        2 => {}
        _ => return None,
    }
    Some(())
}

/// Columns and rows that are cut off, in pixels (ITU-T H.264, equations 7-19 to 7-22).
fn cropping(bits: &mut Bits<'_>, chroma_format: u32, progressive: bool) -> Option<(u32, u32)> {
    if !bits.flag()? {
        return Some((0, 0));
    }
    let unit_x = if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_format == 1 { 2 } else { 1 } * if progressive { 1 } else { 2 };
    let mut sides = [0u32; 4];
    for side in &mut sides {
        *side = bits.unsigned()?;
    }
    let [left, right, top, bottom] = sides;
    Some((left.checked_add(right)?.checked_mul(unit_x)?, top.checked_add(bottom)?.checked_mul(unit_y)?))
}

fn video_signal(bits: &mut Bits<'_>) -> Option<(Option<Matrix>, Option<Range>)> {
    if bits.flag()? && bits.bits(8)? == 255 {
        bits.bits(32)?;
    }
    if bits.flag()? {
        bits.flag()?;
    }
    if !bits.flag()? {
        return Some((None, None));
    }
    bits.bits(3)?;
    let range = if bits.flag()? { Range::Full } else { Range::Limited };
    let matrix = if bits.flag()? {
        bits.bits(16)?;
        Matrix::from_code(bits.bits(8)?)
    } else {
        None
    };
    Some((matrix, Some(range)))
}

/// A NAL unit's payload without the bytes that keep start codes out of it (ITU-T H.264, section 7.4.1.1).
fn without_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        payload.push(byte);
    }
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_the_pictures_tell_of_is_seen_behind_other_messages() {
        // User data of 300 bytes, then: not cancelled, mirrored, an angle of 0.
        let mut nal = [[6, 5, 255, 45].as_slice(), &[7; 300], &[47, 4, 0x40, 0, 4, 0x80]].concat();
        assert!(turns(&nal));
        // Not mirrored either.
        let flags = nal.len() - 4;
        nal[flags] = 0;
        assert!(!turns(&nal));
        nal[flags] = 0x80;
        assert!(!turns(&nal) && !turns(&nal[..20]) && !turns(&[]));
    }

    #[test]
    fn the_third_byte_of_an_escape_is_dropped() {
        assert_eq!(without_emulation_prevention(&[1, 0, 0, 3, 1, 0, 0, 3, 0]), [1, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn emulation_prevention_is_done_and_undone() {
        let payload = [0, 0, 1, 0, 0, 0, 0, 3, 9];
        assert_eq!(without_emulation_prevention(&with_emulation_prevention(7, &payload)[1..]), payload);
    }

    #[test]
    fn another_profile_changes_nothing_else() {
        // Main profile, 320x240, as x264 writes it.
        let main = [
            0x67, 0x4d, 0x40, 0x0d, 0xec, 0xa0, 0xa0, 0xfd, 0x80, 0x88, 0x00, 0x00, 0x03, 0x00, 0x08, 0x00,
            0x00, 0x03, 0x01, 0xe0, 0x78, 0xa1, 0x4c, 0xb0,
        ];
        let before = Sps::parse(&main).unwrap();
        assert_eq!((before.width, before.height, before.progressive), (320, 240, true));
        let after = Sps::parse(&in_decoding_order(&main).unwrap()).unwrap();
        assert_eq!(after, Sps { profile: SCALABLE_BASELINE, ..before });
    }

    #[test]
    fn a_parameter_set_cut_anywhere_is_refused_or_read_without_a_panic() {
        // High profile, 426x240 with cropping, as x264 writes it.
        let whole = [
            0x67, 0x64, 0x00, 0x15, 0xac, 0xd9, 0x41, 0xb0, 0xfd, 0xb0, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01,
            0x00, 0x00, 0x03, 0x00, 0x30, 0x0f, 0x16, 0x2d, 0x96,
        ];
        for cut in 0..whole.len() {
            let _ = Sps::parse(&whole[..cut]);
        }
        for at in 1..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole;
                damaged[at] ^= 1 << bit;
                let _ = Sps::parse(&damaged);
            }
        }
        assert_eq!(Sps::parse(&[]), None);
    }
}
