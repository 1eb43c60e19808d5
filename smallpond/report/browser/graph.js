// The stages as a graph, from left to right.

const BOX = { width: 168, height: 36, across: 204, down: 42 };
const LEAST_BYTES = 1e5; // edges over which no more than this goes are thin
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function showGraph() {
  const { width, height, places, edges } = run.graph;
  const panel = document.getElementById("graph");
  panel.hidden = edges.length === 0;
  if (panel.hidden) {
    panel.replaceChildren();
    return;
  }
  const size = {
    width: (width - 1) * BOX.across + BOX.width + 2,
    height: (height - 1) * BOX.down + BOX.height + 2,
  };
  const drawing = svg("svg", { ...size, viewBox: `-1 -1 ${size.width} ${size.height}` });
  drawing.append(svg("defs", {}, svg("marker", {
    id: "arrow", viewBox: "0 0 6 6", refX: 5.5, refY: 3, markerWidth: 7, markerHeight: 7,
    markerUnits: "userSpaceOnUse", orient: "auto",
  }, svg("path", { d: "M0 0L6 3L0 6z" }))));
  for (const [from, to, way] of edges) drawing.append(edgeOf(from, to, way));
  places.forEach(([column, row], number) => drawing.append(boxOf(run.stages[number], column, row)));
  panel.replaceChildren(drawing);
}

function edgeOf(from, to, way) {
  const points = way.map(([column, row]) => [column * BOX.across, row * BOX.down + BOX.height / 2]);
  let path = `M${points[0][0] + BOX.width} ${points[0][1]}`;
  points.slice(1).forEach(([x, y], index) => {
    const [before, last] = [points[index], index === points.length - 2];
    const half = (before[0] + BOX.width + x) / 2;
    path += `C${half} ${before[1]} ${half} ${y} ${x} ${y}`;
    if (!last) path += `H${x + BOX.width}`; // past the boxes of this column
  });
  const bytes = run.stages[from].bytes_out;
  const thickness = 1.2 + Math.min(Math.max(Math.log10(bytes / LEAST_BYTES), 0), 5) * 0.6;
  return svg("path", {
    d: path, "stroke-width": thickness.toFixed(2), "marker-end": "url(#arrow)",
    "data-from": from, "data-to": to,
  });
}

function boxOf(stage, column, row) {
  const [x, y] = [column * BOX.across, row * BOX.down];
  const name = oneLine(stage.name);
  const told = [counted(stage.num_tasks, "task")];
  if (stage.bytes_out) told.push(sizeText(stage.bytes_out));
  if (stage.wall) told.push(lengthText(stage.wall));
  const box = svg("g", {
    class: `s${colourOf(stage.number)}`, transform: `translate(${x} ${y})`, tabindex: 0,
    role: "button", "aria-pressed": "false", "data-stage": stage.number,
  });
  const trouble = stage.num_failed ? `✗ ${countText(stage.num_failed)}` : "";
  const room = BOX.width - (trouble ? 52 : 18);
  box.append(
    svg("title", {}, stage.name),
    svg("rect", { class: "box", width: BOX.width, height: BOX.height, rx: 4 }),
    svg("rect", { class: "tint", width: 5, height: BOX.height, rx: 2 }),
    svg("text", { x: 12, y: 15 }, fittedText(name, room, "600 12px")),
    svg("text", { x: BOX.width - 6, y: 15, class: "trouble" }, trouble),
    svg("text", { x: 12, y: 29, class: "quiet" },
      fittedText(told.join(" · "), BOX.width - 16, "11px")));
  box.addEventListener("click", () => emphasise(stage.number));
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      emphasise(stage.number);
    }
  });
  return box;
}

// The stage that is looked at alone, in the table, the graph and the timeline.
function emphasise(stage) {
  emphasised = emphasised === stage ? null : stage;
  showEmphasis();
  requestDraw();
}

function showEmphasis() {
  for (const row of document.querySelectorAll("#stages tbody tr")) {
    row.setAttribute("aria-selected", String(Number(row.dataset.stage) === emphasised));
  }
  for (const box of document.querySelectorAll("#graph g[data-stage]")) {
    const own = Number(box.dataset.stage) === emphasised;
    box.setAttribute("aria-pressed", String(own));
    box.classList.toggle("dim", emphasised !== null && !own);
  }
  for (const edge of document.querySelectorAll("#graph path[data-from]")) {
    const ends = [Number(edge.dataset.from), Number(edge.dataset.to)];
    edge.classList.toggle("fed", ends.includes(emphasised));
  }
}
