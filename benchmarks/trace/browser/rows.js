// Rows of rectangles, and what is left of them when there are more than pixels.

const BINS_PER_CHUNK = 2048; // a screen is one or two chunks

// How many of the sorted values fulfil what all before them fulfil too.
function countWhile(values, fulfils) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (fulfils(values[middle])) low = middle + 1;
    else high = middle;
  }
  return low;
}
const countUpTo = (values, limit) => countWhile(values, (value) => value <= limit);
const countBelow = (values, limit) => countWhile(values, (value) => value < limit);

// Rectangles in the order of time that do not overlap. `low` and `high` are the part of the row's
// height that they take; `item` is what they show, or -1 for a summary of several things.
class Marks {
  constructor(capacity) {
    this.length = 0;
    this.begin = new Float64Array(capacity);
    this.end = new Float64Array(capacity);
    this.low = new Float32Array(capacity);
    this.high = new Float32Array(capacity);
    this.style = new Uint8Array(capacity);
    this.item = new Int32Array(capacity);
  }

  push(begin, end, style, item, low = 0, high = 1) {
    const i = this.length++;
    this.begin[i] = begin;
    this.end[i] = end;
    this.low[i] = low;
    this.high[i] = high;
    this.style[i] = style;
    this.item[i] = item;
  }

  shrunk() {
    for (const column of ["begin", "end", "low", "high", "style", "item"]) {
      this[column] = this[column].slice(0, this.length);
    }
    return this;
  }
}

// Collects what is shorter than a bin: one rectangle per style, as high as its share of the time.
class Summary {
  constructor(bin) {
    this.bin = bin;
    this.busy = new Float64Array(STYLES.length);
    this.cell = -1;
    this.first = this.last = 0;
  }

  add(marks, begin, end, style) {
    const cell = Math.floor(begin / this.bin);
    if (cell !== this.cell) {
      this.flush(marks);
      this.cell = cell;
      this.first = begin;
    }
    this.last = end;
    // Something that takes no time at all still has to be seen.
    this.busy[style] += Math.max(end - begin, this.bin / 1e6);
  }

  flush(marks) {
    if (this.cell < 0) return;
    const total = this.busy.reduce((sum, busy) => sum + busy, 0);
    const density = total / Math.max(this.last - this.first, this.bin / 2);
    const height = Math.min(Math.max(density, 0.2), 1); // what is there can be seen
    let low = 0;
    for (let style = 0; style < STYLES.length; style++) {
      if (this.busy[style] === 0) continue;
      const high = low + (this.busy[style] / total) * height;
      marks.push(this.first, this.last, style, -1, low, high);
      low = high;
      this.busy[style] = 0;
    }
    this.cell = -1;
  }
}

// One row on the screen. Its marks at full detail, and coarser ones made where they are looked at:
// at a bin of b ns there are the marks of at least b ns, and per bin one summary of the shorter
// ones. With b between one and two pixels, drawing costs as many rectangles as there are pixels.
class Row {
  constructor(marks, order = []) {
    this.marks = marks.shrunk();
    this.order = order; // the items that it shows, in the order of time
    this.chunks = new Map();
    this.shortest = Infinity;
    for (let i = 0; i < marks.length; i++) {
      this.shortest = Math.min(this.shortest, marks.end[i] - marks.begin[i]);
    }
  }

  // Marks that together show a stretch of time: everything in it, and some of what is around it.
  visible(begin, end, nsPerPixel) {
    const bin = 2 ** Math.ceil(Math.log2(nsPerPixel));
    const first = countUpTo(this.marks.end, begin);
    if (bin <= this.shortest || first === this.marks.length) return [this.marks];
    const size = bin * BINS_PER_CHUNK;
    // What began long before and lasts until here is alone in between, as marks do not overlap.
    const wanted = new Set([Math.floor(this.marks.begin[first] / size)]);
    for (let c = Math.floor(begin / size); c <= Math.floor(end / size); c++) wanted.add(c);
    return [...wanted].map((chunk) => {
      const key = `${bin} ${chunk}`;
      if (!this.chunks.has(key)) this.chunks.set(key, this.summarised(bin, chunk * size, size));
      return this.chunks.get(key);
    });
  }

