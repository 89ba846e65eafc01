//! What the engine's tests share: an engine in a folder of its own, and its spool read back.

#![allow(dead_code, reason = "each test crate uses a part")]

pub mod gate;
pub mod renderings;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use renderings::Renderings;

use metrana_engine::attributes::{AttributeUpdate, CloseStatus, decode_attributes};
use metrana_engine::batch::{PointColumns, decode_points};
use metrana_engine::config::{EngineConfig, RunConfig};
use metrana_engine::declarations::{Declaration, decode_declarations};
use metrana_engine::engine::Engine;
use metrana_engine::engine_log::ENGINE_LOG;
use metrana_engine::platform;
use metrana_engine::ring::{RingOptions, RingPlace};
use metrana_engine::spool::{FrameKind, SpoolEvent, SpoolReader};
use metrana_engine::types::{Scale, Seq};

/// A data directory that goes with the test. It is in memory, so that rings can be in it too.
pub fn folder() -> Folder {
    Folder(match platform::shared_memory_folder() {
        Some(memory) => tempfile::tempdir_in(memory).unwrap(),
        None => tempfile::tempdir().unwrap(),
    })
}

/// See [`folder`].
pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Somebody has the lock of a writer in it.
    fn has_writer(&self) -> bool {
        let inside = |folder: PathBuf| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path())
        };
        inside(self.path().join("spool")).flat_map(inside).any(|writer| {
            let lock = File::open(writer.join("lock"));
            lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
        })
    }
}

impl Drop for Folder {
    /// The thread of an engine that was dropped may still seal, and would make the folder anew behind
    /// its deletion; it has the writer's lock until it ends. Where a test took the lock away, nothing
    /// is deleted while a file is added.
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while self.has_writer() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        while self.path().exists() && Instant::now() < deadline {
            let _ = std::fs::remove_dir_all(self.path());
        }
    }
}

/// A writer of run `run` without a server, with a small ring in its data directory.
pub fn config(data_dir: &Path) -> EngineConfig {
    let mut config = EngineConfig::offline(data_dir, RunConfig::local("run", "job"));
    config.ring =
        RingOptions { capacity_bytes: 1 << 20, place: RingPlace::Folder(data_dir.to_owned()) };
    config
}

pub fn open(config: EngineConfig) -> Engine {
    Engine::open(config, &mut || false).unwrap()
}

pub fn close(engine: &Engine) {
    engine.close(Duration::from_secs(20), CloseStatus::Finished, &mut || false).unwrap();
}

/// Where the metric without labels stands.
pub fn greatest_step(engine: &Engine, name: &str) -> Option<i64> {
    engine.last_step(engine.metric(name, Scale::MlStep, &[]).unwrap())
}

/// One point as the server would see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    pub metric: String,
    pub env: Option<String>,
    pub rl_step: i64,
    pub episode: i64,
    pub step: i64,
    pub timestamp_ms: i64,
    pub value: f64,
    pub rewound: bool,
    pub distributed: bool,
}

/// All that is in a writer's spool.
#[derive(Debug, Default)]
pub struct Contents {
    pub points: Vec<Seen>,
    pub updates: Vec<AttributeUpdate>,
    /// As a server keeps them.
    pub renderings: Renderings,
    pub last_seq: u64,
    pub payload_bytes: Vec<usize>,
    pub problems: Vec<String>,
}

/// The folder of writer `number` of the only run in `data_dir`.
pub fn writer_folder(data_dir: &Path, number: u32) -> PathBuf {
    let run = std::fs::read_dir(data_dir.join("spool")).unwrap().next().unwrap().unwrap().path();
    run.join(format!("{number:06}"))
}

/// Reads the spool of writer `number` of the only run in `data_dir`.
pub fn contents(data_dir: &Path, number: u32) -> Contents {
    read(&writer_folder(data_dir, number))
}

/// What the first writer of the only run in `data_dir` wrote to its log.
pub fn log_of(data_dir: &Path) -> String {
    std::fs::read_to_string(writer_folder(data_dir, 1).join(ENGINE_LOG)).unwrap()
}

pub fn read(writer_folder: &Path) -> Contents {
    let mut reader = SpoolReader::open(writer_folder, Seq(1)).unwrap();
    reader.writer_has_ended();
    let mut contents = Contents::default();
    let (mut metrics, mut envs) = (vec![None; 10_000], vec![None; 10_000]);
    while let Some(event) = reader.next_event().unwrap() {
        let frame = match event {
            SpoolEvent::Frame(frame) => frame,
            SpoolEvent::Damage(damage) => {
                contents.problems.push(damage.message);
                continue;
            }
        };
        match frame.kind {
            FrameKind::Declarations => {
                for declaration in decode_declarations(&frame.payload).unwrap() {
                    match declaration {
                        Declaration::Metric { no, name, .. } => metrics[no.0 as usize] = Some(name),
                        Declaration::Environment { no, env_id } => {
                            envs[no.0 as usize] = Some(env_id);
                        }
                    }
                }
                continue;
            }
            FrameKind::Points => {
                let mut columns = PointColumns::default();
                decode_points(&frame.payload, &mut columns).unwrap();
                for i in 0..columns.value.len() {
                    contents.points.push(Seen {
                        metric: metrics[columns.metric_no[i] as usize].clone().unwrap(),
                        env: envs[columns.env_no[i] as usize].clone(),
                        rl_step: columns.rl_step[i],
                        episode: columns.episode[i],
                        step: columns.step[i],
                        timestamp_ms: columns.timestamp_ms[i],
                        value: columns.value[i],
                        rewound: columns.rewound[i] == 1,
                        distributed: columns.distributed[i] == 1,
                    });
                }
            }
            FrameKind::Attributes => {
                contents.updates.extend(decode_attributes(&frame.payload).unwrap());
            }
            FrameKind::Renderings => contents.renderings.take(&frame.payload),
        }
        assert_eq!(frame.seq.0, contents.last_seq + 1, "sequence numbers have no gaps");
        contents.last_seq = frame.seq.0;
        contents.payload_bytes.push(frame.payload.len());
    }
    contents
}

/// Polls until `condition` holds.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long: {what}");
        std::thread::yield_now();
    }
}
