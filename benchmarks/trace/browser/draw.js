// Draws the tracks of each rank that is on the screen, and the time axis.

const FONT = "11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
const LEAST_LABEL_WIDTH = 22;
const LEAST_PAIR_HEIGHT = 28;
const DIMMED = 0.22; // what a search did not find

const frame = { rectangles: 0, milliseconds: 0, count: 0 };
let fills = [];
const inks = {};

// The colours are the style sheet's, so that light and dark are decided in one place.
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  fills = STYLES.map((name) => colour(name === "FB" ? "B" : name));
  fills[STYLE.FB] = [colour("F"), colour("B")];
  for (const name of ["ink", "label", "quiet", "line", "track", "selected"]) {
    inks[name] = colour(name);
  }
}

// A canvas as large as its box, in the pixels of the screen; drawing counts in CSS pixels.
function preparedContext(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelWidth || canvas.height !== pixelHeight) {
    canvas.width = pixelWidth;
    canvas.height = pixelHeight;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  return context;
}

function drawAxis(canvas, width) {
  const height = 22;
  const context = preparedContext(canvas, width, height);
  const scale = width / (view.end - view.begin);
  context.fillStyle = inks.quiet;
  for (const { ns, text } of ticks(width)) {
    const x = (ns - view.begin) * scale;
    context.fillRect(Math.round(x), height - 6, 1, 6);
    context.fillText(text, x + 4, height - 11);
  }
}

function drawRank(trace, rank, canvas, width, selection) {
  const context = preparedContext(canvas, width, rank.height);
  const scale = width / (view.end - view.begin);
  context.fillStyle = inks.line;
  for (const { ns } of ticks(width)) {
    context.fillRect(Math.round((ns - view.begin) * scale), 0, 1, rank.height);
  }
  for (const track of rank.tracks) {
    if (!track.shown) continue;
    drawBackground(context, track, width);
    const named = track.kind !== "gap" && track.kind !== "match" && track.height > 10;
    const draw = (row, dimmed) => {
      context.globalAlpha = dimmed ? DIMMED : 1;
      const labels = drawRow(context, track, row, width, scale);
      context.fillStyle = dimmed ? inks.ink : inks.label;
      if (named) drawLabels(context, trace, rank, track, labels, width);
    };
    draw(track.row, track.matched !== null);
    if (track.matched) draw(track.matched, false);
    context.globalAlpha = 1;
  }
  if (selection?.rank === rank) drawSelection(context, rank, selection, width, scale);
}

function drawBackground(context, track, width) {
  if (track.kind !== "lane" && track.kind !== "stream") return;
  context.fillStyle = inks.track;
  context.fillRect(0, track.y, width, track.height);
}

// Fills what is in view; returns [left, right, item] of each rectangle that has room for a label.
function drawRow(context, track, row, width, scale) {
  const parts = row.visible(view.begin, view.end, 1 / scale);
  return parts.flatMap((marks) => drawMarks(context, track, marks, width, scale));
}

function drawMarks(context, track, marks, width, scale) {
  const { begin, end, low, high, style, item, length } = marks;
  const labels = [];
  let look = -1;
  for (let i = countUpTo(end, view.begin); i < length && begin[i] < view.end; i++) {
    if (style[i] !== look) {
      look = style[i];
      context.fillStyle = look === STYLE.FB ? fills[look][1] : fills[look];
    }
    // Whole pixels, so that neighbours leave no seam; summaries take all that they touch.
    const single = item[i] >= 0;
    const from = Math.max((begin[i] - view.begin) * scale, -1);
    const to = Math.min((end[i] - view.begin) * scale, width + 1);
    const left = single ? Math.round(from) : Math.floor(from);
    const right = single ? Math.round(to) : Math.ceil(to);
    const room = right - left;
    // A hair between neighbours, where they are wide enough to lose one.
    const shownWidth = Math.max(room > 4 ? room - 1 : room, 1);
    const [bottom, upper] = track.kind === "match" ? [0, 1] : [low[i], high[i]];
    const top = track.y + track.height * (1 - upper);
    const height = track.height * (upper - bottom);
    context.fillRect(left, top, shownWidth, height);
    frame.rectangles++;
    if (look === STYLE.FB) {
      context.fillStyle = fills[look][0];
      context.fillRect(left, top, shownWidth, height / 2);
      frame.rectangles++;
      look = -1;
    }
    if (single && room > LEAST_LABEL_WIDTH) labels.push([left, right, item[i]]);
  }
  return labels;
}

function drawLabels(context, trace, rank, track, labels, width) {
  for (const [left, right, item] of labels) {
    const from = Math.max(left, 0) + 4;
    const room = Math.min(right, width) - from - 3;
    const name = shortName(trace.names[rank.name[item]]);
    // The two halves of an overlapped pair each have their own line, where there is room for two.
    const pair = rank.style[item] === STYLE.FB && track.height >= LEAST_PAIR_HEIGHT;
    const lines = pair ? name.split(";") : [name];
    lines.forEach((line, index) => {
      const text = fitted(context, line, room);
      const middle = track.y + (track.height * (index + 0.5)) / lines.length + 0.5;
      if (text) context.fillText(text, from, middle);
    });
  }
}

const textWidths = new Map();

// As much of a text as there is room for; nothing where that would say nothing.
function fitted(context, text, room) {
  const needed = textWidth(context, text);
  if (needed <= room) return text;
  let kept = Math.floor((text.length * room) / needed);
  while (kept > 1 && textWidth(context, `${text.slice(0, kept)}…`) > room) kept--;
  return kept < 2 ? "" : `${text.slice(0, kept)}…`;
}

function textWidth(context, text) {
  let width = textWidths.get(text);
  if (width === undefined) {
    width = context.measureText(text).width;
    textWidths.set(text, width);
  }
  return width;
}

// A frame around what is selected in each of its rows, and a band through all of them.
function drawSelection(context, rank, { begin, end, item }, width, scale) {
  const left = Math.max((begin - view.begin) * scale, -4);
  const right = Math.min((end - view.begin) * scale, width + 4);
  if (right < 0 || left > width) return;
  const shownWidth = Math.max(right - left, 1.5);
  context.globalAlpha = 0.13;
  context.fillStyle = inks.selected;
  context.fillRect(left, 0, shownWidth, rank.height);
  context.globalAlpha = 1;
  context.strokeStyle = inks.selected;
  context.lineWidth = 2;
  for (const track of rank.tracks) {
    if (!track.shown || !holds(track, item, begin)) continue;
    context.strokeRect(left, track.y, shownWidth, track.height);
  }
}

function holds({ kind, row }, item, begin) {
  if (item === null || kind === "gap" || kind === "match") return false;
  const { marks } = row;
  const index = countUpTo(marks.begin, begin) - 1;
  return index >= 0 && marks.item[index] === item;
}
