//! Every Envoy configuration that the project ships is accepted by the real Envoy.

use std::process::Command;

use crate::support::envoy;

#[test]
fn envoy_accepts_the_shipped_configuration() {
    for config in ["envoy.yaml", "deploy/rlqs/envoy.yaml"] {
        let output = Command::new(envoy::binary())
            .args(["--mode", "validate", "--use-dynamic-base-id", "-c"])
            .arg(envoy::project_path(config))
            .output()
            .expect("Envoy runs");
        assert!(
            output.status.success(),
            "{config}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
