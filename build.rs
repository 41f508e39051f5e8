//! Makes the web client and the documents ready to be embedded: each file of `src/web` is named after
//! its content, the files that refer to it are rewritten to say so, and all are compressed, once.
//!
//! An import map would need an inline script, which the page's content security policy forbids; so
//! files are taken in the order below, in which each refers to earlier ones alone.

use std::io::Write as _;
use std::path::PathBuf;
use std::{env, fs, io};

use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

const PAGE: &str = "src/web/index.html";
/// The files that keep an address, and so are asked for anew each time.
const FIXED: [(&str, &str); 3] = [
    (PAGE, "/"),
    ("src/http/openapi.json", "/openapi.json"),
    ("src/http/asyncapi.json", "/asyncapi.json"),
];
const FILES: [(&str, &str); 15] = [
    ("src/web/favicon.svg", "image/svg+xml"),
    ("src/web/style.css", "text/css; charset=utf-8"),
    ("src/web/client.js", JAVASCRIPT),
    ("src/web/dom.js", JAVASCRIPT),
    ("src/web/faces.js", JAVASCRIPT),
    ("src/web/arena.js", JAVASCRIPT),
    ("src/web/boards.js", JAVASCRIPT),
    ("src/web/plain.js", JAVASCRIPT),
    ("src/web/chat.js", JAVASCRIPT),
    ("src/web/playback.js", JAVASCRIPT),
    ("src/web/match.js", JAVASCRIPT),
    ("src/web/app.js", JAVASCRIPT),
    (PAGE, "text/html; charset=utf-8"),
    ("src/http/openapi.json", JSON),
    ("src/http/asyncapi.json", JSON),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(frame_pointers)");
    if keeps_frame_pointers() {
        println!("cargo::rustc-cfg=frame_pointers");
    }
    if env::var_os("CARGO_FEATURE_SERVER").is_none() {
        return Ok(());
    }
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        help_profilers();
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let mut renamed: Vec<(&str, String)> = Vec::new();
    let mut table = String::from("static ASSETS: &[Asset] = &[\n");
    for (file, content_type) in FILES {
        println!("cargo::rerun-if-changed={file}");
        let mut text = fs::read_to_string(file)?;
        for (earlier, hashed) in &renamed {
            for folder in ["./", "/assets/"] {
                let quoted = |name: &str| format!("\"{folder}{name}\"");
                text = text.replace(&quoted(earlier), &quoted(hashed));
            }
        }
        let hash = hash(&text);
        let name = file.rsplit('/').next().unwrap_or(file);
        let (stem, extension) = name.rsplit_once('.').ok_or(io::ErrorKind::InvalidInput)?;
        let hashed = format!("{stem}.{hash}.{extension}");
        let fixed = FIXED.iter().find(|(fixed, _)| *fixed == file).map(|(_, path)| *path);
        let path = fixed.map_or_else(|| format!("/assets/{hashed}"), str::to_owned);
        fs::write(out.join(format!("{name}.gz")), gzip(&text)?)?;
        table += &entry(name, &path, content_type, &hash, fixed.is_none());
        renamed.push((name, hashed));
    }
    fs::write(out.join("assets.rs"), table + "];\n")
}

/// Whether stacks can be walked in the program that is built: `src/platform/profiling` asks.
fn keeps_frame_pointers() -> bool {
    let flags = flags();
    let mut values =
        flags.split('\x1f').filter_map(|flag| flag.split_once("force-frame-pointers="));
    // The last one counts.
    values.next_back().is_some_and(|(_, value)| !["n", "no", "off", "false"].contains(&value))
}

/// What tools need to find lines: a name for each build, which a profile tells; and code that begins
/// with a page, since some (Go 1.19's) look for it as if it always did.
fn help_profilers() {
    let by_compiler = if flags().contains("linker-flavor=ld.lld") { "" } else { "-Wl," };
    for argument in ["--build-id=sha1", "-zseparate-code"] {
        println!("cargo::rustc-link-arg-bins={by_compiler}{argument}");
    }
}

/// What the compiler is told, separated by 0x1F.
fn flags() -> String {
    env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default()
}

/// One line of the table that `src/web/mod.rs` includes. The tag is weak, since both encodings
/// have it (RFC 9110 8.8.1).
fn entry(name: &str, path: &str, content_type: &str, hash: &str, immutable: bool) -> String {
    let etag = format!("W/\"{hash}\"");
    let gzip = format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.gz\"))");
    format!(
        "Asset {{ path: {path:?}, content_type: {content_type:?}, etag: {etag:?}, gzip: {gzip}, \
         immutable: {immutable} }},\n"
    )
}

/// The first 64 bits of its digest.
fn hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    let (first, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*first))
}

/// The same bytes on every machine: no time, no operating system.
fn gzip(text: &str) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes())?;
    encoder.finish()
}
