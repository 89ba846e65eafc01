//! Random lives, deaths and recoveries.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    Point {
        metric: u32,
    },
    Attribute {
        bytes: usize,
    },
    Seal,
    /// All that is sealed is acknowledged, and whole segments of it are deleted.
    Acknowledge,
    /// The process dies, recoveries die at these operations, and another writer begins.
    Reopen {
        attempts: Vec<(u64, Fault)>,
    },
}

fn death() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::DiesBefore), Just(Fault::DiesWithin), Just(Fault::DiesAfter)]
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => death(),
        1 => Just(Fault::ShortWrite),
        1 => Just(Fault::Interrupted),
        1 => Just(Fault::Full),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        20 => (1..=METRICS).prop_map(|metric| Operation::Point { metric }),
        6 => (0usize..400).prop_map(|bytes| Operation::Attribute { bytes }),
        4 => Just(Operation::Seal),
        1 => Just(Operation::Acknowledge),
        1 => prop::collection::vec((0u64..30, fault()), 0..4)
            .prop_map(|attempts| Operation::Reopen { attempts }),
    ]
}

/// A run of a model: lives one after the other in one data directory.
struct Model<'a> {
    folder: &'a Path,
    fault: (u64, Fault),
    life: Option<Life>,
    /// Frames that a server has, by number.
    delivered: BTreeMap<Seq, Frame>,
    next: u32,
}

impl Model<'_> {
    fn life(&mut self) -> &mut Life {
        let (folder, (at, fault)) = (self.folder, self.fault);
        self.life.get_or_insert_with(|| {
            Life::begin(folder, RingPlace::Folder(folder.into()), FaultyDisk::new(at, fault))
        })
    }

    fn run(&mut self, operation: Operation) {
        self.next += 1;
        let next = self.next;
        match operation {
            Operation::Point { metric } => self.life().log_point(metric, f64::from(next)),
            Operation::Attribute { bytes } => self.life().log_attribute(format!("a{next}"), bytes),
            Operation::Seal => {
                if self.life().seal().is_err() && self.life().disk.is_dead() {
                    self.reopen(&[]);
                }
            }
            Operation::Acknowledge => self.acknowledge(),
            Operation::Reopen { attempts } => self.reopen(&attempts),
        }
    }

    fn acknowledge(&mut self) {
        let path = self.life().folder.path().to_owned();
        let frames = frames(&path).into_iter().filter(|frame| frame.seq > Seq(0));
        self.delivered.extend(frames.map(|frame| (frame.seq, frame)));
        let seen = self.delivered.last_key_value().map_or(Seq(0), |(seq, _)| *seq);
        // A follower may have a batch whose window is not whole in the spool. The writer deletes
        // nothing of it: what is left there says where recovery goes on.
        let acked = seen.min(Seq(self.life().consumer.next_seq().0 - 1));
        write_acked(&path, seen).unwrap();
        let deleted = self.life().spool.delete_acked(acked);
        if deleted.is_err() && self.life().disk.is_dead() {
            self.reopen(&[]);
        }
    }

    fn reopen(&mut self, attempts: &[(u64, Fault)]) {
        let Some(life) = self.life.take() else { return };
        let ring = life.ring.kind().path().unwrap().to_owned();
        let (path, logged) = life.die();
        for (at, fault) in attempts {
            let disk = FaultyDisk::new(*at, *fault);
            let done = recover(&mut WriterLock::take(&path, false).unwrap(), &options(&disk));
            let is_full = matches!(fault, Fault::Full | Fault::FullFromHere);
            assert!(done.is_ok() || disk.is_dead() || is_full, "{done:?}");
        }
        let report = recovered(&path);
        let (due, seqs) = undelivered(&path);
        assert_eq!(seqs, (due.0..=report.last_seq.0).collect::<Vec<_>>());
        assert!(report.is_complete() && report.problems.is_empty(), "{report:?}");
        assert!(!ring.exists());
        let mut all = std::mem::take(&mut self.delivered);
        for frame in frames(&path).into_iter().filter(|frame| frame.seq > Seq(0)) {
            let earlier = all.insert(frame.seq, frame.clone());
            assert!(earlier.is_none_or(|earlier| earlier == frame), "a batch never changes");
        }
        let all: Vec<_> = all.into_values().collect();
        assert_eq!(contents(&all), logged);
        assert_eq!(report.last_seq.0, all.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn test_ring_and_spool_behave_as_their_model(
        operations in prop::collection::vec(operation(), 1..150),
        fault in (0u64..120, fault()),
    ) {
        let folder = memory_folder();
        let path = folder.path();
        let mut model = Model { folder: path, fault, life: None, delivered: BTreeMap::new(), next: 0 };
        for operation in operations {
            model.run(operation);
        }
        model.reopen(&[]);
    }
}

/// A writer whose disk fails at operation `life_at`, and recoveries that fail as told; `false`: the
/// writer died in its seal and was recovered in one go.
fn live_and_recover(life_at: u64, fault: Fault, recoveries: &[(u64, Fault)]) -> bool {
    let folder = memory_folder();
    let path = folder.path();
    let fault = (life_at, fault);
    let mut model = Model { folder: path, fault, life: None, delivered: BTreeMap::new(), next: 0 };
    for at in 0..24 {
        model.run(match at % 8 {
            7 => Operation::Seal,
            3 => Operation::Attribute { bytes: 100 },
            metric => Operation::Point { metric: metric % METRICS + 1 },
        });
        if model.life.is_none() {
            return false;
        }
    }
    model.run(Operation::Point { metric: 1 });
    model.run(Operation::Attribute { bytes: 10 });
    model.reopen(recoveries);
    true
}

/// Every pair of deaths: of the writer's sealing, and of the recovery after it.
#[test]
fn test_writer_and_recovery_may_both_die_at_every_operation() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter] {
        let mut at = 0;
        while !live_and_recover(at, fault, &[]) {
            at += 1;
        }
        assert!(at > 10, "the writer's operations are counted");
        for at in 0..20 {
            live_and_recover(u64::MAX, fault, &[(at, fault), (at / 2, fault)]);
        }
    }
}

