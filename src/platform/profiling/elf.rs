//! The names of functions, from the symbol tables of the files that the process runs (ELF).
//!
//! A stripped program has none; ours keeps them (`strip = "debuginfo"`), compressed where it is linked for
//! shipping, and its file can be read wherever it runs, under `/proc/self/exe`. Nothing is held between two
//! profiles.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::Mapping;

/// Largest table that is read, in bytes.
const TABLE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// A section that holds symbols (`SHT_SYMTAB`), and one that a stripped library keeps (`SHT_DYNSYM`).
const SYMBOLS: [u32; 2] = [2, 11];
/// A section that is compressed (`SHF_COMPRESSED`), behind a header of so many bytes.
const COMPRESSED: u64 = 0x800;
const COMPRESSED_HEAD_BYTES: usize = 24;
/// The kind of compression that linkers use unless asked (`ELFCOMPRESS_ZLIB`).
const ZLIB: u32 = 1;
/// The type of a symbol that is a function (`STT_FUNC`).
const FUNCTION: u8 = 2;
/// A part of the file that is mapped (`PT_LOAD`), and one that holds notes (`PT_NOTE`).
const LOAD: u32 = 1;
/// See [`LOAD`].
const NOTE: u32 = 4;
/// The note that tells builds apart (`NT_GNU_BUILD_ID`).
const BUILD_ID: u32 = 3;

/// Knows the functions of this process.
pub struct Symbols {
    mappings: Vec<Mapping>,
    /// Those of each mapping, once they are asked for.
    tables: Vec<OnceCell<Option<Table>>>,
}

impl Symbols {
    /// Looks at what is mapped now.
    pub fn load() -> Self {
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let mappings: Vec<Mapping> = maps.lines().filter_map(code_mapping).collect();
        let tables = mappings.iter().map(|_| OnceCell::new()).collect();
        Self { mappings, tables }
    }

    /// What holds code.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// What holds the code at an address.
    pub(super) fn mapping(&self, address: usize) -> Option<&Mapping> {
        self.place(address).map(|place| &self.mappings[place])
    }

    fn place(&self, address: usize) -> Option<usize> {
        let within = |mapping: &Mapping| (mapping.start..mapping.end).contains(&address);
        self.mappings.iter().position(within)
    }

    /// The function that an address is in.
    pub fn name(&self, address: usize) -> Option<String> {
        let place = self.place(address)?;
        let mapping = &self.mappings[place];
        let table = self.tables[place].get_or_init(|| Table::read(&mapping.path).ok());
        let offset = (address - mapping.start) as u64 + mapping.offset;
        table.as_ref()?.name(offset)
    }
}

/// A line of `/proc/self/maps`, if code is mapped there (`proc_pid_maps(5)`).
fn code_mapping(line: &str) -> Option<Mapping> {
    // The path may hold spaces.
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?;
    let offset = words.next()?;
    let path = words.nth(2).unwrap_or_default().trim_start();
    permissions.contains('x').then_some(())?;
    Some(Mapping {
        start: usize::from_str_radix(start, 16).ok()?,
        end: usize::from_str_radix(end, 16).ok()?,
        offset: u64::from_str_radix(offset, 16).ok()?,
        build_id: build_id(path).ok().flatten().unwrap_or_default(),
        path: path.to_owned(),
    })
}

/// What tells a file from other builds of it, in hexadecimal digits; most linkers note it.
fn build_id(path: &str) -> io::Result<Option<String>> {
    let file = open(path)?;
    for row in programs(&file)?.iter().filter(|row| u32_at(row, 0) == NOTE) {
        let notes = bytes(&file, number(row, 8), number(row, 32))?;
        // Lengths of the owner's name and of what is noted, the kind, the name.
        let starts = (0..notes.len().saturating_sub(16)).step_by(4).map(|at| &notes[at..]);
        let mut found =
            starts.filter(|note| u32_at(note, 8) == BUILD_ID && &note[12..16] == b"GNU\0");
        if let Some(note) = found.next() {
            let mut digits = String::new();
            for byte in note[16..].iter().take(u32_at(note, 4) as usize) {
                let _ = write!(digits, "{byte:02x}");
            }
            return Ok(Some(digits));
        }
    }
    Ok(None)
}

/// A file that is mapped: the program itself even if another file has the name by now.
fn open(path: &str) -> io::Result<File> {
    let own = fs::read_link("/proc/self/exe").is_ok_and(|own| own == Path::new(path));
    File::open(if own { "/proc/self/exe" } else { path })
}

