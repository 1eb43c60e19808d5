// What the reader does: pointer, wheel and search, and what follows from it.

const trace = readTraces();
const timeline = document.getElementById("timeline");
const axis = document.getElementById("axis");
// { rank, item, gap, begin, end }: item null for a gap, rank null for a measured stretch.
let selection = null;
let drag = null;
let scheduled = false;

function plotWidth() {
  return axis.parentElement.getBoundingClientRect().width;
}

function requestDraw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    drawAll();
  });
}

function drawAll() {
  const started = performance.now();
  frame.rectangles = 0;
  const width = plotWidth();
  const { top, bottom } = timeline.getBoundingClientRect();
  drawAxis(axis, width);
  for (const rank of trace.ranks) {
    const box = rank.canvas.getBoundingClientRect();
    if (box.bottom > top && box.top < bottom) drawRank(trace, rank, rank.canvas, width, selection);
  }
  placeMeasure(width);
  frame.milliseconds = performance.now() - started;
  frame.count++;
}

// The stretch that shift and the pointer measure, through all ranks.
function placeMeasure(width) {
  const measure = document.getElementById("measure");
  measure.hidden = !selection || selection.rank !== null;
  if (measure.hidden) return;
  const scale = width / (view.end - view.begin);
  const left = Math.max((selection.begin - view.begin) * scale, 0);
  const right = Math.min((selection.end - view.begin) * scale, width);
  measure.style.left = `${left}px`;
  measure.style.width = `${Math.max(right - left, 0)}px`;
  measure.textContent = lengthText(selection.end - selection.begin);
}

function select(next) {
  selection = next;
  showSelection(trace, selection);
  requestDraw();
}

function momentAt(clientX) {
  const { left, width } = axis.getBoundingClientRect();
  return view.begin + ((clientX - left) / width) * (view.end - view.begin);
}

// What is drawn at a point of a rank's canvas, or null.
function hitTest(rank, event) {
  const y = event.clientY - rank.canvas.getBoundingClientRect().top;
  const track = rank.tracks.find((t) => t.shown && y >= t.y && y < t.y + t.height);
  if (!track) return null;
  const slack = ((view.end - view.begin) / plotWidth()) * 2;
  const { index, count } = track.row.at(momentAt(event.clientX), slack);
  if (index < 0) return null;
  const { marks } = track.row;
  const item = marks.item[index];
  const drawn = { begin: marks.begin[index], end: marks.end[index] };
  if (track.kind === "gap") return { rank, item: null, gap: item, count, ...drawn };
  // A lane joins what belongs together: its parts are told apart by their own times.
  const own = { begin: rank.begin[item], end: rank.end[item] };
  return { rank, item, gap: null, count, ...(track.kind === "run" ? drawn : own) };
}

function onPointerDown(rank, event) {
  if (event.button !== 0) return;
  rank.canvas.setPointerCapture(event.pointerId);
  drag = { x: event.clientX, begin: view.begin, moved: false, from: momentAt(event.clientX) };
}

function onPointerMove(rank, event) {
  const cursor = document.getElementById("cursor");
  cursor.style.left = `${event.clientX - axis.getBoundingClientRect().left}px`;
  if (!drag) {
    showTooltip(trace, hitTest(rank, event), event.clientX, event.clientY);
    return;
  }
  drag.moved ||= Math.abs(event.clientX - drag.x) > 3;
  if (!drag.moved) return;
  showTooltip(trace, null);
  if (event.shiftKey) {
    const to = momentAt(event.clientX);
    select({ rank: null, begin: Math.min(drag.from, to), end: Math.max(drag.from, to) });
    return;
  }
  const length = view.end - view.begin;
  const begin = drag.begin - ((event.clientX - drag.x) / plotWidth()) * length;
  setView(begin, begin + length);
  requestDraw();
}

function onPointerUp(rank, event) {
  if (drag && !drag.moved) {
    select(hitTest(rank, event));
  }
  drag = null;
}

// The wheel zooms around the pointer; sideways, or with shift, it moves.
function onWheel(event) {
  event.preventDefault();
  const pixels = event.deltaMode === 1 ? 16 : 1;
  const [x, y] = [event.deltaX * pixels, event.deltaY * pixels];
  if (event.shiftKey || Math.abs(x) > Math.abs(y)) {
    pan((x || y) / plotWidth());
  } else {
    const { left, width } = axis.getBoundingClientRect();
    const speed = event.ctrlKey ? 0.01 : 0.002; // a pinch comes as small steps with ctrl
    zoom(Math.exp(Math.max(Math.min(y, 300), -300) * speed), (event.clientX - left) / width);
  }
  requestDraw();
}

function search(query) {
  let problem = "";
  try {
    trace.found = findItems(trace, query);
  } catch (error) {
    trace.found = null;
    problem = `not a regular expression: ${error.message}`;
  }
  showFound(trace.found, problem);
  placeAll();
}

// Goes to the next thing found, or the one before; the view follows where it is outside.
function step(direction) {
  const { found } = trace;
  if (!found?.items.length) return;
  const count = found.items.length;
  found.current = found.current < 0 && direction < 0
    ? count - 1 : (found.current + direction + count) % count;
  const { rank, item } = found.items[found.current];
  const [begin, end] = [rank.begin[item], rank.end[item]];
  const seen = (end - begin) / (view.end - view.begin) * plotWidth() >= 2;
  if (!seen) zoomTo(begin, begin + (end - begin) * 20);
  else if (begin < view.begin || end > view.end) {
    const half = (view.end - view.begin) / 2;
    setView((begin + end) / 2 - half, (begin + end) / 2 + half);
  }
  rank.canvas.scrollIntoView({ block: "nearest" });
  select({ rank, item, gap: null, begin, end });
  showFound(found, "");
}

function fitSelection() {
  if (selection) zoomTo(selection.begin, selection.end);
}
