//! Modules that are small for what it takes to compile them.

use std::time::{Duration, Instant};

use gameserver::games::wasm::Plugin;
use gameserver::games::wasm::interface::MODULE_BYTES_MAX;

/// How long one may take: far more than it does.
const PATIENCE: Duration = Duration::from_secs(20);
const END: u8 = 0x0B;

/// A number as modules have it (LEB128).
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = value.to_le_bytes()[0] & 0x7F;
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}

/// `bytes` after their length.
fn counted(bytes: &[u8]) -> Vec<u8> {
    [&number(bytes.len())[..], bytes].concat()
}

/// A section of `count` items.
fn section(id: u8, count: usize, items: &[u8]) -> Vec<u8> {
    [&[id][..], &counted(&[&number(count)[..], items].concat())].concat()
}

/// The section of functions' types.
fn types(types: &[(usize, usize)]) -> Vec<u8> {
    let mut items = Vec::new();
    for (takes, gives) in types {
        items.push(0x60);
        items.extend(counted(&vec![0x7F; *takes]));
        items.extend(counted(&vec![0x7F; *gives]));
    }
    section(1, types.len(), &items)
}

/// As many functions of the first type as a file has room for: what they declare, and their code.
fn functions(body: &[u8]) -> Vec<u8> {
    let body = counted(body);
    let count = (MODULE_BYTES_MAX - 100_000) / (body.len() + 1);
    [section(3, count, &vec![0; count]), section(10, count, &body.repeat(count))].concat()
}

/// One function of the first type that is as long as a file may be.
fn function(locals: &[u8], before: &[u8], repeated: &[u8]) -> Vec<u8> {
    let count = (MODULE_BYTES_MAX - 1000 - before.len()) / repeated.len();
    // What is on the stack then may be anything after `unreachable`.
    let body = [locals, before, &repeated.repeat(count), &[0x00, END]].concat();
    [section(3, 1, &[0]), section(10, 1, &counted(&body))].concat()
}

/// What becomes of a module of these sections, and that it does not take long.
#[track_caller]
fn ends(sections: &[&[u8]], expected: &str) {
    let code = [b"\0asm\x01\0\0\0", &sections.concat()[..]].concat();
    assert!(code.len() <= MODULE_BYTES_MAX, "{}", code.len());
    let began = Instant::now();
    let why = Plugin::load("bomb", &code).err().unwrap();
    assert!(why.contains(expected), "{why}");
    assert!(began.elapsed() < PATIENCE, "{why}: {:?}", began.elapsed());
}

/// What could be compiled, and is no game.
const COMPILED: &str = "it exports no memory";
/// Functions that take a number, or nothing.
const NUMBER: &[(usize, usize)] = &[(1, 0)];
const NOTHING: &[(usize, usize)] = &[(0, 0)];

#[test]
fn large_code_is_compiled_in_time() {
    // local.get 0, i32.const 1, i32.add, local.set 0
    let plain = function(&[0], &[], &[0x20, 0, 0x41, 1, 0x6A, 0x21, 0]);
    ends(&[&types(NUMBER), &plain], COMPILED);
    // i32.const 1, drop
    ends(&[&types(NUMBER), &function(&[0], &[], &[0x41, 1, 0x1A])], COMPILED);
    // 1,000 times local.get 0; then local.get 0, local.get 0, local.set 0, drop; unreachable
    let kept = [0x20, 0].repeat(1000);
    ends(&[&types(NUMBER), &function(&[0], &kept, &[0x20, 0, 0x20, 0, 0x21, 0, 0x1A])], COMPILED);
    let depth = MODULE_BYTES_MAX / 4;
    let nested = [&[0][..], &[0x02, 0x40].repeat(depth), &vec![END; depth + 1]].concat();
    let nested = [section(3, 1, &[0]), section(10, 1, &counted(&nested))].concat();
    ends(&[&types(NOTHING), &nested], COMPILED);
    // block, i32.const 0, br_table with as many targets, end
    let targets = 100_000;
    let targets = [&[0x0E][..], &number(targets), &vec![0; targets + 1]].concat();
    let table = [&[0x02, 0x40, 0x41, 0], &targets[..], &[END]].concat();
    ends(&[&types(NOTHING), &function(&[0], &[], &table)], COMPILED);
    let table = [0x02, 0x40, 0x41, 0, 0x0E, 1, 0, 0, END];
    ends(&[&types(NOTHING), &function(&[0], &[], &table)], COMPILED);
}

#[test]
fn what_is_small_as_a_file_alone_is_refused() {
    ends(&[&types(NOTHING), &functions(&[0, END])], "limit of 10000 functions");
    let tiny =
        [section(3, 9000, &[0; 9000]), section(10, 9000, &[2, 0, END].repeat(9000))].concat();
    ends(&[&types(NOTHING), &tiny], "minimum average bytes per function of 40");
    let locals = [&number(1)[..], &number(1001), &[0x7E, END]].concat();
    ends(&[&types(NOTHING), &functions(&locals)], "a function has 1001 locals; 1000 at most");
    // A type of two bytes hides nothing.
    let hidden = [&number(2)[..], &[1, 0x63, 0x70], &number(1001), &[0x7E, END]].concat();
    ends(&[&types(NOTHING), &functions(&hidden)], "a function has 1002 locals; 1000 at most");
    ends(&[&types(&[(33, 0)])], "limit of 32 parameters");
    // Each branch would copy them all.
    ends(&[&types(&[(1, 1000)])], "multi-value feature is not enabled");
    ends(&[&section(1, 1_300_000, &[0x60, 0, 0].repeat(1_300_000))], "types count exceeds");
    let global = [0x7F, 0, 0x41, 0, END];
    ends(&[&section(6, 800_000, &global.repeat(800_000))], "limit of 1000 global variables");
    let memory = section(5, 1, &[0, 1]);
    let data = section(11, 1_900_000, &[1, 0].repeat(1_900_000));
    ends(&[&memory, &data], "limit of 1000 active data segments");
    let element = [0, 0x41, 0, END, 0];
    let elements = section(9, 800_000, &element.repeat(800_000));
    ends(&[&section(4, 1, &[0x70, 0, 1]), &elements], "limit of 1000 active element segments");
    ends(&[&section(4, 1_000_000, &[0x70, 0, 1].repeat(1_000_000))], "tables");
    let exports = (0..500_000).flat_map(|name: u32| {
        let [high, middle, low] = [name >> 14, name >> 7, name].map(|part| (part & 0x7F) as u8);
        [3, high, middle, low, 0, 0]
    });
    let exports = section(7, 500_000, &exports.collect::<Vec<_>>());
    let one = [section(3, 1, &[0]), exports, section(10, 1, &[2, 0, END])].concat();
    ends(&[&types(NOTHING), &one], "exceeds the limit");
}
