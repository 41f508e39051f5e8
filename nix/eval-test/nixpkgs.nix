# Stands in for nixpkgs: as much as the names of the outputs need.
{ system, overlays }:
assert builtins.length overlays == 1;
let
  inherit (builtins)
    attrNames
    listToAttrs
    match
    ;
  merge = builtins.foldl' (all: one: all // one) { };
in
{
  lib = rec {
    nameValuePair = name: value: { inherit name value; };
    inherit listToAttrs;
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    concatMapAttrs = f: set: merge (map (name: f name set.${name}) (attrNames set));
    optionalAttrs = condition: set: if condition then set else { };
  };
  stdenv.hostPlatform = {
    isLinux = match ".*-linux" system != null;
    isAarch64 = match "aarch64-.*" system != null;
  };
}
