//! How many local variables a module's functions declare. The interpreter clears them at each call, and
//! makes room for each when it compiles, and neither takes fuel: so there is a bound.

/// Where sections begin.
const HEADER_BYTES: usize = 8;
/// The section of functions' bodies.
const CODE: u8 = 10;
/// Types that have another number after them: references, nullable or not.
const REFERENCES: [u8; 2] = [0x63, 0x64];

/// The most that any function declares. `None`: it is no module, and whoever compiles it says why.
pub(super) fn most(code: &[u8]) -> Option<u64> {
    let (mut sections, mut most) = (code.get(HEADER_BYTES..)?, 0);
    while let [id, rest @ ..] = sections {
        let (section, rest) = counted(rest)?;
        sections = rest;
        if *id == CODE {
            let (count, mut bodies) = number(section)?;
            for _ in 0..count {
                let (body, rest) = counted(bodies)?;
                bodies = rest;
                most = most.max(declared(body)?);
            }
        }
    }
    Some(most)
}

fn declared(body: &[u8]) -> Option<u64> {
    let (groups, mut rest) = number(body)?;
    let mut locals = 0_u64;
    for _ in 0..groups {
        let (count, [ty, after @ ..]) = number(rest)? else { return None };
        locals = locals.saturating_add(count);
        rest = if REFERENCES.contains(ty) { number(after)?.1 } else { after };
    }
    Some(locals)
}

/// As many bytes as the number before them says, and the rest.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = number(bytes)?;
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// A number (LEB128), and the rest.
fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}
