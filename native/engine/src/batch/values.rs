//! Values: floats as integers in the same order, their differences, and byte planes.
//!
//! Noise sits in a float's low bits, and the statistics of its bytes differ; a column of each byte
//! lets zstd's entropy coder see one distribution at a time.

/// The float32 that is exactly `value`, if there is one.
#[inline]
pub fn narrow(value: f64) -> Option<f32> {
    let narrow = value as f32;
    (f64::from(narrow).to_bits() == value.to_bits()).then_some(narrow)
}

/// Whether [`narrow`] finds a float32 for every value.
pub fn all_narrow(values: &[f64]) -> bool {
    // In pieces, so that the inner loop has no exit and becomes vector instructions.
    values.chunks(256).all(|chunk| {
        let differences =
            |bits, value: &f64| bits | (f64::from(*value as f32).to_bits() ^ value.to_bits());
        chunk.iter().fold(0, differences) == 0
    })
}

/// The bits of the float64 that is exactly the float32 with `bits`.
#[inline]
pub fn widen(bits: u32) -> u64 {
    let value = f32::from_bits(bits);
    if value.is_nan() {
        // The conversion may change a NaN's payload, and does so differently on some machines.
        let sign = u64::from(bits >> 31) << 63;
        return sign | 0x7ff0_0000_0000_0000 | u64::from(bits & 0x007f_ffff) << 29;
    }
    f64::from(value).to_bits()
}

macro_rules! width {
    ($module:ident, $unsigned:ty, $signed:ty, $bytes:expr) => {
        /// Values of one width.
        pub mod $module {
            /// Byte planes.
            pub const PLANES: usize = $bytes;
            const SIGN: $unsigned = 1 << (<$unsigned>::BITS - 1);

            /// The integer that is ordered as the float with these bits.
            #[inline]
            pub const fn order(bits: $unsigned) -> $unsigned {
                bits ^ (((bits as $signed >> (<$unsigned>::BITS - 1)) as $unsigned) | SIGN)
            }

            /// Undoes [`order`].
            #[inline]
            pub const fn unorder(ordered: $unsigned) -> $unsigned {
                let negative = !((ordered as $signed >> (<$unsigned>::BITS - 1)) as $unsigned);
                ordered ^ (negative | SIGN)
            }

            /// The zigzagged difference of two ordered integers.
            #[inline]
            pub const fn difference(ordered: $unsigned, before: $unsigned) -> $unsigned {
                let delta = ordered.wrapping_sub(before) as $signed;
                ((delta << 1) ^ (delta >> (<$unsigned>::BITS - 1))) as $unsigned
            }

            /// The ordered integer whose [`difference`] to `before` this is.
            #[inline]
            pub const fn undo_difference(word: $unsigned, before: $unsigned) -> $unsigned {
                before.wrapping_add((word >> 1) ^ (word & 1).wrapping_neg())
            }

            /// Cuts words into planes, most significant bytes first.
            pub fn split(words: &[$unsigned], planes: &mut [Vec<u8>]) {
                for (index, plane) in planes.iter_mut().enumerate() {
                    let shift = 8 * (PLANES - 1 - index);
                    plane.clear();
                    plane.extend(words.iter().map(|word| (word >> shift) as u8));
                }
            }

            /// Adds a plane to words; `index` 0 is the most significant.
            pub fn join(words: &mut [$unsigned], index: usize, plane: &[u8]) {
                let shift = 8 * (PLANES - 1 - index);
                for (word, &byte) in words.iter_mut().zip(plane) {
                    *word |= <$unsigned>::from(byte) << shift;
                }
            }
        }
    };
}

width!(f32s, u32, i32, 4);
width!(f64s, u64, i64, 8);
