//! Generates the client from the .proto files, without protoc.

use std::error::Error;

const PROTOS: &str = "../../../protos";

fn main() -> Result<(), Box<dyn Error>> {
    let descriptors = protox::compile(["spincycle/v1/request_manager.proto"], [PROTOS])?;
    tonic_prost_build::configure()
        .build_server(false)
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={PROTOS}");
    Ok(())
}
