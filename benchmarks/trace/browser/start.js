// Builds the ranks' boxes, connects everything, and shows the whole.

const KEYS = {
  ArrowLeft: () => pan(-0.15), a: () => pan(-0.15),
  ArrowRight: () => pan(0.15), d: () => pan(0.15),
  ArrowUp: () => zoom(0.7), w: () => zoom(0.7), "+": () => zoom(0.7), "=": () => zoom(0.7),
  ArrowDown: () => zoom(1 / 0.7), s: () => zoom(1 / 0.7), "-": () => zoom(1 / 0.7),
  0: () => setView(whole.begin, whole.end), f: fitSelection,
  n: () => step(1), N: () => step(-1),
  "/": () => document.getElementById("search").focus(),
  Escape: () => select(null),
};

function onKey(event) {
  const writing = event.target.matches("input");
  if (event.ctrlKey || event.metaKey || event.altKey || writing || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
  requestDraw();
}

function makeRank(rank) {
  const toggle = (label, property) => {
    const button = element("button", { type: "button", class: property });
    button.append(label);
    button.addEventListener("click", () => {
      rank[property] = !rank[property];
      layOut(rank);
      placeAll();
    });
    return button;
  };
  rank.canvas = element("canvas", { tabindex: "0", role: "img", "aria-label": canvasLabel(rank) });
  rank.gutter = element("div", { class: "gutter" });
  rank.buttons = [toggle(rank.title, "folded"), toggle("streams", "showStreams")];
  const head = element("div", { class: "head" }, ...rank.buttons);
  if (!rank.begin.length) head.append(element("span", { class: "quiet" }, "no events"));
  rank.section = element("section", { class: "rank" }, head, rank.gutter, rank.canvas);
  rank.canvas.addEventListener("pointerdown", (event) => onPointerDown(rank, event));
  rank.canvas.addEventListener("pointermove", (event) => onPointerMove(rank, event));
  rank.canvas.addEventListener("pointerup", (event) => onPointerUp(rank, event));
  rank.canvas.addEventListener("pointercancel", () => { drag = null; });
  rank.canvas.addEventListener("pointerleave", () => showTooltip(trace, null));
  rank.canvas.addEventListener("wheel", onWheel, { passive: false });
  rank.canvas.addEventListener("dblclick", fitSelection);
  return rank.section;
}

function canvasLabel(rank) {
  return `Timeline of ${rank.title}: ${counted(rank.numWork, "event")} on `
    + `${counted(rank.streams.length, "stream")}. Arrow keys move and zoom; slash searches, n goes `
    + "to the next thing found.";
}

// Puts labels and canvases where the tracks are, then draws.
function placeAll() {
  for (const rank of trace.ranks) {
    rank.canvas.style.height = `${rank.height}px`;
    rank.gutter.replaceChildren(...rank.tracks.filter((t) => t.shown && t.height > 8).map((t) => {
      const label = element("span", { class: t.kind, title: t.label }, t.label);
      label.style.top = `${t.y}px`;
      label.style.lineHeight = label.style.height = `${t.height}px`;
      return label;
    }));
    const [fold, streams] = rank.buttons;
    fold.setAttribute("aria-expanded", String(!rank.folded));
    streams.setAttribute("aria-expanded", String(rank.showStreams));
    streams.hidden = rank.folded;
  }
  requestDraw();
}

function connect() {
  const on = (id, type, action) => document.getElementById(id).addEventListener(type, action);
  const box = document.getElementById("search");
  on("search", "input", () => search(box.value));
  on("search", "keydown", (event) => {
    if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
    if (event.key === "Escape") box.blur();
  });
  on("previous", "click", () => step(-1));
  on("next", "click", () => step(1));
  for (const [id, key] of [["closer", "+"], ["farther", "-"], ["all", "0"], ["fit", "f"]]) {
    on(id, "click", () => {
      KEYS[key]();
      requestDraw();
    });
  }
  for (const button of document.querySelectorAll("button[data-gap]")) {
    button.addEventListener("click", () => {
      const [rank, begin, end] = JSON.parse(button.dataset.gap);
      zoomTo(begin, end);
      trace.ranks[rank].canvas.scrollIntoView({ block: "nearest" });
      select({ rank: trace.ranks[rank], item: null, gap: -1, begin, end });
    });
  }
  for (const cell of document.querySelectorAll("#gaps td[title]")) {
    cell.textContent = shortName(cell.title);
  }
  document.addEventListener("keydown", onKey);
  timeline.addEventListener("scroll", requestDraw);
  new ResizeObserver(requestDraw).observe(timeline);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readColours();
    requestDraw();
  });
}

// What may be read from outside: for tests, and for who wants to look.
function publish() {
  const track = ({ kind, label, y, height, shown }) => ({ kind, label, y, height, shown });
  window.openweek = Object.freeze({
    get view() { return { ...view }; },
    get whole() { return { ...whole }; },
    get frame() { return { ...frame }; },
    get selection() {
      if (!selection) return null;
      const { rank, item, begin, end } = selection;
      const isItem = rank !== null && item !== null;
      const name = isItem ? trace.names[rank.name[item]] : null;
      return { rank: rank?.index ?? null, name, begin, end };
    },
    get found() {
      if (!trace.found) return null;
      const { items, numWork, numPhases, workTime, current } = trace.found;
      return { count: items.length, numWork, numPhases, workTime, current };
    },
    get ranks() {
      return trace.ranks.map(({ title, numWork, numPhases, folded, tracks }) => (
        { title, numWork, numPhases, folded, tracks: tracks.map(track) }));
    },
  });
}

readColours();
prepare(trace.ranks);
timeline.append(...trace.ranks.map(makeRank));
showWhole(trace.ranks);
showLegend(trace);
showSelection(trace, null);
connect();
publish();
placeAll();
