//! The bytes of version 1. If one of these tests fails, the version has to rise: batches of the old
//! one lie in spools.