/// The functions of a file.
struct Table {
    /// What is mapped: where it is in the file, how long, and at which address the file puts it.
    segments: Vec<[u64; 3]>,
    /// Where each begins, how long it is, and where its name begins; in rising order.
    functions: Vec<(u64, u64, u32)>,
    names: Vec<u8>,
}

impl Table {
    fn read(path: &str) -> io::Result<Self> {
        let file = open(path)?;
        let (head, programs) = (head(&file)?, programs(&file)?);
        let loads = programs.iter().filter(|row| u32_at(row, 0) == LOAD);
        let segments =
            loads.map(|row| [number(row, 8), number(row, 32), number(row, 16)]).collect();
        let sections = rows(&file, number(&head, 40), u16_at(&head, 58), u16_at(&head, 60))?;
        let of_type = |kind: &u32| sections.iter().find(|row| u32_at(row, 4) == *kind);
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let symbols = SYMBOLS.iter().find_map(of_type).ok_or_else(missing)?;
        let names = sections.get(u32_at(symbols, 40) as usize).ok_or_else(missing)?;
        let names = section(&file, names)?;
        let mut functions: Vec<_> = section(&file, symbols)?
            .chunks_exact(24)
            .filter(|symbol| symbol[4] & 0xF == FUNCTION && number(symbol, 8) != 0)
            .map(|symbol| (number(symbol, 8), number(symbol, 16), u32_at(symbol, 0)))
            .collect();
        functions.sort_unstable();
        Ok(Self { segments, functions, names })
    }

    /// The name of the function at an offset in the file.
    fn name(&self, offset: u64) -> Option<String> {
        let within =
            |[at, length, _]: &&[u64; 3]| (*at..at.saturating_add(*length)).contains(&offset);
        let [at, _, mapped_at] = self.segments.iter().find(within)?;
        let address = (offset - at).checked_add(*mapped_at)?;
        let next = self.functions.partition_point(|(start, ..)| *start <= address);
        let (start, length, name) = self.functions[..next].last()?;
        // Functions in assembly may not say how long they are.
        if *length != 0 && address - start >= *length {
            return None;
        }
        let name = self.names.get(*name as usize..)?.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        Some(format!("{:#}", rustc_demangle::demangle(name)))
    }
}

/// The file's head: 64 bits, little-endian.
fn head(file: &File) -> io::Result<Vec<u8>> {
    let head = bytes(file, 0, 64)?;
    if head.starts_with(b"\x7fELF\x02\x01") {
        Ok(head)
    } else {
        Err(io::ErrorKind::InvalidData.into())
    }
}

/// What of the file is mapped where, and the like.
fn programs(file: &File) -> io::Result<Vec<Vec<u8>>> {
    let head = head(file)?;
    rows(file, number(&head, 32), u16_at(&head, 54), u16_at(&head, 56))
}

/// The rows of one of the file's own tables.
fn rows(file: &File, at: u64, row_bytes: u16, count: u16) -> io::Result<Vec<Vec<u8>>> {
    // Shorter rows than the format's own could not be looked into.
    const ROW_BYTES_MIN: u16 = 56;
    if row_bytes < ROW_BYTES_MIN {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let table = bytes(file, at, u64::from(row_bytes) * u64::from(count))?;
    Ok(table.chunks_exact(row_bytes.into()).map(<[u8]>::to_vec).collect())
}

/// What is in a section, by its row in the table of sections.
fn section(file: &File, row: &[u8]) -> io::Result<Vec<u8>> {
    let stored = bytes(file, number(row, 24), number(row, 32))?;
    if number(row, 8) & COMPRESSED == 0 {
        return Ok(stored);
    }
    let head = stored.get(..COMPRESSED_HEAD_BYTES).filter(|head| u32_at(head, 0) == ZLIB);
    let head = head.ok_or(io::ErrorKind::InvalidData)?;
    let mut unpacked = Vec::new();
    ZlibDecoder::new(&stored[head.len()..]).take(TABLE_BYTES_MAX).read_to_end(&mut unpacked)?;
    Ok(unpacked)
}

fn bytes(file: &File, at: u64, length: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(length.min(TABLE_BYTES_MAX)).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn number(row: &[u8], at: usize) -> u64 {
    row[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn u32_at(row: &[u8], at: usize) -> u32 {
    row[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u16_at(row: &[u8], at: usize) -> u16 {
    row[at..].first_chunk().map_or(0, |bytes| u16::from_le_bytes(*bytes))
}
