//! The file of a backup: a gzip stream of a header line, and for each table a line that names it
//! and its columns, its rows (`R` and the values), and its count and digest (`E`); then `Z`.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::tables::{Kind, Table, Tally, Value};
use super::{Put, Source, TransferError};
use crate::platform;

/// What the header line begins with: the version of the format, and of what the tables mean.
const HEADER: &str = "gameserver-backup format=1 schema=3 server=";
/// Longest line.
const LINE_BYTES_MAX: u64 = 1024;

/// A backup that is being written, under another name until it is whole.
pub(super) struct Writer {
    out: Option<GzEncoder<BufWriter<File>>>,
    partial: PathBuf,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self, TransferError> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let failed = |error| TransferError::File { path: path.to_owned(), error };
        if path.try_exists().map_err(failed)? {
            return Err(failed(io::ErrorKind::AlreadyExists.into()));
        }
        let file = platform::new_private_file(&partial).map_err(failed)?;
        let mut out = GzEncoder::new(BufWriter::new(file), Compression::default());
        let header = format!("{HEADER}{}\n", env!("CARGO_PKG_VERSION"));
        out.write_all(header.as_bytes()).map_err(failed)?;
        Ok(Self { out: Some(out), partial, path: path.to_owned(), buffer: Vec::new() })
    }

    fn write(&mut self) -> Result<(), TransferError> {
        let written = self.out.as_mut().map_or(Ok(()), |out| out.write_all(&self.buffer));
        self.buffer.clear();
        written.map_err(|error| TransferError::File { path: self.path.clone(), error })
    }

    pub(super) fn begin(&mut self, table: &Table) -> Result<(), TransferError> {
        self.buffer.extend_from_slice(heading(table).as_bytes());
        self.write()
    }

    pub(super) fn row(&mut self, row: &[Value]) -> Result<(), TransferError> {
        self.buffer.push(b'R');
        for value in row {
            value.encode(&mut self.buffer);
        }
        self.write()
    }

    pub(super) fn end(&mut self, rows: u64, digest: &[u8; 32]) -> Result<(), TransferError> {
        self.buffer.push(b'E');
        self.buffer.extend_from_slice(&rows.to_be_bytes());
        self.buffer.extend_from_slice(digest);
        self.write()
    }

    /// Gives back once the whole file would survive a loss of power.
    pub(super) fn finish(mut self) -> Result<(), TransferError> {
        self.buffer.push(b'Z');
        self.write()?;
        let Some(out) = self.out.take() else { return Ok(()) };
        let finished = out.finish().and_then(|buffered| Ok(buffered.into_inner()?));
        finished
            .and_then(|file| platform::publish(file, &self.partial, &self.path))
            .map_err(|error| TransferError::File { path: self.path.clone(), error })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // There is none any more if it has its name.
        let _ = fs::remove_file(&self.partial);
    }
}

fn heading(table: &Table) -> String {
    format!("{} ({})\n", table.name, table.names())
}

/// A backup that is being read.
pub(super) struct Reader {
    input: BufReader<GzDecoder<BufReader<File>>>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, TransferError> {
        let failed = |error| TransferError::File { path: path.to_owned(), error };
        let file = BufReader::new(File::open(path).map_err(failed)?);
        let mut reader = Self { input: BufReader::new(GzDecoder::new(file)) };
        let header = reader.line()?;
        if header.starts_with(HEADER) {
            Ok(reader)
        } else {
            Err(bad(&"this version did not write it"))
        }
    }

    fn line(&mut self) -> Result<String, TransferError> {
        let mut line = String::new();
        (&mut self.input).take(LINE_BYTES_MAX).read_line(&mut line).map_err(|e| bad(&e))?;
        Ok(line)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], TransferError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| bad(&error))?;
        Ok(bytes)
    }

    /// No more room is made than there are bytes: the length may be anything.
    fn prefixed(&mut self) -> Result<Vec<u8>, TransferError> {
        let length = u64::from_be_bytes(self.array()?);
        let mut bytes = Vec::new();
        (&mut self.input).take(length).read_to_end(&mut bytes).map_err(|error| bad(&error))?;
        if bytes.len() as u64 == length { Ok(bytes) } else { Err(bad(&"it is cut off")) }
    }

    fn value(&mut self, kind: Kind) -> Result<Value, TransferError> {
        let [tag] = self.array()?;
        Ok(match (tag, kind) {
            (b'n', _) => Value::Null,
            (b'u', Kind::Uuid) => Value::Uuid(self.array()?),
            (b't', Kind::Text) => {
                Value::Text(String::from_utf8(self.prefixed()?).map_err(|error| bad(&error))?)
            }
            (b'i', Kind::Integer | Kind::Small) => {
                Value::Integer(i64::from_be_bytes(self.array()?))
            }
            (b'b', Kind::Boolean) => Value::Boolean(self.array()? != [0]),
            (b'y', Kind::Bytes) => Value::Bytes(self.prefixed()?),
            (b'f', Kind::Float) => Value::Float(f64::from_be_bytes(self.array()?)),
            _ => return Err(bad(&"a value is of another kind than its column")),
        })
    }
}

impl Source for Reader {
    fn rows(&mut self, table: &Table, put: Put<'_>) -> Result<(), TransferError> {
        if self.line()? != heading(table) {
            return Err(bad(&"its tables are others"));
        }
        let mut tally = Tally::default();
        loop {
            match self.array()? {
                [b'R'] => {
                    let kinds = table.columns.iter().map(|(_, kind)| *kind);
                    let row = kinds.map(|kind| self.value(kind)).collect::<Result<Vec<_>, _>>()?;
                    tally.add(&row);
                    put(&row)?;
                }
                [b'E'] => {
                    let said = (u64::from_be_bytes(self.array()?), self.array()?);
                    let same = tally.done() == said;
                    return if same { Ok(()) } else { Err(bad(&"a checksum differs")) };
                }
                _ => return Err(bad(&"it was changed")),
            }
        }
    }

    /// Reads up to the end, where gzip has a checksum too.
    fn end(&mut self) -> Result<(), TransferError> {
        let mut rest = Vec::new();
        (&mut self.input).take(2).read_to_end(&mut rest).map_err(|error| bad(&error))?;
        let behind = self.input.get_mut().get_mut().fill_buf().map_err(|error| bad(&error))?;
        if rest == b"Z" && behind.is_empty() {
            Ok(())
        } else {
            Err(bad(&"it does not end where it should"))
        }
    }
}

fn bad(why: &dyn ToString) -> TransferError {
    TransferError::Backup(why.to_string())
}
