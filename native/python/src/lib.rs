//! `metrana._native`: the engine as a Python extension module.
//!
//! Two parts: what a training process calls (`run`, `current` and what they use), and what a server
//! calls (`decode`, `spool`). Python has names, defaults and friendly messages; numbers, bytes,
//! order, disk and network are on this side.

#![allow(clippy::doc_markdown, reason = "what is exported is documented in Python's way")]
#![allow(clippy::needless_pass_by_value, reason = "PyO3 gives arguments by value")]

mod arguments;
mod checker;
mod current;
mod decode;
mod deliver;
mod error;
mod faults;
mod fork;
mod local;
mod log;
mod names;
mod number;
mod options;
mod rendering;
mod rl;
mod run;
mod snapshots;
mod spool;
mod whole;
mod writer;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::current::{
        current_run, log, log_distributed, log_rl_environment_step, log_rl_episode, set_current_run,
    };
    #[pymodule_export]
    use super::decode::{
        BatchInfo, NumberMap, batch_info, crc32c, decode_attributes, decode_declarations,
        decode_points,
    };
    #[pymodule_export]
    use super::deliver::deliver_spools;
    #[pymodule_export]
    use super::fork::{fork_in_child, fork_in_parent, fork_prepare};
    #[pymodule_export]
    use super::local::find_local_server;
    #[pymodule_export]
    use super::rendering::{RenderingInfo, decode_rendering};
    #[pymodule_export]
    use super::run::RunCore;
    #[pymodule_export]
    use super::spool::{
        Recovery, RunFolder, SpoolFollower, SpoolMessage, WriterInfo, is_network_file_system,
        orphaned_rings,
    };
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", metrana_engine::VERSION)
    }
}
