//! Values: how a float becomes a word whose bytes compress, and how one of two ways is chosen.
//!
//! *Plain* words are the float's bits turned left by one: the exponent fills the first byte, the
//! sign is the last bit. *Differences* are taken between integers ordered as the floats are, and
//! zigzagged. Walks, losses and schedules are smaller as differences; sparse rewards, counts and
//! white noise are smaller plain. Words are cut into byte planes because noise sits in a float's low
//! bits: a plane of each lets zstd's entropy coder see one distribution at a time.

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

/// Pairs of neighbours looked at to choose between plain words and differences.
const SAMPLES: usize = 32;

macro_rules! width {
    ($(#[$doc:meta])* $module:ident, $unsigned:ty, $signed:ty, $bytes:expr, $mantissa:expr) => {
        $(#[$doc])*
        pub mod $module {
            use super::SAMPLES;

            /// Byte planes.
            pub const PLANES: usize = $bytes;
            const SIGN: $unsigned = 1 << (<$unsigned>::BITS - 1);
            const MANTISSA: $unsigned = (1 << $mantissa) - 1;

            /// The integer that is ordered as the float with these bits.
            #[inline]
            const fn order(bits: $unsigned) -> $unsigned {
                bits ^ (((bits as $signed >> (<$unsigned>::BITS - 1)) as $unsigned) | SIGN)
            }

            /// Undoes [`order`].
            #[inline]
            const fn unorder(ordered: $unsigned) -> $unsigned {
                let negative = !((ordered as $signed >> (<$unsigned>::BITS - 1)) as $unsigned);
                ordered ^ (negative | SIGN)
            }

            /// Appends a series' values as plain words.
            pub fn put_plain(values: &[$unsigned], words: &mut Vec<$unsigned>) {
                words.extend(values.iter().map(|bits| bits.rotate_left(1)));
            }

            /// Appends a series' values as differences, the first as that to +0.0.
            pub fn put_differences(values: &[$unsigned], words: &mut Vec<$unsigned>) {
                let difference = |from: $unsigned, to: $unsigned| {
                    let delta = order(to).wrapping_sub(order(from)) as $signed;
                    ((delta << 1) ^ (delta >> (<$unsigned>::BITS - 1))) as $unsigned
                };
                words.extend(values.first().map(|first| difference(0, *first)));
                words.extend(values.windows(2).map(|pair| difference(pair[0], pair[1])));
            }

            /// Turns plain words back into bits.
            #[inline]
            pub fn plain(word: $unsigned) -> $unsigned {
                word.rotate_right(1)
            }

            /// Turns a series' differences back into bits.
            #[inline]
            pub fn undo_differences(
                words: impl ExactSizeIterator<Item = $unsigned>,
            ) -> impl ExactSizeIterator<Item = $unsigned> {
                let mut ordered = SIGN;
                words.map(move |word| {
                    let delta = (word >> 1) ^ (word & 1).wrapping_neg();
                    ordered = ordered.wrapping_add(delta);
                    unorder(ordered)
                })
            }

            /// By how many half bits a value plain words seem longer than differences, summed over
            /// a sample. Estimates what an entropy coder leaves: the bits between a number's first
            /// and last one, and something for the sign and the uncertain length of a difference
            /// or for an exponent that changes.
            pub fn advantage_of_differences(values: &[$unsigned]) -> i64 {
                let stride = (values.len() / SAMPLES).max(1);
                let pairs = values.windows(2).step_by(stride).take(SAMPLES);
                pairs.map(|pair| plain_cost(pair) - difference_cost(pair)).sum()
            }

            fn plain_cost(pair: &[$unsigned]) -> i64 {
                let mantissa = pair[1] & MANTISSA;
                let bits = i64::from($mantissa - mantissa.trailing_zeros().min($mantissa));
                let is_exponent_new = (pair[0] ^ pair[1]) > MANTISSA;
                if pair[0] == pair[1] { 0 } else { 2 * bits + if is_exponent_new { 4 } else { 0 } }
            }

            fn difference_cost(pair: &[$unsigned]) -> i64 {
                let delta = order(pair[1]).wrapping_sub(order(pair[0])) as $signed;
                let size = delta.unsigned_abs();
                if size == 0 {
                    return 0;
                }
                let length = <$unsigned>::BITS - size.leading_zeros() - size.trailing_zeros();
                // Where a round number's bits end is uncertain too: that depends on the exponent.
                let is_round = size.trailing_zeros() >= 8;
                2 * i64::from(length) + if is_round { 7 } else { 3 }
            }

            /// Cuts words into planes, most significant bytes first.
            pub fn split(words: &[$unsigned], planes: &mut [Vec<u8>]) {
                for (index, plane) in planes[..PLANES].iter_mut().enumerate() {
                    let shift = 8 * (PLANES - 1 - index);
                    plane.clear();
                    plane.extend(words.iter().map(|word| (word >> shift) as u8));
                }
            }

            /// Puts words `range` of planes of equal length together again.
            #[inline]
            pub fn join(
                planes: &[Vec<u8>],
                range: std::ops::Range<usize>,
            ) -> impl ExactSizeIterator<Item = $unsigned> {
                let planes: [&[u8]; PLANES] =
                    std::array::from_fn(|index| &planes[index][range.clone()]);
                (0..range.len()).map(move |index| {
                    // Each plane is a slice of the range's length.
                    <$unsigned>::from_be_bytes(planes.map(|plane| plane[index]))
                })
            }
        }
    };
}

width!(
    /// float32 values.
    f32s, u32, i32, 4, 23
);
width!(
    /// float64 values.
    f64s, u64, i64, 8, 52
);
