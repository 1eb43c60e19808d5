// What the reader does, and what follows from it; shows the longest run first.

const timeline = document.getElementById("timeline");
const canvas = timeline.querySelector("canvas");
let runIndex = -1;
let run = null;
let selected = null; // a row of the run
let emphasised = null; // a stage of the run
let troubles = [];
let drag = null;
let scheduled = false;

const KEYS = {
  ArrowLeft: () => pan(-0.15), a: () => pan(-0.15),
  ArrowRight: () => pan(0.15), d: () => pan(0.15),
  ArrowUp: () => zoom(0.7), w: () => zoom(0.7), "+": () => zoom(0.7), "=": () => zoom(0.7),
  ArrowDown: () => zoom(1 / 0.7), s: () => zoom(1 / 0.7), "-": () => zoom(1 / 0.7),
  0: () => setView(whole.begin, whole.end), f: fitSelection,
  n: () => step(1), N: () => step(-1),
  "[": () => showRun(runIndex - 1), "]": () => showRun(runIndex + 1),
  Escape: () => {
    select(null);
    if (emphasised !== null) emphasise(emphasised);
  },
};

function requestDraw() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    const started = performance.now();
    frame.rectangles = 0;
    drawTimeline();
    frame.milliseconds = performance.now() - started;
    frame.count++;
  });
}

function showRun(index) {
  if (index < 0 || index >= source.length) return;
  runIndex = index;
  run = runNumber(index);
  [selected, emphasised] = [null, null];
  troubles = findTroubles();
  document.getElementById("runs").value = String(index);
  document.getElementById("earlier").disabled = index === 0;
  document.getElementById("later").disabled = index === source.length - 1;
  timeline.scrollTop = 0;
  canvas.setAttribute("aria-label",
    `Timeline of run ${run.run}: ${counted(run.count, "attempt")} on `
    + `${counted(run.lanes.length, "worker")}. Arrow keys move and zoom; n goes to the next `
    + "attempt that failed or was made again.");
  showWhole(run);
  showTable();
  showGraph();
  showLegend();
  showTroubles();
  showSelection();
  placeCanvas();
}

// The canvas is as high as what is seen of it; a box below it makes the rest that is scrolled.
function placeCanvas() {
  const hidden = Math.max(0, tallness() - timeline.clientHeight);
  document.getElementById("tall").style.height = `${hidden}px`;
  requestDraw();
}

function runLabel(index) {
  const { run: runIdx, begin, wall, over, error, stages } = source[index];
  const tasks = stages.reduce((sum, stage) => sum + stage.num_tasks, 0);
  const state = error ? "failed" : over ? "" : "still running";
  const clock = new Date(begin * 1e3).toLocaleTimeString();
  const told = [`run ${runIdx}`, clock, lengthText(wall), counted(tasks, "task"), state];
  return told.filter(Boolean).join(" · ");
}

function select(row) {
  selected = row;
  showSelection();
  requestDraw();
}

// Selects an attempt and brings it into view.
function goTo(row) {
  const [begin, end] = [run.begin[row], run.end[row]];
  const length = view.end - view.begin;
  const pixels = ((end - begin) / length) * (timeline.clientWidth - GUTTER);
  if (pixels < 3) zoomTo(begin, Math.max(end, begin + SHORTEST_VIEW) + (end - begin) * 20);
  else if (begin < view.begin || end > view.end) {
    setView((begin + end - length) / 2, (begin + end + length) / 2);
  }
  const y = run.lane[row] * laneHeight();
  const seen = timeline.clientHeight - TOP - laneHeight();
  if (y < timeline.scrollTop || y > timeline.scrollTop + seen) timeline.scrollTop = y - seen / 2;
  select(row);
}

function step(direction) {
  if (!troubles.length) return;
  const place = troubles.indexOf(selected);
  const next = place < 0 ? (direction > 0 ? 0 : -1) : place + direction;
  goTo(troubles[(next + troubles.length) % troubles.length]);
}

function fitSelection() {
  if (selected !== null) zoomTo(run.begin[selected], run.end[selected]);
}

function plotBox() {
  const { left, top } = canvas.getBoundingClientRect();
  return { left: left + GUTTER, top, width: timeline.clientWidth - GUTTER };
}

// The attempt that is drawn at a point, or null.
function hitTest(event) {
  const { left, top, width } = plotBox();
  const [x, y] = [event.clientX - left, event.clientY - top];
  if (x < 0 || y < TOP - 3) return null;
  const rows = run.laneRows[Math.floor((y - TOP + timeline.scrollTop) / laneHeight())];
  if (!rows) return null;
  const pixel = (view.end - view.begin) / width;
  const moment = view.begin + x * pixel;
  const near = [];
  for (let i = Math.max(firstSeen(rows), 0); i < rows.length; i++) {
    if (run.begin[rows[i]] > moment + 2 * pixel) break;
    if (run.end[rows[i]] >= moment - 2 * pixel) near.push(rows[i]);
  }
  if (!near.length) return null;
  const away = (row) => Math.max(run.begin[row] - moment, moment - run.end[row], 0);
  const failed = (row) => (run.state(row) === "failed" ? 0 : 1);
  near.sort((a, b) => away(a) - away(b) || failed(a) - failed(b));
  const within = near.filter((row) => run.end[row] - run.begin[row] < pixel);
  return { row: near[0], count: Math.max(within.length, 1) };
}

