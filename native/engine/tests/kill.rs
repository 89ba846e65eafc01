//! Real processes, killed at random instants: every point a call accepted is there, once, and the
//! next process's steps go on behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]
#![cfg(target_os = "linux")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Contents, close, config, open};
use metrana_engine::attributes::{AttributeOperation, AttributeUpdate, AttributeValue};
use metrana_engine::calls::{EnvCall, Point, Values};
use metrana_engine::config::{BackpressureStrategy, EngineConfig};
use metrana_engine::deliver::{DeadWriters, DeliveryOptions, OnEvent};
use metrana_engine::engine::Engine;
use metrana_engine::recovery::RecoveryOptions;
use metrana_engine::ring::Ring;
use metrana_engine::run_folder::{RunFolder, WriterLock};
use metrana_engine::seal::SealSettings;
use metrana_engine::sender::Cancel;
use metrana_engine::spool::SpoolOptions;
use metrana_engine::transport::memory::{MemoryServer, MemoryTransport};
use metrana_engine::types::{Compression, EnvNo, MetricNo, Scale};

const ROUNDS: usize = 50;
const ENVS: usize = 8;
const PER_ENV: usize = 4;
/// The child's data directory; its report is `METRANA_TEST_REPORT`.
const FOLDER: &str = "METRANA_TEST_FOLDER";
const REPORT: &str = "METRANA_TEST_REPORT";

fn small(data_dir: &Path) -> EngineConfig {
    let mut config = config(data_dir);
    config.batch.max_age = Duration::from_millis(10);
    config.batch.max_msg_size = 32 * 1024;
    config.spool.options.segment_bytes = 64 * 1024;
    config.queue.strategy = BackpressureStrategy::Block;
    config
}

/// What a child has been told was accepted: two numbers in a file, which outlives it.
struct Report(File);

impl Report {
    fn new(path: &Path) -> Self {
        Self(
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(path)
                .unwrap(),
        )
    }

    fn write(&self, place: u64, number: u64) {
        self.0.write_all_at(&number.to_le_bytes(), place * 8).unwrap();
    }

    fn read(&self, place: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, place * 8).map_or(0, |()| u64::from_le_bytes(bytes))
    }
}

const WRITER: u64 = 0;
const SCALARS: u64 = 1;
const BLOCKS: u64 = 2;
const ATTRIBUTES: u64 = 3;

/// Not a test of its own: what the killed processes run.
#[test]
fn child() {
    let (Ok(folder), Ok(report)) = (std::env::var(FOLDER), std::env::var(REPORT)) else { return };
    let report = Report::new(Path::new(&report));
    let engine = open(small(Path::new(&folder)));
    report.write(WRITER, u64::from(engine.identity().writer_number));
    let mut logger = Logger::new(&engine);
    loop {
        for _ in 0..20 {
            logger.scalar();
            report.write(SCALARS, logger.scalars);
        }
        logger.block();
        report.write(BLOCKS, logger.blocks);
        logger.attribute();
        report.write(ATTRIBUTES, logger.attributes);
    }
}

struct Logger<'a> {
    engine: &'a Engine,
    loss: MetricNo,
    reward: MetricNo,
    envs: Vec<EnvNo>,
    /// Goes on where the run was, as a resumed training does.
    first_rl_step: i64,
    scalars: u64,
    blocks: u64,
    attributes: u64,
}

impl<'a> Logger<'a> {
    fn new(engine: &'a Engine) -> Self {
        let last = engine.env_cursor(engine.env("env-0").unwrap()).0;
        Self {
            first_rl_step: last.map_or(0, |last| last + 1),
            engine,
            loss: engine.metric("loss", Scale::MlStep, &[]).unwrap(),
            reward: engine.metric("reward", Scale::EnvironmentStep, &[]).unwrap(),
            envs: (0..ENVS).map(|i| engine.env(&format!("env-{i}")).unwrap()).collect(),
            scalars: 0,
            blocks: 0,
            attributes: 0,
        }
    }

    fn scalar(&mut self) {
        let value = self.scalars as f64;
        let point =
            Point { metric: self.loss, step: None, timestamp_ms: None, value, distributed: false };
        self.engine.log_point(point).unwrap().settle(&mut || false).unwrap();
        self.scalars += 1;
    }

