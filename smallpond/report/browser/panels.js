// Everything else that is text: the tooltip, what is selected, the legend, the list of troubles.

const MOST_TROUBLES = 500;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

const STATE_NAMES = { started: "running" };

function stateText(row) {
  const state = run.state(row);
  return `${STATE_NAMES[state] ?? state}${run.isSecondCopy(row) ? ", second copy" : ""}`;
}

// [label, value] of everything that is known of an attempt.
function facts(row) {
  const a = run.attempts;
  const known = [["state", stateText(row)]];
  const add = (label, value, text = (v) => v) => { if (value) known.push([label, text(value)]); };
  add("error", run.errors.get(row));
  add("partition", run.partitions[a.partition[row]]);
  known.push(["attempt", String(a.number[row] + 1)]);
  const length = lengthText(run.end[row] - run.begin[row]);
  known.push(["time", `${length} from ${momentText(run.begin[row])}`]);
  add("processor", a.cpu[row], lengthText);
  add("rows", passage(a.rows_in[row], a.rows_out[row], countText));
  add("bytes", passage(a.bytes_in[row], a.bytes_out[row], sizeText));
  add("spilled", a.spilled_bytes[row], sizeText);
  add("passes", a.passes[row] > 1 && a.passes[row], String);
  add("worker", run.workers[a.worker[row]]);
  add("task", run.tasks[run.task[row]]);
  return known;
}

// What went in and came out; what came in is not known of every task.
function passage(before, after, text) {
  if (before) return `${text(before)} → ${text(after)}`;
  return after ? `${text(after)} out` : "";
}

function factList(known) {
  const list = element("dl", { class: "facts" });
  for (const [label, value] of known) {
    const style = label === "error" ? { class: "error" } : {};
    list.append(element("dt", {}, label), element("dd", style, value));
  }
  return list;
}

function stageHeading(tag, row) {
  const stage = run.stage[row];
  const swatch = element("i", { class: `swatch s${colourOf(stage)}` });
  return element(tag, {}, swatch, run.stages[stage].name || "(no name)");
}

// What lies under the pointer, beside it; several things in one pixel are said to be several.
function showTooltip(hit, x, y) {
  const tooltip = document.getElementById("tooltip");
  tooltip.hidden = !hit;
  if (!hit) return;
  tooltip.replaceChildren(stageHeading("strong", hit.row), factList(facts(hit.row)));
  if (hit.count > 1) {
    tooltip.append(element("p", {}, `and ${hit.count - 1} more within this pixel`));
  }
  const { width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(Math.min(x + 14, window.innerWidth - width - 8), 0)}px`;
  const below = y + 18 + height < window.innerHeight;
  tooltip.style.top = `${below ? y + 18 : Math.max(y - height - 10, 0)}px`;
}

function showSelection() {
  const panel = document.getElementById("selection");
  if (selected === null) {
    panel.replaceChildren(element("p", { class: "quiet" }, panel.dataset.empty));
    return;
  }
  const list = factList(facts(selected));
  const others = run.siblings(selected).filter((row) => row !== selected);
  if (others.length) {
    const buttons = others.map((row) => {
      const text = `${run.attempts.number[row] + 1}: ${stateText(row)}`;
      const button = element("button", { type: "button" }, text);
      button.addEventListener("click", () => goTo(row));
      return button;
    });
    list.append(element("dt", {}, "others"), element("dd", {}, ...buttons));
  }
  panel.replaceChildren(stageHeading("code", selected), list);
}

// What became of the task of a row in the end.
function outcome(row) {
  const finished = run.siblings(row).find((other) => run.state(other) === "finished");
  if (finished === undefined) return run.over ? "not finished" : "";
  return finished === row ? "finished" : `attempt ${run.attempts.number[finished] + 1} finished`;
}

function findTroubles() {
  const rows = [];
  for (let row = 0; row < run.count; row++) if (run.isTrouble(row)) rows.push(row);
  const failed = (row) => (run.state(row) === "failed" ? 0 : 1);
  return rows.sort((a, b) => failed(a) - failed(b) || run.begin[a] - run.begin[b]);
}

function showTroubles() {
  const panel = document.getElementById("troubles");
  if (!troubles.length) {
    panel.replaceChildren(element("p", { class: "quiet" }, "Each task ran once, and none failed."));
    return;
  }
  const shown = troubles.slice(0, MOST_TROUBLES);
  const some = shown.length < troubles.length ? `The first ${MOST_TROUBLES} of ` : "";
  const all = counted(troubles.length, "attempt");
  const caption = `${some}${all} that failed, were cancelled or were made again`;
  const labels = ["at", "stage", "partition", "attempt", "state", "in the end", "error"];
  const heads = labels.map((label, index) => element("th", index ? { class: "left" } : {}, label));
  panel.replaceChildren(element("table", {}, element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...shown.map(troubleRow))));
}

function troubleRow(row) {
  const moment = momentText(Math.round(run.begin[row] / 100) * 100);
  const button = element("button", { type: "button" }, moment);
  button.addEventListener("click", () => goTo(row));
  const cell = (text, style = "left") => element("td", { class: style, title: text }, text);
  const state = run.state(row);
  return element("tr", { "data-row": row }, element("td", {}, button),
    cell(oneLine(run.stages[run.stage[row]].name)),
    cell(run.partitions[run.attempts.partition[row]]),
    cell(String(run.attempts.number[row] + 1)),
    cell(stateText(row), state === "failed" ? "left some" : "left"),
    cell(outcome(row)), cell(run.errors.get(row) ?? "", "left error"));
}

const MARKS = [
  ["failed", { state: "failed" }], ["cancelled", { state: "cancelled" }],
  ["second copy", { state: "finished", copy: true }], ["still running", { state: "started" }],
];

// The marks that occur, drawn as they are in the timeline.
function showLegend() {
  const seen = new Set();
  for (let row = 0; row < run.count; row++) {
    seen.add(run.state(row));
    if (run.isSecondCopy(row)) seen.add("copy");
  }
  const items = MARKS.filter(([, { state, copy }]) => seen.has(copy ? "copy" : state));
  const entries = items.map(([label, look]) => {
    const sample = element("canvas");
    const context = preparedContext(sample, 22, 12);
    paintAttempt(context, { fill: fills[0], dimmed: false, ...look }, 0, 0, 22, 12);
    return element("li", {}, sample, label);
  });
  if (run.num_left_out) {
    entries.push(element("li", { class: "quiet" },
      `without ${counted(run.num_left_out, "short attempt")} that went well`));
  }
  document.getElementById("legend").replaceChildren(...entries);
}