function onPointerDown(event) {
  if (event.button !== 0) return;
  canvas.setPointerCapture(event.pointerId);
  const { clientX: x, clientY: y } = event;
  drag = { x, y, begin: view.begin, top: timeline.scrollTop, moved: false };
}

function onPointerMove(event) {
  if (!drag) {
    showTooltip(hitTest(event), event.clientX, event.clientY);
    return;
  }
  drag.moved ||= Math.abs(event.clientX - drag.x) + Math.abs(event.clientY - drag.y) > 3;
  if (!drag.moved) return;
  showTooltip(null);
  const length = view.end - view.begin;
  const begin = drag.begin - ((event.clientX - drag.x) / plotBox().width) * length;
  setView(begin, begin + length);
  timeline.scrollTop = drag.top - (event.clientY - drag.y);
  requestDraw();
}

function onPointerUp(event) {
  if (drag && !drag.moved) select(hitTest(event)?.row ?? null);
  drag = null;
}

// The wheel zooms around the pointer; sideways, or with shift, it moves. Over the workers' names
// it scrolls.
function onWheel(event) {
  const { left, width } = plotBox();
  if (event.clientX < left) return;
  event.preventDefault();
  const pixels = event.deltaMode === 1 ? 16 : 1;
  const [x, y] = [event.deltaX * pixels, event.deltaY * pixels];
  if (event.shiftKey || Math.abs(x) > Math.abs(y)) {
    pan((x || y) / width);
  } else {
    const speed = event.ctrlKey ? 0.01 : 0.002; // a pinch comes as small steps with ctrl
    zoom(Math.exp(Math.max(Math.min(y, 300), -300) * speed), (event.clientX - left) / width);
  }
  showTooltip(null);
  requestDraw();
}

function onKey(event) {
  const writing = event.target.matches("select");
  if (event.ctrlKey || event.metaKey || event.altKey || writing || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
  requestDraw();
}

function connect() {
  const on = (id, type, action) => document.getElementById(id).addEventListener(type, action);
  for (const [id, key] of [["closer", "+"], ["farther", "-"], ["all", "0"], ["fit", "f"],
    ["earlier", "["], ["later", "]"]]) {
    on(id, "click", () => {
      KEYS[key]();
      requestDraw();
    });
  }
  on("runs", "change", (event) => showRun(Number(event.target.value)));
  canvas.addEventListener("pointerdown", onPointerDown);
  canvas.addEventListener("pointermove", onPointerMove);
  canvas.addEventListener("pointerup", onPointerUp);
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("pointerleave", () => showTooltip(null));
  canvas.addEventListener("wheel", onWheel, { passive: false });
  canvas.addEventListener("dblclick", () => {
    fitSelection();
    requestDraw();
  });
  document.addEventListener("keydown", onKey);
  timeline.addEventListener("scroll", requestDraw);
  new ResizeObserver(placeCanvas).observe(timeline);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    showLegend();
    requestDraw();
  });
}

// What may be read from outside: for tests, and for who wants to look.
function publish() {
  window.smallpond = Object.freeze({
    get run() { return run?.run ?? null; },
    get view() { return { ...view }; },
    get whole() { return { ...whole }; },
    get frame() { return { ...frame }; },
    get selected() { return selected; },
    get emphasised() { return emphasised; },
    // Where the middle of an attempt is, in pixels of the window.
    place(row) {
      const { left, top, width } = plotBox();
      const moment = (run.begin[row] + run.end[row]) / 2;
      return {
        x: left + ((moment - view.begin) / (view.end - view.begin)) * width,
        y: top + TOP + (run.lane[row] + 0.5) * laneHeight() - timeline.scrollTop,
      };
    },
  });
}

readColours();
publish();
if (source.length) {
  const choice = document.getElementById("runs");
  choice.append(...source.map((_, index) => element("option", { value: index }, runLabel(index))));
  const walls = source.map(({ wall }) => wall);
  connect();
  showRun(walls.indexOf(Math.max(...walls)));
} else {
  for (const part of document.querySelectorAll("#choice, #stages, #graph, nav, footer")) {
    part.hidden = true;
  }
  timeline.replaceChildren(element("p", { class: "quiet empty" }, "Nothing has run yet."));
  frame.count = 1;
}
