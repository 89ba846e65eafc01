//! `metrana._native`: the engine as a Python extension module.
//!
//! Two parts: what a training process calls (`run` and what it uses), and what a server calls
//! (`decode`, `spool`). Python has names, defaults and friendly messages; numbers, bytes, order,
//! disk and network are on this side.

mod decode;
mod error;

use pyo3::prelude::*;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::decode::{
        BatchInfo, NumberMap, batch_info, crc32c, decode_attributes, decode_declarations,
        decode_points,
    };
    use super::{Bound, PyModule, PyModuleMethods, PyResult};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", metrana_engine::VERSION)
    }
}
