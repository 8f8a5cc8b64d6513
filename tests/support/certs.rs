//! Certificates of the test's own, in directories that change the way a Kubernetes Secret does.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

/// A certificate authority.
pub struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate chain and its private key, PEM.
#[derive(Clone)]
pub struct Identity {
    /// Certificate.
    pub cert: String,
    /// Private key.
    pub key: String,
}

impl Ca {
    /// A new one.
    pub fn new(name: &str) -> Self {
        Self::named(name, &[])
    }

    /// The same with names, as a server that shows its CA certificate has it.
    pub fn named(name: &str, names: &[&str]) -> Self {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its certificate as one to be shown.
    pub fn itself(&self) -> Identity {
        Identity {
            cert: self.pem(),
            key: self.0.key().serialize_pem(),
        }
    }

    /// A certificate for these names (DNS, IP address, or URI), good for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "a test");
        params.subject_alt_names = names.iter().map(|name| san(name)).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.0).expect("a certificate");
        Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A name as a certificate carries it.
pub fn san(name: &str) -> SanType {
    let text = || name.try_into().expect("ASCII");
    if let Ok(ip) = name.parse() {
        SanType::IpAddress(ip)
    } else if name.contains("://") {
        SanType::URI(text())
    } else {
        SanType::DnsName(text())
    }
}

/// A directory as Kubernetes mounts a Secret or a ConfigMap: `name` → `..data/name`, `..data` → `..<generation>`.
pub struct Volume {
    dir: TempDir,
    generation: AtomicU32,
}

impl Volume {
    /// Mounts these files.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let volume = Self {
            dir,
            generation: AtomicU32::new(0),
        };
        volume.replace(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), volume.path(name)).expect("a symlink");
        }
        volume
    }

    /// Where a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Swaps all files in one step.
    pub fn replace(&self, files: &[(&str, &str)]) {
        let generation = format!("..{}", self.generation.fetch_add(1, Ordering::SeqCst));
        let target = self.dir.path().join(&generation);
        fs::create_dir(&target).expect("a directory");
        for (name, text) in files {
            fs::write(target.join(name), text).expect("a file");
        }
        let data = self.dir.path().join("..data");
        let old = fs::read_link(&data).ok();
        let new = self.dir.path().join("..data_tmp");
        symlink(&generation, &new).expect("a symlink");
        fs::rename(&new, &data).expect("the swap");
        if let Some(old) = old {
            fs::remove_dir_all(self.dir.path().join(old)).expect("the old files go");
        }
    }
}

impl Identity {
    /// As Kubernetes and cert-manager name the files of a TLS Secret.
    pub fn files<'a>(&'a self, ca: &'a str) -> [(&'a str, &'a str); 3] {
        [("tls.crt", &self.cert), ("tls.key", &self.key), ("ca.crt", ca)]
    }

    /// For tonic's client.
    pub fn tonic(&self) -> tonic::transport::Identity {
        tonic::transport::Identity::from_pem(&self.cert, &self.key)
    }
}
