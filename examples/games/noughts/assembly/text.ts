// Texts that come in and go out: JSON, and read in place. Nothing is ever allocated, so a match needs
// a page of memory, however often it is looked at: what comes in lies where the module's own data
// ends, and what goes out after it.

const PAGE: usize = 65536;

/** Where the text that comes in ends. */
let inEnd: usize = __heap_base;
/** What of it has been read. */
let at: usize = __heap_base;
/** The text that goes out. */
let outBegin: usize = __heap_base;
let outEnd: usize = __heap_base;

/** Sees to it that there is memory up to `end`. */
function reserve(end: usize): void {
  const pages = <i32>((end + PAGE - 1) / PAGE);
  const missing = pages - memory.size();
  if (missing > 0 && memory.grow(missing) < 0) unreachable();
}

/** Room for the text of one call. */
export function alloc(length: i32): usize {
  inEnd = __heap_base + length;
  reserve(inEnd);
  return __heap_base;
}

/** Begins to read what came in. */
export function read(address: usize, length: i32): void {
  at = address;
  inEnd = address + length;
}

/** Passes over blanks. */
function skip(): void {
  while (at < inEnd && load<u8>(at) <= 32) at++;
}

/** Whether all has been read. */
export function isRead(): bool {
  skip();
  return at == inEnd;
}

/** Takes these characters, which are ASCII, if they come next. */
export function take(text: string): bool {
  skip();
  if (inEnd - at < <usize>text.length) return false;
  for (let i = 0; i < text.length; i++) {
    if (load<u8>(at + i) != text.charCodeAt(i)) return false;
  }
  at += text.length;
  return true;
}

/** Takes a key of an object if it comes next. */
export function takeKey(quoted: string): bool {
  return take(quoted) && take(":");
}

/** Takes a whole number up to 255; -1 if none comes next. */
export function takeNumber(): i32 {
  skip();
  const from = at;
  let number = 0;
  while (at < inEnd && number <= 255) {
    const digit = <i32>load<u8>(at) - 48;
    if (digit < 0 || digit > 9) break;
    number = number * 10 + digit;
    at++;
  }
  return at > from && number <= 255 ? number : -1;
}

/** Begins a text that goes out. */
export function begin(): void {
  outBegin = outEnd = inEnd;
}

/** Adds to it as it is. */
export function put(text: string): void {
  reserve(outEnd + 3 * text.length);
  outEnd += String.UTF8.encodeUnsafe(changetype<usize>(text), text.length, outEnd);
}

/** Adds a whole number. */
export function putNumber(number: i32): void {
  if (number >= 10) putNumber(number / 10);
  reserve(outEnd + 1);
  store<u8>(outEnd++, 48 + (number % 10));
}

/** Adds the string that comes next in what is read, with its quotes. */
export function putNextString(): void {
  skip();
  const from = at++;
  while (load<u8>(at) != 34 /* " */) at += load<u8>(at) == 92 /* \ */ ? 2 : 1;
  const length = ++at - from;
  reserve(outEnd + length);
  memory.copy(outEnd, from, length);
  outEnd += length;
}

/** The text as the interface wants it: its address above, its length below. */
export function done(): i64 {
  return (<i64>outBegin << 32) | <i64>(outEnd - outBegin);
}
