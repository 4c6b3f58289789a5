//! Temporal IoU of segments (spec 50, section 1; TALLFormer `vedatad/misc/segment`).

/// Start and end, both in the same unit.
pub type Span = [f32; 2];

/// Smallest union, so that two segments without length do not divide by zero.
const SMALLEST: f32 = 1e-6;

/// Length that two segments share.
pub fn intersection(a: Span, b: Span) -> f32 {
    (a[1].min(b[1]) - a[0].max(b[0])).max(0.0)
}

/// Intersection over union.
pub fn iou(a: Span, b: Span) -> f32 {
    let shared = intersection(a, b);
    shared / ((a[1] - a[0]) + (b[1] - b[0]) - shared).max(SMALLEST)
}

/// Intersection over the length of `a`.
pub fn coverage(a: Span, b: Span) -> f32 {
    intersection(a, b) / (a[1] - a[0]).max(SMALLEST)
}
