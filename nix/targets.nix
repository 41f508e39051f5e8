# What each target needs beside Rust's compiler: a C compiler that makes code for it, and a linker.
{ pkgs }:
let
  inherit (pkgs) lib pkgsCross;

  target =
    {
      triple,
      cc,
      rustflags,
      linker ? "${cc}/bin/${cc.targetPrefix}cc",
      env ? { },
      static ? false,
    }:
    let
      name = lib.replaceStrings [ "-" ] [ "_" ] triple;
      tool = "${cc}/bin/${cc.targetPrefix}";
    in
    {
      inherit static;
      rustTargets = [ triple ];
      env = {
        CARGO_BUILD_TARGET = triple;
        "CARGO_TARGET_${lib.toUpper name}_LINKER" = linker;
        "CARGO_TARGET_${lib.toUpper name}_RUSTFLAGS" = rustflags;
        "CC_${name}" = "${tool}cc";
        "AR_${name}" = "${tool}ar";
      }
      // env;
    };

  musl =
    arguments:
    target (
      {
        static = true;
        # Rust's own, as without Nix: it can compress the names that profiles need.
        linker = "rust-lld";
        # A static program that can be moved in memory (static-pie) would hold a path of the store.
        rustflags = lib.concatStringsSep " " [
          "-Clinker-flavor=ld.lld"
          "-Ctarget-feature=+crt-static"
          "-Crelocation-model=static"
          "-Clink-arg=--compress-sections=.symtab=zlib"
          "-Clink-arg=--compress-sections=.strtab=zlib"
        ];
      }
      // arguments
    );
in
{
  x86_64-musl = musl {
    triple = "x86_64-unknown-linux-musl";
    cc = pkgsCross.musl64.stdenv.cc;
  };
  aarch64-musl = musl {
    triple = "aarch64-unknown-linux-musl";
    cc = pkgsCross.aarch64-multiplatform-musl.stdenv.cc;
    # Kernels for this processor have pages of 4, 16 or 64 KiB: the allocator must suit the largest.
    env.JEMALLOC_SYS_WITH_LG_PAGE = "16";
  };
  x86_64-windows = target {
    triple = "x86_64-pc-windows-gnu";
    cc = pkgsCross.mingwW64.stdenv.cc;
    rustflags = "-Lnative=${pkgsCross.mingwW64.windows.pthreads}/lib";
  };
}
