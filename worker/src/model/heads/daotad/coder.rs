//! Offsets to segments and back (spec 40, section 6; TALLFormer `vedatad/misc/segment/coders/delta_segment_coder.py`).

use burn::tensor::Tensor;

use super::anchors::Segment;

/// Largest log-length offset that acts: a segment is at most e times as long as its anchor. TALLFormer has it, DaoTAD
/// has not.
const LONGEST: f32 = 1.0;

/// Segments that offsets describe.
///
/// # Shapes
/// `anchors` `[N, 2]`, `offsets` `[N, 2]` -> `[N, 2]`
pub fn decode(anchors: Tensor<2>, offsets: Tensor<2>) -> Tensor<2> {
    let column = |x: &Tensor<2>, index| x.clone().narrow(1, index, 1);
    let (start, end) = (column(&anchors, 0), column(&anchors, 1));
    let length = end.clone() - start.clone();
    let centre = (start + end) * 0.5 + length.clone() * column(&offsets, 0);
    let half = length * column(&offsets, 1).clamp_max(LONGEST).exp() * 0.5;
    Tensor::cat(vec![centre.clone() - half.clone(), centre + half], 1)
}

/// The segment that one pair of offsets describes: [`decode`] without tensors, for post-processing.
pub fn decode_segment(anchor: Segment, offset: [f32; 2]) -> Segment {
    let length = anchor[1] - anchor[0];
    let centre = (anchor[0] + anchor[1]) * 0.5 + length * offset[0];
    let half = length * offset[1].min(LONGEST).exp() * 0.5;
    [centre - half, centre + half]
}

/// The offsets that describe a segment: the inverse of [`decode_segment`], without its bound.
pub fn encode_segment(anchor: Segment, segment: Segment) -> [f32; 2] {
    let length = anchor[1] - anchor[0];
    let centre = |s: Segment| (s[0] + s[1]) * 0.5;
    [(centre(segment) - centre(anchor)) / length, ((segment[1] - segment[0]) / length).ln()]
}
