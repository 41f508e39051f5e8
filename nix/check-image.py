"""Checks an image of one architecture: check-image.py IMAGE.tar LAYOUT

It holds the program, certificates and nothing else, is as small as promised, and where LAYOUT, an index
over all architectures, has the same program, it has the same id there.
"""

import io
import json
import pathlib
import sys
import tarfile

# Uncompressed.
BYTES_MAX = 8_500_000


def hexadecimal(descriptor):
    return descriptor["digest"].removeprefix("sha256:")


def main(path, layout):
    with tarfile.open(path) as archive:
        files = {entry.name: archive.extractfile(entry).read() for entry in archive if entry.isfile()}

    [image] = json.loads(files["manifest.json"])
    config = json.loads(files[image["Config"]])
    layers = [files[layer] for layer in image["Layers"]]
    [entrypoint] = config["config"]["Entrypoint"]

    held = set()
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
            for entry in archive:
                assert entry.mtime == 0, f"{entry.name}: its time is {entry.mtime}"
                if entry.isfile():
                    held.add("/" + entry.name)
    assert held == {entrypoint, "/etc/ssl/certs/ca-certificates.crt"}, held
    assert config["config"]["User"] == "65532:65532", config["config"]["User"]
    assert config["created"] == "1970-01-01T00:00:00Z", config["created"]
    size = sum(map(len, layers))
    assert size <= BYTES_MAX, f"{size} bytes"

    # The digest of the configuration, which names the layers' digests: the image's id.
    blobs = pathlib.Path(layout) / "blobs/sha256"
    identity = {image["Config"].rpartition("/")[2]}
    for listed in json.loads((pathlib.Path(layout) / "index.json").read_text())["manifests"]:
        manifest = json.loads((blobs / hexadecimal(listed)).read_text())
        if manifest.get("config") and listed["platform"]["architecture"] == config["architecture"]:
            built = json.loads((blobs / hexadecimal(manifest["config"])).read_text())
            if built["config"]["Entrypoint"] == [entrypoint]:
                identity.add(hexadecimal(manifest["config"]))
    assert len(identity) == 1, identity
    print(*identity, size)


main(*sys.argv[1:])
