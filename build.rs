//! Compiles `proto/` with protox, a protobuf compiler in Rust: no `protoc` to install.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;

const SERVICES: [&str; 4] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/ads.proto",
    "ratelimit/config/ratelimit/v3/rls_conf.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(SERVICES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Kept for gRPC reflection and for protobuf JSON.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .codec_path("crate::proto_codec::SmallCodec")
        .include_file("proto.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
