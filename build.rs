//! Compiles `proto/` with protox, a protobuf compiler in Rust: no `protoc` to install.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;
use prost_types::field_descriptor_proto::Type;

const SERVICES: [&str; 5] = [
    "envoy/service/ratelimit/v3/rls.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/rate_limit_quota/v3/rlqs.proto",
    "envoy/service/discovery/v3/ads.proto",
    "ratelimit/config/ratelimit/v3/rls_conf.proto",
];

/// The messages of RLQS that name a bucket.
const BUCKET_IDS: [&str; 2] = [
    ".envoy.service.rate_limit_quota.v3.RateLimitQuotaUsageReports.BucketQuotaUsage.bucket_id",
    ".envoy.service.rate_limit_quota.v3.RateLimitQuotaResponse.BucketAction.bucket_id",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut descriptors = protox::compile(SERVICES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    // Kept for gRPC reflection and for protobuf JSON.
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    encode_ahead(&mut descriptors);
    take_any_bytes(&mut descriptors);
    keep_bucket_ids(&mut descriptors);
    let builder = tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .codec_path("crate::proto_codec::SmallCodec")
        .include_file("proto.rs");
    let builder = BUCKET_IDS.into_iter().fold(builder, |builder, id| builder.bytes(id));
    builder.compile_fds(descriptors)?;
    Ok(())
}

/// Makes the generated code take dynamic metadata as bytes: on the wire an embedded message and its encoding are the
/// same, and `service::encoded` writes the encoding directly. Reflection and JSON know the true type.
fn encode_ahead(descriptors: &mut FileDescriptorSet) {
    for message in descriptors.file.iter_mut().flat_map(|file| &mut file.message_type) {
        if !["RateLimitResponse", "CheckResponse"].contains(&message.name()) {
            continue;
        }
        for field in message
            .field
            .iter_mut()
            .filter(|field| field.name() == "dynamic_metadata")
        {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}

/// Makes the generated code take a descriptor's entries as bytes. Envoy copies header values into them as they are, and
/// prost refuses a message with a string that is no UTF-8: one such header would let a client pass all limits wherever
/// Envoy lets requests pass that the service did not answer.
fn take_any_bytes(descriptors: &mut FileDescriptorSet) {
    let messages = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    let parts = messages
        .filter(|message| message.name() == "RateLimitDescriptor")
        .flat_map(|message| &mut message.nested_type);
    for entry in parts.filter(|part| part.name() == "Entry") {
        entry.field.iter_mut().for_each(|field| field.set_type(Type::Bytes));
    }
}

/// Makes the generated code keep bucket ids as they came: a report names every bucket of its stream again, and the answer
/// repeats the name, so a map would be built and written for each of them for nothing. It is read once, when a stream first
/// names the bucket.
fn keep_bucket_ids(descriptors: &mut FileDescriptorSet) {
    let messages = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    let parts = messages.flat_map(|message| &mut message.nested_type);
    for field in parts.flat_map(|part| &mut part.field) {
        if field.name() == "bucket_id" {
            field.set_type(Type::Bytes);
            field.type_name = None;
        }
    }
}
