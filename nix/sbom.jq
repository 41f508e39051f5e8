# Lines of `cargo tree`, "NAME vVERSION …|LICENCE", to a bill of materials.
def crate:
  capture("^(?<name>[^ ]+) v(?<version>[^ |]+)[^|]*[|](?<licence>.*)$")
  | . + {purl: "pkg:cargo/\(.name)@\(.version)"};
def component(type):
  {type: type, name, version, purl, "bom-ref": .purl}
  # Old manifests have "MIT/Apache-2.0", which is no expression of SPDX.
  + if .licence == "" then {} else {licenses: [{expression: (.licence | gsub("/"; " OR "))}]} end
  + ($checksums[0]["\(.name)@\(.version)"]
    | if . then {hashes: [{alg: "SHA-256", content: .}]} else {} end);

[inputs | crate] | unique_by(.purl)
| (map(select(.name == "gameserver"))[0] | component("application") | .name = $program) as $self
| {
    bomFormat: "CycloneDX",
    specVersion: "1.5",
    version: 1,
    metadata: {component: $self},
    components: map(select(.name != "gameserver") | component("library"))
  }
