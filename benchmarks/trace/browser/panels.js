// Everything that is text: the tooltip, what is selected, the legend, what a search found.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// [label, value] of everything that is known of an item; `begin` and `end` as they were drawn.
function facts(trace, { rank, item, begin, end }) {
  const known = [["begin", momentText(begin)], ["duration", lengthText(end - begin)]];
  const path = rank.path(item, trace.names);
  if (path.length) known.push(["phase", path.join(" › ")]);
  if (item < rank.numWork) {
    known.push(["kind", KINDS[rank.kind[item]]], ["stream", rank.streams[rank.stream[item]]]);
    if (rank.blocks[item]) known.push(["blocks", blocksText(rank, rank.blocks[item])]);
  } else if (!rank.isPhase(item)) {
    known.push(["kind", "under way without a kernel"]);
  } else if (begin === rank.begin[item]) {
    known.push(["kind", "phase of the program"]);
  } else {
    known.push(["kind", "work of a phase"], ["launched", momentText(rank.begin[item])]);
  }
  known.push(["rank", rank.title]);
  return known;
}

function blocksText(rank, blocks) {
  if (!rank.numSms) return `${blocks}`;
  return `${blocks} on ${Math.min(blocks, rank.numSms)} of ${rank.numSms} SMs`;
}

function gapFacts({ rank, begin, end }) {
  return [
    ["begin", momentText(begin)], ["duration", lengthText(end - begin)], ["rank", rank.title],
  ];
}

// A gap of the list (gap -1) may be exposed in one part and idle in another.
function gapName({ rank, gap }) {
  if (gap < 0) return "gap: no compute";
  return rank.gaps.idle[gap] ? "idle: nothing runs" : "exposed: communication without compute";
}

// [name, facts] of what was hit or selected.
function described(trace, thing) {
  const { rank, item } = thing;
  if (item === null) return [gapName(thing), gapFacts(thing)];
  return [trace.names[rank.name[item]], facts(trace, thing)];
}

function factList(known) {
  const list = element("dl");
  for (const [label, value] of known) {
    list.append(element("dt", {}, label), element("dd", {}, value));
  }
  return list;
}

// What lies under the pointer, beside it; several things in one pixel are said to be several.
function showTooltip(trace, hit, x, y) {
  const tooltip = document.getElementById("tooltip");
  tooltip.hidden = !hit;
  if (!hit) return;
  const { count } = hit;
  const [name, known] = described(trace, hit);
  tooltip.replaceChildren(element("strong", {}, name), factList(known));
  if (count > 1) tooltip.append(element("p", {}, `and ${count - 1} more within this pixel`));
  const { width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.max(Math.min(x + 14, window.innerWidth - width - 8), 0)}px`;
  const below = y + 18 + height < window.innerHeight;
  tooltip.style.top = `${below ? y + 18 : Math.max(y - height - 10, 0)}px`;
}

function showSelection(trace, selection) {
  const panel = document.getElementById("selection");
  if (!selection) {
    panel.replaceChildren(element("p", { class: "quiet" }, panel.dataset.empty));
    return;
  }
  const { rank, begin, end } = selection;
  if (!rank) {
    panel.replaceChildren(element("strong", {}, "measured"), factList([
      ["from", momentText(begin)], ["to", momentText(end)], ["duration", lengthText(end - begin)],
    ]));
    return;
  }
  const [name, known] = described(trace, selection);
  const copy = element("button", { type: "button", title: "copy the name" }, "copy");
  copy.addEventListener("click", () => navigator.clipboard?.writeText(name));
  panel.replaceChildren(element("div", { class: "name" }, element("code", {}, name), copy),
    factList(known));
}

function showFound(found, problem) {
  const box = document.getElementById("search");
  box.setAttribute("aria-invalid", problem ? "true" : "false");
  const output = document.getElementById("found");
  for (const id of ["previous", "next"]) {
    document.getElementById(id).disabled = !found?.items.length;
  }
  if (problem || !found) {
    output.textContent = problem;
    return;
  }
  const place = found.current >= 0 ? `${found.current + 1} / ` : "";
  const phases = found.numPhases ? ` + ${counted(found.numPhases, "phase")}` : "";
  output.textContent =
    `${place}${counted(found.numWork, "event")}${phases} · ${lengthText(found.workTime)}`;
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

const LEGEND = {
  F: "forward", B: "backward", I: "input gradient", W: "weight gradient",
  FB: "forward ‖ backward", compute: "compute", payload: "communication", waiting: "waiting",
  window: "under way", copy: "copy", unclassified: "unclassified", phase: "phase",
};

// Swatches of what occurs.
function showLegend({ ranks }) {
  const used = new Set(ranks.flatMap((rank) => [...new Set(rank.style)]));
  const legend = document.getElementById("legend");
  const entry = (name, label) => (
    element("li", {}, element("i", { class: `swatch ${name}` }), label));
  for (const [name, label] of Object.entries(LEGEND)) {
    if (used.has(STYLE[name])) legend.append(entry(name, label));
  }
  const gaps = new Set(ranks.flatMap((rank) => [...new Set(rank.gaps.idle)]));
  if (gaps.has(0)) legend.append(entry("exposed", "exposed"));
  if (gaps.has(1)) legend.append(entry("idle", "idle"));
}