#[test]
fn test_every_operation_of_a_recovery_may_be_short_interrupted_or_out_of_space() {
    for fault in [Fault::ShortWrite, Fault::Interrupted, Fault::Full, Fault::FullFromHere] {
        for at in 0..20 {
            live_and_recover(u64::MAX, fault, &[(at, fault), (at / 2, fault)]);
        }
    }
}

/// Names and cursors too: their files are replaced with the same disk.
#[test]
fn test_a_recovery_may_die_at_every_operation() {
    for fault in [Fault::DiesBefore, Fault::DiesWithin, Fault::DiesAfter, Fault::Full] {
        for at in 0.. {
            let folder = memory_folder();
            let place = RingPlace::Folder(folder.path().into());
            let mut life = Life::begin(folder.path(), place, sound());
            life.log_point(1, 1.0);
            life.seal().unwrap();
            life.log_point(2, 2.0);
            life.log_attribute("a".to_owned(), 10);
            let (number, ring) = (life.info.number, life.ring.kind().path().unwrap().to_owned());
            let (path, logged) = life.die();
            let disk = FaultyDisk::new(at, fault);
            let done = recover(&mut WriterLock::take(&path, false).unwrap(), &options(&disk));
            assert!(done.is_ok() || disk.is_dead() || fault == Fault::Full, "{done:?}");
            let report = recovered(&path);
            assert!(report.is_complete() && report.problems.is_empty(), "{fault:?} {at}");
            assert_eq!(contents(&frames(&path)), logged, "{fault:?} {at}");
            let lock = WriterLock::take(&path, false).unwrap();
            assert_eq!(lock.info().ended, Some(WriterEnd::Recovered), "{fault:?} {at}");
            assert_eq!(lock.read_cursors().unwrap().unwrap().series.len(), 2, "{fault:?} {at}");
            assert!(run_folder(folder.path()).has_cursors(number) && !ring.exists());
            if disk.count() <= at {
                break;
            }
        }
    }
}
