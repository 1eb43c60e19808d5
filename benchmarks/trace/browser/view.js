// The part of the time that is seen, and how times are written.

const SHORTEST_VIEW = 20; // ns; below that a pixel is less than what clocks resolve

const view = { begin: 0, end: 1 };
const whole = { begin: 0, end: 1 };

function showWhole(ranks) {
  whole.begin = 0;
  whole.end = SHORTEST_VIEW;
  for (const rank of ranks) {
    for (const end of rank.end) whole.end = Math.max(whole.end, end);
  }
  const margin = (whole.end - whole.begin) * 0.01;
  whole.begin -= margin;
  whole.end += margin;
  setView(whole.begin, whole.end);
}

// Shows these times, or as much of them as there is; the length is kept where the end is met.
function setView(begin, end) {
  const most = whole.end - whole.begin;
  const length = Math.min(Math.max(end - begin, Math.min(SHORTEST_VIEW, most)), most);
  const middle = (begin + end) / 2;
  view.begin = Math.min(Math.max(middle - length / 2, whole.begin), whole.end - length);
  view.end = view.begin + length;
}

// Shows `factor` times the time; `share` of the view, from the left, stays where it is.
function zoom(factor, share = 0.5) {
  const length = view.end - view.begin;
  const shown = Math.min(Math.max(length * factor, SHORTEST_VIEW), whole.end - whole.begin);
  const begin = view.begin + (length - shown) * share;
  setView(begin, begin + shown);
}

function pan(share) {
  const step = (view.end - view.begin) * share;
  setView(view.begin + step, view.end + step);
}

// Shows a stretch with some room around it.
function zoomTo(begin, end) {
  const room = Math.max((end - begin) * 0.4, SHORTEST_VIEW / 2);
  setView(begin - room, end + room);
}

const UNITS = [["s", 1e9], ["ms", 1e6], ["us", 1e3], ["ns", 1]];

function unitOf(ns) {
  return UNITS.find(([, size]) => Math.abs(ns) >= size) ?? UNITS[3];
}

// A length of time: four digits and a unit.
function lengthText(ns) {
  const [unit, size] = unitOf(ns);
  return `${Number((ns / size).toPrecision(4))} ${unit}`;
}

// A moment, as exactly as the traces tell it.
function momentText(ns) {
  const [unit, size] = unitOf(ns);
  return `${(ns / size).toLocaleString("en", { maximumFractionDigits: Math.log10(size) })} ${unit}`;
}

// Ticks at multiples of 1, 2 or 5 times a power of ten, at least 110 pixels apart.
function ticks(width) {
  const least = ((view.end - view.begin) * 110) / width;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= least);
  const [unit, size] = unitOf(Math.max(step * 4, 1));
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  const places = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  const result = [];
  // Adding 0 turns the -0 of a view that begins in the margin into 0.
  for (let index = Math.ceil(view.begin / step) + 0; index * step <= view.end; index++) {
    const text = `${((index * step) / size).toLocaleString("en", places)} ${unit}`;
    result.push({ ns: index * step, text });
  }
  return result;
}
