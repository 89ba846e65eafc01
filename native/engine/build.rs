//! Generates the wire contract's Rust code from `proto/`, with protox instead of protoc.

#[cfg_attr(
    not(feature = "grpc"),
    expect(clippy::unnecessary_wraps, reason = "only generating can fail")
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "grpc")]
    generate()?;
    Ok(())
}

#[cfg(feature = "grpc")]
fn generate() -> Result<(), Box<dyn std::error::Error>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo:rerun-if-changed={}", root.display());
    let descriptors = protox::compile(["metrana/v1/ingestion.proto"], [&root])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // The engine is a client; its tests have a server to talk to.
        .server_mod_attribute("metrana.v1", "#[cfg(test)]")
        .compile_fds(descriptors)?;
    Ok(())
}
