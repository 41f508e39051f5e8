#!/usr/bin/env python3
"""Lays out a scratch image of static binaries: the same bytes on every machine.

Nothing in it depends on when, where, by whom or with which libraries it is made. Layers are not
compressed, since compressors differ; a registry that compresses them leaves the image's id, the
digest of its configuration, as it is.

An OCI layout with one architecture, or several under an index:

    deploy/image.py --manifest Cargo.toml --revision "$(git rev-parse HEAD)" \\
        --certificates FILE --out DIRECTORY amd64=BINARY [arm64=BINARY]

As one file that `podman load` and `docker load` take, too: `--out FILE.tar`. FILE is any text that
holds certificates as PEM: they are taken in its order, and all around them is left out. The source
of the crate webpki-roots is one, pinned by Cargo.lock, and has the roots that the program itself
trusts.
"""

import argparse
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
    blocks = [re.findall(r"[A-Za-z0-9+/]{4,}={0,2}", block) for block in found]
    if not blocks:
        sys.exit("image.py: --certificates: there is no certificate in it")
    pem = [["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----"] for lines in blocks]
    return ("\n".join("\n".join(lines) for lines in pem) + "\n").encode()


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
        digest = sha256(data)
        self.files["blobs/" + digest.replace(":", "/")] = data
        return {"mediaType": OCI + kind, "digest": digest, "size": len(data)}

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
        return descriptor | {"platform": {"architecture": architecture, "os": "linux"}}, manifest

    def write(self, out):
        for name in sorted(self.files):
            path = os.path.join(out, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(self.files[name])

    def write_tar(self, out):
        folders = [(name, 0o755, 0, None) for name in ["blobs", "blobs/sha256"]]
        files = [(name, 0o644, 0, self.files[name]) for name in sorted(self.files)]
        with open(out, "wb") as file:
            file.write(tar(folders + files))


def tagged(descriptor, tag):
    return descriptor | {"annotations": {"org.opencontainers.image.ref.name": tag}}


def build(package, options):
    certificates = tar([
        ("etc", 0o755, 0, None),
        ("etc/ssl", 0o755, 0, None),
        ("etc/ssl/certs", 0o755, 0, None),
        (CERTIFICATES, 0o644, 0, bundle(options.certificates)),
    ])
    layout, images = Layout(), []
    for architecture, path in sorted(options.binaries):
        with open(path, "rb") as file:
            binary = file.read()
        check_static(path, binary)
        entries = [(options.program, 0o755, 0, binary)]
        if "Volumes" in PROGRAMS[options.program]:
            # Empty, to be mounted at: a new volume takes its owner over.
            entries.append((DATA, 0o700, USER, None))
        # What changes least comes first.
        layers = [certificates, tar(entries)]
        images.append(layout.add_image(package, options.program, options.revision, architecture, layers))
    tag, manifests = package["version"], [manifest for manifest, _ in images]
    if len(images) == 1:
        listed = [tagged(manifests[0], tag)]
        layers = images[0][1]["layers"]
        blob = lambda descriptor: "blobs/" + descriptor["digest"].replace(":", "/")
        loaded = {
            "Config": blob(images[0][1]["config"]),
            "RepoTags": [f"{options.program}:{tag}"],
            "Layers": [blob(layer) for layer in layers],
        }
        if options.out.endswith(".tar"):
            layout.files["manifest.json"] = to_json([loaded])
    else:
        index = {"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": manifests}
        listed = [tagged(layout.add("index.v1+json", to_json(index)), tag)]
        listed += [tagged(m, f"{tag}-{m['platform']['architecture']}") for m in manifests]
    layout.files["index.json"] = to_json({
        "schemaVersion": 2,
        "mediaType": OCI + "index.v1+json",
        "manifests": listed,
    })
    return layout


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
    layout = build(tomllib.load(options.manifest)["package"], options)
    if options.out.endswith(".tar"):
        layout.write_tar(options.out)
    else:
        layout.write(options.out)
    print(f"{options.out}: {sha256(layout.files['index.json'])}")


if __name__ == "__main__":
    main()
