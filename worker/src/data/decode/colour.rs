//! Y'CbCr to R'G'B' by the stream's own matrix and range.

/// Luma weights of red and blue, from which the whole matrix follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    /// ITU-R BT.601 (standard definition).
    Bt601,
    /// ITU-R BT.709 (high definition).
    Bt709,
    /// ITU-R BT.2020 with non-constant luminance.
    Bt2020,
}

/// Which byte values stand for black and white.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Luma 16 to 235, chroma 16 to 240 (what almost every video uses).
    Limited,
    /// 0 to 255.
    Full,
}

impl Matrix {
    /// Of the code in ITU-T H.273, table 4; `None` for unspecified codes and for those that are no Y'CbCr matrix.
    pub(super) fn from_code(code: u32) -> Option<Self> {
        match code {
            1 | 7 => Some(Self::Bt709),
            4..=6 => Some(Self::Bt601),
            9 | 10 => Some(Self::Bt2020),
            _ => None,
        }
    }

    /// What a stream most likely means that says nothing: BT.709 from 720 lines on, BT.601 below, as players assume.
    pub(super) fn usual(height: usize) -> Self {
        if height >= 720 { Self::Bt709 } else { Self::Bt601 }
    }

    /// (Kr, Kb) of ITU-R BT.601-7, BT.709-6 and BT.2020-2.
    fn weights(self) -> (f32, f32) {
        match self {
            Self::Bt601 => (0.299, 0.114),
            Self::Bt709 => (0.2126, 0.0722),
            Self::Bt2020 => (0.2627, 0.0593),
        }
    }
}

/// The five numbers that turn a pixel's Y', Cb, Cr into R', G', B'.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToRgb {
    black: f32,
    luma: f32,
    red: f32,
    green: (f32, f32),
    blue: f32,
}

impl ToRgb {
    /// For a matrix and range (ITU-T H.273, equations 42 to 44 inverted).
    pub(super) fn new(matrix: Matrix, range: Range) -> Self {
        let (kr, kb) = matrix.weights();
        let kg = 1.0 - kr - kb;
        let (black, luma, chroma) = match range {
            Range::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
            Range::Full => (0.0, 1.0, 1.0),
        };
        let red = 2.0 * (1.0 - kr) * chroma;
        let blue = 2.0 * (1.0 - kb) * chroma;
        Self { black, luma, red, green: (blue * kb / kg, red * kr / kg), blue }
    }

    /// One pixel; values outside 0 to 255 are clamped, halves round up.
    #[inline]
    pub(super) fn pixel(&self, y: f32, cb: f32, cr: f32) -> [u8; 3] {
        let luma = (y - self.black) * self.luma + 0.5;
        let (cb, cr) = (cb - 128.0, cr - 128.0);
        [
            (luma + self.red * cr) as u8,
            (luma - self.green.0 * cb - self.green.1 * cr) as u8,
            (luma + self.blue * cb) as u8,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_white_and_the_primaries_come_out_as_the_standards_say() {
        let limited = ToRgb::new(Matrix::Bt601, Range::Limited);
        assert_eq!(limited.pixel(16.0, 128.0, 128.0), [0, 0, 0]);
        assert_eq!(limited.pixel(235.0, 128.0, 128.0), [255, 255, 255]);
        // Pure red is (81, 90, 240) in 8-bit BT.601 and (63, 102, 240) in BT.709.
        assert_eq!(limited.pixel(81.48, 90.2, 240.0), [255, 0, 0]);
        let high_definition = ToRgb::new(Matrix::Bt709, Range::Limited);
        assert_eq!(high_definition.pixel(62.56, 102.34, 240.0), [255, 0, 0]);
        let full = ToRgb::new(Matrix::Bt601, Range::Full);
        assert_eq!(full.pixel(255.0, 128.0, 128.0), [255, 255, 255]);
        assert_eq!(full.pixel(0.0, 128.0, 128.0), [0, 0, 0]);
    }
}
