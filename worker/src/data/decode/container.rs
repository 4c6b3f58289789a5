//! Kinds of video files, told by their first bytes.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::fault::Fault;

/// What holds the streams of a video file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Container {
    Mp4,
    Matroska,
    Avi,
    /// With bytes of one packet: 188, 192 with a time in front (M2TS), or 204 with a checksum behind.
    TransportStream(usize),
    ProgramStream,
    FlashVideo,
    WindowsMedia,
    Ogg,
    /// Pictures of MPEG-1, MPEG-2 or H.264 one after another, without times.
    Elementary,
    Unknown,
}

/// Lengths of packets of an MPEG transport stream (ISO/IEC 13818-1; Blu-ray; DVB), and where the byte 0x47 lies in each.
const TRANSPORT_PACKETS: [(usize, usize); 3] = [(188, 0), (192, 4), (204, 0)];
/// Packets of a transport stream that are looked at to be sure.
const PACKETS_TO_BE_SURE: usize = 4;
const HEAD: usize = 204 * PACKETS_TO_BE_SURE;

impl Container {
    pub(super) fn of(file: &File, length: u64) -> Result<Self, Fault> {
        let mut head = [0; HEAD];
        let head = &mut head[..usize::try_from(length).unwrap_or(HEAD).min(HEAD)];
        file.read_exact_at(head, 0).map_err(Fault::Read)?;
        Ok(Self::of_head(head))
    }

    fn of_head(head: &[u8]) -> Self {
        let boxes: [&[u8]; 10] =
            [b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"styp", b"pnot", b"moof", b"sidx"];
        match head {
            [_, _, _, _, name @ ..] if boxes.iter().any(|known| name.starts_with(known)) => Self::Mp4,
            [0x1a, 0x45, 0xdf, 0xa3, ..] => Self::Matroska,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'A', b'V', b'I', ..] => Self::Avi,
            [b'F', b'L', b'V', 1, ..] => Self::FlashVideo,
            [0x30, 0x26, 0xb2, 0x75, ..] => Self::WindowsMedia,
            [b'O', b'g', b'g', b'S', ..] => Self::Ogg,
            [0, 0, 1, 0xba, ..] => Self::ProgramStream,
            [0, 0, 1, 0xb3, ..] | [0, 0, 0, 1, _, ..] => Self::Elementary,
            _ => Self::transport_stream(head).unwrap_or(Self::Unknown),
        }
    }

    fn transport_stream(head: &[u8]) -> Option<Self> {
        let fits = |(packet, sync): (usize, usize)| {
            let mut signs = (sync..head.len()).step_by(packet).map(|at| head[at] == 0x47);
            head.len() > packet + sync && signs.all(|sign| sign)
        };
        TRANSPORT_PACKETS
            .into_iter()
            .find(|kind| fits(*kind))
            .map(|(packet, _)| Self::TransportStream(packet))
    }

    /// Why the embedded decoder does not read it.
    pub(super) fn sentence(self) -> String {
        let name = match self {
            Self::Mp4 => "an MP4 file",
            Self::Matroska => "a Matroska or WebM file",
            Self::Avi => "an AVI file",
            Self::TransportStream(_) => "an MPEG transport stream",
            Self::ProgramStream => "an MPEG program stream",
            Self::FlashVideo => "a Flash video",
            Self::WindowsMedia => "a Windows Media file",
            Self::Ogg => "an Ogg file",
            Self::Elementary => "a bare stream of pictures",
            Self::Unknown => return "its first bytes are of no container that it knows".into(),
        };
        format!("it is {name}, not MP4")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of a transport stream of zeros.
    fn packets(length: usize, sync: usize, count: usize) -> Vec<u8> {
        (0..length * count).map(|at| if at % length == sync { 0x47 } else { 0 }).collect()
    }

    #[test]
    fn transport_streams_are_told_by_every_packet_and_with_each_length() {
        for (length, sync) in TRANSPORT_PACKETS {
            assert_eq!(
                Container::of_head(&packets(length, sync, 4)[..HEAD.min(4 * length)]),
                Container::TransportStream(length)
            );
        }
        let mut text = packets(188, 0, 4);
        text[2 * 188] = b'x';
        assert_eq!(Container::of_head(&text), Container::Unknown);
        assert_eq!(Container::of_head(b"G"), Container::Unknown);
    }

    #[test]
    fn program_streams_and_bare_streams_are_videos() {
        assert_eq!(Container::of_head(&[0, 0, 1, 0xba, 0x44]), Container::ProgramStream);
        assert_eq!(Container::of_head(&[0, 0, 1, 0xb3, 0x14]), Container::Elementary);
        assert_eq!(Container::of_head(&[0, 0, 0, 1, 0x67]), Container::Elementary);
        assert_eq!(Container::of_head(&[]), Container::Unknown);
    }
}
