//! The engine of metrana: it takes points, keeps them, and delivers them. It knows no Python.

/// The version of the engine, which is that of the Python package too.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[cfg(test)]
mod tests {
    use super::VERSION;

    #[test]
    fn version_has_three_numbers() {
        let numbers = VERSION.split('.').map(str::parse::<u32>).collect::<Result<Vec<_>, _>>();
        assert_eq!(numbers.map(|n| n.len()), Ok(3));
    }
}
