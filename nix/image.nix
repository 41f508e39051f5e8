# Scratch images, made by the script that makes them without Nix, too: a binary gives the same bytes.
{
  pkgs,
  crates,
  revision,
}:
let
  inherit (pkgs) lib;
  inherit (lib.importTOML ../Cargo.toml) package;
in
program: binaries:
let
  architectures = lib.attrNames binaries;
  # One architecture is a file that `podman load` and `docker load` take; two are a layout.
  name =
    program + lib.optionalString (lib.length architectures == 1) "-${lib.head architectures}.tar";
in
pkgs.runCommand name
  {
    nativeBuildInputs = [ pkgs.python3 ];
    allowedReferences = [ ];
    passthru = { inherit (package) version; };
  }
  ''
    python3 ${../deploy/image.py} --program ${program} --manifest ${../Cargo.toml} \
      --revision ${lib.escapeShellArg revision} --certificates ${crates}/*/webpki-roots-1.*/src/lib.rs \
      --out "$out" ${
        toString (lib.mapAttrsToList (name: binary: "${name}=${binary}/bin/${program}") binaries)
      }
  ''
