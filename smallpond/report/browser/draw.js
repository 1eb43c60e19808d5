// The timeline: a time axis, how much ran at once, and a lane for each task that could run at once.

const FAMILY = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif";
const FONT = `11px ${FAMILY}`;
const GUTTER = 150;
const AXIS = 22;
const STRIP = { top: 26, height: 40 };
const TOP = STRIP.top + STRIP.height + 6;
const LEAST_LABEL_WIDTH = 26;
const DIMMED = 0.13;
const HATCHED = 0.45;

const frame = { rectangles: 0, milliseconds: 0, count: 0 };
const inks = {};
let fills = [];
let hatch = null;

// The colours are the style sheet's, so that light and dark are decided in one place.
function readColours() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  fills = Array.from({ length: NUM_COLOURS }, (_, index) => colour(`s${index}`));
  for (const name of ["failed", "ink", "label", "quiet", "line", "track", "selected", "page"]) {
    inks[name] = colour(name);
  }
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const context = tile.getContext("2d");
  context.strokeStyle = inks.ink;
  context.globalAlpha = 0.55;
  context.beginPath();
  for (const shift of [-6, 0, 6]) {
    context.moveTo(shift, 6);
    context.lineTo(shift + 6, 0);
  }
  context.stroke();
  hatch = context.createPattern(tile, "repeat");
}

function laneHeight() {
  const count = run.laneRows.length;
  return count <= 24 ? 18 : count <= 80 ? 13 : 8;
}

function tallness() {
  return TOP + run.laneRows.length * laneHeight() + 8;
}

