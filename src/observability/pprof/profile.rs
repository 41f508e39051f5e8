//! A profile as pprof reads it: profile.proto, compressed
//! (<https://github.com/google/pprof/blob/main/proto/profile.proto>), or as text for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::platform::profiling::{Mapping, Symbols};

/// What a number of a sample is: its name and its unit.
pub(super) type SampleType = (&'static str, &'static str);

/// Call stacks, and the numbers that belong to each.
pub(super) struct Profile {
    sample_types: &'static [SampleType],
    /// Which of them is shown unless another is asked for.
    shown: SampleType,
    /// Between two samples, in the unit of what is sampled.
    period: Option<(SampleType, u64)>,
    taken_at: SystemTime,
    duration: Duration,
    mappings: Vec<Mapping>,
    locations: Vec<Location>,
    by_address: BTreeMap<usize, usize>,
    functions: Vec<String>,
    by_name: BTreeMap<String, usize>,
    samples: Vec<Sample>,
}

/// A place in the program.
struct Location {
    address: usize,
    mapping: Option<usize>,
    function: Option<usize>,
}

struct Sample {
    /// The innermost first.
    locations: Vec<usize>,
    values: Vec<u64>,
    label: Option<(&'static str, String)>,
}

impl Profile {
    /// Without samples yet.
    pub(super) fn new(
        sample_types: &'static [SampleType],
        shown: SampleType,
        mappings: &[Mapping],
    ) -> Self {
        Self {
            sample_types,
            shown,
            period: None,
            taken_at: SystemTime::now(),
            duration: Duration::ZERO,
            mappings: mappings.to_vec(),
            locations: Vec::new(),
            by_address: BTreeMap::new(),
            functions: Vec::new(),
            by_name: BTreeMap::new(),
            samples: Vec::new(),
        }
    }

    /// How far samples are apart.
    pub(super) fn period(mut self, of: SampleType, period: u64) -> Self {
        self.period = Some((of, period));
        self
    }

    /// How long it took.
    pub(super) fn duration(mut self, duration: Duration) -> Self {
        self.duration = duration;
        self
    }