    fn block(&mut self) {
        let first = self.blocks as usize * ENVS * PER_ENV;
        let values: Vec<_> = (first..first + ENVS * PER_ENV).map(|value| value as f64).collect();
        let call = EnvCall {
            metric: self.reward,
            rl_step: self.first_rl_step + self.blocks as i64,
            envs: &self.envs,
            per_env: PER_ENV,
            episodes: None,
            timestamps: None,
            values: Values::F64(&values),
        };
        self.engine.log_env_steps(&call).unwrap().settle(&mut || false).unwrap();
        self.blocks += 1;
    }

    fn attribute(&mut self) {
        let value = AttributeValue::Int(self.attributes.to_string());
        let operation = AttributeOperation::Set { path: "count".to_owned(), value };
        let update = AttributeUpdate { initial: false, operation };
        self.engine.log_attributes(&[update]).unwrap().settle(&mut || false).unwrap();
        self.attributes += 1;
    }
}

fn start(folder: &Path, report: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(FOLDER, folder)
        .env(REPORT, report)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a child log for a while that differs from round to round, and kills it.
fn run_and_kill(folder: &Path, report_path: &Path, round: usize) {
    let report = Report::new(report_path);
    let mut child = start(folder, report_path);
    let deadline = Instant::now() + Duration::from_secs(60);
    // Some rounds end while the run is being opened.
    let wanted = u64::from(round % 10 != 9);
    while report.read(SCALARS) < wanted {
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline);
        std::thread::yield_now();
    }
    let mut random = [0; 2];
    getrandom::fill(&mut random).unwrap();
    // 0 to 16 ms.
    std::thread::sleep(Duration::from_micros(u64::from(u16::from_le_bytes(random)) / 4));
    child.kill().unwrap();
    child.wait().unwrap();
}

fn writer_folders(data_dir: &Path) -> PathBuf {
    let mut runs = fs::read_dir(data_dir.join("spool")).unwrap();
    runs.next().unwrap().unwrap().path()
}

/// The values of a metric, each of which must be there once, whatever their order.
fn values(contents: &Contents, metric: &str) -> Vec<u64> {
    let of_metric = contents.points.iter().filter(|seen| seen.metric == metric);
    let mut values: Vec<_> = of_metric.map(|seen| seen.value as u64).collect();
    values.sort_unstable();
    values
}

/// 0, 1, 2 … without a gap or a repeat.
fn assert_counts(numbers: &[u64]) {
    if let Some((at, found)) = (0..).zip(numbers).find(|(at, found)| at != *found) {
        panic!("{found} where {at} should be, of {}", numbers.len());
    }
}

fn check(contents: &Contents, report: &Report) {
    assert_eq!(contents.problems, Vec::<String>::new());
    let scalars = values(contents, "loss");
    assert_counts(&scalars);
    // One more may have been accepted than reported.
    assert!([0, 1].contains(&(scalars.len() as u64 - report.read(SCALARS))));
    let rewards = values(contents, "reward");
    assert_counts(&rewards);
    let blocks = rewards.len() / (ENVS * PER_ENV);
    assert!([0, 1].contains(&(blocks as u64 - report.read(BLOCKS))));
    let counts: Vec<_> = contents.updates.iter().map(|update| format!("{update:?}")).collect();
    assert!([0, 1].contains(&(counts.len() as u64 - report.read(ATTRIBUTES))));
    for (i, found) in counts.iter().enumerate() {
        assert!(found.contains(&format!("Int(\"{i}\")")), "{found}");
    }
}

#[test]
fn test_what_was_accepted_survives_kill_once_and_steps_go_on() {
    let folder = common::folder();
    let reports: Vec<_> =
        (0..ROUNDS).map(|round| folder.path().join(format!("report-{round}"))).collect();
    let data_dir = folder.path().join("data");
    for (round, report) in reports.iter().enumerate() {
        run_and_kill(&data_dir, report, round);
    }
    // The next process seals what the last one left.
    close(&open(small(&data_dir)));
    let names = fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name());
    let rings: Vec<_> =
        names.filter(|name| name.to_string_lossy().starts_with("metrana-")).collect();
    assert_eq!(rings, [""; 0], "whenever a process was killed, its ring was found");
    let run = writer_folders(&data_dir);
    let (mut steps, mut env_steps) = (Vec::new(), Vec::new());
    for report in reports.iter().map(|path| Report::new(path)) {
        let writer = report.read(WRITER);
        if writer == 0 {
            continue;
        }
        let contents = common::read(&run.join(format!("{writer:06}")));
        check(&contents, &report);
        let of_loss = contents.points.iter().filter(|seen| seen.metric == "loss");
        steps.extend(of_loss.map(|seen| seen.step as u64));
        let of_env = contents.points.iter().filter(|seen| seen.env.as_deref() == Some("env-3"));
        env_steps.extend(of_env.map(|seen| seen.step as u64));
        assert!(!contents.points.iter().any(|seen| seen.rewound));
    }
    assert!(!steps.is_empty() && !env_steps.is_empty());
    assert_counts(&steps);
    assert_counts(&env_steps);
}

