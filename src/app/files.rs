//! File descriptors: as many as the system lets the process have, and what each port may take of them.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most connections of the public HTTP port.
const HTTP_CONNECTIONS: usize = 1024;
/// Most connections of a port for operators; their answers can be large.
const ADMIN_CONNECTIONS: usize = 128;

/// Connections that each port may have at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    pub(super) grpc: usize,
    pub(super) http: usize,
    pub(super) admin: usize,
}

/// Raises the process's own (soft) limit of open files to what it may have (the hard limit), shares it out, and says in
/// the log when `max_connections` gRPC connections do not fit.
pub(super) fn share(max_connections: usize) -> Shares {
    let files = raise();
    let shares = Shares::of(files, max_connections);
    if shares.grpc < max_connections {
        let wanted = max_connections.saturating_mul(4).div_ceil(3);
        tracing::warn!(
            files,
            max_connections,
            connections = shares.grpc,
            "this process may open too few files for --max-connections: the gRPC port takes fewer connections. Raise the \
             hard limit of open files (ulimit -Hn, LimitNOFILE=, the container's nofile) to {wanted}, or lower \
             --max-connections"
        );
    }
    shares
}

/// The limit after it was raised as far as it can be.
fn raise() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of open files could not be raised");
            current
        }
    };
    // None: no limit.
    files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

impl Shares {
    /// Three quarters for gRPC, a sixteenth and two thirty-seconds for the HTTP ports; the rest, an eighth, stays for
    /// Redis, rules and certificates.
    fn of(files: usize, max_connections: usize) -> Self {
        Self {
            grpc: max_connections.min(files / 4 * 3).max(1),
            http: HTTP_CONNECTIONS.min(files / 16).max(1),
            admin: ADMIN_CONNECTIONS.min(files / 32).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_files_are_enough_for_all_and_few_are_shared() {
        let wanted = Shares {
            grpc: 20_000,
            http: HTTP_CONNECTIONS,
            admin: ADMIN_CONNECTIONS,
        };
        assert_eq!(Shares::of(usize::MAX, 20_000), wanted);
        assert_eq!(Shares::of(1 << 20, 20_000), wanted);
        for files in [64, 256, 1024, 4096, 20_000] {
            let shares = Shares::of(files, 20_000);
            let all = shares.grpc + shares.http + 2 * shares.admin;
            assert!(all <= files - files / 8, "{files}: {shares:?}");
        }
        assert_eq!(Shares::of(20_000, 10_000).grpc, 10_000);
    }
}
