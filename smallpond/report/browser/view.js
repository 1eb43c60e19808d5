// The part of the time that is seen.

const SHORTEST_VIEW = 10; // us

const view = { begin: 0, end: 1 };
const whole = { begin: 0, end: 1 };

function showWhole(run) {
  whole.begin = 0;
  whole.end = Math.max(run.wall, SHORTEST_VIEW);
  for (const end of run.end) whole.end = Math.max(whole.end, end);
  const margin = whole.end * 0.01;
  whole.begin -= margin;
  whole.end += margin;
  setView(whole.begin, whole.end);
}

// Shows these times, or as much of them as there is; the length is kept where the end is met.
function setView(begin, end) {
  const most = whole.end - whole.begin;
  const length = Math.min(Math.max(end - begin, SHORTEST_VIEW), most);
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

const UNITS = [["s", 1e6], ["ms", 1e3], ["us", 1]];

// A moment, as exactly as it is known.
function momentText(us) {
  const [unit, size] = UNITS.find(([, unitSize]) => Math.abs(us) >= unitSize) ?? UNITS[2];
  return `${(us / size).toLocaleString("en", { maximumFractionDigits: Math.log10(size) })} ${unit}`;
}

// Ticks at multiples of 1, 2 or 5 times a power of ten, at least 110 pixels apart.
function ticks(width) {
  const least = ((view.end - view.begin) * 110) / width;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= least);
  const [unit, size] = UNITS.find(([, unitSize]) => step * 4 >= unitSize) ?? UNITS[2];
  const digits = Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9));
  const places = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  const result = [];
  // Adding 0 turns the -0 of a view that begins in the margin into 0.
  for (let index = Math.ceil(view.begin / step) + 0; index * step <= view.end; index++) {
    const text = `${((index * step) / size).toLocaleString("en", places)} ${unit}`;
    result.push({ us: index * step, text });
  }
  return result;
}
