//! An H.264 stream becomes an MP4 file with its index in front (ISO/IEC 14496-12 and 14496-15).

use super::encode::Stream;
use crate::data::decode::Rate;

/// The nine numbers of a transformation that changes nothing (ISO/IEC 14496-12, section 8.2.2).
const IDENTITY: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

fn atom(name: [u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let size = 8 + parts.iter().map(|part| part.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(size);
    bytes.extend_from_slice(&(size as u32).to_be_bytes());
    bytes.extend_from_slice(&name);
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_be_bytes()).collect()
}

/// The file; `None` if it would be too large for 32-bit sizes.
pub(super) fn mp4(stream: &Stream, (width, height): (usize, usize), rate: Rate) -> Option<Vec<u8>> {
    let (timescale, ticks) = rate.fraction()?;
    let duration = u32::try_from(stream.pictures.len()).ok()?.checked_mul(ticks)?;
    let ftyp = atom(*b"ftyp", &[b"isom", &words(&[0x200]), b"isomiso2avc1mp41"]);
    let size = (width as u32, height as u32);
    let index = |data_at: u32| {
        let media = atom(
            *b"mdia",
            &[
                &atom(*b"mdhd", &[&words(&[0, 0, 0, timescale, duration, 0x55c4_0000])]),
                &atom(*b"hdlr", &[&words(&[0, 0]), b"vide", &words(&[0, 0, 0]), b"Longtake\0"]),
                &atom(
                    *b"minf",
                    &[
                        &atom(*b"vmhd", &[&words(&[1, 0, 0])]),
                        &atom(
                            *b"dinf",
                            &[&atom(*b"dref", &[&words(&[0, 1]), &atom(*b"url ", &[&words(&[1])])])],
                        ),
                        &sample_table(stream, size, ticks, data_at),
                    ],
                ),
            ],
        );
        let header = words(&[7, 0, 0, 1, 0, duration, 0, 0, 0, 0]);
        let track = atom(
            *b"trak",
            &[&atom(*b"tkhd", &[&header, &words(&IDENTITY), &words(&[size.0 << 16, size.1 << 16])]), &media],
        );
        let movie =
            [words(&[0, 0, 0, timescale, duration, 0x1_0000, 0x0100_0000, 0, 0]), words(&IDENTITY)].concat();
        atom(*b"moov", &[&atom(*b"mvhd", &[&movie, &words(&[0, 0, 0, 0, 0, 0, 2])]), &track])
    };
    let data_at = ftyp.len() + index(0).len() + 8;
    u32::try_from(data_at + stream.data.len()).ok()?;
    Some([ftyp, index(data_at as u32), atom(*b"mdat", &[&stream.data])].concat())
}

/// All pictures in one chunk, each shown for `ticks`.
fn sample_table(stream: &Stream, (width, height): (u32, u32), ticks: u32, data_at: u32) -> Vec<u8> {
    let count = stream.pictures.len() as u32;
    let sizes: Vec<u32> = stream.pictures.iter().map(|(size, _)| *size).collect();
    let keys: Vec<u32> =
        (1..).zip(&stream.pictures).filter(|(_, (_, key))| *key).map(|(number, _)| number).collect();
    let configuration = atom(
        *b"avcC",
        &[
            &[1],
            stream.sps.get(1..4).unwrap_or_default(),
            &[0xff, 0xe1],
            &(stream.sps.len() as u16).to_be_bytes(),
            &stream.sps,
            &[1],
            &(stream.pps.len() as u16).to_be_bytes(),
            &stream.pps,
        ],
    );
    // 72 pixels an inch, one frame a sample, no compressor's name, 24 bits of colour.
    let entry = atom(
        *b"avc1",
        &[
            &words(&[0, 1, 0, 0, 0, 0, width << 16 | height, 0x48_0000, 0x48_0000, 0]),
            &[0, 1],
            &[0; 32],
            &[0, 0x18, 0xff, 0xff],
            &configuration,
        ],
    );
    atom(
        *b"stbl",
        &[
            &atom(*b"stsd", &[&words(&[0, 1]), &entry]),
            &atom(*b"stts", &[&words(&[0, 1, count, ticks])]),
            &atom(*b"stss", &[&words(&[0, keys.len() as u32]), &words(&keys)]),
            &atom(*b"stsc", &[&words(&[0, 1, 1, count, 1])]),
            &atom(*b"stsz", &[&words(&[0, 0, count]), &words(&sizes)]),
            &atom(*b"stco", &[&words(&[0, 1, data_at])]),
        ],
    )
}