    /// Adds a call stack, the innermost address first. Its innermost functions that `is_own` takes
    /// are left out: they are how it was sampled and not what was.
    pub(super) fn add(
        &mut self,
        symbols: &Symbols,
        stack: &[usize],
        is_own: fn(&str) -> bool,
        values: Vec<u64>,
        label: Option<(&'static str, String)>,
    ) {
        let calls = stack.iter().enumerate();
        // A call returns to what follows it, which may be another function.
        let calls = calls.map(|(depth, address)| address.saturating_sub(usize::from(depth > 0)));
        let all: Vec<usize> = calls.map(|address| self.location(symbols, address)).collect();
        let own = |location: &&usize| {
            let function = self.locations[**location].function;
            function.is_some_and(|function| is_own(&self.functions[function]))
        };
        let skipped = all.iter().take_while(own).count();
        let locations = all[if skipped < all.len() { skipped } else { 0 }..].to_vec();
        self.samples.push(Sample { locations, values, label });
    }

    /// Adds something that is no call stack: its names, the innermost first.
    pub(super) fn add_named(&mut self, names: &[&str], values: Vec<u64>) {
        let locations = names.iter().map(|name| {
            let function = Some(self.function((*name).to_owned()));
            let known = self.locations.iter().position(|known| known.function == function);
            known.unwrap_or_else(|| {
                self.locations.push(Location { address: 0, mapping: None, function });
                self.locations.len() - 1
            })
        });
        let locations = locations.collect();
        self.samples.push(Sample { locations, values, label: None });
    }

    fn location(&mut self, symbols: &Symbols, address: usize) -> usize {
        if let Some(known) = self.by_address.get(&address) {
            return *known;
        }
        let within = |mapping: &Mapping| (mapping.start..mapping.end).contains(&address);
        let mapping = self.mappings.iter().position(within);
        let function = symbols.name(address).map(|name| self.function(name));
        self.locations.push(Location { address, mapping, function });
        self.by_address.insert(address, self.locations.len() - 1);
        self.locations.len() - 1
    }

    fn function(&mut self, name: String) -> usize {
        let next = self.functions.len();
        let number = *self.by_name.entry(name.clone()).or_insert(next);
        if number == next {
            self.functions.push(name);
        }
        number
    }

    /// For people: the samples with the largest numbers first.
    pub(super) fn to_text(&self) -> String {
        let place = |of: SampleType| self.sample_types.iter().position(|known| *known == of);
        let shown = place(self.shown).unwrap_or(0);
        let mut samples: Vec<&Sample> = self.samples.iter().collect();
        samples.sort_by_key(|sample| std::cmp::Reverse(sample.values[shown]));
        let units = self.sample_types.iter().map(|(name, unit)| format!("{name}/{unit}"));
        let mut text = units.collect::<Vec<_>>().join(" ") + "\n";
        for Sample { locations, values, label } in samples {
            let values: Vec<String> = values.iter().map(u64::to_string).collect();
            let label = label.as_ref().map(|(name, value)| format!(" {name}: {value}"));
            let _ = writeln!(text, "\n{} @{}", values.join(" "), label.unwrap_or_default());
            for Location { address, function, .. } in
                locations.iter().map(|at| &self.locations[*at])
            {
                let name = function.map_or("?", |function| &self.functions[function]);
                let address = if *address == 0 { String::new() } else { format!("{address:#x} ") };
                let _ = writeln!(text, "    {address}{name}");
            }
        }
        text
    }

    /// For pprof.
    pub(super) fn to_proto(&self) -> io::Result<Vec<u8>> {
        let mut strings = Strings::default();
        let mut out = Message::default();
        for of in self.sample_types {
            out.message(1, &strings.sample_type(*of));
        }
        for Sample { locations, values, label } in &self.samples {
            let mut sample = Message::default();
            sample.packed(1, locations.iter().map(|location| *location as u64 + 1));
            sample.packed(2, values.iter().copied());
            if let Some((name, value)) = label {
                let mut label = Message::default();
                label.number(1, strings.index(name)).number(2, strings.index(value));
                sample.message(3, &label);
            }
            out.message(2, &sample);
        }
        for (id, Mapping { start, end, offset, path, build_id }) in (1..).zip(&self.mappings) {
            let mut mapping = Message::default();
            mapping.number(1, id).number(2, *start as u64).number(3, *end as u64);
            mapping.number(4, *offset).number(5, strings.index(path));
            // The names are in here: there is no need to look for the file, unless it is for lines.
            mapping.number(6, strings.index(build_id)).number(7, 1);
            out.message(3, &mapping);
        }
        for (id, Location { address, mapping, function }) in (1..).zip(&self.locations) {
            let mut location = Message::default();
            location.number(1, id).number(2, mapping.map_or(0, |mapping| mapping as u64 + 1));
            location.number(3, *address as u64);
            if let Some(function) = function {
                let mut line = Message::default();
                line.number(1, *function as u64 + 1);
                location.message(4, &line);
            }
            out.message(4, &location);
        }
        for (id, name) in (1..).zip(&self.functions) {
            let mut function = Message::default();
            // Without a name of the linker's: pprof would take this one for it, and shorten it.
            function.number(1, id).number(2, strings.index(name));
            out.message(5, &function);
        }
        let since_1970 = self.taken_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        out.number(9, nanos(since_1970)).number(10, nanos(self.duration));
        if let Some((of, period)) = self.period {
            out.message(11, &strings.sample_type(of)).number(12, period);
        }
        out.number(14, strings.index(self.shown.0));
        for string in &strings.all {
            out.bytes(6, string.as_bytes());
        }
        let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
        zipped.write_all(&out.0)?;
        zipped.finish()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The table of a profile's strings; the first is empty.
struct Strings {
    all: Vec<String>,
    known: BTreeMap<String, u64>,
}

impl Default for Strings {
    fn default() -> Self {
        let mut strings = Self { all: Vec::new(), known: BTreeMap::new() };
        strings.index("");
        strings
    }
}

impl Strings {
    fn index(&mut self, string: &str) -> u64 {
        if let Some(known) = self.known.get(string) {
            return *known;
        }
        let index = self.all.len() as u64;
        self.all.push(string.to_owned());
        self.known.insert(string.to_owned(), index);
        index
    }

    fn sample_type(&mut self, (name, unit): SampleType) -> Message {
        let mut message = Message::default();
        message.number(1, self.index(name)).number(2, self.index(unit));
        message
    }
}

/// A message of protocol buffers (<https://protobuf.dev/programming-guides/encoding/>).
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    const VARINT: u64 = 0;
    const BYTES: u64 = 2;

    #[expect(clippy::cast_possible_truncation, reason = "its lowest bits are meant")]
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) -> &mut Self {
        if value != 0 {
            self.varint(field << 3 | Self::VARINT);
            self.varint(value);
        }
        self
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) -> &mut Self {
        self.varint(field << 3 | Self::BYTES);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn message(&mut self, field: u64, message: &Self) -> &mut Self {
        self.bytes(field, &message.0)
    }

    fn packed(&mut self, field: u64, values: impl Iterator<Item = u64>) {
        let mut packed = Self::default();
        values.for_each(|value| packed.varint(value));
        self.message(field, &packed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_sevens() {
        let mut message = Message::default();
        message.number(1, 150).number(2, 0).bytes(2, b"hi");
        message.packed(4, [3, 270, 86_942].into_iter());
        let expected = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 2, b'h', b'i'],
            &[0x22, 6, 0x03, 0x8E, 0x02, 0x9E, 0xA7, 0x05],
        ];
        assert_eq!(message.0, expected.concat());
    }

    #[test]
    fn what_is_known_is_written_once() {
        const COUNT: SampleType = ("tasks", "count");
        let mut profile = Profile::new(&[COUNT], COUNT, &[]);
        profile.add_named(&["waits", "socket"], vec![3]);
        profile.add_named(&["waits", "request"], vec![5]);
        assert_eq!((profile.locations.len(), profile.functions.len()), (3, 3));
        let text = profile.to_text();
        assert_eq!(
            text,
            "tasks/count\n\n5 @\n    waits\n    request\n\n3 @\n    waits\n    socket\n"
        );
    }
}
