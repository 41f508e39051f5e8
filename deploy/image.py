#!/usr/bin/env python3
"""Lays out a scratch image of static binaries: the same bytes on every machine.

Nothing in it depends on when, where, by whom or with which libraries it is made. Layers are not
compressed, since compressors differ; a registry that compresses them leaves the image's id, the
digest of its configuration, as it is.

An OCI layout with one architecture, or several under an index:

    deploy/image.py --manifest Cargo.toml --revision "$(git rev-parse HEAD)" \\
        --certificates FILE --out DIRECTORY amd64=BINARY [arm64=BINARY]

The same image of one architecture as an archive for `podman load` and `docker load`: `--out FILE.tar`.
FILE is any text that holds certificates as PEM: they are taken in its order, and all around them is left out. The source
of the crate webpki-roots is one, pinned by Cargo.lock, and has the roots that the program itself
trusts.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import re
import sys
import tarfile
import tomllib

EPOCH = "1970-01-01T00:00:00Z"
# Without a name in any /etc/passwd; 65532 is what others call `nonroot`, too.
USER = 65532
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
DATA = "data"
OCI = "application/vnd.oci.image."

# What each program needs of a container.
PROGRAMS = {
    "gameserver": {
        "ExposedPorts": {"8080/tcp": {}, "9090/tcp": {}},
        "Env": [
            "GAMESERVER_LISTEN=[::]:8080",
            "GAMESERVER_ADMIN_LISTEN=[::]:9090",
            f"GAMESERVER_DATA_DIR=/{DATA}",
        ],
        "Volumes": {f"/{DATA}": {}},
        # OCI reserves this field for what Docker makes of it.
        "Healthcheck": {
            "Test": ["CMD", "/gameserver", "healthcheck"],
            "Interval": 10_000_000_000,
            "Timeout": 5_000_000_000,
            "StartPeriod": 10_000_000_000,
        },
    },
    "gameserver-operator": {},
}


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def to_json(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def tar(entries):
    """An archive of (name, mode, owner, content), where a directory has no content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, mode, owner, content in entries:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid = mode, owner, owner
            if content is None:
                entry.type = tarfile.DIRTYPE
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def bundle(text):
    """The certificates in a text, whatever each of its lines begins with."""
    found = re.findall(r"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", text, re.S)
    if not found:
        sys.exit("image.py: --certificates: there is no certificate in it")
    lines = []
    for block in found:
        # A certificate is a sequence whose length is in bytes 2 and 3 (X.690).
        der = base64.b64decode("".join(re.findall(r"[A-Za-z0-9+/]+={0,2}", block)), validate=True)
        if der[:2] != b"\x30\x82" or int.from_bytes(der[2:4], "big") + 4 != len(der):
            sys.exit("image.py: --certificates: one of them is broken")
        text = base64.b64encode(der).decode()
        lines.append("-----BEGIN CERTIFICATE-----")
        lines += [text[start : start + 64] for start in range(0, len(text), 64)]
        lines.append("-----END CERTIFICATE-----")
    return "".join(line + "\n" for line in lines).encode()


def check_static(path, binary):
    """No program, or one that asks for a loader, could start in an image that holds nothing else."""
    if binary[:6] != b"\x7fELF\x02\x01":
        sys.exit(f"image.py: {path}: this is no 64-bit ELF program")
    start, size, count = (int.from_bytes(binary[a:b], "little") for a, b in [(32, 40), (54, 56), (56, 58)])
    kinds = [int.from_bytes(binary[start + size * n :][:4], "little") for n in range(count)]
    if 3 in kinds:  # PT_INTERP
        sys.exit(f"image.py: {path}: this program is linked dynamically")