#[test]
fn test_steps_go_on_behind_a_killed_writer_whose_spool_was_delivered() {
    let folder = common::folder();
    let data_dir = folder.path().join("data");
    let server = MemoryServer::new();
    let connector = Arc::new(MemoryTransport(Arc::clone(&server)));
    let seal = SealSettings { compression: Compression::Zstd, payload_bytes: 16 * 1024 };
    let writers = DeadWriters {
        data_dir: data_dir.clone(),
        of_destination: Some("local".to_owned()),
        options: DeliveryOptions::new(connector, "local"),
        recovery: RecoveryOptions { spool: SpoolOptions::default(), seal },
        force: false,
    };
    let on_event: OnEvent = Arc::new(|event| assert_eq!(event.problems(), [""; 0]));
    let (mut scalars, mut blocks) = (0, 0);
    for round in 0..3 {
        let report = folder.path().join(format!("report-{round}"));
        run_and_kill(&data_dir, &report, round);
        writers.deliver(&Cancel::never(), &on_event);
        assert_eq!(writer_count(&data_dir), 0, "delivered, so nothing but the positions is left");
        let report = Report::new(&report);
        (scalars, blocks) = (scalars + report.read(SCALARS), blocks + report.read(BLOCKS));
        let next = open(small(&data_dir));
        let loss = next.metric("loss", Scale::MlStep, &[]).unwrap();
        // Of each round one more may have been accepted than reported.
        let behind = |reported: u64, last: i64| {
            (0..=round as i64 + 1).contains(&(last + 1 - reported as i64))
        };
        let last = next.last_step(loss).unwrap();
        assert!(behind(scalars, last), "{last} of {scalars}");
        let (rl_step, episode) = next.env_cursor(next.env("env-3").unwrap());
        assert!(behind(blocks, rl_step.unwrap_or(-1)), "{rl_step:?} of {blocks}");
        assert_eq!(episode, rl_step.map(|_| 0));
        close(&next);
        writers.deliver(&Cancel::never(), &on_event);
    }
}

/// What whoever delivers a dead writer holds, in each of its phases.
#[test]
fn test_steps_go_on_behind_a_killed_writer_that_somebody_else_delivers() {
    let folder = common::folder();
    let data_dir = folder.path().join("data");
    for (round, is_sealing) in [false, true].into_iter().enumerate() {
        let report = folder.path().join(format!("report-{round}"));
        run_and_kill(&data_dir, &report, round);
        let run = RunFolder::list(&data_dir).unwrap().remove(0);
        let killed = run.writers().unwrap().pop().unwrap();
        let lock = WriterLock::take(&killed.path, false).unwrap();
        let path = lock.info().ring.clone().unwrap();
        let ring = is_sealing.then(|| Ring::open_existing(&path, lock.info().writer_id).unwrap());
        let next = open(small(&data_dir));
        let wanted = common::greatest_step(&next, "loss");
        let rl_step = next.env_cursor(next.env("env-3").unwrap()).0;
        assert_eq!(next.take_errors(), [""; 0]);
        drop(next);
        drop((lock, ring));
        // Once the lock is free everything is found out by taking over.
        let after = open(small(&data_dir));
        assert!(wanted.is_some());
        assert_eq!(common::greatest_step(&after, "loss"), wanted);
        assert_eq!(after.env_cursor(after.env("env-3").unwrap()).0, rl_step);
        let last = Report::new(&report).read(SCALARS) as i64 - 1;
        assert!(wanted >= Some(last), "{wanted:?}, {last}");
        close(&after);
    }
}

fn writer_count(data_dir: &Path) -> usize {
    let names = fs::read_dir(writer_folders(data_dir)).unwrap();
    names
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('0'))
        .count()
}
