//! How many records go into one message.
//!
//! Before a batch is encoded only a bound of its payload is known. Where a series has few points in a
//! batch that is twenty times what it becomes, and messages of a twentieth would be twenty times as
//! many, each with a price. So a batch takes as much as lately would have filled a message; one that
//! becomes too long after all is made anew by the bound alone.

/// The most that a bound may be above a message: it is also what encoding takes of memory.
const MAX_STRETCH: usize = 32;

/// How large the bound of a batch's payload may become.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    message_bytes: usize,
    bound_bytes: usize,
}

impl Room {
    /// Nothing is known yet: what is bounded by a message.
    pub const fn new(message_bytes: usize) -> Self {
        Self { message_bytes, bound_bytes: message_bytes }
    }

    /// The payload of a message, as long as one record does not need more.
    pub const fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Whether a batch of this bound is not too much.
    pub const fn has(&self, bound: usize) -> bool {
        bound <= self.bound_bytes
    }

    /// Takes note of an encoded batch: its bound, and what it became. Returns whether it is too long
    /// and has to be made anew, which it never is once made of what is bounded by a message.
    pub fn learn(&mut self, bound: usize, payload: usize) -> bool {
        if payload > self.message_bytes && self.bound_bytes > self.message_bytes {
            self.bound_bytes = self.message_bytes;
            return true;
        }
        // A quarter is left for what saves less; it doubles at most, for a small batch tells little.
        let fills = self.message_bytes.saturating_mul(bound) / payload.max(1) / 4 * 3;
        let most = MAX_STRETCH.min(2 * self.bound_bytes.div_ceil(self.message_bytes.max(1)));
        let greatest = self.message_bytes.saturating_mul(most);
        self.bound_bytes = fills.clamp(self.message_bytes, greatest.max(self.message_bytes));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::Room;

    #[test]
    fn a_batch_takes_what_would_fill_three_quarters_of_a_message() {
        let mut room = Room::new(1000);
        assert!(room.has(1000) && !room.has(1001));
        for _ in 0..10 {
            assert!(!room.learn(1000, 100));
        }
        assert!(room.has(7500) && !room.has(7501));
        assert!(!room.learn(7500, 1000));
        assert!(room.has(5625) && !room.has(5626));
    }

    #[test]
    fn it_grows_step_by_step_to_a_limit() {
        let mut room = Room::new(1000);
        for most in [2000, 4000, 8000, 16_000, 32_000, 32_000] {
            assert!(!room.learn(1000, 1));
            assert!(room.has(most) && !room.has(most + 1));
        }
    }

    #[test]
    fn what_became_too_long_is_made_anew_once() {
        let mut room = Room::new(1000);
        room.learn(1000, 100);
        assert!(room.learn(2000, 1001));
        assert!(room.has(1000) && !room.has(1001));
        // A single record that is longer than a message.
        assert!(!room.learn(5000, 4000));
        assert!(!room.has(1001));
    }

    #[test]
    fn numbers_at_the_ends_of_their_range_are_harmless() {
        for message in [0, 1, usize::MAX] {
            let mut room = Room::new(message);
            for bound in [0, 1, usize::MAX] {
                for payload in [0, 1, usize::MAX] {
                    room.learn(bound, payload);
                    assert!(room.has(message));
                }
            }
        }
    }
}
