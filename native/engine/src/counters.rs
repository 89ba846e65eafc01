//! What was added, enqueued, spooled, sent and dropped, by kind of data.
//!
//! At every instant, for each kind: `added = sent + dropped + pending`.

/// Kinds of data that are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Points of `log` and `log_distributed`.
    Float = 0,
    /// Points of the RL functions.
    Rl = 1,
    /// Attribute operations of the run.
    Attribute = 2,
    /// Attribute operations of environments.
    EnvAttribute = 3,
}

/// A count per [`Kind`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(pub [u64; 4]);

impl Tally {
    pub const fn of(kind: Kind, count: u64) -> Self {
        let mut tally = Self([0; 4]);
        tally.0[kind as usize] = count;
        tally
    }

    pub const fn get(&self, kind: Kind) -> u64 {
        self.0[kind as usize]
    }

    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Float and RL points, which are what the queue's capacity counts.
    pub const fn points(&self) -> u64 {
        self.0[Kind::Float as usize] + self.0[Kind::Rl as usize]
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}

impl std::ops::Sub for Tally {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine -= theirs);
        self
    }
}

impl std::ops::Add for Tally {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// A consistent snapshot; every field only grows, but `pending`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Given to the engine by calls that passed validation.
    pub added: Tally,
    /// Taken into the ring.
    pub enqueued: Tally,
    /// Sealed into the spool.
    pub spooled: Tally,
    /// Acknowledged by the server.
    pub sent: Tally,
    /// Refused for want of room, or thrown away by `close(0)`.
    pub dropped: Tally,
    /// Neither sent nor dropped yet.
    pub pending: Tally,
    pub connection_attempts: u64,
    pub requests_sent: u64,
    pub send_errors: u64,
    pub errors_reported: u64,
    pub errors_evicted: u64,
}

/// What a heartbeat carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    pub points_added: u64,
    pub points_dropped: u64,
    pub points_pending: u64,
    pub spooled_bytes: u64,
}