// A canvas as large as its box, in the pixels of the screen; drawing counts in CSS pixels.
function preparedContext(target, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [pixelWidth, pixelHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (target.width !== pixelWidth || target.height !== pixelHeight) {
    target.width = pixelWidth;
    target.height = pixelHeight;
    target.style.height = `${height}px`;
  }
  const context = target.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  return context;
}

function drawTimeline() {
  const { width, height } = timeline.getBoundingClientRect();
  const context = preparedContext(canvas, timeline.clientWidth || width, height);
  const plot = { left: GUTTER, width: timeline.clientWidth - GUTTER };
  plot.scale = plot.width / (view.end - view.begin);
  const marks = ticks(plot.width);
  context.fillStyle = inks.line;
  for (const { us } of marks) {
    const x = Math.round(plot.left + (us - view.begin) * plot.scale);
    if (x >= plot.left) context.fillRect(x, AXIS, 1, height - AXIS);
  }
  drawLanes(context, plot, height);
  context.fillStyle = inks.page; // what has been scrolled goes under the axis and the strip
  context.fillRect(0, 0, width, TOP - 3);
  drawAxis(context, plot, marks);
  drawStrip(context, plot);
  drawGutter(context, plot, height);
}

function drawAxis(context, plot, marks) {
  context.fillStyle = inks.quiet;
  for (const { us, text } of marks) {
    const x = Math.round(plot.left + (us - view.begin) * plot.scale);
    if (x < plot.left) continue;
    context.fillRect(x, AXIS - 6, 1, 6);
    context.fillText(text, x + 4, AXIS - 11);
  }
  context.fillStyle = inks.line;
  context.fillRect(plot.left, AXIS, plot.width, 1);
}

// How many attempts ran in each pixel, stage upon stage. The numbers of a stage are kept as
// differences between neighbours, so that a long attempt costs no more than a short one.
function drawStrip(context, plot) {
  const width = Math.ceil(plot.width);
  const running = run.stages.map(() => null);
  for (let row = 0; row < run.count; row++) {
    if (run.end[row] < view.begin || run.begin[row] > view.end) continue;
    const counts = running[run.stage[row]] ??= new Float32Array(width + 3);
    const from = Math.max((run.begin[row] - view.begin) * plot.scale, 0);
    const to = Math.min((run.end[row] - view.begin) * plot.scale, width);
    for (const [x, sign] of [[from, 1], [to, -1]]) {
      const pixel = Math.floor(x);
      counts[pixel] += sign * (1 - (x - pixel));
      counts[pixel + 1] += sign * (x - pixel);
    }
  }
  context.fillStyle = inks.track;
  context.fillRect(plot.left, STRIP.top, plot.width, STRIP.height);
  const unit = STRIP.height / Math.max(run.most_at_once, 1);
  const tops = new Float32Array(width);
  running.forEach((counts, stage) => {
    if (!counts) return;
    context.fillStyle = fills[colourOf(stage)];
    context.globalAlpha = emphasised === null || emphasised === stage ? 1 : DIMMED;
    let now = 0;
    for (let pixel = 0; pixel < width; pixel++) {
      now += counts[pixel];
      const size = now * unit;
      if (size < 0.05) continue;
      context.fillRect(plot.left + pixel, STRIP.top + STRIP.height - tops[pixel] - size, 1, size);
      tops[pixel] += size;
    }
  });
  context.globalAlpha = 1;
}

function drawGutter(context, plot, height) {
  const lane = laneHeight();
  context.fillStyle = inks.page;
  context.fillRect(0, TOP - 3, plot.left, height);
  context.fillStyle = inks.ink;
  context.font = `600 12px ${FAMILY}`;
  context.fillText("running", 14, STRIP.top + 12);
  context.font = FONT;
  context.fillStyle = inks.quiet;
  context.fillText(`at most ${run.most_at_once}`, 14, STRIP.top + 28);
  context.save();
  context.beginPath();
  context.rect(0, TOP - 3, plot.left, height);
  context.clip();
  let free = -Infinity; // labels that would lie upon the one before are left out
  run.laneOwners.forEach(({ worker, first, count }, index) => {
    const y = TOP + index * lane - timeline.scrollTop;
    if (!first) return;
    if (y > TOP - 3 && index > 0 && lane > 8) {
      context.fillStyle = inks.line;
      context.fillRect(0, y - 1, plot.left + plot.width, 1);
    }
    if (y < free || y > height || y + count * lane < TOP) return;
    // A worker with many lanes keeps its name in sight.
    const middle = Math.min(Math.max(y, TOP), y + (count - 1) * lane) + Math.max(lane, 12) / 2;
    const name = run.workers[worker] || "worker";
    context.fillStyle = inks.ink;
    context.fillText(fitted(context, name, plot.left - 60), 14, middle);
    if (count > 1) {
      context.fillStyle = inks.quiet;
      context.textAlign = "right";
      context.fillText(`× ${count}`, plot.left - 12, middle);
      context.textAlign = "left";
    }
    free = y + 12;
  });
  context.restore();
}

function drawLanes(context, plot, height) {
  const lane = laneHeight();
  const from = Math.max(0, Math.floor(timeline.scrollTop / lane) - 1);
  const to = Math.min(run.laneRows.length, from + Math.ceil(height / lane) + 2);
  context.save();
  context.beginPath();
  context.rect(plot.left, TOP - 3, plot.width, height);
  context.clip();
  const labels = [];
  for (let index = from; index < to; index++) {
    const y = TOP + index * lane - timeline.scrollTop;
    context.fillStyle = inks.track;
    context.fillRect(plot.left, y, plot.width, lane - 1);
    drawLane(context, plot, run.laneRows[index], y, lane, labels);
  }
  context.textBaseline = "middle";
  for (const [row, left, right, y] of labels) drawLabel(context, plot, row, left, right, y, lane);
  drawSelection(context, plot, lane);
  context.restore();
}

// Attempts that share a pixel with one that is drawn are left out, unless they failed.
function drawLane(context, plot, rows, y, lane, labels) {
  let last = -1;
  for (let i = firstSeen(rows); i < rows.length && run.begin[rows[i]] <= view.end; i++) {
    const row = rows[i];
    const x = Math.max((run.begin[row] - view.begin) * plot.scale, -2);
    const left = plot.left + Math.floor(x);
    const to = Math.min((run.end[row] - view.begin) * plot.scale, plot.width + 2);
    const right = Math.max(plot.left + Math.round(to), left + 1);
    const failed = run.state(row) === "failed";
    if (right <= last && !failed) continue;
    const shown = Math.max(left, failed ? left : last);
    drawAttempt(context, row, shown, Math.max(right, shown + (failed ? 2 : 1)), y, lane - 1);
    last = Math.max(last, right);
    if (right - left > LEAST_LABEL_WIDTH && lane > 8) labels.push([row, left, right, y]);
  }
}

// The first of a lane's rows that ends in the view or after it.
function firstSeen(rows) {
  let [low, high] = [0, rows.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (run.end[rows[middle]] < view.begin) low = middle + 1;
    else high = middle;
  }
  return low;
}

function drawAttempt(context, row, left, right, y, height) {
  const state = run.state(row);
  const width = right - left > 4 ? right - left - 1 : right - left; // a hair between neighbours
  const dimmed = emphasised !== null && emphasised !== run.stage[row];
  paintAttempt(context, {
    fill: fills[colourOf(run.stage[row])], state, copy: run.isSecondCopy(row), dimmed,
  }, left, y, width, height);
  frame.rectangles++;
}

function paintAttempt(context, { fill, state, copy, dimmed }, left, y, width, height) {
  const strength = dimmed ? DIMMED : 1;
  context.globalAlpha = state === "cancelled" ? strength * HATCHED : strength;
  context.fillStyle = state === "failed" ? inks.failed : fill;
  context.fillRect(left, y, width, height);
  context.globalAlpha = strength;
  if (state === "failed" && width > 5) {
    context.fillStyle = fill; // whose failure it is
    context.fillRect(left, y, 3, height);
  }
  if (state === "cancelled") {
    context.fillStyle = hatch;
    context.fillRect(left, y, width, height);
  }
  if (copy) {
    context.fillStyle = inks.ink;
    context.fillRect(left, y, width, 2);
    context.fillRect(left, y + height - 2, width, 2);
  }
  if (state === "started") {
    context.fillStyle = inks.page;
    for (let at = y; at < y + height; at += 4) context.fillRect(left + width - 3, at, 3, 2);
  }
  context.globalAlpha = 1;
}

function drawLabel(context, plot, row, left, right, y, lane) {
  if (emphasised !== null && emphasised !== run.stage[row]) return;
  const from = Math.max(left, plot.left) + 4;
  const room = Math.min(right, plot.left + plot.width) - from - 3;
  const partition = run.partitions[run.attempts.partition[row]];
  const name = oneLine(run.stages[run.stage[row]].name);
  const mark = run.state(row) === "failed" ? "✗ " : "";
  const long = `${mark}${partition ? `${partition} · ` : ""}${name}`;
  const short = `${mark}${partition}` || name;
  const text = textWidth(context, short) + 40 < room ? long : short;
  context.fillStyle = run.state(row) === "cancelled" ? inks.ink : inks.label;
  const said = fitted(context, text, room);
  if (said) context.fillText(said, from, y + lane / 2);
}

// A frame around what is selected, and a thinner one around the other attempts at its task.
function drawSelection(context, plot, lane) {
  if (selected === null) return;
  context.strokeStyle = inks.selected;
  for (const row of run.siblings(selected)) {
    const left = plot.left + Math.max((run.begin[row] - view.begin) * plot.scale, -4);
    const right = plot.left + Math.min((run.end[row] - view.begin) * plot.scale, plot.width + 4);
    if (right < plot.left || left > plot.left + plot.width) continue;
    const y = TOP + run.lane[row] * lane - timeline.scrollTop;
    context.lineWidth = row === selected ? 3 : 1.5;
    context.setLineDash(row === selected ? [] : [3, 2]);
    context.strokeRect(left - 1, y - 1, Math.max(right - left, 2) + 1, lane + 1);
  }
  context.setLineDash([]);
}

const textWidths = new Map();

function textWidth(context, text) {
  const key = `${context.font} ${text}`;
  let width = textWidths.get(key);
  if (width === undefined) {
    if (textWidths.size > 50_000) textWidths.clear();
    width = context.measureText(text).width;
    textWidths.set(key, width);
  }
  return width;
}

// As much of a text as there is room for; nothing where that would say nothing.
function fitted(context, text, room) {
  // A query may be thousands of letters long; what is far too long is cut before it is measured.
  const likely = text.slice(0, Math.max(8, Math.ceil(room / 2)));
  const needed = textWidth(context, likely);
  if (needed <= room && likely.length === text.length) return text;
  let kept = Math.min(Math.floor((likely.length * room) / needed), likely.length);
  while (kept > 1 && textWidth(context, `${text.slice(0, kept)}…`) > room) kept--;
  return kept < 2 ? "" : `${text.slice(0, kept)}…`;
}

const measuring = document.createElement("canvas").getContext("2d");

function fittedText(text, room, font) {
  measuring.font = `${font} ${FAMILY}`;
  return fitted(measuring, text, room);
}