  summarised(bin, from, size) {
    const { begin, end, style, item } = this.marks;
    const first = countBelow(begin, from);
    const after = countBelow(begin, from + size);
    const summary = new Summary(bin);
    // A bin has a mark per style at most, and so never more than it summarises.
    const marks = new Marks(after - first);
    for (let i = first; i < after; i++) {
      if (end[i] - begin[i] < bin) {
        summary.add(marks, begin[i], end[i], style[i]);
      } else {
        summary.flush(marks);
        marks.push(begin[i], end[i], style[i], item[i]);
      }
    }
    summary.flush(marks);
    return marks.shrunk();
  }

  // The longest mark within `slack` ns of a moment, and how many there are; index -1 for none.
  at(moment, slack) {
    const { begin, end, length } = this.marks;
    const from = countBelow(end, moment - slack);
    let index = -1, count = 0;
    for (let i = from; i < length && begin[i] <= moment + slack; i++) {
      count++;
      if (begin[i] <= moment && moment < end[i]) return { index: i, count: 1 };
      if (index < 0 || end[i] - begin[i] > end[index] - begin[index]) index = i;
    }
    return { index, count };
  }
}

// The union of items as one row: of two at the same time the earlier one is seen. With `merge`,
// neighbours in one phase that touch and look alike become one, named by the longest of them.
function unionRow(rank, order, { merge = false, style = null } = {}) {
  const marks = new Marks(order.length);
  let longest = 0;
  for (const item of order) {
    const last = marks.length - 1;
    const reached = last < 0 ? -Infinity : marks.end[last];
    const begin = Math.max(rank.begin[item], reached);
    const look = style ?? rank.style[item];
    const duration = rank.end[item] - rank.begin[item];
    if (begin > rank.end[item] || (begin === rank.end[item] && duration > 0)) continue;
    const joins = merge && begin === reached && marks.style[last] === look
      && rank.parent[item] >= 0 && rank.parent[marks.item[last]] === rank.parent[item];
    if (joins) {
      marks.end[last] = rank.end[item];
      if (duration > longest) marks.item[last] = item;
      longest = Math.max(longest, duration);
    } else {
      marks.push(begin, rank.end[item], look, item);
      longest = duration;
    }
  }
  return new Row(marks, order);
}

// Items that overlap one another go to rows of their own, what began first on top.
function stackedRows(rank, order, mostRows) {
  const rows = [], reached = [];
  for (const item of order) {
    let place = reached.findIndex((end) => end <= rank.begin[item]);
    if (place < 0) place = Math.min(rows.length, mostRows - 1);
    (rows[place] ??= []).push(item);
    reached[place] = Math.max(rank.end[item], reached[place] ?? -Infinity);
  }
  return rows.map((items) => unionRow(rank, items));
}

// The phases that a lane goes through: neighbours of one phase under one name.
function phaseRuns(rank, lane) {
  const { begin, end, item, length } = lane.marks;
  const marks = new Marks(length);
  let current = -1;
  for (let i = 0; i < length; i++) {
    const phase = rank.parent[item[i]];
    if (phase >= 0 && phase === current) {
      marks.end[marks.length - 1] = end[i];
    } else if (phase >= 0) {
      const phaseItem = rank.numWork + phase;
      marks.push(begin[i], end[i], rank.style[phaseItem], phaseItem);
    }
    current = phase;
  }
  return new Row(marks);
}

function gapRow({ begin, end, idle }) {
  const marks = new Marks(begin.length);
  for (let gap = 0; gap < begin.length; gap++) {
    marks.push(begin[gap], end[gap], idle[gap] ? STYLE.idle : STYLE.exposed, gap);
  }
  return new Row(marks);
}
