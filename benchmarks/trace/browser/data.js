// The traces: columns as the page carries them, decoded into typed arrays.
// All times are nanoseconds since the first event of all ranks.

// What a rectangle looks like. The first five are the kinds of work, in the order of their numbers.
const STYLES = [
  "compute", "payload", "waiting", "copy", "unclassified",
  "F", "B", "I", "W", "FB", "phase", "window", "exposed", "idle", "match",
];
const STYLE = Object.fromEntries(STYLES.map((name, index) => [name, index]));
const KINDS = STYLES.slice(0, 5);

// Base64 of little-endian base-128 numbers: zigzag differences between neighbours.
// Products instead of shifts, because times need more than 32 bits.
function decodeColumn(text) {
  const bytes = atob(text);
  let count = 0;
  for (let i = 0; i < bytes.length; i++) count += bytes.charCodeAt(i) < 128;
  const values = new Float64Array(count);
  let value = 0, part = 0, weight = 1, next = 0;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes.charCodeAt(i);
    part += (byte & 127) * weight;
    if (byte & 128) {
      weight *= 128;
      continue;
    }
    value += part % 2 ? -(part + 1) / 2 : part / 2;
    values[next++] = value;
    part = 0;
    weight = 1;
  }
  return values;
}

// One rank. Its items are its work, then its phases, then its windows (communication under way
// without a kernel); `parent` of an item is the phase around it, counted from numWork, or -1.
class Rank {
  constructor(source, index, letters) {
    this.index = index;
    this.title = source.title;
    this.numSms = source.num_sms;
    this.streams = source.streams;
    this.laneLabels = source.lanes;
    this.begin = decodeColumn(source.begin);
    this.end = decodeColumn(source.duration).map((duration, item) => this.begin[item] + duration);
    this.name = Int32Array.from(decodeColumn(source.name));
    this.parent = Int32Array.from(decodeColumn(source.phase));
    this.kind = Uint8Array.from(decodeColumn(source.kind));
    this.stream = Int32Array.from(decodeColumn(source.stream));
    this.blocks = Int32Array.from(decodeColumn(source.num_blocks));
    this.numWork = this.kind.length;
    this.numPhases = source.num_phases;
    const gapBegin = decodeColumn(source.gap_begin);
    this.gaps = {
      begin: gapBegin,
      end: decodeColumn(source.gap_duration).map((duration, gap) => gapBegin[gap] + duration),
      idle: Uint8Array.from(decodeColumn(source.gap_idle)),
    };
    this.style = this.styles(letters);
  }

  isPhase(item) {
    return item >= this.numWork && item < this.numWork + this.numPhases;
  }

  // Compute and phases take the colour of the schedule step that they are or belong to.
  styles(letters) {
    const styles = new Uint8Array(this.begin.length).fill(STYLE.window);
    const styleOf = (item, otherwise) => {
      const own = letters[this.name[item]];
      if (own) return STYLE[own];
      return this.parent[item] >= 0 ? styles[this.numWork + this.parent[item]] : otherwise;
    };
    for (let item = this.numWork; item < this.numWork + this.numPhases; item++) {
      styles[item] = styleOf(item, STYLE.phase); // outer phases come before inner ones
    }
    for (let item = 0; item < this.numWork; item++) {
      const kind = this.kind[item];
      const style = kind === STYLE.compute ? styleOf(item, kind) : kind;
      styles[item] = style === STYLE.phase ? kind : style;
    }
    return styles;
  }

  // The names of the phases around an item, outermost first.
  path(item, names) {
    const path = [];
    for (let phase = this.parent[item]; phase >= 0; phase = this.parent[this.numWork + phase]) {
      path.unshift(names[this.name[this.numWork + phase]]);
    }
    return path;
  }
}

function readTraces() {
  const source = JSON.parse(document.getElementById("data").textContent);
  const ranks = source.ranks.map((rank, index) => new Rank(rank, index, source.letters));
  return { names: source.names, ranks };
}

// A kernel's name without return type, template arguments, parameters and namespaces; a schedule
// step without what all steps have in common.
const shortNames = new Map();
function shortName(name) {
  let short = shortNames.get(name);
  if (short === undefined) {
    short = withoutDetails(name);
    shortNames.set(name, short);
  }
  return short;
}

function withoutDetails(name) {
  if (name.startsWith("PP:")) return name.slice(3).replace(/^\((.*)\)OVERLAP_F_B$/, "$1");
  if (!/[<:]/.test(name)) return name;
  let depth = 0, kept = "";
  for (const letter of name.replace(/\(anonymous namespace\)::/g, "")) {
    if (letter === "<" || letter === "(") depth++;
    if (depth === 0) kept += letter;
    if (letter === ">" || letter === ")") depth--;
  }
  const words = kept.trim().split(" ");
  return words[words.length - 1].split("::").pop() || name;
}
