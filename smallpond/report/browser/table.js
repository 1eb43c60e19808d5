// The table of the stages.

const SKEWED = 2; // the longest task takes so many times as long as the median one
const BADLY_SKEWED = 5;
const LEAST_TASKS = 3; // among fewer than these there is no median to speak of

const number = (value) => value.toLocaleString("en");

// A column is shown when a stage has something other than nothing in it.
const COLUMNS = [
  { label: "tasks", value: (s) => s.num_tasks, cell: tasksCell, title: "finished of all" },
  { label: "reused", value: (s) => s.num_reused, text: number,
    title: "tasks whose output an earlier run had left" },
  { label: "failed", value: (s) => s.num_failed, text: number, style: "some",
    title: "attempts that failed" },
  { label: "retries", value: (s) => s.num_retries, text: number },
  { label: "copies", value: (s) => s.num_speculative, text: number,
    title: "second copies of tasks that took long" },
  { label: "passes", value: (s) => (s.most_passes > 1 ? s.most_passes : 0), text: number,
    title: "over its data, for lack of memory" },
  { label: "wall", value: (s) => s.wall, text: lengthText,
    title: "from the first start to the last end" },
  { label: "p50", value: (s) => s.p50, text: lengthText, title: "median time of a task" },
  { label: "p95", value: (s) => s.p95, text: lengthText,
    title: "95 of 100 tasks took no longer" },
  { label: "longest", value: (s) => s.longest, text: lengthText },
  { label: "time skew", value: (s) => comparable(s, s.skew_time), cell: skewCell,
    title: "the longest task's time over the median" },
  { label: "row skew", value: (s) => comparable(s, s.skew_rows), cell: skewCell,
    title: "the largest task's rows over the median" },
  { label: "rows in", value: (s) => s.rows_in, text: countText },
  { label: "rows out", value: (s) => s.rows_out, text: countText },
  { label: "bytes in", value: (s) => s.bytes_in, text: sizeText },
  { label: "bytes out", value: (s) => s.bytes_out, text: sizeText },
  { label: "spilled", value: (s) => s.spilled_bytes, text: sizeText,
    title: "written to temporary files for lack of memory" },
  { label: "cpu", value: (s) => s.cpu, text: lengthText, title: "processor time" },
];

let sorting = { label: null, descending: true };

function comparable(stage, skew) {
  return stage.num_finished >= LEAST_TASKS ? skew : 0;
}

function tasksCell(_, stage) {
  const done = Math.min(stage.num_finished + stage.num_reused, stage.num_tasks);
  // A run that went well has done all its tasks; some need no attempt, only a look at the parts.
  const complete = done === stage.num_tasks || (run.over && !run.error);
  return complete ? number(stage.num_tasks) : `${number(done)} / ${number(stage.num_tasks)}`;
}

function skewCell(value) {
  if (!value) return "";
  const text = `×${value < 9.95 ? value.toFixed(1) : countText(value)}`;
  if (value < SKEWED) return text;
  return element("span", { class: value < BADLY_SKEWED ? "mark" : "mark bad" }, text);
}

function showTable() {
  const columns = COLUMNS.filter(({ value }) => run.stages.some((stage) => value(stage)));
  const chosen = columns.find(({ label }) => label === sorting.label);
  const rows = [...run.stages];
  if (chosen) {
    const sign = sorting.descending ? -1 : 1;
    rows.sort((a, b) => sign * (chosen.value(a) - chosen.value(b)) || a.number - b.number);
  } else if (sorting.label === "stage" && sorting.descending) {
    rows.reverse();
  }
  const head = (label, attributes, title = "") => {
    const button = element("button", { type: "button", title }, label);
    button.addEventListener("click", () => sortBy(label));
    const sorted = sorting.label === label;
    const order = sorted ? (sorting.descending ? "descending" : "ascending") : "none";
    return element("th", { ...attributes, "aria-sort": order, scope: "col" }, button);
  };
  const heads = [
    head("stage", { class: "left" }),
    element("th", { class: "when left" }, "when"),
    ...columns.map(({ label, title }) => head(label, {}, title)),
  ];
  const table = element("table", {},
    element("thead", {}, element("tr", {}, ...heads)),
    element("tbody", {}, ...rows.map((stage) => tableRow(stage, columns))));
  document.getElementById("stages").replaceChildren(table);
}

function sortBy(label) {
  const first = label !== "stage"; // the most is what one looks for; stages go from the first
  if (sorting.label !== label) sorting = { label, descending: first };
  else if (sorting.descending === first) sorting = { label, descending: !first };
  else sorting = { label: null, descending: true };
  showTable();
  showEmphasis();
}

function tableRow(stage, columns) {
  const swatch = element("i", { class: `swatch s${colourOf(stage.number)}` });
  const name = element("button", { type: "button", title: stage.name }, swatch,
    oneLine(stage.name));
  const cells = columns.map(({ label, value, text, cell, style }) => {
    const known = value(stage);
    const attributes = { "data-column": label };
    if (style && known) attributes.class = style;
    return element("td", attributes, cell ? cell(known, stage) : known ? text(known) : "");
  });
  const row = element("tr", { "data-stage": stage.number },
    element("td", { class: "name left" }, name), element("td", { class: "when" }, whenBar(stage)),
    ...cells);
  row.addEventListener("click", () => emphasise(stage.number));
  return row;
}

// When a stage ran, within the run.
function whenBar(stage) {
  const bar = svg("svg", { viewBox: "0 0 1000 10", preserveAspectRatio: "none" });
  if (stage.begin === undefined) return bar;
  const scale = 1000 / Math.max(run.wall, 1);
  const said = `from ${momentText(stage.begin)} to ${momentText(stage.end)}`;
  const width = Math.max((stage.end - stage.begin) * scale, 8);
  const x = Math.min(stage.begin * scale, 1000 - width);
  bar.append(svg("title", {}, said), svg("rect", {
    class: `s${colourOf(stage.number)}`, x, width, height: 10,
  }));
  return bar;
}