class Layout:
    """The files of an OCI layout."""

    def __init__(self):
        self.files = {"oci-layout": to_json({"imageLayoutVersion": "1.0.0"})}

    def add(self, kind, data):
        """Adds a blob, and gives back what refers to it."""
        descriptor = {"mediaType": OCI + kind, "digest": sha256(data), "size": len(data)}
        self.files[self.blob(descriptor)] = data
        return descriptor

    def add_image(self, package, program, revision, architecture, layers):
        annotations = {
            "org.opencontainers.image.title": program,
            "org.opencontainers.image.description": package["description"],
            "org.opencontainers.image.licenses": package["license"],
            "org.opencontainers.image.revision": revision,
            "org.opencontainers.image.version": package["version"],
        }
        if "repository" in package:
            annotations["org.opencontainers.image.source"] = package["repository"]
        config = {
            "architecture": architecture,
            "os": "linux",
            "created": EPOCH,
            "config": {
                "Entrypoint": ["/" + program],
                "User": f"{USER}:{USER}",
                "WorkingDir": "/",
                "Labels": annotations,
                **PROGRAMS[program],
            },
            "rootfs": {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]},
            "history": [{"created": EPOCH, "created_by": "image.py"} for _ in layers],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI + "manifest.v1+json",
            "config": self.add("config.v1+json", to_json(config)),
            "layers": [self.add("layer.v1.tar", layer) for layer in layers],
            "annotations": annotations,
        }
        descriptor = self.add("manifest.v1+json", to_json(manifest))
        return descriptor | {"platform": {"architecture": architecture, "os": "linux"}}

    def add_index(self, version, manifests):
        """One image is the version; several are under an index that is, and have names of their own."""
        listed = [tagged(manifests[0], version)]
        if len(manifests) > 1:
            listed = [tagged(self.add("index.v1+json", index(manifests)), version)]
            listed += [tagged(m, f"{version}-{m['platform']['architecture']}") for m in manifests]
        self.files["index.json"] = index(listed)

    def blob(self, descriptor):
        return "blobs/" + descriptor["digest"].replace(":", "/")

    def write(self, out):
        for name in sorted(self.files):
            path = os.path.join(out, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(self.files[name])

    def write_archive(self, out, name, descriptor):
        """Docker's own format, of one image."""
        manifest = json.loads(self.files[self.blob(descriptor)])
        config, layers = self.blob(manifest["config"]), [self.blob(layer) for layer in manifest["layers"]]
        listed = to_json([{"Config": config, "RepoTags": [name], "Layers": layers}])
        entries = [(folder, 0o755, 0, None) for folder in ["blobs", "blobs/sha256"]]
        entries += [(blob, 0o644, 0, self.files[blob]) for blob in [config, *layers]]
        with open(out, "wb") as file:
            file.write(tar([*entries, ("manifest.json", 0o644, 0, listed)]))


def tagged(descriptor, tag):
    return descriptor | {"annotations": {"org.opencontainers.image.ref.name": tag}}


def index(manifests):
    return to_json({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": manifests})


def layers_of(options, binary):
    """What changes least comes first."""
    certificates = [
        ("etc", 0o755, 0, None),
        ("etc/ssl", 0o755, 0, None),
        ("etc/ssl/certs", 0o755, 0, None),
        (CERTIFICATES, 0o644, 0, bundle(options.certificates)),
    ]
    program = [(options.program, 0o755, 0, binary)]
    if "Volumes" in PROGRAMS[options.program]:
        # Empty, to be mounted at: a new volume takes its owner over.
        program.append((DATA, 0o700, USER, None))
    return [tar(certificates), tar(program)]


def read_program(path):
    with open(path, "rb") as file:
        binary = file.read()
    check_static(path, binary)
    return binary


def arguments():
    def binary(text):
        architecture, _, path = text.partition("=")
        if architecture not in ("amd64", "arm64") or not path:
            raise argparse.ArgumentTypeError(f"{text}: this is neither amd64=FILE nor arm64=FILE")
        return architecture, path

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", choices=PROGRAMS, default="gameserver")
    parser.add_argument("--manifest", type=argparse.FileType("rb"), required=True, help="Cargo.toml")
    parser.add_argument("--revision", required=True, help="the commit that was built")
    parser.add_argument("--certificates", type=lambda path: open(path, encoding="utf-8").read(),
                        required=True, help="a text that holds root certificates as PEM")
    parser.add_argument("--out", required=True, help="a directory, or a file that ends in .tar")
    parser.add_argument("binaries", nargs="+", type=binary, metavar="ARCHITECTURE=FILE")
    return parser.parse_args()


def main():
    options = arguments()
    package = tomllib.load(options.manifest)["package"]
    layout = Layout()
    manifests = []
    for architecture, path in sorted(options.binaries):
        layers = layers_of(options, read_program(path))
        image = (package, options.program, options.revision, architecture, layers)
        manifests.append(layout.add_image(*image))
    if not options.out.endswith(".tar"):
        layout.add_index(package["version"], manifests)
        layout.write(options.out)
    elif len(manifests) == 1:
        layout.write_archive(options.out, f"{options.program}:{package['version']}", manifests[0])
    else:
        sys.exit("image.py: an archive holds one architecture; give a directory for several")
    for manifest in manifests:
        config = json.loads(layout.files[layout.blob(manifest)])["config"]
        print(f"{manifest['platform']['architecture']}: image {config['digest']} manifest {manifest['digest']}")


if __name__ == "__main__":
    main()
