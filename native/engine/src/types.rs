//! The small types every part of the engine speaks in, and the limits they obey.
//!
//! Numbers are newtypes so that a metric's number cannot be taken for an environment's, nor a byte
//! offset for a batch's sequence number.

use std::fmt;

/// A coordinate of a [`Position`] that its scale does not use.
pub const UNUSED: i64 = -1;

/// Most points one batch may hold, and one insert on the server.
pub const MAX_BATCH_POINTS: usize = 1_000_000;
/// Most repeats of one position within a batch (`ordinal` is a u16).
pub const MAX_ORDINAL: u16 = u16::MAX;
/// Greatest ML step: above it a float64 step could not be told from its neighbour.
pub const MAX_ML_STEP: i64 = (1 << 53) - 1;
/// `rl_step`, `episode` and an environment's step fit 48 + 40 + 40 bits, one u128.
pub const MAX_RL_STEP: i64 = (1 << 48) - 1;
/// See [`MAX_RL_STEP`].
pub const MAX_EPISODE: i64 = (1 << 40) - 1;
/// See [`MAX_RL_STEP`].
pub const MAX_ENVIRONMENT_STEP: i64 = (1 << 40) - 1;
/// Longest metric name, in bytes of UTF-8.
pub const MAX_METRIC_NAME_BYTES: usize = 512;
/// Most labels of one metric.
pub const MAX_LABELS: usize = 32;
/// Longest label key or value, in bytes of UTF-8.
pub const MAX_LABEL_BYTES: usize = 256;
/// Longest environment id, in bytes.
pub const MAX_ENV_ID_BYTES: usize = 128;
/// Largest attribute value, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 64 * 1024;

/// Which step axis a metric has. The numbers are those of the wire and the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scale {
    /// Position: `step`.
    MlStep = 1,
    /// Position: `episode`, and `rl_step` when an RL function logged it.
    Episode = 2,
    /// Position: `rl_step`, `episode` and `step` within the episode.
    EnvironmentStep = 3,
}

impl Scale {
    /// The scale with this wire number.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::MlStep),
            2 => Some(Self::Episode),
            3 => Some(Self::EnvironmentStep),
            _ => None,
        }
    }

    /// The name users write.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlStep => "ML_STEP",
            Self::Episode => "EPISODE",
            Self::EnvironmentStep => "ENVIRONMENT_STEP",
        }
    }
}

/// Where a point lies. Ordered as the store orders it: `rl_step`, `episode`, `step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// Update or global step of RL series, else [`UNUSED`].
    pub rl_step: i64,
    /// Episode number within the environment, else [`UNUSED`].
    pub episode: i64,
    /// ML step, or step inside the episode, else [`UNUSED`].
    pub step: i64,
}

impl Position {
    /// Before every position there is.
    pub const NONE: Self = Self { rl_step: UNUSED, episode: UNUSED, step: UNUSED };

    /// The cursor of a series that reached both: the greater `rl_step`; the greater episode and the
    /// step inside it, whatever their `rl_step`s, for that is what automatic numbers go on from.
    #[must_use]
    pub fn furthest(self, other: Self) -> Self {
        let (episode, step) = (self.episode, self.step).max((other.episode, other.step));
        Self { rl_step: self.rl_step.max(other.rl_step), episode, step }
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// Writer-local number of a (name, scale, labels), from 1.
    MetricNo(u32)
}
number! {
    /// Writer-local number of an environment id, from 1; 0 is "no environment".
    EnvNo(u32)
}
number! {
    /// Number of a sealed batch within its writer, from 1; 0 is "none yet".
    Seq(u64)
}
number! {
    /// Byte offset into the endless stream that the ring is a window of.
    Lsn(u64)
}

impl EnvNo {
    /// The environment of a series that has none.
    pub const NONE: Self = Self(0);
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdParseError;

            fn from_str(text: &str) -> Result<Self, IdParseError> {
                let digits = text.as_bytes();
                if digits.len() != 32 || !digits.is_ascii() {
                    return Err(IdParseError);
                }
                let mut bytes = [0; 16];
                for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                    let high = char::from(pair[0]).to_digit(16).ok_or(IdParseError)?;
                    let low = char::from(pair[1]).to_digit(16).ok_or(IdParseError)?;
                    // Two hexadecimal digits always fit a byte.
                    *byte = u8::try_from(high * 16 + low).map_err(|_| IdParseError)?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

random_id! {
    /// One process logging to a run: 128 random bits.
    WriterId
}
random_id! {
    /// One run, minted by the process that creates it: 128 random bits.
    RunId
}
random_id! {
    /// One rendering, minted by the process that encodes it: 128 random bits.
    RenderingId
}

/// A text that is not 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 32 hexadecimal digits")]
pub struct IdParseError;

/// How sections of a batch are compressed when it is sealed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Sections are stored as they are.
    None,
    /// zstd, level 1, where it makes a section smaller.
    #[default]
    Zstd,
}

/// What a sequenced batch holds. The numbers are those of the frame and the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BatchKind {
    /// Points of series.
    Points = 2,
    /// Attribute operations.
    Attributes = 3,
    /// A piece of a rendering.
    Renderings = 4,
}

impl BatchKind {
    /// What batches of this kind are called where they are counted and shown.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Points => "points",
            Self::Attributes => "attributes",
            Self::Renderings => "renderings",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_text() {
        let id = WriterId([0xab; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("zz".parse::<WriterId>(), Err(IdParseError));
        assert_eq!("é".repeat(16).parse::<RunId>(), Err(IdParseError));
    }

    #[test]
    fn positions_order_as_the_store_does() {
        let at = |rl_step, episode, step| Position { rl_step, episode, step };
        assert!(at(1, 9, 9) < at(2, 0, 0));
        assert!(at(1, 1, 9) < at(1, 2, 0));
        assert!(Position::NONE < at(0, 0, 0));
    }
}
