"""Certificates for the cases over TLS, by the openssl command."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


def openssl(*words):
    subprocess.run(["openssl", *map(str, words)], capture_output=True, check=True)


@dataclass
class Certificates:
    """An authority, and what it signed for a server on 127.0.0.1 and for a client; ECDSA P-256, as most are today."""

    directory: Path

    def __post_init__(self):
        self.ca = self.make("ca")
        self.server = self.sign("server", "IP:127.0.0.1")
        self.client = self.sign("client", "DNS:client")

    def sign(self, name, alternative):
        return self.make(name, "-CA", self.ca[0], "-CAkey", self.ca[1], "-addext", f"subjectAltName={alternative}",
                         "-addext", "basicConstraints=critical,CA:FALSE")

    def make(self, name, *options):
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *options, *curve, "-subj", f"/CN={name}", "-days", 2, "-out", cert, "-keyout", key)
        return cert, key

    def listener(self, mutual=False):
        """Flags of `sluicegate serve`."""
        flags = ("--grpc-tls-cert", self.server[0], "--grpc-tls-key", self.server[1])
        return (*flags, "--grpc-tls-client-ca", self.ca[0]) if mutual else flags

    def load(self, mutual=False):
        """Flags of the load generator."""
        flags = {"ca": self.ca[0]}
        return {**flags, "cert": self.client[0], "key": self.client[1]} if mutual else flags

    def redis(self):
        """Flags of redis-server for a port over TLS beside the plain one, without the port."""
        return ("--tls-cert-file", self.server[0], "--tls-key-file", self.server[1], "--tls-ca-cert-file", self.ca[0],
                "--tls-auth-clients", "no")
